"""URLs of remote files. Responsible for their parts and their neighbours; connects to nothing.

`davs` and `dav` are WLCG's words for `https` and `http` with WebDAV verbs.
"""

from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

_SCHEMES: Final = {"http": "http", "https": "https", "dav": "http", "davs": "https"}
_QUOTED_ALREADY: Final = "/?%:=&~#+!$,;'@()*[]"
_PORTS: Final = {"http": 80, "https": 443}
SCHEMES: Final = frozenset(_SCHEMES)
"""The schemes of URLs that are served here."""


class Origin(NamedTuple):
    """Whom a URL speaks to; `scheme` is `http` or `https`, `host` lower-case."""

    scheme: str
    host: str
    port: int

    @property
    def shown(self) -> str:
        """`https://host:port`."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The `Host` header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class RemotePlace(NamedTuple):
    """Where a remote file lies or is to lie.

    Parameters:
        url: of the file, percent-encoded, `http` or `https`.
        base: the storage element's base URL: directories are made below it alone.
        shown: what messages call it; its user's word.
    """

    url: str
    base: str
    shown: str

    def sibling(self, name: str) -> str:
        """The URL of another name in the same directory."""
        return f"{self.url.rpartition('/')[0]}/{name}"

    def folders(self) -> list[str]:
        """The directories between the base and the file, outermost first."""
        below = self.url.removeprefix(self.base).strip("/").split("/")[:-1]
        found, url = [], self.base.rstrip("/")
        for name in below:
            url = f"{url}/{name}"
            found.append(url)
        return found


def is_remote(url: str) -> bool:
    """Whether a URL is one of these."""
    return url.partition(":")[0] in _SCHEMES


def on_the_wire(url: str) -> str:
    """A URL as HTTP knows it: `davs` is `https`."""
    scheme, _, rest = url.partition(":")
    return f"{_SCHEMES.get(scheme, scheme)}:{rest}"


def origin_of(url: str) -> Origin:
    """Whom a URL speaks to.

    Raises:
        ValueError: it is no URL of HTTP, or has a user or a password in it.
    """
    parts = urlsplit(on_the_wire(url))
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("it is not like https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it has a user or a password in it")
    if parts.port == 0:
        raise ValueError("it has the port 0")
    return Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])


def same_domain(one: Origin, other: Origin) -> bool:
    """Whether two hosts are one, or have all of their names but the first part in common, which is
    two parts at least: a storage and the machines that it is made of.
    """
    if one.host == other.host:
        return True
    domain = one.host.partition(".")[2]
    named = "." in domain and not domain.rpartition(".")[2].isdecimal()
    return named and domain == other.host.partition(".")[2]


def target_of(url: str) -> str:
    """The path and query of a URL, for a request's first line."""
    parts = urlsplit(url)
    # What a redirect left unquoted.
    return quote(
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_QUOTED_ALREADY
    )


def unescaped(url: str) -> str:
    """A URL without escapes, for a header: its bytes are UTF-8, one character each."""
    return unquote(url).encode().decode("latin-1")


def redirected(url: str, location: str) -> str:
    """Where an answer's `Location` leads.

    Raises:
        ValueError: nowhere.
    """
    return urljoin(url, location).partition("#")[0]
