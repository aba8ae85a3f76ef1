"""What migrations make of the rows that are there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, Table, create_engine, insert, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine

import gridlane_transfer
from gridlane_kit.database import Database
from gridlane_kit.migrations import migrate_to
from gridlane_transfer.store.tables import JOB_CHANNEL, METADATA

MIGRATIONS = Path(gridlane_transfer.__path__[0]) / "migrations"

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


@pytest.fixture
def schema() -> str:
    """Databases are empty."""
    return ""


async def on_bare_database(url: str, do: Callable[[Connection], None]) -> None:
    """Does something in a transaction on a database that has no table yet."""
    if make_url(url).get_backend_name() == "sqlite":
        with create_engine(url).begin() as conn:
            do(conn)
        return
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(do)
    await engine.dispose()


async def test_the_jobs_that_are_there_are_listed_by_their_channels(database_url: str) -> None:
    lies = [(1, "x"), (1, "x"), (1, "y"), (2, "y"), (3, ""), (4, "x")]

    def fill(conn: Connection) -> None:
        migrate_to(conn, METADATA, MIGRATIONS, "0010")
        files = Table("file_transfer", MetaData(), autoload_with=conn)
        needed = {
            column.name: 0 if column.type.python_type is int else ""
            for column in files.columns
            if not column.nullable
        }
        rows = [
            needed | {"number": n, "n": n, "job_number": job, "channel_uid": uid}
            for n, (job, uid) in enumerate(lies)
        ]
        conn.execute(insert(files), rows)

    await on_bare_database(database_url, fill)
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    rows = await db.read(lambda conn: conn.execute(select(JOB_CHANNEL)).all())
    await db.close()
    assert {tuple(row) for row in rows} == {(uid, job) for job, uid in lies if uid}
