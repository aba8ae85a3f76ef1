"""What an issuer publishes: its discovery document and its JWKS, fetched over HTTPS.

Responsible for one request's bounds (time, bytes, redirects, where to) and for TLS. Not for when
something is fetched, nor for what follows from it (`issuer_keys`).

An issuer is trusted to say where its keys lie, not to make this server call others in plain text:
HTTP without TLS is spoken only with an issuer on this machine. For issuers that somebody else than
the operator named, only some addresses are connected to (`addresses`).
"""

import asyncio
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from gridlane_kit.addresses import Addresses
from gridlane_kit.settings import is_loopback

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

TIMEOUT_S: Final = 5.0
"""For one document, redirects included."""
MAX_BYTES: Final = 256 * 1024
MAX_REDIRECTS: Final = 3

_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


class DocumentError(Exception):
    """A document cannot be had, or is not what it should be; the message says why, for the log."""


class Documents:
    """Fetches the documents of issuers.

    Parameters:
        ca: roots (PEM) that issuers' certificates are verified with, beside the system's.
        timeout_s: for one document, redirects included.
        addresses: those that may be connected to; None: all.

    Raises:
        OSError, ssl.SSLError: the roots cannot be read.
    """

    def __init__(
        self,
        ca: Path | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        addresses: Addresses | None = None,
    ) -> None:
        # The system's roots take a while to read, and most servers never fetch anything.
        self._tls = None if ca is None else _tls_with(ca)
        self._timeout_s = timeout_s
        self._addresses = addresses

    async def jwks_uri(self, issuer: str) -> str:
        """Returns where an issuer says that its keys lie (OpenID Connect Discovery 1.0).

        Raises:
            DocumentError: it does not say so.
        """
        document = await self.fetch(issuer.removesuffix("/") + _WELL_KNOWN, issuer)
        if document.get("issuer") != issuer:
            raise DocumentError("the discovery document is another issuer's")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise DocumentError("the discovery document has no jwks_uri")
        return uri

    async def fetch(self, url: str, issuer: str) -> dict[str, object]:
        """Returns the JSON object at a URL.

        Parameters:
            issuer: for whom; in plain text only when this one is itself on this machine.

        Raises:
            DocumentError: it cannot be had within the bounds.
        """
        raw = await self._bounded(url, issuer)
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            raise DocumentError(f"{url}: no JSON") from None
        if not isinstance(document, dict):
            raise DocumentError(f"{url}: no JSON object")
        return document

    async def _bounded(self, url: str, issuer: str) -> bytes:
        import aiohttp

        if self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._fetch(url, self._tls, is_plain_loopback(issuer))
        except TimeoutError:
            raise DocumentError(f"{url}: no answer within {self._timeout_s} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DocumentError(f"{url}: {type(error).__name__}: {error}") from None

    async def _fetch(self, url: str, tls: ssl.SSLContext, may_be_plain: bool) -> bytes:
        import aiohttp

        connector = aiohttp.TCPConnector(ssl=tls, force_close=True, resolver=self._resolver())
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            for _ in range(1 + MAX_REDIRECTS):
                self._check_place(url, may_be_plain)
                async with session.get(url, headers=_HEADERS, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS:
                        return await _body(url, answer)
                    url = urljoin(url, answer.headers.get("Location", ""))
        raise DocumentError(f"{url}: more than {MAX_REDIRECTS} redirects")

    def _resolver(self) -> "AbstractResolver | None":
        if self._addresses is None:
            return None
        from gridlane_kit.guarded_resolver import GuardedResolver

        return GuardedResolver(self._addresses)

    def _check_place(self, url: str, may_be_plain: bool) -> None:
        if not (url.startswith("https://") or (may_be_plain and is_plain_loopback(url))):
            raise DocumentError(
                f"{url}: only https is spoken, and http with an issuer on this machine"
            )
        if self._addresses is not None:
            host = urlsplit(url).hostname or ""
            if not self._addresses.allows_host(host):
                raise DocumentError(f"{url}: policy forbids to connect to this address")


def _tls_with(ca: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context()
    tls.load_verify_locations(cafile=ca)
    return tls


def is_plain_loopback(url: str) -> bool:
    """Whether a URL is HTTP without TLS, on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


async def _body(url: str, answer: "aiohttp.ClientResponse") -> bytes:
    if answer.status != 200:
        raise DocumentError(f"{url}: status {answer.status}")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DocumentError(f"{url}: compressed, which was not asked for")
    content = bytearray()
    async for part in answer.content.iter_any():
        content += part
        if len(content) > MAX_BYTES:
            raise DocumentError(f"{url}: more than {MAX_BYTES} bytes")
    return bytes(content)
