"""Finds the addresses of a host for aiohttp, and none that may not be connected to.

Responsible for applying `addresses` to what is connected to, since a name may mean another address
than a moment ago. A host that is an address is not asked for here: who connects looks at it before.
"""

import socket
from errno import EACCES

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from gridlane_kit.addresses import Addresses


class GuardedResolver(AbstractResolver):
    """Resolves as the system does.

    Parameters:
        addresses: those that may be connected to.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Returns the addresses of a host.

        Raises:
            OSError: it has none, or one that is not allowed.
        """
        found = await self._system.resolve(host, port, family)
        if not all(self._addresses.allows(place["host"]) for place in found):
            raise OSError(EACCES, f"policy forbids to connect to an address of {host}")
        return found

    async def close(self) -> None:
        """Nothing is kept open."""
        await self._system.close()
