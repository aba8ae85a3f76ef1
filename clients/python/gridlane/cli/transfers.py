"""`gridlane transfer`: list, show, cancel and watch transfer jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.jobs import failure_pairs
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, ReasonShown, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridlane.transfer.v1.event_pb2 import TransferEvent
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

app = typer.Typer(help="Transfers: list, show, cancel, watch.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="TRANSFER", help="transfers/<uuid>, or the bare id.")]

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


def state_markup(word: str) -> str:
    """The state of a transfer job or a file, coloured."""
    colour = _COLOURS.get(word.strip())
    return f"[{colour}]{word}[/]" if colour else word


@app.command("list")
def list_transfers(
    state: Annotated[str | None, typer.Option(help="Only in this state, as ACTIVE.")] = None,
    vo: Annotated[str | None, typer.Option(help="Only of this VO.")] = None,
    job: Annotated[str | None, typer.Option(help="Only those of this job.")] = None,
    limit: Limit = 50,
    output: Output = "text",
) -> None:
    """List transfer jobs, newest first. One of the three filters at a time."""
    with connect() as client:
        found = list(client.transfers.list(state=state, vo=vo, job=job, limit=limit))
    columns = ("TRANSFER", "STATE", "FILES", "CREATED", "?VO", "?OWNER", "JOB")
    terminal.show_list(found, columns, _row, "no transfers", output)


def _row(transfer: TransferJob) -> tuple[str, ...]:
    from gridlane.states import transfer_state_word

    return (
        transfer.name,
        state_markup(transfer_state_word(transfer.state)),
        _counts(transfer),
        units.short_time(transfer.create_time),
        transfer.vo,
        plain(transfer.owner.display_name or transfer.owner.subject),
        plain(transfer.tags.get("gridlane.job", "")),
    )


def _counts(transfer: TransferJob) -> str:
    from gridlane.states import file_state_word

    return ", ".join(f"{c.count} {file_state_word(c.state)}" for c in transfer.summary if c.count)


@app.command()
def show(name: Name, output: Output = "text") -> None:
    """Show a transfer job with its files."""
    with connect() as client:
        transfer = client.transfers.get(name)
    if output == "json":
        terminal.show_json(terminal.as_dict(transfer))
        return
    terminal.details(_pairs(transfer))
    columns = ("FILE", "STATE", ">BYTES", ">RATE", "CHECKSUM", "SOURCE", "TARGET", "FAILURE")
    terminal.table(columns, map(_file_row, transfer.files), "no files")


def _pairs(transfer: TransferJob) -> Iterable[tuple[str, str]]:
    from gridlane.states import transfer_state_word

    yield "transfer", transfer.name
    yield "number", str(transfer.number)
    yield "state", state_markup(transfer_state_word(transfer.state))
    if transfer.HasField("failure"):
        yield from failure_pairs(transfer.failure)
    yield "job", plain(transfer.tags.get("gridlane.job", ""))
    yield "vo", transfer.vo
    yield "owner", plain(transfer.owner.display_name or transfer.owner.subject)
    yield "created", units.local_time(transfer.create_time)
    yield "ended", units.local_time(transfer.end_time)
    yield "trace", transfer.trace_id


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
    return f"{units.size(file.transferred_bytes / took)}/s"


@app.command()
def cancel(name: Name, reason: ReasonShown = "", output: Output = "text") -> None:
    """Cancel what is not finished of a transfer job."""
    with connect() as client:
        transfer = client.transfers.cancel(name, reason=reason)
    if output == "json":
        terminal.show_json(terminal.as_dict(transfer))
        return
    from gridlane.states import transfer_state_word

    terminal.line(f"{transfer.name} {state_markup(transfer_state_word(transfer.state))}")


@app.command()
def watch(name: Name, output: Output = "text") -> None:
    """Show what happens to a transfer job until it has ended. As json: one event a line."""
    from gridlane.states import FINAL_TRANSFER_STATES

    with connect() as client:
        for event in client.transfers.watch(name):
            if output == "json":
                terminal.show_json_line(terminal.as_dict(event))
            else:
                terminal.line(event_text(event))
            if event.job.state in FINAL_TRANSFER_STATES and not event.HasField("file"):
                return


def event_text(event: TransferEvent) -> str:
    """A transfer's event on one line."""
    from gridlane.states import failure_word, file_state_word, transfer_state_word

    parts = [f"[dim]{units.local_time(event.time)}[/]"]
    if event.HasField("file"):
        file = event.file
        parts += [
            state_markup(f"{file_state_word(file.state):<12}"),
            plain(f"file {file.name.rpartition('/')[2]}  {file.source} → {file.target}"),
        ]
        failure = file.failure if file.HasField("failure") else None
    else:
        parts.append(state_markup(f"{transfer_state_word(event.job.state):<12}"))
        failure = event.job.failure if event.job.HasField("failure") else None
    if failure is not None:
        text = f"{failure_word(failure.failure_class)}: {plain(failure.message)}"
        parts.append(f"[red]{text}[/]")
    return "  ".join(parts)
