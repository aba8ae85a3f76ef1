"""Streams over the wire: whoever leaves one closes it, and one that is cut can be resumed."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from integration.kit_server.served import SAMPLE, Serve, WirePeersOf
from integration.kit_server.wire_things import Things, caller, failure_of

from gridlane_kit.peers import reading
from gridlane_kit.telemetry import CLIENT_KIND, FinishedSpan

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


async def test_whoever_leaves_a_stream_closes_it_at_the_peer(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    spans: list[FinishedSpan] = []
    stub = wire_peers(served.server.address, spans=spans).stubs(SAMPLE)(caller(None))
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))) as pages:
        async for thing in pages:
            if thing.count == 3:
                break
        assert not things.closed.is_set()
    await things.closed.wait()
    assert [(s.kind, s.error) for s in spans] == [(CLIENT_KIND, "CANCELLED")]
    with pytest.raises(StopAsyncIteration):
        await anext(pages)
    (call,) = things.calls
    assert call.deadline is None, "a stream without a deadline has none at the peer"


async def test_a_stream_that_nobody_began_to_read_costs_nothing(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))):
        pass
    assert not things.calls


async def test_a_reader_who_is_cancelled_leaves_the_stream(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(None))

    async def read() -> None:
        async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))) as pages:
            async for _ in pages:
                pass

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await read()
    await things.closed.wait()


async def test_a_stream_that_is_cut_says_where_to_resume(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(None))
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))) as pages:
        assert [(await anext(pages)).count for _ in range(10)] == list(range(10))
        served.pipeline.drain_streams()
        cut = await failure_of(anext(pages))
    assert cut.reason == "DRAINING"
    assert cut.metadata["resume_token"] == "9"


async def test_bytes_go_up_and_are_cut_off_with_whoever_sends_them(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())

    class SourceBrokenError(Exception):
        pass

    async def requests(broken: bool) -> AsyncIterator[Any]:
        for name in "abc":
            yield messages.CreateThingRequest(thing=messages.Thing(name=name))
        if broken:
            raise SourceBrokenError

    assert (await stub.PutThings(requests(False))).count == 3
    things.closed.clear()
    with pytest.raises(SourceBrokenError):
        await stub.PutThings(requests(True))
    await things.closed.wait()


async def test_whoever_sends_sees_why_it_is_refused(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things, roles=())
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())

    async def requests() -> AsyncIterator[Any]:
        for _ in range(1000):
            yield messages.CreateThingRequest(thing=messages.Thing(name="a"))

    assert (await failure_of(stub.PutThings(requests()))).reason == "PERMISSION_DENIED"


async def test_a_chat_goes_both_ways(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())

    async def requests() -> AsyncIterator[Any]:
        for name in "ab":
            yield messages.CreateThingRequest(thing=messages.Thing(name=name))

    async with reading(stub.ChatThings(requests())) as answers:
        assert [thing.name async for thing in answers] == ["a", "b"]
