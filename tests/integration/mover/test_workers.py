"""Remote files in the mover's worker processes: killed, late, stopped, asked."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mover_ground import CONTENT, LOOPBACK, Ground, adler
from webdav_server import Fault, Storage

from gridlane_transfer.backends.base import FileInfo, Location, Moved, MoveOrder
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.moving.failures import Failed, FailureClass

BIG = 64 << 20


@pytest.fixture
async def mover(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedMover]:
    """One worker; patient where a test parametrizes the fixture with True."""
    http = replace(LOOPBACK, idle_s=60) if getattr(request, "param", False) else LOOPBACK
    found = EmbeddedMover(workers=1, copies_per_worker=2, stall_s=300, http=http)
    await found.start()
    yield found
    await found.stop()


def at(storage: Storage, name: str) -> Location:
    return Location(f"{storage.url}/{name}", "x", storage.url, name, f"LFN:/{name}")


def local(folder: Path, name: str) -> Location:
    return Location(f"file://{folder}/{name}", "x", str(folder), name, f"LFN:/{name}")


def order(source: Location, target: Location, **more: Any) -> MoveOrder:
    fields: dict[str, Any] = {
        "number": 1,
        "epoch": 1,
        "sources": [source],
        "target": target,
        "overwrite": False,
        "verify_source": True,
        "verify_target": True,
        "size_bytes": None,
        "expected": {},
        "checksums": ["ADLER32"],
        "resumed": False,
    }
    return MoveOrder(**(fields | more))


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_file_comes_and_goes(mover: EmbeddedMover, ground: Ground) -> None:
    ground.have(ground.a)
    moved = await mover.move(order(at(ground.a, "source"), local(ground.folder, "here")))
    assert isinstance(moved, Moved)
    assert moved.checksums == {"ADLER32": adler(CONTENT)}
    back = await mover.move(order(local(ground.folder, "here"), at(ground.b, "deep/back")))
    assert isinstance(back, Moved)
    assert ground.b.path("deep/back").read_bytes() == CONTENT


async def test_a_killed_worker_leaves_nothing_that_anybody_sees(
    mover: EmbeddedMover, ground: Ground
) -> None:
    ground.put()
    source, target = local(ground.folder, "source"), at(ground.a, "target")
    ground.a.faults = [Fault("PUT", "stall", after=1 << 20)]
    lost = asyncio.create_task(mover.move(order(source, target)))
    await until(lambda: any(one.method == "PUT" for one in ground.a.heard))
    await until(ground.a.files)
    os.kill(mover.pids[0], signal.SIGKILL)
    failed = await asyncio.wait_for(lost, 20)
    assert isinstance(failed, Failed)
    assert (failed.failure_class, failed.recoverable) == (FailureClass.BACKEND_LOST, True)
    ground.a.released.set()
    assert ground.a.files() == []
    again = await mover.move(order(source, target, epoch=2, resumed=True))
    assert isinstance(again, Moved), again
    assert ground.a.path("target").read_bytes() == CONTENT
    assert ground.a.files() == ["target"]


async def test_a_worker_killed_before_it_could_tell_is_believed_by_the_next(
    mover: EmbeddedMover, ground: Ground
) -> None:
    """Killed after MOVE: the next attempt finds what it would have published, and adopts it."""
    ground.put()
    source, target = local(ground.folder, "source"), at(ground.a, "target")
    first = await mover.move(order(source, target))
    assert isinstance(first, Moved)
    puts = ground.a.count("PUT")
    again = await mover.move(order(source, target, epoch=2, resumed=True))
    assert isinstance(again, Moved)
    assert ground.a.count("PUT") == puts


@pytest.mark.parametrize("end", ["remote", "local", "copy"])
async def test_an_attempt_that_takes_too_long_has_timed_out(
    mover: EmbeddedMover, ground: Ground, end: str
) -> None:
    ground.have(ground.a)
    ground.put()
    more: dict[str, Any] = {"timeout_s": 0.5}
    if end == "remote":
        ground.a.faults = [Fault("GET", "stall", after=1000, times=9)]
        ends = at(ground.a, "source"), local(ground.folder, "target")
    elif end == "copy":
        ground.b.faults = [Fault("COPY", "stall")]
        ends = at(ground.a, "source"), at(ground.b, "target")
    else:
        more["max_bytes_per_second"] = 1000
        ends = local(ground.folder, "source"), local(ground.folder, "target")
    failed = await asyncio.wait_for(mover.move(order(*ends, **more)), 20)
    assert isinstance(failed, Failed)
    assert (failed.failure_class, failed.recoverable) == (FailureClass.TIMED_OUT, True)
    assert "0.5 s" in failed.message
    assert not (ground.folder / "target").exists()
    assert ground.b.files() == []
    assert len(mover.pids) == 1


async def test_an_attempt_that_does_not_end_when_its_time_is_over_is_given_up(
    mover: EmbeddedMover, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a file system holds the thread: here the whole process is held."""
    monkeypatch.setattr("gridlane_transfer.backends.embedded.mover._END_S", 0.2)
    ground.put()
    ends = local(ground.folder, "source"), local(ground.folder, "target")
    slow = order(*ends, timeout_s=4, max_bytes_per_second=1000)
    moving = asyncio.create_task(mover.move(slow))
    (pid,) = mover.pids
    await until(lambda: mover.progress(1))
    os.kill(pid, signal.SIGSTOP)
    failed = await asyncio.wait_for(moving, 20)
    assert isinstance(failed, Failed)
    assert failed.failure_class is FailureClass.TIMED_OUT
    await until(lambda: mover.pids and pid not in mover.pids)
    await until(lambda: not psutil.pid_exists(pid))


