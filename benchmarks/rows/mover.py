"""How fast the embedded mover copies one large file, against `cp` and the same checksum.

The mover reads, sums up, writes, reads back what it wrote, syncs it to disk and renames it; `cp`
and a checksum of its copy do neither of the last two.
"""

import asyncio
import os
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import Final

from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Effort, Run
from gridlane_transfer.backends.base import Location, Moved, MoveOrder
from gridlane_transfer.backends.embedded.mover import EmbeddedMover

_BLOCK: Final = 1 << 20
_MOST_PAIRS: Final = 3
_ALGORITHM: Final = "ADLER32"


async def _measure(run: Run) -> Measured:
    mover = EmbeddedMover(workers=1, copies_per_worker=1, stall_s=60)
    await mover.start()
    try:
        with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
            return await _compared(mover, Path(directory), run.effort)
    finally:
        await mover.stop()


async def _compared(mover: EmbeddedMover, directory: Path, effort: Effort) -> Measured:
    source = directory / "source"
    await asyncio.to_thread(_fill, source, effort.file_bytes)
    checksum = _adler32(source)
    pairs: list[tuple[float, float]] = []
    for number in range(1, min(effort.rounds, _MOST_PAIRS) + 1):
        plain = await asyncio.to_thread(_copy_and_sum, source, directory / "copied")
        moved = await _move(mover, _order(source, directory / "moved", number, checksum))
        pairs.append((plain, moved))
    return Measured.of(
        [plain / moved for plain, moved in pairs],
        mib=effort.file_bytes / (1 << 20),
        cp_and_checksum_s=Measured.of([plain for plain, _ in pairs]).value,
        mover_s=Measured.of([moved for _, moved in pairs]).value,
    )


def _fill(source: Path, size: int) -> None:
    with source.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(os.urandom(_BLOCK))
        file.flush()
        os.fsync(file.fileno())


def _copy_and_sum(source: Path, target: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    _adler32(target)
    spent_s = time.perf_counter() - begun
    target.unlink()
    os.sync()
    return spent_s


async def _move(mover: EmbeddedMover, order: MoveOrder) -> float:
    begun = time.perf_counter()
    outcome = await mover.move(order)
    spent_s = time.perf_counter() - begun
    assert isinstance(outcome, Moved), outcome
    await asyncio.to_thread(Path(order.target.base, order.target.relative).unlink)
    return spent_s


def _order(source: Path, target: Path, number: int, checksum: str) -> MoveOrder:
    return MoveOrder(
        number=number,
        epoch=1,
        sources=[_location(source)],
        target=_location(target),
        overwrite=False,
        verify_source=True,
        verify_target=True,
        size_bytes=source.stat().st_size,
        expected={_ALGORITHM: checksum},
        checksums=[_ALGORITHM],
        resumed=False,
    )


def _location(path: Path) -> Location:
    return Location(path.as_uri(), "local", str(path.parent), path.name, path.name)


def _adler32(path: Path) -> str:
    value = 1
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            value = zlib.adler32(block[:count], value)
    return f"{value:08x}"


ROWS = (
    Row(
        name="mover",
        title="Embedded mover, one large file",
        unit="× the speed of cp",
        measure=_measure,
        target=Target(Bound.AT_LEAST, 0.9, "× the speed of cp"),
        conditions="local, ADLER32 of both ends, synced; against `cp` and ADLER32 of its copy",
    ),
)
