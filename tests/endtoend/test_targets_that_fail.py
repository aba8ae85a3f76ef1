"""`gridlane run` whose output's target, on the server's side, cannot take it.

Each ends with a clear error, the failure's class, its exit code and nothing half written.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import Deployment

COMMAND = Path(sys.executable).with_name("gridlane")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(server: Deployment, tmp_path: Path) -> Run:
    """Runs a payload that writes 2 MiB, with its output going to a logical name."""

    def running(target: str) -> tuple[int, dict[str, Any]]:
        payload = ["sh", "-c", "head -c 2097152 /dev/zero > out"]
        done = subprocess.run(
            [COMMAND, "run", "--format", "json", "--output", f"out={target}", "--", *payload],
            cwd=tmp_path,
            env={
                **os.environ,
                **server.client_environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, json.loads(done.stdout)

    return running


@contextmanager
def mounted(server: Deployment, name: str, options: str) -> Iterator[Path]:
    """A file system of its own below the storage element `local`."""
    folder = server.data_dir / "storage" / "local" / name
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@as_root
def test_a_read_only_target_is_said_to_be_unwritable(server: Deployment, run: Run) -> None:
    with mounted(server, "frozen", "ro") as folder:
        code, told = run("LFN:/local/frozen/out")
        assert left_in(folder) == []
    assert (code, told["exit_code_of"]) == (73, "client")
    assert (told["state"], told["failure"]["failure_class"]) == ("FAILED", "STAGE_OUT")
    assert "read-only file system" in told["failure"]["message"]
    assert told["failure"]["cure"]


@as_root
def test_a_full_target_is_said_to_have_no_space(server: Deployment, run: Run) -> None:
    with mounted(server, "small", "size=1m") as folder:
        code, told = run("LFN:/local/small/out")
        assert left_in(folder) == []
    assert (code, told["exit_code_of"]) == (73, "client")
    assert (told["state"], told["failure"]["failure_class"]) == ("FAILED", "STAGE_OUT")
    assert "no room for the target" in told["failure"]["message"]
    assert told["failure"]["cure"]


def test_a_file_as_parent_is_said_to_be_unwritable(server: Deployment, run: Run) -> None:
    parent = server.data_dir / "storage" / "local" / "a-file"
    parent.parent.mkdir(exist_ok=True)
    parent.write_text("not a directory\n")
    code, told = run("LFN:/local/a-file/out")
    assert (code, told["state"]) == (73, "FAILED")
    assert told["failure"]["failure_class"] == "STAGE_OUT"
    assert "is a file, not a directory" in told["failure"]["message"]
    assert parent.read_text() == "not a directory\n"
