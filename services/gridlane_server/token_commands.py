"""The operators' commands about users' tokens: the outside issuers, the signing key.

Responsible for options and for what people read; what is done stands in the kit and in
Authorization.
"""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane_server.command import (
    EX_UNAVAILABLE,
    EX_USAGE,
    Config,
    DataDir,
    Form,
    Output,
    read_configuration,
    refuse,
)

if TYPE_CHECKING:
    from gridlane_authorization.key_files import KeyFiles
    from gridlane_kit.issuers import IssuerReport
    from gridlane_server.configuration import Configuration


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(issuers)
    app.command(name="rotate-key")(rotate_key)


def issuers(config_file: Config = None, output: Output = Form.TEXT) -> None:
    """Fetches the keys of each outside issuer of tokens that the settings name, as a server does.

    Exits with 69 when those of one cannot be had.
    """
    from gridlane_kit import logs
    from gridlane_server.issuers import IssuerError, outside_issuers

    logs.configure(level="ERROR")  # what went wrong is told below
    configuration = read_configuration(config=config_file)
    try:
        reports = asyncio.run(outside_issuers(configuration.authorization).report())
    except IssuerError as error:
        refuse(str(error), EX_UNAVAILABLE)
    if output is Form.JSON:
        typer.echo(json.dumps([report._asdict() for report in reports], indent=2))
    else:
        for report in reports:
            typer.echo(_told(report))
        if not reports:
            typer.echo("no outside issuer is configured")
    if any(report.problem for report in reports):
        raise typer.Exit(EX_UNAVAILABLE)


def rotate_key(
    data_dir: DataDir = None,
    config_file: Config = None,
    keep_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="For how long the old key's tokens are good, at most; until the last of them ends"
            " when not given. 0: not any more, because the key is known to others.",
        ),
    ] = None,
) -> None:
    """Replaces the key that tokens are signed with; servers that run take it up by themselves."""
    from gridlane_authorization import key_files
    from gridlane_kit.data_directory import LockedError

    configuration = read_configuration(config=config_file)
    longest = max(key_files.LONGEST_TOKEN_DAYS, configuration.authorization.token_lifetime_days)
    keep = longest if keep_days is None else keep_days
    try:
        kid = key_files.rotate_key(_files(configuration, data_dir), keep * 86_400)
    except (key_files.SigningKeyError, LockedError, OSError, ValueError) as error:
        refuse(str(error), EX_UNAVAILABLE)
    typer.echo(f"tokens are signed with the new key {kid}")


def _files(configuration: "Configuration", data_dir: Path | None) -> "KeyFiles":
    from gridlane_authorization.key_files import KeyFiles
    from gridlane_server.configuration import default_data_directory

    settings = configuration.authorization
    if settings.token_key is not None:
        if settings.jwks is None:
            refuse("GRIDLANE_AUTHORIZATION_JWKS is not set: where the public keys lie", EX_USAGE)
        return KeyFiles(settings.token_key, settings.jwks)
    return KeyFiles.in_folder((data_dir or default_data_directory()) / "keys")


def _told(report: "IssuerReport") -> str:
    found = report.problem or f"{len(report.keys)} keys: {', '.join(report.keys)}"
    return f"{report.url} (VO {report.vo}): {found}"
