"""The loop that deletes what is old goes on, whatever happens in it."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gridlane_kit import errors, logs
from gridlane_kit.retention import pruning


@pytest.mark.parametrize(
    ("trouble", "level"),
    [
        (errors.draining(), "warning"),
        (OSError("no space left"), "warning"),
        (RuntimeError("a defect"), "error"),
    ],
)
async def test_it_tells_what_went_wrong_and_tries_again(trouble: Exception, level: str) -> None:
    tries = 0
    again = asyncio.Event()

    async def prune() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise trouble
        again.set()

    with capture_logs() as told:
        loop = pruning(prune, 0.01, logs.logger("test"))
        loop.start()
        async with asyncio.timeout(10):
            await again.wait()
        await loop.stop()
    assert [line["log_level"] for line in told] == [level]
