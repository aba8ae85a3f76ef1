"""URLs of storage elements: what place one names, and whether two name the same.

Responsible for reading URLs of the schemes that can be served, in one form: the host in small
letters, the scheme's own port left out, the path decoded. Opens nothing and asks nobody; which
addresses may be spoken to is the address policy's (`backends`).
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote

FILE: Final = "file"
# The scheme that two schemes have in common, and its port: dav(s) is http(s), WebDAV spoken.
_FAMILIES: Final[Mapping[str, tuple[str, int]]] = {
    "http": ("http", 80),
    "dav": ("http", 80),
    "https": ("https", 443),
    "davs": ("https", 443),
}
# A host name, an IPv4 address or an IPv6 address in brackets, and a port. Judged before its letters
# are made small: some that are no letters of ASCII become such then.
_AUTHORITY: Final = re.compile(
    r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
).fullmatch
# What a resolver may take for an IPv4 address, in whichever of its ways to write one (WHATWG's URL
# Standard, 3.5: a host that ends in a number).
_ends_in_a_number: Final = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$").search
# An empty component; `.` or `..`, also between backslashes, which some storages take for slashes; a
# control character (C0, DEL, C1).
not_plain: Final = re.compile(r"(^|/)(/|$)|(^|[/\\])\.{1,2}([/\\]|$)|[\x00-\x1f\x7f-\x9f]").search


class Place(NamedTuple):
    """What a URL names: a directory tree (`family` and `authority`), and a path in it, decoded,
    with a leading slash unless it is empty.
    """

    family: str
    authority: str
    path: str

    @property
    def tree(self) -> tuple[str, str]:
        """What two URLs have in common when their paths can be compared."""
        return (self.family, self.authority)

    def contains(self, other: "Place") -> bool:
        """Whether another place is this one, or lies in it."""
        below = other.path.startswith(self.path)
        end = other.path[len(self.path) : len(self.path) + 1]
        return self.tree == other.tree and below and end in ("", "/")


def place_of(url: str) -> Place | None:
    """Reads a URL.

    Returns:
        None for a scheme that nobody serves, a host that is none, a user or password, a query or
        fragment of a web address, a path that is not UTF-8.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return None
    if scheme == FILE:
        path = _decoded(rest)
        return Place(FILE, "", path) if path is not None and path.startswith("/") else None
    family = _FAMILIES.get(scheme)
    if family is None or "?" in rest or "#" in rest:
        return None
    authority, _, relative = rest.partition("/")
    name, own_port = family
    host = _host(authority, own_port)
    path = _decoded(relative)
    if host is None or path is None:
        return None
    return Place(name, host, f"/{path}" if relative else "")


def scheme_of(url: str) -> str:
    """The scheme of a URL."""
    return url.partition("://")[0]


def _host(authority: str, own_port: int) -> str | None:
    """Host and port, the scheme's own left out; None when that is none."""
    found = _AUTHORITY(authority)
    if found is None:
        return None
    port = int(found["port"] or own_port)
    try:
        host = _one_form(found["host"].lower())
    except ValueError:
        return None
    if not 0 < port < 65536:
        return None
    return host if port == own_port else f"{host}:{port}"


def _one_form(host: str) -> str:
    """A host in the one form that it has; an address is no other one's other name.

    Raises:
        ValueError: it is an address that is none, or is not written out.
    """
    if host.startswith("["):
        address = ipaddress.IPv6Address(host[1:-1])
        return (
            f"[{address.compressed}]" if address.ipv4_mapped is None else f"{address.ipv4_mapped}"
        )
    return str(ipaddress.IPv4Address(host)) if _ends_in_a_number(host) else host


def _decoded(path: str) -> str | None:
    if "%" not in path:
        return path
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return None
