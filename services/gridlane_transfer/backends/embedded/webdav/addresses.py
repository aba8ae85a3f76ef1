"""Which addresses may be reached. Responsible for the policy; connects to nothing.

A user who names a URL must not make the server speak to what only the server can reach: its own
machine, the machines beside it, a cloud's metadata service. So what is judged is the address that a
name was resolved to, never the name, and the connection goes to the judged address.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address

# RFC 6052: an IPv4 address in the last 32 bits.
_NAT64: Final = ip_network("64:ff9b::/96")


class Resolved(NamedTuple):
    """One address of a host."""

    family: int
    sockaddr: tuple[str, int]

    @property
    def address(self) -> Address:
        """The address itself."""
        return address_of(self.sockaddr[0])


class AddressPolicy:
    """Public addresses, and what is allowed besides.

    Parameters:
        allowed: networks as CIDR, for example "127.0.0.0/8".
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = [ip_network(network) for network in allowed]

    def refusal(self, address: Address) -> str:
        """Why an address may not be reached; empty when it may."""
        for inner in _ways(address):
            if any(inner in network for network in self._allowed):
                continue
            kind = _kind(inner)
            if kind:
                return f"{address} is {kind}"
        return ""


def resolve(host: str, port: int) -> list[Resolved]:
    """All addresses of a host, in the resolver's order; blocks.

    Raises:
        OSError: it has none, or nobody says.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Resolved(family, (str(sockaddr[0]), port)) for family, _, _, _, sockaddr in found]


def address_of(text: str) -> Address:
    """An address as sockets write it."""
    return ip_address(text.partition("%")[0])


def _ways(address: Address) -> list[Address]:
    """The address, and the IPv4 address that it is another way to write, if it is one."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner = address.sixtofour or (address.teredo and address.teredo[1])
    if address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return [address, inner] if inner else [address]


def _kind(address: Address) -> str:
    """What is not public about an address; empty when nothing is."""
    kinds = (
        (address.is_unspecified, "no address"),
        (address.is_loopback, "this machine's own"),
        (address.is_link_local, "link-local"),
        (address.is_multicast, "a group's"),
        (not address.is_global and address not in _NAT64, "private or reserved"),
    )
    return next((kind for holds, kind in kinds if holds), "")
