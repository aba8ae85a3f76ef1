"""The data directory: one process, right modes, secrets whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gridlane_kit.data_directory import DataDirectory, DataDirectoryInUseError, write_secret

HOLDER = """
import sys, pathlib, time
from gridlane_kit.data_directory import DataDirectory
held = DataDirectory.open(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def start_holder(root: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with start_holder(root) as holder:
        with pytest.raises(DataDirectoryInUseError) as caught:
            DataDirectory.open(root)
        assert caught.value.pid == str(holder.pid)
        assert str(root) in str(caught.value)
        assert str(holder.pid) in str(caught.value)

        holder.send_signal(signal.SIGKILL)
        holder.wait(20)
        DataDirectory.open(root).close()


def test_the_second_attempt_in_one_process_is_refused_too(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path)
    with pytest.raises(DataDirectoryInUseError, match=str(os.getpid())):
        DataDirectory.open(tmp_path)
    first.close()
    DataDirectory.open(tmp_path).close()


def test_a_child_started_by_exec_does_not_keep_the_lock(tmp_path: Path) -> None:
    held = DataDirectory.open(tmp_path)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    held.close()
    DataDirectory.open(tmp_path).close()
    child.kill()
    child.wait(20)


def test_the_layout_has_its_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        data = DataDirectory.open(tmp_path / "new" / "data")
    finally:
        os.umask(before)
    assert mode(data.root) == 0o711
    assert {path.name: mode(path) for path in data.root.iterdir()} == {
        "db": 0o700,
        "storage": 0o700,
        "sandboxes": 0o700,
        "jobs": 0o711,
        "keys": 0o700,
        "lock": 0o600,
    }
    assert data.database_file("workload") == data.root / "db" / "workload.sqlite"
    assert (data.storage.parent, data.sandboxes.parent, data.jobs.parent, data.keys.parent) == (
        data.root,
    ) * 4
    assert data.token_file == data.root / "token"
    data.close()


def test_what_is_there_stays_and_too_wide_modes_are_narrowed(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path).close()
    (tmp_path / "keys").chmod(0o755)
    (tmp_path / "keys" / "one").write_text("key")
    data = DataDirectory.open(tmp_path)
    assert mode(data.keys) == 0o700
    assert (data.keys / "one").read_text() == "key"
    data.close()


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = DataDirectory.open(Path("here"))
    assert data.root == tmp_path / "here"
    data.close()


def test_a_secret_is_for_its_owner_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "token"
    write_secret(file, b"one")
    write_secret(file, b"two")
    assert (file.read_bytes(), mode(file)) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_secret_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_secret(tmp_path / "folder", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
