"""Reporting's database, real and empty."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gridlane_kit.database import Database
from gridlane_kit.sqlite import sqlite_url
from gridlane_reporting.store import METADATA, MIGRATIONS


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    url = sqlite_url(tmp_path / "reporting.sqlite")
    database = await Database.open(url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    yield database
    await database.close()
