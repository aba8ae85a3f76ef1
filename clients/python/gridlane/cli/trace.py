"""`gridlane trace`: the story of a job, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gridlane.cli import terminal, units
from gridlane.cli.jobs import Name, state_markup
from gridlane.cli.session import connect
from gridlane.cli.story import Entry, story
from gridlane.cli.terminal import Output, plain

if TYPE_CHECKING:
    from rich.table import Table

    from gridlane.client import Client
    from gridlane.gateway.v1.task_pb2 import Task
    from gridlane.reporting.v1.span_service_pb2 import ListJobSpansResponse

_BAR_CELLS = 24
_COLOURS = {
    "client": "bold",
    "gateway": "magenta",
    "workload": "cyan",
    "transfer": "blue",
    "reporting": "yellow",
    "authorization": "green",
    "payload": "bold green",
}


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(trace)


def trace(name: Name, output: Output = "text") -> None:
    """Draw the story of a job: what happened when, and how long each service took."""
    with connect() as client:
        task = client.tasks.describe(name)
        spans = _spans(client, name)
    if output == "json":
        told = terminal.as_dict(task)
        told["spans"] = [terminal.as_dict(span) for span in spans.spans]
        told["spans_incomplete"] = spans.incomplete
        terminal.show_json(told)
        return
    _head(task)
    terminal.out().print(draw(story(task, spans.spans)))
    if spans.incomplete:
        terminal.note("older spans had to make room; the events are whole")
    for part in task.missing:
        terminal.note(f"missing: what {part.service} knows ({part.reason})")


def _spans(client: Client, name: str) -> ListJobSpansResponse:
    """The spans; none where they are not kept or not to be had: the events tell the story."""
    from gridlane.errors import GridlaneError
    from gridlane.reporting.v1.span_service_pb2 import ListJobSpansResponse

    try:
        return client.spans.of_job(name, timeout=5)
    except GridlaneError as error:
        terminal.note(f"no spans: {error.message}")
        return ListJobSpansResponse()


def _head(task: Task) -> None:
    from gridlane.states import job_state_word

    title = plain(task.job.description.display_name)
    state = state_markup(job_state_word(task.job.state))
    terminal.line("  ".join(filter(None, (f"[bold]{task.job.name}[/]", title, state))))
    if task.job.HasField("failure"):
        terminal.line(f"[red]{plain(task.job.failure.message)}[/]")


def draw(root: Entry) -> Table:
    """The story as a table: when, how long, where in the whole time, and the tree.

    Parameters:
        root: the first line; its beginning is the time 0.
    """
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    begin = root.begin_s
    whole = max(root.end_s - begin, 1e-9)

    def add(entry: Entry, trunk: str, branch: str) -> None:
        colour = _COLOURS.get(entry.who, "")
        who = f"[{colour}]{plain(entry.who)}[/]" if colour else plain(entry.who)
        what = f"[red]{plain(entry.what)}[/]" if entry.bad else plain(entry.what)
        if entry.is_span:
            what = f"[dim]⧗[/] {what}"
        took = "" if entry.duration_s is None else units.duration(entry.duration_s)
        when = f"[dim]+{entry.start_s - begin:.3f} s[/]"
        grid.add_row(when, took, bar(entry, begin, whole), f"[dim]{trunk}{branch}[/]{who}  {what}")
        for child in entry.children:
            last = child is entry.children[-1]
            below = trunk + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
            add(child, below, "└─ " if last else "├─ ")

    add(root, "", "")
    return grid


def bar(entry: Entry, begin_s: float, whole_s: float) -> str:
    """Where an entry lies in the whole time: a bar for a span, a dot for a moment."""
    first = min(int((entry.start_s - begin_s) / whole_s * _BAR_CELLS), _BAR_CELLS - 1)
    if entry.duration_s is None:
        cells, mark = 1, "·"
    else:
        cells, mark = max(1, round(entry.duration_s / whole_s * _BAR_CELLS)), "━"
    cells = min(cells, _BAR_CELLS - first)
    return f"{' ' * first}{mark * cells}{' ' * (_BAR_CELLS - first - cells)}"
