"""Where this server may connect to for somebody else: which addresses of the network.

Responsible for the rule alone, and for applying it to a URL before anything is stored. An
administrator who adds an issuer has this server fetch a URL; it must not be a way to what only this
server can reach: itself, a cloud's metadata, the machines beside it. The operator names networks of
its own that may be reached all the same. While connecting, the rule is applied to each address that
is really used (`guarded_resolver`): a name may mean another one by then.
"""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network
_RESOLVE_S: Final = 5.0
_NAT64: Final = ip_network("64:ff9b::/96")
"""Addresses of IPv4 as IPv6 has them behind a translator (RFC 6052)."""


class Addresses:
    """The addresses that may be connected to: public ones, and those of some networks.

    Parameters:
        networks: allowed beside the public ones.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def allows(self, address: str) -> bool:
        """Whether an address, in its usual form, may be connected to; False for what is none."""
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        inner = _embedded(found)
        return self._is_named(inner) or (inner.is_global and not inner.is_multicast)

    def allows_host(self, host: str) -> bool:
        """Whether a URL's host may be connected to, as far as that is seen without asking for its
        addresses: one that is an address must be allowed."""
        try:
            ip_address(host)
        except ValueError:
            return True
        return self.allows(host)

    async def forbid(self, url: str) -> bool:
        """Whether a URL leads to an address that is not allowed, as its host is found now.

        A host that is not found at all leads nowhere yet.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 443
        except ValueError:
            return True
        if not host:
            return True
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (TimeoutError, OSError, UnicodeError):
            return not self.allows_host(host)
        return not all(self.allows(str(place[4][0])) for place in found)

    def _is_named(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The address of IPv4 to which one of IPv6 leads in the end, where it is such a one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
