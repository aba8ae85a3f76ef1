"""Trace contexts and spans: the caller's trace goes on, its sampling decision holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_kit.telemetry import FinishedSpan, Telemetry, TraceContext, parse_traceparent


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
)
def test_a_context_survives_the_wire(trace_id: int, span_id: int, sampled: bool) -> None:
    read = parse_traceparent(TraceContext(trace_id, span_id, 0, sampled).traceparent)
    assert read is not None
    assert (read.trace_id, read.span_id, read.sampled) == (trace_id, span_id, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"01-{'1' * 32}-{'1' * 16}-01",
        f"00-{'A' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-x",
        f"00-{'1' * 32}-{'1' * 16}-01\n",
        f"00-{'１' * 32}-{'1' * 16}-01",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(text: str) -> None:
    assert parse_traceparent(text) is None
    assert Telemetry("test").continued(text).parent_id == 0


@given(st.text())
def test_no_text_whatever_breaks_the_reading(text: str) -> None:
    parse_traceparent(text)


def test_the_callers_sampling_decision_holds_whatever_the_ratio() -> None:
    for sampled in (True, False):
        parent = TraceContext(1, 2, 0, sampled)
        for ratio in (0.0, 1.0):
            child = Telemetry("test", ratio=ratio).continued(parent.traceparent)
            assert (child.trace_id, child.parent_id, child.sampled) == (1, 2, sampled)


def test_traces_that_begin_here_follow_the_ratio() -> None:
    assert not any(Telemetry("test", ratio=0.0).root().sampled for _ in range(50))
    assert all(Telemetry("test", ratio=1.0).root().sampled for _ in range(50))
    half = sum(Telemetry("test", ratio=0.5).root().sampled for _ in range(1000))
    assert 300 < half < 700


def test_a_block_becomes_a_span_below_its_parent_and_a_failure_marks_it() -> None:
    spans: list[FinishedSpan] = []
    telemetry = Telemetry("test", sinks=[spans.append])
    parent = telemetry.root()
    with telemetry.span(parent, "good", {"a": 1}) as span:
        span.attributes["b"] = "two"
    with pytest.raises(ValueError, match="x"), telemetry.span(parent, "bad"):
        raise ValueError("x")
    good, bad = spans
    assert (good.trace_id, good.parent_id, good.error) == (parent.trace_id, parent.span_id, "")
    assert good.attributes == {"a": 1, "b": "two"}
    assert 0 <= good.end_ns - good.start_ns < 10**9
    assert bad.error == "ValueError", "the type, never the text"
    with telemetry.span(TraceContext(1, 2, 0, False), "unsampled"):
        pass
    assert len(spans) == 2
