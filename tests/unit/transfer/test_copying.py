"""One copy on a real file system: what it leaves, and what an attempt after a lost one takes up."""

import errno
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from gridlane_transfer.backends.embedded import copying
from gridlane_transfer.backends.embedded.copying import Copied, temporary_name
from gridlane_transfer.backends.embedded.ends import AnyPlace, CopyTask
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.places import Folder, Place
from gridlane_transfer.moving.failures import FailureClass, MoveError

CONTENT = b"bytes" * 1_000_000
ADLER = f"{zlib.adler32(CONTENT):08x}"


class Free:
    """Nobody asks the copy to stop."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.total = 0
        self._stop_at = stop_at

    def may_publish(self) -> bool:
        return True

    def stopped(self) -> bool:
        return self._stop_at is not None and self.total >= self._stop_at

    def moved(self, total_bytes: int) -> None:
        self.total = total_bytes

    def closing(self, close: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


def copy(task: CopyTask, control: Free) -> Copied:
    return copying.copy(task, control, Ends())


def place(folder: Path, relative: str, shown: str = "LFN:/shown") -> Place:
    return Place(str(folder), relative, shown)


def path_of(place: AnyPlace) -> Path:
    assert isinstance(place, Place)
    return Path(place.base, place.relative)


@pytest.fixture
def task(tmp_path: Path) -> CopyTask:
    (tmp_path / "a").write_bytes(CONTENT)
    base = str(tmp_path)
    return CopyTask(
        number=7,
        epoch=3,
        sources=[Place(base, "a", "LFN:/a")],
        target=Place(base, "deep/er/b", "LFN:/b"),
        overwrite=False,
        verify_source=True,
        verify_target=True,
        size_bytes=None,
        expected={},
        checksums=["ADLER32"],
        resumed=False,
    )


def failure(task: CopyTask, control: Free | None = None) -> FailureClass:
    with pytest.raises(MoveError) as raised:
        copy(task, control or Free())
    return raised.value.failed.failure_class


def target(task: CopyTask) -> Path:
    return path_of(task.target)


def test_a_copy_is_whole_and_alone(task: CopyTask) -> None:
    done = copy(task, Free())
    assert (done.size_bytes, done.checksums) == (len(CONTENT), {"ADLER32": ADLER})
    assert target(task).read_bytes() == CONTENT
    assert [path.name for path in target(task).parent.iterdir()] == ["b"]


def test_a_copy_that_is_stopped_removes_what_it_wrote(task: CopyTask) -> None:
    assert failure(task, Free(stop_at=1 << 20)) is FailureClass.CANCELED
    assert list(target(task).parent.iterdir()) == []


class Swapped(Free):
    """Somebody puts a symbolic link in a directory's place while the copy runs.

    Parameters:
        at: when: "moved" or "may_publish".
    """

    def __init__(self, at: str, folder: Path, other: Path) -> None:
        super().__init__()
        self._at, self._folder, self._other = at, folder, other

    def may_publish(self) -> bool:
        self._swap("may_publish")
        return True

    def moved(self, total_bytes: int) -> None:
        super().moved(total_bytes)
        self._swap("moved")

    def _swap(self, at: str) -> None:
        if at == self._at and not self._folder.is_symlink():
            self._folder.rename(self._folder.with_name("away"))
            self._folder.symlink_to(self._other)


@pytest.mark.parametrize("at", ["moved", "may_publish"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_link_put_in_a_directory_s_place_leads_nowhere(
    task: CopyTask, tmp_path: Path, at: str, overwrite: bool
) -> None:
    """The file is where its directory went: what was opened is what is written to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"precious")
    swapped = Swapped(at, target(task).parent, outside)
    copy(task._replace(overwrite=overwrite), swapped)
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("b", b"precious")]
    away = target(task).parent.with_name("away")
    assert [(path.name, path.read_bytes()) for path in away.iterdir()] == [("b", CONTENT)]


def test_a_link_put_in_the_source_s_place_is_not_read(task: CopyTask, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/a").write_bytes(CONTENT)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret" * len(CONTENT))
    swapped = Swapped("moved", tmp_path / "from", outside)
    copy(task._replace(sources=[place(tmp_path, "from/a")]), swapped)
    assert target(task).read_bytes() == CONTENT


def test_what_earlier_attempts_left_is_removed(task: CopyTask) -> None:
    folder = target(task).parent
    folder.mkdir(parents=True)
    for epoch in (1, 2):
        (folder / temporary_name(7, epoch)).write_bytes(b"half")
    (folder / temporary_name(8, 1)).write_bytes(b"another's")
    copy(task, Free())
    assert sorted(path.name for path in folder.iterdir()) == [temporary_name(8, 1), "b"]


def test_an_attempt_after_a_lost_one_takes_its_target_for_done(task: CopyTask) -> None:
    copy(task, Free())
    assert failure(task) is FailureClass.TARGET_EXISTS
    done = copy(task._replace(resumed=True), Free())
    assert done.checksums == {"ADLER32": ADLER}
    path_of(task.sources[0]).unlink()
    known = task._replace(resumed=True, expected={"ADLER32": ADLER})
    assert copy(known, Free()).size_bytes == len(CONTENT)


def test_an_attempt_after_a_lost_one_does_not_take_other_bytes(task: CopyTask) -> None:
    target(task).parent.mkdir(parents=True)
    target(task).write_bytes(CONTENT[:-1] + b"!")
    assert failure(task._replace(resumed=True)) is FailureClass.TARGET_EXISTS


def test_the_next_source_is_taken_when_one_has_wrong_bytes(task: CopyTask, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(CONTENT[:-1] + b"!")
    two = task._replace(
        sources=[place(tmp_path, "none"), place(tmp_path, "bad"), task.sources[0]],
        expected={"ADLER32": ADLER},
    )
    assert copy(two, Free()).source == 2
    assert target(task).read_bytes() == CONTENT


def test_with_no_good_source_the_first_failure_is_told(task: CopyTask, tmp_path: Path) -> None:
    sources = [place(tmp_path, "x", "LFN:/x"), place(tmp_path, "y", "LFN:/y")]
    none = task._replace(sources=sources)
    with pytest.raises(MoveError) as raised:
        copy(none, Free())
    assert raised.value.failed.message == "the source does not exist: LFN:/x"


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: subprocess.run(["mkfifo", path])])
def test_what_is_no_file_is_not_read(
    task: CopyTask, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "odd")
    odd = task._replace(sources=[place(tmp_path, "odd")])
    assert failure(odd) is FailureClass.SOURCE_UNREADABLE


@pytest.mark.parametrize("module", ["worker", "webdav.ends"])
def test_the_worker_loads_neither_grpc_nor_anything_heavy(module: str) -> None:
    code = (
        f"import sys, gridlane_transfer.backends.embedded.{module};"
        "print(sorted({name.partition('.')[0] for name in sys.modules} -"
        " set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    loaded = {name for name in eval(done.stdout) if not name.startswith("_")}  # noqa: S307
    assert loaded <= {"gridlane_transfer", "gridlane_kit", "sitecustomize"}, loaded


def test_a_temporary_file_that_cannot_be_removed_hides_no_reason_and_keeps_nothing_open(
    task: CopyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Folder, name: str) -> bool:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    wrong = task._replace(expected={"ADLER32": "00000001"})
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "remove", refuse)
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert failure(wrong) is FailureClass.CHECKSUM_MISMATCH
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert (tmp_path / "deep/er" / temporary_name(7, 3)).exists()
    assert copy(task._replace(epoch=4), Free()).checksums == {"ADLER32": ADLER}
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["b"]
