"""`gridlane role`: roles given and taken, vetoes among them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, Reason, plain
from gridlane.names import is_uuid

if TYPE_CHECKING:
    from gridlane.authorization.v1.policy_pb2 import RoleBinding
    from gridlane.client import Client

app = typer.Typer(help="Roles: list, show, grant, revoke, veto, unveto.", no_args_is_help=True)

RoleWord = Literal[
    "admin",
    "channel_manager",
    "vo_manager",
    "submitter",
    "job_sharer",
    "pilot",
    "job_monitor",
    "vetoed",
]
GivenRole = Literal[
    "admin",
    "channel_manager",
    "vo_manager",
    "submitter",
    "job_sharer",
    "pilot",
    "job_monitor",
]
ActionWord = Literal["keep", "hold", "cancel"]

Binding = Annotated[
    str, typer.Argument(metavar="BINDING", help="roleBindings/<uuid>, or the bare id.")
]
Holder = Annotated[
    str,
    typer.Argument(
        metavar="HOLDER", help="A user's subject, or a group's path, as /cms/production."
    ),
]
Issuer = Annotated[str, typer.Option(help="The user's issuer. Without: your own.")]
Lasting = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="How long, as 12h or 30d. Without: ever."),
]


class _Holder(NamedTuple):
    """Who holds a role: a group with its VO, or an identity; what is not meant is empty."""

    subject: str
    issuer: str
    group: str
    vo: str


@app.command("list")
def list_roles(
    holder: Annotated[
        str, typer.Argument(metavar="HOLDER", help="Only of this subject or group.")
    ] = "",
    issuer: Annotated[str | None, typer.Option(help="The subject's issuer.")] = None,
    role: Annotated[RoleWord | None, typer.Option(help="Only this role.")] = None,
    vo: Annotated[str | None, typer.Option(help="Only of this VO; also with --role.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only of this channel.")] = None,
    limit: Limit = 100,
    output: Output = "text",
) -> None:
    """List the roles in force that you may see, newest first. One filter at a time."""
    group = holder if holder.startswith("/") else None
    with connect() as client:
        found = list(
            client.roles.list(
                subject=None if group else holder,
                group=group,
                issuer=issuer,
                role=role,
                vo=vo,
                channel_uid=_channel_uid(client, channel or ""),
                limit=limit,
            )
        )
    columns = ("BINDING", "ROLE", "HOLDER", "?ISSUER", "WHERE", "-UNTIL", "-REASON")
    terminal.show_list(found, columns, _row, "no roles that you may see", output)


def _row(binding: RoleBinding) -> tuple[str, ...]:
    return (
        binding.name,
        _markup(binding),
        plain(binding.group or binding.subject),
        plain(binding.issuer),
        plain(binding.vo or binding.channel_uid),
        units.local_time(binding.expire_time),
        plain(binding.reason),
    )


def _markup(binding: RoleBinding) -> str:
    from gridlane.roles import role_word

    word = role_word(binding.role)
    return f"[red]{word}[/]" if word == "vetoed" else word


@app.command()
def show(binding: Binding, output: Output = "text") -> None:
    """Show all of one role that somebody holds."""
    with connect() as client:
        found = client.roles.get(binding)
    terminal.show_message(found, _pairs(found), output)


def _pairs(binding: RoleBinding) -> Iterator[tuple[str, str]]:
    from gridlane.roles import work_action_word

    yield "binding", binding.name
    yield "role", _markup(binding)
    yield "group", plain(binding.group)
    yield "subject", plain(binding.subject)
    yield "issuer", plain(binding.issuer)
    yield "vo", plain(binding.vo)
    yield "channel", plain(binding.channel_uid)
    yield "until", units.local_time(binding.expire_time)
    yield "queued work", work_action_word(binding.queued_work)
    yield "running work", work_action_word(binding.running_work)
    yield "reason", plain(binding.reason)
    yield "given", units.local_time(binding.create_time)
    yield "by", plain(binding.creator.display_name or binding.creator.subject)
    yield "policy", f"revision {binding.revision}"


@app.command()
def grant(
    role: Annotated[GivenRole, typer.Argument(metavar="ROLE", help="As submitter, vo_manager.")],
    holder: Holder,
    issuer: Issuer = "",
    vo: Annotated[str, typer.Option(help="The VO in which it holds.")] = "",
    channel: Annotated[
        str, typer.Option(help="The channel of a channel_manager: its name or uid.")
    ] = "",
    lasting: Lasting = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Give a role to a user or a group. In force everywhere within a second."""
    with connect() as client:
        who = _holder(client, holder, issuer, vo)
        made = client.roles.grant(
            role,
            who.subject,
            issuer=who.issuer,
            group=who.group,
            vo=who.vo,
            channel_uid=_channel_uid(client, channel),
            expire_time=_end(lasting),
            reason=reason,
        )
    terminal.show_message(made, _pairs(made), output)


@app.command()
def revoke(binding: Binding, reason: Reason = "", output: Output = "text") -> None:
    """Take a role away, or end a veto."""
    with connect() as client:
        _take(client, binding, reason, output)


@app.command()
def veto(
    holder: Holder,
    issuer: Issuer = "",
    vo: Annotated[str, typer.Option(help="The VO whose group it is.")] = "",
    queued_work: Annotated[
        ActionWord, typer.Option(help="What happens to work that has not begun.")
    ] = "hold",
    running_work: Annotated[
        ActionWord, typer.Option(help="What happens to work that runs.")
    ] = "keep",
    lasting: Lasting = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Deny a user or a group everything, until the veto ends."""
    with connect() as client:
        who = _holder(client, holder, issuer, vo)
        made = client.roles.grant(
            "vetoed",
            who.subject,
            issuer=who.issuer,
            group=who.group,
            vo=who.vo,
            queued_work=queued_work,
            running_work=running_work,
            expire_time=_end(lasting),
            reason=reason,
        )
    terminal.show_message(made, _pairs(made), output)


@app.command()
def unveto(
    holder: Holder, issuer: Issuer = "", reason: Reason = "", output: Output = "text"
) -> None:
    """End the veto of a user or a group; what was held goes on."""
    from gridlane.errors import NotFound
    from gridlane.roles import role_word

    with connect() as client:
        who = _holder(client, holder, issuer, "")
        held = client.roles.list(subject=who.subject, issuer=who.issuer, group=who.group)
        for binding in held:
            if role_word(binding.role) == "vetoed":
                _take(client, binding.name, reason, output)
                return
    raise NotFound(f"no veto of {holder} that you may see", reason="NOT_FOUND")


def _take(client: Client, name: str, reason: str, output: terminal.Format) -> None:
    revision = client.roles.revoke(name, reason=reason)
    terminal.show_revision("taken away", revision, output)


def _holder(client: Client, holder: str, issuer: str, vo: str) -> _Holder:
    """A group by its path, or an identity, of the caller's issuer when none is named."""
    if holder.startswith("/"):
        return _Holder("", "", holder, vo or holder.split("/")[1])
    return _Holder(holder, issuer or client.authorization.whoami().principal.issuer, "", vo)


def _channel_uid(client: Client, channel: str) -> str:
    """The uid of a channel, from it or from the channel's name; empty for none."""
    if not channel or is_uuid(channel):
        return channel
    return client.channels.get(channel).uid


def _end(lasting: str | None) -> datetime | None:
    """When something ends that lasts so long from now on; None for never.

    Raises:
        BadParameter: it is no duration.
    """
    length = units.parse_option("--for", lasting, units.parse_duration)
    return None if length is None else datetime.now(timezone.utc) + length
