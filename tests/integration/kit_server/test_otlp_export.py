"""Spans reach a collector over OTLP/gRPC, with their parents, links and errors."""

import asyncio
import contextlib
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from gridlane_kit.telemetry import Telemetry, TraceContext

EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


async def test_spans_reach_a_collector_before_the_process_ends() -> None:
    received: list[Any] = []

    async def export(request: Any, context: Any) -> Any:
        received.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    collector = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        export,
        trace_service_pb2.ExportTraceServiceRequest.FromString,
        trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    collector.add_registered_method_handlers(EXPORT, {"Export": handler})
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()

    telemetry = Telemetry("gridlane-test", otlp_endpoint=f"127.0.0.1:{port}")
    cause = telemetry.root()
    traces: list[TraceContext] = []
    with (
        contextlib.suppress(LookupError),
        telemetry.root_span("outer", {"n": 3}, links=[cause]) as outer,
    ):
        traces.append(outer.trace)
        with telemetry.span(outer.trace, "inner"):
            pass
        raise LookupError("not told")
    await asyncio.wait_for(asyncio.to_thread(telemetry.close), 20)
    await collector.stop(None)

    (resource_spans,) = [r for request in received for r in request.resource_spans]
    names = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
    assert names["service.name"] == "gridlane-test"
    spans = {s.name: s for scope in resource_spans.scope_spans for s in scope.spans}
    assert set(spans) == {"outer", "inner"}
    assert spans["inner"].trace_id == spans["outer"].trace_id
    assert spans["inner"].parent_span_id == spans["outer"].span_id
    assert spans["outer"].trace_id == traces[0].trace_id.to_bytes(16, "big")
    assert [link.trace_id for link in spans["outer"].links] == [cause.trace_id.to_bytes(16, "big")]
    assert spans["outer"].status.message == "LookupError"
    assert spans["outer"].attributes[0].value.int_value == 3
