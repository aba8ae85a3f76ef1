"""`gridlane issuer`: who is believed when it says who somebody is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.issuer_pb2 import Issuer

app = typer.Typer(
    help="Issuers of tokens: list, show, create, update, delete.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="ISSUER", help="Its name, as cms-iam.")]
Audiences = Annotated[
    list[str] | None,
    typer.Option("--audience", help="An audience that is accepted; several times for several."),
]
Algorithms = Annotated[
    list[str] | None,
    typer.Option("--algorithm", help="RS256 or ES256; twice for both. Without: both."),
]
JwksUri = Annotated[str | None, typer.Option(metavar="URL", help="Where its keys are fetched.")]
Jwks = Annotated[
    Path | None,
    typer.Option(
        "--jwks", help="A file with its public keys (JWKS), instead.", exists=True, dir_okay=False
    ),
]
GroupAge = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long groups are believed of work that runs later. Without: 24h.",
    ),
]
TokenLifetime = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="The longest life of a token. Without: any."),
]
Description = Annotated[str | None, typer.Option(help="What it is.")]
_RESETTABLE = (
    "audiences",
    "jwks-uri",
    "jwks",
    "algorithms",
    "max-group-age",
    "max-token-lifetime",
    "description",
)


@app.command("list")
def list_issuers(
    vo: Annotated[str | None, typer.Option(help="Only those that speak for this VO.")] = None,
    limit: Limit = 100,
    output: Output = "text",
) -> None:
    """List the issuers, by name."""
    with connect() as client:
        found = list(client.issuers.list(vo=vo, limit=limit))
    columns = ("ISSUER", "URL", "VO", "STATE", "FROM", ">KEYS", "-PROBLEM")
    terminal.show_list(found, columns, _row, "no issuers", output)


@app.command()
def show(issuer: Name, output: Output = "text") -> None:
    """Show one issuer, and how its keys are."""
    with connect() as client:
        found = client.issuers.get(issuer)
    terminal.show_message(found, _pairs(found), output)


@app.command()
def create(
    issuer: Name,
    url: Annotated[str, typer.Option(help="The claim iss of its tokens, exactly.")],
    vo: Annotated[str, typer.Option(help="The VO for which it speaks.")],
    enable: Annotated[
        bool, typer.Option("--enable", help="Accept its tokens from now on.")
    ] = False,
    audience: Audiences = None,
    jwks_uri: JwksUri = None,
    jwks: Jwks = None,
    algorithm: Algorithms = None,
    max_group_age: GroupAge = None,
    max_token_lifetime: TokenLifetime = None,
    description: Description = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Add an issuer: for administrators. Its tokens are accepted with --enable, or later."""
    age = units.parse_option("--max-group-age", max_group_age, units.parse_duration)
    lifetime = units.parse_option("--max-token-lifetime", max_token_lifetime, units.parse_duration)
    keys = _keys(jwks, jwks_uri)
    with connect() as client:
        made = client.issuers.create(
            issuer,
            url=url,
            vo=vo,
            audiences=audience or (),
            jwks_uri=jwks_uri or "",
            jwks=keys or "",
            algorithms=algorithm or (),
            enabled=enable,
            max_group_age=age,
            max_token_lifetime=lifetime,
            description=description or "",
            reason=reason,
        )
    terminal.show_message(made, _pairs(made), output)


@app.command()
def update(
    issuer: Name,
    enable: Annotated[
        bool | None,
        typer.Option(
            "--enable/--disable",
            help="Accept its tokens, or refuse them and end what its users watch.",
        ),
    ] = None,
    audience: Audiences = None,
    jwks_uri: JwksUri = None,
    jwks: Jwks = None,
    algorithm: Algorithms = None,
    max_group_age: GroupAge = None,
    max_token_lifetime: TokenLifetime = None,
    description: Description = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Give one its default, several times for several: {', '.join(_RESETTABLE)}.",
        ),
    ] = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Change an issuer: for administrators. What is not named stays."""
    age = units.parse_option("--max-group-age", max_group_age, units.parse_duration)
    lifetime = units.parse_option("--max-token-lifetime", max_token_lifetime, units.parse_duration)
    keys = _keys(jwks, jwks_uri)
    given = (enable, audience, jwks_uri, keys, algorithm, age, lifetime, description, reset)
    if all(value is None for value in given):
        raise typer.BadParameter("nothing to change: see `gridlane issuer update --help`")
    with connect() as client:
        changed = client.issuers.update(
            issuer,
            audiences=audience,
            jwks_uri=jwks_uri,
            jwks=keys,
            algorithms=algorithm,
            enabled=enable,
            max_group_age=age,
            max_token_lifetime=lifetime,
            description=description,
            clear=[_field(name) for name in reset or ()],
            reason=reason,
        )
    terminal.show_message(changed, _pairs(changed), output)


@app.command()
def delete(issuer: Name, reason: Reason = "", output: Output = "text") -> None:
    """Take an issuer off the list: for administrators. --disable can be taken back."""
    with connect() as client:
        revision = client.issuers.delete(issuer, reason=reason)
    terminal.show_revision("deleted", revision, output)


def _keys(file: Path | None, uri: str | None) -> str | None:
    """The keys in the file of --jwks, which excludes the URL of --jwks-uri."""
    if file is not None and uri is not None:
        raise typer.BadParameter("--jwks and --jwks-uri exclude each other")
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--jwks: {file} cannot be read: {error}") from error


def _field(name: str) -> str:
    if name not in _RESETTABLE:
        raise typer.BadParameter(f"--reset {name}: one of {', '.join(_RESETTABLE)}")
    return name.replace("-", "_")


def _row(issuer: Issuer) -> tuple[str, ...]:
    return (
        _bare(issuer),
        plain(issuer.url),
        plain(issuer.vo),
        _state(issuer),
        _origin(issuer),
        str(len(issuer.keys.key_ids)),
        plain(issuer.keys.message),
    )


def _pairs(issuer: Issuer) -> Iterator[tuple[str, str]]:
    yield "issuer", _bare(issuer)
    yield "url", plain(issuer.url)
    yield "vo", plain(issuer.vo)
    yield "state", _state(issuer)
    yield "from", _origin(issuer)
    yield "description", plain(issuer.description)
    yield "audiences", plain(", ".join(issuer.audiences))
    yield "algorithms", plain(", ".join(issuer.algorithms))
    yield "keys at", plain(issuer.jwks_uri)
    yield "keys", plain(", ".join(issuer.keys.key_ids))
    yield "fetched", units.local_time(issuer.keys.fetch_time)
    yield "problem", plain(issuer.keys.message)
    for field, name in (("max_group_age", "group age"), ("max_token_lifetime", "token life")):
        if issuer.HasField(field):  # type: ignore[arg-type]
            yield name, f"at most {units.duration(units.seconds_of(getattr(issuer, field)))}"
    yield "made", units.local_time(issuer.create_time)
    yield "changed", units.local_time(issuer.update_time)
    if issuer.revision:
        yield "policy", f"revision {issuer.revision}"


def _bare(issuer: Issuer) -> str:
    return plain(issuer.name.removeprefix("issuers/"))


def _state(issuer: Issuer) -> str:
    return "on" if issuer.enabled else "off"


def _origin(issuer: Issuer) -> str:
    from gridlane.authorization.v1.issuer_pb2 import IssuerOrigin
    from gridlane.states import enum_word

    return enum_word(IssuerOrigin, issuer.origin, "ISSUER_ORIGIN_")
