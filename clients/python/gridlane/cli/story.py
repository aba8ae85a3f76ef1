"""The story of a job as a tree: its events in order of time, with spans laid over them.

Responsible for what hangs beneath what. Pure: messages in, `Entry` out; `trace.py` draws it. The
events alone are a whole story; spans add how long each service took, and may be missing in part or
all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridlane.cli.units import seconds_of

if TYPE_CHECKING:
    from gridlane.gateway.v1.task_pb2 import Task, TaskEvent
    from gridlane.reporting.v1.span_service_pb2 import Span
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

# Somebody looking at the job is not part of its story.
_LOOKING = (
    "Get",
    "List",
    "BatchGet",
    "Describe",
    "Watch",
    "Follow",
    "Ack",
    "Read",
    "Ping",
    "WhoAmI",
)


@dataclass
class Entry:
    """One line of the story.

    Attributes:
        start_s: when, seconds since 1970.
        who: the service, or "client", or "payload".
        what: what happened.
        duration_s: how long it took; None for a moment.
        bad: whether it went wrong.
        is_span: whether a span tells it; else an event.
        children: what belongs beneath it.
    """

    start_s: float
    who: str
    what: str
    duration_s: float | None = None
    bad: bool = False
    is_span: bool = False
    children: list[Entry] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """When it, or the last of what is beneath it, ended."""
        own = self.start_s + (self.duration_s or 0.0)
        return max([own, *(child.end_s for child in self.children)])

    @property
    def begin_s(self) -> float:
        """When it, or the first of what is beneath it, began."""
        return min([self.start_s, *(child.begin_s for child in self.children)])


def story(task: Task, spans: Iterable[Span]) -> Entry:
    """The story of a job, from the client's call on.

    Parameters:
        task: the task with its events.
        spans: those that are kept; may be none.

    Returns:
        The client's call; beneath it the spans of its trace that come before anything else, then
        the events, each with the spans that began between it and the next.
    """
    root = Entry(seconds_of(task.job.create_time), "client", "SubmitTask")
    if task.trace_id:
        root.what += f"  trace {task.trace_id}"
    events = [_of_event(event) for event in task.events]
    events.sort(key=lambda entry: entry.start_s)
    for entry in _span_trees(spans):
        _place(entry, root, events)
    root.children += events
    root.start_s = root.begin_s
    return root


def _place(entry: Entry, root: Entry, events: Sequence[Entry]) -> None:
    before = [event for event in events if event.start_s <= entry.start_s]
    (before[-1] if before else root).children.append(entry)


def _span_trees(spans: Iterable[Span]) -> list[Entry]:
    """The spans as trees, by start; what only looks at the job is left out, with all beneath it."""
    known = {span.span_id: span for span in spans}
    beneath: Mapping[str, list[Span]] = defaultdict(list)
    roots = []
    for span in sorted(known.values(), key=lambda span: seconds_of(span.start_time)):
        if span.parent_span_id in known:
            beneath[span.parent_span_id].append(span)
        elif not _is_looking(span):
            roots.append(span)
    return [_of_span(root, beneath) for root in roots]


def _is_looking(span: Span) -> bool:
    service, slash, method = span.name.rpartition("/")
    return bool(slash) and service.startswith("gridlane.") and method.startswith(_LOOKING)


def _of_span(span: Span, beneath: Mapping[str, Sequence[Span]]) -> Entry:
    start = seconds_of(span.start_time)
    return Entry(
        start_s=start,
        who=span.service.removeprefix("gridlane-").removeprefix("gridlane_") or "?",
        what=span.name.removeprefix("gridlane."),
        duration_s=max(0.0, seconds_of(span.end_time) - start),
        bad=span.error,
        is_span=True,
        children=[_of_span(child, beneath) for child in beneath.get(span.span_id, ())],
    )


def _of_event(event: TaskEvent) -> Entry:
    return _of_job_event(event) if event.WhichOneof("event") == "job" else _of_transfer(event)


def _of_job_event(event: TaskEvent) -> Entry:
    from gridlane.states import job_phase_word, job_state_word

    told = event.job
    state = job_state_word(told.state)
    words = [state, job_phase_word(told.phase), told.minor_status, told.message]
    return Entry(
        start_s=seconds_of(told.time),
        who="workload",
        what=" · ".join(_without_repeats(filter(None, words))),
        bad=state in ("FAILED", "KILLED", "STALLED"),
    )


def _of_transfer(event: TaskEvent) -> Entry:
    from gridlane.states import failure_word, file_state_word, transfer_state_word

    told = event.transfer
    if told.HasField("file"):
        state = file_state_word(told.file.state)
        words = [state, _short(told.file)]
        failure = told.file.failure if told.file.HasField("failure") else None
    else:
        state = transfer_state_word(told.job.state)
        words = [state] if told.previous_state else [state, told.transfer_job]
        failure = told.job.failure if told.job.HasField("failure") else None
    if failure is not None:
        words.append(f"{failure_word(failure.failure_class)}: {failure.message}")
    return Entry(
        start_s=seconds_of(told.time),
        who="transfer",
        what=" · ".join(words),
        bad="FAILED" in state or state == "CANCELED",
    )


def _short(file: FileTransfer) -> str:
    """Which file, and from where to where, without the long names."""
    name = (file.source or file.target).rpartition("/")[2]
    ends = (file.source_storage_element, file.target_storage_element)
    if not all(ends):
        return name
    return f"{name} · {' → '.join(end.removeprefix('storageElements/') for end in ends)}"


def _without_repeats(words: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        if not kept or word.lower() != kept[-1].lower():
            kept.append(word)
    return kept
