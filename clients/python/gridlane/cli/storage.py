"""`gridlane storage`: storage elements, and bans of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.storage_form import (
    Access,
    Description,
    Endpoints,
    Limit,
    Rate,
    Site,
    StandsInFor,
    Sums,
    VoPaths,
    complete_operation,
    operations_given,
    settings_of,
)
from gridlane.cli.terminal import Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.transfer.v1.storage_ban_pb2 import StorageBan
    from gridlane.transfer.v1.storage_element_pb2 import StorageElement

app = typer.Typer(
    help="Storage elements: where files are kept, and bans that keep them from being used.",
    no_args_is_help=True,
)

ActionWord = Literal["wait", "cancel"]

Element = Annotated[str, typer.Argument(metavar="ELEMENT", help="Its name, as desy-disk.")]
Revision = Annotated[
    int, typer.Option(min=0, help="Only when it has this revision still. Without: whichever.")
]
Check = Annotated[bool, typer.Option("--check", help="Check everything, store nothing.")]
Draining = Annotated[
    bool | None,
    typer.Option("--draining/--no-draining", help="Whether nothing new is written to it."),
]


@app.command("list")
def list_elements(output: Output = "text") -> None:
    """List storage elements by name."""
    with connect() as client:
        elements = list(client.storage.elements())
    columns = ("NAME", "~MEDIUM", "READ", "WRITE", ">FREE", "VO PATHS", "~ENDPOINTS", "-~SITE")
    terminal.show_list(elements, columns, _row, "no storage elements", output)


@app.command()
def show(element: Element, output: Output = "text") -> None:
    """Show one storage element."""
    with connect() as client:
        found = client.storage.element(element)
    terminal.show_message(found, _pairs(found), output)


@app.command()
def create(
    element: Element,
    endpoint: Endpoints,
    vo_path: VoPaths = None,
    site: Site = None,
    description: Description = None,
    read: Access = None,
    write: Access = None,
    checksum: Sums = None,
    failover_for: StandsInFor = None,
    max_active_in: Limit = None,
    max_active_out: Limit = None,
    max_rate_in: Rate = None,
    max_rate_out: Rate = None,
    draining: Draining = None,
    check: Check = False,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Make a storage element. It can be named at once."""
    settings, _ = settings_of(locals())
    with connect() as client:
        made = client.storage_settings.create(element, settings, reason=reason, validate_only=check)
    terminal.show_message(made, _pairs(made), output)
    if check:
        terminal.note("all is well; nothing was stored")


