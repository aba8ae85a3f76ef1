"""`gridlane can`: whether somebody may do something, and what lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import operations, terminal, units
from gridlane.cli.exit_codes import ExitCode
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.permission_pb2 import (
        CheckPermissionResponse,
        PermissionReach,
        PermissionTarget,
    )
    from gridlane.client import Client
    from gridlane.type.v1.principal_pb2 import Principal


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("can")(can)


def can(
    operation: Annotated[
        str,
        typer.Argument(
            metavar="OPERATION",
            help="A permission, as transfer.jobs.cancel, or the end of just one, as kill.",
            autocompletion=operations.complete,
        ),
    ],
    resource: Annotated[
        str,
        typer.Argument(
            metavar="RESOURCE",
            help="What it is done to: a job, transfer, channel, LFN or VO. Without: anything.",
        ),
    ] = "",
    user: Annotated[
        str, typer.Option("--as", metavar="USER", help="Ask for this user, by its subject.")
    ] = "",
    issuer: Annotated[
        str, typer.Option("--as-issuer", help="That user's issuer. Without: your own.")
    ] = "",
    vo: Annotated[
        list[str] | None,
        typer.Option(
            "--as-vo",
            help="A VO that the user's token asserts. Without: the resource's, or your own.",
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--as-group", help="A group that the user's token asserts, as /cms/prod."),
    ] = None,
    output: Output = "text",
) -> int:
    """Say whether you, or somebody else, may do something, by which rule, and what lacks.

    Exit code 0: yes; 77: no. Managers of a VO may ask for those who hold a role there,
    administrators for everybody.
    """
    permission = operations.permission_of(operation, resource)
    if not user and (issuer or vo or group):
        raise typer.BadParameter("--as-issuer, --as-vo and --as-group need --as USER")
    with connect() as client:
        target = operations.target_of(client, resource)
        principal = _principal(client, user, issuer, vo or [], group or [], target)
        answer = client.authorization.check(permission, target, principal=principal)
    if output == "json":
        told = {"permission": permission, "resource": resource, "allowed": answer.allowed}
        terminal.show_json({**told, **terminal.as_dict(answer)})
    else:
        word = "[green]yes[/]" if answer.allowed else "[red]no[/]"
        terminal.line(f"{word}  {plain(' '.join(filter(None, (permission, resource))))}")
        terminal.details(_pairs(answer, principal, target))
    return ExitCode.OK if answer.allowed else ExitCode.DENIED


def _principal(
    client: Client,
    user: str,
    issuer: str,
    vos: list[str],
    groups: list[str],
    target: PermissionTarget | None,
) -> Principal | None:
    """Whom to ask for; None: the caller."""
    from gridlane.type.v1.principal_pb2 import Principal

    if not user:
        return None
    mine = client.authorization.whoami().principal
    near = [target.vo] if target is not None and target.vo else list(mine.vos)
    return Principal(
        issuer=issuer or mine.issuer,
        subject=user,
        vos=vos or near,
        groups=groups,
        active_group=groups[0] if groups else "",
    )


def _pairs(
    answer: CheckPermissionResponse,
    principal: Principal | None,
    target: PermissionTarget | None,
) -> Iterator[tuple[str, str]]:
    if principal is not None:
        vos = f", taken to belong to {', '.join(principal.vos)}" if principal.vos else ""
        yield "as", plain(f"{principal.subject} of {principal.issuer}{vos}")
    if not answer.allowed:
        yield "why", _reason(answer, target)
    yield "rule", plain(answer.rule) if answer.rule != "denied" else ""
    yield "reach", plain("; ".join(_reach(answer.reach)))
    yield "role needed", _role_needed(answer, target)
    yield "scope needed", plain(" or ".join(answer.scopes_needed))
    yield "until", units.local_time(answer.expire_time)
    yield "policy", f"revision {answer.policy_revision}"


def _reason(answer: CheckPermissionResponse, target: PermissionTarget | None) -> str:
    from gridlane.states import enum_word
    from gridlane.type.v1.error_reason_pb2 import ErrorReason

    word = enum_word(ErrorReason, answer.reason, "ERROR_REASON_")
    said = {
        "CALLER_VETOED": "a veto is in force",
        "PERMISSION_DENIED": "no role that is held reaches so far",
        "SCOPE_TOO_NARROW": "the roles would do, the token's scopes do not",
    }.get(word, "")
    if answer.reach.everything and target is not None and target.vo:
        said = f"there is no VO {target.vo}"
    return f"[red]{word}[/] {plain(said)}"


def _role_needed(answer: CheckPermissionResponse, target: PermissionTarget | None) -> str:
    from gridlane.roles import role_word

    if not answer.role_needed:
        return ""
    word = role_word(answer.role_needed)
    where = target.vo if target is not None and word != "admin" else ""
    return plain(f"{word} of {where}" if where else word)


def _reach(reach: PermissionReach) -> Iterator[str]:
    if reach.everything:
        yield "everything"
    if reach.own:
        yield "own"
    if reach.active_group:
        yield f"group {reach.active_group}"
    if reach.vos:
        yield f"VOs {', '.join(reach.vos)}"
    if reach.channel_uids:
        yield f"channels {', '.join(reach.channel_uids)}"
