"""A transfer job of a hundred thousand files, streamed: how much memory the server takes for it.

Each measurement submits one job and waits until all its files lie on their channels; memory is the
most that the server held at once, over what it held before. Files are not moved (`room_server`).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.processes import cpu_seconds
from benchmarks.row import Bound, Engine, Measured, Row, Target
from benchmarks.run import Run
from benchmarks.service import Service, service
from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)

_FILES: Final = 100_000
_FEW_FILES: Final = 5_000
_PART: Final = 1_000
_LOOK_S: Final = 0.1
_LONGEST_S: Final = 1_800.0
_KIB: Final = 1_024
Requests = AsyncIterator[transfer_service_pb2.SubmitTransferJobStreamRequest]


async def _measure(run: Run, *, engine: Engine) -> Measured:
    async with service(run, "transfer", engine) as measured:
        files = _FILES if run.effort.stored >= _FILES else _FEW_FILES
        await _submit(measured, _PART)
        before = _memory_mib(measured.pid, "VmRSS")
        _forget_peak(measured.pid)
        cpu_s, begun = cpu_seconds(measured.pid), time.perf_counter()
        name = await _submit(measured, files)
        submitted_s = time.perf_counter() - begun
        submitted_cpu_s = cpu_seconds(measured.pid) - cpu_s
        await _open(measured, name, files)
        return Measured.of(
            [_memory_mib(measured.pid, "VmHWM") - before],
            files=files,
            submitted_s=submitted_s,
            submitted_cpu_us_a_file=submitted_cpu_s / files * 1e6,
            on_channels_s=time.perf_counter() - begun,
            all_cpu_us_a_file=(cpu_seconds(measured.pid) - cpu_s) / files * 1e6,
        )


async def _submit(measured: Service, files: int) -> str:
    """Submits a job of so many files; its name."""
    stub = transfer_service_pb2_grpc.TransferServiceStub(measured.channel)
    store = (measured.directory / "storage" / "local").as_uri()
    job = await stub.SubmitTransferJobStream(
        _requests(store, files), metadata=measured.metadata, timeout=_LONGEST_S
    )
    name: str = job.name
    return name


async def _requests(store: str, files: int) -> Requests:
    request = transfer_service_pb2.SubmitTransferJobStreamRequest
    job = transfer_job_pb2.TransferJob(vo="local")
    header = transfer_service_pb2.SubmitTransferJobHeader(transfer_job=job, request_id=uuid7())
    yield request(header=header)
    for first in range(0, files, _PART):
        part = [
            transfer_job_pb2.FileTransfer(
                source=f"{store}/raw/run-7/hits-{number}.csv",
                target=f"{store}/copies/run-7/hits-{number}.csv",
                size_bytes=1 << 20,
            )
            for number in range(first, min(first + _PART, files))
        ]
        yield request(files=transfer_service_pb2.FileTransferChunk(files=part))


async def _open(measured: Service, name: str, files: int) -> None:
    """Waits until all files of a job lie on their channels."""
    stub = transfer_service_pb2_grpc.TransferServiceStub(measured.channel)
    asked = transfer_service_pb2.BatchGetTransferJobsRequest(names=[name])
    ready = transfer_job_pb2.FileStateCount(
        state=transfer_job_pb2.FILE_TRANSFER_STATE_READY, count=files
    )
    async with asyncio.timeout(_LONGEST_S):
        while True:
            found = await stub.BatchGetTransferJobs(asked, metadata=measured.metadata)
            if list(found.results[0].transfer_job.summary) == [ready]:
                return
            await asyncio.sleep(_LOOK_S)


def _forget_peak(pid: int) -> None:
    """Has the most memory held be counted from now on (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _memory_mib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / _KIB
    raise LookupError(field)


ROWS = tuple(
    Row(
        name=engine.row("stream-transfer"),
        title=f"SubmitTransferJobStream of {_FILES} files, memory",
        unit="MiB",
        measure=partial(_measure, engine=engine),
        target=Target(Bound.AT_MOST, 64, "MiB"),
        conditions=f"the server's peak over what it held before, parts of {_PART}, {engine.words}",
        engine=engine,
    )
    for engine in Engine
)
