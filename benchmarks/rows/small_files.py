"""How fast ten thousand small files are copied, against `rclone copy --checksum`.

Twice: by the mover alone, which syncs each file to disk; and by the embedded server as users run
it, from the submission until every file has its events and is FINISHED. rclone does not sync and
keeps no account of what it did.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
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
_LOOK_S: Final = 0.02
_LONGEST_S: Final = 600.0
_MOST_PAIRS: Final = 3
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
        with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as name:
            source = Path(name) / "source"
            files = await asyncio.to_thread(_fill, source, run.effort)
            move = partial(_move_all, mover, source, files, slots)
            return await _compared(source, Path(name), files, move, run.effort)
    finally:
        await mover.stop()


async def _durable(run: Run) -> Measured:
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as name:
        async with (
            embedded(Path(name)) as server,
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
    # The files stay until the end: ext4 passes by the inodes of files that were removed in the last
    # seconds one by one, so that whoever comes next pays for every removal.
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
            orders = [(_order(source, target, number), None) for number in numbers]
            for outcome in await mover.move_bundle(orders):
                assert isinstance(outcome, Moved), outcome

    await asyncio.gather(*(move_some() for _ in range(slots)))


def _order(source: Path, target: Path, number: int) -> MoveOrder:
    return MoveOrder(
        number=number + 1,
        epoch=1,
        sources=[_location(source / _name(number))],
        target=_location(target / _name(number)),
        overwrite=False,
        verify_source=True,
        verify_target=True,
        size_bytes=_FILE_BYTES,
        expected={},
        checksums=[_ALGORITHM],
        resumed=False,
    )


def _location(path: Path) -> Location:
    return Location(path.as_uri(), "local", str(path.parent), path.name, path.name)


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
        conditions="the mover alone, in bundles, ADLER32 of both ends, each file synced; against"
        " `rclone copy --checksum`",
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
