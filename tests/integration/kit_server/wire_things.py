"""The sample at the other end of a wire: it does what a script says, and notes what came."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gridlane_kit.call import Caller
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.telemetry import Telemetry

ADA = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))
LIMIT_S = 15


class Things:
    """The sample; `script` says what its next calls do, one entry each."""

    def __init__(self, messages: Any) -> None:
        self.m = messages
        self.calls: list[Any] = []
        self.remaining: list[float] = []
        self.script: list[Callable[[], Awaitable[None]]] = []
        self.closed = asyncio.Event()
        self.received: list[Any] = []

    async def GetThing(self, request: Any, call: Any) -> Any:
        self.calls.append(call)
        self.remaining.append(call.remaining())
        if self.script:
            await self.script.pop(0)()
        return self.m.Thing(name=request.name)

    async def CreateThing(self, request: Any, call: Any) -> Any:
        return await self.GetThing(self.m.GetThingRequest(name="things/a"), call)

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        self.calls.append(call)
        try:
            for count in range(10):
                call.resume_token = str(count)
                yield self.m.Thing(count=count)
            await asyncio.sleep(60)
        finally:
            self.closed.set()

    async def PutThings(self, requests: AsyncIterator[Any], call: Any) -> Any:
        try:
            async for request in requests:
                self.received.append(request)
        finally:
            self.closed.set()
        return self.m.Thing(count=len(self.received))

    async def ChatThings(self, requests: AsyncIterator[Any], call: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield request.thing


def caller(timeout_s: float | None = LIMIT_S, principal: Principal = ADA) -> Caller:
    deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    return Caller(principal, deadline, Telemetry("workload").root())


async def failure_of(awaitable: Any) -> GridlaneError:
    with pytest.raises(GridlaneError) as caught:
        await awaitable
    return caught.value


def fails(error: GridlaneError) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def hangs(seconds: float = 60) -> Callable[[], Awaitable[None]]:
    return lambda: asyncio.sleep(seconds)
