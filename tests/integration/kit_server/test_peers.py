"""Calls between services: the same whether the peer is the next room or another process.

Most tests run both ways. What only the wire has (lost peers, retries, junk) is in
`test_wire_*`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Set
from types import SimpleNamespace
from typing import Any

import pytest
from integration.kit_server.served import Serve, Served, WirePeersOf

from gridlane.transfer.v1 import transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import CURRENT, Caller, later
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import Principal, service_principal
from gridlane_kit.peers import EDGES, ForbiddenEdgeError
from gridlane_kit.policy import Policy
from gridlane_kit.telemetry import FinishedSpan

SAMPLE = "gridlane.transfer.sample.v1.SampleService"
ADA = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))

StubOf = Callable[..., Any]


class Things:
    def __init__(self, messages: SimpleNamespace) -> None:
        self.m = messages
        self.calls: list[Any] = []
        self.kept: Any = None
        self.begun, self.left, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def GetThing(self, request: Any, call: Any) -> Any:
        self.calls.append(call)
        if request.name == "things/gone":
            raise errors.not_found(request.name)
        if request.name == "things/boom":
            raise RuntimeError("secret")
        if request.name == "things/slow":
            self.begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                self.left.set()
        request.name = "things/changed"
        self.kept = self.m.Thing(name="things/kept")
        return self.kept

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        self.calls.append(call)
        assert CURRENT.get() is call
        try:
            for count in range(3):
                yield self.m.Thing(count=count)
            if request.name == "things/boom":
                raise RuntimeError("secret")
        finally:
            self.closed.set()

    async def PutThings(self, requests: AsyncIterator[Any], call: Any) -> Any:
        return self.m.Thing(count=len([r async for r in requests]))


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


def caller_of(served: Served, principal: Principal = ADA, timeout_s: float | None = None) -> Caller:
    deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    return Caller(principal, deadline, served.pipeline.telemetry.root())


@pytest.fixture(params=["room", "wire"])
def stub_of(request: pytest.FixtureRequest, wire_peers: WirePeersOf) -> StubOf:
    """Returns the stub of the served sample, bound to a caller."""

    def stub_of(served: Served, caller: Caller, service: str = "workload") -> Any:
        if request.param == "room":
            peers = served.pipeline.peers_for(service)
        else:
            peers = wire_peers(served.server.address, service=service, spans=served.spans)
        return peers.stubs(SAMPLE)(caller)

    return stub_of


def lineage(spans: list[FinishedSpan], span_id: int) -> list[int]:
    """A span, the one above it, and so on to one that is not there."""
    parents = {span.span_id: span.parent_id for span in spans}
    found = [span_id]
    while found[-1] in parents:
        found.append(parents[found[-1]])
    return found


async def reason_of(awaitable: Any) -> ErrorReason:
    with pytest.raises(GridlaneError) as caught:
        await awaitable
    return caught.value.reason


async def test_a_peer_answers_on_behalf_of_the_caller_and_nothing_is_shared(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    caller = caller_of(served, timeout_s=10)
    request = messages.GetThingRequest(name="things/a")
    answer = await stub_of(served, caller).GetThing(request)
    assert answer.name == "things/kept"
    assert answer is not things.kept
    assert request.name == "things/a", "the callee changed its own copy"
    (call,) = things.calls
    assert (call.principal.owner, call.principal.actor) == (ADA.owner, "workload")
    assert call.deadline < caller.deadline
    assert call.trace.trace_id == caller.trace.trace_id
    assert lineage(served.spans, call.trace.span_id)[-1] == caller.trace.span_id
    assert CURRENT.get() is None


async def test_a_peer_decides_and_validates_like_over_the_wire(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    stub = stub_of(served, caller_of(served))
    good = messages.GetThingRequest(name="things/a")
    assert await reason_of(stub.GetThing(messages.GetThingRequest())) == "INVALID_FIELDS"
    assert await reason_of(stub.ForgetThing(good)) == "NOT_IMPLEMENTED"
    assert await reason_of(stub.GetThing(messages.GetThingRequest(name="things/gone"))) == (
        "NOT_FOUND"
    )
    served.policy.replace(Policy(2))
    assert await reason_of(stub.ForgetThing(good)) == "PERMISSION_DENIED"
    assert len(things.calls) == 1


async def test_a_defect_of_a_peer_is_internal_and_keeps_its_text(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    stub = stub_of(served, caller_of(served))
    with pytest.raises(GridlaneError) as caught:
        await stub.GetThing(messages.GetThingRequest(name="things/boom"))
    assert caught.value.reason == "INTERNAL"
    assert "secret" not in str(caught.value.to_status())


async def test_the_callers_deadline_ends_a_peers_handler(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    stub = stub_of(served, caller_of(served, timeout_s=0.2))
    slow = messages.GetThingRequest(name="things/slow")
    assert await asyncio.wait_for(reason_of(stub.GetThing(slow)), 5) == "DEADLINE_EXCEEDED"
    late = stub_of(served, caller_of(served, timeout_s=0))
    assert await reason_of(late.GetThing(slow)) == "DEADLINE_EXCEEDED"


async def test_a_callers_cancellation_reaches_the_peers_handler(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    slow = messages.GetThingRequest(name="things/slow")
    call = asyncio.ensure_future(stub_of(served, caller_of(served)).GetThing(slow))
    async with asyncio.timeout(10):
        await things.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        await things.left.wait()


async def test_a_peer_streams_both_ways(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    stub = stub_of(served, caller_of(served))
    request = messages.GetThingRequest(name="things/a")
    assert [t.count async for t in stub.WatchThings(request)] == [0, 1, 2]
    assert await asyncio.wait_for(things.closed.wait(), 10)

    async def requests() -> AsyncIterator[Any]:
        yield messages.CreateThingRequest(thing=messages.Thing(name="a"))
        yield messages.CreateThingRequest(thing=messages.Thing(name="b"))

    assert (await stub.PutThings(requests())).count == 2
    boom = messages.GetThingRequest(name="things/boom")
    seen: list[int] = []

    async def consume() -> None:
        async for thing in stub.WatchThings(boom):
            seen.append(thing.count)
            assert CURRENT.get() is None, "the callee's call is not the consumer's"

    assert await reason_of(consume()) == "INTERNAL"
    assert seen == [0, 1, 2]


async def test_a_stream_that_is_left_early_is_closed(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    request = messages.GetThingRequest(name="things/a")
    stream = aiter(stub_of(served, caller_of(served)).WatchThings(request))
    assert (await anext(stream)).count == 0
    await stream.aclose()
    assert await asyncio.wait_for(things.closed.wait(), 10)


async def test_a_step_taken_later_is_a_trace_of_its_own_linked_to_the_submission(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    telemetry = served.pipeline.telemetry
    submitted = telemetry.root()
    stored = Principal.from_json(ADA.to_json())
    with later(
        telemetry,
        "workload.stage_in",
        stored,
        timeout_s=5,
        submitted=submitted.traceparent,
        job_id="jobs/1",
    ) as caller:
        await stub_of(served, caller).GetThing(messages.GetThingRequest(name="things/a"))
    call, step = served.spans[0], served.spans[-1]
    assert step.name == "workload.stage_in"
    assert step.trace_id != submitted.trace_id
    assert step.links == ((submitted.trace_id, submitted.span_id),)
    assert step.attributes == {"gridlane.job.id": "jobs/1"}
    assert call.trace_id == step.trace_id
    assert lineage(served.spans, call.span_id)[-2] == step.span_id


async def test_a_service_that_acts_for_itself_is_known_as_itself(
    serve: Serve, things: Things, messages: SimpleNamespace, stub_of: StubOf
) -> None:
    served = await serve(things)
    stub = stub_of(served, caller_of(served, service_principal("workload")))
    request = messages.GetThingRequest(name="things/a")
    assert await reason_of(stub.GetThing(request)) == "PERMISSION_DENIED"


async def test_a_service_that_this_process_does_not_run_is_unavailable(
    serve: Serve, things: Things
) -> None:
    served = await serve(things)
    stub = served.pipeline.peers_for("workload").transfer_jobs(caller_of(served))
    with pytest.raises(GridlaneError) as caught:
        await stub.SubmitTransferJob(transfer_service_pb2.SubmitTransferJobRequest())
    assert (caught.value.reason, caught.value.metadata) == (
        "PEER_UNAVAILABLE",
        {"service": "transfer"},
    )


async def test_calls_wait_until_every_room_is_registered(
    messages: SimpleNamespace, things: Things
) -> None:
    from gridlane_kit.admission import Admission
    from gridlane_kit.metrics import Metrics
    from gridlane_kit.peers import LocalServices, Peers
    from gridlane_kit.plans import plan_service
    from gridlane_kit.policy import Binding, PolicyHolder, Role
    from gridlane_kit.steps import Steps
    from gridlane_kit.telemetry import Telemetry

    telemetry = Telemetry("test")
    admin = PolicyHolder(Policy(1, [Binding(ADA.issuer, "ada", Role.ADMIN)]))
    local = LocalServices(Steps(admin, telemetry, log_calls=False), 30)
    caller = Caller(ADA, None, telemetry.root())
    request = messages.GetThingRequest(name="things/a")
    call = asyncio.ensure_future(Peers("workload", local).stubs(SAMPLE)(caller).GetThing(request))
    await asyncio.sleep(0.05)
    assert not call.done()
    local.add(SAMPLE, plan_service(SAMPLE, things, Admission(), Metrics()))
    local.open()
    assert (await asyncio.wait_for(call, 5)).name == "things/kept"


@pytest.mark.parametrize(
    ("service", "allowed"),
    [
        ("gateway", {"authorization", "transfer", "workload", "reporting"}),
        ("reporting", {"authorization", "transfer", "workload"}),
        ("workload", {"authorization", "transfer"}),
        ("transfer", {"authorization"}),
        ("authorization", set()),
    ],
)
async def test_a_service_asks_only_the_peers_that_the_design_gives_it(
    service: str, allowed: Set[str], serve: Serve, things: Things
) -> None:
    served = await serve(things)
    peers = served.pipeline.peers_for(service)
    accessors = {name for name, value in vars(type(peers)).items() if isinstance(value, property)}
    assert {name.partition("_")[0] for name in accessors} == set(EDGES) - {"gateway"}
    for name in accessors:
        if name.partition("_")[0] in allowed:
            getattr(peers, name)
        else:
            with pytest.raises(ForbiddenEdgeError, match=service):
                getattr(peers, name)


def test_the_edges_have_no_cycle() -> None:
    seen: set[str] = set()
    while len(seen) < len(EDGES):
        free = {s for s, targets in EDGES.items() if s not in seen and targets <= seen}
        assert free, "a cycle"
        seen |= free
