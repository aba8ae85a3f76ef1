"""What the commands of `gridlane-server` share: exit codes, options, refusals, settings.

Everything heavy is imported where it is needed, so that `--help` and a refused start are quick.
"""

import asyncio
import gc
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gridlane_kit.server import Server
    from gridlane_server.configuration import Configuration

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_TEMPFAIL = 75


class Form(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[Form, typer.Option("--output", help="The form of the answer.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="GRIDLANE_DATA_DIR",
        help="Where everything is kept; ~/.local/share/gridlane when not given.",
        file_okay=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="GRIDLANE_CONFIG", help="The TOML file of settings.", dir_okay=False
    ),
]
Host = Annotated[str | None, typer.Option(help="Address to serve on; 127.0.0.1 when not given.")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes any free one.")
]
ReadyFile = Annotated[
    Path | None, typer.Option(help="Written (JSON) when the server serves.", dir_okay=False)
]


def refuse(message: str, code: int) -> NoReturn:
    """Ends the command with a message on standard error."""
    typer.echo(f"gridlane-server: {message}", err=True)
    raise typer.Exit(code)


def read_configuration(
    service: str | None = None, /, *, config: Path | None = None, **server: Any
) -> "Configuration":
    """Reads the settings; what is wrong with them ends the command.

    Parameters:
        service: the one that the process runs, None for all.
        config: the TOML file; None for the one that GRIDLANE_CONFIG names.
        server: settings of the server that were given as options, None where they were not.
    """
    from pydantic import ValidationError

    from gridlane_kit.settings import CONFIG_VARIABLE
    from gridlane_server.configuration import Configuration

    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)  # where every settings class looks
    given = {name: value for name, value in server.items() if value is not None}
    try:
        return Configuration.load(service, **given)
    except ValidationError as error:
        problems = "; ".join(
            f"{error.title}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        refuse(problems, EX_USAGE)
    except (OSError, ValueError) as error:
        refuse(f"GRIDLANE_CONFIG: {error}", EX_USAGE)


async def serve(
    make: Callable[[], "Server"],
    refusals: tuple[type[Exception], ...],
    tell: Callable[["Server"], None],
) -> int:
    """Runs a server until it is asked to stop; returns the exit code.

    Parameters:
        make: assembles it.
        refusals: what keeps it from serving, and is told in one line, beside what the kit refuses.
        tell: says to people that it serves.
    """
    from gridlane_kit.assertions import ServiceKeysError
    from gridlane_kit.database import DatabaseUnusableError
    from gridlane_kit.server import PortUnavailableError, rest_collector
    from gridlane_kit.tls import CertificateError
    from gridlane_server.issuers import IssuerError

    refusals += (
        CertificateError,
        DatabaseUnusableError,
        IssuerError,
        OSError,
        PortUnavailableError,
        ServiceKeysError,
    )
    try:
        server = make()
        # What was imported and assembled stays: a start takes a tenth less when it is not walked.
        gc.freeze()
        gc.enable()
        server.stop_on_signals()
        serving = await _started(server)
    except refusals as error:
        typer.echo(f"gridlane-server: {error}", err=True)
        return EX_UNAVAILABLE
    if serving:
        tell(server)
        rest_collector()
        await server.wait()
        await server.stop()
    return 0


async def _started(server: "Server") -> bool:
    """Starts a server; False when it is asked to stop while it still waits for others."""
    starting = asyncio.create_task(server.start(), name="start")
    asked = asyncio.create_task(server.wait(), name="asked to stop")
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    waiting = not starting.done()
    for task in (starting, asked):
        if not task.done():
            task.cancel()
    ended = await asyncio.gather(starting, asked, return_exceptions=True)
    if isinstance(ended[0], Exception):
        raise ended[0]
    return not waiting
