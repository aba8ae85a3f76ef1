"""`gridlane audit`: who changed what, when and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.audit_entry_pb2 import AuditEntry

app = typer.Typer(
    help="The audits of the policy, and of channels, storage and transfers: list, show.",
    no_args_is_help=True,
)

Service = Annotated[
    Literal["authorization", "transfer"],
    typer.Option(help="Whose: of the policy, or of channels, storage and transfers."),
]


@app.command("list")
def list_entries(
    service: Service = "authorization",
    actor: Annotated[str | None, typer.Option(help="Only what this subject did.")] = None,
    resource: Annotated[
        str | None, typer.Option(help="Only what was done to this, as vos/cms.")
    ] = None,
    vo: Annotated[str | None, typer.Option(help="Only what concerns this VO.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Only this method, package.Service/Method.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Only the last 90m, 12h, 30d.")
    ] = None,
    limit: Limit = 50,
    output: Output = "text",
) -> None:
    """List what was done and tried, newest first.

    One of actor, resource, VO and method at a time.
    """
    lasting = units.parse_option("--since", since, units.parse_duration)
    begin = None if lasting is None else datetime.now(timezone.utc) - lasting
    with connect() as client:
        found = list(
            client.audit.list(
                service=service,
                actor=actor,
                resource=resource,
                vo=vo,
                method=method,
                since=begin,
                limit=limit,
            )
        )
    columns = ("ENTRY", "TIME", "WHO", "WHAT", "ON", "?VO", "END", "-REASON")
    terminal.show_list(found, columns, _row, "no entries that you may see", output)


def _row(entry: AuditEntry) -> tuple[str, ...]:
    return (
        entry.name,
        units.local_time(entry.time),
        plain(entry.actor.subject),
        plain(entry.method.rpartition("/")[2]),
        plain(entry.resource),
        plain(entry.vo),
        _end(entry),
        plain(entry.reason),
    )


def _end(entry: AuditEntry) -> str:
    """How it ended: "done", or why it was refused."""
    if not entry.HasField("status"):
        return "[green]done[/]"
    from gridlane.errors import error_from_status

    refused = error_from_status(entry.status)
    return f"[red]{plain(refused.reason or refused.code.name)}[/]"


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="ENTRY", help="auditEntries/<uuid>, or the bare id.")
    ],
    service: Service = "authorization",
    output: Output = "text",
) -> None:
    """Show one entry, with what was there before and after."""
    with connect() as client:
        entry = client.audit.get(name, service=service)
    terminal.show_message(entry, _pairs(entry), output)


def _policy(entry: AuditEntry) -> str:
    """What became of the policy; empty of an entry that is not about it."""
    if not entry.method.startswith("gridlane.authorization."):
        return ""
    return f"revision {entry.policy_revision}" if entry.policy_revision else "unchanged"


def _pairs(entry: AuditEntry) -> Iterator[tuple[str, str]]:
    yield "entry", entry.name
    yield "time", units.local_time(entry.time)
    yield "who", plain(f"{entry.actor.subject} of {entry.actor.issuer}")
    yield "through", plain(entry.service)
    yield "from", plain(entry.peer)
    yield "what", plain(entry.method)
    yield "on", plain(entry.resource)
    yield "vo", plain(entry.vo)
    yield "reason", plain(entry.reason)
    yield "permission", plain(entry.permission)
    yield "rule", plain(entry.rule)
    yield "end", _end(entry)
    yield "", plain(entry.status.message)
    for field in ("before", "after"):
        if entry.HasField(field):
            told = terminal.as_dict(getattr(entry, field))
            yield field, plain(json.dumps(told, indent=2, ensure_ascii=False))
    yield "policy", _policy(entry)
    yield "trace", plain(entry.trace_id)
