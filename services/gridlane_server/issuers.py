"""The outside issuers of users' tokens in a server process: made from settings, kept while it runs.

Responsible for what a process's verifier of tokens is put together from, and for the background
work that keeps keys fresh. Which issuers are believed and how is the kit's
(`gridlane_kit.issuers`).
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gridlane_authorization.settings import AuthorizationSettings
from gridlane_kit.addresses import Addresses
from gridlane_kit.issuer_documents import Documents
from gridlane_kit.issuers import TrustedIssuers

Follower = Callable[[], Coroutine[Any, Any, None]]


class IssuerError(ValueError):
    """A configured issuer is not usable; the message names what is wrong."""


def outside_issuers(settings: AuthorizationSettings) -> TrustedIssuers:
    """Makes the outside issuers that are configured; nothing is fetched before they are started.

    Raises:
        IssuerError: a file of keys or roots is not usable.
    """
    try:
        addresses = Addresses(settings.issuers_networks)
        return TrustedIssuers(
            settings.audience,
            settings.issuers,
            documents=Documents(settings.issuers_ca),
            policy_documents=Documents(settings.issuers_ca, addresses=addresses),
            refresh_s=settings.issuers_refresh_s,
            retry_s=settings.issuers_retry_s,
        )
    except (OSError, ValueError, ssl.SSLError) as error:
        raise IssuerError(f"an issuer of tokens is not usable: {error}") from error


class TokenKeys:
    """Keeps what tokens are signed and proven with up to date, as a room without a service.

    Parameters:
        outside: the outside issuers.
        followers: coroutines that run while the process does: each follows a file.
    """

    name = "token keys"

    def __init__(self, outside: TrustedIssuers, *followers: Follower) -> None:
        self._outside = outside
        self._followers = followers
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins; waits for no issuer."""
        await self._outside.start()
        self._tasks = [asyncio.create_task(follow(), name=self.name) for follow in self._followers]

    def handlers(self) -> Sequence[tuple[str, object]]:
        """It serves nothing."""
        return ()

    async def drain(self) -> None:
        """Nothing to drain: calls are proven to the last."""

    async def stop(self) -> None:
        """Ends all of it."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._outside.stop()
