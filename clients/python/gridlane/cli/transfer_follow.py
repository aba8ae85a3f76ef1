"""Transfer jobs followed until they have ended: a bar with rate and time left, then what came of
them.

Responsible for the picture and for the exit code.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gridlane.cli import terminal, units
from gridlane.cli.exit_codes import ExitCode, exit_code_of_transfer
from gridlane.cli.terminal import plain

if TYPE_CHECKING:
    from gridlane.client import Client
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob

_LOOK_S = 0.5
_SHOWN_FAILURES = 10
_RATE_OVER_S = 10.0


@dataclass
class Pace:
    """How fast bytes go, over the last seconds, and how long the rest takes at that rate."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def take(self, now: float, moved: int) -> None:
        """Take what has been moved by now, bytes."""
        self.seen.append((now, moved))
        while self.seen[0][0] < now - _RATE_OVER_S:
            del self.seen[0]

    @property
    def rate(self) -> float:
        """Bytes a second."""
        (begun, first), (now, last) = self.seen[0], self.seen[-1]
        return (last - first) / (now - begun) if now > begun else 0.0

    def left_s(self, total: int) -> float | None:
        """Seconds until `total` bytes are there; None while that cannot be said."""
        left = total - self.seen[-1][1]
        return left / self.rate if self.rate > 0 and left > 0 else None


def follow(client: Client, names: Sequence[str], output: terminal.Format) -> int:
    """Wait until transfer jobs have ended, and show how far they are.

    Returns:
        The exit code: that of the first job that did not end well.
    """
    from gridlane.states import FINAL_TRANSFER_STATES

    pace = Pace()
    with _bar() as show:
        while True:
            jobs = _jobs(client, names)
            show(jobs, pace)
            if all(job.state in FINAL_TRANSFER_STATES for job in jobs):
                break
            time.sleep(_LOOK_S)
    if output == "json":
        terminal.show_messages(jobs)
    else:
        for job in jobs:
            _tell(client, job)
    codes = [exit_code_of_transfer(job) for job in jobs]
    return next((code for code in codes if code), ExitCode.OK)


def _jobs(client: Client, names: Sequence[str]) -> list[TransferJob]:
    found = []
    for one in client.transfers.get_many(names):
        if isinstance(one, Exception):
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
    if pace.rate > 0:
        parts.append(f"{units.size(pace.rate)}/s")
    left = pace.left_s(total)
    if left is not None:
        parts.append(f"{units.duration(left)} left")
    return "  ".join(parts)


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
    for file in client.transfers.files(job.name, state="FAILED", limit=_SHOWN_FAILURES):
        terminal.note(_failure(file))
        shown += 1
    if shown == _SHOWN_FAILURES:
        terminal.note(f"more: gridlane transfer show {job.name} --state FAILED")


def _failure(file: FileTransfer) -> str:
    from gridlane.states import failure_word

    failure = file.failure
    text = f"{failure_word(failure.failure_class)}: {failure.message}"
    return plain(f"file {file.name.rpartition('/')[2]}  {file.source}  {text}")