@app.command()
def update(
    element: Element,
    endpoint: Endpoints = None,
    vo_path: VoPaths = None,
    site: Site = None,
    description: Description = None,
    read: Access = None,
    write: Access = None,
    checksum: Sums = None,
    failover_for: StandsInFor = None,
    max_active_in: Limit = None,
    max_active_out: Limit = None,
    max_rate_in: Rate = None,
    max_rate_out: Rate = None,
    draining: Draining = None,
    revision: Revision = 0,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Change settings of a storage element, those that are named. In force within a second."""
    settings, fields = settings_of(locals())
    if not fields:
        raise typer.BadParameter("nothing to change: name at least one option")
    with connect() as client:
        changed = client.storage_settings.update(
            element, settings, fields=fields, reason=reason, revision=revision
        )
    terminal.show_message(changed, _pairs(changed), output)


@app.command()
def delete(
    element: Element, revision: Revision = 0, reason: Reason = "", output: Output = "text"
) -> None:
    """Remove a storage element that nothing uses; no byte on it is touched."""
    with connect() as client:
        client.storage_settings.delete(element, reason=reason, revision=revision)
    terminal.show_done(f"deleted {element}", output)


@app.command()
def ban(
    element: Element,
    reason: Annotated[str, typer.Option(help="Why, for those whose files wait.")],
    action: Annotated[
        ActionWord, typer.Option(help="What becomes of files that wait for it.")
    ] = "wait",
    operation: Annotated[
        list[str] | None,
        typer.Option(
            help="What may not be done: read, write, check, remove; several times for several."
            " Without: everything.",
            autocompletion=complete_operation,
        ),
    ] = None,
    vo: Annotated[str, typer.Option(help="The VO that may not. Without: nobody may.")] = "",
    wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long a file waits, then it is cancelled, as 12h."
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take submissions meanwhile, and have them wait.")
    ] = False,
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="How long, as 12h. Without: until unban."),
    ] = None,
    output: Output = "text",
) -> None:
    """Keep a storage element from being used. In force everywhere within a second."""
    operations = operations_given("--operation", operation)
    wait_timeout = units.parse_option("--wait", wait, units.parse_duration)
    duration = units.parse_option("--for", lasting, units.parse_duration)
    with connect() as client:
        made = client.storage_settings.ban(
            element,
            reason,
            action=action,
            operations=operations,
            vo=vo,
            wait_timeout=wait_timeout,
            accept_submissions=accept,
            expire_time=None if duration is None else datetime.now(timezone.utc) + duration,
        )
    terminal.show_message(made, _ban_pairs(made), output)


@app.command()
def unban(
    ban: Annotated[
        str,
        typer.Argument(
            metavar="BAN", help="A ban's name, or a storage element's: then all of its bans."
        ),
    ],
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Lift a ban, or all bans of a storage element; what was blocked goes on."""
    with connect() as client:
        settings = client.storage_settings
        bare = ban.removeprefix("storageElements/")
        names = [ban] if "/" in bare else [one.name for one in settings.bans(bare)]
        for name in names:
            settings.unban(name, reason=reason)
    terminal.show_done(f"lifted {units.count(len(names), 'ban')}", output)


@app.command()
def bans(
    element: Annotated[
        str, typer.Argument(metavar="ELEMENT", help="Only of this storage element.")
    ] = "-",
    output: Output = "text",
) -> None:
    """List the bans in force, newest first."""
    with connect() as client:
        found = list(client.storage_settings.bans(element))
    columns = ("BAN", "REASON", "OPERATIONS", "~ACTION", "-VO", "~>FILES", "-~UNTIL")
    terminal.show_list(found, columns, _ban_row, "no bans", output)


def _row(element: StorageElement) -> tuple[str, ...]:
    internal = " (internal)" if element.internal else ""
    return (
        _bare(element) + internal,
        _medium(element),
        _can(element.readable),
        _can(element.writable),
        _free(element),
        _vo_paths(element),
        plain(", ".join(endpoint.base_url for endpoint in element.endpoints)),
        plain(element.site),
    )


def _pairs(element: StorageElement) -> Iterator[tuple[str, str]]:
    from gridlane.storage_words import access_word, checksum_word, operation_word

    yield "element", _bare(element) + (" (internal)" if element.internal else "")
    yield "site", plain(element.site)
    yield "description", plain(element.description)
    for endpoint in element.endpoints:
        words = ", ".join(map(operation_word, endpoint.operations)) or "everything"
        yield "endpoint", plain(f"{endpoint.base_url} ({words})")
    yield "VO paths", _vo_paths(element)
    yield "medium", _medium(element)
    yield "read now", _can(element.readable)
    yield "write now", _can(element.writable)
    for field, state in element.access.ListFields():
        yield f"access {field.name}", access_word(state)
    yield "draining", "yes" if element.draining else ""
    yield "free", _free(element)
    limits = element.limits
    yield "max active in", str(limits.max_active_in or "")
    yield "max active out", str(limits.max_active_out or "")
    yield "max rate in", units.rate(limits.max_bandwidth_in_bytes_per_second)
    yield "max rate out", units.rate(limits.max_bandwidth_out_bytes_per_second)
    yield "stands in for", plain(", ".join(one.partition("/")[2] for one in element.failover_for))
    yield "checksums", ", ".join(map(checksum_word, element.checksum_types))
    yield "configured", "where the service runs" if element.configured else ""
    yield "made", units.local_time(element.create_time)
    yield "changed", units.local_time(element.update_time)
    yield "revision", str(element.revision or "")


def _ban_row(ban: StorageBan) -> tuple[str, ...]:
    return (
        ban.name.removeprefix("storageElements/").replace("/bans/", "/"),
        plain(ban.reason),
        _operations(ban),
        _action(ban),
        plain(ban.vo),
        str(ban.affected_files),
        units.local_time(ban.expire_time),
    )


def _ban_pairs(ban: StorageBan) -> Iterator[tuple[str, str]]:
    yield "ban", ban.name
    yield "operations", _operations(ban)
    yield "action", _action(ban)
    yield "vo", plain(ban.vo)
    if ban.HasField("wait_timeout"):
        yield "files wait", units.duration(units.seconds_of(ban.wait_timeout))
    yield "submissions", "accepted" if ban.accept_submissions else "refused"
    yield "files", str(ban.affected_files)
    yield "until", units.local_time(ban.expire_time)
    yield "reason", plain(ban.reason)
    yield "made", units.local_time(ban.create_time)
    yield "by", plain(ban.creator.display_name or ban.creator.subject)


def _bare(element: StorageElement) -> str:
    return plain(element.name.removeprefix("storageElements/"))


def _medium(element: StorageElement) -> str:
    from gridlane.transfer.v1.storage_element_pb2 import StorageMedium

    return StorageMedium.Name(element.medium).removeprefix("STORAGE_MEDIUM_").lower()


def _can(now: bool) -> str:
    return "yes" if now else "[red]no[/]"


def _free(element: StorageElement) -> str:
    return units.size(element.free_bytes) if element.free_bytes >= 0 else ""


def _vo_paths(element: StorageElement) -> str:
    return plain(", ".join(f"{vo}: LFN:{path}" for vo, path in sorted(element.vo_paths.items())))


def _operations(ban: StorageBan) -> str:
    from gridlane.storage_words import operation_word

    return ", ".join(map(operation_word, ban.operations)) or "everything"


def _action(ban: StorageBan) -> str:
    from gridlane.storage_words import ban_action_word

    return ban_action_word(ban.action)
