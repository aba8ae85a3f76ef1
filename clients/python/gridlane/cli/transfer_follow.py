"""Transfer jobs followed until they have ended: a bar with rate and time left, then what came of
them.

Responsible for the picture and for the exit code.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gridlane.cli import terminal, units
from gridlane.cli.exit_codes import ExitCode, exit_code_of_transfer
from gridlane.cli.pace import Pace
from gridlane.cli.terminal import plain

if TYPE_CHECKING:
    from gridlane.client import Client
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

_LOOK_S = 0.5
_SHOWN_FAILURES = 10
_FAILED = ("FAILED", "CATALOG_FAILED")


def follow(client: Client, names: Sequence[str], output: terminal.Format) -> int:
    """Wait until transfer jobs have ended, and show how far they are.

    Returns:
        The exit code: that of the first job that did not end well.
    """
    from gridlane.errors import Unavailable
    from gridlane.states import FINAL_TRANSFER_STATES
    from gridlane.watch import PATIENCE_S

    pace = Pace()
    jobs: list[TransferJob] = []
    answered = time.monotonic()
    with _named_when_left(names), _bar() as show:
        while not jobs or not all(job.state in FINAL_TRANSFER_STATES for job in jobs):
            if jobs:
                time.sleep(_LOOK_S)
            try:
                jobs = _jobs(client, names)
            except Unavailable:
                if not jobs or time.monotonic() - answered > PATIENCE_S:
                    raise
            else:
                answered = time.monotonic()
                show(jobs, pace)
    if output == "json":
        terminal.show_messages(jobs)
    else:
        for job in jobs:
            _tell(client, job)
    codes = [exit_code_of_transfer(job) for job in jobs]
    return next((code for code in codes if code), ExitCode.OK)


@contextmanager
def _named_when_left(names: Sequence[str]) -> Iterator[None]:
    """Tells which jobs go on when nobody waits for them any more."""
    from gridlane.errors import GridlaneError

    try:
        yield
    except (KeyboardInterrupt, GridlaneError):
        for name in names:
            terminal.note(f"not waited for any more: gridlane transfer watch {name}")
        raise


def _jobs(client: Client, names: Sequence[str]) -> list[TransferJob]:
    from gridlane.errors import GridlaneError

    found = []
    for one in client.transfers.get_many(names):
        if isinstance(one, GridlaneError):
            raise one
        found.append(one)
    return found


def text_of(jobs: Iterable[TransferJob], pace: Pace) -> str:
    """How far jobs are, on a line: "12 of 40 files  1.5 of 3.0 GiB  120.0 MiB/s  13 s left"."""
    listed = list(jobs)
    files = sum(job.file_count for job in listed)
    ended = sum(_ended(job) for job in listed)
    moved = sum(job.transferred_bytes for job in listed)
    total = sum(job.total_bytes for job in listed)
    parts = [f"{ended} of {files} files"]
    parts.append(f"{units.size(moved)} of {units.size(total)}" if total else units.size(moved))
    return "  ".join(parts) + pace.text(total)


def _ended(job: TransferJob) -> int:
    from gridlane.states import file_state_word

    final = ("FINISHED", "FAILED", "CATALOG_FAILED", "CANCELED")
    return sum(one.count for one in job.summary if file_state_word(one.state) in final)


@contextmanager
def _bar() -> Iterator[Any]:
    """Shows how far jobs are; on a terminal alone."""
    if not sys.stderr.isatty() or terminal.is_json():
        yield lambda jobs, pace: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=terminal.err(), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(jobs: Sequence[TransferJob], pace: Pace) -> None:
            pace.take(time.monotonic(), sum(job.transferred_bytes for job in jobs))
            files = sum(job.file_count for job in jobs)
            ended = sum(_ended(job) for job in jobs)
            text = plain(text_of(jobs, pace))
            bar.update(task, completed=ended, total=files, description=text)

        yield show


def _tell(client: Client, job: TransferJob) -> None:
    from gridlane.cli.transfers import counts_text, state_markup
    from gridlane.states import transfer_state_word

    state = state_markup(transfer_state_word(job.state))
    terminal.line(f"{job.name} {state}  {counts_text(job)}  {units.size(job.transferred_bytes)}")
    if not exit_code_of_transfer(job):
        return
    shown = 0
    for state in _FAILED:
        for file in client.transfers.files(job.name, state=state, limit=_SHOWN_FAILURES - shown):
            terminal.note(_failure(file))
            shown += 1
        if shown == _SHOWN_FAILURES:
            terminal.note(f"more: gridlane transfer show {job.name} --state {state}")
            return


def _failure(file: FileTransfer) -> str:
    from gridlane.states import failure_word

    failure = file.failure
    text = f"{failure_word(failure.failure_class)}: {failure.message}"
    return f"file {file.name.rpartition('/')[2]}  {file.source}  {text}"
