"""`gridlane run`: one command with its files, as a job, from here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gridlane.cli import terminal, units
from gridlane.cli.exit_codes import (
    CannotCreateError,
    ExitCode,
    exit_code_of_files,
    exit_code_of_job,
)
from gridlane.cli.files import progress_bar
from gridlane.cli.run_files import LocalFiles, own_folder
from gridlane.cli.run_plan import Input, Output, read_environment, read_inputs, read_outputs
from gridlane.cli.session import connect

if TYPE_CHECKING:
    from gridlane.client import Client
    from gridlane.workload.v1.job_pb2 import Job

_HELP = (
    "Run a command with its files as a job, and wait for it.\n\n"
    "Everything after -- is the command; no shell is between. A local input is put into the store"
    " first, and removed when the job has ended; an output with a local path is fetched from there"
    " when the job is done, verified. Ctrl-C cancels the job; Ctrl-C again leaves at once.\n\n"
    "[bold]Exit codes[/]: the payload's own, 128+n when signal n ended it. Otherwise the command's"
    " own: 64 usage · 65 an input is missing, refused or has another checksum · 69 a service or"
    " backend is away · 70 a defect · 73 an output is missing or its target cannot be written"
    " · 74 no space, or a local file cannot be read or written · 75 try again later · 77 denied"
    " · 78 configuration · 124 walltime · 127 no such command · 130 cancelled"
    " · 137 over its limits. [bold]--output json[/] says whose the code is."
)


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    settings = {"allow_interspersed_args": False}
    app.command("run", help=_HELP, context_settings=settings, no_args_is_help=True)(run)


def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND ARGS...", help="What is run, and its arguments."),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="PATH|URL|LFN[=NAME]", help="A file it reads."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NAME=PATH|URL|LFN",
            help="A file it writes, and where that goes. The word json alone: as --format json.",
        ),
    ] = None,
    checksums: Annotated[
        list[str] | None,
        typer.Option(
            "--checksum",
            metavar="[NAME=]ALGORITHM:HEX",
            help="What an input must have, as ADLER32:0a1b2c3d; NAME when there are several.",
        ),
    ] = None,
    walltime: Annotated[
        str | None, typer.Option(help="How long it may run: 90s, 5m, 1h30m. Else 24 hours.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Address space of each process: 512M, 2G. Else no limit.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Processors.")] = 1,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="K=V", help="A variable; K alone: yours."),
    ] = None,
    vo: Annotated[str, typer.Option(help="The VO; needed when you belong to several.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is at the outputs' URLs or LFNs.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the job's name and leave it running.")
    ] = False,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines", help="Progress as lines on standard error, where no terminal shows it live."
        ),
    ] = False,
    form: Annotated[
        Literal["text", "json"], typer.Option("--format", help="json: one object at the end.")
    ] = "text",
) -> int:
    given = [text for text in outputs or () if text != "json"]
    terminal.use_json(form == "json" or len(given) < len(outputs or ()))
    plan = Plan(
        command=command,
        inputs=read_inputs(inputs or (), checksums or ()),
        outputs=read_outputs(given),
        options={
            "name": name,
            "environment": read_environment(variables or ()),
            "walltime": units.parse_option("--walltime", walltime, units.parse_duration),
            "memory_bytes": units.parse_option("--memory", memory, units.parse_size) or 0,
            "cpu_cores": cpus,
            "vo": vo,
        },
        overwrite=overwrite,
    )
    with connect() as client:
        return Run(client, plan, lines=lines).start(detach=detach)


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        command: the program and its arguments.
        inputs, outputs: its files.
        options: further parameters of `gridlane.new_job`.
        overwrite: whether outputs replace what is at their targets.
    """

    command: Sequence[str]
    inputs: Sequence[Input]
    outputs: Sequence[Output]
    options: dict[str, Any]
    overwrite: bool


