"""The load generator: many callers at once against one method of one server.

Responsible for windows of calls and for the server's processor time in them. It runs in the
process of the program, the server in another one. A call that fails ends the measurement: the cost
of errors is not the cost of work.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from grpc import aio

from benchmarks.processes import Child
from benchmarks.row import Effort, Measured

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
    """What a window of calls cost: processor seconds of the server, seconds on the clock."""

    calls: int
    server_cpu_s: float
    wall_s: float

    @property
    def microseconds(self) -> float:
        """The server's processor time for one call, in µs."""
        return self.server_cpu_s / self.calls * 1e6


class Method:
    """A method of a server, called in a loop by many callers.

    Parameters:
        server: whose processor time counts.
        path: "/package.Service/Method".
        request: makes the bytes of the next request; called once a call.
        callers: how many calls are open at once.
        token: bearer token; empty for none.
    """

    def __init__(
        self,
        server: Child,
        channels: Sequence[aio.Channel],
        path: str,
        request: Callable[[], bytes],
        *,
        callers: int = CALLERS,
        token: str = "",
    ) -> None:
        self._server = server
        self._path = path
        self._stubs: list[_Stub] = [channel.unary_unary(path) for channel in channels]
        self._request = request
        self._callers = callers
        self._metadata = [("authorization", f"Bearer {token}")] if token else None

    async def window(self, seconds: float) -> Window:
        """Calls for so many seconds; what began in them is waited for and counted.

        Raises:
            CallFailedError: a call was answered with an error; the others are given up.
        """
        cpu, begun = self._server.cpu_seconds(), time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                callers = [
                    group.create_task(self._calls(number, begun + seconds))
                    for number in range(self._callers)
                ]
        except ExceptionGroup as group_failed:
            raise group_failed.exceptions[0] from None
        calls = sum(caller.result() for caller in callers)
        return Window(calls, self._server.cpu_seconds() - cpu, time.perf_counter() - begun)

    async def once(self) -> bytes:
        """Makes a single call and returns the answer.

        Raises:
            CallFailedError: the answer is an error.
        """
        return await self._call(self._stubs[0])

    async def _calls(self, number: int, end: float) -> int:
        stub = self._stubs[number % len(self._stubs)]
        calls = 0
        while calls == 0 or time.perf_counter() < end:
            await self._call(stub)
            calls += 1
        return calls

    async def _call(self, stub: _Stub) -> bytes:
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


async def compare(reference: Method, method: Method, effort: Effort, *, items: int = 1) -> Measured:
    """Measures a method against the reference in interleaved pairs.

    Each pair is one window of the reference and then one of the method, so that what else happens
    on the machine touches both; the figure is the median of the pairs' ratios.

    Parameters:
        items: how many things one call of the method does; the ratio is for one of them.
    """
    await reference.window(_WARM_UP_S)
    await method.window(_WARM_UP_S)
    pairs = [
        (await reference.window(effort.seconds), await method.window(effort.seconds))
        for _ in range(effort.rounds)
    ]
    return Measured.of(
        [theirs.microseconds / items / echo.microseconds for echo, theirs in pairs],
        echo_us=Measured.of([echo.microseconds for echo, _ in pairs]).value,
        method_us=Measured.of([theirs.microseconds / items for _, theirs in pairs]).value,
        method_per_s=Measured.of([w.calls * items / w.wall_s for _, w in pairs]).value,
    )


async def alone(method: Method, effort: Effort) -> Measured:
    """Measures the server's processor time for a call, in µs."""
    await method.window(min(_WARM_UP_S, effort.seconds))
    windows = [await method.window(effort.seconds) for _ in range(effort.rounds)]
    return Measured.of(
        [window.microseconds for window in windows],
        per_s=Measured.of([window.calls / window.wall_s for window in windows]).value,
    )
