"""`gridlane key`: the keys with which Gridlane signs its own tokens.

Responsible for options, for asking before every token ends, and for what people read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, Reason

if TYPE_CHECKING:
    from gridlane.authorization.v1.signing_key_pb2 import SigningKey

app = typer.Typer(help="Keys that sign tokens: list, rotate.", no_args_is_help=True)

_ENDS = (
    "every token that the present key signed ends within a second, those of running jobs among them"
)


@app.command("list")
def list_keys(
    limit: Limit = 100,
    output: Output = "text",
) -> None:
    """List the keys that sign, will sign, or did and are needed still; newest first."""
    with connect() as client:
        found = list(client.keys.list(limit=limit))
    columns = ("KEY", "STATE", "SIGNS FROM", "-UNTIL", "-NEEDED UNTIL")
    terminal.show_list(found, columns, _row, "no keys", output)


@app.command()
def rotate(
    publish_for: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long others can learn the new key before it signs, at most 30d. Without: it"
            " signs at once.",
        ),
    ] = None,
    revoke_present: Annotated[
        bool,
        typer.Option("--revoke-present", help=f"The present key is known to others: {_ENDS}."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Make a new key, which takes the place of the present one: for administrators."""
    waits = units.parse_option("--publish-for", publish_for, units.parse_duration)
    if waits is not None and revoke_present:
        raise typer.BadParameter("--publish-for and --revoke-present exclude each other")
    if revoke_present and not yes:
        _ask()
    with connect() as client:
        made = client.keys.rotate(publish_for=waits, revoke_present=revoke_present, reason=reason)
    terminal.show_message(made, _pairs(made), output)


def _ask() -> None:
    """Asks who sits at a terminal; whoever does not must have said yes."""
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"--revoke-present: {_ENDS}; say --yes if that is wanted")
    typer.confirm(f"{_ENDS.capitalize()}. Go on?", abort=True, err=True)


def _row(key: SigningKey) -> tuple[str, ...]:
    return (
        key.name,
        _state(key),
        units.local_time(key.activate_time),
        units.local_time(key.retire_time),
        units.local_time(key.expire_time),
    )


def _pairs(key: SigningKey) -> Iterator[tuple[str, str]]:
    yield "key", key.name
    yield "state", _state(key)
    yield "signs from", units.local_time(key.activate_time)
    yield "until", units.local_time(key.retire_time)
    yield "needed until", units.local_time(key.expire_time)


def _state(key: SigningKey) -> str:
    from gridlane.authorization.v1.signing_key_pb2 import SigningKeyState
    from gridlane.states import enum_word

    return enum_word(SigningKeyState, key.state, "SIGNING_KEY_STATE_")
