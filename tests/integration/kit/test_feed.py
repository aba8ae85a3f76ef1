"""The feed: every event once and in order, for those who come late, early, or too slowly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest
from sqlalchemy import Connection, select, update

from gridlane.ids import uuid7
from gridlane_kit import feed_store
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.feed import Feed, NewEvent, Position, StoredEvent, feed_tables
from gridlane_kit.group_commit import GroupCommit, WriteKind

METADATA = service_metadata()
TABLES = feed_tables(METADATA)

OpenDatabase = Callable[..., Awaitable[Database]]


def event(subject: str = "jobs/a", payload: bytes = b"", age_s: int = 0) -> NewEvent:
    return NewEvent(
        event_id=uuid7(),
        subject=subject,
        kind="Changed",
        time_us=now_us() - age_s * 1_000_000,
        payload=payload,
        owner="iss|me",
        vo="local",
    )


class Source:
    """A feed, and a writer of its events."""

    def __init__(self, db: Database, **options: int) -> None:
        self.db = db
        self.feed = Feed(db, TABLES, **options)
        self.group = GroupCommit(db, on_commit=self.feed.wake)
        self.add: WriteKind[NewEvent, None] = self.group.kind(
            "events.add", self._apply, key=lambda e: e.event_id
        )

    def _apply(self, conn: Connection, events: Sequence[NewEvent]) -> list[None]:
        self.feed.append(conn, events)
        return [None] * len(events)


StartSource = Callable[..., Awaitable[Source]]


@pytest.fixture
async def start_source(open_database: OpenDatabase) -> AsyncIterator[StartSource]:
    started: list[Source] = []

    async def start(**options: int) -> Source:
        source = Source(await open_database(METADATA), **options)
        await source.feed.start()
        await source.group.start()
        started.append(source)
        return source

    yield start
    for source in started:
        await source.group.drain()
        await source.feed.stop()


async def take(
    source: Source,
    after: Position | None,
    count: int,
    subjects: frozenset[str] | None = None,
    into: list[StoredEvent] | None = None,
) -> list[StoredEvent]:
    taken: list[StoredEvent] = [] if into is None else into
    async with (
        asyncio.timeout(20),
        aclosing(source.feed.follow(after, subjects=subjects)) as stream,
    ):
        async for events in stream:
            assert events
            taken += events
            if len(taken) >= count:
                break
    return taken


async def refusal(source: Source, after: Position) -> ErrorReason:
    with pytest.raises(GridlaneError) as caught:
        await take(source, after, 1)
    return caught.value.reason


async def test_a_late_follower_gets_what_is_stored_and_then_what_comes(
    start_source: StartSource,
) -> None:
    source = await start_source()
    await source.add.many([event(payload=b"%d" % n) for n in range(1200)])
    following = asyncio.create_task(take(source, None, 1300))
    for number in range(1200, 1300):
        await source.add(event(payload=b"%d" % number))
    taken = await following
    assert [e.position for e in taken] == list(range(1, 1301))
    assert [e.payload for e in taken] == [b"%d" % n for n in range(1300)]


async def test_followers_who_come_at_any_moment_miss_nothing_and_see_nothing_twice(
    start_source: StartSource,
) -> None:
    source = await start_source()

    async def write() -> None:
        for _ in range(100):
            await source.add.many([event() for _ in range(10)])

    async def follow(number: int) -> list[int]:
        await asyncio.sleep(number * 0.003)
        return [e.position for e in await take(source, None, 1000)]

    writing = asyncio.create_task(write())
    taken = await asyncio.gather(*(follow(number) for number in range(40)))
    await writing
    assert all(positions == list(range(1, 1001)) for positions in taken)


async def test_following_from_the_present_shows_only_what_comes(start_source: StartSource) -> None:
    source = await start_source()
    await source.add(event())
    present = await source.feed.position()
    following = asyncio.create_task(take(source, present, 1))
    await source.add(event(payload=b"new"))
    assert [e.payload for e in await following] == [b"new"]


async def test_a_cursor_resumes_where_it_left_off(start_source: StartSource) -> None:
    source = await start_source()
    await source.add.many([event() for _ in range(10)])
    first = await take(source, None, 10)
    epoch = (await source.feed.position()).epoch
    rest = await take(source, Position(epoch, first[3].position), 6)
    assert [e.position for e in rest] == [5, 6, 7, 8, 9, 10]


async def test_a_follower_of_some_resources_sees_those_alone(start_source: StartSource) -> None:
    source = await start_source()
    await source.add.many([event(f"jobs/{n % 10}") for n in range(1000)])
    following = asyncio.create_task(take(source, None, 204, frozenset({"jobs/3", "jobs/4"})))
    await asyncio.sleep(0.1)
    await source.add.many([event(f"jobs/{n % 10}") for n in range(20)])
    taken = await following
    assert {e.subject for e in taken} == {"jobs/3", "jobs/4"}
    assert len(taken) == 204
    assert [e.position for e in taken] == sorted({e.position for e in taken})


async def test_the_history_of_a_resource_is_the_feed_of_its_subject(
    start_source: StartSource,
) -> None:
    source = await start_source()
    await source.add.many([event(f"jobs/{n % 2}", b"%d" % n) for n in range(6)])
    history = await source.feed.read(0, subject="jobs/1")
    assert [e.payload for e in history] == [b"1", b"3", b"5"]
    assert [e.position for e in await source.feed.read(2, limit=2)] == [3, 4]


async def test_a_slow_follower_is_cut_off_with_its_last_position(start_source: StartSource) -> None:
    source = await start_source(max_pending=50)
    seen: list[StoredEvent] = []
    quick = asyncio.create_task(take(source, None, 201, into=seen))
    stream = source.feed.follow(None)
    await source.add(event())
    got = [e.position for e in await anext(stream)]
    # The live queue fills only once the follower has asked for what comes next.
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.05)
    await source.add(event())
    got += [e.position for e in await waiting]
    for number in range(3, 202):
        await source.add(event())
        # Many may be read at once: the quick one must not have too many to come either.
        while len(seen) < number - 40 and not quick.done():
            await asyncio.sleep(0)
    assert len(await quick) == 201
    with pytest.raises(GridlaneError) as caught:
        await anext(stream)
    assert caught.value.reason is ErrorReason.WATCHER_TOO_SLOW
    assert caught.value.metadata["position"] == str(got[-1])

    cursor = Position(caught.value.metadata["epoch"], int(caught.value.metadata["position"]))
    got += [e.position for e in await take(source, cursor, 199)]
    assert got == list(range(1, 202))


async def test_a_stop_ends_followers_with_their_position(start_source: StartSource) -> None:
    source = await start_source()
    await source.add(event())
    stream = source.feed.follow(None)
    await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.05)
    await source.feed.stop()
    with pytest.raises(GridlaneError) as caught:
        await waiting
    assert caught.value.reason is ErrorReason.DRAINING
    assert caught.value.metadata["position"] == "1"
    assert (
        await refusal(source, Position(caught.value.metadata["epoch"], 1)) is ErrorReason.DRAINING
    )


async def test_a_cursor_of_another_epoch_or_from_the_future_cannot_be_followed(
    start_source: StartSource,
) -> None:
    source = await start_source()
    await source.add(event())
    present = await source.feed.position()
    assert await refusal(source, Position("other", 0)) is ErrorReason.POSITION_TRIMMED
    future = Position(present.epoch, present.position + 1)
    assert await refusal(source, future) is ErrorReason.POSITION_TRIMMED

    await source.db.write(lambda c: c.execute(update(TABLES.state).values(epoch="restored")))
    assert await refusal(source, present) is ErrorReason.POSITION_TRIMMED


async def test_the_epoch_outlives_a_restart(start_source: StartSource) -> None:
    source = await start_source()
    again = Feed(source.db, TABLES)
    await again.start()
    assert await again.position() == await source.feed.position()


async def test_retention_deletes_what_is_old_and_acknowledged_by_all(
    start_source: StartSource,
) -> None:
    source = await start_source()
    epoch = (await source.feed.position()).epoch
    await source.feed.ack("reporting", Position(epoch, 0))
    await source.add.many([event(age_s=7200) for _ in range(10)])
    await source.add.many([event() for _ in range(5)])
    assert (await source.feed.position()).position == 15
    hour = timedelta(hours=1)

    assert await source.feed.prune(hour) == 0
    await source.feed.ack("reporting", Position(epoch, 4))
    await source.feed.ack("billing", Position(epoch, 15))
    assert await source.feed.prune(hour) == 4
    await source.feed.ack("reporting", Position(epoch, 15))
    assert await source.feed.prune(hour) == 6
    assert [e.position for e in await source.feed.read(0)] == [11, 12, 13, 14, 15]

    assert await refusal(source, Position(epoch, 9)) is ErrorReason.POSITION_TRIMMED
    assert [e.position for e in await take(source, Position(epoch, 10), 5)] == [11, 12, 13, 14, 15]
    assert [e.position for e in await take(source, None, 5)] == [11, 12, 13, 14, 15]


async def test_positions_are_never_given_twice_even_when_all_is_deleted(
    start_source: StartSource,
) -> None:
    source = await start_source()
    await source.add.many([event() for _ in range(5000)])
    assert await source.feed.prune(timedelta(0)) == 5000
    assert (await source.feed.position()).position == 5000
    await source.add(event())
    assert [e.position for e in await source.feed.read(0)] == [5001]


async def test_an_old_event_behind_a_young_one_stays(start_source: StartSource) -> None:
    """Only a prefix goes, or a follower would miss what lies before the gap."""
    source = await start_source()
    for age_s in (7200, 0, 7200):
        await source.add(event(age_s=age_s))
    assert await source.feed.prune(timedelta(hours=1)) == 1
    assert [e.position for e in await source.feed.read(0)] == [2, 3]


async def test_an_ack_never_goes_back_and_never_ahead(start_source: StartSource) -> None:
    source = await start_source()
    await source.add.many([event() for _ in range(5)])
    epoch = (await source.feed.position()).epoch
    await source.feed.ack("reporting", Position(epoch, 5))
    await source.feed.ack("reporting", Position(epoch, 2))
    acks = await source.db.read(lambda c: c.execute(select(TABLES.ack.c.position)).scalars().all())
    assert acks == [5]
    for wrong in (Position(epoch, 6), Position("other", 1)):
        with pytest.raises(GridlaneError):
            await source.feed.ack("reporting", wrong)


async def test_a_write_that_forgets_to_wake_is_seen_after_a_moment(
    start_source: StartSource,
) -> None:
    source = await start_source()
    await source.add(event())
    following = asyncio.create_task(take(source, None, 2))
    await asyncio.sleep(0.1)
    await source.db.write(lambda conn: feed_store.append(conn, TABLES, [event()]))
    assert len(await following) == 2


async def test_an_aborted_transaction_shows_no_event(start_source: StartSource) -> None:
    source = await start_source()

    def aborted(conn: Connection) -> None:
        source.feed.append(conn, [event(payload=b"aborted")])
        raise LookupError

    with pytest.raises(LookupError):
        await source.db.write(aborted)
    await source.add(event(payload=b"kept"))
    assert [(e.position, e.payload) for e in await source.feed.read(0)] == [(1, b"kept")]
