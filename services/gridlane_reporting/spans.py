"""Recent spans, in a bounded ring in memory.

Responsible for keeping them, and for telling which belong to a job. They decorate a job's story:
when the ring loses some, or all at a restart, its events are whole nevertheless.

A trace belongs to a job when the server itself made a span in it that carries the job's id and did
something: whoever only looks at a job (Get, List, Watch, …) does not become part of its story. All
of such a trace is shown but spans with another job's id, and with it the traces that are linked to
it (a step that is taken later is a trace of its own, linked to the submitting span). Of what a job
sends itself only spans with its id are shown, and they never tie a trace to it: otherwise a job
could name a trace and read it.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from gridlane_kit.telemetry import JOB_ID, FinishedSpan

MAX_ANSWERED: Final = 1000
_LOOKS: Final = ("Get", "BatchGet", "List", "Watch", "Describe", "Read")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class JobSpans:
    """The spans kept of a job, by start time; `truncated` when there were too many."""

    spans: list[FinishedSpan]
    truncated: bool


def job_of(span: FinishedSpan) -> str:
    """Returns the job ("jobs/{uuid}") that a span names as its own, empty when it names none."""
    value = str(span.attributes.get(JOB_ID, ""))
    return value if not value or value.startswith("jobs/") else f"jobs/{value}"


@dataclass(frozen=True, slots=True)
class _Kept:
    span: FinishedSpan
    job: str
    own: bool
    """Whether the server made it; False when a job sent it."""

    @property
    def told_of(self) -> bool:
        """Whether the span alone is reason enough to tell of it when somebody asks for its job."""
        looks = str(self.span.attributes.get("rpc.method", "")).startswith(_LOOKS)
        return bool(self.job) and not (self.own and looks)


class SpanRing:
    """The newest spans of the process and of its jobs; used from the event loop's thread.

    Parameters:
        size: how many are kept.
        job_limit: how many of those that one job sent itself.
    """

    def __init__(self, size: int, job_limit: int) -> None:
        self._size = size
        self._job_limit = job_limit
        self._ring: deque[_Kept] = deque()
        self._by_trace: defaultdict[int, list[_Kept]] = defaultdict(list)
        self._by_link: defaultdict[int, list[_Kept]] = defaultdict(list)
        self._by_job: defaultdict[str, list[_Kept]] = defaultdict(list)
        self._sent_by: Counter[str] = Counter()
        self.forgotten_until_ns = 0
        """When the youngest span ended that had to make room; 0 while none had to."""

    def accept(self, span: FinishedSpan) -> None:
        """Keeps a span that the server made: a sink of the kit's telemetry."""
        self._keep(_Kept(span, job_of(span), own=True))

    def accept_from_job(self, span: FinishedSpan) -> bool:
        """Keeps a span that a job sent, which carries that job's id.

        Returns:
            Whether it is kept; False when the job has sent as many as it may.
        """
        job = job_of(span)
        if not job or self._sent_by[job] >= self._job_limit:
            return False
        self._sent_by[job] += 1
        self._keep(_Kept(span, job, own=False))
        return True

    def of_job(self, job: str) -> JobSpans:
        """Returns the spans that are kept of a job ("jobs/{uuid}")."""
        named = self._by_job.get(job, ())
        traces = {kept.span.trace_id for kept in named if kept.own}
        linked = {kept.span.trace_id for kept in self._linked_to(traces)}
        linked |= {trace for kept in named if kept.own for trace, _ in kept.span.links}
        found = {id(kept): kept.span for kept in named}
        for trace in traces | linked:
            for kept in self._by_trace.get(trace, ()):
                if kept.own and kept.job in ("", job):
                    found[id(kept)] = kept.span
        spans = sorted(found.values(), key=lambda span: span.start_ns)
        return JobSpans(spans[:MAX_ANSWERED], truncated=len(spans) > MAX_ANSWERED)

    def __len__(self) -> int:
        return len(self._ring)

    def _linked_to(self, traces: Iterable[int]) -> Iterable[_Kept]:
        return (kept for trace in traces for kept in self._by_link.get(trace, ()) if kept.own)

    def _keep(self, kept: _Kept) -> None:
        if len(self._ring) >= self._size:
            self._forget(self._ring.popleft())
        self._ring.append(kept)
        self._by_trace[kept.span.trace_id].append(kept)
        for trace, _ in kept.span.links:
            self._by_link[trace].append(kept)
        if kept.told_of:
            self._by_job[kept.job].append(kept)

    def _forget(self, kept: _Kept) -> None:
        self.forgotten_until_ns = max(self.forgotten_until_ns, kept.span.end_ns)
        _drop(self._by_trace, kept.span.trace_id)
        for trace, _ in kept.span.links:
            _drop(self._by_link, trace)
        if kept.told_of:
            _drop(self._by_job, kept.job)
        if not kept.own:
            self._sent_by[kept.job] -= 1
            if not self._sent_by[kept.job]:
                del self._sent_by[kept.job]


def _drop(index: defaultdict[K, list[_Kept]], key: K) -> None:
    """Takes the oldest span out of an index, which filled in the order of the ring."""
    kept = index[key]
    kept.pop(0)
    if not kept:
        del index[key]
