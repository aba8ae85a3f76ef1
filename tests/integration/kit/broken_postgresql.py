"""What tests of a PostgreSQL that breaks write and read: a table, a write that counts its runs, a
group commit, and a database behind a proxy.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from postgresql import PostgresqlServer
from postgresql_proxy import (
    Proxy,
    proxied,
)
from sqlalchemy import Column, Connection, Integer, String, Table, make_url, select, text

from gridlane_kit.database import Database, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit, WriteKind

METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("size", Integer, nullable=False),
)


async def open_database(url: str, **parameters: str) -> Database:
    full = make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)
    return await Database.open(full, metadata=METADATA, migrations=None, migrate=True)


@asynccontextmanager
async def opened(url: str, **parameters: str) -> AsyncIterator[Database]:
    db = await open_database(url, **parameters)
    yield db
    await db.close()


@asynccontextmanager
async def behind_proxy(
    url: str, server: PostgresqlServer, **parameters: str
) -> AsyncIterator[tuple[Database, Proxy]]:
    async with (
        proxied(url, server.socket) as (proxied_url, proxy),
        opened(proxied_url, **parameters) as db,
    ):
        yield db, proxy


class Put:
    """A write, and how often it was run."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.runs = 0
        self.transactions: list[int] = []

    def __call__(self, conn: Connection) -> str:
        self.runs += 1
        insert_rows(conn, ITEM, [{"uid": self.uid, "size": self.runs}])
        number = conn.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()
        self.transactions.append(int(number))
        return f"run {self.runs}"


def items(conn: Connection) -> dict[str, int]:
    return {row.uid: row.size for row in conn.execute(select(ITEM))}


def add(conn: Connection, uids: Sequence[str]) -> list[str]:
    """Inserts what is not there, as a retry with the same request id does."""
    known = set(conn.scalars(select(ITEM.c.uid).where(ITEM.c.uid.in_(uids))))
    if "bad" in uids:
        conn.execute(text("SELECT 1/0"))
    insert_rows(conn, ITEM, [{"uid": uid, "size": 1} for uid in uids if uid not in known])
    return [f"items/{uid}" for uid in uids]


@asynccontextmanager
async def adding(db: Database) -> AsyncIterator[WriteKind[str, str]]:
    """A group commit of `add`."""
    group = GroupCommit(db)
    kind = group.kind("items.add", add, key=str)
    await group.start()
    yield kind
    await group.drain()


def is_worth_a_retry(error: BaseException) -> bool:
    return (
        isinstance(error, GridlaneError)
        and error.reason is ErrorReason.STORE_UNAVAILABLE
        and bool(error.details)
    )


def become_standby(server: PostgresqlServer) -> None:
    """Crash, and come back as a standby that follows nobody."""
    server.crash()
    (server.data / "standby.signal").touch()
    server.start()
