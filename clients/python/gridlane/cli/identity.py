"""`gridlane whoami` and `gridlane ping`: who the caller is, and how the services are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from gridlane.cli import terminal, units
from gridlane.cli.exit_codes import ExitCode
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.authorization_service_pb2 import WhoAmIResponse
    from gridlane.authorization.v1.policy_pb2 import RoleBinding
    from gridlane.type.v1.status_pb2 import BackendStatus, ServiceStatus


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(whoami)
    app.command()(ping)


def whoami(output: Output = "text") -> None:
    """Show who you are to Gridlane, your VOs and your roles."""
    with connect() as client:
        answer = client.whoami()
    terminal.show_message(answer, _pairs(answer), output)


def _pairs(answer: WhoAmIResponse) -> Iterator[tuple[str, str]]:
    who = answer.principal
    yield "subject", plain(who.subject)
    yield "issuer", plain(who.issuer)
    yield "name", plain(who.display_name)
    yield "vos", plain(", ".join(who.vos)) or "none"
    yield "groups", plain(", ".join(who.groups))
    yield "active group", plain(who.active_group)
    for binding in answer.roles:
        yield "role", _role(binding)
    yield "scopes", plain(" ".join(answer.scopes)) or "not narrowed"
    yield "token until", units.local_time(answer.expire_time)
    yield "policy", f"revision {answer.policy_revision}"


def _role(binding: RoleBinding) -> str:
    from gridlane.roles import role_word

    word = role_word(binding.role).replace("_", " ").title()
    place = binding.vo or binding.channel_uid
    until = units.local_time(binding.expire_time)
    parts = (
        word,
        f"of {place}" if place else "",
        f"by the group {binding.group}" if binding.group else "",
        f"until {until}" if until else "",
    )
    return plain(" ".join(filter(None, parts)))


def ping(output: Output = "text") -> int:
    """Show how each service and each backend behind it is. Exit code 69 when one is not well."""
    with connect() as client:
        answer = client.ping()
    well = all(
        service.reachable
        and service.authenticated
        and all(backend.reachable for backend in service.backends)
        for service in answer.services
    )
    if output == "json":
        terminal.show_json(terminal.as_dict(answer))
    else:
        columns = ("SERVICE", "BACKEND", "REACHABLE", "IDENTITY", "VERSION", ">LATENCY", "MESSAGE")
        rows = [row for service in answer.services for row in _rows(service)]
        terminal.table(columns, rows, "no services")
    return ExitCode.OK if well else ExitCode.UNAVAILABLE


def _rows(service: ServiceStatus) -> Iterator[tuple[str, ...]]:
    yield (
        service.service,
        "",
        _mark(service.reachable),
        _mark(service.authenticated),
        plain(service.version),
        _latency(service),
        plain(service.message),
    )
    for backend in service.backends:
        yield (
            "",
            plain(backend.name),
            _mark(backend.reachable),
            "",
            plain(backend.version),
            _latency(backend),
            plain(backend.message),
        )


def _latency(status: ServiceStatus | BackendStatus) -> str:
    return units.duration(units.seconds_of(status.latency)) if status.HasField("latency") else ""


def _mark(good: bool) -> str:
    return "[green]yes[/]" if good else "[red]no[/]"
