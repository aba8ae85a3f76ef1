"""`gridlane-server`: the command of those who run Gridlane.

Responsible for options, exit codes and what people read. Everything heavy is imported by the
command that needs it, so that `--help` and a refused start are quick.

Exit codes (sysexits.h): 64 usage or settings, 69 a port or the database cannot be had, 75 another
process holds the data directory.
"""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gridlane_kit.data_directory import DataDirectory
    from gridlane_kit.server import Server
    from gridlane_server.configuration import Configuration

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
_TYPER_USAGE = 2

app = typer.Typer(
    name="gridlane-server",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs Gridlane's services.",
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="GRIDLANE_DATA_DIR",
        help="Where everything is kept; ~/.local/share/gridlane when not given.",
        file_okay=False,
    ),
]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes any free one.")
]


class Form(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[Form, typer.Option("--output", help="The form of the answer.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from gridlane_kit.version import VERSION

        typer.echo(f"gridlane-server {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Runs Gridlane's services."""


@app.command(name="all")
def serve_all(
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to serve on; 127.0.0.1 when not given.")
    ] = None,
    port: Port = None,
    health_port: Port = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written (JSON) when the server serves.", dir_okay=False)
    ] = None,
) -> None:
    """Runs all services in one process, on one port, with nothing else installed."""
    configuration = _configuration(
        host=host, port=port, health_port=health_port, ready_file=ready_file
    )
    data = _held(data_dir)
    from gridlane_kit import logs
    from gridlane_kit.server import run

    logs.configure(json=configuration.server.log_json, level=configuration.server.log_level)
    try:
        code = run(lambda: _serve(configuration, data))
    finally:
        data.close()
    raise typer.Exit(code)


@app.command()
def config(data_dir: DataDir = None, output: Output = Form.TEXT) -> None:
    """Prints the settings that are in force, secrets masked."""
    from gridlane_server.configuration import default_data_directory

    described = _configuration().described(data_dir or default_data_directory())
    if output is Form.JSON:
        typer.echo(json.dumps(described, indent=2))
        return
    for name, value in _flat(described):
        typer.echo(f"{name} = {json.dumps(value, ensure_ascii=False)}")


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Brings the databases of a data directory up to date; `all` does so by itself."""
    import asyncio

    from gridlane_kit.database import DatabaseUnusableError
    from gridlane_server import schema

    data = _held(data_dir)
    try:
        files = asyncio.run(schema.migrate(data))
    except DatabaseUnusableError as error:
        _refuse(str(error), EX_UNAVAILABLE)
    finally:
        data.close()
    for file in files:
        typer.echo(f"{file}: up to date")


@app.command(hidden=True)
def failpoints() -> None:
    """Prints the names of all failpoints, for the fault suite."""
    import importlib

    from gridlane_kit.failpoints import registered

    importlib.import_module("gridlane_server.assembly")  # which imports every room
    for name in registered():
        typer.echo(name)


async def _serve(configuration: "Configuration", data: "DataDirectory") -> int:
    from gridlane_authorization.tokens import SigningKeyError
    from gridlane_kit.database import DatabaseUnusableError
    from gridlane_kit.server import PortUnavailableError
    from gridlane_server.assembly import embedded_server
    from gridlane_workload.backends.embedded.account import UnsafeBindError

    refusals = (
        DatabaseUnusableError,
        OSError,
        PortUnavailableError,
        SigningKeyError,
        UnsafeBindError,
    )
    try:
        server = embedded_server(configuration, data)
        server.stop_on_signals()
        await server.start()
    except refusals as error:
        typer.echo(f"gridlane-server: {error}", err=True)
        return EX_UNAVAILABLE
    _print_ready(server, data)
    await server.wait()
    await server.stop()
    return 0


def _print_ready(server: "Server", data: "DataDirectory") -> None:
    typer.echo(f"Gridlane serves on {server.address} (health on {server.health_address})")
    typer.echo(f"  data directory  {data.root}")
    typer.echo(f"  token file      {data.token_file}")
    if sys.stdout.isatty():
        typer.echo(f"  token           {data.token_file.read_text()}")
    sys.stdout.flush()


def _configuration(**server: Any) -> "Configuration":
    from pydantic import ValidationError

    from gridlane_server.configuration import Configuration

    given = {name: value for name, value in server.items() if value is not None}
    try:
        return Configuration.load(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{error.title}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        _refuse(problems, EX_USAGE)
    except (OSError, ValueError) as error:
        _refuse(f"GRIDLANE_CONFIG: {error}", EX_USAGE)


def _held(data_dir: Path | None) -> "DataDirectory":
    from gridlane_kit.data_directory import DataDirectory, DataDirectoryInUseError
    from gridlane_server.configuration import default_data_directory

    root = data_dir or default_data_directory()
    try:
        return DataDirectory.open(root)
    except DataDirectoryInUseError as error:
        _refuse(str(error), EX_TEMPFAIL)
    except OSError as error:
        _refuse(f"the data directory {root} cannot be used: {error}", EX_UNAVAILABLE)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found.extend(_flat(value, f"{prefix}{name}."))
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _refuse(message: str, code: int) -> NoReturn:
    typer.echo(f"gridlane-server: {message}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """The entry point; typer's own code for a wrong usage becomes that of sysexits.h."""
    try:
        app()
    except SystemExit as end:
        sys.exit(EX_USAGE if end.code == _TYPER_USAGE else end.code)


if __name__ == "__main__":
    main()
