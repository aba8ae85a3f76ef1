"""The schemas of all services on both engines: migrations make what the code declares."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import gridlane_authorization
import gridlane_reporting
import gridlane_transfer
import gridlane_workload
from gridlane_authorization import store as authorization
from gridlane_kit.database import Database, DatabaseUnusableError
from gridlane_kit.migrations import migrate_to, revisions, schema_differences
from gridlane_reporting import store as reporting
from gridlane_server.configuration import STORES
from gridlane_transfer.store import tables as transfer
from gridlane_workload import store as workload

SCHEMAS = {
    "authorization": (authorization.METADATA, gridlane_authorization),
    "transfer": (transfer.METADATA, gridlane_transfer),
    "workload": (workload.METADATA, gridlane_workload),
    "reporting": (reporting.METADATA, gridlane_reporting),
}


def test_every_service_with_a_store_is_looked_at() -> None:
    assert set(SCHEMAS) == set(STORES)


def migrations_of(service: str) -> Path:
    return Path(SCHEMAS[service][1].__path__[0]) / "migrations"


async def open_service(service: str, url: str, *, migrate: bool = True) -> Database:
    return await Database.open(
        url, metadata=SCHEMAS[service][0], migrations=migrations_of(service), migrate=migrate
    )


async def differences(service: str, url: str) -> list[str]:
    db = await open_service(service, url, migrate=False)
    metadata = SCHEMAS[service][0]
    found = await db.read(lambda conn: schema_differences(conn, metadata, migrations_of(service)))
    await db.close()
    return found


@pytest.mark.parametrize("service", SCHEMAS)
async def test_the_migrations_make_the_schema_that_the_code_declares(
    database_url: str, service: str
) -> None:
    with pytest.raises(DatabaseUnusableError, match="revision none"):
        await open_service(service, database_url, migrate=False)
    await (await open_service(service, database_url)).close()
    assert await differences(service, database_url) == []


@pytest.mark.parametrize("service", SCHEMAS)
async def test_the_first_schema_is_brought_up_to_date(database_url: str, service: str) -> None:
    metadata, known = SCHEMAS[service][0], revisions(migrations_of(service))
    await on_bare_database(
        database_url, lambda conn: migrate_to(conn, metadata, migrations_of(service), known[0])
    )
    if len(known) > 1:
        with pytest.raises(DatabaseUnusableError, match=f"revision 0001.*needs {known[-1]}"):
            await open_service(service, database_url, migrate=False)
    await (await open_service(service, database_url)).close()
    assert await differences(service, database_url) == []


async def on_bare_database(url: str, do: Callable[[Connection], None]) -> None:
    """Runs `do` in a transaction on a database that has no table yet."""
    if make_url(url).get_backend_name() == "sqlite":
        with create_engine(url).begin() as conn:
            do(conn)
        return
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(do)
    await engine.dispose()
