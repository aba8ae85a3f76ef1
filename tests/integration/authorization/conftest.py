"""An Authorization of the test's own, over the wire, on each engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.authorization.policy_office import ISSUER, Office, office

from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import open_signer


@pytest.fixture
def schema() -> str:
    """Databases are Authorization's."""
    return "authorization"


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Office]:
    """One replica, with an administrator `root` and the VOs `cms` and `atlas`."""
    async with asyncio.timeout(60), office(database_url) as replica:
        for vo in ("cms", "atlas"):
            await replica.root.make_vo(vo)
        yield replica


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    """A signing key of the test's own."""
    open_signer(tmp_path, ISSUER, AuthorizationSettings().audience)
    return KeyFiles.in_folder(tmp_path)


@pytest.fixture
async def keyed(database_url: str, files: KeyFiles) -> AsyncIterator[Office]:
    """One replica, with that signing key and an administrator `root`."""
    async with asyncio.timeout(90), office(database_url, files=files) as replica:
        yield replica
