"""Bringing databases up to date without serving.

`gridlane-server all` does the same at its start; one process a service refuses an older schema
unless it is told otherwise. This is for those who want it done, and seen, before.
"""

import importlib
from pathlib import Path
from typing import Final

from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.database import Database
from gridlane_kit.sqlite import sqlite_url
from gridlane_server.configuration import STORES

_TABLES: Final = {"transfer": "store.tables"}
"""The module of a service's package that has its METADATA, where it is not `store`."""


async def migrate(data: DataDirectory) -> list[Path]:
    """Brings every database of a data directory up to date, making those that are missing.

    Returns:
        The database files.

    Raises:
        DatabaseUnusableError: a schema was written by a newer version.
    """
    files = [data.database_file(service) for service in STORES]
    for service, file in zip(STORES, files, strict=True):
        await migrate_service(service, sqlite_url(file))
    return files


async def migrate_service(service: str, database_url: str) -> None:
    """Brings the database of one service up to date, making its tables.

    Raises:
        DatabaseUnusableError: the schema was written by a newer version, or the database cannot be
            used.
    """
    package = importlib.import_module(f"gridlane_{service}")
    tables = importlib.import_module(f"{package.__name__}.{_TABLES.get(service, 'store')}")
    migrations = Path(package.__path__[0]) / "migrations"
    db = await Database.open(
        database_url, metadata=tables.METADATA, migrations=migrations, migrate=True
    )
    await db.close()
