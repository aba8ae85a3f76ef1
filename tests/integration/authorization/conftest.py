"""An Authorization of the test's own, over the wire, on each engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from integration.authorization.policy_office import Office, office


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Office]:
    """One replica, with an administrator `root` and the VOs `cms` and `atlas`."""
    async with asyncio.timeout(60), office(database_url) as replica:
        for vo in ("cms", "atlas"):
            await replica.root.make_vo(vo)
        yield replica
