"""Peers over the wire that fail: what they raise, and who answers in a peer's place."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import aio
from integration.kit_server.served import SAMPLE, Serve, SignerOf, WirePeersOf
from integration.kit_server.wire_things import ADA, Things, caller, fails, failure_of

from gridlane_kit import assertions, errors
from gridlane_kit.peers import reading
from gridlane_kit.telemetry import FinishedSpan
from gridlane_kit.tokens import new_key
from gridlane_kit.wire import MAX_MESSAGE_BYTES
from gridlane_kit.wire_peers import ATTEMPTS

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


async def test_an_error_of_a_peer_arrives_with_all_that_it_says(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
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
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    newer: Any = errors.revision_conflict("jobs/1")
    newer.reason = SimpleNamespace(value="SOMETHING_NEW")
    things.script = [fails(newer)]
    stub = wire_peers(served.server.address).stubs(SAMPLE)(caller())
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert (got.code, got.message) == (grpc.StatusCode.ABORTED, newer.message)


async def test_a_peer_that_does_not_believe_the_service_is_one_that_does_not_answer(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    served = await serve(things)
    stranger = assertions.AssertionSigner("workload", new_key())
    stub = wire_peers(served.server.address, signer=stranger).stubs(SAMPLE)(caller())
    got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert (got.reason, got.metadata) == ("PEER_UNAVAILABLE", {"service": "transfer"})
    assert not things.calls


async def test_an_assertion_that_the_peer_takes_no_longer_is_signed_anew(
    serve: Serve,
    things: Things,
    messages: SimpleNamespace,
    wire_peers: WirePeersOf,
    signer_of: SignerOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    serve: Serve,
    things: Things,
    messages: SimpleNamespace,
    wire_peers: WirePeersOf,
    signer_of: SignerOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


async def test_a_request_that_is_too_large_is_refused_here(
    serve: Serve, things: Things, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
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
    raw: bytes, close: bool, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
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


async def test_what_is_no_message_of_the_contract_is_no_answer(
    messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
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
    code: grpc.StatusCode, reason: str, messages: SimpleNamespace, wire_peers: WirePeersOf
) -> None:
    async def GetThing(raw: bytes, context: Any) -> bytes:
        await context.abort(code, "secret text of a stranger")
        return b""

    async with stranger(GetThing) as address:
        stub = wire_peers(address).stubs(SAMPLE)(caller(1))
        got = await failure_of(stub.GetThing(messages.GetThingRequest(name="things/a")))
    assert got.reason == reason
    assert "secret" not in str(got.to_status())
