"""The payload's span, sent by the shim with the job's own token.

Responsible for one OTLP/gRPC export (opentelemetry-proto 1.x, `TraceService/Export`) and nothing
else: no batching, no retry. Imported by the shim only after the payload has ended.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gridlane.configuration import is_loopback, parse_addresses
from gridlane_kit.otlp import EXPORT, otlp_request
from gridlane_kit.telemetry import INTERNAL_KIND, JOB_ID, FinishedSpan

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
    span = FinishedSpan(
        int(trace_id, 16),
        int(span_id, 16),
        int(job["parent_span_id"], 16),
        "payload",
        INTERNAL_KIND,
        started_us * 1000,
        ended_us * 1000,
        "payload",
        {JOB_ID: job["job"], "gridlane.job.attempt": job["attempt"]},
        error,
    )
    with _channel(job["environment"]) as channel:
        export: grpc.UnaryUnaryMultiCallable[ExportTraceServiceRequest, bytes] = (
            channel.unary_unary(
                EXPORT,
                request_serializer=ExportTraceServiceRequest.SerializeToString,
            )
        )
        export(
            otlp_request([span]),
            timeout=_DEADLINE_S,
            metadata=(("authorization", f"Bearer {token}"),),
        )


def _channel(environment: Mapping[str, str]) -> grpc.Channel:
    address = parse_addresses(environment["GRIDLANE_ADDRESS"]).of("reporting")
    ca = environment.get("GRIDLANE_CA")
    # A token travels in clear text on loopback only.
    if ca is None and is_loopback(address):
        return grpc.insecure_channel(address)
    roots = None if ca is None else Path(ca).read_bytes()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots))
