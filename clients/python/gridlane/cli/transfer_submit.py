"""`gridlane transfer submit` and `retry`: files handed in, one, a list of them, or what failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, transfer_follow
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain
from gridlane.cli.transfer_lists import ListFormat, format_of, read_files

if TYPE_CHECKING:
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

MOST_FILES = 100_000


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(submit)
    app.command()(retry)


def submit(
    source: Annotated[
        str, typer.Argument(metavar="[SOURCE]", help="A URL or logical file name.")
    ] = "",
    target: Annotated[
        str, typer.Argument(metavar="[TARGET]", help="Where it goes: a URL or logical file name.")
    ] = "",
    from_: Annotated[
        str,
        typer.Option(
            "--from", metavar="FILE", help="A list of files, CSV or JSON lines; -: standard input."
        ),
    ] = "",
    written: Annotated[
        ListFormat | None, typer.Option("--format", help="Of the list. Without: by its name.")
    ] = None,
    per_job: Annotated[
        int,
        typer.Option("--files-per-job", min=1, max=MOST_FILES, help="A longer list is several."),
    ] = MOST_FILES,
    vo: Annotated[str, typer.Option(help="With one VO it may be left out.")] = "",
    placement: Annotated[
        bool, typer.Option(help="Register targets that are logical file names.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is at a target.")
    ] = False,
    max_retries: Annotated[
        int | None, typer.Option(min=0, max=256, help="How often a file is tried again.")
    ] = None,
    priority: Annotated[
        int, typer.Option(min=0, max=5, help="From 1 (last) to 5 (first); 0: 3.")
    ] = 0,
    activity: Annotated[str, typer.Option(help="What its files count for.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A pair of your own.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check everything, store nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended.")] = False,
    output: Output = "text",
) -> int:
    """Hand in files to move: one, or a list with --from. The answer means that it is durable."""
    from gridlane.descriptions import new_transfer

    tags = _tags(tag or [])

    def described(files: list[FileTransfer]) -> TransferJob:
        job = new_transfer(
            files,
            vo=vo,
            placement=placement,
            overwrite=overwrite,
            max_retries=max_retries,
            priority=priority,
            tags=tags,
        )
        job.activity = activity
        return job

    with connect() as client:
        jobs = [
            client.transfers.submit(described(files), validate_only=check)
            for files in _chunks(_files(source, target, from_, written), per_job)
        ]
        if wait and not check:
            return transfer_follow.follow(client, [job.name for job in jobs], output)
    _tell(jobs, output, checked=check)
    return 0


def retry(
    name: Annotated[
        str, typer.Argument(metavar="TRANSFER", help="transfers/<uuid>, or the bare id.")
    ],
    file: Annotated[
        list[int] | None, typer.Option(help="Only this file, by its number in the job.")
    ] = None,
    reason: terminal.Reason = "",
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended.")] = False,
    output: Output = "text",
) -> int:
    """Try what failed of an ended transfer job again, as a new job."""
    with connect() as client:
        job = client.transfers.retry(name, files=file or (), reason=reason)
        if wait:
            return transfer_follow.follow(client, [job.name], output)
    _tell([job], output, checked=False)
    return 0


def _files(
    source: str, target: str, from_: str, written: ListFormat | None
) -> Iterator[FileTransfer]:
    from gridlane.descriptions import new_file

    if from_ and (source or target):
        raise typer.BadParameter("give SOURCE and TARGET, or --from, not both")
    if not from_:
        if not (source and target):
            raise typer.BadParameter("SOURCE and TARGET are needed, or --from FILE")
        yield new_file(source, target)
    elif from_ == "-":
        yield from read_files(sys.stdin, "standard input", format_of("standard input", written))
    else:
        with Path(from_).open(encoding="utf-8", newline="") as lines:
            yield from read_files(lines, from_, format_of(from_, written))


def _chunks(files: Iterator[FileTransfer], size: int) -> Iterator[list[FileTransfer]]:
    """The files, as many at a time as one job gets.

    Raises:
        ValueError: there is none.
    """
    first = True
    while some := list(islice(files, size)):
        first = False
        yield some
    if first:
        raise ValueError("the list has no files")


def _tags(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"--tag {pair!r}: expected KEY=VALUE")
        found[key] = value
    return found


def _tell(jobs: list[TransferJob], output: terminal.Format, *, checked: bool) -> None:
    if output == "json":
        terminal.show_messages(jobs)
        return
    for job in jobs:
        terminal.line(f"{job.file_count} files are good" if checked else plain(job.name))
