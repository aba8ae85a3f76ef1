"""The story of a job: whole from its events alone, with spans where they belong."""

import io

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from gridlane.cli.run_progress import Picture
from gridlane.cli.story import Entry, story
from gridlane.cli.trace import bar, draw
from gridlane.gateway.v1.task_pb2 import Task, TaskEvent
from gridlane.reporting.v1.span_service_pb2 import Span
from gridlane.transfer.v1.event_pb2 import TransferEvent
from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, FileTransferState
from gridlane.type.v1.failure_pb2 import Failure, FailureClass
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job, JobHold, JobState

TRACE = "ab" * 16


def at(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round((1_000_000 + seconds) * 1e6))
    return stamp


def job_event(seconds: float, word: str, message: str = "", held: str = "") -> TaskEvent:
    state = JobState.Value(f"JOB_STATE_{word}")
    hold = JobHold(reason=held) if held else None
    return TaskEvent(job=JobEvent(time=at(seconds), state=state, message=message, hold=hold))


def file_event(seconds: float, word: str, **more: object) -> TaskEvent:
    file = FileTransfer(
        name="transfers/1/files/1",
        source="LFN:/local/in/co2.csv",
        target="file:///data/jobs/1/co2.csv",
        source_storage_element="storageElements/local",
        target_storage_element="storageElements/jobs",
        state=FileTransferState.Value(f"FILE_TRANSFER_STATE_{word}"),
        **more,  # type: ignore[arg-type]
    )
    return TaskEvent(transfer=TransferEvent(time=at(seconds), file=file))


def span(number: int, name: str, start: float, end: float, parent: int = 0, **more: str) -> Span:
    return Span(
        trace_id=TRACE,
        span_id=f"{number:016x}",
        parent_span_id=f"{parent:016x}" if parent else "f" * 16,
        name=name,
        start_time=at(start),
        end_time=at(end),
        service=more.get("service", "workload"),
    )


TASK = Task(
    job=Job(create_time=at(0)),
    trace_id=TRACE,
    events=[
        job_event(0, "RECEIVED"),
        job_event(1, "STAGING"),
        file_event(2, "ACTIVE"),
        file_event(3, "FINISHED"),
        job_event(4, "RUNNING"),
        job_event(9, "DONE"),
    ],
)
SPANS = [
    span(1, "gridlane.gateway.v1.TaskService/SubmitTask", -0.01, 0.02, service="gateway"),
    span(2, "gridlane.workload.v1.JobService/SubmitJob", -0.005, 0.01, parent=1),
    span(3, "payload", 4.5, 8.5, service="payload"),
    span(4, "gridlane.gateway.v1.TaskService/DescribeTask", 5, 6, service="gateway"),
    span(5, "gridlane.workload.v1.JobService/GetJob", 5.1, 5.2, parent=4),
]


def lines(entry: Entry, depth: int = 0) -> list[str]:
    own = f"{'  ' * depth}{entry.who}: {entry.what}"
    return [own, *(line for child in entry.children for line in lines(child, depth + 1))]


def test_events_alone_are_the_whole_story() -> None:
    told = lines(story(TASK, []))
    assert told == [
        f"client: SubmitTask  trace {TRACE}",
        "  workload: RECEIVED",
        "  workload: STAGING",
        "  transfer: ACTIVE · co2.csv · local → jobs",
        "  transfer: FINISHED · co2.csv · local → jobs",
        "  workload: RUNNING",
        "  workload: DONE",
    ]


def test_losing_spans_loses_no_event() -> None:
    events = {line.strip() for line in lines(story(TASK, []))}
    assert events <= {line.strip() for line in lines(story(TASK, SPANS))}


def test_spans_hang_where_they_began_and_beneath_their_parents() -> None:
    told = lines(story(TASK, SPANS))
    assert told[1:3] == [
        "  gateway: gateway.v1.TaskService/SubmitTask",
        "    workload: workload.v1.JobService/SubmitJob",
    ]
    assert told[told.index("  workload: RUNNING") + 1] == "    payload: payload"


def test_looking_at_a_job_is_not_part_of_its_story() -> None:
    assert not [line for line in lines(story(TASK, SPANS)) if "DescribeTask" in line]
    assert not [line for line in lines(story(TASK, SPANS)) if "GetJob" in line]


