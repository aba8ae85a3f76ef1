"""`gridlane channel`: transfer channels, their shares and managers, and what is held on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.channel_form import (
    Bandwidth,
    Contact,
    Description,
    Least,
    MaxFiles,
    MaxStreams,
    Most,
    Nominal,
    OnExhausted,
    Optimizer,
    Retries,
    RetryDelay,
    Shares,
    State,
    settings_of,
    weights_of,
)
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.authorization.v1.policy_pb2 import RoleBinding
    from gridlane.transfer.v1.activity_pb2 import ActivityShares
    from gridlane.transfer.v1.channel_pb2 import Channel
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

app = typer.Typer(
    help="Channels: the managed ways between storage elements, their shares and managers.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="CHANNEL", help="channels/<name>, or the name.")]
Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE", help="transfers/<uuid>/files/<n>, as `held` lists them."),
]
All = Annotated[bool, typer.Option("--all", help="All that are held on it.")]


def _state(number: int) -> str:
    from gridlane.transfer.v1.channel_pb2 import ChannelState

    word = ChannelState.Name(ChannelState.ValueType(number)).removeprefix("CHANNEL_STATE_")
    return f"[green]{word}[/]" if word == "ACTIVE" else f"[yellow]{word}[/]"


@app.command("list")
def list_channels(output: Output = "text") -> None:
    """List channels by name."""
    with connect() as client:
        channels = list(client.channels.list())
    terminal.show_list(channels, ("NAME", "STATE"), _row, "no channels", output)


def _row(channel: Channel) -> tuple[str, ...]:
    return channel.name.removeprefix("channels/"), _state(channel.state)


@app.command()
def show(name: Name, output: Output = "text") -> None:
    """Show all of one channel: for admins, its manager and VO managers."""
    with connect() as client:
        channel = client.channels.get(name)
    terminal.show_message(channel, _pairs(channel), output)


@app.command()
def create(
    name: Name,
    source: Annotated[str, typer.Option("--from", help="The storage element it leads from, or *.")],
    target: Annotated[str, typer.Option("--to", help="The storage element it leads to, or *.")],
    state: State = None,
    max_files: MaxFiles = None,
    on_exhausted: OnExhausted = None,
    share: Shares = None,
    max_streams: MaxStreams = None,
    bandwidth: Bandwidth = None,
    nominal: Nominal = None,
    contact: Contact = None,
    description: Description = None,
    retries: Retries = None,
    retry_delay: RetryDelay = None,
    optimizer: Optimizer = None,
    min_files: Least = None,
    most_files: Most = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Make a channel; files that are submitted from then on may lie on it. For admins."""
    wanted, _ = settings_of(locals())
    wanted.source, wanted.target = source, target
    with connect() as client:
        made = client.channels.create(name, wanted, reason=reason)
    terminal.show_message(made, _pairs(made), output)


