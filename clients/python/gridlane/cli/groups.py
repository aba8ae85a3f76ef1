"""`gridlane group`: groups of virtual organisations, to which roles can be given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.group_pb2 import Group

app = typer.Typer(help="Groups of a VO: list, show, create, update, delete.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="GROUP", help="As cms/production.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
DiracGroup = Annotated[
    str | None, typer.Option(help="The DIRAC group under which its work is handed to DIRAC.")
]


@app.command("list")
def list_groups(
    vo: Annotated[str, typer.Argument(metavar="VO", help="Its name, as cms.")],
    output: Output = "text",
) -> None:
    """List the groups of a VO, by name."""
    with connect() as client:
        found = list(client.groups.list(vo))
    columns = ("GROUP", "PATH", "DESCRIPTION", "?DIRAC")
    terminal.show_list(found, columns, _row, "no groups of that VO", output)


@app.command()
def show(group: Name, output: Output = "text") -> None:
    """Show one group."""
    with connect() as client:
        found = client.groups.get(group)
    terminal.show_message(found, _pairs(found), output)


@app.command()
def create(
    group: Name,
    path: Annotated[
        str, typer.Option(help="As tokens assert it. Without: / and the group's name.")
    ] = "",
    description: Description = None,
    dirac_group: DiracGroup = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Declare a group."""
    from gridlane.names import group_name

    _, vo, _, bare = group_name(group).split("/")
    with connect() as client:
        made = client.groups.create(
            vo,
            bare,
            path,
            description=description or "",
            dirac_group=dirac_group or "",
            reason=reason,
        )
    terminal.show_message(made, _pairs(made), output)


@app.command()
def update(
    group: Name,
    description: Description = None,
    dirac_group: DiracGroup = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Change what is said of a group; an empty text empties it."""
    if description is None and dirac_group is None:
        raise typer.BadParameter("nothing to change: name --description or --dirac-group")
    with connect() as client:
        changed = client.groups.update(
            group, description=description, dirac_group=dirac_group, reason=reason
        )
    terminal.show_message(changed, _pairs(changed), output)


@app.command()
def delete(group: Name, reason: Reason = "", output: Output = "text") -> None:
    """Take back a group that nothing names any more."""
    with connect() as client:
        revision = client.groups.delete(group, reason=reason)
    terminal.show_revision("deleted", revision, output)


def _row(group: Group) -> tuple[str, ...]:
    return _bare(group), plain(group.path), plain(group.description), plain(group.dirac_group)


def _bare(group: Group) -> str:
    return plain(group.name.removeprefix("vos/").replace("/groups/", "/"))


def _pairs(group: Group) -> Iterator[tuple[str, str]]:
    yield "group", _bare(group)
    yield "path", plain(group.path)
    yield "description", plain(group.description)
    yield "DIRAC group", plain(group.dirac_group)
    yield "made", units.local_time(group.create_time)
    yield "changed", units.local_time(group.update_time)
    yield "policy", f"revision {group.revision}"
