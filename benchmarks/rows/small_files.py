"""How fast ten thousand small files are copied, against `rclone copy --checksum`.

Twice: by the mover alone, which has each file on the disk before it gets its name; and by the
embedded server as users run it, from the submission until every file has its events and is
FINISHED. rclone does not sync and keeps no account of what it did. So the mover is measured in
memory too, where to sync costs nothing: the difference is what the disk costs.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from grpc import aio

from benchmarks.embedded import Embedded, embedded
from benchmarks.load import CallFailedError, middle
from benchmarks.processes import succeed, tree_cpu_seconds
from benchmarks.row import Bound, Measured, PeerMissingError, Row, Target
from benchmarks.run import Effort, Run
from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane_transfer.backends.base import Location, Moved, MoveOrder
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.settings import TransferSettings

_FILES: Final = 10_000
_FEW_FILES: Final = 500
_WHOLE_BYTES: Final = 1 << 30
_FILE_BYTES: Final = 4_096
_A_JOB: Final = 1_000
# Each look costs the server what four files cost it.
_LOOK_S: Final = 0.1
_LONGEST_S: Final = 600.0
_MOST_PAIRS: Final = 3
# A file system that keeps nothing on a disk.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - in a directory of an own name
_ALGORITHM: Final = "ADLER32"
_FINISHED: Final = transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED
_ENDED: Final = frozenset(
    {
        _FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_CANCELED,
    }
)

Copy = Callable[[Path], Awaitable[None]]
"""Copies all files of the source into a directory that is not there yet."""


async def _bare(run: Run) -> Measured:
    settings = TransferSettings()
    slots = settings.workers * settings.copies_per_worker
    mover = EmbeddedMover(
        workers=settings.workers, copies_per_worker=settings.copies_per_worker, stall_s=60
    )
    await mover.start()
    try:
        on_disk = await _alone(mover, slots, run.directory(), run.effort)
        if not _MEMORY.is_dir():
            return on_disk
        in_memory = await _alone(mover, slots, run.directory(_MEMORY), run.effort)
        return replace(on_disk, details={**on_disk.details, **_told_in_memory(in_memory)})
    finally:
        await mover.stop()


async def _alone(mover: EmbeddedMover, slots: int, folder: Path, effort: Effort) -> Measured:
    """The mover without a server, in a directory."""
    source = folder / "source"
    files = await asyncio.to_thread(_fill, source, effort)
    move = partial(_move_all, mover, source, files, slots)
    return await _compared(source, folder, files, move, effort)


def _told_in_memory(measured: Measured) -> dict[str, float]:
    return {
        "in_memory_times_rclone": measured.value,
        "in_memory_rclone_s": measured.details["rclone_s"],
        "in_memory_gridlane_s": measured.details["gridlane_s"],
    }


async def _durable(run: Run) -> Measured:
    async with (
        embedded(run.directory()) as server,
        aio.insecure_channel(server.address) as channel,
    ):
        store = server.data / "storage" / "local"
        source = store / "source"
        files = await asyncio.to_thread(_fill, source, run.effort)
        transfer = partial(_transfer_all, server, channel, source, files)
        return await _compared(source, store, files, transfer, run.effort)


async def _compared(source: Path, into: Path, files: int, move: Copy, effort: Effort) -> Measured:
    pairs: list[tuple[_Spent, _Spent]] = []
    for number in range(min(effort.rounds, _MOST_PAIRS)):
        theirs = await _timed(partial(_rclone, source), into / f"rclone-{number}")
        ours = await _timed(move, into / f"moved-{number}")
        pairs.append((theirs, ours))
    return Measured.of(
        [theirs.wall_s / ours.wall_s for theirs, ours in pairs],
        files=files,
        rclone_s=middle(theirs.wall_s for theirs, _ in pairs),
        gridlane_s=middle(ours.wall_s for _, ours in pairs),
        rclone_cpu_s=middle(theirs.cpu_s for theirs, _ in pairs),
        gridlane_cpu_s=middle(ours.cpu_s for _, ours in pairs),
    )


class _Spent(NamedTuple):
    """Seconds on the clock, and of processor time of this program and of all that it started."""

    wall_s: float
    cpu_s: float


async def _timed(copy: Copy, target: Path) -> _Spent:
    begun, cpu_s = time.perf_counter(), tree_cpu_seconds(os.getpid())
    await copy(target)
    spent = _Spent(time.perf_counter() - begun, tree_cpu_seconds(os.getpid()) - cpu_s)
    await asyncio.to_thread(os.sync)
    return spent


def _fill(source: Path, effort: Effort) -> int:
    """Makes the files; how many."""
    files = _FILES if effort.file_bytes >= _WHOLE_BYTES else _FEW_FILES
    source.mkdir(parents=True)
    for number in range(files):
        (source / _name(number)).write_bytes(os.urandom(_FILE_BYTES))
    os.sync()
    return files


def _name(number: int) -> str:
    return f"hits-{number}.raw"


async def _rclone(source: Path, target: Path) -> None:
    program = shutil.which("rclone")
    if program is None:
        raise PeerMissingError("rclone is not installed (Debian: rclone)")
    await succeed(program, "--config", "", "copy", "--checksum", str(source), str(target))


async def _move_all(
    mover: EmbeddedMover, source: Path, files: int, slots: int, target: Path
) -> None:
    """Moves the files in bundles, so many of these at once as the mover takes."""
    await asyncio.to_thread(target.mkdir)
    bundles = iter(range(0, files, mover.bundle.files))

    async def move_some() -> None:
        for first in bundles:
            numbers = range(first, min(first + mover.bundle.files, files))
            orders = [(_order(str(source), str(target), number), None) for number in numbers]
            for outcome in await mover.move_bundle(orders):
                assert isinstance(outcome, Moved), outcome

    await asyncio.gather(*(move_some() for _ in range(slots)))


def _order(source: str, target: str, number: int) -> MoveOrder:
    return MoveOrder(
        number=number + 1,
        epoch=1,
        sources=[_location(source, _name(number))],
        target=_location(target, _name(number)),
        overwrite=False,
        verify_source=True,
        verify_target=True,
        size_bytes=_FILE_BYTES,
        expected={},
        checksums=[_ALGORITHM],
        resumed=False,
    )


def _location(folder: str, name: str) -> Location:
    return Location(f"file://{folder}/{name}", "local", folder, name, name)


async def _transfer_all(
    server: Embedded, channel: aio.Channel, source: Path, files: int, target: Path
) -> None:
    """Has the server move the files; ends when all of its jobs have."""
    stub = transfer_service_pb2_grpc.TransferServiceStub(channel)
    metadata = (("authorization", f"Bearer {server.token}"),)
    names = []
    for first in range(0, files, _A_JOB):
        described = [
            transfer_job_pb2.FileTransfer(
                source=(source / _name(number)).as_uri(),
                target=(target / _name(number)).as_uri(),
                size_bytes=_FILE_BYTES,
            )
            for number in range(first, min(first + _A_JOB, files))
        ]
        job = transfer_job_pb2.TransferJob(vo="local", files=described)
        request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
        names.append((await stub.SubmitTransferJob(request, metadata=metadata)).name)
    asked = transfer_service_pb2.BatchGetTransferJobsRequest(names=names)
    async with asyncio.timeout(_LONGEST_S):
        while True:
            answer = await stub.BatchGetTransferJobs(asked, metadata=metadata)
            states = {found.transfer_job.state for found in answer.results}
            if states <= _ENDED:
                break
            await asyncio.sleep(_LOOK_S)
    if states != {_FINISHED}:
        raise CallFailedError(f"jobs ended in the states {sorted(states)}")


ROWS = (
    Row(
        name="mover-small",
        title="Embedded mover, 10 000 files of 4 KiB",
        unit="× the speed of rclone",
        measure=_bare,
        target=Target(Bound.AT_LEAST, 1.2, "× the speed of rclone"),
        conditions="the mover alone, in bundles, ADLER32 of both ends, each file on the disk before"
        " it gets its name; against `rclone copy --checksum`, which does not sync; both also in"
        " memory, where that costs nothing",
    ),
    Row(
        name="transfer-small",
        title="Transfer jobs with 10 000 files of 4 KiB",
        unit="× the speed of rclone",
        measure=_durable,
        target=Target(Bound.AT_LEAST, 0.6, "× the speed of rclone"),
        conditions="embedded server, from the submission on, durable with events; against"
        " `rclone copy --checksum`",
    ),
)
