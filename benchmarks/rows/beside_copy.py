"""How long calls take while a large file is copied: the server answers, its movers work.

The embedded server as users run it, everything on; the copies follow each other for as long as the
window lasts. Windows with and without copies are measured in turn.
"""

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Final, TypeVar

from grpc import aio

from benchmarks.embedded import Embedded, embedded
from benchmarks.load import CallFailedError
from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run
from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

T = TypeVar("T")

_CALLERS: Final = 4
_PAUSE_S: Final = 0.01
_BLOCK: Final = 1 << 20
_LONGEST_S: Final = 300.0
_ENDED: Final = frozenset(
    {
        transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_CANCELED,
    }
)


async def _measure(run: Run) -> Measured:
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
        async with (
            embedded(Path(directory)) as server,
            aio.insecure_channel(server.address) as channel,
        ):
            house = _House(server, channel, run.effort.file_bytes)
            return await _compared(house, run)


async def _compared(house: "_House", run: Run) -> Measured:
    await house.prepare()
    seconds = max(run.effort.seconds, 0.5)
    pairs: list[tuple[float, float]] = []
    for _ in range(run.effort.rounds):
        at_rest = await house.p99_ms(seconds)
        async with house.copying():
            beside = await house.p99_ms(seconds)
        pairs.append((at_rest, beside))
    return Measured.of(
        [beside / at_rest for at_rest, beside in pairs],
        mib=run.effort.file_bytes / _BLOCK,
        at_rest_p99_ms=Measured.of([at_rest for at_rest, _ in pairs]).value,
        beside_p99_ms=Measured.of([beside for _, beside in pairs]).value,
    )


class _House:
    """A server with a job to ask for and a file to copy."""

    def __init__(self, server: Embedded, channel: aio.Channel, file_bytes: int) -> None:
        self._jobs = job_service_pb2_grpc.JobServiceStub(channel)
        self._transfers = transfer_service_pb2_grpc.TransferServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {server.token}"),)
        self._storage = server.data / "storage" / "local"
        self._file_bytes = file_bytes
        self._job = ""
        self._numbers = itertools.count(1)

    async def prepare(self) -> None:
        """Make the file, and the job, which ends at once."""
        await asyncio.to_thread(self._fill)
        description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["true"])])
        request = job_service_pb2.SubmitJobRequest(
            job=job_pb2.Job(vo="local", description=description)
        )
        self._job = (await self._call(self._jobs.SubmitJob, request)).name
        await self.p99_ms(1.0)

    async def p99_ms(self, seconds: float) -> float:
        """The 99th percentile of GetJob's answers in a window, in milliseconds."""
        times: list[float] = []

        async def ask(end: float) -> None:
            request = job_service_pb2.GetJobRequest(name=self._job)
            while time.perf_counter() < end:
                begun = time.perf_counter()
                await self._call(self._jobs.GetJob, request)
                times.append(time.perf_counter() - begun)
                await asyncio.sleep(_PAUSE_S)

        end = time.perf_counter() + seconds
        await asyncio.gather(*(ask(end) for _ in range(_CALLERS)))
        return quantiles(times, n=100)[98] * 1e3

    @asynccontextmanager
    async def copying(self) -> AsyncIterator[None]:
        """Copies run within the block, one after the other."""
        begun = asyncio.Event()
        copies = asyncio.create_task(self._copy_again_and_again(begun))
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait([copies, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            yield
        finally:
            copies.cancel()
            await asyncio.wait([copies])
            if not copies.cancelled():
                copies.result()

    async def _copy_again_and_again(self, begun: asyncio.Event) -> None:
        while True:
            await self._copy(begun)

    async def _copy(self, begun: asyncio.Event) -> None:
        target = f"LFN:/local/copy-{next(self._numbers)}"
        source = (self._storage / "source").as_uri()
        file = transfer_job_pb2.FileTransfer(source=source, target=target)
        submit = transfer_service_pb2.SubmitTransferJobRequest(
            transfer_job=transfer_job_pb2.TransferJob(vo="local", files=[file])
        )
        name = (await self._call(self._transfers.SubmitTransferJob, submit)).name
        state = transfer_job_pb2.TRANSFER_JOB_STATE_UNSPECIFIED
        async with asyncio.timeout(_LONGEST_S):
            while state not in _ENDED:
                asked = transfer_service_pb2.GetTransferJobRequest(name=name)
                state = (await self._call(self._transfers.GetTransferJob, asked)).state
                if state == transfer_job_pb2.TRANSFER_JOB_STATE_ACTIVE:
                    begun.set()
                await asyncio.sleep(0.05)
        if state != transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED:
            raise CallFailedError(f"a copy ended in the state {state}")
        (self._storage / target.rpartition("/")[2]).unlink()

    async def _call(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        return await method(request, metadata=self._metadata, timeout=30)

    def _fill(self) -> None:
        self._storage.mkdir(parents=True, exist_ok=True)
        with (self._storage / "source").open("wb") as file:
            for _ in range(self._file_bytes // _BLOCK):
                file.write(os.urandom(_BLOCK))


ROWS = (
    Row(
        name="get-job-beside-copy",
        title="GetJob's p99 while a large file is copied",
        unit="× at rest",
        measure=_measure,
        target=Target(Bound.AT_MOST, 2.0, "× at rest"),
        conditions=f"embedded server, {_CALLERS} callers with a pause of {_PAUSE_S * 1e3:.0f} ms,"
        " copies of 1 GiB one after the other, ADLER32 of both ends",
    ),
)
