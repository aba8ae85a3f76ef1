"""Spans on their way between processes: what is sent is what is kept."""

from gridlane_kit.call import Call
from gridlane_kit.identity import service_principal
from gridlane_kit.otlp import otlp_request
from gridlane_kit.telemetry import JOB_ID, FinishedSpan, TraceContext
from gridlane_reporting.otlp import OtlpShell
from gridlane_reporting.spans import SpanRing

JOB = "jobs/01939f5e-0000-7000-8000-000000000001"


def span(number: int, service: str, **changes: object) -> FinishedSpan:
    values: dict[str, object] = {
        "trace_id": 2**127 + 1,
        "span_id": number,
        "parent_id": 0,
        "name": f"step {number}",
        "kind": 3,
        "start_ns": 10 + number,
        "end_ns": 30,
        "service": service,
        "attributes": {JOB_ID: JOB, "rpc.method": "SubmitJob"},
        **changes,
    }
    return FinishedSpan(**values)  # type: ignore[arg-type]


async def test_what_one_process_sends_is_what_reporting_keeps() -> None:
    sent = [
        span(1, "workload"),
        span(2, "workload", parent_id=1, kind=1, error="TimeoutError", links=((7, 8), (9, 10))),
        span(
            3,
            "transfer",
            parent_id=2**64 - 1,
            attributes={JOB_ID: JOB, "n": 3, "ok": True, "share": 0.5, "text": "ö"},
        ),
    ]
    ring = SpanRing(100, 10)
    trace = TraceContext(1, 1, 0, sampled=False)
    call = Call(service_principal("workload"), None, trace, method="Export")
    answer = await OtlpShell(ring, accept_job_spans=False).Export(otlp_request(sent), call)
    assert not answer.HasField("partial_success")
    assert ring.of_job(JOB).spans == sent
