"""`gridlane report`: what work has used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, plain

if TYPE_CHECKING:
    from gridlane.reporting.v1.accounting_record_pb2 import AccountingRecord


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("report")(report)


def report(
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Only of this job and its transfers.")
    ] = None,
    kind: Annotated[
        Literal["job", "data_operation"] | None, typer.Option(help="Only records of this kind.")
    ] = None,
    vo: Annotated[str | None, typer.Option(help="Only of this VO.")] = None,
    limit: Limit = 50,
    output: Output = "text",
) -> None:
    """Show accounting records, newest end first: jobs' use, and files moved or removed.

    One filter at a time.
    """
    with connect() as client:
        records = list(client.accounting.records(job=job, kind=kind, vo=vo, limit=limit))
    if output == "json":
        terminal.show_messages(records)
        return
    jobs = [record for record in records if record.WhichOneof("record") == "job_usage"]
    moves = [record for record in records if record.WhichOneof("record") == "data_operation"]
    if not records:
        terminal.note("no accounting records (they follow the work within about a second)")
    if jobs:
        columns = (
            "JOB",
            "STATUS",
            "ENDED",
            ">WALL",
            ">CPU",
            ">IN",
            ">OUT",
            "?SITE",
            "?USER",
            "?VO",
        )
        terminal.table(columns, map(_job_row, jobs), "")
    if jobs and moves:
        terminal.line("")
    if moves:
        of_moves = (
            "FILE",
            "?WHAT",
            "STATUS",
            "ENDED",
            ">BYTES",
            ">TIME",
            ">RATE",
            "FROM",
            "TO",
            "?USER",
            "?VO",
        )
        terminal.table(of_moves, map(_move_row, moves), "")


def _job_row(record: AccountingRecord) -> tuple[str, ...]:
    use = record.job_usage
    return (
        record.job,
        plain(use.final_major_status),
        units.short_time(record.end_time),
        units.duration(units.seconds_of(use.exec_time)),
        units.duration(units.seconds_of(use.cpu_time)),
        units.size(use.input_data_bytes),
        units.size(use.output_data_bytes),
        plain(use.site),
        plain(record.user),
        record.vo,
    )


def _move_row(record: AccountingRecord) -> tuple[str, ...]:
    move = record.data_operation
    took = units.seconds_of(move.transfer_time)
    return (
        plain(move.file_transfer.removeprefix("transfers/").replace("/files/", " #")),
        plain(move.operation_type),
        plain(move.final_status),
        units.short_time(record.end_time),
        units.size(move.transfer_bytes),
        units.duration(took),
        f"{units.size(move.transfer_bytes / took)}/s" if took else "",
        plain(move.source.removeprefix("storageElements/")),
        plain(move.target.removeprefix("storageElements/")),
        plain(record.user),
        record.vo,
    )
