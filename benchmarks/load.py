"""The load generator: many callers at once against one operation of one server.

Responsible for windows of calls and for the processor time of server and database in them. It runs
in the process of the program, the servers in others. A call that fails ends the measurement: the
cost of errors is not the cost of work.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from grpc import aio

from benchmarks.processes import Clock
from benchmarks.row import Measured
from benchmarks.run import Effort

CALLERS: Final = 64
CHANNELS: Final = 4
PAYLOAD_BYTES: Final = 1024
_TIMEOUT_S: Final = 30.0
_WARM_UP_S: Final = 0.5


_Stub = aio.UnaryUnaryMultiCallable[bytes, bytes]


class CallFailedError(Exception):
    """A call under measurement was answered with an error; the text says which."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a window of calls cost: processor seconds, told apart, and seconds on the clock.

    A database within the server's process counts as the server.
    """

    calls: int
    server_cpu_s: float
    database_cpu_s: float
    wall_s: float

    @property
    def microseconds(self) -> float:
        """The server's processor time for one call, in µs."""
        return self.server_cpu_s / self.calls * 1e6

    @property
    def database_microseconds(self) -> float:
        """The database's processor time for one call, in µs."""
        return self.database_cpu_s / self.calls * 1e6

    @property
    def whole_microseconds(self) -> float:
        """Both together."""
        return self.microseconds + self.database_microseconds


class Load(ABC):
    """An operation of a server, called in a loop by many callers.

    Parameters:
        server: whose processor time counts.
        database: the server's database, when it is in processes of its own.
        callers: how many calls are open at once.
    """

    def __init__(self, server: Clock, database: Clock | None, callers: int) -> None:
        self.has_database = database is not None
        self._clocks = (server, database)
        self._callers = callers

    async def window(self, seconds: float) -> Window:
        """Calls for so many seconds; what began in them is waited for and counted.

        Raises:
            CallFailedError: a call was answered with an error; the others are given up.
        """
        (server, database), begun = self._cpu_seconds(), time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                callers = [
                    group.create_task(self._calls(number, begun + seconds))
                    for number in range(self._callers)
                ]
        except ExceptionGroup as group_failed:
            raise group_failed.exceptions[0] from None
        calls = sum(caller.result() for caller in callers)
        wall_s = time.perf_counter() - begun
        server_now, database_now = self._cpu_seconds()
        return Window(calls, server_now - server, database_now - database, wall_s)

    @abstractmethod
    async def call(self, caller: int) -> bytes:
        """Makes a single call and returns the answer.

        Parameters:
            caller: the number of the caller.

        Raises:
            CallFailedError: the answer is an error.
        """

    def _cpu_seconds(self) -> tuple[float, float]:
        server, database = (0.0 if clock is None else clock.cpu_seconds() for clock in self._clocks)
        return server, database

    async def _calls(self, number: int, end: float) -> int:
        calls = 0
        while calls == 0 or time.perf_counter() < end:
            await self.call(number)
            calls += 1
        return calls


class Method(Load):
    """A method of a gRPC server.

    Parameters:
        path: "/package.Service/Method".
        request: makes the bytes of the next request; called once a call.
        token: bearer token; empty for none.
        server, database, callers: as in `Load`.
    """

    def __init__(
        self,
        server: Clock,
        channels: Sequence[aio.Channel],
        path: str,
        request: Callable[[], bytes],
        *,
        database: Clock | None = None,
        callers: int = CALLERS,
        token: str = "",
    ) -> None:
        super().__init__(server, database, callers)
        self._path = path
        self._stubs: list[_Stub] = [channel.unary_unary(path) for channel in channels]
        self._request = request
        self._metadata = [("authorization", f"Bearer {token}")] if token else None

    async def call(self, caller: int = 0) -> bytes:
        stub = self._stubs[caller % len(self._stubs)]
        try:
            return await stub(self._request(), timeout=_TIMEOUT_S, metadata=self._metadata)
        except aio.AioRpcError as refused:
            text = f"{self._path}: {refused.code().name}: {refused.details()}"
            raise CallFailedError(text) from None


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[list[aio.Channel]]:
    """Opens several connections to a server."""
    channels = [
        aio.insecure_channel(
            address,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", 16 * 1024 * 1024),
            ],
        )
        for _ in range(CHANNELS)
    ]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        yield channels
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


Pairs = Sequence[tuple[Window, Window]]


async def in_pairs(first: Load, second: Load, effort: Effort) -> Pairs:
    """Measures two operations in interleaved pairs of windows.

    Each pair is one window of the first and then one of the second, so that what else happens on
    the machine touches both.
    """
    warm_up = min(_WARM_UP_S, effort.seconds)
    await first.window(warm_up)
    await second.window(warm_up)
    return [
        (await first.window(effort.seconds), await second.window(effort.seconds))
        for _ in range(effort.rounds)
    ]


async def compare(reference: Load, method: Load, effort: Effort, *, items: int = 1) -> Measured:
    """Measures a method's server against the reference's: the median of the pairs' ratios.

    Parameters:
        items: how many things one call of the method does; the ratio is for one of them.
    """
    pairs = await in_pairs(reference, method, effort)
    windows = [window for _, window in pairs]
    details = {
        "echo_us": middle(echo.microseconds for echo, _ in pairs),
        "method_us": middle(window.microseconds / items for window in windows),
        "method_per_s": middle(window.calls * items / window.wall_s for window in windows),
    }
    if method.has_database:
        details["database_us"] = middle(w.database_microseconds / items for w in windows)
    return Measured.of(
        [theirs.microseconds / items / echo.microseconds for echo, theirs in pairs], **details
    )


async def alone(method: Load, effort: Effort) -> Measured:
    """Measures the server's processor time for a call, in µs."""
    await method.window(min(_WARM_UP_S, effort.seconds))
    windows = [await method.window(effort.seconds) for _ in range(effort.rounds)]
    return Measured.of(
        [window.microseconds for window in windows],
        per_s=middle(window.calls / window.wall_s for window in windows),
    )


def middle(values: Iterable[float]) -> float:
    """The median."""
    return Measured.of(list(values)).value
