"""When files are made durable together, and that each is by itself wherever they are not."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridlane_transfer.backends.embedded import places, syncing
from gridlane_transfer.backends.embedded.places import KeptFolders, NewFile, Place
from gridlane_transfer.backends.embedded.syncing import SharedSync

FILES = 6


@dataclass(eq=False)
class Written:
    descriptor: int


@dataclass
class Disk:
    """What was synced: "all", or a file's descriptor. Little waits, unless a test says so."""

    calls: list[int | str]
    shared: SharedSync
    files: list[Written]

    def sync(self) -> None:
        for file in self.files:
            self.shared.expect(file)
        for file in self.files:
            self.shared.sync(file)

    @property
    def each(self) -> list[int]:
        return [file.descriptor for file in self.files]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    folder = os.open(tmp_path, os.O_RDONLY)
    flags = os.O_RDWR | os.O_CREAT
    files = [Written(os.open(tmp_path / str(n), flags)) for n in range(FILES)]
    calls: list[int | str] = []
    fsync, syncfs = os.fsync, syncing._syncfs

    def synced(descriptor: int) -> None:
        calls.append(descriptor)
        fsync(descriptor)

    def all_synced(descriptor: int) -> int:
        calls.append("all")
        return 0 if syncfs is None else int(syncfs(descriptor))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(syncing, "_syncfs", all_synced)
    monkeypatch.setattr(syncing, "_KNOWN", {syncing._kind(folder)})
    monkeypatch.setattr(syncing, "_waiting_bytes", lambda: 0)
    monkeypatch.setattr(syncing, "_tells_of_losses", lambda: True)
    yield Disk(calls, SharedSync(folder), files)
    for file in files:
        os.close(file.descriptor)
    os.close(folder)


def test_several_are_synced_at_once(disk: Disk) -> None:
    disk.sync()
    assert disk.calls == ["all"]


def test_each_is_synced_once_only_for_what_was_written_before(disk: Disk) -> None:
    disk.sync()
    disk.shared.sync(disk.files[0])
    assert disk.calls == ["all", disk.files[0].descriptor]


def test_few_are_synced_one_by_one(disk: Disk) -> None:
    del disk.files[2:]
    for file in disk.files:
        disk.shared.expect(file)
    for file in disk.files:
        disk.shared.sync(file)
    assert disk.calls == disk.each


REASONS: dict[str, tuple[str, object]] = {
    "the file system is not known": ("_KNOWN", frozenset[int]()),
    "the kernel does not tell of losses": ("_tells_of_losses", lambda: False),
    "much waits for the disk": ("_waiting_bytes", lambda: 1 << 40),
    "it is no Linux": ("_syncfs", None),
    "something was lost": ("_syncfs", lambda _: -1),
    "the kind is not told": ("_fstatfs", lambda _descriptor, _told: -1),
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_is_synced_by_itself_where(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr(syncing, *REASONS[reason])
    disk.sync()
    assert disk.calls == disk.each


@pytest.mark.parametrize(
    ("release", "tells"),
    [("5.7.19", False), ("5.8.0-rc1", True), ("6.18.44", True), ("4.18.0", False), ("?", False)],
)
def test_losses_are_told_of_since_linux_5_8(
    monkeypatch: pytest.MonkeyPatch, release: str, tells: bool
) -> None:
    said = os.uname_result(("Linux", "here", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: said)
    assert syncing._tells_of_losses() is tells


def test_what_waits_is_known(tmp_path: Path) -> None:
    assert 0 <= syncing._waiting_bytes() < 1 << 50


def test_files_of_two_file_systems_are_not_taken_for_synced_by_one_another(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that another file system is mounted on: here one that says it is."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    other, fstat = (tmp_path / "b").stat().st_ino, os.fstat

    def elsewhere(descriptor: int) -> os.stat_result:
        known = fstat(descriptor)
        values = list(known)
        values[2] += known.st_ino == other
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", elsewhere)
    folders = KeptFolders()
    names = [f"{'ab'[n % 2]}/{n}" for n in range(2 * FILES)]
    files = [
        NewFile(Place(str(tmp_path), name, name), f".part-{n}", folders=folders)
        for n, name in enumerate(names)
    ]
    for file in files:
        file.write(b"bytes")
        file.written()
    disk.calls.clear()
    for file in files:
        file.sync()
    assert disk.calls == ["all"] * 2
    for file in files:
        file.discard()
    folders.close()


def unknown(number: int) -> Callable[..., int]:
    def refused(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    return refused


@pytest.mark.parametrize(
    "rename",
    [places._renameat2, None, unknown(errno.EINVAL), unknown(errno.ENOSYS)],
    ids=["known", "no Linux", "file system without", "kernel without"],
)
def test_a_name_that_is_taken_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: Callable[..., int] | None
) -> None:
    monkeypatch.setattr(places, "_renameat2", rename)
    for name, taken in (("free", False), ("taken", True)):
        if taken:
            (tmp_path / name).write_bytes(b"precious")
        file = NewFile(Place(str(tmp_path), name, name), ".part")
        file.write(b"bytes")
        if taken:
            with pytest.raises(FileExistsError):
                file.publish(overwrite=False)
            file.discard()
        else:
            file.publish(overwrite=False)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"free": b"bytes", "taken": b"precious"}


def test_a_name_is_never_cut_short(tmp_path: Path) -> None:
    file = NewFile(Place(str(tmp_path), "a\0b", "a"), ".part")
    with pytest.raises(ValueError, match="null"):
        file.publish(overwrite=False)
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_temporary_name_was_removed_gets_no_name(tmp_path: Path) -> None:
    """As a later attempt does with an earlier one's."""
    file = NewFile(Place(str(tmp_path), "a", "a"), ".part")
    (tmp_path / ".part").unlink()
    with pytest.raises(FileNotFoundError):
        file.publish(overwrite=False)
    file.close()
    assert list(tmp_path.iterdir()) == []
