"""Spans on their way to Reporting: nobody waits for it, and what can be kept comes later."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from gridlane_kit import span_export
from gridlane_kit.assertions import AssertionSigner, AssertionVerifier, service_jwks
from gridlane_kit.channels import PeerChannel
from gridlane_kit.identity import service_principal
from gridlane_kit.span_export import SpanExport
from gridlane_kit.telemetry import FinishedSpan
from gridlane_kit.tokens import new_key

KEY = new_key()
Export = Callable[[], SpanExport]


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Stands for Reporting; may be away."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.batches: list[int] = []
        self.port = 0
        self._verifier = AssertionVerifier("reporting", service_jwks({"transfer": KEY}))
        self._server: aio.Server | None = None

    async def come(self) -> None:
        self._server = aio.server(options=(("grpc.so_reuseport", 0),))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self, self._server
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def go(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext,  # type: ignore[type-arg]
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        header = dict(context.invocation_metadata() or ())["authorization"]
        proof = await self._verifier.prove(str(header).removeprefix("Bearer "))
        assert proof.principal == service_principal("transfer")
        spans = [s for g in request.resource_spans for scope in g.scope_spans for s in scope.spans]
        self.batches.append(len(spans))
        self.names += [span.name for span in spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.come()
    yield made
    await made.go()


@pytest.fixture
async def export(receiver: Receiver) -> AsyncIterator[SpanExport]:
    channel = PeerChannel(f"127.0.0.1:{receiver.port}", None)
    made = SpanExport(channel, AssertionSigner("transfer", KEY))
    await made.start()
    yield made
    await made.stop()


def span(name: str) -> FinishedSpan:
    return FinishedSpan(1, 1, 0, name, 1, 1, 2, "transfer", {})


async def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


async def test_spans_arrive_in_their_order_in_batches(
    receiver: Receiver, export: SpanExport
) -> None:
    names = [f"span {n}" for n in range(2 * span_export.BATCH_SPANS + 1)]
    for name in names:
        export.accept(span(name))
    await until(lambda: len(receiver.names) == len(names))
    assert receiver.names == names
    assert receiver.batches == [span_export.BATCH_SPANS, span_export.BATCH_SPANS, 1]


async def test_spans_wait_while_the_receiver_is_away_and_come_once(
    receiver: Receiver, export: SpanExport
) -> None:
    await receiver.go()
    export.accept(span("early"))
    await asyncio.sleep(1)
    assert len(export) == 1
    await receiver.come()
    export.accept(span("late"))
    await until(lambda: len(receiver.names) == 2)
    assert receiver.names == ["early", "late"]


async def test_the_oldest_make_room_and_nobody_waits(
    receiver: Receiver, export: SpanExport
) -> None:
    await receiver.go()
    begun = time.monotonic()
    for n in range(span_export.QUEUE_SPANS + 10):
        export.accept(span(str(n)))
    assert time.monotonic() - begun < 1
    assert len(export) == span_export.QUEUE_SPANS
    await receiver.come()
    await until(lambda: len(receiver.names) == span_export.QUEUE_SPANS)
    assert receiver.names[0] == "10"


async def test_a_process_that_ends_sends_what_it_has(
    receiver: Receiver, export: SpanExport
) -> None:
    export.accept(span("last"))
    await export.stop()
    assert receiver.names == ["last"]


async def test_a_process_that_ends_does_not_wait_for_a_receiver_that_is_away(
    receiver: Receiver, export: SpanExport
) -> None:
    await receiver.go()
    export.accept(span("lost"))
    begun = time.monotonic()
    await export.stop()
    assert time.monotonic() - begun < span_export.LAST_DEADLINE_S + 1
