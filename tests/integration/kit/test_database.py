"""A service's database: transactions, snapshots, durability settings, failures with a reason."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, ForeignKey, Integer, String, Table, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from gridlane_kit.database import Database, DatabaseUnusableError, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.sqlite import sqlite_url

METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("size", Integer, nullable=False, server_default="7"),
    Column("parent", String(36), ForeignKey("item.uid")),
)

OpenDatabase = Callable[..., Awaitable[Database]]


def add(uid: str) -> Callable[[Connection], None]:
    def fn(conn: Connection) -> None:
        conn.execute(insert(ITEM).values(uid=uid, size=1))

    return fn


def uids(conn: Connection) -> list[str]:
    return list(conn.scalars(select(ITEM.c.uid).order_by(ITEM.c.uid)))


async def test_what_was_written_is_read(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    await db.write(add("a"))
    assert await db.read(uids) == ["a"]


async def test_a_write_that_raises_leaves_nothing(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)

    def fn(conn: Connection) -> None:
        add("a")(conn)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await db.write(fn)
    assert await db.read(uids) == []


async def test_a_broken_constraint_is_the_stores_to_judge(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    await db.write(add("a"))
    with pytest.raises(IntegrityError):
        await db.write(add("a"))
    with pytest.raises(IntegrityError):
        await db.write(lambda c: c.execute(insert(ITEM).values(uid="b", size=1, parent="none")))
    await db.write(add("c"))
    assert await db.read(uids) == ["a", "c"]


async def test_a_commit_that_fails_leaves_no_transaction_open(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)

    def deferred(conn: Connection) -> None:
        conn.execute(text("PRAGMA defer_foreign_keys = ON"))
        conn.execute(insert(ITEM).values(uid="b", size=1, parent="none"))

    with pytest.raises(IntegrityError):
        await db.write(deferred)
    await db.write(add("c"))
    assert await db.read(uids) == ["c"]


async def test_a_wrong_statement_is_no_failure_of_the_store(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    with pytest.raises(OperationalError, match="no such table"):
        await db.read(lambda conn: conn.execute(text("SELECT * FROM absent")))


async def test_a_read_sees_one_snapshot(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    began, go_on = threading.Event(), threading.Event()

    def twice(conn: Connection) -> tuple[list[str], list[str]]:
        before = uids(conn)
        began.set()
        assert go_on.wait(20)
        return before, uids(conn)

    reading = asyncio.create_task(db.read(twice))
    await asyncio.to_thread(began.wait, 20)
    await db.write(add("a"))
    go_on.set()
    assert await reading == ([], [])
    assert await db.read(uids) == ["a"]


async def test_a_reader_cannot_write(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    with pytest.raises(GridlaneError):
        await db.read(add("a"))


async def test_commits_are_synced_and_readers_do_not_block(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)

    def pragmas(conn: Connection) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(conn.execute(text(f"PRAGMA {name}")).scalar() for name in names)

    full = 2
    assert await db.write(pragmas) == ("wal", full, 1)


async def test_a_locked_database_is_unavailable_and_worth_a_retry(
    open_database: OpenDatabase, tmp_path: Path
) -> None:
    db = await open_database(METADATA)
    await db.write(lambda conn: conn.execute(text("PRAGMA busy_timeout = 50")).scalar())
    intruder = sqlite3.connect(tmp_path / "test.sqlite", isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(GridlaneError) as caught:
        await db.write(add("a"))
    assert caught.value.reason is ErrorReason.STORE_UNAVAILABLE
    intruder.execute("ROLLBACK")
    intruder.close()
    await db.write(add("a"))
    assert await db.read(uids) == ["a"]


async def test_quick_inserts_take_rows_in_any_order_of_columns(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)

    def fn(conn: Connection) -> list[tuple[str, int]]:
        insert_rows(conn, ITEM, [{"size": 1, "uid": "a"}, {"uid": "b", "size": 2}])
        insert_rows(conn, ITEM, [{"parent": "a", "uid": "c"}])
        insert_rows(conn, ITEM, [])
        rows = conn.execute(select(ITEM.c.uid, ITEM.c.size).order_by(ITEM.c.uid))
        return [(row.uid, row.size) for row in rows]

    assert await db.write(fn) == [("a", 1), ("b", 2), ("c", 7)]
    with pytest.raises(ValueError, match="wrong"):
        await db.write(lambda conn: insert_rows(conn, ITEM, [{"uid": "d", "wrong": 1}]))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+asyncpg://localhost/x", "SQLite only"),
        ("sqlite:///relative.sqlite", "not an absolute path"),
        ("sqlite:////nowhere/at/all.sqlite", "cannot be opened"),
    ],
)
async def test_what_cannot_be_opened_says_why(url: str, said: str) -> None:
    with pytest.raises(DatabaseUnusableError, match=said):
        await Database.open(url, metadata=METADATA, migrations=None, migrate=True)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.sqlite"
    file.write_text("this is no database, " * 200)
    with pytest.raises(DatabaseUnusableError, match="not a database"):
        await Database.open(sqlite_url(file), metadata=METADATA, migrations=None, migrate=True)
