"""Reporting's database, real and empty; each test runs on each engine."""

from collections.abc import AsyncIterator

import pytest

from gridlane_kit.database import Database
from gridlane_reporting.store import METADATA, MIGRATIONS


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(
        database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True
    )
    yield database
    await database.close()
