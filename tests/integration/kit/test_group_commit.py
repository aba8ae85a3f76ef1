"""Group commit: what each caller is promised while all share one transaction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Integer,
    String,
    Table,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from gridlane_kit.database import Database, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit, WriteKind

METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("size", Integer, CheckConstraint("size >= 0", name="size"), nullable=False),
)
ORDER = Table("visit", METADATA, Column("number", Integer, primary_key=True), Column("uid", String))

Item = tuple[str, int]


class Gate(Protocol):
    """The fixture `gate`."""

    def pass_through(self, conn: Connection) -> None: ...
    async def reached(self) -> None: ...
    def shut(self) -> AbstractAsyncContextManager[None]: ...


class Writer:
    """A group commit with one kind, which inserts items, and what its batches were."""

    def __init__(self, db: Database, gate: Gate, **limits: Any) -> None:
        self.db = db
        self.gate = gate
        self.batches: list[list[Item]] = []
        self.commits = 0
        self.group = GroupCommit(db, on_commit=self._count, **limits)
        self.add: WriteKind[Item, str] = self.group.kind(
            "items.add", self._apply, key=lambda item: item[0]
        )

    def _count(self) -> None:
        self.commits += 1

    def _apply(self, conn: Connection, items: Sequence[Item]) -> list[str | Exception]:
        self.gate.pass_through(conn)
        self.batches.append(list(items))
        insert_rows(conn, ITEM, [{"uid": uid, "size": size} for uid, size in items])
        return [f"items/{uid}" for uid, _ in items]

    async def stored(self) -> set[str]:
        return await self.db.read(lambda conn: set(conn.scalars(select(ITEM.c.uid))))

    @asynccontextmanager
    async def holding_a_batch(self) -> AsyncIterator[None]:
        """While inside, one batch is being written and everything else queues behind it."""
        async with self.gate.shut():
            first = asyncio.create_task(self.add(("first", 1)))
            await self.gate.reached()
            yield
        assert await first == "items/first"


StartWriter = Callable[..., Awaitable[Writer]]


@pytest.fixture
async def start_writer(
    open_database: Callable[..., Awaitable[Database]], gate: Gate
) -> StartWriter:
    async def start(**limits: int) -> Writer:
        writer = Writer(await open_database(METADATA), gate, **limits)
        await writer.group.start()
        return writer

    return start


async def queued(writer: Writer, items: Sequence[Item]) -> list[asyncio.Task[str]]:
    """The items' callers, all waiting in the queue."""
    tasks = [asyncio.create_task(writer.add(item)) for item in items]
    await asyncio.sleep(0)
    assert writer.group.depth == len(items)
    return tasks


async def test_a_batch_is_what_queued_while_the_last_commit_ran(start_writer: StartWriter) -> None:
    writer = await start_writer()
    async with writer.holding_a_batch():
        tasks = await queued(writer, [(f"{n:03d}", n) for n in range(200)])
    assert await asyncio.gather(*tasks) == [f"items/{n:03d}" for n in range(200)]
    assert [len(batch) for batch in writer.batches] == [1, 200]
    assert writer.commits == 2
    await writer.group.drain()


async def test_one_bad_row_among_200_fails_alone(start_writer: StartWriter) -> None:
    writer = await start_writer()
    items = [(f"{n:03d}", -1 if n == 137 else n) for n in range(200)]
    async with writer.holding_a_batch():
        tasks = await queued(writer, items)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[137], IntegrityError)
    assert [o for o in outcomes if not isinstance(o, str)] == [outcomes[137]]
    assert await writer.stored() == {"first", *(uid for uid, size in items if size >= 0)}
    # Found by halving, not by trying each of the 200.
    assert len(writer.batches) < 25
    await writer.group.drain()


async def test_a_bad_row_of_one_kind_leaves_other_kinds_alone(
    start_writer: StartWriter, gate: Gate
) -> None:
    writer = Writer((await start_writer()).db, gate)

    def count(conn: Connection, uids: Sequence[str]) -> list[int]:
        found = conn.scalars(select(ITEM.c.uid).where(ITEM.c.uid.in_(uids))).all()
        return [int(uid in found) for uid in uids]

    look = writer.group.kind("items.look", count, key=str)
    await writer.group.start()
    async with writer.holding_a_batch():
        tasks = await queued(writer, [("good", 1), ("bad", -1)])
        looked = [asyncio.create_task(look("good")), asyncio.create_task(look("bad"))]
        await asyncio.sleep(0)
    # Kinds are applied in the order in which they were declared, in the same transaction.
    assert await asyncio.gather(*looked) == [1, 0]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[0] == "items/good"
    assert isinstance(outcomes[1], IntegrityError)
    await writer.group.drain()


async def test_entries_of_a_batch_are_sorted_by_key(start_writer: StartWriter) -> None:
    writer = await start_writer()
    async with writer.holding_a_batch():
        tasks = await queued(writer, [("c", 3), ("a", 1), ("b", 2)])
    assert await asyncio.gather(*tasks) == ["items/c", "items/a", "items/b"]
    assert writer.batches[-1] == [("a", 1), ("b", 2), ("c", 3)]
    await writer.group.drain()


