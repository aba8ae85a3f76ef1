"""`gridlane job`: list, show, kill and watch jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, ReasonShown, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gridlane.type.v1.failure_pb2 import Failure
    from gridlane.workload.v1.event_pb2 import JobEvent
    from gridlane.workload.v1.job_pb2 import Job

app = typer.Typer(help="Jobs: list, show, kill, watch.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="JOB", help="jobs/<uuid>, or the bare id.")]

_COLOURS = {
    "DONE": "green",
    "FAILED": "red",
    "KILLED": "yellow",
    "RUNNING": "cyan",
    "STALLED": "red",
    "COMPLETED": "yellow",
}


def state_markup(word: str) -> str:
    """A job's state, coloured."""
    colour = _COLOURS.get(word.strip())
    return f"[{colour}]{word}[/]" if colour else word


def failure_pairs(failure: Failure) -> Iterator[tuple[str, str]]:
    """What is to be told of a failure."""
    from gridlane.states import failure_word

    yield "failure", f"[red]{failure_word(failure.failure_class)}[/]"
    yield "", plain(failure.message)
    yield "cure", plain(failure.cure)


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only in this state, as RUNNING.")] = None,
    vo: Annotated[str | None, typer.Option(help="Only of this VO.")] = None,
    limit: Limit = 50,
    output: Output = "text",
) -> None:
    """List jobs, newest first."""
    with connect() as client:
        jobs = list(client.jobs.list(state=state, vo=vo, limit=limit))
    columns = ("JOB", "NAME", "STATE", ">EXIT", "CREATED", ">TIME", "?VO", "?OWNER")
    terminal.show_list(jobs, columns, _row, "no jobs", output)


def _row(job: Job) -> tuple[str, ...]:
    from gridlane.states import job_state_word

    return (
        job.name,
        plain(job.description.display_name or job.description.executors[0].command[0])
        if job.description.executors
        else "",
        state_markup(job_state_word(job.state)),
        str(job.exit_code) if job.HasField("exit_code") else "",
        units.short_time(job.create_time),
        wall_time(job),
        job.vo,
        plain(job.owner.display_name or job.owner.subject),
    )


def wall_time(job: Job) -> str:
    """How long the payload ran; empty when that is not known."""
    used = units.seconds_of(job.resource_use.wall_time)
    return units.duration(used) if used else ""


@app.command()
def show(name: Name, output: Output = "text") -> None:
    """Show all of one job."""
    with connect() as client:
        job = client.jobs.get(name)
    terminal.show_message(job, _pairs(job), output)


def _pairs(job: Job) -> Iterable[tuple[str, str]]:
    from gridlane.states import job_phase_word, job_state_word

    used = job.resource_use
    phase = job_phase_word(job.phase)
    yield "job", job.name
    yield "number", str(job.number)
    yield "name", plain(job.description.display_name)
    yield "state", state_markup(job_state_word(job.state)) + (f" ({phase})" if phase else "")
    yield "minor status", plain(job.minor_status)
    yield "held", plain(job.hold.reason)
    if job.HasField("failure"):
        yield from failure_pairs(job.failure)
    if job.HasField("exit_code"):
        yield "exit code", str(job.exit_code)
    yield "vo", job.vo
    yield "owner", plain(f"{job.owner.display_name or job.owner.subject} at {job.owner.issuer}")
    for executor in job.description.executors:
        yield "command", plain(" ".join(executor.command))
    for given in job.description.inputs:
        yield "input", plain(f"{given.path} ← {given.source}")
    for made in job.description.outputs:
        yield "output", plain(f"{made.path} → {made.target}")
    yield "attempt", str(job.attempt)
    yield "backend", plain(f"{job.backend} {job.backend_id}".strip())
    yield "created", units.local_time(job.create_time)
    yield "started", units.local_time(job.start_time)
    yield "ended", units.local_time(job.end_time)
    if job.HasField("resource_use"):
        yield "wall time", units.duration(units.seconds_of(used.wall_time))
        yield "cpu time", units.duration(units.seconds_of(used.cpu_time))
        yield "peak memory", units.size(used.peak_memory_bytes)
        yield "in", f"{used.input_files} files, {units.size(used.input_bytes)}"
        yield "out", f"{used.output_files} files, {units.size(used.output_bytes)}"
    yield "stage-in", job.stage_in_transfer
    yield "stage-out", job.stage_out_transfer
    yield "trace", job.trace_id


@app.command()
def kill(
    name: Name,
    wait: Annotated[bool, typer.Option(help="Wait until it has stopped.")] = True,
    reason: ReasonShown = "",
    output: Output = "text",
) -> None:
    """End a job and cancel the transfers it still has."""
    with connect() as client:
        task = client.tasks.cancel(name, reason=reason)
        job = client.jobs.wait(name) if wait else task.job
    if output == "json":
        terminal.show_json(terminal.as_dict(job))
        return
    from gridlane.states import job_state_word

    terminal.line(f"{job.name} {state_markup(job_state_word(job.state))}")


@app.command()
def watch(name: Name, output: Output = "text") -> None:
    """Show what happens to a job, from its beginning until it has ended.

    As json: one event a line.
    """
    from gridlane.states import FINAL_JOB_STATES

    with connect() as client:
        for event in client.jobs.watch(name):
            if output == "json":
                terminal.show_json_line(terminal.as_dict(event))
            else:
                terminal.line(event_text(event))
            if event.state in FINAL_JOB_STATES:
                return


def event_text(event: JobEvent) -> str:
    """A job's event on one line."""
    from gridlane.states import job_phase_word, job_state_word

    phase = job_phase_word(event.phase)
    parts = [
        f"[dim]{units.local_time(event.time)}[/]",
        state_markup(f"{job_state_word(event.state):<10}"),
        phase,
        plain(event.minor_status),
        f"[dim]{plain(event.message)}[/]" if event.message else "",
    ]
    return "  ".join(filter(None, parts))