def test_a_span_whose_parent_was_lost_is_still_told() -> None:
    told = lines(story(TASK, [SPANS[1]]))
    assert "  workload: workload.v1.JobService/SubmitJob" in told


def test_spans_that_name_each_other_as_parents_do_not_hang() -> None:
    circle = [span(1, "a", 1, 2, parent=2), span(2, "b", 1, 2, parent=1)]
    assert lines(story(TASK, circle)) == lines(story(TASK, []))


def test_a_failure_says_why() -> None:
    failure = Failure(
        failure_class=FailureClass.FAILURE_CLASS_CHECKSUM_MISMATCH, message="other bytes"
    )
    task = Task(events=[file_event(1, "FAILED", failure=failure)])
    (entry,) = story(task, []).children
    assert entry.bad
    assert entry.what.endswith("CHECKSUM_MISMATCH: other bytes")


def test_the_drawing_has_times_from_the_clients_call_on() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(draw(story(TASK, SPANS)))
    text = out.getvalue()
    assert "+0.000 s" in text.splitlines()[0]
    assert "4.00 s" in text
    assert "└─ workload  DONE" in text


@pytest.mark.parametrize(
    ("start", "duration", "drawn"),
    [
        (0.0, None, "·" + " " * 23),
        (10.0, None, " " * 23 + "·"),
        (0.0, 10.0, "━" * 24),
        (5.0, 2.5, " " * 12 + "━" * 6 + " " * 6),
        (10.0, 0.0, " " * 23 + "━"),
    ],
)
def test_bars_lie_where_the_time_was(start: float, duration: float | None, drawn: str) -> None:
    assert bar(Entry(start, "x", "y", duration), 0.0, 10.0) == drawn


def test_the_picture_follows_the_events() -> None:
    picture = Picture("jobs/1", "co2", 0.0)
    for event in TASK.events:
        picture.take(event)
    assert picture.state == "DONE"
    assert picture.has_run
    (file,) = picture.files.values()
    assert (file.label, file.state) == ("↓ co2.csv", "FINISHED")
    assert picture.moving() == set()


def test_the_picture_knows_which_transfers_move() -> None:
    picture = Picture("jobs/1", "co2", 0.0)
    picture.take(file_event(2, "ACTIVE", transferred_bytes=10, size_bytes=100))
    assert picture.moving() == {"transfers/1"}
    out = io.StringIO()
    Console(file=out, width=100).print(picture.draw())
    assert "10 B of 100 B" in out.getvalue()


def told_of(*events: TaskEvent) -> list[str]:
    picture = Picture("jobs/1", "co2", 1_000_000.0)
    told = []
    for event in events:
        picture.take(event)
        told.append(picture.line_of(event))
    return [line for line in told if line]


def test_a_line_that_says_nothing_new_is_left_out() -> None:
    assert told_of(
        job_event(1, "STAGING", "3 inputs to be brought"),
        file_event(2, "ACTIVE"),
        job_event(3, "STAGING", "transfers/1 brings the inputs"),
        file_event(4, "READY"),
        file_event(5, "ACTIVE"),
    ) == [
        "   1.00 s  co2 · STAGING",
        "   2.00 s  ↓ co2.csv · ACTIVE",
        "   4.00 s  ↓ co2.csv · READY",
        "   5.00 s  ↓ co2.csv · ACTIVE",
    ]


def test_a_line_says_why_a_job_is_held_and_that_it_goes_on() -> None:
    assert told_of(
        job_event(1, "WAITING"), job_event(2, "WAITING", held="a veto"), job_event(3, "WAITING")
    ) == [
        "   1.00 s  co2 · WAITING",
        "   2.00 s  co2 · WAITING · held: a veto",
        "   3.00 s  co2 · WAITING",
    ]


def test_the_picture_says_why_a_job_is_held() -> None:
    picture = Picture("jobs/1", "co2", 0.0)
    picture.take(job_event(1, "WAITING", held="a veto"))
    out = io.StringIO()
    Console(file=out, width=100).print(picture.draw())
    assert "held: a veto" in out.getvalue()
