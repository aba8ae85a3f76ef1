"""Migrations of a sample service: written, run, compared; Alembic only when there is work."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, inspect, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gridlane_kit.database import Database, DatabaseUnusableError, is_on
from gridlane_kit.migrations import _MIGRATING, schema_differences

STORE = """
from sqlalchemy import Column, ForeignKey, Integer, String, Table
from gridlane_kit.database import service_metadata
from gridlane_kit.feed import feed_tables
from gridlane_kit.leases import lease_columns
from gridlane_kit.request_ids import request_id_table

METADATA = service_metadata()
PARENT = Table("parent", METADATA, Column("uid", String(36), primary_key=True){more})
CHILD = Table(
    "child",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("parent", String(36), ForeignKey("parent.uid", ondelete="CASCADE"), nullable=False),
    *lease_columns(),
)
feed_tables(METADATA)
request_id_table(METADATA)
"""


# What only PostgreSQL has is added to a migration by hand.
POSTGRESQL_ALONE = """
    if op.get_bind().dialect.name == "postgresql":
        op.create_table(
            "event_pending",
            sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
            sa.Column("event_id", sa.String(length=36), nullable=False),
            sa.Column("subject", sa.String(length=300), nullable=False),
            sa.Column("kind", sa.String(length=100), nullable=False),
            sa.Column("time_us", sa.BigInteger(), nullable=False),
            sa.Column("payload", sa.LargeBinary(), nullable=False),
            sa.Column("owner", sa.String(length=512), nullable=False),
            sa.Column("vo", sa.String(length=200), nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_event_pending")),
        )
        op.create_table(
            "commit_mark",
            sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("pk_commit_mark")),
        )
"""


class Service:
    """A service package in a folder of its own."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.package = root / "gridlane_sample"
        self.package.mkdir()
        (self.package / "__init__.py").touch()
        self.migrations = self.package / "migrations"
        self.url = url
        self.declare("")

    def declare(self, more: str) -> None:
        """Write the store's module; `more` are further columns of `parent`."""
        (self.package / "store.py").write_text(STORE.replace("{more}", more))

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.root), *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def write_revision(self, message: str) -> Path:
        done = self.python(
            "-m", "gridlane_kit.migrations", "gridlane_sample.store:METADATA", message
        )
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[-1].partition(":")[0])

    @property
    def metadata(self) -> MetaData:
        names: dict[str, MetaData] = {}
        exec((self.package / "store.py").read_text(), names)  # noqa: S102 - the test's own text
        return names["METADATA"]

    async def open(self, *, migrate: bool = True) -> Database:
        return await Database.open(
            self.url, metadata=self.metadata, migrations=self.migrations, migrate=migrate
        )

    @asynccontextmanager
    async def lock_of_migrations(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """While inside, nobody migrates on PostgreSQL; what it gives waits for so many to wait."""
        url = make_url(self.url)
        async with create_async_engine(url, poolclass=NullPool).connect() as conn:
            await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})

            async def waiting(count: int) -> None:
                found = text(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                )
                async with asyncio.timeout(30):
                    while await conn.scalar(found) != count:
                        await asyncio.sleep(0.02)

            yield waiting

    async def differences(self) -> list[str]:
        db = await self.open(migrate=False)
        found = await db.read(lambda conn: schema_differences(conn, self.metadata, self.migrations))
        await db.close()
        return found


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Service:
    sample = Service(tmp_path, database_url)
    with sample.write_revision("first tables").open("a") as written:
        written.write(POSTGRESQL_ALONE)
    return sample


def version(conn: Connection) -> str:
    number: str = conn.execute(text("SELECT version_num FROM sample_version")).scalar_one()
    return number


async def test_the_first_start_makes_what_the_metadata_says(service: Service) -> None:
    assert [path.name for path in (service.migrations / "versions").glob("v*.py")] == [
        "v0001_first_tables.py"
    ]
    db = await service.open()
    assert await db.read(version) == "0001"
    engine = make_url(service.url).get_backend_name()
    tables = service.metadata.tables.values()
    assert await db.read(lambda conn: set(inspect(conn).get_table_names())) == {
        *(table.name for table in tables if is_on(table, engine)),
        "sample_version",
    }
    await db.close()
    assert await service.differences() == []


@pytest.mark.parametrize("engine", ["sqlite"])
async def test_sqlite_counts_events_up_and_finds_requests_by_their_key(service: Service) -> None:
    db = await service.open()
    kinds = "SELECT sql FROM sqlite_master WHERE name IN ('event', 'request_id') ORDER BY name"
    event, request_id = await db.read(lambda conn: conn.scalars(text(kinds)).all())
    assert "AUTOINCREMENT" in event
    assert "WITHOUT ROWID" in request_id
    await db.close()


