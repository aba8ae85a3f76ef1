"""Real databases for the kit's tests: each test runs on each engine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from postgresql import PostgresqlServer
from sqlalchemy import Connection, MetaData, make_url

from gridlane_kit.database import Database

OpenDatabase = Callable[[MetaData], Awaitable[Database]]

_GATE = 42


async def connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection of the test's own to a PostgreSQL database, by the kit's URL."""
    plain = make_url(url).set(drivername="postgresql", query={})
    host = str(make_url(url).query["host"])
    return await asyncpg.connect(plain.render_as_string(hide_password=False), host=host)


class Gate:
    """Stops transactions within their function, on either engine, while it is shut.

    On SQLite the function has a thread of its own and waits there; on PostgreSQL it runs in the
    event loop, and its transaction waits for a lock.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._open = threading.Event()
        self._open.set()
        self._entered = False

    def pass_through(self, conn: Connection) -> None:
        """Called by the function; waits while the gate is shut."""
        self._entered = True
        if self._open.is_set():
            return
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SELECT pg_advisory_xact_lock_shared($1)", (_GATE,))
        else:
            assert self._open.wait(20)

    async def reached(self) -> None:
        """Wait until a transaction stands before the gate."""
        async with asyncio.timeout(20):
            while not self._entered:
                await asyncio.sleep(0.002)

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[None]:
        """While inside, the gate is shut."""
        lock = await connect(self._url) if self._url.startswith("postgresql") else None
        if lock is not None:
            await lock.execute("SELECT pg_advisory_lock($1)", _GATE)
        self._entered = False
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()
            if lock is not None:
                await lock.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresqlServer]:
    """A server that tests may kill; it runs again when they are done."""
    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture
def gate(database_url: str) -> Gate:
    """A gate for transactions of the test's database."""
    return Gate(database_url)


@pytest.fixture
async def open_database(database_url: str) -> AsyncIterator[OpenDatabase]:
    """Opens the test's database with the tables of a metadata; closed at the end of the test."""
    opened: list[Database] = []

    async def open_it(metadata: MetaData) -> Database:
        database = await Database.open(
            database_url, metadata=metadata, migrations=None, migrate=True
        )
        opened.append(database)
        return database

    yield open_it
    for database in opened:
        await database.close()
