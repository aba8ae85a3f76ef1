"""Peers over the wire: what a service sees of one that is away, slow, or not itself."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from gridlane_kit import assertions, errors
from gridlane_kit.call import Caller
from gridlane_kit.channels import PlaintextError
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.peers import EDGES, ForbiddenEdgeError, UnreachablePeerError, reading
from gridlane_kit.telemetry import CLIENT_KIND, SERVER_KIND, FinishedSpan, Telemetry
from gridlane_kit.tokens import new_key
from gridlane_kit.wire import MAX_MESSAGE_BYTES
from gridlane_kit.wire_peers import ATTEMPTS, WirePeers

SAMPLE = "gridlane.transfer.sample.v1.SampleService"
ADA = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))
LIMIT_S = 15


@pytest.fixture(autouse=True)
async def _limit() -> AsyncIterator[None]:
    async with asyncio.timeout(60):
        yield


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


@pytest.fixture
def things(messages) -> Things:
    return Things(messages)


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


async def test_a_user_of_very_many_groups_is_believed_every_time(
    serve, things, messages, wire_peers
):
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
    serve, things, messages, wire_peers, caplog, unused_tcp_port
):
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
    serve, things, messages, wire_peers
):
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


async def test_a_peer_that_hangs_is_a_deadline_that_passed(serve, things, messages, wire_peers):
    served = await serve(things)
    things.script = [hangs()]
    begun = time.monotonic()
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(0.5))
    failure = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert failure.reason == "DEADLINE_EXCEEDED"
    assert time.monotonic() - begun < 3


# --- what a peer raises ---------------------------------------------------------------------------


async def test_an_error_of_a_peer_arrives_with_all_that_it_says(
    serve, things, messages, wire_peers
):
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    request = messages.GetThingRequest(name="things/a")
    for raised in (
        errors.not_found("things/a"),
        errors.invalid([("thing.name", "expected a name")]),
        errors.overloaded("unary", 2.5),
        errors.illegal_transition("jobs/1", "DONE", "RUNNING"),
        errors.no_space("a"),
        errors.checksum_mismatch("ADLER32:1", "ADLER32:2"),
    ):
        things.script = [fails(raised)]
        got = await failure_of(stub.GetThing(request))
        assert (got.reason, got.code, got.message) == (raised.reason, raised.code, raised.message)
        assert got.metadata == raised.metadata
        assert list(got.details) == list(raised.details)


async def test_a_reason_of_a_newer_version_is_what_its_code_says(
    serve, things, messages, wire_peers
):
    served = await serve(things)
    newer = errors.revision_conflict("jobs/1")
    newer.reason = SimpleNamespace(value="SOMETHING_NEW")
    things.script = [fails(newer)]
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert (got.code, got.message) == (grpc.StatusCode.ABORTED, newer.message)


async def test_a_peer_that_does_not_believe_the_service_is_one_that_does_not_answer(
    serve, things, messages, wire_peers
):
    served = await serve(things)
    stranger = assertions.AssertionSigner("workload", new_key())
    stub = wire_peers(served.server.address, signer=stranger).stubs(SAMPLE)(caller())
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert (got.reason, got.metadata) == ("PEER_UNAVAILABLE", {"service": "transfer"})
    assert not things.calls


async def test_an_assertion_that_the_peer_takes_no_longer_is_signed_anew(
    serve, things, messages, wire_peers, signer_of, monkeypatch
):
    served = await serve(things)
    signer = signer_of("workload")
    now = time.time()
    with monkeypatch.context() as earlier:
        earlier.setattr(time, "time", lambda: now - 100)
        signer.header(ADA, "transfer")
    monkeypatch.setattr(assertions, "REUSE_S", 3600)
    spans: list[FinishedSpan] = []
    stub = wire_peers(served.server.address, signer=signer, spans=spans).stubs(SAMPLE)(caller())
    assert (await stub.GetThing(messages.GetThingRequest(name="things/a"))).name == "things/a"
    assert [span.attributes[ATTEMPTS] for span in spans] == [2]


async def test_a_stream_that_the_peer_did_not_take_is_taken_at_the_readers_next_try(
    serve, things, messages, wire_peers, signer_of, monkeypatch
):
    served = await serve(things)
    signer = signer_of("workload")
    now = time.time()
    with monkeypatch.context() as earlier:
        earlier.setattr(time, "time", lambda: now - 100)
        signer.header(ADA, "transfer")
    monkeypatch.setattr(assertions, "REUSE_S", 3600)
    stub = wire_peers(served.server.address, signer=signer).stubs(SAMPLE)(caller())
    request = messages.GetThingRequest(name="things/a")
    refused = await failure_of(anext(aiter(stub.WatchThings(request))))
    assert refused.reason == "PEER_UNAVAILABLE"
    async with reading(stub.WatchThings(request)) as pages:
        assert (await anext(pages)).count == 0


async def test_a_request_that_is_too_large_is_refused_here(serve, things, messages, wire_peers):
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    request = messages.GetThingRequest(name="x" * MAX_MESSAGE_BYTES)
    assert (await failure_of(stub.GetThing(request))).reason == "INVALID_FIELDS"


# --- who answers junk -----------------------------------------------------------------------------

JUNK = {
    "random": bytes(range(256)) * 8,
    "http 1": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno",
    "frames of nothing": b"\0\0\0\4\0\0\0\0\0" + b"\xff" * 200,
    "nothing": b"",
}


@contextlib.asynccontextmanager
async def answering(raw: bytes, *, close: bool) -> AsyncIterator[str]:
    """A TCP server that says one thing to whatever it is asked."""
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(raw)
            await writer.drain()
            if not close:
                await done.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done.set()


@pytest.mark.parametrize("raw", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("close", [True, False], ids=["then leaves", "and stays"])
async def test_a_peer_that_answers_junk_is_one_that_does_not_answer(
    raw, close, messages, wire_peers
):
    async with answering(raw, close=close) as address:
        stub = wire_peers(address).stubs(SAMPLE)(caller(1.5))
        begun = time.monotonic()
        got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
        silent = not raw and not close
        assert got.reason == ("DEADLINE_EXCEEDED" if silent else "PEER_UNAVAILABLE")
        assert time.monotonic() - begun < 4
        stream = stub.WatchThings(messages.GetThingRequest(name="things/a"))
        got = await failure_of(anext(aiter(stream)))
        assert got.reason in ("PEER_UNAVAILABLE", "DEADLINE_EXCEEDED")


@contextlib.asynccontextmanager
async def stranger(serve: Any) -> AsyncIterator[str]:
    """A gRPC server that is none of Gridlane's."""
    server = aio.server()
    makers = {
        "GetThing": grpc.unary_unary_rpc_method_handler,
        "WatchThings": grpc.unary_stream_rpc_method_handler,
    }
    server.add_registered_method_handlers(
        SAMPLE, {name: make(serve) for name, make in makers.items() if name == serve.__name__}
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_what_is_no_message_of_the_contract_is_no_answer(messages, wire_peers):
    async def GetThing(raw: bytes, context: Any) -> bytes:
        return b"\xff\xff\xff"

    async def WatchThings(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"\xff\xff\xff"

    request = messages.GetThingRequest(name="things/a")
    async with stranger(GetThing) as address:
        stub = wire_peers(address).stubs(SAMPLE)(caller(1))
        assert (await failure_of(stub.GetThing(request))).reason == "PEER_UNAVAILABLE"
    async with stranger(WatchThings) as address:
        stub = wire_peers(address).stubs(SAMPLE)(caller(1))
        got = await failure_of(anext(aiter(stub.WatchThings(request))))
        assert got.reason == "PEER_UNAVAILABLE"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNKNOWN, "PEER_UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "PEER_UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, "PEER_UNAVAILABLE"),
        (grpc.StatusCode.PERMISSION_DENIED, "PEER_UNAVAILABLE"),
        (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_status_that_is_not_gridlanes_keeps_its_text_to_itself(
    code, reason, messages, wire_peers
):
    async def GetThing(raw: bytes, context: Any) -> bytes:
        await context.abort(code, "secret text of a stranger")
        return b""

    async with stranger(GetThing) as address:
        stub = wire_peers(address).stubs(SAMPLE)(caller(1))
        got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert got.reason == reason
    assert "secret" not in str(got.to_status())


# --- attempts made again --------------------------------------------------------------------------


async def test_a_call_that_may_be_repeated_is_until_it_is_answered(
    serve, things, messages, wire_peers
):
    served = await serve(things)
    things.script = [fails(errors.store_unavailable()), fails(errors.peer_unavailable("x"))]
    spans: list[FinishedSpan] = []
    stub = wire_peers(served.server.address, spans=spans).stubs(SAMPLE)(caller())
    begun = time.monotonic()
    assert (await stub.GetThing(messages.GetThingRequest(name="things/a"))).name == "things/a"
    assert len(things.calls) == 3
    assert [(span.kind, span.attributes[ATTEMPTS]) for span in spans] == [(CLIENT_KIND, 3)]
    assert time.monotonic() - begun >= 2, "each asked to be left alone for a second"


async def test_only_what_passes_is_tried_again(serve, things, messages, wire_peers):
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    for raised in (errors.not_found("a"), errors.overloaded("unary", 0), errors.internal("0")):
        things.calls.clear()
        things.script = [fails(raised)]
        got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
        assert (got.reason, len(things.calls)) == (raised.reason, 1)


async def test_a_creation_is_repeated_under_its_request_id_alone(
    serve, things, messages, wire_peers
):
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
    serve, things, messages, wire_peers
):
    served = await serve(things)
    things.script = [fails(errors.store_unavailable())]  # asks for a second
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(0.8))
    begun = time.monotonic()
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert got.reason == "STORE_UNAVAILABLE"
    assert [d for d in got.details if isinstance(d, error_details_pb2.RetryInfo)]
    assert time.monotonic() - begun < 0.7


