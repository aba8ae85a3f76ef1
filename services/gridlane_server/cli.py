"""`gridlane-server`: the command of those who run Gridlane.

Responsible for the commands of the embedded server, of settings and of databases, and for what
people read. Those of one process a service stand in `service_commands`, those about tokens in
`token_commands`; what all share in `command`. Everything heavy is imported by the command that
needs it.

Exit codes (sysexits.h): 64 usage or settings, 69 a port or the database cannot be had, 73 a
directory is not to be initialised, 75 another process holds the data directory or the database.
"""

import gc
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridlane.configuration import SERVICES
from gridlane_server import service_commands, token_commands
from gridlane_server.command import (
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    EX_USAGE,
    Config,
    DataDir,
    Form,
    Host,
    Output,
    Port,
    ReadyFile,
    read_configuration,
    refuse,
    serve,
)

if TYPE_CHECKING:
    from gridlane_kit.data_directory import DataDirectory
    from gridlane_kit.server import Server

_TYPER_USAGE = 2

app = typer.Typer(
    name="gridlane-server",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs Gridlane's services.",
)


MigrateConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The TOML file that names the services' databases.", dir_okay=False
    ),
]


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
    host: Host = None,
    port: Port = None,
    health_port: Port = None,
    ready_file: ReadyFile = None,
) -> None:
    """Runs all services in one process, on one port, with nothing else installed."""
    configuration = read_configuration(
        host=host, port=port, health_port=health_port, ready_file=ready_file
    )
    from gridlane_server.configuration import STORES

    placed = [name for name in STORES if configuration.database_url(name)]
    if placed:
        refuse(
            f"GRIDLANE_{placed[0].upper()}_DATABASE_URL is set, and `all` has its databases in its"
            " data directory: unset it, or run one process a service",
            EX_USAGE,
        )
    data = _held(data_dir)
    from gridlane_authorization.key_files import SigningKeyError
    from gridlane_kit import logs
    from gridlane_kit.server import run
    from gridlane_server.assembly import embedded_server
    from gridlane_workload.backends.embedded.account import UnsafeBindError

    logs.configure(json=configuration.server.log_json, level=configuration.server.log_level)
    try:
        code = run(
            lambda: serve(
                lambda: embedded_server(configuration, data),
                (SigningKeyError, UnsafeBindError),
                partial(_tell_ready, data),
            )
        )
    finally:
        data.close()
    raise typer.Exit(code)


@app.command()
def config(
    data_dir: DataDir = None,
    config_file: Config = None,
    service: Annotated[
        str | None, typer.Option(help="As this service's own process has them.")
    ] = None,
    output: Output = Form.TEXT,
) -> None:
    """Prints the settings that are in force, secrets masked."""
    from gridlane_server.configuration import default_data_directory

    described = read_configuration(service, config=config_file).described(
        data_dir or default_data_directory()
    )
    if output is Form.JSON:
        typer.echo(json.dumps(described, indent=2))
        return
    for name, value in _flat(described):
        typer.echo(f"{name} = {json.dumps(value, ensure_ascii=False)}")


@app.command()
def migrate(
    data_dir: DataDir = None,
    config_file: MigrateConfig = None,
    service: Annotated[
        list[str] | None,
        typer.Option(help="A service whose database its settings name; once for each."),
    ] = None,
) -> None:
    """Brings databases up to date: those of a data directory (`all` does so by itself), or those
    of one process a service, with --config or --service."""
    if config_file is None and not service:
        _migrate_data_directory(data_dir)
        return
    service_commands.migrate(read_configuration(config=config_file), service or [])


def _migrate_data_directory(data_dir: Path | None) -> None:
    import asyncio

    from gridlane_kit.database import DatabaseUnusableError
    from gridlane_server import schema

    data = _held(data_dir)
    try:
        files = asyncio.run(schema.migrate(data))
    except DatabaseUnusableError as error:
        refuse(str(error), EX_UNAVAILABLE)
    finally:
        data.close()
    for file in files:
        typer.echo(f"{file}: up to date")


@app.command(hidden=True)
def failpoints() -> None:
    """Prints the names of all failpoints, for the fault suite."""
    import importlib

    from gridlane_kit.failpoints import registered

    for module in ("kit.postgresql", *(f"{service}.room" for service in SERVICES)):
        importlib.import_module(f"gridlane_{module}")
    for name in registered():
        typer.echo(name)


def _tell_ready(data: "DataDirectory", server: "Server") -> None:
    typer.echo(f"Gridlane serves on {server.address} (health on {server.health_address})")
    typer.echo(f"  data directory  {data.root}")
    typer.echo(f"  token file      {data.token_file}")
    if sys.stdout.isatty():
        typer.echo(f"  token           {data.token_file.read_text()}")
    sys.stdout.flush()


def _held(data_dir: Path | None) -> "DataDirectory":
    from gridlane_kit.data_directory import DataDirectory, DataDirectoryInUseError
    from gridlane_server.configuration import default_data_directory

    root = data_dir or default_data_directory()
    try:
        return DataDirectory.open(root)
    except DataDirectoryInUseError as error:
        refuse(str(error), EX_TEMPFAIL)
    except OSError as error:
        refuse(f"the data directory {root} cannot be used: {error}", EX_UNAVAILABLE)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found.extend(_flat(value, f"{prefix}{name}."))
        else:
            found.append((f"{prefix}{name}", value))
    return found


service_commands.register(app)
token_commands.register(app)


def main() -> None:
    """The entry point; typer's own code for a wrong usage becomes that of sysexits.h."""
    # A command makes much and drops little; `serve` turns it on again.
    gc.disable()
    try:
        app()
    except SystemExit as end:
        sys.exit(EX_USAGE if end.code == _TYPER_USAGE else end.code)


if __name__ == "__main__":
    main()
