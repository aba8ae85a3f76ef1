"""Attempts made again over the wire: which calls, how often, and until when."""

import time
from types import SimpleNamespace

import pytest
from google.rpc import error_details_pb2
from integration.kit_server.served import SAMPLE, Serve, WirePeersOf
from integration.kit_server.wire_things import Things, caller, fails, failure_of

from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError
from gridlane_kit.telemetry import CLIENT_KIND, FinishedSpan
from gridlane_kit.wire_peers import ATTEMPTS

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


async def test_a_call_that_may_be_repeated_is_until_it_is_answered(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    things.script = [fails(errors.store_unavailable()), fails(errors.peer_unavailable("x"))]
    spans: list[FinishedSpan] = []
    stub = wire_peers(served.server.address, spans=spans).stubs(SAMPLE)(caller())
    begun = time.monotonic()
    assert (await stub.GetThing(messages.GetThingRequest(name="things/a"))).name == "things/a"
    assert len(things.calls) == 3
    assert [(span.kind, span.attributes[ATTEMPTS]) for span in spans] == [(CLIENT_KIND, 3)]
    assert time.monotonic() - begun >= 2, "each asked to be left alone for a second"


async def test_only_what_passes_is_tried_again(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    for raised in (errors.not_found("a"), errors.overloaded("unary", 0), errors.internal("0")):
        things.calls.clear()
        things.script = [fails(raised)]
        got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
        assert (got.reason, len(things.calls)) == (raised.reason, 1)


async def test_a_creation_is_repeated_under_its_request_id_alone(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    request = messages.CreateThingRequest(thing=messages.Thing(name="a"))
    away = GridlaneError(errors.ErrorReason.STORE_UNAVAILABLE, "away")
    things.script = [fails(away)]
    assert (await failure_of(stub.CreateThing(request))).reason == "STORE_UNAVAILABLE"
    assert len(things.calls) == 1
    request.request_id = "01930000-0000-7000-8000-000000000000"
    things.script = [fails(away)]
    await stub.CreateThing(request)
    assert len(things.calls) == 3


async def test_a_pause_that_outlasts_the_deadline_is_not_waited_for(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    things.script = [fails(errors.store_unavailable())]  # asks for a second
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(0.8))
    begun = time.monotonic()
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert got.reason == "STORE_UNAVAILABLE"
    assert [d for d in got.details if isinstance(d, error_details_pb2.RetryInfo)]
    assert time.monotonic() - begun < 0.7


async def test_a_peer_that_is_not_there_is_unavailable_before_the_deadline(
    messages: SimpleNamespace, wire_peers: WirePeersOf, unused_tcp_port: int
) -> None:
    stub = wire_peers(f"127.0.0.1:{unused_tcp_port}").stubs(SAMPLE)(caller(1))
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert (got.reason, got.metadata) == ("PEER_UNAVAILABLE", {"service": "transfer"})
    got = await failure_of(anext(aiter(stub.WatchThings(messages.GetThingRequest(name="x")))))
    assert got.reason == "PEER_UNAVAILABLE"
