"""`gridlane transfer submit` and `retry`: files handed in, one, a list of them, or what failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, transfer_follow, units
from gridlane.cli.files import remote
from gridlane.cli.lists import From, ListFormat, Written
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain
from gridlane.cli.transfer_form import Name, SingleFiles, Wait
from gridlane.cli.transfer_lists import ListedFile, files_of

if TYPE_CHECKING:
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

MOST_FILES = 100_000

# Of a job in one message, and of one that went in parts.
_FIELD = re.compile(r"(?:transfer_job\.)?files\[(\d+)\]\.?(.*)")


def submit(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A URL or logical file name.")
    ] = "",
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Where it goes: a URL or logical file name.")
    ] = "",
    from_: From = "",
    written: Written = None,
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
    wait: Wait = False,
    output: Output = "text",
) -> int:
    """Hand in files to move: one, or a list with --from. The answer means that it is durable."""
    from gridlane.descriptions import new_transfer
    from gridlane.errors import GridlaneError

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

    jobs: list[TransferJob] = []
    with connect() as client:
        try:
            for listed in _chunks(_files(source, target, from_, written), per_job):
                files, places = [one.file for one in listed], [one.place for one in listed]
                with _named_by_place(places):
                    jobs.append(client.transfers.submit(described(files), validate_only=check))
        except (GridlaneError, OSError, ValueError):
            _tell_handed_in(jobs, checked=check)
            raise
        if wait and not check:
            return transfer_follow.follow(client, [job.name for job in jobs], output)
    _tell(jobs, output, checked=check)
    return 0


def retry(
    name: Name,
    file: SingleFiles = None,
    reason: terminal.Reason = "",
    wait: Wait = False,
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
) -> Iterator[ListedFile]:
    from gridlane.descriptions import new_file

    if from_ and (source or target):
        raise typer.BadParameter("give SOURCE and TARGET, or --from, not both")
    if not from_:
        if not (source and target):
            raise typer.BadParameter("SOURCE and TARGET are needed, or --from FILE")
        yield ListedFile("", new_file(remote(source), remote(target)))
        return
    yield from files_of(from_, written)


def _chunks(files: Iterator[ListedFile], size: int) -> Iterator[list[ListedFile]]:
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


@contextmanager
def _named_by_place(places: Sequence[str]) -> Iterator[None]:
    """What a server says of a job's n-th file is said of the place where the list has it."""
    from gridlane.errors import GridlaneError, Violation

    try:
        yield
    except GridlaneError as error:
        found = []
        for given in error.violations:
            match = _FIELD.fullmatch(given.field)
            if match is None or int(match[1]) >= len(places):
                found.append(given)
                continue
            field = ", ".join(filter(None, (places[int(match[1])], match[2]))) or "the file"
            found.append(Violation(field, given.description))
            error.message = error.message.replace(f"{given.field}: ", f"{field}: ")
        error.violations = tuple(found)
        raise


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
        good = (
            f"{units.count(job.file_count, 'file')} {'is' if job.file_count == 1 else 'are'} good"
        )
        terminal.line(good if checked else plain(job.name))


def _tell_handed_in(jobs: list[TransferJob], *, checked: bool) -> None:
    """Tell of the jobs that were handed in before one was refused: they stand."""
    for job in () if checked else jobs:
        terminal.note(f"handed in before: {job.name}")
