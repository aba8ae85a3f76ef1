"""The client for asyncio: `AsyncClient`, with the same nouns and verbs as `gridlane.Client`.

async with gridlane.AsyncClient() as client:
    task = await client.tasks.submit(gridlane.new_job("python3 analyse.py"))
    async for event in client.tasks.watch(task.name): …
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from gridlane.calls import DEFAULT_TIMEOUT_S, Timeout
from gridlane.client import BaseClient
from gridlane.configuration import SERVICES, discover
from gridlane.modes import Async
from gridlane.retry import RetryPolicy
from gridlane.transport import AsyncioTransport

if TYPE_CHECKING:
    import grpc


class AsyncClient(BaseClient[Async]):
    """A client whose verbs are awaited, in the event loop that runs where it is made.

    Parameters: those of `gridlane.Client`; `channel` is one of `grpc.aio`.

    Raises:
        ConfigurationError: what was found is not usable.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        addresses: Mapping[str, str] | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        traceparent: str | None = None,
        group: str | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        from gridlane.connection import open_aio_channels

        found = discover(
            address=address,
            addresses=addresses,
            token=token,
            token_file=token_file,
            ca=ca,
            group=group,
        )
        self._owns_channels = channel is None
        channels = (
            open_aio_channels(found.addresses, found.ca)
            if channel is None
            else dict.fromkeys(SERVICES, channel)
        )
        super().__init__(AsyncioTransport(channels), found, timeout, retry, traceparent)

    async def close(self) -> None:
        """Close the connections; calls under way end with `Cancelled`."""
        if self._owns_channels:
            await self._calls.transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
