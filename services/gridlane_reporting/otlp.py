"""Spans as OpenTelemetry sends them (OTLP 1.x over gRPC): a job's payload, with the job's own
token.

Responsible for reading OTLP's messages into the kit's form within bounds, and for who may write
what: a job writes spans that carry its own id and no others; a service writes any. What is left out
is counted in OTLP's partial success.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import PrincipalKind
from gridlane_kit.telemetry import JOB_ID, AttributeValue, FinishedSpan
from gridlane_reporting.spans import SpanRing, job_of

# What an exporter sends at once is far below (OpenTelemetry's batches hold 512 spans); what a 4 MiB
# message has room for would keep the process from everything else for seconds.
_MAX_GROUPS: Final = 1000
_MAX_SPANS: Final = 5000
_MAX_PAIRS: Final = 1000
_MAX_ATTRIBUTES: Final = 32
_MAX_LINKS: Final = 16
_MAX_TEXT: Final = 1024
_MAX_NAME: Final = 255
_LAST_NS: Final = 2**63 - 1


class OtlpShell:
    """`opentelemetry.proto.collector.trace.v1.TraceService`."""

    def __init__(self, ring: SpanRing, *, accept_job_spans: bool) -> None:
        self._ring = ring
        self._accept_job_spans = accept_job_spans

    async def Export(  # noqa: N802 - the contract's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, call: Call
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Keeps the spans that the caller may write.

        Raises:
            GridlaneError: INVALID_FIELDS: too many at once. PRECONDITION: none are kept here.
        """
        _refuse_too_many(request)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if call.principal.kind is PrincipalKind.SERVICE:
            for span in _spans(request):
                self._ring.accept(span)
            return response
        if not self._accept_job_spans:
            raise GridlaneError(
                ErrorReason.PRECONDITION, "this server keeps no spans of jobs (accept_job_spans)"
            )
        refused = self._keep_own(_spans(request), call.principal.job or "")
        if refused:
            response.partial_success.rejected_spans = refused
            response.partial_success.error_message = (
                f"kept are only spans whose {JOB_ID} is the token's job, up to its limit"
            )
        return response

    def _keep_own(self, spans: Iterable[FinishedSpan], job: str) -> int:
        """Returns how many were refused."""
        return sum(job_of(span) != job or not self._ring.accept_from_job(span) for span in spans)


def _refuse_too_many(request: trace_service_pb2.ExportTraceServiceRequest) -> None:
    groups = len(request.resource_spans)
    if groups <= _MAX_GROUPS:
        groups += sum(len(group.scope_spans) for group in request.resource_spans)
    if groups > _MAX_GROUPS:
        raise errors.invalid([("resource_spans", f"at most {_MAX_GROUPS} resources and scopes")])
    scopes = (scope for group in request.resource_spans for scope in group.scope_spans)
    if sum(len(scope.spans) for scope in scopes) > _MAX_SPANS:
        raise errors.invalid([("resource_spans", f"at most {_MAX_SPANS} spans at once")])


def _spans(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[FinishedSpan]:
    """Yields a request's spans; one with ids of a wrong length is invalid (OTLP), left out."""
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        service = str(resource.get("service.name", "payload"))
        job = {JOB_ID: resource[JOB_ID]} if JOB_ID in resource else {}
        for scope in group.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) == 16 and len(span.span_id) == 8:
                    yield _span(span, service, job)


def _span(
    span: trace_pb2.Span, service: str, of_resource: dict[str, AttributeValue]
) -> FinishedSpan:
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return FinishedSpan(
        trace_id=int.from_bytes(span.trace_id, "big"),
        span_id=int.from_bytes(span.span_id, "big"),
        parent_id=int.from_bytes(span.parent_span_id[:8], "big"),
        name=span.name[:_MAX_NAME],
        kind=span.kind,
        start_ns=min(span.start_time_unix_nano, _LAST_NS),
        end_ns=min(span.end_time_unix_nano, _LAST_NS),
        service=service,
        attributes={**of_resource, **_attributes(span.attributes)},
        error=(span.status.message[:_MAX_TEXT] or "error") if failed else "",
        links=tuple(
            (int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big"))
            for link in span.links[:_MAX_LINKS]
            if len(link.trace_id) == 16 and len(link.span_id) == 8
        ),
    )


def _attributes(pairs: Iterable[common_pb2.KeyValue]) -> dict[str, AttributeValue]:
    """Returns the scalar attributes, bounded in number and length; a job's id is never left out."""
    found: dict[str, AttributeValue] = {}
    for pair in islice(pairs, _MAX_PAIRS):
        value = _scalar(pair.value)
        if value is not None and (len(found) < _MAX_ATTRIBUTES or pair.key == JOB_ID):
            found[pair.key[:_MAX_NAME]] = value
    return found


def _scalar(value: common_pb2.AnyValue) -> AttributeValue | None:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value[:_MAX_TEXT]
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case _:
            return None
