"""`gridlane logs`: what a payload wrote."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from gridlane.cli.jobs import Name
from gridlane.cli.session import connect


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("logs")(show_logs)


def show_logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the payload has ended.")
    ] = False,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Its standard error instead of its standard output.")
    ] = False,
    attempt: Annotated[int, typer.Option(min=0, help="Which attempt; 0: the present one.")] = 0,
) -> None:
    """Print what a payload wrote to its standard output, byte for byte."""
    with connect() as client:
        stream: Literal["stdout", "stderr"] = "stderr" if stderr else "stdout"
        for chunk in client.jobs.log(name, stream, follow=follow, attempt=attempt):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
