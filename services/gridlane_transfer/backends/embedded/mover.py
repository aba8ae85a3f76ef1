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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
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
    Ordered,
    TransferBackend,
)
from gridlane_transfer.backends.embedded.checksums import CHECKSUMS
from gridlane_transfer.backends.embedded.orders import (
    BUNDLED_BYTES,
    BUNDLED_FILES,
    Order,
    Slot,
    Worker,
    answer,
    is_small,
    lost,
    outcome_of,
    timed_out,
    unjudged,
)
from gridlane_transfer.backends.embedded.tasks import ends_of, place_of, task_of
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.urls import SCHEMES
from gridlane_transfer.channels.bundles import Bundle
from gridlane_transfer.moving.failures import Failed, canceled

_WORKER = "gridlane_transfer.backends.embedded.worker"
# Lines of the protocol carry a few paths for each file of a bundle at most.
_LINE_LIMIT = 1 << 24
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


class EmbeddedMover(TransferBackend):
    """Copies between directories and storages that speak HTTP or WebDAV.

    Parameters:
        workers: processes.
        copies_per_worker: copies that one of them does at once, in threads.
        stall_s: after how many seconds without progress a copy is given up.
        http: what is configured for remote storages.
    """

    name = "embedded"
    bundle = Bundle(BUNDLED_FILES, BUNDLED_BYTES)
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
        self._workers: list[Worker] = []
        self._lives: dict[asyncio.Task[None], Worker] = {}
        self._queue: deque[Slot] = deque()
        self._questions: deque[Slot] = deque()
        self._by_number: dict[int, Order] = {}
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
                worker.kill()
            if late:
                # One that hangs in the kernel ends when its file system answers.
                await asyncio.wait(late, timeout=_STOP_S)
        for slot in chain(self._questions, self._queue):
            for order in slot.orders:
                answer(order, lost("the server is stopping"))
        self._questions.clear()
        self._queue.clear()

    def capacity(self) -> int:
        return self._wanted * self._slots

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    async def move(self, order: MoveOrder, may_publish: MayPublish | None = None) -> Moved | Failed:
        (outcome,) = await self.move_bundle([(order, may_publish)])
        return outcome

    def moves_together(self, order: MoveOrder) -> bool:
        return is_small(order)

    async def move_bundle(self, orders: Sequence[Ordered]) -> list[Moved | Failed]:
        entries = [self._copy(*ordered) for ordered in orders]
        # From the beginning on each of them can be aborted.
        with self._known(list(zip((order.number for order, _ in orders), entries, strict=True))):
            for group in _groups(orders, entries):
                await self._carry_out(group)
        await asyncio.gather(
            *(
                self.clean(replace(order, epoch=order.epoch + 1))
                for (order, _), entry in zip(orders, entries, strict=True)
                if entry.given_up and not order.disable_cleanup
            )
        )
        return [_outcome(order, entry) for (order, _), entry in zip(orders, entries, strict=True)]

    def _copy(self, order: MoveOrder, may_publish: MayPublish | None) -> Order:
        guarded = may_publish is not None
        entry = self._order("copy", ends_of(order), task=task_of(order), guarded=guarded)
        entry.may_publish, entry.timeout_s = may_publish, order.timeout_s
        return entry

    async def clean(self, order: MoveOrder) -> None:
        entry = self._order("clean", ends_of(order), task=task_of(order))
        entry.quick, entry.timeout_s = True, _QUESTION_S
        with self._known([(order.number, entry)]):
            await self._carry_out([entry])

    async def stat(self, location: Location, checksums: Sequence[str] = ()) -> FileInfo | Failed:
        done = await self._ask("stat", location, checksums=list(checksums))
        return done if isinstance(done, Failed) else FileInfo(**done)

    async def remove(self, location: Location) -> bool | Failed:
        done = await self._ask("remove", location)
        return done if isinstance(done, Failed) else bool(done["removed"])

    def abort(self, number: int) -> None:
        order = self._by_number.get(number)
        if order is None:
            return
        order.aborted = True
        if order.worker is not None:
            order.worker.abort(order)

    def progress(self, number: int) -> int | None:
        order = self._by_number.get(number)
        return None if order is None else order.moved

    def report(self) -> BackendReport:
        alive = len(self._workers)
        message = "" if alive == self._wanted else f"{alive} of {self._wanted} worker processes run"
        return BackendReport(self.name, alive > 0, VERSION, message)

    def _order(self, op: str, places: str, **more: Any) -> Order:
        self._keys += 1
        return Order(self._keys, {"op": op, "id": self._keys, **more}, places)

    async def _ask(self, op: str, location: Location, **more: Any) -> Mapping[str, Any] | Failed:
        """Have a question answered, however many copies wait."""
        entry = self._order(op, location.shown, place=place_of(location), **more)
        entry.quick, entry.timeout_s = True, _QUESTION_S
        await self._carry_out([entry])
        return entry.answer()

    @contextmanager
    def _known(self, entries: Sequence[tuple[int, Order]]) -> Iterator[None]:
        """Have orders of files found by their numbers: of each file there is one at a time."""
        for number, entry in entries:
            self._supersede(number)
            self._by_number[number] = entry
        try:
            yield
        finally:
            for number, entry in entries:
                if self._by_number.get(number) is entry:
                    del self._by_number[number]

    async def _carry_out(self, group: list[Order]) -> None:
        """Have an order, or several together, carried out: comes back when all are answered."""
        slot = Slot(group, asyncio.get_running_loop().create_future())
        if self._stopping:
            for entry in group:
                answer(entry, lost("the server is stopping"))
            return
        (self._questions if group[0].quick else self._queue).append(slot)
        self._hand_out()
        await asyncio.wait([slot.answered])

    def _supersede(self, number: int) -> None:
        """End an order of an earlier epoch: nobody waits for what it would publish."""
        earlier = self._by_number.get(number)
        if earlier is None:
            return
        for slot in self._queue:
            if earlier in slot.orders:
                slot.orders.remove(earlier)
                if not slot.orders:
                    self._queue.remove(slot)
                answer(earlier, canceled())
                return
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

    def _give(self, worker: Worker, slot: Slot) -> None:
        loop = asyncio.get_running_loop()
        slot.heard_s = loop.time()
        worker.take(slot)
        for order in slot.orders:
            if order.timeout_s is not None:
                loop.call_later(order.timeout_s, self._end_overdue, order)
            if order.aborted:
                worker.abort(order)

    def _end_overdue(self, order: Order) -> None:
        """End an order whose time is over; one that does not end hangs."""
        worker = order.worker
        if worker is None or order.outcome is not None:
            return
        loop = asyncio.get_running_loop()
        order.overdue_s = loop.time()
        worker.abort(order)
        loop.call_later(_END_S, partial(self._give_up, worker, before_s=0.0))

    async def _keep(self, started: asyncio.Event) -> None:
        """Have one worker running until the mover stops."""
        while not self._stopping:
            try:
                worker = Worker(await self._spawn())
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

    async def _live(self, worker: Worker) -> None:
        """Hear a worker until it has ended."""
        try:
            await self._listen(worker)
        finally:
            self._dismiss(worker)
            worker.kill()
            code = await worker.process.wait()
            for order in worker.orders.values():
                order.given_up = True
                ended = f"the mover's worker process ended with {code}"
                answer(order, lost(ended, order.slot))
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

    def _give_up(self, worker: Worker, *, before_s: float) -> None:
        """Answer the orders of a worker that were not heard of since a time, or do not end."""
        overdue_s = asyncio.get_running_loop().time() - _END_S
        stalled = [
            order
            for order in worker.orders.values()
            if order.slot.heard_s < before_s
            or (order.overdue_s is not None and order.overdue_s <= overdue_s)
        ]
        for order in stalled:
            worker.drop(order)
            order.given_up = True
            # Should the thread come back after all, it publishes nothing any more.
            worker.abort(order)
            late = order.overdue_s is not None
            answer(order, timed_out(order) if late else self._stalled(order))
        if stalled:
            _log.warning("copies hang", pid=worker.process.pid, copies=len(stalled))
            self._dismiss(worker)
            worker.retired.set()
        if worker.retired.is_set() and not worker.orders:
            worker.kill()

    def _dismiss(self, worker: Worker) -> None:
        """Give a worker no more orders, from this moment on."""
        if worker in self._workers:
            self._workers.remove(worker)

    def _stalled(self, order: Order) -> Failed:
        return lost(
            f"the copy made no progress for {self._stall_s:g} s and was given up:"
            f" the storage of {order.places} does not answer",
            order.slot,
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

    async def _listen(self, worker: Worker) -> None:
        output = worker.process.stdout
        while output is not None and (line := await output.readline()):
            told = json.loads(line)
            for message in told if isinstance(told, list) else [told]:
                self._hear(worker, message)
            self._hand_out()

    def _hear(self, worker: Worker, message: Mapping[str, Any]) -> None:
        """Take note of what a worker tells of an order."""
        order = worker.orders.get(message["id"])
        if order is None:
            return
        order.slot.heard_s = asyncio.get_running_loop().time()
        if "whole" in message:
            judging = asyncio.create_task(_judge(worker, order), name="transfer-publish")
            self._judging.add(judging)
            judging.add_done_callback(self._judging.discard)
        elif "moved" in message:
            order.moved = message["moved"] or order.moved
        else:
            worker.drop(order)
            answer(order, outcome_of(order, message))


def _outcome(order: MoveOrder, entry: Order) -> Moved | Failed:
    """What became of an order that is answered."""
    done = entry.answer()
    if isinstance(done, Failed):
        return replace(done, moved_bytes=entry.moved)
    source = order.sources[done["source"]]
    return Moved(source, done["size_bytes"], done["checksums"], done["adopted"])


async def _judge(worker: Worker, order: Order) -> None:
    """Tell a worker whether it may publish."""
    try:
        allowed = order.may_publish is None or await order.may_publish()
    except Exception as error:
        # Nobody would ever give the leave that it, and all that are copied with it, wait for.
        _log.exception("a copy was not judged")
        answer(order, unjudged(error))
        allowed = False
    worker.send({"op": "publish" if allowed else "abort", "id": order.key})


async def _first_of(life: "asyncio.Task[None]", event: asyncio.Event) -> None:
    """Wait until a worker has ended or is retired."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([life, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _groups(orders: Sequence[Ordered], entries: Sequence[Order]) -> Iterator[list[Order]]:
    """Those that are carried out together, then the others one by one."""
    small = [is_small(order) for order, _ in orders]
    if together := [entry for entry, fits in zip(entries, small, strict=True) if fits]:
        yield together
    yield from ([entry] for entry, fits in zip(entries, small, strict=True) if not fits)
