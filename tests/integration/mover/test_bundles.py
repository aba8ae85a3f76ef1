"""Small files that a worker process copies together: killed, held up, aborted, stopped, at the
limits of what a process may have and of what a line may hold.
"""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridlane_transfer.backends.base import Location, Moved, MoveOrder
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.moving.failures import Failed, FailureClass

FILES = EmbeddedMover.bundle.files
LOST = FailureClass.BACKEND_LOST


@asynccontextmanager
async def moving(*, stall_s: float = 300, copies: int = 2) -> AsyncIterator[EmbeddedMover]:
    found = EmbeddedMover(workers=1, copies_per_worker=copies, stall_s=stall_s)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def content(n: int) -> bytes:
    return b"%d," % n * 300


def orders(folder: Path, files: int = FILES, **more: Any) -> list[MoveOrder]:
    """Orders of files that are there, each in a directory of its own."""

    def at(name: str) -> Location:
        return Location(f"file://{folder}/{name}", "x", str(folder), name, f"LFN:/{name}")

    for n in range(files):
        (folder / f"in/{n}").mkdir(parents=True, exist_ok=True)
        (folder / f"in/{n}/file").write_bytes(content(n))
    fields: dict[str, Any] = {"epoch": 1, "resumed": False, "overwrite": False, **more}
    return [
        MoveOrder(
            number=n + 1,
            sources=[at(f"in/{n}/file")],
            target=at(f"out/{n}/file"),
            verify_source=True,
            verify_target=True,
            size_bytes=len(content(n)),
            expected={},
            checksums=["ADLER32"],
            **fields,
        )
        for n in range(files)
    ]


def there(folder: Path) -> dict[int, bytes]:
    """What lies at the targets; nothing else may lie beside them."""
    found: dict[int, bytes] = {}
    for path in (folder / "out").rglob("*"):
        if path.is_file():
            assert path.name == "file", f"{path} was left behind"
            found[int(path.parent.name)] = path.read_bytes()
    return found


def whole(*numbers: int) -> dict[int, bytes]:
    return {n: content(n) for n in numbers}


async def bundle(
    mover: EmbeddedMover,
    files: Sequence[MoveOrder],
    may_publish: Callable[[], Awaitable[bool]] | None = None,
) -> list[FailureClass | None]:
    """Move files together; the failure of each, None of those that were moved."""
    done = await mover.move_bundle([(one, may_publish) for one in files])
    return [one.failure_class if isinstance(one, Failed) else None for one in done]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_worker_killed_when_all_are_whole_leaves_none(tmp_path: Path) -> None:
    async with moving() as mover:
        (pid,) = mover.pids

        async def killed() -> bool:
            with suppress(ProcessLookupError):  # it was, for the one before
                os.kill(pid, signal.SIGKILL)
            return True

        files = orders(tmp_path)
        assert await bundle(mover, files, killed) == [LOST] * FILES
        assert there(tmp_path) == {}
        again = [replace(one, epoch=2, resumed=True) for one in files]
        assert await bundle(mover, again) == [None] * FILES
        assert there(tmp_path) == whole(*range(FILES))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9])
async def test_a_worker_killed_anywhere_leaves_what_the_next_attempt_takes_up(
    tmp_path: Path, share: float
) -> None:
    async with moving() as mover:
        begun = asyncio.get_running_loop().time()
        await bundle(mover, orders(tmp_path / "measured"))
        takes_s = asyncio.get_running_loop().time() - begun
        files = orders(tmp_path)
        ended = asyncio.create_task(bundle(mover, files))
        await asyncio.sleep(takes_s * share)
        (pid,) = mover.pids
        os.kill(pid, signal.SIGKILL)
        outcomes = await asyncio.wait_for(ended, 30)
        await until(lambda: mover.pids and pid not in mover.pids)
        assert set(outcomes) <= {None, LOST}
        found = there(tmp_path)
        assert found == whole(*found)
        assert found.keys() >= {n for n, one in enumerate(outcomes) if one is None}
        again = [replace(one, epoch=2, resumed=True) for one in files]
        assert await bundle(mover, again) == [None] * FILES
        assert there(tmp_path) == whole(*range(FILES))


async def test_those_that_hang_are_given_up_once_and_cleaned_up_after_together(
    tmp_path: Path,
) -> None:
    """As when a file system holds the thread: here the whole process is held."""
    async with moving(stall_s=2) as mover:
        (pid,) = mover.pids

        async def held() -> bool:
            os.kill(pid, signal.SIGSTOP)
            return True

        files = orders(tmp_path)
        begun = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(bundle(mover, files, held), 30) == [LOST] * FILES
        assert asyncio.get_running_loop().time() - begun < 15
        assert there(tmp_path) == {}
        await until(lambda: mover.pids and pid not in mover.pids)


