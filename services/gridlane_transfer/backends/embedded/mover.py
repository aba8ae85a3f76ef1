"""The embedded mover's side in the server: keeps worker processes, hands out orders, matches
answers.

Responsible for the processes (started by exec, never by fork: grpc does not survive it; started
anew when one dies), for giving up copies that hang, and for the protocol of `worker`. What is moved
and tried again is decided by the reconciler.

A copy hangs when its worker tells nothing of it for `stall_s`: a file system that does not answer
holds a thread, which nobody can end but with its process. The copy is answered as lost at once. Its
worker gets no more orders and another takes its place; it is killed as soon as its other copies
have ended or hang as well. A copy whose time is over is ended, and hangs when it does not end soon.
"""

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from gridlane_kit import logs
from gridlane_kit.version import VERSION
from gridlane_transfer.backends.base import (
    BackendReport,
    FileInfo,
    Location,
    MayPublish,
    Moved,
    MoveOrder,
    TransferBackend,
)
from gridlane_transfer.backends.embedded.checksums import CHECKSUMS
from gridlane_transfer.backends.embedded.tasks import ends_of, place_of, task_of
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.urls import SCHEMES
from gridlane_transfer.moving.failures import Failed, FailureClass, canceled

_WORKER = "gridlane_transfer.backends.embedded.worker"
# Lines of the protocol carry a few paths at most.
_LINE_LIMIT = 1 << 20
_RESTART_S = 1.0
_STOP_S = 5.0
# How often within `stall_s` copies that hang are looked for.
_LOOKS = 8
# How long a copy whose time is over may take to end.
_END_S = 5.0
# How often a copy may meet silence before it is given up.
_SILENCES = 5
# How long the answer to a question may take.
_QUESTION_S = 30.0
_DEFAULT_HTTP = HttpOptions()

_log = logs.logger("transfer.mover")


@dataclass(slots=True)
class _Order:
    """An order under way.

    Parameters:
        key: names it to the worker: a file's number may run twice, with two epochs.
        message: what the worker is told, but for the key.
        places: what messages call its ends.
        quick: a question, or a cleaning, which does not wait until copies have ended.
        answer: the worker's, or the failure.
    """

    key: int
    message: Mapping[str, Any]
    places: str
    answer: "asyncio.Future[Mapping[str, Any] | Failed]"
    may_publish: MayPublish | None = None
    timeout_s: float | None = None
    quick: bool = False
    moved: int = 0
    heard_s: float = 0.0
    """When its worker last told of it, on the event loop's clock."""
    aborted: bool = False
    overdue_s: float | None = None
    """When its time was over; None as long as it is not."""
    worker: "_Worker | None" = None
    given_up: bool = False
    """Whether its worker did not end it: nobody has removed what is half written."""


@dataclass(slots=True, eq=False)
class _Worker:
    """One process and what it works on; `retired` when a copy of its hangs."""

    process: asyncio.subprocess.Process
    orders: dict[int, _Order] = field(default_factory=dict)
    retired: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def copies(self) -> int:
        """How many of its slots are taken."""
        return sum(1 for order in self.orders.values() if not order.quick)


