"""The payload's span, sent by a real shim to a real OTLP/gRPC receiver."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gridlane.ids import uuid7
from gridlane_workload.backends.embedded.runner import EmbeddedBackend
from gridlane_workload.backends.interface import Attempt, Command, Observation, Standing, Work
from gridlane_workload.settings import WorkloadSettings

TRACE, PARENT = "a" * 32, "b" * 16


class Receiver:
    """Takes spans, with the token that each came with."""

    def __init__(self) -> None:
        self.taken: list[tuple[Span, str]] = []
        self.address = ""

    async def export(
        self, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        token = dict(context.invocation_metadata())["authorization"]
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.taken += [(span, token) for span in scope.spans]
        return ExportTraceServiceResponse()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        made.export,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    server.add_registered_method_handlers(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": handler}
    )
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield made
    await server.stop(None)


async def ended(
    jobs: Path, address: str, command: list[str], flags: str = "01"
) -> tuple[Attempt, Observation]:
    """Runs a payload until its shim has ended."""
    told = asyncio.Event()
    backend = EmbeddedBackend(WorkloadSettings(), jobs, lambda: address)
    await backend.open(lambda job: told.set())
    attempt = Attempt(uuid7(), 2)
    await backend.prepare(attempt, ())
    traceparent = f"00-{TRACE}-{PARENT}-{flags}"
    work = Work([Command(command, {})], 60, 0, 0, "the job's own", traceparent)
    await backend.start(attempt, work)
    async with asyncio.timeout(20):
        await told.wait()
    seen = await backend.observe(attempt)
    await backend.close()
    return attempt, seen


async def test_the_span_tells_the_payloads_time_under_the_span_that_started_it(
    receiver: Receiver, tmp_path: Path
) -> None:
    script = "echo $TRACEPARENT; sleep 0.2"
    attempt, seen = await ended(tmp_path, receiver.address, ["sh", "-c", script])
    ((span, token),) = receiver.taken
    assert token == "Bearer the job's own"
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("payload", TRACE, PARENT)
    attributes = {pair.key: pair.value for pair in span.attributes}
    assert attributes["gridlane.job.id"].string_value == attempt.job
    assert attributes["gridlane.job.attempt"].int_value == 2
    assert seen.start_us is not None
    assert span.start_time_unix_nano == seen.start_us * 1000
    assert span.end_time_unix_nano - span.start_time_unix_nano >= 0.2e9
    said = (tmp_path / attempt.job / "2" / "stdout.txt").read_text().strip()
    assert said == f"00-{TRACE}-{span.span_id.hex()}-01", "the payload is told its own span"


async def test_a_bad_end_marks_the_span(receiver: Receiver, tmp_path: Path) -> None:
    await ended(tmp_path, receiver.address, ["sh", "-c", "exit 3"])
    ((span, _),) = receiver.taken
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message == "exit code 3"


async def test_an_unsampled_trace_sends_nothing(receiver: Receiver, tmp_path: Path) -> None:
    await ended(tmp_path, receiver.address, ["true"], flags="00")
    assert receiver.taken == []


async def test_a_receiver_that_is_away_harms_nothing(tmp_path: Path) -> None:
    attempt, seen = await ended(tmp_path, "127.0.0.1:1", ["true"])
    assert seen.standing is Standing.ENDED
    log = (tmp_path / attempt.job / "2" / "shim.log").read_text()
    assert "the span was not taken" in log
    assert "the job's own" not in log
