"""A server of Gridlane's under measurement: one service alone in its process, or all five.

Responsible for starting it on a directory and databases of its own, for its connections, and for
comparing one of its methods with the reference. What runs in the process is `room_server`'s.
"""

import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from grpc import aio

from benchmarks.databases import Databases, databases
from benchmarks.load import CALLERS, Method, compare, connected
from benchmarks.processes import Child, Clock, child
from benchmarks.reference import echo
from benchmarks.row import Engine, Measured
from benchmarks.run import Run

ALL: Final = "all"
"""In the place of a service's name: all five of them."""

_WITH_DATABASE: Final = ("authorization", "transfer", "workload", "reporting")


class Service:
    """A running server, its data directory, and connections to it."""

    def __init__(
        self,
        server: Child,
        database: Clock | None,
        channels: Sequence[aio.Channel],
        directory: Path,
    ) -> None:
        self.directory = directory
        self._server = server
        self._database = database
        self._channels = channels
        self._token: str = server.ready["token"]

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._server.pid

    @property
    def address(self) -> str:
        """Where it serves: "host:port"."""
        address: str = self._server.ready["address"]
        return address

    @property
    def channel(self) -> aio.Channel:
        """A connection to it."""
        return self._channels[0]

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What a call has to carry."""
        return [("authorization", f"Bearer {self._token}")]

    def method(self, path: str, request: Callable[[], bytes], callers: int = CALLERS) -> Method:
        """Returns one of its methods, to be called in the user's name; see `Method`."""
        return Method(
            self._server,
            self._channels,
            path,
            request,
            database=self._database,
            callers=callers,
            token=self._token,
        )


Prepare = Callable[[Service], Awaitable[Method]]
"""Stores what a method needs, and returns the method."""

Fill = Callable[[str], Awaitable[None]]
"""Fills the database at a URL before the server is started."""


@asynccontextmanager
async def service(
    run: Run, name: str, engine: Engine, fill: Fill | None = None
) -> AsyncIterator[Service]:
    """Runs a service ("workload", "transfer") or `ALL` on an empty data directory.

    Parameters:
        fill: fills the service's database before.
    """
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
        stores = await databases(run, engine, Path(directory))
        urls = _urls(stores, name)
        if fill is not None:
            await fill(urls[name])
        async with (
            child("benchmarks.room_server", directory, json.dumps(urls)) as server,
            connected(server.ready["address"]) as channels,
        ):
            yield Service(server, stores.clock, channels, Path(directory))


async def against_echo(
    run: Run, *, name: str, engine: Engine, prepare: Prepare, items: int = 1
) -> Measured:
    """Measures a service's method against the reference; `items` as in `compare`."""
    reference = await run.shared(echo)
    async with AsyncExitStack() as stack:
        if run.effort.fresh:
            under_test = await stack.enter_async_context(service(run, name, engine))
        else:
            under_test = await run.shared(service, run, name, engine)
        return await compare(reference, await prepare(under_test), run.effort, items=items)


def _urls(stores: Databases, name: str) -> Mapping[str, str]:
    names = _WITH_DATABASE if name == ALL else (name,)
    return {each: stores.new(each) for each in names}
