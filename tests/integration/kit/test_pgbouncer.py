"""PostgreSQL behind PgBouncer in transaction mode, with the URL that the how-to page gives.

Several clients share a server's connection, and a client has another one in each transaction: what
lives longer than a transaction (prepared statements, LISTEN, session locks) must not be relied on.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from postgresql import PostgresqlServer
from sqlalchemy import Column, Connection, Integer, String, Table, make_url, select, update

from gridlane_kit.database import Database, insert_rows, rows_by_key, service_metadata
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.grouped_read import GroupedRead

METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("size", Integer, nullable=False),
)
ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "how-to" / "use-postgresql.md"


def documented(pattern: str) -> str:
    """What the how-to page says."""
    found = re.search(pattern, PAGE.read_text())
    assert found, f"the page says nothing like {pattern}"
    return found[1]


class Pgbouncer:
    """A PgBouncer of one's own, with fewer server connections than there are clients."""

    def __init__(self, server: PostgresqlServer) -> None:
        binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if binary is None:
            pytest.skip("pgbouncer is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = Path(tempfile.mkdtemp(prefix="gridlane-pgbouncer-"))
        self._folder.chmod(0o755)
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={server.socket.parent} user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\ndefault_pool_size = 3\n"
            f"pool_mode = {documented('pool_mode = ([a-z]+)')}\n"
            f"ignore_startup_parameters = {documented('ignore_startup_parameters = ([a-z_, ]+)')}\n"
        )
        # It does not run as root, and only the server's own user may open the socket.
        user = ["-u", server.data.owner()] if os.geteuid() == 0 else []
        self._process = subprocess.Popen([binary, "-q", *user, str(settings)])
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("pgbouncer did not start")

    def url(self, direct: str) -> str:
        """The URL of a database through it, with the parameters of the page."""
        parameters = documented(r"postgresql\+asyncpg://\S+:6432/\w+\?(\S+)")
        name = make_url(direct).database
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{name}?{parameters}"

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        shutil.rmtree(self._folder)


@pytest.fixture(scope="module")
def pgbouncer(postgresql_server: PostgresqlServer) -> Iterator[Pgbouncer]:
    pooler = Pgbouncer(postgresql_server)
    yield pooler
    pooler.close()


@pytest.fixture
def url(pgbouncer: Pgbouncer, postgresql_server: PostgresqlServer) -> str:
    return pgbouncer.url(postgresql_server.new_database())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
    yield db
    await db.close()


def sizes(conn: Connection, uids: Sequence[str]) -> dict[str, int]:
    rows = rows_by_key(conn, (ITEM.c.uid, ITEM.c.size), ITEM.c.uid, uids)
    return {row.uid: row.size for row in rows}


def add(conn: Connection, uids: Sequence[str]) -> list[str]:
    known = sizes(conn, uids)
    insert_rows(conn, ITEM, [{"uid": uid, "size": 1} for uid in uids if uid not in known])
    return list(uids)


async def test_two_services_write_and_read_through_fewer_connections_than_they_have(
    url: str,
) -> None:
    async with opened(url) as one, opened(url) as other:
        groups = [GroupCommit(db) for db in (one, other)]
        kinds = [group.kind("items.add", add, key=str) for group in groups]
        for group in groups:
            await group.start()
        reads = [GroupedRead[str, int](db, sizes) for db in (one, other)]

        async def caller(number: int) -> None:
            for turn in range(5):
                uid = f"{number}-{turn}"
                assert await kinds[number % 2](uid) == uid
                assert await reads[(number + 1) % 2].get(uid) == 1

        await asyncio.gather(*(caller(number) for number in range(40)))
        for group in groups:
            await group.drain()


async def test_isolation_holds_through_it(url: str) -> None:
    size = select(ITEM.c.size).where(ITEM.c.uid == "counter")

    def grow(conn: Connection) -> None:
        now = conn.execute(size).scalar_one()
        conn.execute(update(ITEM).where(ITEM.c.uid == "counter").values(size=now + 1))

    async with opened(url) as one, opened(url) as other:
        await one.write(lambda conn: insert_rows(conn, ITEM, [{"uid": "counter", "size": 0}]))
        await asyncio.gather(*(db.write(grow) for db in (one, other) for _ in range(10)))
        assert await other.read(lambda conn: conn.execute(size).scalar_one()) == 20


async def test_a_lock_of_a_transaction_keeps_others_out(url: str) -> None:
    """As migrations do; session locks would stay with a connection that others get."""
    inside = 0
    most = 0

    def alone(key: int) -> Callable[[Connection], None]:
        def fn(conn: Connection) -> None:
            nonlocal inside, most
            conn.exec_driver_sql("SELECT pg_advisory_xact_lock($1)", (key,))
            inside += 1
            most = max(most, inside)
            conn.exec_driver_sql("SELECT pg_sleep(0.01)")
            inside -= 1

        return fn

    async with opened(url) as one, opened(url) as other:
        await asyncio.gather(*(db.write(alone(7)) for db in (one, other) for _ in range(6)))
    assert most == 1