class EmbeddedMover(TransferBackend):
    """Copies between directories and storages that speak HTTP or WebDAV.

    Parameters:
        workers: processes.
        copies_per_worker: copies that one of them does at once, in threads.
        stall_s: after how many seconds without progress a copy is given up.
        http: what is configured for remote storages.
    """

    name = "embedded"
    checksums = CHECKSUMS
    protocols = frozenset({"file", *SCHEMES})
    capabilities = frozenset(
        {
            "ALTERNATIVE_SOURCES",
            "STREAMS",
            "BANDWIDTH_LIMIT",
            "THIRD_PARTY_COPY",
            "TARGET_REPORT",
            "DELETION",
            "STRICT_COPY",
            "KEEP_FAILED_TARGET",
            "ATTEMPT_TIMEOUT",
            "SCITAGS",
        }
    )

    def __init__(
        self,
        *,
        workers: int,
        copies_per_worker: int,
        stall_s: float,
        http: HttpOptions = _DEFAULT_HTTP,
    ) -> None:
        self._wanted = workers
        self._slots = copies_per_worker
        self._stall_s = stall_s
        # A connection that is silent fails by itself long before its copy is taken for hung.
        self._http = replace(http, idle_s=min(http.idle_s, stall_s / _SILENCES))
        self._workers: list[_Worker] = []
        self._lives: dict[asyncio.Task[None], _Worker] = {}
        self._queue: deque[_Order] = deque()
        self._questions: deque[_Order] = deque()
        self._by_number: dict[int, _Order] = {}
        self._keys = 0
        self._keepers: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._judging: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        started = [asyncio.Event() for _ in range(self._wanted)]
        self._keepers = [
            asyncio.create_task(self._keep(event), name="transfer-worker") for event in started
        ]
        self._watching = asyncio.create_task(self._give_up_stalled(), name="transfer-stalled")
        for event in started:
            await event.wait()

    async def stop(self) -> None:
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        for judging in self._judging:
            judging.cancel()
        for worker in self._lives.values():
            # The end of its input has a worker abort its copies and end.
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        if self._keepers:
            _, late = await asyncio.wait([*self._keepers, *self._lives], timeout=_STOP_S)
            for worker in self._lives.values():
                _kill(worker)
            if late:
                # One that hangs in the kernel ends when its file system answers.
                await asyncio.wait(late, timeout=_STOP_S)
        for order in (*self._questions, *self._queue):
            _answer(order, _lost("the server is stopping"))
        self._questions.clear()
        self._queue.clear()

    def capacity(self) -> int:
        return self._wanted * self._slots

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    async def move(self, order: MoveOrder, may_publish: MayPublish | None = None) -> Moved | Failed:
        task = {"op": "copy", "task": asdict(task_of(order)), "guarded": may_publish is not None}
        entry = self._order(task, ends_of(order))
        entry.may_publish, entry.timeout_s = may_publish, order.timeout_s
        done = await self._submit(entry, order.number)
        if isinstance(done, Failed):
            if entry.given_up and not order.disable_cleanup:
                await self.clean(replace(order, epoch=order.epoch + 1))
            return replace(done, moved_bytes=entry.moved)
        source = order.sources[done["source"]]
        return Moved(source, done["size_bytes"], done["checksums"], done.get("adopted", False))

    async def clean(self, order: MoveOrder) -> None:
        task = {"op": "clean", "task": asdict(task_of(order))}
        entry = self._order(task, ends_of(order))
        entry.quick, entry.timeout_s = True, _QUESTION_S
        await self._submit(entry, order.number)

    async def stat(self, location: Location, checksums: Sequence[str] = ()) -> FileInfo | Failed:
        message = {"op": "stat", "place": asdict(place_of(location)), "checksums": list(checksums)}
        done = await self._ask(message, location)
        return done if isinstance(done, Failed) else FileInfo(**done)

    async def remove(self, location: Location) -> bool | Failed:
        message = {"op": "remove", "place": asdict(place_of(location))}
        done = await self._ask(message, location)
        return done if isinstance(done, Failed) else bool(done["removed"])

    def abort(self, number: int) -> None:
        order = self._by_number.get(number)
        if order is None:
            return
        order.aborted = True
        if order.worker is not None:
            _send(order.worker, {"op": "abort", "id": order.key})

    def progress(self, number: int) -> int | None:
        order = self._by_number.get(number)
        return None if order is None else order.moved

    def report(self) -> BackendReport:
        alive = len(self._workers)
        message = "" if alive == self._wanted else f"{alive} of {self._wanted} worker processes run"
        return BackendReport(self.name, alive > 0, VERSION, message)

    def _order(self, message: Mapping[str, Any], places: str) -> _Order:
        self._keys += 1
        answer = asyncio.get_running_loop().create_future()
        return _Order(self._keys, message, places, answer)

    async def _ask(
        self, message: Mapping[str, Any], location: Location
    ) -> Mapping[str, Any] | Failed:
        """Have a question answered, however many copies wait."""
        entry = self._order(message, location.shown)
        entry.quick, entry.timeout_s = True, _QUESTION_S
        return await self._submit(entry)

    async def _submit(self, entry: _Order, number: int | None = None) -> Mapping[str, Any] | Failed:
        """Have an order carried out.

        Parameters:
            number: the file's, of which there is one order at a time; None: of no file.
        """
        if self._stopping:
            return _lost("the server is stopping")
        if number is not None:
            self._supersede(number)
            self._by_number[number] = entry
        (self._questions if entry.quick else self._queue).append(entry)
        self._hand_out()
        try:
            return await entry.answer
        finally:
            if number is not None and self._by_number.get(number) is entry:
                del self._by_number[number]

    def _supersede(self, number: int) -> None:
        """End an order of an earlier epoch: nobody waits for what it would publish."""
        earlier = self._by_number.get(number)
        if earlier is not None and earlier in self._queue:
            self._queue.remove(earlier)
            _answer(earlier, canceled())
        else:
            self.abort(number)

    def _hand_out(self) -> None:
        while self._workers and (self._questions or self._queue):
            worker = min(self._workers, key=lambda candidate: candidate.copies)
            if self._questions:
                self._give(worker, self._questions.popleft())
            elif worker.copies < self._slots:
                self._give(worker, self._queue.popleft())
            else:
                return

    def _give(self, worker: _Worker, order: _Order) -> None:
        loop = asyncio.get_running_loop()
        order.worker = worker
        order.heard_s = loop.time()
        worker.orders[order.key] = order
        _send(worker, {**order.message, "id": order.key})
        if order.timeout_s is not None:
            loop.call_later(order.timeout_s, self._end_overdue, order)
        if order.aborted:
            _send(worker, {"op": "abort", "id": order.key})

    def _end_overdue(self, order: _Order) -> None:
        """End an order whose time is over; one that does not end hangs."""
        worker = order.worker
        if worker is None or order.answer.done():
            return
        loop = asyncio.get_running_loop()
        order.overdue_s = loop.time()
        _send(worker, {"op": "abort", "id": order.key})
        loop.call_later(_END_S, partial(self._give_up, worker, before_s=0.0))

    async def _keep(self, started: asyncio.Event) -> None:
        """Have one worker running until the mover stops."""
        while not self._stopping:
            try:
                worker = _Worker(await self._spawn())
            except OSError as error:
                _log.error("a worker process of the mover cannot be started", error=str(error))
                started.set()
                await asyncio.sleep(_RESTART_S)
                continue
            self._workers.append(worker)
            life = asyncio.create_task(self._live(worker), name="transfer-worker-life")
            self._lives[life] = worker
            life.add_done_callback(self._lives.pop)
            started.set()
            self._hand_out()
            await _first_of(life, worker.retired)
            if life.done() and not self._stopping:
                await asyncio.sleep(0 if worker.orders else _RESTART_S)

    async def _live(self, worker: _Worker) -> None:
        """Hear a worker until it has ended."""
        try:
            await self._listen(worker)
        finally:
            self._dismiss(worker)
            _kill(worker)
            code = await worker.process.wait()
            for order in worker.orders.values():
                order.given_up = True
                _answer(order, _lost(f"the mover's worker process ended with {code}"))
            if not self._stopping:
                _log.warning("a worker process of the mover ended", code=code)

    async def _give_up_stalled(self) -> None:
        interval_s = self._stall_s / _LOOKS
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            await asyncio.sleep(interval_s)
            if loop.time() - begun > 2 * interval_s:
                continue  # this process itself was held up, and may have been told meanwhile
            for worker in list(self._lives.values()):
                self._give_up(worker, before_s=loop.time() - self._stall_s)

    def _give_up(self, worker: _Worker, *, before_s: float) -> None:
        """Answer the orders of a worker that were not heard of since a time, or do not end."""
        overdue_s = asyncio.get_running_loop().time() - _END_S
        stalled = [
            order
            for order in worker.orders.values()
            if order.heard_s < before_s
            or (order.overdue_s is not None and order.overdue_s <= overdue_s)
        ]
        for order in stalled:
            del worker.orders[order.key]
            order.given_up = True
            # Should the thread come back after all, it publishes nothing any more.
            _send(worker, {"op": "abort", "id": order.key})
            late = order.overdue_s is not None
            _answer(order, _timed_out(order) if late else self._stalled(order))
        if stalled:
            _log.warning("copies hang", pid=worker.process.pid, copies=len(stalled))
            self._dismiss(worker)
            worker.retired.set()
        if worker.retired.is_set() and not worker.orders:
            _kill(worker)

    def _dismiss(self, worker: _Worker) -> None:
        """Give a worker no more orders, from this moment on."""
        if worker in self._workers:
            self._workers.remove(worker)

    def _stalled(self, order: _Order) -> Failed:
        return _lost(
            f"the copy made no progress for {self._stall_s:g} s and was given up:"
            f" the storage of {order.places} does not answer"
        )

    async def _spawn(self) -> asyncio.subprocess.Process:
        # Failpoints are the server's: a worker that died at one would be started to die again.
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith("GRIDLANE_FAILPOINT")
        }
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            _WORKER,
            str(self._slots),
            str(os.getpid()),
            json.dumps(asdict(self._http)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
            env=environment,
        )

    async def _listen(self, worker: _Worker) -> None:
        output = worker.process.stdout
        while output is not None and (line := await output.readline()):
            message = json.loads(line)
            order = worker.orders.get(message["id"])
            if order is None:
                continue
            order.heard_s = asyncio.get_running_loop().time()
            if "whole" in message:
                judging = asyncio.create_task(_judge(worker, order), name="transfer-publish")
                self._judging.add(judging)
                judging.add_done_callback(self._judging.discard)
                continue
            if "moved" in message:
                order.moved = message["moved"] or order.moved
                continue
            del worker.orders[order.key]
            _answer(order, _outcome(order, message))
            self._hand_out()


