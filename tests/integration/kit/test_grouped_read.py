"""Grouped reads: one SELECT for all who wait, and never a value older than the question."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest
from sqlalchemy import Column, Connection, Integer, Table, insert, select

from gridlane_kit.database import Database, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.grouped_read import GroupedRead

METADATA = service_metadata()
SQUARE = Table(
    "square",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("value", Integer, nullable=False),
)


class Gate(Protocol):
    """The fixture `gate`."""

    def pass_through(self, conn: Connection) -> None: ...
    async def reached(self) -> None: ...
    def shut(self) -> AbstractAsyncContextManager[None]: ...


class Reader:
    """Reads squares, and keeps which groups were asked for."""

    def __init__(self, db: Database, gate: Gate, **limits: int) -> None:
        self.db = db
        self.gate = gate
        self.groups: list[list[int]] = []
        self.fail = False
        self.read: GroupedRead[int, int] = GroupedRead(db, self._fetch, **limits)

    def _fetch(self, conn: Connection, numbers: Sequence[int]) -> dict[int, int]:
        self.groups.append(sorted(numbers))
        rows = conn.execute(select(SQUARE).where(SQUARE.c.number.in_(numbers))).all()
        self.gate.pass_through(conn)
        if self.fail:
            raise LookupError("no")
        return {row.number: row.value for row in rows}

    async def add(self, *numbers: int) -> None:
        rows = [{"number": n, "value": n * n} for n in numbers]
        await self.db.write(lambda conn: conn.execute(insert(SQUARE), rows))


StartReader = Callable[..., Awaitable[Reader]]


@pytest.fixture
async def start_reader(
    open_database: Callable[..., Awaitable[Database]], gate: Gate
) -> StartReader:
    async def start(**limits: int) -> Reader:
        reader = Reader(await open_database(METADATA), gate, **limits)
        await reader.add(*range(100))
        return reader

    return start


async def test_callers_who_wait_together_share_one_statement(start_reader: StartReader) -> None:
    reader = await start_reader()
    values = await asyncio.gather(*(reader.read.get(n) for n in [*range(64), 3, 3]))
    assert values == [*(n * n for n in range(64)), 9, 9]
    assert reader.groups == [list(range(64))]


async def test_what_is_not_there_is_none(start_reader: StartReader) -> None:
    reader = await start_reader()
    assert await reader.read.get(1000) is None
    assert await reader.read.get_many([5, 1000, 5]) == [25, None, 25]


async def test_who_asks_during_a_read_gets_what_was_committed_before_the_question(
    start_reader: StartReader,
) -> None:
    reader = await start_reader()
    async with reader.gate.shut():
        early = asyncio.create_task(reader.read.get(200))
        await reader.gate.reached()
        await reader.add(200)
        late = asyncio.create_task(reader.read.get(200))
        await asyncio.sleep(0)
    assert (await early, await late) == (None, 40_000)


async def test_a_cancelled_caller_takes_nothing_from_others(start_reader: StartReader) -> None:
    reader = await start_reader()
    async with reader.gate.shut():
        one, other = (asyncio.create_task(reader.read.get(7)) for _ in range(2))
        await reader.gate.reached()
        one.cancel()
    assert await other == 49
    with pytest.raises(asyncio.CancelledError):
        await one


async def test_a_failed_read_is_the_answer_to_its_group_alone(start_reader: StartReader) -> None:
    reader = await start_reader()
    reader.fail = True
    outcomes = await asyncio.gather(*(reader.read.get(n) for n in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
    reader.fail = False
    assert await reader.read.get(2) == 4


async def test_the_queue_and_the_group_are_bounded(start_reader: StartReader) -> None:
    reader = await start_reader(max_batch=10, max_queue=25)
    outcomes = await asyncio.gather(
        *(reader.read.get(n) for n in range(26)), return_exceptions=True
    )
    assert outcomes[:25] == [n * n for n in range(25)]
    refused = outcomes[25]
    assert isinstance(refused, GridlaneError)
    assert refused.reason is ErrorReason.OVERLOADED
    assert [len(group) for group in reader.groups] == [10, 10, 5]