@pytest.mark.parametrize("mover", [True], indirect=True)
async def test_an_aborted_order_ends_while_the_storage_is_silent(
    mover: EmbeddedMover, ground: Ground
) -> None:
    ground.have(ground.a)
    ground.a.faults = [Fault("GET", "stall", after=1000)]
    ends = at(ground.a, "source"), local(ground.folder, "target")
    moving = asyncio.create_task(mover.move(order(*ends)))
    await until(lambda: ground.a.count("GET"))
    mover.abort(1)
    failed = await asyncio.wait_for(moving, 30)
    assert isinstance(failed, Failed)
    assert failed.failure_class is FailureClass.CANCELED
    assert list(ground.folder.iterdir()) == []


async def test_a_local_copy_is_kept_to_its_limit(mover: EmbeddedMover, ground: Ground) -> None:
    ground.put(content=CONTENT[: 1 << 20])
    begun = asyncio.get_running_loop().time()
    ends = local(ground.folder, "source"), local(ground.folder, "target")
    moved = await mover.move(order(*ends, max_bytes_per_second=1 << 20))
    assert isinstance(moved, Moved)
    assert asyncio.get_running_loop().time() - begun > 0.7


async def test_what_failed_locally_stays_when_that_is_asked_for(
    mover: EmbeddedMover, ground: Ground
) -> None:
    ground.put()
    ends = local(ground.folder, "source"), local(ground.folder, "target")
    wrong: dict[str, Any] = {"expected": {"ADLER32": "00000001"}, "disable_cleanup": True}
    failed = await mover.move(order(*ends, **wrong))
    assert isinstance(failed, Failed)
    assert failed.moved_bytes >= 0
    assert {path.name for path in ground.folder.iterdir()} == {"source", ".gridlane-1-1.part"}


async def test_a_strict_local_copy_makes_no_directory(mover: EmbeddedMover, ground: Ground) -> None:
    ground.put()
    ends = local(ground.folder, "source"), local(ground.folder, "none/target")
    failed = await mover.move(order(*ends, strict_copy=True))
    assert isinstance(failed, Failed)
    assert not (ground.folder / "none").exists()


