"""One service under measurement, alone in its process.

Responsible for starting it on a directory of its own, for its connections, and for comparing one
of its methods with the reference. What runs in the process is `room_server`'s.
"""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from grpc import aio

from benchmarks.load import CALLERS, Method, compare, connected
from benchmarks.processes import Child, child
from benchmarks.reference import echo
from benchmarks.row import Effort, Measured


class Service:
    """A running service, its data directory, and connections to it."""

    def __init__(self, server: Child, channels: Sequence[aio.Channel], directory: Path) -> None:
        self.directory = directory
        self._server = server
        self._channels = channels
        self._token: str = server.ready["token"]

    def method(self, path: str, request: Callable[[], bytes], callers: int = CALLERS) -> Method:
        """Returns one of its methods, to be called in the user's name; see `Method`."""
        return Method(
            self._server, self._channels, path, request, callers=callers, token=self._token
        )


Prepare = Callable[[Service], Awaitable[Method]]
"""Stores what a method needs, and returns the method."""


@asynccontextmanager
async def service(name: str) -> AsyncIterator[Service]:
    """Runs a service ("workload", "transfer") on an empty data directory."""
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
        async with (
            child("benchmarks.room_server", name, directory) as server,
            connected(server.ready["address"]) as channels,
        ):
            yield Service(server, channels, Path(directory))


async def against_echo(effort: Effort, *, name: str, prepare: Prepare, items: int = 1) -> Measured:
    """Measures a service's method against the reference; `items` as in `compare`."""
    async with echo() as reference, service(name) as under_test:
        return await compare(reference, await prepare(under_test), effort, items=items)
