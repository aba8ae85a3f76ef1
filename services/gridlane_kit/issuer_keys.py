"""Where an issuer's public keys come from, and how they stay up to date.

Responsible for three kinds of sources: keys of this process, a file (a JWKS that is replaced when a
key changes), and the issuer itself, whose keys are fetched again in the background, and at once
when a token names a key that is not known. Not for which issuers are believed (`issuers`), nor for
what a token must say (`token_profile`).

A source that is away keeps the keys that it had last. When one of them is gone from a newer JWKS,
what was proven by the old ones ends (`Trust`) and must be proven anew.
"""

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from gridlane_kit import errors
from gridlane_kit.clock import now_us
from gridlane_kit.identity import Trust
from gridlane_kit.issuer_documents import DocumentError, Documents
from gridlane_kit.jwks import JwksError, PublicKey, PublicKeys

REFRESH_S: Final = 600.0
RETRY_S: Final = 10.0
POLL_S: Final = 0.2
"""How often a file is looked at: what a key proved that is gone ends within a second."""

_MAX_PROBLEM: Final = 300
"""Characters that are told of why keys cannot be had."""
_log = logging.getLogger(__name__)


class KeyStatus(NamedTuple):
    """What is known of an issuer's keys: their ids, when they were fetched last (microseconds since
    1970-01-01 UTC; None: never, or they are not fetched), and why the last attempt failed, empty
    when it did not."""

    kids: tuple[str, ...] = ()
    fetched_us: int | None = None
    problem: str = ""


class KeySource(Protocol):
    """Where an issuer's public keys come from."""

    trust: Trust
    """What is proven by the keys as they are now rests on it."""

    @property
    def status(self) -> KeyStatus:
        """How they are."""

    def renew(self) -> None:
        """Has all that was proven by the keys proven anew."""

    async def fetched(self) -> PublicKeys:
        """Returns all keys, fetched now where they are fetched.

        Raises:
            DocumentError, JwksError: they cannot be had.
        """

    async def find(self, algorithm: str, kid: str | None) -> tuple[PublicKey, ...]:
        """Returns the keys that may have signed a token whose header says so; often none or one.

        Raises:
            GridlaneError: PEER_UNAVAILABLE: the issuer's keys cannot be had just now.
        """


class StaticKeys:
    """Keys that change only when this process says so.

    Raises:
        JwksError: the JWKS has no usable key.
    """

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._keys = PublicKeys.read(jwks)
        self.trust = Trust()

    @property
    def status(self) -> KeyStatus:
        """How they are."""
        return KeyStatus(self._keys.kids)

    def renew(self) -> None:
        """Has all that was proven by the keys proven anew."""
        ending, self.trust = self.trust, Trust()
        ending.end()

    async def find(self, algorithm: str, kid: str | None) -> tuple[PublicKey, ...]:
        """Returns the keys that may have signed a token whose header says so."""
        return self._keys.find(algorithm, kid)

    async def fetched(self) -> PublicKeys:
        """Returns all keys."""
        return self._keys

    def replace(self, jwks: Mapping[str, Any]) -> None:
        """Puts other keys in the place of these.

        Raises:
            JwksError: the JWKS has no usable key; the old ones stay.
        """
        self._take(PublicKeys.read(jwks))

    def _take(self, keys: PublicKeys) -> None:
        before, self._keys = self._keys, keys
        if not before.kept_in(keys):
            self.renew()


class FileKeys(StaticKeys):
    """The keys in a file (JWKS), which is read again when it changed.

    Raises:
        OSError, ValueError: it cannot be read, or has no usable key.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp = file_stamp(file)
        super().__init__(json.loads(file.read_bytes()))

    async def find(self, algorithm: str, kid: str | None) -> tuple[PublicKey, ...]:
        """Returns the keys that may have signed a token whose header says so."""
        self._look()
        return self._keys.find(algorithm, kid)

    async def keep_fresh(self) -> None:
        """Looks whether the file changed; runs until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            self._look()

    def _look(self) -> None:
        stamp = file_stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.replace(json.loads(self._file.read_bytes()))
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read, the keys in force stay: %s", self._file, error)


