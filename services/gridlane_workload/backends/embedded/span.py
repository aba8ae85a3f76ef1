"""The payload's span, sent by the shim with the job's own token.

Responsible for one OTLP/gRPC export (opentelemetry-proto 1.x, `TraceService/Export`) and nothing
else: no batching, no retry. Imported by the shim only after the payload has ended.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gridlane.configuration import is_loopback, parse_addresses

_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_DEADLINE_S: Final = 2.0


def send(job: dict[str, Any], token: str, error: str, started_us: int, ended_us: int) -> None:
    """Send the payload's span to Reporting.

    Parameters:
        job: what `job.json` says: addresses, traceparent of the payload, parent span, job, attempt.
        token: the job's own.
        error: how it ended badly; empty when well.
        started_us, ended_us: microseconds since 1970-01-01 UTC.

    Raises:
        grpc.RpcError: the server did not take it within two seconds.
    """
    _, trace_id, span_id, flags = job["environment"]["TRACEPARENT"].split("-")
    if not int(flags, 16) & 1:
        return
    span = Span(
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(span_id),
        parent_span_id=bytes.fromhex(job["parent_span_id"]),
        name="payload",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=started_us * 1000,
        end_time_unix_nano=ended_us * 1000,
        attributes=[
            KeyValue(key="gridlane.job.id", value=AnyValue(string_value=job["job"])),
            KeyValue(key="gridlane.job.attempt", value=AnyValue(int_value=job["attempt"])),
        ],
        status=Status(code=Status.STATUS_CODE_ERROR, message=error) if error else None,
    )
    service = KeyValue(key="service.name", value=AnyValue(string_value="payload"))
    request = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=[service]),
                scope_spans=[ScopeSpans(scope=InstrumentationScope(name="gridlane"), spans=[span])],
            )
        ]
    )
    with _channel(job["environment"]) as channel:
        export: grpc.UnaryUnaryMultiCallable[ExportTraceServiceRequest, bytes] = (
            channel.unary_unary(
                _EXPORT,
                request_serializer=ExportTraceServiceRequest.SerializeToString,
            )
        )
        export(request, timeout=_DEADLINE_S, metadata=(("authorization", f"Bearer {token}"),))


def _channel(environment: Mapping[str, str]) -> grpc.Channel:
    address = parse_addresses(environment["GRIDLANE_ADDRESS"]).of("reporting")
    ca = environment.get("GRIDLANE_CA")
    # A token travels in clear text on loopback only.
    if ca is None and is_loopback(address):
        return grpc.insecure_channel(address)
    roots = None if ca is None else Path(ca).read_bytes()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots))
