"""A full disk under the database: clear errors, nothing half written; with room, on it goes."""

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, LargeBinary, Table, select

from gridlane_kit.database import Database, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.sqlite import sqlite_url

METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
BODY = os.urandom(50_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def apply(conn: Connection, numbers: Sequence[int]) -> list[int]:
    insert_rows(conn, ITEM, [{"number": number, "body": BODY} for number in numbers])
    return list(numbers)


async def test_the_acknowledged_are_there_and_the_others_are_told(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    db = await Database.open(
        sqlite_url(small_disk / "test.sqlite"), metadata=METADATA, migrations=None, migrate=True
    )
    group = GroupCommit(db)
    add = group.kind("items.add", apply, key=int)
    await group.start()

    async def submit(number: int) -> int | GridlaneError:
        try:
            return await add(number)
        except GridlaneError as error:
            return error

    outcomes = [
        outcome
        for begin in range(0, 100, 5)
        for outcome in await asyncio.gather(*(submit(n) for n in range(begin, begin + 5)))
    ]
    errors = [outcome for outcome in outcomes if isinstance(outcome, GridlaneError)]
    acknowledged = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert acknowledged
    assert {error.reason for error in errors} == {ErrorReason.NO_SPACE}
    assert all(error.details for error in errors)

    def numbers(conn: Connection) -> list[int]:
        return list(conn.scalars(select(ITEM.c.number).order_by(ITEM.c.number)))

    assert await db.read(numbers) == acknowledged

    ballast.unlink()
    assert await add(1000) == 1000
    assert await db.read(numbers) == [*acknowledged, 1000]
    await group.drain()
    await db.close()

    reopened = await Database.open(
        sqlite_url(small_disk / "test.sqlite"), metadata=METADATA, migrations=None, migrate=True
    )
    assert await reopened.read(numbers) == [*acknowledged, 1000]
    await reopened.close()
