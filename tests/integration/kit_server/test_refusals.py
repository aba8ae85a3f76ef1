"""A refused call leaves nothing behind: what it sent is gone with the answer, not when the garbage
collector comes. A server's collector comes seldom, and a message may have 4 MiB.
"""

import gc
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import raw_calls
from grpc import aio
from integration.kit_server.served import Serve, Served

from gridlane_kit import errors
from gridlane_kit.call import Caller
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal

REFUSED = {
    "no token": ("GetThing", b"", ()),
    "a bad token": ("GetThing", b"", (("authorization", "Bearer a.b.c"),)),
    "no message": ("GetThing", b"\xff" * 9, None),
    "a broken rule": ("GetThing", b"", None),
    "not implemented": ("ForgetThing", b"", None),
    "refused by the handler": ("GetThing", b"\n\x0bthings/gone", None),
    "a defect": ("GetThing", b"\n\x0bthings/boom", None),
    "a refused stream": ("WatchThings", b"", None),
    "a stream that fails": ("WatchThings", b"\n\x0bthings/gone", None),
}


class Things:
    """Fails as the name of the thing says."""

    async def GetThing(self, request: Any, call: Any) -> Any:
        if request.name == "things/gone":
            raise errors.not_found(request.name)
        raise RuntimeError("a defect")

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        yield request
        raise errors.not_found(request.name)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Keeps the collector away, as a server's own settings all but do."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def refuse(served: Served, method: str, raw: bytes, metadata: Any) -> None:
    headers = served.headers() if metadata is None else metadata
    if method == "WatchThings":
        stream = raw_calls.unary_stream(served.channel, served.path(method))
        with pytest.raises(aio.AioRpcError):
            _ = [answer async for answer in stream(raw, metadata=headers, timeout=10)]
    else:
        await served.refused(method, raw, metadata=headers)


def errors_left() -> list[GridlaneError]:
    return [kept for kept in gc.get_objects() if isinstance(kept, GridlaneError)]


@pytest.mark.parametrize(("method", "raw", "metadata"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("no_collector")
async def test_a_refused_call_is_gone_with_its_answer(
    serve: Serve, method: str, raw: bytes, metadata: Any
) -> None:
    served = await serve(Things())
    before = len(errors_left())
    for _ in range(3):
        await refuse(served, method, raw, metadata)
    assert len(errors_left()) == before


@pytest.mark.usefixtures("no_collector")
async def test_a_peer_that_is_refused_is_gone_with_its_answer(
    serve: Serve, messages: SimpleNamespace
) -> None:
    served = await serve(Things())
    ada = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))
    caller = Caller(ada, None, served.pipeline.telemetry.root())
    before = len(errors_left())
    refused = 0
    for name in ("things/gone", "things/boom", "not valid"):
        source = messages.GetThingRequest(name=name)
        try:
            await served.pipeline.local.unary(
                "workload", caller, "gridlane.transfer.sample.v1.SampleService", "GetThing", source
            )
        except GridlaneError:
            refused += 1
    assert (refused, len(errors_left())) == (3, before)
