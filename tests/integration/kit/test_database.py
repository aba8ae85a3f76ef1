"""A service's database: transactions, snapshots, durability settings, failures with a reason."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import pytest
from sqlalchemy import Column, Connection, ForeignKey, Integer, String, Table, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from gridlane_kit.database import Database, DatabaseUnusableError, insert_rows, service_metadata
from gridlane_kit.errors import GridlaneError

METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("size", Integer, nullable=False, server_default="7"),
    Column("parent", String(36), ForeignKey("item.uid")),
)

LATE = Table(
    "late",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("item", ForeignKey("item.uid", deferrable=True, initially="DEFERRED"), nullable=False),
)

OpenDatabase = Callable[..., Awaitable[Database]]


class Gate(Protocol):
    """The fixture `gate`."""

    def pass_through(self, conn: Connection) -> None: ...
    async def reached(self) -> None: ...
    def shut(self) -> AbstractAsyncContextManager[None]: ...


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
    with pytest.raises(IntegrityError):
        await db.write(lambda conn: conn.execute(insert(LATE).values(uid="b", item="none")))
    await db.write(add("c"))
    assert await db.read(uids) == ["c"]


async def test_a_wrong_statement_is_no_failure_of_the_store(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    with pytest.raises(DBAPIError, match="absent"):
        await db.read(lambda conn: conn.execute(text("SELECT * FROM absent")))


async def test_a_value_that_does_not_fit_is_no_failure_of_the_store(
    open_database: OpenDatabase,
) -> None:
    db = await open_database(METADATA)
    for size in (2**70, object()):
        rows = [{"uid": "a", "size": size}]
        with pytest.raises((DBAPIError, OverflowError)) as caught:
            await db.write(partial(insert_rows, table=ITEM, rows=rows))
        assert db.store_failure(caught.value) is None
    await db.write(add("a"))


async def test_a_read_sees_one_snapshot(open_database: OpenDatabase, gate: Gate) -> None:
    db = await open_database(METADATA)

    def twice(conn: Connection) -> tuple[list[str], list[str]]:
        before = uids(conn)
        gate.pass_through(conn)
        return before, uids(conn)

    async with gate.shut():
        reading = asyncio.create_task(db.read(twice))
        await gate.reached()
        await db.write(add("a"))
    assert await reading == ([], [])
    assert await db.read(uids) == ["a"]


async def test_a_cancelled_caller_does_not_cut_its_write_off(
    open_database: OpenDatabase, gate: Gate
) -> None:
    db = await open_database(METADATA)

    def slowly(conn: Connection) -> None:
        add("a")(conn)
        gate.pass_through(conn)
        add("b")(conn)

    async with gate.shut():
        writing = asyncio.create_task(db.write(slowly))
        await gate.reached()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    async with asyncio.timeout(5):
        while await db.read(uids) != ["a", "b"]:
            await asyncio.sleep(0.01)


async def test_a_close_waits_for_the_writes_in_flight(
    open_database: OpenDatabase, database_url: str, gate: Gate
) -> None:
    db = await Database.open(database_url, metadata=METADATA, migrations=None, migrate=True)

    def slowly(conn: Connection) -> str:
        add("a")(conn)
        gate.pass_through(conn)
        return "written"

    async with gate.shut():
        writing = asyncio.create_task(db.write(slowly))
        await gate.reached()
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
    await closing
    assert await writing == "written"
    assert await (await open_database(METADATA)).read(uids) == ["a"]


async def test_a_reader_cannot_write(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    with pytest.raises(GridlaneError):
        await db.read(add("a"))


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
        ("postgresql+asyncpg://127.0.0.1:1/x", "cannot be used: .*Connect call failed"),
        ("postgresql+asyncpg://localhost/x?pool_size=many", "pool_size=many is not a number"),
        ("mysql://localhost/x", "no such engine"),
        ("sqlite:///relative.sqlite", "not an absolute path"),
        ("sqlite:////nowhere/at/all.sqlite", "cannot be opened"),
    ],
)
async def test_what_cannot_be_opened_says_why(url: str, said: str) -> None:
    with pytest.raises(DatabaseUnusableError, match=said):
        await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