async def test_files_are_asked_about_and_removed(mover: EmbeddedMover, ground: Ground) -> None:
    ground.have(ground.a)
    ground.put()
    remote, here = at(ground.a, "source"), local(ground.folder, "source")
    told = await mover.stat(remote, ["ADLER32", "MD5"])
    assert isinstance(told, FileInfo)
    assert told.size_bytes == len(CONTENT)
    assert told.checksums["ADLER32"] == adler(CONTENT)
    assert set(told.checksums) == {"ADLER32", "MD5"}
    assert told.modify_s
    local_told = await mover.stat(here)
    assert isinstance(local_told, FileInfo)
    assert (local_told.size_bytes, local_told.checksums) == (len(CONTENT), {})
    for location in (remote, here):
        assert await mover.remove(location) is True
        assert await mover.remove(location) is False
        gone = await mover.stat(location)
        assert isinstance(gone, Failed)
        assert gone.failure_class is FailureClass.SOURCE_MISSING
    ground.have(ground.a)
    ground.a.faults = [Fault("DELETE", "status", status=423)]
    locked = await mover.remove(remote)
    assert isinstance(locked, Failed)
    assert locked.recoverable
    ground.a.faults = [Fault("HEAD", "status", status=503)]
    away = await mover.stat(remote)
    assert isinstance(away, Failed)
    assert (away.failure_class, away.recoverable) == (FailureClass.SOURCE_UNREADABLE, True)


@pytest.mark.parametrize("mover", [True], indirect=True)
@pytest.mark.parametrize("streams", [0, pytest.param(8, marks=pytest.mark.slow)])
async def test_a_worker_s_memory_does_not_grow_with_the_file(
    mover: EmbeddedMover, ground: Ground, streams: int
) -> None:
    await peak(mover, ground, BIG * 4, streams)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mover", [True], indirect=True)
@pytest.mark.parametrize("streams", [0, 8, 64])
async def test_a_gibibyte_passes_in_little_memory(
    mover: EmbeddedMover, ground: Ground, streams: int
) -> None:
    await peak(mover, ground, 1 << 30, streams)


async def peak(mover: EmbeddedMover, ground: Ground, size: int, streams: int) -> None:
    """Move a file there and back, and judge by how much its worker grew meanwhile."""
    ground.a.digests = False
    with ground.a.path("source").open("wb") as file:
        file.truncate(size)
    worker = psutil.Process(mover.pids[0])
    small = worker.memory_info().rss
    grown = 0
    for ends in (
        (at(ground.a, "source"), local(ground.folder, "here")),
        (local(ground.folder, "here"), at(ground.a, "back")),
    ):
        moving = asyncio.create_task(mover.move(order(*ends, streams=streams)))
        while not moving.done():
            grown = max(grown, worker.memory_info().rss - small)
            await asyncio.wait([moving], timeout=0.02)
        assert isinstance(await moving, Moved)
    assert grown < (64 << 20) + (64 << 20 if streams else 0), grown
    assert ground.a.path("back").stat().st_size == size


async def test_a_directory_is_not_removed_with_all_that_is_in_it(
    mover: EmbeddedMover, ground: Ground
) -> None:
    ground.have(ground.a, "folder/precious")
    failed = await mover.remove(at(ground.a, "folder"))
    assert isinstance(failed, Failed)
    assert not failed.recoverable
    assert ground.a.files() == ["folder/precious"]


async def test_a_question_does_not_wait_for_copies(mover: EmbeddedMover, ground: Ground) -> None:
    ground.put()
    ends = local(ground.folder, "source"), local(ground.folder, "target")
    slow: dict[str, Any] = {"max_bytes_per_second": 1000}
    copies = [
        asyncio.create_task(mover.move(order(*ends, number=number, **slow)))
        for number in range(1, 4)
    ]
    await until(lambda: mover.progress(1) and mover.progress(2))
    told = await asyncio.wait_for(mover.stat(local(ground.folder, "source")), 10)
    assert isinstance(told, FileInfo)
    for number in range(1, 4):
        mover.abort(number)
    await asyncio.gather(*copies)
