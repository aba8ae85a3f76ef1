"""Leases: one holder at a time, and a holder that lost its lease changes nothing any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Column, Connection, Integer, Row, String, Table, insert, select, update

from gridlane_kit.database import Database, service_metadata
from gridlane_kit.leases import (
    claim_due,
    database_now_us,
    held_by,
    lease_columns,
    new_holder,
    release,
    renew,
    renew_all,
)

METADATA = service_metadata()
WORK = Table(
    "work",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("state", String(20), nullable=False),
    *lease_columns(),
)
PIECE = Table(
    "piece",
    METADATA,
    Column("work", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    *lease_columns(),
)
MINUTE = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=30)

OpenDatabase = Callable[..., Awaitable[Database]]


async def open_work(open_database: OpenDatabase, count: int) -> Database:
    db = await open_database(METADATA)
    rows = [{"number": number, "state": "QUEUED"} for number in range(count)]
    await db.write(lambda conn: conn.execute(insert(WORK), rows))
    return db


def take(holder: str, limit: int, ttl: timedelta) -> Callable[[Connection], Sequence[Row[Any]]]:
    return lambda conn: claim_due(
        conn,
        WORK,
        where=WORK.c.state == "QUEUED",
        order_by=[WORK.c.number],
        limit=limit,
        holder=holder,
        ttl=ttl,
    )


def finish(number: int, holder: str, epoch: int, state: str) -> Callable[[Connection], int]:
    statement = (
        update(WORK)
        .where(WORK.c.number == number, held_by(WORK, holder, epoch))
        .values(state=state)
    )
    return lambda conn: conn.execute(statement).rowcount


async def state_of(db: Database, number: int) -> str:
    statement = select(WORK.c.state).where(WORK.c.number == number)
    state: str = await db.read(lambda conn: conn.execute(statement).scalar_one())
    return state


async def test_a_row_is_given_to_one_holder(open_database: OpenDatabase) -> None:
    """Who gets how many is the engine's; holders who come again leave none."""
    db = await open_work(open_database, 100)
    holders = [new_holder() for _ in range(10)]
    taken: list[Row[Any]] = []
    rounds = 0
    while len(taken) < 100:
        rounds += 1
        assert rounds <= 10
        rows = await asyncio.gather(*(db.write(take(holder, 30, MINUTE)) for holder in holders))
        assert all(len(given) <= 30 for given in rows)
        taken.extend(row for given in rows for row in given)
    assert sorted(row.number for row in taken) == list(range(100))
    assert {row.lease_epoch for row in taken} == {1}
    stored = await db.read(lambda conn: conn.execute(select(WORK)).all())
    assert {(row.number, row.lease_holder) for row in stored} == {
        (row.number, row.lease_holder) for row in taken
    }


async def test_what_comes_first_is_given_first(open_database: OpenDatabase) -> None:
    db = await open_work(open_database, 10)
    rows = await db.write(take("one", 3, MINUTE))
    assert {row.number for row in rows} == {0, 1, 2}
    assert {(row.lease_holder, row.lease_epoch) for row in rows} == {("one", 1)}


async def test_a_holder_paused_past_its_lease_changes_nothing(open_database: OpenDatabase) -> None:
    db = await open_work(open_database, 1)
    (paused,) = await db.write(take("paused", 1, MOMENT))
    assert await db.write(take("eager", 1, MINUTE)) == []
    await asyncio.sleep(0.05)
    (taken_over,) = await db.write(take("eager", 1, MINUTE))
    assert taken_over.lease_epoch == paused.lease_epoch + 1

    assert await db.write(finish(0, "paused", paused.lease_epoch, "DONE BY PAUSED")) == 0
    where = WORK.c.number == 0
    lost = {"where": where, "holder": "paused", "epoch": paused.lease_epoch}
    assert not await db.write(lambda conn: renew(conn, WORK, ttl=MINUTE, **lost))
    assert not await db.write(lambda conn: release(conn, WORK, **lost))
    assert await state_of(db, 0) == "QUEUED"
    assert await db.write(take("third", 1, MINUTE)) == []

    assert await db.write(finish(0, "eager", taken_over.lease_epoch, "DONE BY EAGER")) == 1
    assert await state_of(db, 0) == "DONE BY EAGER"


