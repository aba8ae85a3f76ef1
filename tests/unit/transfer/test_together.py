"""Small files that are copied together: each ends as if it were alone, and a step of all comes
before the next one of any.
"""

import errno
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from gridlane_transfer.backends.embedded.copying import Copied, temporary_name
from gridlane_transfer.backends.embedded.ends import Control, CopyTask
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.together import copy_together
from gridlane_transfer.moving.failures import FailureClass, MoveError

FILES = 5


class Free:
    """Nobody asks the copy to stop, unless it is said when."""

    def __init__(self, *, leave: bool = True, stops: bool = False) -> None:
        self._leave = leave
        self._stops = stops

    def may_publish(self) -> bool:
        return self._leave

    def stopped(self) -> bool:
        return self._stops

    def moved(self, total_bytes: int) -> None:
        pass

    def closing(self, close: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


def content(n: int) -> bytes:
    return b"%d" % n * 1000


@pytest.fixture
def tasks(tmp_path: Path) -> list[CopyTask]:
    (tmp_path / "in").mkdir()
    for n in range(FILES):
        (tmp_path / f"in/{n}").write_bytes(content(n))
    return [
        CopyTask(
            number=n + 1,
            epoch=1,
            sources=[Place(str(tmp_path), f"in/{n}", f"LFN:/in/{n}")],
            target=Place(str(tmp_path), f"out/{n % 2}/{n}", f"LFN:/out/{n}"),
            overwrite=False,
            verify_source=True,
            verify_target=True,
            size_bytes=len(content(n)),
            expected={},
            checksums=["ADLER32"],
            resumed=False,
        )
        for n in range(FILES)
    ]


def run(
    tasks: Sequence[CopyTask], controls: Sequence[Control] = (), asked: list[int] | None = None
) -> list[Copied | FailureClass]:
    def ask(whole: Sequence[Control]) -> None:
        if asked is not None:
            asked.append(len(whole))

    free = controls or [Free() for _ in tasks]
    outcomes = copy_together(list(zip(tasks, free, strict=True)), Ends(), ask)
    return [_plain(outcome) for outcome in outcomes]


def _plain(outcome: Copied | Exception) -> Copied | FailureClass:
    if isinstance(outcome, MoveError):
        return outcome.failed.failure_class
    assert isinstance(outcome, Copied), outcome
    return outcome


def there(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(folder / "out")): path.read_bytes() for path in files}


def whole(*numbers: int) -> dict[str, bytes]:
    return {f"{n % 2}/{n}": content(n) for n in numbers}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_all_are_there_and_leave_is_asked_for_all_at_once(
    tasks: list[CopyTask], tmp_path: Path
) -> None:
    before, asked = descriptors(), list[int]()
    outcomes = run(tasks, asked=asked)
    values = [{"ADLER32": f"{zlib.adler32(content(n)):08x}"} for n in range(FILES)]
    assert outcomes == [Copied(0, len(content(n)), values[n]) for n in range(FILES)]
    assert there(tmp_path) == whole(*range(FILES))
    assert asked == [FILES]
    assert descriptors() == before


def test_each_ends_by_itself(tasks: list[CopyTask], tmp_path: Path) -> None:
    (tmp_path / "in/0").unlink()
    wrong = replace(tasks[1], expected={"ADLER32": "00000001"})
    (tmp_path / "out/0").mkdir(parents=True)
    (tmp_path / "out/0/2").write_bytes(b"other")
    controls = [Free(), Free(), Free(), Free(leave=False), Free()]
    before = descriptors()
    outcomes = run([tasks[0], wrong, *tasks[2:]], controls)
    assert outcomes[:4] == [
        FailureClass.SOURCE_MISSING,
        FailureClass.CHECKSUM_MISMATCH,
        FailureClass.TARGET_EXISTS,
        FailureClass.CANCELED,
    ]
    assert isinstance(outcomes[4], Copied)
    assert there(tmp_path) == {"0/2": b"other", **whole(4)}
    assert descriptors() == before


def test_one_that_is_to_end_is_not_begun(tasks: list[CopyTask], tmp_path: Path) -> None:
    outcomes = run(tasks[:2], [Free(stops=True), Free()])
    assert outcomes[0] is FailureClass.CANCELED
    assert there(tmp_path) == whole(1)


