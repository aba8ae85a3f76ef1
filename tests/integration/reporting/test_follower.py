"""A follower against a feed that is cut, repeats itself, sends poison, or loses events; and several
followers of one feed.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from postgresql import PostgresqlServer

from gridlane.type.v1 import feed_pb2
from gridlane.workload.v1 import event_pb2, event_service_pb2, job_pb2
from gridlane_kit import errors
from gridlane_kit.database import Database
from gridlane_kit.decision import EVERYTHING
from gridlane_kit.feed import Position
from gridlane_kit.filters import Filter
from gridlane_kit.pages import page_request
from gridlane_reporting.accounting import NewRecord, job_record
from gridlane_reporting.follower import Follower, Source
from gridlane_reporting.store import (
    METADATA,
    MIGRATIONS,
    NEWEST_FIRST,
    list_records,
    read_cursor,
)

EPOCH = "epoch"
RETRY_S = 0.01
LEASE_S = 0.3
# A lease that a machine with much to do does not let run out.
KEPT_LEASE_S = 2.0


def ended(number: int, *, whole: bool = True) -> event_pb2.JobEvent:
    """The end of job `number`; not whole: it lacks the job, and is poison."""
    name = f"jobs/{number}"
    return event_pb2.JobEvent(
        event_id=f"event-{number}",
        time=Timestamp(seconds=1),
        job_name=name,
        attempt=1,
        state=job_pb2.JOB_STATE_DONE,
        job=job_pb2.Job(name=name) if whole else None,
    )


@dataclass
class StandInFeed:
    """Workload's feed as its follower sees it: a list of events that can be cut and can lose its
    head.

    A stand-in, because the real one is never cut where a test wants it; the real one is followed in
    the tests of the whole server.
    """

    events: list[event_pb2.JobEvent]
    cut_after: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    asked_after: list[int] = field(default_factory=list)
    trimmed: bool = False
    account: Callable[[event_pb2.JobEvent], NewRecord | None] = job_record

    async def follow(
        self, after: feed_pb2.FeedPosition | None
    ) -> AsyncGenerator[event_service_pb2.FollowJobEventsResponse, None]:
        begin = 0 if after is None else after.position
        self.asked_after.append(begin)
        if self.trimmed:
            raise errors.position_trimmed("1", "9")
        cut = self.cut_after.pop(0) if self.cut_after else None
        for position in range(begin, len(self.events)):
            if position == cut:
                raise errors.peer_unavailable("workload")
            yield event_service_pb2.FollowJobEventsResponse(
                events=[self.events[position]],
                position=feed_pb2.FeedPosition(epoch=EPOCH, position=position + 1),
            )
        yield event_service_pb2.FollowJobEventsResponse()
        await asyncio.Event().wait()

    async def acknowledge(self, position: feed_pb2.FeedPosition) -> None:
        self.acknowledged.append(position.position)


def follower_of(
    feed: StandInFeed, db: Database, lease_s: float = LEASE_S
) -> Follower[event_pb2.JobEvent]:
    source = Source(
        name="workload",
        follow=feed.follow,
        acknowledge=feed.acknowledge,
        account=feed.account,
        committed=lambda: None,
        acknowledged=lambda: None,
    )
    return Follower(source, db, retry_s=RETRY_S, lease_s=lease_s)


Run = Callable[[StandInFeed], Awaitable[Follower[event_pb2.JobEvent]]]


@pytest.fixture
async def run(db: Database) -> AsyncIterator[Run]:
    """Runs a follower until it has taken everything; it ends with the test or before the next."""
    async with AsyncExitStack() as stack:

        async def run_until_taken(feed: StandInFeed) -> Follower[event_pb2.JobEvent]:
            await stack.aclose()
            follower = follower_of(feed, db)
            task = asyncio.create_task(follower.run())
            stack.push_async_callback(_end, follower, task)
            async with asyncio.timeout(10):
                # The follower commits in a task of its own; the database tells how far it is.
                while not feed.trimmed and await cursor(db) != len(feed.events):
                    await asyncio.sleep(0.01)
                if feed.trimmed:
                    await task
            return follower

        yield run_until_taken


async def _end(follower: Follower[event_pb2.JobEvent], task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await follower.release()


async def cursor(db: Database) -> int:
    position = await db.read(partial(read_cursor, source="workload"))
    return 0 if position is None else position.position


async def accounted(db: Database) -> list[str]:
    page = page_request(NEWEST_FIRST, page_size=1000, page_token="", binding=())
    read = partial(list_records, visibility=EVERYTHING, chosen=Filter(), page=page)
    records, _ = await db.read(read)
    return sorted(record.job for record in records)


async def test_every_end_is_accounted_and_then_acknowledged(db: Database, run: Run) -> None:
    feed = StandInFeed([ended(n) for n in range(5)])
    follower = await run(feed)
    assert await accounted(db) == [f"jobs/{n}" for n in range(5)]
    await asyncio.sleep(0)
    assert feed.acknowledged == sorted(feed.acknowledged)
    assert follower.status().reachable


async def test_a_feed_that_breaks_is_followed_again_from_the_cursor(db: Database, run: Run) -> None:
    feed = StandInFeed([ended(n) for n in range(6)], cut_after=[2, 4])
    await run(feed)
    assert feed.asked_after == [0, 2, 4]
    assert len(await accounted(db)) == 6


async def test_events_that_come_again_are_accounted_once(db: Database, run: Run) -> None:
    events = [ended(1), ended(2)]
    await run(StandInFeed([*events, *events]))
    assert await accounted(db) == ["jobs/1", "jobs/2"]


async def test_poison_is_put_aside_and_the_feed_goes_on(db: Database, run: Run) -> None:
    follower = await run(StandInFeed([ended(1), ended(2, whole=False), ended(3)]))
    assert await accounted(db) == ["jobs/1", "jobs/3"]
    async with asyncio.timeout(5):
        while follower.in_quarantine() != 1:
            await asyncio.sleep(0.01)


async def test_an_event_that_nobody_foresaw_is_put_aside_too(db: Database, run: Run) -> None:
    def account(event: event_pb2.JobEvent) -> NewRecord | None:
        if event.event_id == "event-2":
            raise KeyError("unforeseen")
        return job_record(event)

    await run(StandInFeed([ended(1), ended(2), ended(3)], account=account))
    assert await accounted(db) == ["jobs/1", "jobs/3"]


async def test_a_trimmed_feed_stops_the_follower_which_says_so(db: Database, run: Run) -> None:
    feed = StandInFeed([], trimmed=True)
    follower = await run(feed)
    assert len(feed.asked_after) == 1
    status = follower.status()
    assert not status.reachable
    assert "may be missing" in status.message


async def test_a_follower_begins_where_the_last_one_ended(db: Database, run: Run) -> None:
    await run(StandInFeed([ended(1), ended(2)]))
    feed = StandInFeed([ended(1), ended(2), ended(3)])
    await run(feed)
    assert feed.asked_after == [2]
    assert await db.read(partial(read_cursor, source="workload")) == Position(EPOCH, 3)


async def test_what_a_crash_kept_from_being_acknowledged_is_acknowledged_at_the_next_start(
    db: Database, run: Run
) -> None:
    await run(StandInFeed([ended(1), ended(2)]))
    feed = StandInFeed([ended(1), ended(2)])
    await run(feed)
    async with asyncio.timeout(5):
        while feed.acknowledged != [2]:
            await asyncio.sleep(0.01)


async def test_of_two_followers_one_follows_and_the_other_takes_over(db: Database) -> None:
    first_feed, second_feed = StandInFeed([ended(1)]), StandInFeed([ended(1), ended(2)])
    first, second = [follower_of(feed, db, KEPT_LEASE_S) for feed in (first_feed, second_feed)]
    async with AsyncExitStack() as stack:
        task = asyncio.create_task(first.run())
        async with asyncio.timeout(10):
            while await cursor(db) != 1:
                await asyncio.sleep(0.01)
        other = asyncio.create_task(second.run())
        stack.push_async_callback(_end, second, other)
        await asyncio.sleep(1.5 * KEPT_LEASE_S)
        assert second_feed.asked_after == [], "the first one renews its lease"
        assert second.status().reachable
        assert "another process" in second.status().message
        task.cancel()  # as a process that dies: its lease runs out
        async with asyncio.timeout(10):
            while await cursor(db) != 2:
                await asyncio.sleep(0.01)
    assert second_feed.asked_after == [1]
    assert await accounted(db) == ["jobs/1", "jobs/2"]


async def test_a_follower_paused_past_its_lease_takes_nothing_more(
    postgresql_server: PostgresqlServer,
) -> None:
    """Its event loop is another one, in a thread, and stands still as a stopped process does."""
    url = postgresql_server.new_database()
    events = [ended(n) for n in range(6)]
    pausing, ending = threading.Event(), threading.Event()

    def account(event: event_pb2.JobEvent) -> NewRecord | None:
        if event.event_id == "event-3":
            pausing.set()
            time.sleep(1 + 3 * LEASE_S)
        return job_record(event)

    paused_feed = StandInFeed(events, account=account)
    states: list[str] = []

    async def follow_and_pause() -> None:
        theirs = await Database.open(url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
        follower = follower_of(paused_feed, theirs)
        task = asyncio.create_task(follower.run())
        while not ending.is_set():
            await asyncio.sleep(0.02)
        states.append(follower.status().message)
        await _end(follower, task)
        await theirs.close()

    thread = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(follow_and_pause())))
    assert await asyncio.to_thread(pausing.wait, 20)
    db = await Database.open(url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    feed = StandInFeed(events)
    follower = follower_of(feed, db)
    task = asyncio.create_task(follower.run())
    async with asyncio.timeout(20):
        while await cursor(db) != len(events):
            await asyncio.sleep(0.01)
    await asyncio.sleep(1 + 3 * LEASE_S)
    ending.set()
    await thread
    assert feed.asked_after == [3]
    assert paused_feed.acknowledged == [1, 2, 3]
    assert "another process" in states[0]
    assert await cursor(db) == len(events)
    assert await accounted(db) == [f"jobs/{n}" for n in range(6)]
    await _end(follower, task)
    await db.close()