async def test_a_column_that_no_migration_adds_is_a_difference(service: Service) -> None:
    await (await service.open()).close()
    service.declare(', Column("size", Integer)')
    (difference,) = await service.differences()
    assert "size" in difference


async def test_a_second_start_does_not_import_alembic(service: Service) -> None:
    await (await service.open()).close()
    program = f"""
import asyncio, pathlib, sys
from gridlane_kit.database import Database
from gridlane_sample.store import METADATA
migrations = pathlib.Path({str(service.migrations)!r})
asyncio.run(Database.open({service.url!r}, metadata=METADATA, migrations=migrations, migrate=True))
print("alembic" in sys.modules)
"""
    done = service.python("-c", program)
    assert done.stdout.strip() == "False", done.stderr


async def test_an_older_schema_is_brought_up_to_date_with_its_rows(service: Service) -> None:
    db = await service.open()

    def fill(conn: Connection) -> None:
        conn.execute(text("INSERT INTO parent (uid) VALUES ('a')"))
        conn.execute(text("INSERT INTO child (uid, parent) VALUES ('b', 'a')"))

    await db.write(fill)
    await db.close()
    # A constraint makes SQLite copy the table; its children must survive that.
    service.declare(', Column("size", Integer, nullable=False, server_default="7", unique=True)')
    assert service.write_revision("sizes").name == "v0002_sizes.py"
    with pytest.raises(DatabaseUnusableError, match="run gridlane-server migrate"):
        await service.open(migrate=False)

    db = await service.open()
    rows = "SELECT parent.uid, size, child.uid FROM parent JOIN child ON child.parent = parent.uid"
    found = await db.read(lambda conn: [tuple(row) for row in conn.execute(text(rows))])
    assert found == [("a", 7, "b")]
    assert await db.read(version) == "0002"
    orphan = text("INSERT INTO child (uid, parent) VALUES ('c', 'none')")
    with pytest.raises(IntegrityError):
        await db.write(lambda conn: conn.execute(orphan))
    await db.close()
    assert await service.differences() == []


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(service: Service) -> None:
    await (await service.open()).close()
    service.declare(', Column("size", Integer)')
    written = service.write_revision("sizes")
    written.write_text(written.read_text() + "    op.execute('no statement')\n")
    with pytest.raises(DatabaseUnusableError, match="syntax error"):
        await service.open()

    written.write_text(written.read_text().replace("    op.execute('no statement')\n", ""))
    db = await service.open()
    assert await db.read(version) == "0002"
    await db.close()


@pytest.mark.parametrize("newer", ["0003", "0009"])
async def test_the_schema_of_a_much_newer_version_is_refused(service: Service, newer: str) -> None:
    db = await service.open()
    statement = text("UPDATE sample_version SET version_num = :newer")
    await db.write(lambda conn: conn.execute(statement, {"newer": newer}))
    await db.close()
    for migrate in (True, False):
        with pytest.raises(
            DatabaseUnusableError, match=f"{newer}; this version knows 0001 to 0001"
        ):
            await service.open(migrate=migrate)


async def test_the_schema_of_the_next_version_is_served(service: Service) -> None:
    db = await service.open()
    await db.write(
        lambda conn: conn.execute(text("UPDATE sample_version SET version_num = '0002'"))
    )
    await db.close()
    for migrate in (True, False):
        db = await service.open(migrate=migrate)
        await db.write(lambda conn: conn.execute(text("DELETE FROM parent")))
        assert await db.read(version) == "0002"
        await db.close()


MIGRATE = """
import asyncio, pathlib
from gridlane_kit.database import Database
from gridlane_sample.store import METADATA
async def main():
    db = await Database.open({url!r}, metadata=METADATA, migrations=pathlib.Path({migrations!r}),
                             migrate=True)
    await db.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_of_two_replicas_one_migrates_and_both_serve(service: Service) -> None:
    """They begin at the same moment, once the test lets go of the lock under which one migrates."""
    await (await service.open()).close()
    service.declare(', Column("size", Integer, nullable=False, server_default="7")')
    service.write_revision("sizes")
    replica = MIGRATE.format(url=service.url, migrations=str(service.migrations))
    async with service.lock_of_migrations() as waiting:
        replicas = [
            asyncio.create_task(asyncio.to_thread(service.python, "-c", replica)) for _ in range(2)
        ]
        await waiting(2)
    for done in await asyncio.gather(*replicas):
        assert done.returncode == 0, done.stderr
    assert await service.differences() == []


async def test_without_migrations_nothing_is_opened(service: Service) -> None:
    (service.migrations / "versions" / "v0001_first_tables.py").unlink()
    with pytest.raises(DatabaseUnusableError, match="has no migrations"):
        await service.open()