async def test_the_same_holder_that_lost_and_took_again_is_another_epoch(
    open_database: OpenDatabase,
) -> None:
    """Its first self may still be running: the name alone does not tell them apart."""
    db = await open_work(open_database, 1)
    (first,) = await db.write(take("one", 1, timedelta(0)))
    (second,) = await db.write(take("one", 1, MINUTE))
    assert await db.write(finish(0, "one", first.lease_epoch, "FIRST")) == 0
    assert await db.write(finish(0, "one", second.lease_epoch, "SECOND")) == 1


async def test_a_late_holder_whom_nobody_replaced_may_finish(open_database: OpenDatabase) -> None:
    db = await open_work(open_database, 1)
    (row,) = await db.write(take("one", 1, timedelta(0)))
    assert await db.write(finish(0, "one", row.lease_epoch, "DONE")) == 1


async def test_of_many_leases_those_that_are_still_held_are_renewed(
    open_database: OpenDatabase,
) -> None:
    db = await open_work(open_database, 4)
    rows = await db.write(take("one", 3, MOMENT))
    epochs = {row.number: row.lease_epoch for row in rows}
    await asyncio.sleep(0.05)
    await db.write(take("other", 1, MINUTE))  # the first of them
    asked = {**epochs, 1: epochs[1] + 1, 3: 1}  # of another epoch; of nobody

    def keep(conn: Connection) -> dict[int, str]:
        return renew_all(
            conn,
            WORK,
            where=WORK.c.state == "QUEUED",
            holder="one",
            epochs=asked,
            ttl=MINUTE,
            returning=WORK.c.state,
        )

    assert await db.write(keep) == {2: "QUEUED"}
    taken = await db.write(take("third", 4, MINUTE))
    assert sorted(row.number for row in taken) == [1, 3]


async def test_a_renewed_lease_lasts(open_database: OpenDatabase) -> None:
    db = await open_work(open_database, 1)
    (row,) = await db.write(take("one", 1, MOMENT))
    mine = {"where": WORK.c.number == 0, "holder": "one", "epoch": row.lease_epoch}
    assert await db.write(lambda conn: renew(conn, WORK, ttl=MINUTE, **mine))
    await asyncio.sleep(0.05)
    assert await db.write(take("other", 1, MINUTE)) == []


async def test_what_was_given_back_is_free_at_once(open_database: OpenDatabase) -> None:
    db = await open_work(open_database, 1)
    (row,) = await db.write(take("one", 1, MINUTE))
    mine = {"where": WORK.c.number == 0, "holder": "one", "epoch": row.lease_epoch}
    assert await db.write(lambda conn: release(conn, WORK, **mine))
    (again,) = await db.write(take("other", 1, MINUTE))
    assert again.lease_epoch == row.lease_epoch + 1
    assert not await db.write(lambda conn: release(conn, WORK, **mine))


async def test_rows_with_a_key_of_two_columns_are_leased(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    rows = [{"work": work, "number": number} for work in range(3) for number in range(3)]
    await db.write(lambda conn: conn.execute(insert(PIECE), rows))
    taken = await db.write(
        lambda conn: claim_due(
            conn,
            PIECE,
            where=PIECE.c.work > 0,
            order_by=[PIECE.c.work.desc(), PIECE.c.number],
            limit=2,
            holder="one",
            ttl=MINUTE,
        )
    )
    assert {(row.work, row.number) for row in taken} == {(2, 0), (2, 1)}


async def test_the_databases_clock_tells_the_time(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    now: int = await db.read(lambda conn: conn.execute(select(database_now_us())).scalar_one())
    assert abs(now - time.time() * 1e6) < 1e6


def test_holders_have_names_of_their_own() -> None:
    assert len({new_holder() for _ in range(100)}) == 100