async def test_a_peer_that_is_not_there_is_unavailable_before_the_deadline(
    messages, wire_peers, unused_tcp_port
):
    stub = wire_peers(f"127.0.0.1:{unused_tcp_port}").stubs(SAMPLE)(caller(1))
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert (got.reason, got.metadata) == ("PEER_UNAVAILABLE", {"service": "transfer"})
    got = await failure_of(anext(aiter(stub.WatchThings(messages.GetThingRequest(name="x")))))
    assert got.reason == "PEER_UNAVAILABLE"


# --- streams --------------------------------------------------------------------------------------


async def test_whoever_leaves_a_stream_closes_it_at_the_peer(serve, things, messages, wire_peers):
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
    serve, things, messages, wire_peers
):
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))):
        pass
    assert not things.calls


async def test_a_reader_who_is_cancelled_leaves_the_stream(serve, things, messages, wire_peers):
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


async def test_a_stream_that_is_cut_says_where_to_resume(serve, things, messages, wire_peers):
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller(None))
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))) as pages:
        assert [(await anext(pages)).count for _ in range(10)] == list(range(10))
        served.pipeline.drain_streams()
        cut = await failure_of(anext(pages))
    assert cut.reason == "DRAINING"
    assert cut.metadata["resume_token"] == "9"


