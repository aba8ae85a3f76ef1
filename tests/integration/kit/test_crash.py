"""A writer killed around its commit: the acknowledged is there, and a retry makes no second."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gridlane.ids import uuid7

CHILD = Path(__file__).parent / "crash_child.py"


def submit(root: Path, request_ids: list[str], failpoints: str = "") -> tuple[int, dict[str, str]]:
    """Run the child; its exit code, and the resource of each request that was answered."""
    done = subprocess.run(
        [sys.executable, str(CHILD), str(root)],
        input="\n".join(request_ids),
        env={
            **os.environ,
            "GRIDLANE_FAILPOINTS": failpoints,
            "GRIDLANE_FAILPOINT_LOG": str(root.parent / "failpoints"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode, dict(line.split() for line in done.stdout.splitlines())


def stored(root: Path) -> dict[str, str]:
    """The resource of each request in the file; fails when a request made two."""
    connection = sqlite3.connect(root / "db" / "sample.sqlite")
    rows = connection.execute("SELECT request_id, uid FROM item").fetchall()
    connection.close()
    assert max(Counter(request_id for request_id, _ in rows).values(), default=1) == 1
    return dict(rows)


@pytest.mark.parametrize("hit", [1, 2, 5])
def test_killed_between_commit_and_answer(tmp_path: Path, hit: int) -> None:
    root, request_ids = tmp_path / "data", [uuid7() for _ in range(60)]
    code, acknowledged = submit(root, request_ids, f"kit.group_commit.committed@{hit}")
    assert code == -signal.SIGKILL
    assert (tmp_path / "failpoints").read_text() == "kit.group_commit.committed\n"

    committed = stored(root)
    assert acknowledged.items() <= committed.items()
    # The last batch is there, and its callers were never told: what a retry is for.
    assert len(committed) > len(acknowledged)

    code, answers = submit(root, request_ids)
    assert code == 0
    assert answers.keys() == set(request_ids)
    assert committed.items() <= answers.items()
    assert stored(root) == answers


@pytest.mark.parametrize("hit", [1, 3])
def test_killed_before_the_commit(tmp_path: Path, hit: int) -> None:
    root, request_ids = tmp_path / "data", [uuid7() for _ in range(60)]
    code, acknowledged = submit(root, request_ids, f"kit.group_commit.before_commit@{hit}")
    assert code == -signal.SIGKILL
    assert stored(root) == acknowledged

    code, answers = submit(root, request_ids)
    assert code == 0
    assert acknowledged.items() <= answers.items()
    assert stored(root) == answers


def test_an_error_after_the_commit_is_told_and_a_retry_finds_the_resource(tmp_path: Path) -> None:
    """As an unknown outcome: the caller got an error, the row is there."""
    root, request_ids = tmp_path / "data", [uuid7()]
    done = subprocess.run(
        [sys.executable, str(CHILD), str(root)],
        input=request_ids[0],
        env={**os.environ, "GRIDLANE_FAILPOINTS": "kit.group_commit.committed=error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "FailpointError" in done.stderr
    committed = stored(root)
    assert committed.keys() == set(request_ids)
    assert submit(root, request_ids) == (0, committed)
