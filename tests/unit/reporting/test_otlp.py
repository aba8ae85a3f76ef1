"""Spans that jobs and services send: what is kept, what is left out, what is cut short."""

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from gridlane_kit.call import Call
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import Principal, PrincipalKind, service_principal
from gridlane_kit.telemetry import JOB_ID, FinishedSpan, TraceContext
from gridlane_reporting.otlp import OtlpShell
from gridlane_reporting.spans import SpanRing

JOB = "jobs/01939f5e-0000-7000-8000-000000000001"
OTHER = "jobs/01939f5e-0000-7000-8000-000000000002"


def pair(key: str, value: str) -> common_pb2.KeyValue:
    return common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))


def export(
    *spans: trace_pb2.Span, resource: tuple[common_pb2.KeyValue, ...] = ()
) -> trace_service_pb2.ExportTraceServiceRequest:
    group = trace_pb2.ResourceSpans(
        resource=resource_pb2.Resource(attributes=resource),
        scope_spans=[trace_pb2.ScopeSpans(spans=spans)],
    )
    return trace_service_pb2.ExportTraceServiceRequest(resource_spans=[group])


def payload_span(job: str = JOB, number: int = 1) -> trace_pb2.Span:
    return trace_pb2.Span(
        trace_id=bytes(15) + b"\x01",
        span_id=number.to_bytes(8, "big"),
        name="payload",
        start_time_unix_nano=10,
        end_time_unix_nano=20,
        attributes=[pair(JOB_ID, job)] if job else [],
    )


def caller(job: str | None = JOB) -> Call:
    principal = (
        service_principal("workload")
        if job is None
        else Principal("https://issuer.test/", "ada", kind=PrincipalKind.JOB, job=job, attempt=1)
    )
    return Call(principal, None, TraceContext(1, 1, 0, sampled=True), method="Export")


class Kept:
    """A shell with its ring."""

    def __init__(self, *, accept_job_spans: bool = True, job_limit: int = 10) -> None:
        self.ring = SpanRing(100, job_limit)
        self.shell = OtlpShell(self.ring, accept_job_spans=accept_job_spans)

    def of(self, job: str) -> list[FinishedSpan]:
        return self.ring.of_job(job).spans


async def test_a_job_s_own_span_is_kept() -> None:
    kept = Kept()
    request = export(payload_span(), resource=(pair("service.name", "analysis"),))
    answer = await kept.shell.Export(request, caller())
    assert not answer.HasField("partial_success")
    (span,) = kept.of(JOB)
    assert (span.name, span.service, span.start_ns, span.end_ns) == ("payload", "analysis", 10, 20)


@pytest.mark.parametrize("named", [OTHER, ""])
async def test_a_span_that_names_another_job_or_none_is_refused_and_the_rest_kept(
    named: str,
) -> None:
    kept = Kept()
    answer = await kept.shell.Export(export(payload_span(named), payload_span(JOB, 2)), caller())
    assert answer.partial_success.rejected_spans == 1
    assert JOB_ID in answer.partial_success.error_message
    assert len(kept.of(JOB)) == 1
    assert kept.of(OTHER) == []


async def test_the_job_may_stand_in_the_resource_instead() -> None:
    kept = Kept()
    await kept.shell.Export(export(payload_span(""), resource=(pair(JOB_ID, JOB),)), caller())
    assert len(kept.of(JOB)) == 1


async def test_a_service_writes_spans_of_every_job() -> None:
    kept = Kept()
    await kept.shell.Export(export(payload_span(JOB), payload_span(OTHER, 2)), caller(None))
    assert kept.of(JOB)
    assert kept.of(OTHER)


async def test_a_job_that_sends_too_many_is_told() -> None:
    kept = Kept(job_limit=1)
    answer = await kept.shell.Export(export(payload_span(), payload_span(JOB, 2)), caller())
    assert answer.partial_success.rejected_spans == 1


async def test_a_server_that_keeps_no_spans_of_jobs_says_so() -> None:
    with pytest.raises(GridlaneError) as refused:
        await Kept(accept_job_spans=False).shell.Export(export(payload_span()), caller())
    assert refused.value.reason is ErrorReason.PRECONDITION


async def test_a_span_with_an_id_of_the_wrong_length_is_left_out() -> None:
    kept = Kept()
    span = payload_span()
    span.trace_id = b"short"
    await kept.shell.Export(export(span), caller())
    assert len(kept.ring) == 0


async def test_long_texts_and_many_attributes_are_cut_but_never_the_job() -> None:
    kept = Kept()
    span = payload_span("")
    span.attributes.extend(pair(f"key{n}", "x" * 5000) for n in range(100))
    span.attributes.append(pair(JOB_ID, JOB))
    span.name = "n" * 1000
    await kept.shell.Export(export(span), caller())
    (found,) = kept.of(JOB)
    assert len(found.attributes) == 33
    assert max(len(str(value)) for value in found.attributes.values()) == 1024
    assert len(found.name) == 255


async def test_a_failed_span_and_its_links_come_through() -> None:
    kept = Kept()
    span = payload_span()
    span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    span.links.add(trace_id=bytes(15) + b"\x07", span_id=bytes(7) + b"\x08")
    await kept.shell.Export(export(span), caller())
    (found,) = kept.of(JOB)
    assert found.error
    assert found.links == ((7, 8),)
