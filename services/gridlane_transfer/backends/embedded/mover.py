"""The embedded mover's side in the server: keeps worker processes, hands out orders, matches
answers.

Responsible for the processes (started by exec, never by fork: grpc does not survive it; started
anew when one dies) and for the protocol of `worker`. What is moved and tried again is decided by
the reconciler.
"""

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gridlane_kit import logs
from gridlane_kit.version import VERSION
from gridlane_transfer.backends.base import (
    BackendReport,
    Location,
    Moved,
    MoveOrder,
    TransferBackend,
)
from gridlane_transfer.backends.embedded.copying import CHECKSUMS, CopyTask
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.failures import Failed, FailureClass

_WORKER = "gridlane_transfer.backends.embedded.worker"
# Lines of the protocol carry a few paths at most.
_LINE_LIMIT = 1 << 20
_RESTART_S = 1.0
_STOP_S = 5.0

_log = logs.logger("transfer.mover")


@dataclass(slots=True)
class _Order:
    """An order under way. `key` names it to the worker: a file's number may run twice, with two
    epochs.
    """

    key: int
    order: MoveOrder
    operation: str
    answer: "asyncio.Future[Moved | Failed]"
    moved: int = 0
    aborted: bool = False
    worker: "_Worker | None" = None


@dataclass(slots=True, eq=False)
class _Worker:
    """One process and what it works on."""

    process: asyncio.subprocess.Process
    orders: dict[int, _Order] = field(default_factory=dict)


class EmbeddedMover(TransferBackend):
    """Copies between `file` storage elements.

    Parameters:
        workers: processes.
        copies_per_worker: copies that one of them does at once, in threads.
    """

    name = "embedded"
    checksums = CHECKSUMS

    def __init__(self, *, workers: int, copies_per_worker: int) -> None:
        self._wanted = workers
        self._slots = copies_per_worker
        self._workers: list[_Worker] = []
        self._queue: deque[_Order] = deque()
        self._by_number: dict[int, _Order] = {}
        self._keys = 0
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        started = [asyncio.Event() for _ in range(self._wanted)]
        self._keepers = [
            asyncio.create_task(self._keep(event), name="transfer-worker") for event in started
        ]
        for event in started:
            await event.wait()

    async def stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            # The end of its input has a worker abort its copies and end.
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=_STOP_S)
            for worker in list(self._workers):
                worker.process.kill()
            if late:
                await asyncio.wait(late)
        while self._queue:
            _answer(self._queue.popleft(), _lost("the server is stopping"))

    def capacity(self) -> int:
        return self._wanted * self._slots

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    async def move(self, order: MoveOrder) -> Moved | Failed:
        return await self._submit("copy", order)

    async def clean(self, order: MoveOrder) -> None:
        await self._submit("clean", order)

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

    async def _submit(self, operation: str, order: MoveOrder) -> Moved | Failed:
        if self._stopping:
            return _lost("the server is stopping")
        self._keys += 1
        answer: asyncio.Future[Moved | Failed] = asyncio.get_running_loop().create_future()
        entry = _Order(self._keys, order, operation, answer)
        self._by_number[order.number] = entry
        self._queue.append(entry)
        self._hand_out()
        try:
            return await answer
        finally:
            if self._by_number.get(order.number) is entry:
                del self._by_number[order.number]

    def _hand_out(self) -> None:
        while self._queue and self._workers:
            worker = min(self._workers, key=lambda candidate: len(candidate.orders))
            if len(worker.orders) >= self._slots:
                return
            order = self._queue.popleft()
            order.worker = worker
            worker.orders[order.key] = order
            task = asdict(_task(order.order))
            _send(worker, {"op": order.operation, "id": order.key, "task": task})
            if order.aborted:
                _send(worker, {"op": "abort", "id": order.key})

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
            started.set()
            self._hand_out()
            try:
                await self._listen(worker)
            finally:
                self._workers.remove(worker)
            code = await worker.process.wait()
            for order in worker.orders.values():
                _answer(order, _lost(f"the mover's worker process ended with {code}"))
            if not self._stopping:
                _log.warning("a worker process of the mover ended", code=code)
                await asyncio.sleep(0 if worker.orders else _RESTART_S)

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
            if "moved" in message:
                order.moved = message["moved"]
                continue
            del worker.orders[order.key]
            _answer(order, _outcome(order.order, message))
            self._hand_out()


def _answer(order: _Order, outcome: Moved | Failed) -> None:
    if not order.answer.done():
        order.answer.set_result(outcome)


def _send(worker: _Worker, message: Mapping[str, Any]) -> None:
    stdin = worker.process.stdin
    if stdin is not None and not stdin.is_closing():
        stdin.write(f"{json.dumps(message, separators=(',', ':'))}\n".encode())


def _lost(message: str) -> Failed:
    return Failed(FailureClass.BACKEND_LOST, message, recoverable=True)


def _outcome(order: MoveOrder, message: Mapping[str, Any]) -> Moved | Failed:
    if "failed" in message:
        failed = message["failed"]
        return Failed(**{**failed, "failure_class": FailureClass(failed["failure_class"])})
    done = message["done"]
    return Moved(order.sources[done["source"]], done["size_bytes"], done["checksums"])


def _task(order: MoveOrder) -> CopyTask:
    return CopyTask(
        number=order.number,
        epoch=order.epoch,
        sources=_places(order.sources),
        target=Place(order.target.base, order.target.relative),
        overwrite=order.overwrite,
        verify_source=order.verify_source,
        verify_target=order.verify_target,
        size_bytes=order.size_bytes,
        expected=order.expected,
        checksums=order.checksums,
        resumed=order.resumed,
    )


def _places(locations: Sequence[Location]) -> list[Place]:
    return [Place(location.base, location.relative) for location in locations]
