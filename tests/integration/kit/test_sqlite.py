"""What is particular to the engine SQLite: pragmas, locks, files, a database that cannot grow."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, String, Table, func, insert, select, text

from gridlane_kit.database import Database, DatabaseUnusableError, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.sqlite import sqlite_url

METADATA = service_metadata()
ITEM = Table("item", METADATA, Column("uid", String(36), primary_key=True), Column("n", Integer))


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(
        sqlite_url(tmp_path / "test.sqlite"), metadata=METADATA, migrations=None, migrate=True
    )
    yield database
    await database.close()


def count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(ITEM)).scalar_one()


async def test_commits_are_synced_and_readers_do_not_block(db: Database) -> None:
    def pragmas(conn: Connection) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(conn.execute(text(f"PRAGMA {name}")).scalar() for name in names)

    full = 2
    assert await db.write(pragmas) == ("wal", full, 1)


async def test_a_locked_database_is_unavailable_and_worth_a_retry(
    db: Database, tmp_path: Path
) -> None:
    await db.write(lambda conn: conn.execute(text("PRAGMA busy_timeout = 50")).scalar())
    intruder = sqlite3.connect(tmp_path / "test.sqlite", isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(GridlaneError) as caught:
        await db.write(lambda conn: conn.execute(insert(ITEM).values(uid="a")))
    assert caught.value.reason is ErrorReason.STORE_UNAVAILABLE
    intruder.execute("ROLLBACK")
    intruder.close()
    await db.write(lambda conn: conn.execute(insert(ITEM).values(uid="a")))
    assert await db.read(count) == 1


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.sqlite"
    file.write_text("this is no database, " * 200)
    with pytest.raises(DatabaseUnusableError, match="not a database"):
        await Database.open(sqlite_url(file), metadata=METADATA, migrations=None, migrate=True)


async def test_a_database_that_cannot_grow_fails_the_whole_batch_with_a_retry(
    db: Database,
) -> None:
    """Nothing of it is kept, nobody hangs, and it goes on afterwards."""

    def apply(conn: Connection, numbers: Sequence[int]) -> list[int]:
        insert_rows(conn, ITEM, [{"uid": f"{n:05d}" * 7, "n": n} for n in numbers])
        return list(numbers)

    group = GroupCommit(db)
    add = group.kind("items.add", apply, key=int)
    await group.start()
    await add(10_000)

    def limit(conn: Connection) -> None:
        pages = conn.execute(text("PRAGMA page_count")).scalar_one()
        conn.execute(text(f"PRAGMA max_page_count = {pages}"))

    await db.write(limit)
    outcomes = await asyncio.gather(*(add(n) for n in range(2000)), return_exceptions=True)
    reasons = {o.reason for o in outcomes if isinstance(o, GridlaneError)}
    assert reasons == {ErrorReason.NO_SPACE}
    refused = sum(isinstance(outcome, GridlaneError) for outcome in outcomes)
    assert await db.read(count) == 1 + 2000 - refused
    assert refused >= 1000

    await db.write(lambda conn: conn.execute(text("PRAGMA max_page_count = 1000000")))
    assert await add(10_001) == 10_001
    await group.drain()
