"""`gridlane transfer submit` and `retry`: files handed in, one, a list of them, or what failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridlane.cli import terminal, transfer_follow, transfer_options, units
from gridlane.cli.lists import From, ListFormat, Written
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain
from gridlane.cli.transfer_form import Name, SingleFiles, Wait
from gridlane.cli.transfer_lists import ListedFile, files_of
from gridlane.cli.transfer_options import new_listed_file, refuse_single, set_options

if TYPE_CHECKING:
    from gridlane.transfer.v1.transfer_job_pb2 import TransferJob

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
    checksum: transfer_options.Checksum = None,
    size: transfer_options.Size = None,
    alternative: transfer_options.Alternatives = None,
    via: transfer_options.Via = None,
    vo: Annotated[str, typer.Option(help="With one VO it may be left out.")] = "",
    placement: transfer_options.Placement = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is at a target.")
    ] = False,
    overwrite_mode: transfer_options.OverwriteWhen = None,
    verify: transfer_options.Verify = None,
    max_retries: transfer_options.MaxRetries = None,
    retry_delay: transfer_options.RetryDelay = None,
    max_time_in_queue: transfer_options.MaxTimeInQueue = None,
    timeout: transfer_options.Timeout = None,
    expire_in: transfer_options.ExpireIn = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=5, help="From 1 (last) to 5 (first); 0: 3.")
    ] = None,
    activity: Annotated[str, typer.Option(help="What its files count for.")] = "",
    strategy: transfer_options.Strategy = None,
    protocol: transfer_options.Protocols = None,
    streams: transfer_options.Streams = None,
    strict_copy: transfer_options.StrictCopy = None,
    disable_cleanup: transfer_options.DisableCleanup = None,
    report_target_file: transfer_options.ReportTarget = None,
    backend: transfer_options.Backend = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A pair of your own.")
    ] = None,
    metadata: transfer_options.Metadata = None,
    params: transfer_options.Params = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check everything, store nothing.")
    ] = False,
    wait: Wait = False,
    output: Output = "text",
) -> int:
    """Hand in files to move: one, or a list with --from. The answer means that it is durable."""
    from gridlane.errors import GridlaneError
    from gridlane.transfer.v1.transfer_job_pb2 import TransferJob

    options = locals()
    listed = _files(source, target, from_, written, options)
    asked = TransferJob(placement=True)
    set_options(asked, options)
    jobs: list[TransferJob] = []
    with connect() as client:
        try:
            for some in _chunks(listed, per_job):
                job = TransferJob(files=[one.file for one in some])
                job.MergeFrom(asked)
                with _named_by_place([one.place for one in some]):
                    jobs.append(client.transfers.submit(job, validate_only=check))
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
    source: str,
    target: str,
    from_: str,
    written: ListFormat | None,
    options: Mapping[str, Any],
) -> Iterator[ListedFile]:
    """What is to move; what contradicts each other is refused at once."""
    if not from_:
        if not (source and target):
            raise typer.BadParameter("SOURCE and TARGET are needed, or --from FILE")
        return iter([ListedFile("", new_listed_file(source, target, options))])
    if source or target:
        raise typer.BadParameter("give SOURCE and TARGET, or --from, not both")
    refuse_single(options)
    return files_of(from_, written)


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