class Run:
    """One run, from the local files to the exit code.

    Parameters:
        client: whose job it is.
        plan: what is to be run.
        lines: tell progress in lines where it cannot be drawn.
    """

    def __init__(self, client: Client, plan: Plan, *, lines: bool) -> None:
        self._client = client
        self._lines = lines
        self._plan = plan
        local = [*(i.local for i in plan.inputs), *(o.local for o in plan.outputs)]
        folder = own_folder(client, plan.options["vo"]) if any(local) else ""
        self._files = LocalFiles(client, folder, [])
        self._inputs: Sequence[Input] = plan.inputs
        self._outputs = self._files.place(plan.outputs)

    def start(self, *, detach: bool) -> int:
        """Submit, and unless detached follow to the end.

        Returns:
            The exit code.
        """
        self._inputs = self._files.bring(self._plan.inputs, progress_bar)
        job = self._submit()
        if detach:
            return self._tell_detached(job)
        if sys.stderr.isatty() and not terminal.is_json():
            terminal.note(job.name)
        return self._follow(job)

    def _submit(self) -> Job:
        from gridlane.descriptions import new_input, new_job
        from gridlane.workload.v1.job_pb2 import JobOutput

        message = new_job(
            self._plan.command,
            inputs=[
                new_input(given.name, given.source, given.checksum or None)
                for given in self._inputs
            ],
            outputs=[
                JobOutput(path=made.name, target=made.target, overwrite=self._plan.overwrite)
                for made in self._outputs
            ],
            **self._plan.options,
        )
        try:
            return self._client.tasks.submit(message).job
        except BaseException:
            self._files.take_back()
            raise

    def _tell_detached(self, job: Job) -> int:
        if terminal.is_json():
            terminal.show_json({"exit_code": 0, "exit_code_of": "client", **self._told(job)})
        else:
            terminal.line(job.name)
        for output in self._outputs:
            if output.local is not None:
                terminal.note(f"when it is done: gridlane get {output.target} {output.local}")
        self._tell_kept(self._files.put)
        return ExitCode.OK

    def _follow(self, job: Job) -> int:
        from gridlane.cli.run_follow import Follower, LeftBehindError
        from gridlane.cli.run_progress import Picture
        from gridlane.errors import GridlaneError

        title = self._plan.options["name"] or Path(self._plan.command[0]).name
        picture = Picture(job.name, title, units.seconds_of(job.create_time))
        follower = Follower(self._client, picture, quiet=terminal.is_json(), lines=self._lines)
        try:
            ended = follower.follow()
        except LeftBehindError as left:
            said = "is being cancelled" if left.confirmed else "may not be cancelled"
            code = self._fail(job, f"left; the job {said}", ExitCode.CANCELLED)
            self._tell_kept(self._files.put)
            return code
        except GridlaneError as error:
            code = terminal.fail_call(error, self._told(job))
            terminal.note(f"the job goes on: gridlane job watch {job.name}")
            self._tell_kept(self._files.put)
            return code
        code = self._end(ended)
        self._tell_kept(self._files.take_back())
        return code

    def _tell_kept(self, names: Sequence[str]) -> None:
        """Say which inputs stay in the store, and how they are removed."""
        for name in names:
            terminal.note(f"its input stays in the store; when it has ended: gridlane rm {name}")

    def _end(self, job: Job) -> int:
        from gridlane.states import failure_word, job_state_word

        code, whose = exit_code_of_job(job)
        if code == ExitCode.OK:
            return self._fetch(job)
        if terminal.is_json():
            terminal.show_json({"exit_code": code, "exit_code_of": whose, **self._told(job)})
            return code
        if code == ExitCode.CANCELLED:
            terminal.note(f"cancelled: {job.name} is {job_state_word(job.state)}")
            return code
        failure = job.failure
        word = failure_word(failure.failure_class) if failure.failure_class else ""
        message = failure.message or job.minor_status or "the job ended badly"
        terminal.fail(
            message,
            code,
            reason=word,
            problems=[job.name],
            cure=failure.cure or f"gridlane job show {job.name}; gridlane trace {job.name}",
        )
        return code

    def _fetch(self, job: Job) -> int:
        from gridlane.errors import GridlaneError

        try:
            self._files.fetch(self._outputs, progress_bar)
        except GridlaneError as error:
            return terminal.fail_call(error, self._told(job))
        except OSError as error:
            code = exit_code_of_files(CannotCreateError(*error.args))
            return self._fail(job, f"an output stays in the store: {error}", code)
        if terminal.is_json():
            told = {"exit_code": 0, "exit_code_of": "payload", **self._told(job)}
            terminal.show_json(told)
        elif sys.stderr.isatty():
            terminal.note(self._summary(job))
        return ExitCode.OK

    def _fail(self, job: Job, message: str, code: ExitCode) -> int:
        terminal.fail(message, code, cure=f"gridlane job show {job.name}", extra=self._told(job))
        return code

    def _summary(self, job: Job) -> str:
        ran = units.duration(units.seconds_of(job.resource_use.wall_time))
        made = [f"{output.name} → {output.local or output.target}" for output in self._outputs]
        return "\n".join([f"done in {ran} ({job.name})", *made])

    def _told(self, job: Job) -> dict[str, Any]:
        """What the JSON form says of the job, beside the exit code."""
        from gridlane.states import failure_word, job_state_word

        failure = None
        if job.HasField("failure"):
            failure = {
                "failure_class": failure_word(job.failure.failure_class),
                "message": job.failure.message,
                "cure": job.failure.cure,
            }
        return {
            "job": job.name,
            "state": job_state_word(job.state),
            "failure": failure,
            "trace_id": job.trace_id,
            "inputs": [{"name": i.name, "source": i.source} for i in self._inputs],
            "outputs": [
                {"name": o.name, "target": o.target, "path": str(o.local) if o.local else None}
                for o in self._outputs
            ],
        }
