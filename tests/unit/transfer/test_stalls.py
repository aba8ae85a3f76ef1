"""Which orders of a worker are given up, and what becomes of its others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from gridlane_transfer.backends.base import Location, Moved, MoveOrder
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.moving.failures import Failed, FailureClass

SIZE = 3 << 30


@pytest.fixture
async def mover() -> AsyncIterator[EmbeddedMover]:
    found = EmbeddedMover(workers=1, copies_per_worker=2, stall_s=600)
    await found.start()
    yield found
    await found.stop()


def order(folder: Path, number: int) -> MoveOrder:
    """A copy of a big file that takes no room."""
    source = folder / f"source-{number}"
    with source.open("wb") as file:
        file.truncate(SIZE)

    def at(name: str) -> Location:
        return Location(f"file://{folder}/{name}", "x", str(folder), name, f"LFN:/{name}")

    return MoveOrder(
        number=number,
        epoch=1,
        sources=[at(source.name)],
        target=at(f"target-{number}"),
        overwrite=False,
        verify_source=False,
        verify_target=False,
        size_bytes=None,
        expected={},
        checksums=[],
        resumed=False,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def until_moving(mover: EmbeddedMover, number: int) -> None:
    async with asyncio.timeout(20):
        while not mover.progress(number):
            await asyncio.sleep(0.01)


async def test_a_worker_s_other_copies_go_on_and_it_gets_no_new_ones(
    mover: EmbeddedMover, tmp_path: Path
) -> None:
    hung = asyncio.create_task(mover.move(order(tmp_path, 1)))
    good = asyncio.create_task(mover.move(order(tmp_path, 2)))
    await until_moving(mover, 1)
    await until_moving(mover, 2)
    (worker,) = mover._workers
    first, second = worker.orders.values()
    first.slot.heard_s = 0.0
    mover._give_up(worker, before_s=second.slot.heard_s - 1)
    answer = await asyncio.wait_for(hung, 5)
    assert isinstance(answer, Failed)
    assert (answer.failure_class, answer.recoverable) == (FailureClass.BACKEND_LOST, True)
    assert "LFN:/source-1" in answer.message
    async with asyncio.timeout(20):
        while worker.process.pid in mover.pids or not mover.pids:
            await asyncio.sleep(0.01)
    assert not good.done()
    assert worker.process.returncode is None
    mover.abort(2)
    ended = await asyncio.wait_for(good, 20)
    assert not isinstance(ended, Moved)
    # Its thread does not really hang: it heard that it was given up, and leaves nothing behind.
    async with asyncio.timeout(20):
        while names(tmp_path) != ["source-1", "source-2"]:
            await asyncio.sleep(0.01)
    mover._give_up(worker, before_s=0.0)
    await asyncio.wait_for(worker.process.wait(), 10)
    assert not psutil.pid_exists(worker.process.pid)
