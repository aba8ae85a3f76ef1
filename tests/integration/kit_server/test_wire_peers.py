"""Peers over the wire: who is believed, which deadline they get, and who may be called at all.

What they raise is `test_wire_failures`', what is tried again `test_wire_attempts`', streams are
`test_wire_streams`'.
"""

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from integration.kit_server.served import SAMPLE, Serve, SignerOf, WirePeersOf
from integration.kit_server.wire_things import Things, caller, failure_of, hangs

from gridlane_kit.channels import PlaintextError
from gridlane_kit.peers import EDGES, ForbiddenEdgeError, UnreachablePeerError
from gridlane_kit.telemetry import CLIENT_KIND, SERVER_KIND, FinishedSpan, Telemetry
from gridlane_kit.wire_peers import WirePeers

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


async def test_a_user_of_very_many_groups_is_believed_every_time(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    groups = [f"/local/{number:05}-{'x' * 40}" for number in range(205)]
    token = served.token(groups=groups)
    assert 15_000 < len(token) < 16_384
    request = messages.GetThingRequest(name="things/a")
    stubs = wire_peers(served.server.address).stubs(SAMPLE)
    for _ in range(20):
        await served.unary("GetThing", request, metadata=served.headers(token))
        theirs = things.calls[-1].principal
        await stubs(caller(principal=theirs)).GetThing(request)
        assert things.calls[-1].principal == theirs.on_behalf("workload")


async def test_a_peer_that_is_away_is_written_of_once(
    serve: Serve,
    things: Things,
    messages: SimpleNamespace,
    wire_peers: WirePeersOf,
    caplog: pytest.LogCaptureFixture,
    unused_tcp_port: int,
) -> None:
    peers = wire_peers(f"127.0.0.1:{unused_tcp_port}")
    request = messages.GetThingRequest(name="things/a")
    for _ in range(3):
        await failure_of(peers.stubs(SAMPLE)(caller(0.3)).GetThing(request))
    served = await serve(things, port=unused_tcp_port)
    assert served.server.address.endswith(f":{unused_tcp_port}")
    for _ in range(3):
        await peers.stubs(SAMPLE)(caller()).GetThing(request)
    lines = [r.getMessage() for r in caplog.records if r.name == "gridlane_kit.channels"]
    assert len(lines) == 2
    assert "does not answer" in lines[0]
    assert "answers again" in lines[1]


# --- deadlines ------------------------------------------------------------------------------------


async def test_a_peer_is_told_the_callers_deadline_less_a_margin(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    request = messages.GetThingRequest(name="things/a")
    stubs = wire_peers(served.server.address, default_deadline_s=5).stubs(SAMPLE)
    await stubs(caller(2)).GetThing(request)
    await stubs(caller(100)).GetThing(request)
    await stubs(caller(None)).GetThing(request)
    short, long, none = things.remaining
    assert 1 < short < 2 - 0.01
    assert 4 < long < 5.1
    assert 4 < none < 5.1


async def test_a_peer_that_hangs_is_a_deadline_that_passed(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    things.script = [hangs()]
    begun = time.monotonic()
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(0.5))
    failure = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert failure.reason == "DEADLINE_EXCEEDED"
    assert time.monotonic() - begun < 3


# --- traces, ends, and who may be called ----------------------------------------------------------


async def test_a_trace_goes_on_from_the_caller_through_the_wire(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stub = wire_peers(served.server.address, spans=served.spans).stubs(SAMPLE)
    asking = caller()
    await stub(asking).GetThing(messages.GetThingRequest(name="things/a"))
    inner, outer = served.spans
    assert (inner.kind, outer.kind) == (SERVER_KIND, CLIENT_KIND)
    assert (inner.name, outer.name) == (f"{SAMPLE}/GetThing",) * 2
    assert (outer.service, outer.attributes["rpc.grpc.status"]) == ("workload", "OK")
    assert inner.trace_id == outer.trace_id == asking.trace.trace_id
    assert (inner.parent_id, outer.parent_id) == (outer.span_id, asking.trace.span_id)
    unsampled = caller()
    unsampled.trace.sampled = False
    await stub(unsampled).GetThing(messages.GetThingRequest(name="things/a"))
    assert len(served.spans) == 2


async def test_a_call_that_the_stop_ends_is_a_peer_that_does_not_answer(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    things.script = [hangs()]
    peers = wire_peers(served.server.address)
    stub = peers.stubs(SAMPLE)(caller())
    request = messages.GetThingRequest(name="things/a")
    under_way = asyncio.ensure_future(failure_of(stub.GetThing(request)))
    while not things.calls:
        await asyncio.sleep(0.01)
    await peers.close()
    assert (await under_way).reason == "PEER_UNAVAILABLE"
    assert (await failure_of(stub.GetThing(request))).reason == "PEER_UNAVAILABLE"


async def test_peers_in_this_process_are_called_without_a_wire(
    serve: Serve, things: Things, messages: SimpleNamespace, signer_of: SignerOf
) -> None:
    served = await serve(things)
    spans: list[FinishedSpan] = []
    peers = WirePeers(
        "workload",
        {"authorization": "127.0.0.1:1"},
        signer_of("workload"),
        None,
        Telemetry("workload", sinks=[spans.append]),
        local=served.pipeline.local,
    )
    stub = peers.stubs(SAMPLE)(caller())
    assert (await stub.GetThing(messages.GetThingRequest(name="things/a"))).name == "things/a"
    assert not spans
    assert peers.authorization(caller()) is not None
    await peers.close()


@pytest.mark.parametrize("service", EDGES)
def test_only_the_edges_of_the_design_can_be_called(service: str, signer_of: SignerOf) -> None:
    everywhere = dict.fromkeys(EDGES, "127.0.0.1:1")
    peers = WirePeers(service, everywhere, signer_of(service), None, Telemetry(service))
    accessors = [
        name for name, value in vars(WirePeers.__base__).items() if isinstance(value, property)
    ]
    assert accessors
    for name in accessors:
        if name.partition("_")[0] in EDGES[service]:
            assert getattr(peers, name)
        else:
            with pytest.raises(ForbiddenEdgeError):
                getattr(peers, name)


def test_a_missing_address_is_seen_at_start(signer_of: SignerOf) -> None:
    peers = WirePeers("workload", {}, signer_of("workload"), None, Telemetry("workload"))
    with pytest.raises(UnreachablePeerError, match="GRIDLANE_PEERS__TRANSFER"):
        _ = peers.transfer_jobs


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:///127.0.0.1:1,127.0.0.2:2", True),
        ("transfer:1", False),
        ("dns:///transfer.example.org:1", False),
        ("dns://127.0.0.1/transfer:1", False),
        ("ipv4:///127.0.0.1:1,10.0.0.1:2", False),
    ],
)
def test_plaintext_does_not_leave_the_machine(
    address: str, allowed: bool, signer_of: SignerOf
) -> None:
    refused = pytest.raises(PlaintextError, match="is not loopback")
    with contextlib.nullcontext() if allowed else refused:
        WirePeers(
            "workload", {"transfer": address}, signer_of("workload"), None, Telemetry("workload")
        )


async def test_calls_go_to_all_replicas_in_turn(
    messages: SimpleNamespace, wire_peers: WirePeersOf, serve: Serve
) -> None:
    async with AsyncExitStack():
        first, second = Things(messages), Things(messages)
        ports = [
            (await serve(replica)).server.address.rpartition(":")[2] for replica in (first, second)
        ]
        address = "ipv4:///" + ",".join(f"127.0.0.1:{port}" for port in ports)
        stub = wire_peers(address).stubs(SAMPLE)(caller())
        request = messages.GetThingRequest(name="things/a")
        while not (first.calls and second.calls):  # until both are connected
            await stub.GetThing(request)
        first.calls.clear()
        second.calls.clear()
        for _ in range(10):
            await stub.GetThing(request)
        assert (len(first.calls), len(second.calls)) == (5, 5)
