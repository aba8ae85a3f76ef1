"""A thousand watchers and a hundred changes a second: when each watcher hears of its change.

Every watcher follows a transfer job of its own, over a stream of its own. Files that wait are
cancelled one by one at an even pace, each of another job; a time is taken from the beginning of the
call that cancels to the event's arrival. A change that does not come, or comes twice, ends the
measurement. Files are not moved (`room_server`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Final

import psutil
from grpc import aio

from benchmarks.load import CallFailedError
from benchmarks.processes import cpu_seconds
from benchmarks.row import Bound, Engine, Measured, Row, Target
from benchmarks.run import Run
from benchmarks.service import Service, service
from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)

_WATCHERS: Final = 1_000
_FEW_WATCHERS: Final = 50
_MANY_STORED: Final = 100_000
_CHANGES_A_SECOND: Final = 100
_WAVES: Final = 3
_A_CHANNEL: Final = 50
_A_BATCH: Final = 100
_LATE_S: Final = 30.0
_CANCELED: Final = transfer_job_pb2.FILE_TRANSFER_STATE_CANCELED


async def _measure(run: Run, *, engine: Engine) -> Measured:
    watchers = _WATCHERS if run.effort.stored >= _MANY_STORED else _FEW_WATCHERS
    async with service(run, "transfer", engine) as measured:
        jobs = await _submit(measured, watchers)
        before = psutil.Process(measured.pid).memory_info().rss
        async with _watched(measured, jobs) as watches:
            cpu_s, begun = cpu_seconds(measured.pid), time.perf_counter()
            waves = [await _wave(measured, watches, number) for number in range(_WAVES)]
            wall_s = time.perf_counter() - begun
            cores = (cpu_seconds(measured.pid) - cpu_s) / wall_s
            more = psutil.Process(measured.pid).memory_info().rss - before
        return Measured.of(
            [quantiles(times, n=100)[98] for times in waves],
            watchers=watchers,
            changes_a_second=watchers * _WAVES / wall_s,
            median_ms=median(time_ms for times in waves for time_ms in times),
            server_cores=cores,
            mib_for_watchers=more / (1 << 20),
        )


@dataclass
class _Watch:
    """What one watcher has heard.

    Parameters:
        heard: when each file of its job was told to be cancelled, by the file's name.
        follows: set with the first word of the job.
    """

    job: str
    heard: dict[str, float] = field(default_factory=dict)
    follows: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(
        self, stub: "transfer_service_pb2_grpc.TransferServiceAsyncStub", token: str
    ) -> None:
        """Follow the job until this is cancelled.

        Raises:
            CallFailedError: a change came twice.
        """
        request = transfer_service_pb2.WatchTransferJobsRequest(names=[self.job])
        metadata = (("authorization", token),)
        async for response in stub.WatchTransferJobs(request, metadata=metadata):
            now = time.perf_counter()
            self.follows.set()
            for event in response.events:
                if event.HasField("file") and event.file.state == _CANCELED:
                    if event.file.name in self.heard:
                        raise CallFailedError(f"{event.file.name} was told twice")
                    self.heard[event.file.name] = now


async def _submit(measured: Service, count: int) -> Sequence[str]:
    """Submits jobs, each with a file for each wave and one that stays; their names."""
    stub = transfer_service_pb2_grpc.TransferServiceStub(measured.channel)
    store = (measured.directory / "storage" / "local").as_uri()
    names: list[str] = []
    for first in range(0, count, _A_BATCH):
        requests = [
            transfer_service_pb2.SubmitTransferJobRequest(
                transfer_job=transfer_job_pb2.TransferJob(
                    vo="local", files=list(_files(store, number))
                )
            )
            for number in range(first, min(first + _A_BATCH, count))
        ]
        batch = transfer_service_pb2.BatchSubmitTransferJobsRequest(requests=requests)
        answer = await stub.BatchSubmitTransferJobs(batch, metadata=measured.metadata)
        names += [result.transfer_job.name for result in answer.results]
    return names


def _files(store: str, job: int) -> Iterator[transfer_job_pb2.FileTransfer]:
    for number in range(_WAVES + 1):
        yield transfer_job_pb2.FileTransfer(
            source=f"{store}/raw/{job}/{number}.csv", target=f"{store}/copies/{job}/{number}.csv"
        )


@asynccontextmanager
async def _watched(measured: Service, jobs: Sequence[str]) -> AsyncIterator[Sequence[_Watch]]:
    """A watcher of each job, which has heard of it; some of them share a connection."""
    watches = [_Watch(job) for job in jobs]
    token = dict(measured.metadata)["authorization"]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        listening: list[asyncio.Task[None]] = []
        for first in range(0, len(watches), _A_CHANNEL):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(
                aio.insecure_channel(measured.address, options)
            )
            stub = transfer_service_pb2_grpc.TransferServiceStub(channel)
            some = watches[first : first + _A_CHANNEL]
            listening += [group.create_task(watch.listen(stub, token)) for watch in some]
        for watch in watches:
            await asyncio.wait_for(watch.follows.wait(), _LATE_S)
        yield watches
        for task in listening:
            task.cancel()


async def _wave(measured: Service, watches: Sequence[_Watch], number: int) -> Sequence[float]:
    """Cancels a file of each job in turn; how long each took to be heard of, in milliseconds.

    Raises:
        CallFailedError: one was not heard of.
    """
    stub = transfer_service_pb2_grpc.TransferServiceStub(measured.channel)
    begun: dict[str, float] = {}

    async def cancel(watch: _Watch) -> None:
        name = f"{watch.job}/files/{number + 1}"
        begun[name] = time.perf_counter()
        request = transfer_service_pb2.CancelFileTransfersRequest(parent=watch.job, names=[name])
        answer = await stub.CancelFileTransfers(request, metadata=measured.metadata)
        if not answer.results[0].HasField("file"):
            raise CallFailedError(f"{name} was not cancelled: {answer.results[0].status.message}")

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index, watch in enumerate(watches):
            await asyncio.sleep(max(0.0, start + index / _CHANGES_A_SECOND - time.perf_counter()))
            group.create_task(cancel(watch))
    by = time.perf_counter() + _LATE_S
    heard: dict[str, float] = {}
    while heard.keys() < begun.keys():
        if time.perf_counter() > by:
            raise CallFailedError(f"{len(begun) - len(heard)} changes were not told")
        await asyncio.sleep(0.01)
        heard = {name: at for watch in watches for name, at in watch.heard.items() if name in begun}
    return [(heard[name] - at) * 1e3 for name, at in begun.items()]


ROWS = tuple(
    Row(
        name=engine.row("watchers"),
        title=f"{_WATCHERS} watchers, {_CHANGES_A_SECOND} changes a second: p99",
        unit="ms",
        measure=partial(_measure, engine=engine),
        target=Target(Bound.AT_MOST, 250, "ms"),
        conditions="from the call that changes to the event at its watcher, every change once,"
        f" a stream a watcher, {_A_CHANNEL} streams a connection, {engine.words}",
        engine=engine,
    )
    for engine in Engine
)
