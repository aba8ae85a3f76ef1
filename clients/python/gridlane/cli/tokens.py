"""`gridlane token`: tokens that Gridlane signs for users.

Responsible for options and for what people read. A token goes to standard output alone, so that it
can be kept in a file without being seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.token_pb2 import Token
    from gridlane.authorization.v1.token_service_pb2 import (
        CreateTokenResponse,
        ExchangeTokenResponse,
    )

app = typer.Typer(help="Tokens: create, exchange, list, revoke.", no_args_is_help=True)

Vos = Annotated[list[str] | None, typer.Option("--vo", help="A VO; several times for several.")]
Groups = Annotated[
    list[str] | None, typer.Option("--group", help="A group's path; several times for several.")
]
ActiveGroup = Annotated[str, typer.Option(help="The one of the groups in which it acts.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="A scope, as storage.read:/cms; several times for several."),
]


@app.command()
def create(
    subject: Annotated[str, typer.Argument(metavar="USER", help="The user's subject.")],
    display_name: Annotated[str, typer.Option("--name", help="A name for people.")] = "",
    vo: Vos = None,
    group: Groups = None,
    active_group: ActiveGroup = "",
    scope: Scopes = None,
    lasting: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long, at most 30d.")
    ] = "1d",
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Make a token for a user of Gridlane's own issuer, and write it to standard output: for
    administrators."""
    lifetime = units.parse_option("--for", lasting, units.parse_duration)
    with connect() as client:
        made = client.tokens.create(
            subject,
            display_name=display_name,
            vos=vo or (),
            groups=group or (),
            active_group=active_group,
            scopes=scope or (),
            lifetime=lifetime,
            reason=reason,
        )
    _hand_over(made, output)


@app.command()
def exchange(
    scope: Scopes = None,
    vo: Vos = None,
    group: Groups = None,
    active_group: ActiveGroup = "",
    audience: Annotated[str, typer.Option(help="For whom it is. Without: this server.")] = "",
    lasting: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long, at most 6h.")
    ] = "1h",
    output: Output = "text",
) -> None:
    """Have a token that says less than yours, and write it to standard output."""
    lifetime = units.parse_option("--for", lasting, units.parse_duration)
    with connect() as client:
        made = client.tokens.exchange(
            scopes=scope or (),
            vos=vo or (),
            groups=group or (),
            active_group=active_group,
            audience=audience,
            lifetime=lifetime,
        )
    _hand_over(made, output)


@app.command("list")
def list_tokens(
    subject: Annotated[str | None, typer.Argument(metavar="USER", help="Only this user's.")] = None,
    limit: Limit = 100,
    output: Output = "text",
) -> None:
    """List the tokens that were signed for you, or all for administrators; newest first."""
    with connect() as client:
        found = list(client.tokens.list(subject=subject, limit=limit))
    columns = ("TOKEN", "USER", "VOS", "-GROUPS", "-SCOPES", "UNTIL", "-REVOKED", "-REASON")
    terminal.show_list(found, columns, _row, "no tokens", output)


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="tokens/<id>, or the id.")],
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Revoke a token, and those that were had from it by exchange: refused within a second."""
    with connect() as client:
        gone = client.tokens.revoke(token, reason=reason)
    terminal.show_message(gone, _pairs(gone), output)


def _hand_over(made: CreateTokenResponse | ExchangeTokenResponse, output: str) -> None:
    if output == "json":
        terminal.show_json(terminal.as_dict(made))
    else:
        typer.echo(made.token)


def _row(token: Token) -> tuple[str, ...]:
    return (
        token.name,
        plain(token.principal.subject),
        plain(", ".join(token.principal.vos)),
        plain(", ".join(token.principal.groups)),
        plain(" ".join(token.scopes)),
        units.local_time(token.expire_time),
        units.local_time(token.revoke_time),
        plain(token.reason),
    )


def _pairs(token: Token) -> Iterator[tuple[str, str]]:
    yield "token", token.name
    yield "user", plain(token.principal.subject)
    yield "issuer", plain(token.principal.issuer)
    yield "vos", plain(", ".join(token.principal.vos))
    yield "scopes", plain(" ".join(token.scopes)) or "not narrowed"
    yield "until", units.local_time(token.expire_time)
    yield "revoked", units.local_time(token.revoke_time)