async def test_one_that_is_tried_again_is_alone(tmp_path: Path) -> None:
    """What hung, or killed its worker, does so to no other twice."""
    async with moving() as mover:
        (pid,) = mover.pids
        files = [replace(one, epoch=2, resumed=True) for one in orders(tmp_path, 4)]
        asked: list[int] = []

        async def killed() -> bool:
            asked.append(1)
            if len(asked) == 2:
                os.kill(pid, signal.SIGKILL)
            return True

        assert await bundle(mover, files, killed) == [None, LOST, None, None]
        assert there(tmp_path) == whole(0, 2, 3)


async def test_one_is_aborted_and_the_others_are_moved(tmp_path: Path) -> None:
    async with moving() as mover:

        async def third_ends() -> bool:
            mover.abort(3)
            return True

        outcomes = await bundle(mover, orders(tmp_path), third_ends)
        assert outcomes == [FailureClass.CANCELED if n == 2 else None for n in range(FILES)]
        assert there(tmp_path) == whole(*(n for n in range(FILES) if n != 2))


async def test_one_whose_leave_cannot_be_asked_for_holds_up_no_other(tmp_path: Path) -> None:
    async with moving() as mover:
        asked: list[int] = []

        async def third_is_a_defect() -> bool:
            asked.append(1)
            if len(asked) == 3:
                raise ValueError("a defect")
            return True

        files = orders(tmp_path)
        outcomes = await asyncio.wait_for(bundle(mover, files, third_is_a_defect), 30)
        assert outcomes == [FailureClass.INTERNAL if n == 2 else None for n in range(FILES)]
        assert there(tmp_path) == whole(*(n for n in range(FILES) if n != 2))


async def test_one_that_has_a_later_order_ends_while_its_bundle_waits(tmp_path: Path) -> None:
    async with moving(copies=1) as mover:
        go_on = asyncio.Event()

        async def held() -> bool:
            return await go_on.wait()

        first = asyncio.create_task(bundle(mover, orders(tmp_path / "first", 1), held))
        # Other numbers, so that the first order stays the one of its file.
        files = [replace(one, number=one.number + 100) for one in orders(tmp_path, 3)]
        waits = asyncio.create_task(bundle(mover, files))
        await until(lambda: mover.progress(101) is not None)
        later = asyncio.create_task(mover.move(replace(files[1], epoch=2)))
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.wait_for(first, 20) == [None]
        assert await asyncio.wait_for(waits, 20) == [None, FailureClass.CANCELED, None]
        assert isinstance(await asyncio.wait_for(later, 20), Moved)
        assert there(tmp_path / "first") == whole(0)
        assert all((tmp_path / f"out/{n}/file").read_bytes() == content(n) for n in range(3))


async def test_a_mover_that_stops_answers_all_and_leaves_nothing_half_written(
    tmp_path: Path,
) -> None:
    async with moving() as mover:
        asked = asyncio.Event()

        async def never() -> bool:
            asked.set()
            await asyncio.Event().wait()
            return True

        ended = asyncio.create_task(bundle(mover, orders(tmp_path), never))
        await asyncio.wait_for(asked.wait(), 20)
        await mover.stop()
        outcomes = await asyncio.wait_for(ended, 20)
        assert set(outcomes) <= {FailureClass.CANCELED, LOST}
        assert there(tmp_path) == {}


async def test_answers_of_any_length_are_heard(tmp_path: Path) -> None:
    async with moving() as mover:
        files = orders(tmp_path)
        for n, one in enumerate(files):
            (tmp_path / f"in/{n}/file").unlink()
            files[n] = replace(one, sources=[one.sources[0]._replace(shown="\x01" * 4_000)])
        (pid,) = mover.pids
        outcomes = await asyncio.wait_for(bundle(mover, files), 30)
        assert outcomes == [FailureClass.SOURCE_MISSING] * FILES
        assert mover.pids == [pid]


@contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_worker_may_have_as_many_files_open_as_bundles_need(tmp_path: Path) -> None:
    with few_descriptors(FILES * 2):  # the worker's, as it inherits it
        async with moving() as mover:
            assert await bundle(mover, orders(tmp_path)) == [None] * FILES
    assert there(tmp_path) == whole(*range(FILES))
