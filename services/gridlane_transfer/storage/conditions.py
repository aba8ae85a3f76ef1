"""Whether storage elements answer. Responsible for asking each of them, not too often and not too
long.

A directory is looked at; a remote storage answers when a connection to it opens. What it says to a
file is seen when one is moved.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from gridlane_transfer.storage.element_urls import place_of
from gridlane_transfer.storage.storage_elements import PREFIX, Condition, Endpoint, StorageElement

# A storage that hangs is told as one that does not answer.
_PATIENCE_S: Final = 2.0
# For so long a remote storage is not asked again.
_FRESH_S: Final = 5.0
_PORTS: Final = {"https": 443, "http": 80}
_AT_ONCE: Final = 32


class Conditions:
    """Asks, and remembers for a moment what remote storages answered."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, bool]] = {}
        self._looking: dict[str, asyncio.Task[Condition]] = {}
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def of(self, element: StorageElement) -> Condition:
        """How an element is now."""
        if any(endpoint.is_local for endpoint in element.endpoints):
            return await self._local(element)
        for endpoint in element.endpoints:
            if await self._answers(endpoint):
                return Condition(True, True, -1)
        return Condition(False, False, -1, f"{PREFIX}{element.name} does not answer")

    async def _local(self, element: StorageElement) -> Condition:
        """How a directory is; one that hangs holds one thread, however many ask."""
        looking = self._looking.get(element.name)
        if looking is None:
            looking = asyncio.create_task(asyncio.to_thread(element.condition))
            self._looking[element.name] = looking
            looking.add_done_callback(lambda _: self._looking.pop(element.name))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.shield(looking)
        except TimeoutError:
            return Condition(
                False, False, -1, f"{PREFIX}{element.name}: the file system does not answer"
            )

    async def _answers(self, endpoint: Endpoint) -> bool:
        known = self._known.get(endpoint.base_url)
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        async with self._asking:
            answers = await _opens(endpoint.base_url)
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[endpoint.base_url] = (time.monotonic(), answers)
        return answers


async def _opens(base_url: str) -> bool:
    parts = urlsplit(base_url)
    place = place_of(base_url)
    if place is None or parts.hostname is None:
        return False
    port = parts.port or _PORTS[place.family]
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, UnicodeError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
