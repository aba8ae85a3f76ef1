"""Small files that are copied together: each ends as if it were alone, and a step of all comes
before the next one of any.
"""

import errno
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock, Thread

import pytest

from gridlane_transfer.backends.embedded import places, syncing
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
    tasks: Sequence[CopyTask],
    controls: Sequence[Control] = (),
    asked: list[int] | None = None,
    writes: "Lock | None" = None,
) -> list[Copied | FailureClass]:
    def ask(whole: Sequence[Control]) -> None:
        if asked is not None:
            asked.append(len(whole))

    free = controls or [Free() for _ in tasks]
    copies = list(zip(tasks, free, strict=True))
    outcomes = copy_together(copies, Ends(), ask, Lock() if writes is None else writes)
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
    wrong = tasks[1]._replace(expected={"ADLER32": "00000001"})
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
    again = [task._replace(epoch=2, resumed=True) for task in tasks]
    outcomes = run(again)
    assert [one.adopted for one in outcomes if isinstance(one, Copied)] == [
        n == 2 for n in range(FILES)
    ]
    assert there(tmp_path) == whole(*range(FILES))


def known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a directory's file system be one that is synced as a whole, little waiting there."""
    descriptor = os.open(folder, os.O_RDONLY)
    monkeypatch.setattr(syncing, "_KNOWN", {syncing._kind(descriptor)})
    monkeypatch.setattr(syncing, "_waiting_bytes", lambda: 0)
    monkeypatch.setattr(syncing, "_tells_of_losses", lambda: True)
    os.close(descriptor)


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made durable and named, in order; the directories' syncs are told apart."""
    calls: list[str] = []
    fsync, syncfs, renamed = os.fsync, syncing._syncfs, places._renamed_anew

    def synced(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if folder else "bytes")
        fsync(descriptor)

    def all_synced(descriptor: int) -> int:
        calls.append("all")
        return 0 if syncfs is None else int(syncfs(descriptor))

    def named(folder: int, old: str, new: str) -> bool:
        calls.append("name")
        return renamed(folder, old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(syncing, "_syncfs", all_synced)
    monkeypatch.setattr(places, "_renamed_anew", named)
    monkeypatch.setattr(syncing, "_KNOWN", frozenset[int]())
    return calls


def test_bytes_are_durable_before_names_and_a_directory_is_synced_once(
    tasks: list[CopyTask], tmp_path: Path, syscalls: list[str]
) -> None:
    for name in ("0", "1"):
        (tmp_path / "out" / name).mkdir(parents=True)
    run(tasks)
    assert syscalls == ["bytes"] * FILES + ["name"] * FILES + ["folder"] * 2


def test_bytes_are_durable_at_once_where_the_file_system_is_known(
    tasks: list[CopyTask], tmp_path: Path, syscalls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known(tmp_path, monkeypatch)
    for name in ("0", "1"):
        (tmp_path / "out" / name).mkdir(parents=True)
    outcomes = run(tasks)
    assert all(isinstance(one, Copied) for one in outcomes)
    assert syscalls == ["all"] + ["name"] * FILES + ["folder"] * 2


def test_when_not_all_could_be_written_the_one_that_was_lost_fails(
    tasks: list[CopyTask], tmp_path: Path, syscalls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known(tmp_path, monkeypatch)
    for name in ("0", "1"):
        (tmp_path / "out" / name).mkdir(parents=True)
    fsync = os.fsync

    def third_is_lost(descriptor: int) -> None:
        fsync(descriptor)
        if syscalls == ["bytes"] * 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(syncing, "_syncfs", lambda _: -1)
    monkeypatch.setattr(os, "fsync", third_is_lost)
    before = descriptors()
    outcomes = run(tasks)
    assert outcomes[2] is FailureClass.TARGET_UNWRITABLE
    assert [isinstance(one, Copied) for one in outcomes] == [n != 2 for n in range(FILES)]
    assert there(tmp_path) == whole(0, 1, 3, 4)
    assert syscalls == ["bytes"] * FILES + ["name"] * (FILES - 1) + ["folder"] * 2
    assert descriptors() == before


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
    (outcome,) = run([tasks[0]._replace(epoch=2, resumed=True)])
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
    fsync, renamed = os.fsync, places._renamed_anew

    class Told(Free):
        def moved(self, total_bytes: int) -> None:
            told.append("told")

    def synced(descriptor: int) -> None:
        told.append("slow")
        fsync(descriptor)

    def named(folder: int, old: str, new: str) -> bool:
        told.append("slow")
        return renamed(folder, old, new)

    monkeypatch.setattr(syncing, "_KNOWN", frozenset[int]())
    run(tasks)
    for n in range(FILES):
        (tmp_path / f"out/{n % 2}/{n}").unlink()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(places, "_renamed_anew", named)
    run(tasks, [Told() for _ in tasks])
    assert told.count("slow") == FILES * 2 + 2
    assert ["slow", "slow"] not in [told[n : n + 2] for n in range(len(told))]


def test_what_hangs_while_it_writes_holds_up_no_other_for_long(
    tmp_path: Path, tasks: list[CopyTask]
) -> None:
    writes = Lock()
    with writes:
        run(tasks, writes=writes)
    assert there(tmp_path) == whole(*range(FILES))


def test_others_write_while_one_waits_for_the_leave_to_publish(
    tmp_path: Path, tasks: list[CopyTask]
) -> None:
    class Waiting(Free):
        """Has its leave once the other files are there."""

        def may_publish(self) -> bool:
            other = Thread(target=run, args=(tasks[1:],), kwargs={"writes": writes})
            other.start()
            other.join(60)
            self.others = {name for name in there(tmp_path) if ".part" not in name}
            return not writes.locked()

    writes, waiting = Lock(), Waiting()
    assert isinstance(run(tasks[:1], [waiting], writes=writes)[0], Copied)
    assert waiting.others == whole(*range(1, FILES)).keys()
