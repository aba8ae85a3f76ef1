"""The commands of one process a service: `init`, one for each service, and their `migrate`.

Responsible for options and for what people read; what is done stands in `initialise`, `split` and
`schema`.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.configuration import SERVICES
from gridlane_server.command import (
    EX_CANTCREAT,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    EX_USAGE,
    Config,
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
    from gridlane_kit.server import Server
    from gridlane_server.configuration import Configuration
    from gridlane_server.initialise import Initialised


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(init)
    for service in SERVICES:
        app.command(name=service, help=f"Runs {service} alone, its peers in other processes.")(
            _command(service)
        )


def init(
    directory: Annotated[Path, typer.Argument(help="New or empty.", file_okay=False)],
    host: Annotated[
        str, typer.Option(help="Name or address that the services listen on and are reached at.")
    ] = "127.0.0.1",
    first_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65_000,
            help="The gateway's port; the others take the next ones. 0 takes any free ones.",
        ),
    ] = 50051,
    database_url_template: Annotated[
        str,
        typer.Option(
            help="The databases, for example postgresql+asyncpg://user@host/gridlane_{service};"
            " SQLite files in the directory when not given."
        ),
    ] = "",
    output: Output = Form.TEXT,
) -> None:
    """Writes what one process a service needs: settings, keys, test certificates, a token."""
    from gridlane_server.initialise import AlreadyThereError, initialise

    try:
        made = initialise(
            directory, host=host, first_port=first_port, database_url=database_url_template
        )
    except ValueError as error:
        refuse(str(error), EX_USAGE)
    except (AlreadyThereError, OSError) as error:
        refuse(str(error), EX_CANTCREAT)
    if output is Form.JSON:
        typer.echo(json.dumps(_described(made), indent=2))
    else:
        _tell_made(made)


def migrate(configuration: "Configuration", services: Sequence[str]) -> None:
    """Brings the databases of services up to date.

    Parameters:
        services: their names; none for all that have a database.
    """
    from gridlane_kit.data_directory import LockedError
    from gridlane_kit.database import DatabaseUnusableError
    from gridlane_server import schema
    from gridlane_server.configuration import STORES
    from gridlane_server.split import NotConfiguredError, sole_use

    strangers = [service for service in services if service not in STORES]
    if strangers:
        refuse(f"{strangers[0]} has no database; {', '.join(STORES)} have", EX_USAGE)
    for service in services or STORES:
        try:
            with sole_use(service, configuration):
                asyncio.run(schema.migrate_service(service, configuration.database_url(service)))
        except NotConfiguredError as error:
            refuse(str(error), EX_USAGE)
        except LockedError as error:
            refuse(f"{service} is running: {error}", EX_TEMPFAIL)
        except (DatabaseUnusableError, OSError) as error:
            refuse(f"{service}: {error}", EX_UNAVAILABLE)
        typer.echo(f"{service}: up to date")


def _command(service: str) -> Callable[..., None]:
    def run_service(
        config: Config = None,
        host: Host = None,
        port: Port = None,
        health_port: Port = None,
        ready_file: ReadyFile = None,
        migrate: Annotated[
            bool, typer.Option(help="Bring an older database up to date, instead of refusing it.")
        ] = False,
    ) -> None:
        configuration = read_configuration(
            service,
            config=config,
            host=host,
            port=port,
            health_port=health_port,
            ready_file=ready_file,
        )
        raise typer.Exit(_run(service, configuration, migrate))

    return run_service


def _run(service: str, configuration: "Configuration", migrate: bool) -> int:
    from gridlane_kit import logs
    from gridlane_kit.data_directory import LockedError
    from gridlane_kit.server import run
    from gridlane_server.split import NotConfiguredError, refusals, service_server, sole_use

    logs.configure(json=configuration.server.log_json, level=configuration.server.log_level)
    try:
        with sole_use(service, configuration):
            return run(
                lambda: serve(
                    lambda: service_server(service, configuration, migrate=migrate),
                    refusals(service),
                    partial(_tell_ready, service),
                )
            )
    except NotConfiguredError as error:
        refuse(str(error), EX_USAGE)
    except LockedError as error:
        refuse(
            f"{service} runs already: {error}; on SQLite it is one process, on PostgreSQL there"
            " may be more",
            EX_TEMPFAIL,
        )
    except OSError as error:
        refuse(str(error), EX_UNAVAILABLE)


def _tell_ready(service: str, server: "Server") -> None:
    typer.echo(f"{service} serves on {server.address} (health on {server.health_address})")
    sys.stdout.flush()


def _described(made: "Initialised") -> dict[str, object]:
    return {
        "directory": str(made.root),
        "config": str(made.config),
        "token_file": str(made.token_file),
        "ca": str(made.ca),
        "addresses": dict(made.addresses),
        "environment": dict(made.environment),
    }


def _tell_made(made: "Initialised") -> None:
    typer.echo(f"{made.config} says how the services run; its keys and certificates lie beside it.")
    typer.echo("The databases, then each service in a process of its own:")
    typer.echo(f"  gridlane-server migrate --config {made.config}")
    for service in SERVICES:
        typer.echo(f"  gridlane-server {service} --config {made.config}")
    typer.echo(f"What clients need: . {made.root / 'client.env'}")
    if sys.stdout.isatty():
        typer.echo(f"The first admin's token: {made.token_file.read_text()}")
