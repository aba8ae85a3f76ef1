"""`gridlane transfer explain`, `attempts`, `summary`, `release`: why, how often, how many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, Reason, plain
from gridlane.cli.transfer_form import Job, JobState, Name, SingleFiles, Vo

if TYPE_CHECKING:
    from gridlane.transfer.v1.file_attempt_pb2 import FileAttempt
    from gridlane.transfer.v1.file_explanation_pb2 import FileExplanation
    from gridlane.transfer.v1.transfer_summary_pb2 import FailureCount, TransferSummary


def explain(name: Name, limit: Limit = 50, output: Output = "text") -> None:
    """Say what each waiting file of a transfer job waits for, and what can be done."""
    with connect() as client:
        found = list(client.transfers.explain(name, limit=limit))
    if output == "json":
        terminal.show_messages(found)
        return
    columns = ("FILE", "STATE", "REASON", "WHAT", "-~SINCE", "-EXPECTED", "-CURE")
    rows = [row for file in found for row in _explained(file)]
    terminal.table(columns, rows, "nothing waits")


def _explained(file: FileExplanation) -> Iterator[tuple[str, ...]]:
    from gridlane.states import enum_word, file_state_word
    from gridlane.type.v1.explanation_pb2 import WaitReason

    for number, one in enumerate(file.explanations):
        yield (
            "" if number else file.file.rpartition("/")[2],
            "" if number else file_state_word(file.state),
            enum_word(WaitReason, one.reason, "WAIT_REASON_"),
            plain(one.message),
            units.short_time(one.since_time),
            units.short_time(one.expected_time),
            plain(one.cure),
        )


def attempts(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="transfers/<uuid>/files/<n>, or <uuid>/files/<n>.")
    ],
    limit: Limit = 50,
    output: Output = "text",
) -> None:
    """List each time that a file was started, oldest first."""
    with connect() as client:
        found = list(client.transfers.attempts(file, limit=limit))
    columns = ("ATTEMPT", "STARTED", ">TOOK", ">BYTES", "~>RATE", "OUTCOME", "~CHANNEL", "-FAILURE")
    terminal.show_list(found, columns, _attempt, "it was not started yet", output)


def _attempt(one: FileAttempt) -> tuple[str, ...]:
    from gridlane.cli.transfers import state_markup
    from gridlane.states import failure_word, file_state_word

    took = ""
    if one.HasField("end_time"):
        took = units.duration(units.seconds_of(one.end_time) - units.seconds_of(one.start_time))
    failure = ""
    if one.HasField("failure"):
        failure = f"{failure_word(one.failure.failure_class)}: {plain(one.failure.message)}"
    return (
        str(one.attempt),
        units.local_time(one.start_time),
        took,
        units.size(one.transferred_bytes),
        units.rate(one.throughput_bytes_per_second),
        state_markup(file_state_word(one.outcome)),
        plain(one.channel.rpartition("/")[2]),
        failure,
    )


def summary(
    name: Annotated[
        str, typer.Argument(metavar="TRANSFER", help="Only this one. Without: all that you see.")
    ] = "",
    state: JobState = None,
    vo: Vo = None,
    job: Job = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Only those of the last 90m, 12h, 30d.")
    ] = None,
    output: Output = "text",
) -> None:
    """Count transfer jobs and files by state, with bytes, speed and what failed.

    Of one job, or of those that `list` lists with the same filters.
    """
    lasting = units.parse_option("--since", since, units.parse_duration)
    after = None if lasting is None else datetime.now(timezone.utc) - lasting
    with connect() as client:
        told = client.transfers.summary(name=name or None, state=state, vo=vo, job=job, after=after)
    if output == "json":
        terminal.show_json(terminal.as_dict(told))
        return
    terminal.details(_pairs(told))
    if told.failures:
        terminal.table((">FILES", "FAILURE", "EXAMPLES"), map(_failure, told.failures), "")


def _pairs(told: TransferSummary) -> Iterable[tuple[str, str]]:
    from gridlane.states import file_state_word, transfer_state_word

    jobs = (f"{one.count} {transfer_state_word(one.state)}" for one in told.jobs)
    files = (f"{one.count} {file_state_word(one.state)}" for one in told.files)
    yield "jobs", f"{told.job_count}: {', '.join(jobs)}" if told.job_count else "0"
    yield "files", f"{told.file_count}: {', '.join(files)}" if told.file_count else "0"
    yield "ended", f"{told.completeness_percent} %"
    yield "bytes", f"{units.size(told.transferred_bytes)} of {units.size(told.total_bytes)}"
    yield "rate", units.rate(told.throughput_bytes_per_second)


def _failure(one: FailureCount) -> tuple[str, ...]:
    from gridlane.states import failure_word

    return str(one.count), failure_word(one.failure_class), plain("  ".join(one.examples))


def release(
    name: Name,
    file: SingleFiles = None,
    give_up: Annotated[
        bool, typer.Option("--fail", help="Give them up: they are FAILED then.")
    ] = False,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Let held files of a transfer job start again, with all their retries. For managers."""
    with connect() as client:
        verb = client.transfers.fail_held if give_up else client.transfers.release
        count = verb(name, files=file or (), reason=reason)
    if output == "json":
        terminal.show_json({"failed_files" if give_up else "released_files": count})
        return
    terminal.line(f"{'failed' if give_up else 'released'} {units.count(count, 'file')}")
