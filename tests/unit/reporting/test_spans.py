"""Which spans belong to a job, and what the ring forgets."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gridlane_kit.telemetry import JOB_ID, AttributeValue, FinishedSpan
from gridlane_reporting.spans import MAX_ANSWERED, SpanRing

ONE, OTHER = "jobs/one", "jobs/other"
_ids = itertools.count(1)


def span(
    trace: int,
    *,
    job: str = "",
    links: tuple[int, ...] = (),
    start: int = 0,
    method: str = "",
) -> FinishedSpan:
    attributes: dict[str, AttributeValue] = {JOB_ID: job} if job else {}
    if method:
        attributes["rpc.method"] = method
    return FinishedSpan(
        trace_id=trace,
        span_id=next(_ids),
        parent_id=0,
        name="span",
        kind=1,
        start_ns=start,
        end_ns=start + 1,
        service="test",
        attributes=attributes,
        links=tuple((link, 1) for link in links),
    )


def ring_of(*spans: FinishedSpan, size: int = 100) -> SpanRing:
    ring = SpanRing(size, job_limit=10)
    for one in spans:
        ring.accept(one)
    return ring


def test_a_job_has_the_whole_trace_in_which_it_was_submitted() -> None:
    inner, outer = span(1, job=ONE, start=2), span(1, start=1)
    assert ring_of(inner, outer, span(2)).of_job(ONE).spans == [outer, inner]


def test_a_job_has_the_later_traces_that_are_linked_to_its_submission() -> None:
    submitted, later, below = span(1, job=ONE), span(7, links=(1,), start=5), span(7, start=6)
    assert ring_of(submitted, later, below).of_job(ONE).spans == [submitted, later, below]


def test_another_job_s_spans_in_the_same_trace_are_not_shown() -> None:
    mine, theirs, shared = span(1, job=ONE), span(1, job=OTHER, start=1), span(1, start=2)
    assert ring_of(mine, theirs, shared).of_job(ONE).spans == [mine, shared]


def test_who_only_looks_at_a_job_is_no_part_of_its_story() -> None:
    submitted, looked, below = span(1, job=ONE), span(2, job=ONE, method="GetJob"), span(2)
    asked = span(1, job=ONE, method="GetTransferJob", start=3)
    assert ring_of(submitted, looked, below, asked).of_job(ONE).spans == [submitted, asked]


def test_a_job_cannot_read_a_trace_by_naming_it() -> None:
    ring = ring_of(span(1, job=OTHER), span(1))
    named = span(1, job=ONE)
    assert ring.accept_from_job(named)
    assert ring.of_job(ONE).spans == [named]


def test_a_bare_uuid_is_the_job_s_name_too() -> None:
    bare = span(1, job="one")
    assert ring_of(bare).of_job(ONE).spans == [bare]


def test_a_job_may_send_so_many_spans_and_no_more() -> None:
    ring = SpanRing(100, job_limit=2)
    assert [ring.accept_from_job(span(n, job=ONE)) for n in range(3)] == [True, True, False]
    assert ring.accept_from_job(span(9, job=OTHER))


def test_a_forgotten_span_of_a_job_makes_room_for_another_of_it() -> None:
    ring = SpanRing(2, job_limit=1)
    assert ring.accept_from_job(span(1, job=ONE))
    ring.accept(span(2))
    ring.accept(span(3))
    assert ring.accept_from_job(span(4, job=ONE))


def test_more_spans_than_an_answer_holds_are_cut_and_said_to_be() -> None:
    ring = ring_of(*(span(1, job=ONE, start=n) for n in range(MAX_ANSWERED + 1)), size=5000)
    found = ring.of_job(ONE)
    assert len(found.spans) == MAX_ANSWERED
    assert found.truncated


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["", ONE, OTHER]), st.integers(0, 4)),
        max_size=60,
    ),
    st.integers(1, 10),
)
def test_the_ring_keeps_the_newest_and_answers_nothing_else(
    arrivals: list[tuple[int, str, int]], size: int
) -> None:
    ring = SpanRing(size, job_limit=1000)
    spans = [
        span(trace, job=job, links=(link,) if link else (), start=at)
        for at, (trace, job, link) in enumerate(arrivals)
    ]
    for one in spans:
        ring.accept(one)
    newest = {one.span_id for one in spans[-size:]}
    assert len(ring) == len(newest)
    for job in (ONE, OTHER):
        found = {one.span_id for one in ring.of_job(job).spans}
        assert found <= newest
        assert {s.span_id for s in spans[-size:] if s.attributes.get(JOB_ID) == job} <= found
    forgotten = spans[: max(0, len(spans) - size)]
    assert ring.forgotten_until_ns == max((one.end_ns for one in forgotten), default=0)