class RemoteKeys:
    """The keys that an issuer publishes.

    Parameters:
        issuer: its URL.
        documents: fetches.
        jwks_uri: where its keys lie; empty: where its discovery document says.
        refresh_s: they are fetched again so often.
        retry_s: and never sooner after the last time, whoever asks for whatever.
    """

    def __init__(
        self,
        issuer: str,
        documents: Documents,
        *,
        jwks_uri: str = "",
        refresh_s: float = REFRESH_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._issuer = issuer
        self._documents = documents
        self._jwks_uri = jwks_uri
        self._refresh_s = refresh_s
        self._retry_s = min(retry_s, refresh_s)
        self._keys = PublicKeys(())
        self._fetching: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._fetched_at: float | None = None
        self._fetched_us: int | None = None
        self._failures = 0
        self._problem = ""
        self.trust = Trust()

    @property
    def status(self) -> KeyStatus:
        """How they are."""
        return KeyStatus(self._keys.kids, self._fetched_us, self._problem)

    def renew(self) -> None:
        """Has all that was proven by the keys proven anew."""
        ending, self.trust = self.trust, Trust()
        ending.end()

    @property
    def age_s(self) -> float:
        """How long ago the keys were fetched, seconds; infinite before the first time."""
        return float("inf") if self._fetched_at is None else monotonic() - self._fetched_at

    async def fetched(self) -> PublicKeys:
        """Fetches the keys once, whatever is known already, and takes them up.

        Raises:
            DocumentError, JwksError: they cannot be had.
        """
        uri = self._jwks_uri or await self._documents.jwks_uri(self._issuer)
        self._take(PublicKeys.read(await self._documents.fetch(uri, self._issuer)))
        return self._keys

    async def find(self, algorithm: str, kid: str | None) -> tuple[PublicKey, ...]:
        """Returns the keys that may have signed a token whose header says so.

        A key that is not known has all fetched again, once for all who ask meanwhile.

        Raises:
            GridlaneError: PEER_UNAVAILABLE: none could ever be fetched.
        """
        found = self._keys.find(algorithm, kid)
        if found:
            return found
        await self.refresh()
        if self._fetched_at is None:
            raise errors.issuer_unavailable()
        return self._keys.find(algorithm, kid)

    async def keep_fresh(self) -> None:
        """Fetches the keys again and again; runs until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._pause_s())

    async def refresh(self) -> None:
        """Fetches the keys, unless that was done or tried just before."""
        if self._fetching is None:
            if monotonic() < self._not_before:
                return
            self._fetching = asyncio.create_task(self._fetch(), name="issuer's keys")
        # Who waits may leave; the others, and the next token, need the keys all the same.
        await asyncio.shield(self._fetching)

    async def close(self) -> None:
        """Ends what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching

    async def _fetch(self) -> None:
        try:
            await self.fetched()
        except (DocumentError, JwksError) as error:
            self._failures += 1
            self._problem = str(error)[:_MAX_PROBLEM]
            _log.warning("the keys of %s could not be fetched: %s", self._issuer, error)
        finally:
            self._not_before = monotonic() + self._retry_s
            self._fetching = None

    def _take(self, keys: PublicKeys) -> None:
        before, self._keys = self._keys, keys
        self._failures = 0
        self._problem = ""
        self._fetched_at = monotonic()
        self._fetched_us = now_us()
        if not before.kept_in(keys):
            _log.info("a key of %s is gone", self._issuer)
            self.renew()

    def _pause_s(self) -> float:
        """How long to wait for the next time: longer with every failure, never in step."""
        planned = self._refresh_s
        if self._failures:
            planned = min(self._refresh_s, self._retry_s * 2.0 ** min(self._failures - 1, 20))
        return planned * random.uniform(0.9, 1.1)  # noqa: S311 - no secret


def file_stamp(file: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file is replaced; None when it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
