"""A writer killed around its commit: the acknowledged is there, and a retry makes no second."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, column, select, table

from gridlane.ids import uuid7
from gridlane_kit.database import Database, service_metadata

CHILD = Path(__file__).parent / "crash_child.py"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a failpoint that kills leaves its name."""
    return tmp_path / "failpoints"


def submit(
    url: str, request_ids: list[str], log: Path, failpoints: str = ""
) -> tuple[int, dict[str, str]]:
    """Run the child; its exit code, and the resource of each request that was answered."""
    done = subprocess.run(
        [sys.executable, str(CHILD), url],
        input="\n".join(request_ids),
        env={
            **os.environ,
            "GRIDLANE_FAILPOINTS": failpoints,
            "GRIDLANE_FAILPOINT_LOG": str(log),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode, dict(line.split() for line in done.stdout.splitlines())


async def _rows(url: str) -> list[Row[Any]]:
    item = table("item", column("request_id"), column("uid"))
    db = await Database.open(url, metadata=service_metadata(), migrations=None, migrate=True)
    rows = await db.read(lambda conn: conn.execute(select(item)).all())
    await db.close()
    return list(rows)


def stored(url: str) -> dict[str, str]:
    """The resource of each request in the database; fails when a request made two."""
    rows = [(row.request_id, row.uid) for row in asyncio.run(_rows(url))]
    assert max(Counter(request_id for request_id, _ in rows).values(), default=1) == 1
    return dict(rows)


@pytest.mark.parametrize("hit", [1, 2, 5])
def test_killed_between_commit_and_answer(database_url: str, log: Path, hit: int) -> None:
    request_ids = [uuid7() for _ in range(60)]
    failpoint = "kit.group_commit.committed"
    code, acknowledged = submit(database_url, request_ids, log, f"{failpoint}@{hit}")
    assert code == -signal.SIGKILL
    assert log.read_text() == f"{failpoint}\n"

    committed = stored(database_url)
    assert acknowledged.items() <= committed.items()
    # The last batch is there, and its callers were never told: what a retry is for.
    assert len(committed) > len(acknowledged)

    code, answers = submit(database_url, request_ids, log)
    assert code == 0
    assert answers.keys() == set(request_ids)
    assert committed.items() <= answers.items()
    assert stored(database_url) == answers


@pytest.mark.parametrize(
    "failpoint", ["kit.group_commit.before_commit@1", "kit.group_commit.before_commit@3"]
)
def test_killed_before_the_commit(database_url: str, log: Path, failpoint: str) -> None:
    killed_before_the_commit(database_url, log, failpoint)


@pytest.mark.parametrize("engine", ["postgresql"])
@pytest.mark.parametrize("hit", [1, 3])
def test_killed_when_the_transaction_has_its_name(database_url: str, log: Path, hit: int) -> None:
    killed_before_the_commit(database_url, log, f"kit.postgresql.before_commit@{hit}")


def killed_before_the_commit(url: str, log: Path, failpoint: str) -> None:
    request_ids = [uuid7() for _ in range(60)]
    code, acknowledged = submit(url, request_ids, log, failpoint)
    assert code == -signal.SIGKILL
    assert stored(url) == acknowledged

    code, answers = submit(url, request_ids, log)
    assert code == 0
    assert acknowledged.items() <= answers.items()
    assert stored(url) == answers


def test_an_error_after_the_commit_is_told_and_a_retry_finds_the_resource(
    database_url: str, log: Path
) -> None:
    """As an unknown outcome: the caller got an error, the row is there."""
    request_ids = [uuid7()]
    done = subprocess.run(
        [sys.executable, str(CHILD), database_url],
        input=request_ids[0],
        env={**os.environ, "GRIDLANE_FAILPOINTS": "kit.group_commit.committed=error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "FailpointError" in done.stderr
    committed = stored(database_url)
    assert committed.keys() == set(request_ids)
    assert submit(database_url, request_ids, log) == (0, committed)