async def _judge(worker: _Worker, order: _Order) -> None:
    """Tell a worker whether it may publish."""
    allowed = order.may_publish is None or await order.may_publish()
    _send(worker, {"op": "publish" if allowed else "abort", "id": order.key})


async def _first_of(life: "asyncio.Task[None]", event: asyncio.Event) -> None:
    """Wait until a worker has ended or is retired."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([life, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _kill(worker: _Worker) -> None:
    if worker.process.returncode is None:
        worker.process.kill()


def _answer(order: _Order, outcome: Mapping[str, Any] | Failed) -> None:
    if not order.answer.done():
        order.answer.set_result(outcome)


def _send(worker: _Worker, message: Mapping[str, Any]) -> None:
    stdin = worker.process.stdin
    if stdin is not None and not stdin.is_closing():
        stdin.write(f"{json.dumps(message, separators=(',', ':'))}\n".encode())


def _lost(message: str) -> Failed:
    return Failed(FailureClass.BACKEND_LOST, message, recoverable=True)


def _timed_out(order: _Order) -> Failed:
    return Failed(
        FailureClass.TIMED_OUT,
        f"the attempt took longer than {order.timeout_s:g} s: {order.places}",
        "allow more time, or ask who runs the storages why it takes so long",
        recoverable=True,
    )


def _outcome(order: _Order, message: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
    if "failed" not in message:
        done: Mapping[str, Any] = message["done"]
        return done
    failed = message["failed"]
    outcome = Failed(**{**failed, "failure_class": FailureClass(failed["failure_class"])})
    ended = outcome.failure_class is FailureClass.CANCELED and not order.aborted
    return _timed_out(order) if ended and order.overdue_s is not None else outcome