async def test_a_refusal_is_the_answer_to_its_caller_alone(
    open_database: Callable[..., Awaitable[Database]],
) -> None:
    db = await open_database(METADATA)

    def apply(conn: Connection, numbers: Sequence[int]) -> list[int | Exception]:
        return [n if n % 2 else GridlaneError(ErrorReason.NOT_FOUND, str(n)) for n in numbers]

    group = GroupCommit(db)
    odd = group.kind("odd", apply, key=int)
    await group.start()
    assert await odd(1) == 1
    with pytest.raises(GridlaneError, match="2"):
        await odd(2)
    one, two, three = await odd.many([1, 2, 3])
    assert (one, three) == (1, 3)
    assert isinstance(two, GridlaneError)
    assert await odd.many([]) == []
    await group.drain()


async def test_the_items_of_a_batch_call_fail_one_by_one(start_writer: StartWriter) -> None:
    writer = await start_writer()
    items = [(f"{n:04d}", -1 if n in {5, 700} else n) for n in range(1000)]
    outcomes = await writer.add.many(items)
    bad = {index for index, outcome in enumerate(outcomes) if not isinstance(outcome, str)}
    assert bad == {5, 700}
    assert len(await writer.stored()) == 998
    await writer.group.drain()


async def test_a_cancelled_caller_does_not_cancel_its_write(start_writer: StartWriter) -> None:
    writer = await start_writer()
    async with writer.holding_a_batch():
        waiting, other = await queued(writer, [("cancelled", 1), ("other", 2)])
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await other == "items/other"
    assert await writer.stored() == {"first", "cancelled", "other"}
    await writer.group.drain()


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(
    start_writer: StartWriter,
) -> None:
    writer = await start_writer(max_queue=3)
    async with writer.holding_a_batch():
        tasks = await queued(writer, [("a", 1), ("b", 2), ("c", 3)])
        with pytest.raises(GridlaneError) as caught:
            await writer.add(("d", 4))
        with pytest.raises(GridlaneError):
            await writer.add.many([("e", 5), ("f", 6)])
    assert caught.value.reason is ErrorReason.OVERLOADED
    assert caught.value.details
    await asyncio.gather(*tasks)
    assert await writer.add(("d", 4)) == "items/d"
    assert await writer.stored() == {"first", "a", "b", "c", "d"}
    await writer.group.drain()


async def test_a_batch_has_at_most_its_number_of_entries(start_writer: StartWriter) -> None:
    writer = await start_writer(max_batch=10)
    async with writer.holding_a_batch():
        tasks = await queued(writer, [(f"{n:03d}", n) for n in range(25)])
    await asyncio.gather(*tasks)
    await writer.add.many([(f"m{n:03d}", n) for n in range(30)])
    assert [len(batch) for batch in writer.batches] == [1, 10, 10, 5, 30]
    await writer.group.drain()


async def test_an_entry_past_its_deadline_is_dropped_before_its_batch(
    start_writer: StartWriter,
) -> None:
    writer = await start_writer()
    now = asyncio.get_running_loop().time()
    async with writer.holding_a_batch():
        late = asyncio.create_task(writer.add(("late", 1), deadline=now))
        in_time = asyncio.create_task(writer.add(("in time", 1), deadline=now + 60))
        await asyncio.sleep(0)
        assert writer.group.depth == 2
    with pytest.raises(GridlaneError) as caught:
        await late
    assert caught.value.reason is ErrorReason.DEADLINE_EXCEEDED
    assert await in_time == "items/in time"
    assert await writer.stored() == {"first", "in time"}
    await writer.group.drain()


async def test_a_drain_finishes_what_is_queued_and_refuses_what_is_new(
    start_writer: StartWriter,
) -> None:
    writer = await start_writer()
    async with writer.holding_a_batch():
        tasks = await queued(writer, [(f"{n:03d}", n) for n in range(50)])
        drained = asyncio.create_task(writer.group.drain())
        await asyncio.sleep(0)
        with pytest.raises(GridlaneError) as caught:
            await writer.add(("late", 1))
        assert not drained.done()
    await drained
    assert caught.value.reason is ErrorReason.DRAINING
    assert all(task.done() for task in tasks)
    assert len(await writer.stored()) == 51


async def test_an_answer_comes_after_the_commit(
    start_writer: StartWriter, open_database: Callable[..., Awaitable[Database]]
) -> None:
    """Another connection sees the row at the moment of the answer."""
    writer = await start_writer()
    other = await open_database(METADATA)

    def size_of(conn: Connection, uid: str) -> object:
        return conn.scalar(select(ITEM.c.size).where(ITEM.c.uid == uid))

    for number in range(20):
        await writer.add((str(number), number))
        assert await other.read(partial(size_of, uid=str(number))) == number
    await writer.group.drain()


async def test_a_kind_that_answers_too_little_is_a_defect_and_not_a_hang(
    open_database: Callable[..., Awaitable[Database]],
) -> None:
    db = await open_database(METADATA)

    def apply(conn: Connection, entries: Sequence[int]) -> list[int]:
        conn.execute(insert(ORDER), [{"number": entry, "uid": ""} for entry in entries])
        return []

    group = GroupCommit(db)
    broken = group.kind("broken", apply, key=int)
    await group.start()
    with pytest.raises(TypeError, match="broken answered 0 outcomes for 1"):
        await broken(1)
    assert await db.read(lambda conn: conn.scalars(select(ORDER.c.number)).all()) == []
    await group.drain()


async def test_kinds_are_declared_before_the_start(start_writer: StartWriter) -> None:
    writer = await start_writer()
    with pytest.raises(RuntimeError, match="late"):
        writer.group.kind("late", lambda conn, entries: list(entries), key=str)
    await writer.group.drain()