async def test_bytes_go_up_and_are_cut_off_with_whoever_sends_them(
    serve, things, messages, wire_peers
):
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


async def test_whoever_sends_sees_why_it_is_refused(serve, things, messages, wire_peers):
    served = await serve(things, roles=())
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())

    async def requests() -> AsyncIterator[Any]:
        for _ in range(1000):
            yield messages.CreateThingRequest(thing=messages.Thing(name="a"))

    assert (await failure_of(stub.PutThings(requests()))).reason == "PERMISSION_DENIED"


async def test_a_chat_goes_both_ways(serve, things, messages, wire_peers):
    served = await serve(things)
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())

    async def requests() -> AsyncIterator[Any]:
        for name in "ab":
            yield messages.CreateThingRequest(thing=messages.Thing(name=name))

    async with reading(stub.ChatThings(requests())) as answers:
        assert [thing.name async for thing in answers] == ["a", "b"]


# --- traces, ends, and who may be called ----------------------------------------------------------


async def test_a_trace_goes_on_from_the_caller_through_the_wire(
    serve, things, messages, wire_peers
):
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
    serve, things, messages, wire_peers
):
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


async def test_peers_in_this_process_are_called_without_a_wire(serve, things, messages, signer_of):
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
    assert peers.authorization(caller())
    await peers.close()


@pytest.mark.parametrize("service", EDGES)
def test_only_the_edges_of_the_design_can_be_called(service, signer_of):
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


def test_a_missing_address_is_seen_at_start(signer_of):
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
def test_plaintext_does_not_leave_the_machine(address, allowed, signer_of):
    def make() -> WirePeers:
        return WirePeers(
            "workload", {"transfer": address}, signer_of("workload"), None, Telemetry("workload")
        )

    if allowed:
        assert make()
    else:
        with pytest.raises(PlaintextError, match="is not loopback"):
            make()


async def test_calls_go_to_all_replicas_in_turn(messages, wire_peers, serve):
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
