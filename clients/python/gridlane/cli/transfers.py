"""`gridlane transfer`: its commands in their order, and those that show, cancel and change jobs.

What hands jobs in is `transfer_submit`, what answers why and how many `transfer_answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridlane.cli import terminal, transfer_follow, units
from gridlane.cli.exit_codes import ExitCode, exit_code_of_transfer
from gridlane.cli.jobs import failure_pairs
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, ReasonShown, plain
from gridlane.cli.transfer_answers import attempts, explain, release, summary
from gridlane.cli.transfer_form import FileState, Job, JobState, Name, Names, SingleFiles, Vo
from gridlane.cli.transfer_options import JOB_TAG, asked
from gridlane.cli.transfer_submit import retry, submit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridlane.transfer.v1.event_pb2 import TransferEvent
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

app = typer.Typer(
    help="Files moved in the background, as transfer jobs of 1 to 100 000 files.",
    no_args_is_help=True,
)

_COLOURS = {
    "FINISHED": "green",
    "FAILED": "red",
    "CATALOG_FAILED": "red",
    "REGISTRATION_FAILED": "red",
    "PARTIALLY_FINISHED": "yellow",
    "CANCELED": "yellow",
    "ACTIVE": "cyan",
    "RETRYING": "yellow",
    "HELD": "yellow",
}
# The longest word is REGISTRATION_FAILED.
_STATE_WIDTH = 19


def state_markup(word: str) -> str:
    """The state of a transfer job or a file, coloured."""
    colour = _COLOURS.get(word.strip())
    return f"[{colour}]{word}[/]" if colour else word


def list_transfers(
    state: JobState = None,
    vo: Vo = None,
    job: Job = None,
    limit: Limit = 50,
    output: Output = "text",
) -> None:
    """List transfer jobs, newest first. Either --job, or --state, --vo or both."""
    with connect() as client:
        found = list(client.transfers.list(state=state, vo=vo, job=job, limit=limit))
    columns = ("TRANSFER", "STATE", "~FILES", "CREATED", "?~VO", "?~OWNER", "-~JOB")
    terminal.show_list(found, columns, _row, "no transfers", output)


def _row(transfer: TransferJob) -> tuple[str, ...]:
    from gridlane.states import transfer_state_word

    return (
        transfer.name,
        state_markup(transfer_state_word(transfer.state)),
        counts_text(transfer),
        units.short_time(transfer.create_time),
        transfer.vo,
        plain(transfer.owner.display_name or transfer.owner.subject),
        plain(transfer.tags.get(JOB_TAG, "")),
    )


def counts_text(transfer: TransferJob) -> str:
    """How many files are in which state, on a line."""
    from gridlane.states import file_state_word

    return ", ".join(f"{c.count} {file_state_word(c.state)}" for c in transfer.summary if c.count)


def show(
    name: Name,
    state: FileState = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many files.")] = 1000,
    output: Output = "text",
) -> None:
    """Show a transfer job with its files."""
    with connect() as client:
        transfer = client.transfers.get(name)
        if state or limit > len(transfer.files) < transfer.file_count:
            files = list(client.transfers.files(name, state=state, limit=limit))
        else:
            files = list(transfer.files)[:limit]
    if output == "json":
        del transfer.files[:]
        transfer.files.extend(files)
        terminal.show_json(terminal.as_dict(transfer))
        return
    terminal.details(_pairs(transfer))
    columns = ("FILE", "STATE", ">BYTES", "~>RATE", "~CHECKSUM", "SOURCE", "TARGET", "-FAILURE")
    terminal.table(columns, map(_file_row, files), "no files")


def _pairs(transfer: TransferJob) -> Iterable[tuple[str, str]]:
    from gridlane.states import transfer_state_word

    yield "transfer", transfer.name
    yield "number", str(transfer.number)
    yield "state", state_markup(transfer_state_word(transfer.state))
    if transfer.HasField("failure"):
        yield from failure_pairs(transfer.failure)
    yield "files", f"{counts_text(transfer)}; {transfer.completeness_percent} % ended"
    yield "bytes", _bytes(transfer)
    yield "retry of", transfer.retry_of
    yield "job", plain(transfer.tags.get(JOB_TAG, ""))
    yield "vo", transfer.vo
    yield "priority", str(transfer.priority)
    yield "activity", plain(transfer.activity)
    yield from asked(transfer)
    yield "owner", plain(transfer.owner.display_name or transfer.owner.subject)
    yield "created", units.local_time(transfer.create_time)
    yield "ended", units.local_time(transfer.end_time)
    yield "trace", transfer.trace_id


def _bytes(transfer: TransferJob) -> str:
    rate = transfer.throughput_bytes_per_second
    speed = f", {units.rate(rate)}" if rate else ""
    total = f" of {units.size(transfer.total_bytes)}" if transfer.total_bytes else ""
    return f"{units.size(transfer.transferred_bytes)}{total}{speed}"


def _file_row(file: FileTransfer) -> tuple[str, ...]:
    from gridlane.checksums import format_checksum
    from gridlane.states import failure_word, file_state_word

    failure = ""
    if file.HasField("failure"):
        failure = f"{failure_word(file.failure.failure_class)}: {plain(file.failure.message)}"
    return (
        file.name.rpartition("/")[2],
        state_markup(file_state_word(file.state)),
        units.size(file.transferred_bytes),
        _rate(file),
        format_checksum(file.actual_checksum),
        plain(file.source),
        plain(file.target),
        failure,
    )


def _rate(file: FileTransfer) -> str:
    took = units.seconds_of(file.end_time) - units.seconds_of(file.start_time)
    if not (file.HasField("end_time") and file.HasField("start_time") and took > 0):
        return ""
    return units.rate(file.transferred_bytes / took)


def cancel(
    names: Names,
    file: SingleFiles = None,
    reason: ReasonShown = "",
    output: Output = "text",
) -> int:
    """Cancel what is not finished of transfer jobs, or single files of one."""
    from gridlane.errors import GridlaneError

    if file and len(names) > 1:
        raise typer.BadParameter("--file is for the files of one transfer job")
    if reason and (file or len(names) > 1):
        raise typer.BadParameter("--reason is for the whole of one transfer job")
    with connect() as client:
        if file:
            found: Sequence[Any] = client.transfers.cancel_files(names[0], file)
        elif len(names) == 1:
            found = [client.transfers.cancel(names[0], reason=reason)]
        else:
            found = client.transfers.cancel_many(names)
    failed = [one for one in found if isinstance(one, GridlaneError)]
    done = [one for one in found if not isinstance(one, GridlaneError)]
    if output == "json" and not failed:
        terminal.show_json(
            terminal.as_dict(done[0]) if len(found) == 1 else list(map(terminal.as_dict, done))
        )
        return ExitCode.OK
    if output != "json":
        for one in done:
            terminal.line(f"{one.name} {state_markup(_word(one))}")
    return terminal.fail_calls(failed, done) if failed else ExitCode.OK


def _word(one: TransferJob | FileTransfer) -> str:
    """The state of a job or a file, as a word."""
    from gridlane.states import file_state_word, transfer_state_word

    return (file_state_word if "/files/" in one.name else transfer_state_word)(one.state)


def update(
    name: Name,
    priority: Annotated[
        int | None, typer.Option(min=1, max=5, help="From 1 (last) to 5 (first).")
    ] = None,
    activity: Annotated[str | None, typer.Option(help="Empty: default.")] = None,
    reason: terminal.Reason = "",
    output: Output = "text",
) -> None:
    """Change the priority or activity of what has not started. For managers."""
    if priority is None and activity is None:
        raise typer.BadParameter("nothing to change: name an option")
    with connect() as client:
        transfer = client.transfers.update(
            name, priority=priority, activity=activity, reason=reason
        )
    terminal.show_message(transfer, _pairs(transfer), output)


def watch(
    name: Name,
    bar: Annotated[
        bool, typer.Option("--bar", help="A bar with rate and time left instead of events.")
    ] = False,
    output: Output = "text",
) -> int:
    """Show what happens to a transfer job until it has ended, well or not: the exit code says it.

    As json: one event a line.
    """
    from gridlane.states import FINAL_TRANSFER_STATES

    with connect() as client:
        if bar:
            return transfer_follow.follow(client, [name], output)
        client.transfers.get(name)  # a watch is patient with a server that is away, people are not
        for event in client.transfers.watch(name):
            if output == "json":
                terminal.show_json_line(terminal.as_dict(event))
            else:
                terminal.line(event_text(event))
            if event.job.state in FINAL_TRANSFER_STATES and not event.HasField("file"):
                return exit_code_of_transfer(event.job)
    return ExitCode.OK


def event_text(event: TransferEvent) -> str:
    """A transfer's event on one line."""
    from gridlane.states import failure_word, file_state_word, transfer_state_word

    parts = [f"[dim]{units.local_time(event.time)}[/]"]
    if event.HasField("file"):
        file = event.file
        parts += [
            state_markup(f"{file_state_word(file.state):<{_STATE_WIDTH}}"),
            plain(f"file {file.name.rpartition('/')[2]}  {file.source} → {file.target}"),
        ]
        failure = file.failure if file.HasField("failure") else None
    else:
        parts.append(state_markup(f"{transfer_state_word(event.job.state):<{_STATE_WIDTH}}"))
        failure = event.job.failure if event.job.HasField("failure") else None
    if failure is not None:
        text = f"{failure_word(failure.failure_class)}: {plain(failure.message)}"
        parts.append(f"[red]{text}[/]")
    return "  ".join(parts).rstrip()


for _name, _command in (
    ("submit", submit),
    ("list", list_transfers),
    ("show", show),
    ("watch", watch),
    ("explain", explain),
    ("attempts", attempts),
    ("summary", summary),
    ("cancel", cancel),
    ("retry", retry),
    ("update", update),
    ("release", release),
):
    app.command(_name)(_command)
