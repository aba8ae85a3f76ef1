"""`gridlane vo`: virtual organisations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.vo_pb2 import Vo

app = typer.Typer(
    help="Virtual organisations: list, show, create, update, delete.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="VO", help="Its name, as cms.")]
Description = Annotated[str | None, typer.Option(help="What it is.")]
Contact = Annotated[str | None, typer.Option(help="Whom to ask: a mail address or a URL.")]


@app.command("list")
def list_vos(output: Output = "text") -> None:
    """List the VOs that you may see, by name."""
    with connect() as client:
        found = list(client.vos.list())
    columns = ("VO", "DESCRIPTION", "CONTACT", "MADE")
    terminal.show_list(found, columns, _row, "no VOs that you may see", output)


@app.command()
def show(vo: Name, output: Output = "text") -> None:
    """Show one VO."""
    with connect() as client:
        found = client.vos.get(vo)
    terminal.show_message(found, _pairs(found), output)


@app.command()
def create(
    vo: Name,
    description: Description = None,
    contact: Contact = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Make a VO."""
    with connect() as client:
        made = client.vos.create(
            vo, description=description or "", contact=contact or "", reason=reason
        )
    terminal.show_message(made, _pairs(made), output)


@app.command()
def update(
    vo: Name,
    description: Description = None,
    contact: Contact = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Change what a VO says of itself; an empty text empties it."""
    if description is None and contact is None:
        raise typer.BadParameter("nothing to change: name --description or --contact")
    with connect() as client:
        changed = client.vos.update(vo, description=description, contact=contact, reason=reason)
    terminal.show_message(changed, _pairs(changed), output)


@app.command()
def delete(vo: Name, reason: Reason = "", output: Output = "text") -> None:
    """Delete a VO that nothing names any more; its jobs, transfers and files stay."""
    with connect() as client:
        revision = client.vos.delete(vo, reason=reason)
    terminal.show_revision("deleted", revision, output)


def _row(vo: Vo) -> tuple[str, ...]:
    made = units.short_time(vo.create_time)
    return _bare(vo), plain(vo.description), plain(vo.contact), made


def _bare(vo: Vo) -> str:
    return plain(vo.name.removeprefix("vos/"))


def _pairs(vo: Vo) -> Iterator[tuple[str, str]]:
    yield "vo", _bare(vo)
    yield "description", plain(vo.description)
    yield "contact", plain(vo.contact)
    yield "made", units.local_time(vo.create_time)
    yield "changed", units.local_time(vo.update_time)
    yield "policy", f"revision {vo.revision}"
