"""The feed on PostgreSQL, where transactions commit side by side and processes share a database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest
from postgresql import PostgresqlServer
from sqlalchemy import BigInteger, Column, LargeBinary, Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gridlane.ids import uuid7
from gridlane_kit import feed_store
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database, service_metadata
from gridlane_kit.feed import Feed, NewEvent, Position, StoredEvent, feed_tables

METADATA = service_metadata()
TABLES = feed_tables(METADATA)
# What a feed would be whose numbers are handed out at the insert.
NAIVE = Table(
    "naive",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("payload", LargeBinary, nullable=False),
)


def event(payload: bytes) -> NewEvent:
    return NewEvent(uuid7(), "jobs/a", "Changed", now_us(), payload, "iss|me", "local")


@dataclass
class Replica:
    """A process of a service: connections and a feed of its own."""

    db: Database
    feed: Feed

    async def add(self, *payloads: bytes) -> None:
        events = [event(payload) for payload in payloads]
        await self.db.write(lambda conn: self.feed.append(conn, events))
        self.feed.wake()

    async def take(self, count: int, after: Position | None = None) -> list[StoredEvent]:
        taken: list[StoredEvent] = []
        async with asyncio.timeout(60), aclosing(self.feed.follow(after)) as stream:
            async for events in stream:
                taken += events
                if len(taken) >= count:
                    break
        return taken


@dataclass
class Service:
    """Some replicas on one database."""

    url: str
    replicas: list[Replica]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own, to hold a transaction open."""
        engine = create_async_engine(self.url)
        async with engine.connect() as conn:
            yield conn
        await engine.dispose()


@pytest.fixture
async def service(postgresql_server: PostgresqlServer) -> AsyncIterator[Service]:
    url = postgresql_server.new_database()
    replicas = []
    for _ in range(4):
        db = await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
        replicas.append(Replica(db, Feed(db, TABLES)))
        await replicas[-1].feed.start()
    yield Service(url, replicas)
    for replica in replicas:
        await replica.feed.stop()
        await replica.db.close()


async def test_an_older_transaction_that_commits_later_is_not_skipped(service: Service) -> None:
    one, other, *_ = service.replicas
    following = asyncio.create_task(other.take(2))
    async with service.transaction() as older:
        await older.run_sync(feed_store.append, TABLES, [event(b"older")])
        await one.add(b"newer")
        await asyncio.sleep(0.3)
        await older.commit()
    assert [(e.position, e.payload) for e in await following] == [(1, b"newer"), (2, b"older")]


async def test_a_naive_reader_skips_it(service: Service) -> None:
    """So the test above can fail: by numbers from the insert, a reader passes over the older."""

    async def read(conn: AsyncConnection, after: int) -> list[tuple[int, bytes]]:
        await conn.rollback()
        rows = await conn.execute(select(NAIVE).where(NAIVE.c.id > after).order_by(NAIVE.c.id))
        return [(row.id, row.payload) for row in rows]

    async with (
        service.transaction() as older,
        service.transaction() as newer,
        service.transaction() as reader,
    ):
        await older.execute(insert(NAIVE).values(payload=b"older"))
        await newer.execute(insert(NAIVE).values(payload=b"newer"))
        await newer.commit()
        seen = await read(reader, 0)
        await older.commit()
        assert seen + await read(reader, seen[-1][0]) == [(2, b"newer")]


async def test_sixteen_writers_are_followed_once_and_in_order(service: Service) -> None:
    each = 60
    writers = 16

    async def write(number: int) -> None:
        replica = service.replicas[number % len(service.replicas)]
        for count in range(each):
            await replica.add(b"%d %d" % (number, count))

    following = [
        asyncio.create_task(replica.take(writers * each)) for replica in service.replicas[:3]
    ]
    await asyncio.gather(*(write(number) for number in range(writers)))
    for task in following:
        taken = await task
        assert [e.position for e in taken] == list(range(1, writers * each + 1))
        for number in range(writers):
            mine = [e.payload for e in taken if e.payload.startswith(b"%d " % number)]
            assert mine == [b"%d %d" % (number, count) for count in range(each)]


async def test_another_process_hears_of_an_event_long_before_the_poll(service: Service) -> None:
    one, other, *_ = service.replicas
    loop = asyncio.get_running_loop()
    begun = loop.time()
    after = await other.feed.position()
    for number in range(20):
        following = asyncio.create_task(other.take(1, after))
        await one.add(b"%d" % number)
        (taken,) = await following
        after = Position(after.epoch, taken.position)
    assert loop.time() - begun < 10, "20 polls of a second each would take 20 s"


async def test_what_a_dead_process_left_behind_is_found_by_another(service: Service) -> None:
    async with service.transaction() as dying:
        await dying.run_sync(feed_store.append, TABLES, [event(b"left")])
        await dying.commit()
    assert [e.payload for e in await service.replicas[0].take(1)] == [b"left"]


async def test_reading_shows_all_that_was_committed_before(service: Service) -> None:
    one, other, *_ = service.replicas
    for number in range(20):
        await one.db.write(lambda conn: one.feed.append(conn, [event(b"silent")]))
        assert len(await other.feed.read(0, subject="jobs/a")) == number + 1
        assert (await other.feed.position()).position == number + 1


async def test_who_no_longer_hears_goes_on_by_the_poll_and_then_hears_again(
    service: Service,
) -> None:
    one, other, *_ = service.replicas
    after = await other.feed.position()
    async with service.transaction() as killer:
        listening = (
            "FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        await asyncio.sleep(0.2)
        killed = await killer.execute(text(f"SELECT pg_terminate_backend(pid) {listening}"))
        assert len(killed.all()) == len(service.replicas)
        await killer.commit()
        await one.add(b"unheard")
        assert [e.payload for e in await other.take(1, after)] == [b"unheard"]
        async with asyncio.timeout(10):
            while True:
                count = (await killer.execute(text(f"SELECT count(*) {listening}"))).scalar()
                await killer.rollback()
                if count == len(service.replicas):
                    break
                await asyncio.sleep(0.1)
