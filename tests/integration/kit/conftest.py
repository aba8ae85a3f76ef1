"""Real SQLite files for the kit's tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from gridlane_kit.database import Database
from gridlane_kit.sqlite import sqlite_url

OpenDatabase = Callable[[MetaData], Awaitable[Database]]


@pytest.fixture
async def open_database(tmp_path: Path) -> AsyncIterator[OpenDatabase]:
    """Opens the test's database with the tables of a metadata; closed at the end of the test."""
    opened: list[Database] = []

    async def open_it(metadata: MetaData) -> Database:
        database = await Database.open(
            sqlite_url(tmp_path / "test.sqlite"), metadata=metadata, migrations=None, migrate=True
        )
        opened.append(database)
        return database

    yield open_it
    for database in opened:
        await database.close()