def test_what_an_attempt_before_left_is_removed_or_adopted(
    tasks: list[CopyTask], tmp_path: Path
) -> None:
    (tmp_path / "out/0").mkdir(parents=True)
    (tmp_path / "out/0" / temporary_name(1, 1)).write_bytes(b"half")
    (tmp_path / "out/0/2").write_bytes(content(2))
    again = [replace(task, epoch=2, resumed=True) for task in tasks]
    outcomes = run(again)
    assert [one.adopted for one in outcomes if isinstance(one, Copied)] == [
        n == 2 for n in range(FILES)
    ]
    assert there(tmp_path) == whole(*range(FILES))


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made durable and named, in order; the directories' syncs are told apart."""
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if folder else "bytes")
        fsync(descriptor)

    def named(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append("name")
        link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", named)
    return calls


def test_bytes_are_durable_before_names_and_a_directory_is_synced_once(
    tasks: list[CopyTask], tmp_path: Path, syscalls: list[str]
) -> None:
    for name in ("0", "1"):
        (tmp_path / "out" / name).mkdir(parents=True)
    run(tasks)
    assert syscalls == ["bytes"] * FILES + ["name"] * FILES + ["folder"] * 2


def test_no_file_of_a_directory_that_is_not_durable_is_told_of(
    tasks: list[CopyTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0", "1"):
        (tmp_path / "out" / name).mkdir(parents=True)
    bad = (tmp_path / "out/0").stat().st_ino
    fsync, told = os.fsync, list[int]()

    def fails_once(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == bad and not told:
            told.append(descriptor)  # as the kernel does: the next one hears nothing of it
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    before = descriptors()
    outcomes = run(tasks)
    assert [isinstance(one, Copied) for one in outcomes] == [n % 2 == 1 for n in range(FILES)]
    assert descriptors() == before


def test_what_is_adopted_is_made_durable_before_it_is_told_of(
    tasks: list[CopyTask], tmp_path: Path, syscalls: list[str]
) -> None:
    """Whoever put it there may have died before its name was durable."""
    run(tasks[:1])
    syscalls.clear()
    (outcome,) = run([replace(tasks[0], epoch=2, resumed=True)])
    assert isinstance(outcome, Copied)
    assert outcome.adopted
    assert syscalls == ["bytes", "folder"]


def test_a_directory_whose_own_name_is_not_durable_is_nobody_s(
    tasks: list[CopyTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    above, fsync, told = (tmp_path / "out").stat().st_ino, os.fsync, list[int]()

    def fails_once(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == above:
            told.append(descriptor)
            if len(told) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    outcomes = run([tasks[0], tasks[2], tasks[4]])  # all below out/0
    assert outcomes[0] is FailureClass.TARGET_UNWRITABLE
    assert all(isinstance(one, Copied) for one in outcomes[1:])
    assert len(told) == 2, "the second made the directory anew, and had that durable"


def test_a_source_that_grows_is_not_read_on(
    tasks: list[CopyTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is written to for ever would hold up all that are copied with it."""
    readv, grown = os.readv, (tmp_path / "in/0").open("ab")

    def grows(descriptor: int, blocks: Sequence[memoryview]) -> int:
        if os.fstat(descriptor).st_ino == os.fstat(grown.fileno()).st_ino:
            grown.write(content(0))
            grown.flush()
        return readv(descriptor, blocks)

    monkeypatch.setattr(os, "readv", grows)
    with grown:
        outcomes = run(tasks)
    assert outcomes[0] is FailureClass.SOURCE_UNREADABLE
    assert all(isinstance(one, Copied) for one in outcomes[1:])
    assert (tmp_path / "in/0").stat().st_size <= 4 * len(content(0))


def test_each_step_is_told_of(
    tasks: list[CopyTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle on a slow disk is not taken for one that hangs."""
    told: list[str] = []
    fsync, link = os.fsync, os.link

    class Told(Free):
        def moved(self, total_bytes: int) -> None:
            told.append("told")

    def synced(descriptor: int) -> None:
        told.append("slow")
        fsync(descriptor)

    def named(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        told.append("slow")
        link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    run(tasks)
    for n in range(FILES):
        (tmp_path / f"out/{n % 2}/{n}").unlink()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", named)
    run(tasks, [Told() for _ in tasks])
    assert told.count("slow") == FILES * 2 + 2
    assert ["slow", "slow"] not in [told[n : n + 2] for n in range(len(told))]