@app.command()
def update(
    name: Name,
    state: State = None,
    max_files: MaxFiles = None,
    on_exhausted: OnExhausted = None,
    share: Shares = None,
    max_streams: MaxStreams = None,
    bandwidth: Bandwidth = None,
    nominal: Nominal = None,
    contact: Contact = None,
    description: Description = None,
    retries: Retries = None,
    retry_delay: RetryDelay = None,
    optimizer: Optimizer = None,
    min_files: Least = None,
    most_files: Most = None,
    no_shares: Annotated[bool, typer.Option("--no-shares", help="Each file in its turn.")] = False,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Change settings of a channel; shares are replaced as a whole. For its managers."""
    if no_shares and share:
        raise typer.BadParameter("give --share or --no-shares, not both")
    wanted, fields = settings_of(locals())
    if no_shares:
        fields.append("vo_shares")
    if not fields:
        raise typer.BadParameter("nothing to change: name an option")
    wanted.name = name
    with connect() as client:
        changed = client.channels.update(wanted, fields=fields, reason=reason)
    terminal.show_message(changed, _pairs(changed), output)


@app.command()
def delete(name: Name, reason: Reason = "", output: Output = "text") -> None:
    """Remove a channel on which nothing lies that has not ended. For admins."""
    with connect() as client:
        client.channels.delete(name, reason=reason)
    terminal.show_done(f"deleted {name}", output)


@app.command()
def held(
    name: Name,
    limit: Limit = 100,
    output: Output = "text",
) -> None:
    """List files whose retries are spent, those held longest first. For its managers."""
    with connect() as client:
        files = list(client.channels.held(name, limit=limit))
    columns = ("FILE", "~SOURCE", "~TARGET", "WHY")
    terminal.show_list(files, columns, _held_row, "no files are held on it", output)


def _held_row(file: FileTransfer) -> tuple[str, ...]:
    return file.name, plain(file.source), plain(file.target), plain(file.failure.message)


@app.command()
def release(
    name: Name,
    files: Files = None,
    every: All = False,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Let held files start again, with all their retries. For its managers."""
    _require_choice(files, every)
    with connect() as client:
        count = client.channels.release(name, files or (), reason=reason)
    _show_count("released", count, output)


@app.command()
def fail(
    name: Name,
    files: Files = None,
    every: All = False,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Give held files up. For its managers."""
    _require_choice(files, every)
    with connect() as client:
        count = client.channels.fail(name, files or (), reason=reason)
    _show_count("failed", count, output)


@app.command()
def managers(name: Name, output: Output = "text") -> None:
    """List who manages a channel; `gridlane role grant channel_manager` makes one."""
    with connect() as client:
        channel = client.channels.get(name)
        found = list(client.roles.list(channel_uid=channel.uid))
    columns = ("BINDING", "MANAGER", "?~ISSUER", "-UNTIL")
    terminal.show_list(found, columns, _manager_row, "nobody but admins does", output)


def _manager_row(binding: RoleBinding) -> tuple[str, ...]:
    return (
        binding.name,
        plain(binding.group or binding.subject),
        plain(binding.issuer),
        units.local_time(binding.expire_time),
    )


@app.command()
def activities(
    vo: Annotated[str, typer.Argument(metavar="VO", help="Its name, as cms.")],
    weights: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ACTIVITY=WEIGHT", help="Replaces all; once for each."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="No shares any more.")] = False,
    active: Annotated[
        bool | None, typer.Option("--on/--off", help="Whether they are in force.")
    ] = None,
    reason: Reason = "",
    output: Output = "text",
) -> None:
    """Show, or change, how a VO's places are divided among its activities, on every channel."""
    if clear and weights:
        raise typer.BadParameter("give --set or --clear, not both")
    given = {} if clear else weights_of("--set", weights) if weights else None
    with connect() as client:
        if given is None and active is None:
            shares = client.activities.get(vo)
        else:
            shares = client.activities.update(vo, weights=given, active=active, reason=reason)
    if output == "json":
        terminal.show_json(terminal.as_dict(shares))
        return
    _show_shares(shares)


def _show_shares(shares: ActivityShares) -> None:
    rows = (
        (plain(one.activity), str(one.weight), str(one.active_files), str(one.queued_files))
        for one in shares.activities
    )
    terminal.table(
        ("ACTIVITY", ">WEIGHT", ">MOVING", ">WAITING"),
        rows,
        "no shares: each file in its turn",
        names=False,
    )
    if not shares.active:
        terminal.note("they are not in force")


def _require_choice(files: list[str] | None, every: bool) -> None:
    if bool(files) == every:
        raise typer.BadParameter("name the files, or --all")


def _show_count(done: str, count: int, output: terminal.Format) -> None:
    if output == "json":
        terminal.show_json({f"{done}_files": count})
    else:
        terminal.line(f"{done} {units.count(count, 'file')}")


def _pairs(channel: Channel) -> Iterator[tuple[str, str]]:
    from gridlane.transfer.v1 import channel_pb2

    yield "channel", channel.name
    yield "uid", channel.uid
    yield "from", channel.source
    yield "to", channel.target
    yield "state", _state(channel.state)
    yield "files at once", str(channel.max_files)
    if channel.HasField("optimizer"):
        mode = channel_pb2.OptimizerMode.Name(channel.optimizer.mode)
        word = mode.removeprefix("OPTIMIZER_MODE_").lower()
        bounds = f"{channel.optimizer.min_files} to {channel.optimizer.max_files}"
        yield "optimizer", f"{word}, {bounds} files"
    yield "shares", plain(", ".join(f"{vo}={n}" for vo, n in sorted(channel.vo_shares.items())))
    exhausted = channel_pb2.ExhaustedAction.Name(channel.on_exhausted)
    yield "on exhausted", exhausted.removeprefix("EXHAUSTED_ACTION_").lower()
    if channel.HasField("default_max_retries"):
        yield "retries", str(channel.default_max_retries)
    if channel.HasField("default_retry_delay"):
        yield "retry delay", f"{units.seconds_of(channel.default_retry_delay):g} s"
    yield "streams", str(channel.max_streams or "")
    yield "bandwidth", units.rate(channel.max_bandwidth_bytes_per_second)
    yield "nominal", units.rate(channel.nominal_throughput_bytes_per_second)
    yield "contact", plain(channel.contact)
    yield "description", plain(channel.description)
    if channel.HasField("usage"):
        yield from _usage_pairs(channel)
    yield "made", units.local_time(channel.create_time)
    yield "changed", units.local_time(channel.update_time)
    yield "revision", str(channel.revision or "")


def _usage_pairs(channel: Channel) -> Iterator[tuple[str, str]]:
    usage = channel.usage
    by_vo = ", ".join(f"{vo} {n}" for vo, n in sorted(usage.active_files_by_vo.items()))
    moving = f"{usage.active_files} of {usage.allowed_files}"
    yield "moving", plain(f"{moving} ({by_vo})" if by_vo else moving)
    yield "waiting", str(usage.queued_files)
    yield "held", str(usage.held_files)
    yield "throughput", units.rate(usage.bytes_per_second)
