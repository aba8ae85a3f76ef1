"""Spans as OpenTelemetry writes them (OTLP 1.x): what is sent to Reporting, whoever sends it.

Responsible for the form alone; sending is up to `span_export` in services and to the shim of a
payload. Reading is Reporting's.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gridlane_kit.telemetry import AttributeValue, FinishedSpan

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
"""The method that takes them."""


def otlp_request(spans: Sequence[FinishedSpan]) -> ExportTraceServiceRequest:
    """Returns ended spans as OpenTelemetry writes them, by the service that made them."""
    by_service: dict[str, list[Span]] = {}
    for span in spans:
        by_service.setdefault(span.service, []).append(_span(span))
    scope = InstrumentationScope(name="gridlane")
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=_pairs({"service.name": service})),
                scope_spans=[ScopeSpans(scope=scope, spans=made)],
            )
            for service, made in by_service.items()
        ]
    )


def _span(span: FinishedSpan) -> Span:
    return Span(
        trace_id=span.trace_id.to_bytes(16, "big"),
        span_id=span.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        name=span.name,
        kind=Span.SpanKind.ValueType(span.kind),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_pairs(span.attributes),
        status=Status(code=Status.STATUS_CODE_ERROR, message=span.error) if span.error else None,
        links=[
            Span.Link(trace_id=trace_id.to_bytes(16, "big"), span_id=span_id.to_bytes(8, "big"))
            for trace_id, span_id in span.links
        ],
    )


def _pairs(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: AttributeValue) -> AnyValue:
    # A bool is an int to Python, so it is asked first.
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return (
        AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)
    )
