"""Whether storage elements answer. Responsible for asking each of them, not too often and not too
long.

A directory is looked at; a remote storage answers when a connection to it opens, which is made to
those of its addresses alone that the mover may reach too. What it says to a file is seen when one
is moved.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy, Resolved
from gridlane_transfer.backends.embedded.webdav.connections import allowed_addresses
from gridlane_transfer.backends.embedded.webdav.troubles import TroubleError
from gridlane_transfer.backends.embedded.webdav.urls import origin_of
from gridlane_transfer.storage.storage_elements import PREFIX, Condition, Endpoint, StorageElement

# A storage that hangs is told as one that does not answer.
_PATIENCE_S: Final = 2.0
# For so long a remote storage is not asked again.
_FRESH_S: Final = 5.0
_AT_ONCE: Final = 32


class Conditions:
    """Asks, and remembers for a moment what remote storages answered.

    Parameters:
        addresses: which of them may be reached.
    """

    def __init__(self, addresses: AddressPolicy) -> None:
        self._addresses = addresses
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
            answers = await _opens(endpoint.base_url, self._addresses)
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[endpoint.base_url] = (time.monotonic(), answers)
        return answers


async def _opens(base_url: str, policy: AddressPolicy) -> bool:
    """Whether a connection opens to one of the addresses that may be reached; a name is judged by
    what it is resolved to now, and the connection goes there.
    """
    with suppress(ValueError, TroubleError, TimeoutError):
        origin = origin_of(base_url)
        async with asyncio.timeout(_PATIENCE_S):
            for one in await asyncio.to_thread(allowed_addresses, origin, policy):
                if await _connects(one):
                    return True
    return False


async def _connects(one: Resolved) -> bool:
    try:
        _, writer = await asyncio.open_connection(*one.sockaddr)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
