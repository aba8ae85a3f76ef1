"""The reference under measurement: the echo server in a process of its own, ready to be called."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.echo_server import PATH
from benchmarks.load import PAYLOAD_BYTES, Method, connected
from benchmarks.processes import child


@asynccontextmanager
async def echo() -> AsyncIterator[Method]:
    """Starts the reference server, to be called with the usual payload."""
    payload = os.urandom(PAYLOAD_BYTES)
    async with (
        child("benchmarks.echo_server") as server,
        connected(server.ready["address"]) as channels,
    ):
        yield Method(server, channels, PATH, lambda: payload)
