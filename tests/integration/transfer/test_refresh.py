"""Settings that one process changes are in force in every other one within a second."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, select

from gridlane_kit.database import Database
from gridlane_kit.sqlite import sqlite_file
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.store.refresh import Kind, Refresh, bump, ensure, lock
from gridlane_transfer.store.tables import METADATA, SETTINGS_REVISION

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)

WITHIN_S = 1.0


@pytest.fixture
async def databases(database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """One database as two processes have it; SQLite has one process."""

    async def opened() -> Database:
        return await Database.open(
            database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True
        )

    first = await opened()
    second = first if sqlite_file(database_url) is not None else await opened()
    yield first, second
    await first.close()
    if second is not first:
        await second.close()


def change(conn: Connection) -> int:
    before = lock(conn, Kind.CHANNELS)
    assert bump(conn, Kind.CHANNELS) == before + 1
    return before + 1


async def test_a_change_is_read_by_every_process_within_a_second(
    databases: tuple[Database, Database],
) -> None:
    here, there = databases
    taken: list[int] = []
    seen = asyncio.Event()

    def take(revision: int) -> None:
        taken.append(revision)
        seen.set()

    await here.write(ensure)
    other = Refresh(there)
    other.follow(Kind.CHANNELS, lambda conn: lock_free(conn, Kind.CHANNELS), take)
    await other.start()
    try:
        assert taken == [0]
        seen.clear()
        revision = await here.write_after_lock(change)
        async with asyncio.timeout(WITHIN_S):
            await seen.wait()
        assert taken == [0, revision]
    finally:
        await other.stop()


async def test_the_process_that_changed_something_sees_it_at_once_and_reads_nothing_else(
    databases: tuple[Database, Database],
) -> None:
    db, _ = databases
    channels: list[int] = []
    elements: list[int] = []
    refresh = Refresh(db, every_s=600)
    refresh.follow(Kind.CHANNELS, lambda conn: lock_free(conn, Kind.CHANNELS), channels.append)
    refresh.follow(
        Kind.STORAGE_ELEMENTS, lambda conn: lock_free(conn, Kind.STORAGE_ELEMENTS), elements.append
    )
    await refresh.start()
    try:
        await db.write_after_lock(change)
        await refresh.now()
        await refresh.now()
        assert (channels, elements) == ([0, 1], [0])
    finally:
        await refresh.stop()


async def test_changers_wait_for_each_other_and_none_is_lost(
    databases: tuple[Database, Database],
) -> None:
    here, there = databases
    await here.write(ensure)
    revisions = await asyncio.gather(
        *(db.write_after_lock(change) for db in (here, there) for _ in range(10))
    )
    assert sorted(revisions) == list(range(1, 21))


def lock_free(conn: Connection, kind: Kind) -> int:
    """What a registry reads; here the revision itself."""
    of_kind = SETTINGS_REVISION.c.kind == kind.value
    return int(conn.execute(select(SETTINGS_REVISION.c.revision).where(of_kind)).scalar_one())
