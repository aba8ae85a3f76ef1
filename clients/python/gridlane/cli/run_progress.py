"""How far a task has come, from its events, and how that looks.

Responsible for the picture that `gridlane run` and `gridlane job watch` draw. `Picture.take` is a
plain function of events; `Picture.draw` makes what rich shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridlane.cli import units
from gridlane.cli.jobs import state_markup
from gridlane.cli.terminal import plain
from gridlane.cli.transfers import state_markup as file_markup

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gridlane.gateway.v1.task_pb2 import TaskEvent
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer
    from gridlane.workload.v1.event_pb2 import JobEvent

_SHOWN_FILES = 8
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass
class FileOnItsWay:
    """One file as it was last heard of.

    Attributes:
        label: what to call it.
        state: its state, as a word.
        done_bytes: moved so far.
        all_bytes: how many there are; 0 while that is not known.
        rate: bytes a second, over its whole time or since the last look.
    """

    label: str
    state: str = ""
    done_bytes: int = 0
    all_bytes: int = 0
    rate: float = 0.0
    _seen_at: float = field(default=0.0, repr=False)

    def take(self, file: FileTransfer, now: float) -> None:
        """Take what is known now.

        Parameters:
            file: the file as it is.
            now: a monotonic time in seconds.
        """
        from gridlane.states import file_state_word

        moved = file.transferred_bytes - self.done_bytes
        if file.HasField("end_time") and file.HasField("start_time"):
            took = units.seconds_of(file.end_time) - units.seconds_of(file.start_time)
            self.rate = file.transferred_bytes / took if took > 0 else 0.0
        elif self._seen_at and moved > 0:
            self.rate = moved / (now - self._seen_at)
        self.state = file_state_word(file.state)
        self.done_bytes = file.transferred_bytes
        self.all_bytes = file.size_bytes or self.all_bytes
        if self.state == "FINISHED":
            self.all_bytes = self.done_bytes
        self._seen_at = now


@dataclass
class Picture:
    """A task as it is seen.

    Attributes:
        name: the job's.
        title: what a person calls it.
        submitted_at: when, in seconds since the epoch.
        held: why it is held; empty while it is not.
    """

    name: str
    title: str
    submitted_at: float
    state: str = "RECEIVED"
    phase: str = ""
    minor_status: str = ""
    held: str = ""
    has_run: bool = False
    cancelling: bool = False
    files: dict[str, FileOnItsWay] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic, repr=False)
    _told: dict[str, str] = field(default_factory=dict, repr=False)

    def take(self, event: TaskEvent) -> None:
        """Take one event."""
        if event.WhichOneof("event") == "job":
            self._take_job(event.job)
        elif event.transfer.HasField("file"):
            self.take_files((event.transfer.file,))

    def _take_job(self, event: JobEvent) -> None:
        from gridlane.states import job_phase_word, job_state_word

        self.state = job_state_word(event.state)
        self.phase = job_phase_word(event.phase)
        self.minor_status = event.minor_status
        self.held = event.hold.reason if event.HasField("hold") else ""
        self.has_run = self.has_run or self.state == "RUNNING"

    def take_files(self, files: Iterable[FileTransfer]) -> None:
        """Take what is known of files now."""
        for file in files:
            known = self.files.setdefault(file.name, FileOnItsWay(_label(file)))
            known.take(file, time.monotonic())

    def moving(self) -> set[str]:
        """The transfer jobs of which a file moves now."""
        return {
            name.partition("/files/")[0]
            for name, file in self.files.items()
            if file.state in ("ACTIVE", "REGISTERING")
        }

    def line_of(self, event: TaskEvent) -> str:
        """One event as a line, where nothing can be drawn; after `take`.

        Returns:
            The seconds since the submission, and what happened; empty when the job's line before,
            or the file's, said the same, and for what a line about a file says as well.
        """
        if event.WhichOneof("event") == "job":
            at, whose = event.job.time, self.name
            held = f"held: {self.held}" if self.held else ""
            parts = [self.title, self.state, self.phase.lower(), self.minor_status, held]
        elif event.transfer.HasField("file"):
            at, whose = event.transfer.time, event.transfer.file.name
            file = self.files[whose]
            moved = units.size(file.done_bytes) if file.done_bytes else ""
            parts = [file.label, file.state, moved]
        else:
            return ""
        told = " · ".join(part for part in parts if part)
        if self._told.get(whose) == told:
            return ""
        self._told[whose] = told
        return f"{units.seconds_of(at) - self.submitted_at:7.2f} s  {told}"

    def draw(self) -> RenderableType:
        """The picture, for a terminal."""
        from rich.console import Group
        from rich.text import Text

        elapsed = time.monotonic() - self._began
        spin = _SPINNER[int(elapsed * 10) % len(_SPINNER)]
        state = "[yellow]cancelling[/]" if self.cancelling else state_markup(self.state)
        parts = [f"[cyan]{spin}[/] [bold]{plain(self.title)}[/] {state}"]
        held = f"[yellow]held: {plain(self.held)}[/]" if self.held else ""
        parts += [text for text in (self.phase.lower(), plain(self.minor_status), held) if text]
        parts.append(f"[dim]{units.duration(max(elapsed, 0.1))}[/]")
        head = Text.from_markup(" · ".join(parts), overflow="ellipsis")
        return Group(head, *self._file_lines())

    def _file_lines(self) -> Iterable[RenderableType]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        shown = sorted(self.files.values(), key=lambda file: file.state == "FINISHED")
        grid = Table.grid(padding=(0, 1))
        for _ in range(5):
            grid.add_column(no_wrap=True, overflow="ellipsis")
        for file in shown[:_SHOWN_FILES]:
            bar = ProgressBar(total=file.all_bytes or None, completed=file.done_bytes, width=20)
            whole = f" of {units.size(file.all_bytes)}" if file.all_bytes else ""
            rate = f"{units.size(file.rate)}/s" if file.rate else ""
            moved = f"{units.size(file.done_bytes)}{whole}"
            grid.add_row(f"  {plain(file.label)}", bar, moved, rate, file_markup(file.state))
        if shown:
            yield grid
        if len(shown) > _SHOWN_FILES:
            yield Text(f"  and {len(shown) - _SHOWN_FILES} more files", style="dim")


def _label(file: FileTransfer) -> str:
    """ "↓ co2.csv" on its way to a job, "↑ plot.png" on its way from one."""
    arrow = "↓" if file.target_storage_element == "storageElements/jobs" else "↑"
    end = file.target if arrow == "↓" else file.source
    return f"{arrow} {end.rpartition('/')[2]}"
