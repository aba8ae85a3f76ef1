"""Following a task until it has ended: its picture, its payload's output, and Ctrl-C.

Responsible for the threads of that: one watches the task, two read the payload's streams, and the
main thread shows it all, since it alone sees Ctrl-C. The first Ctrl-C cancels the task and goes on
until it is KILLED; the second leaves.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from gridlane.cli import terminal
from gridlane.cli.run_progress import Picture

if TYPE_CHECKING:
    from rich.live import Live

    from gridlane.client import Client
    from gridlane.gateway.v1.task_pb2 import TaskEvent
    from gridlane.workload.v1.job_pb2 import Job

_TICK_S = 0.1
_LOOK_S = 1.0
_LOGS_END_S = 10.0
_CANCEL_S = 1.0

Stream = Literal["stdout", "stderr"]


class LeftBehindError(Exception):
    """The second Ctrl-C: the command ends before the task has.

    Parameters:
        confirmed: whether the server has said that it cancels the task.
    """

    def __init__(self, *, confirmed: bool) -> None:
        super().__init__()
        self.confirmed = confirmed


class Printer:
    """The payload's output, on the command's own streams.

    Where the picture is on the same terminal, whole lines are printed above it; else bytes go out
    as they came.
    """

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._partial: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    def write(self, stream: Stream, chunk: bytes) -> None:
        """Print bytes."""
        if self._live is None or not _own(stream).isatty():
            target: BinaryIO = _own(stream).buffer
            target.write(chunk)
            target.flush()
            return
        *lines, self._partial[stream] = (self._partial[stream] + chunk).split(b"\n")
        for line in lines:
            self._print(stream, line)

    def finish(self) -> None:
        """Print a last line that has no end."""
        for stream, rest in self._partial.items():
            if rest:
                self._print(stream, rest)
                self._partial[stream] = b""

    def _print(self, stream: Stream, line: bytes) -> None:
        from rich.text import Text

        assert self._live is not None  # noqa: S101 - the caller looked
        style = "red" if stream == "stderr" else ""
        text = Text.from_ansi(line.decode("utf-8", "replace"), style=style)
        self._live.console.print(text, soft_wrap=True)


def _own(stream: Stream) -> Any:
    return sys.stdout if stream == "stdout" else sys.stderr


@contextmanager
def _live(picture: Picture) -> Iterator[Live | None]:
    if terminal.is_json() or not sys.stderr.isatty():
        yield None
        return
    from rich.live import Live

    with Live(
        get_renderable=picture.draw,
        console=terminal.err(),
        refresh_per_second=8,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as live:
        yield live


class Follower:
    """Follows one task.

    Parameters:
        client: the caller's.
        picture: is kept up to date.
        quiet: do not print the payload's output.
        lines: tell each change in a line, where no picture is drawn.
    """

    def __init__(self, client: Client, picture: Picture, *, quiet: bool, lines: bool) -> None:
        self._client = client
        self._picture = picture
        self._quiet = quiet
        self._lines = lines and not sys.stderr.isatty()
        self._heard: queue.Queue[Callable[[], None]] = queue.Queue()
        self._watching = True
        self._failure: Exception | None = None
        self._logs: list[threading.Thread] = []
        self._cancelling: threading.Thread | None = None
        self._cancelled = False
        self._looked_at = 0.0
        self._printer = Printer(None)

    def follow(self) -> Job:
        """Follow until the job has ended.

        Returns:
            The job as it ended.

        Raises:
            GridlaneError: the task can no longer be followed; it goes on by itself.
            LeftBehindError: Ctrl-C came twice.
        """
        with _live(self._picture) as live:
            self._printer = Printer(live)
            self._start(self._watch)
            self._until(lambda: not self._watching)
            if self._failure is not None:
                raise self._failure
            end = time.monotonic() + _LOGS_END_S
            self._until(lambda: time.monotonic() > end or not any(t.is_alive() for t in self._logs))
            self._printer.finish()
        return self._client.jobs.get(self._picture.name)

    def _until(self, done: Callable[[], bool]) -> None:
        while not (done() and self._heard.empty()):
            self._step()

    def _step(self) -> None:
        try:
            self._heard.get(timeout=_TICK_S)()
        except queue.Empty:
            self._look()
        except KeyboardInterrupt:
            try:
                self._cancel()
            except KeyboardInterrupt:  # the next one came while this one was dealt with
                self._cancel()

    def _cancel(self) -> None:
        """The first Ctrl-C cancels; the next one, whenever it comes, leaves."""
        if self._cancelling is not None:
            self._cancelling.join(_CANCEL_S)
            raise LeftBehindError(confirmed=self._cancelled)
        self._cancelling = self._start(self._ask_for_the_end)
        self._picture.cancelling = True
        terminal.note("cancelling; Ctrl-C again leaves without waiting")

    def _ask_for_the_end(self) -> None:
        """Beside the main thread, so that no Ctrl-C interrupts it."""
        from gridlane.errors import GridlaneError

        try:
            self._client.tasks.cancel(self._picture.name)
            self._cancelled = True
        except GridlaneError as error:
            text = f"it could not be cancelled: {error.message}"
            self._heard.put(lambda: terminal.note(text))

    def _start(self, work: Callable[..., None], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        """Beside the main thread: hears what happens to the task until it has ended."""
        from gridlane.errors import GridlaneError

        try:
            for event in self._client.tasks.watch(self._picture.name):
                self._heard.put(lambda event=event: self._take(event))  # type: ignore[misc]
            self._client.jobs.wait(self._picture.name)
        except GridlaneError as error:
            self._failure = error
        self._heard.put(self._end)

    def _take(self, event: TaskEvent) -> None:
        self._picture.take(event)
        if self._lines and (line := self._picture.line_of(event)):
            terminal.note(line)
        if self._picture.has_run and not self._logs and not self._quiet:
            self._logs = [self._start(self._read_log, s) for s in ("stdout", "stderr")]

    def _end(self) -> None:
        self._watching = False

    def _read_log(self, stream: Stream) -> None:
        """Beside the main thread: hears what the payload writes until it has ended."""
        from gridlane.errors import GridlaneError

        write = self._printer.write
        try:
            for chunk in self._client.jobs.log(self._picture.name, stream, follow=True):
                self._heard.put(lambda chunk=chunk: write(stream, chunk))  # type: ignore[misc]
        except GridlaneError as error:
            text = f"the payload's {stream} cannot be read further: {error.message}"
            self._heard.put(lambda: terminal.note(text))

    def _look(self) -> None:
        """Now and then, how far files have come that move: their events tell only of states."""
        from gridlane.errors import GridlaneError

        now = time.monotonic()
        if now - self._looked_at < _LOOK_S or not sys.stderr.isatty():
            return
        self._looked_at = now
        try:
            for name in self._picture.moving():
                self._picture.take_files(self._client.transfers.get(name, timeout=_LOOK_S).files)
        except GridlaneError:
            return  # the picture waits; what is wrong, the watch will tell
