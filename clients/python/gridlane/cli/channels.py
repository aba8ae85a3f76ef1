"""`gridlane channel`: transfer channels, their shares and managers, and what is held on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, Reason, plain

if TYPE_CHECKING:
    from gridlane.transfer.v1.activity_pb2 import ActivityShares
    from gridlane.transfer.v1.channel_pb2 import Channel
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

app = typer.Typer(
    help="Channels: list, show, create, update, delete, held, release, fail, managers, activities.",
    no_args_is_help=True,
)

StateWord = Literal["active", "drain", "inactive", "stopped"]
ExhaustedWord = Literal["fail", "hold"]
ModeWord = Literal["none", "fixed", "conservative", "moderate", "aggressive"]

Name = Annotated[str, typer.Argument(metavar="CHANNEL", help="channels/<name>, or the name.")]
State = Annotated[StateWord | None, typer.Option(help="Whether files start on it.")]
MaxFiles = Annotated[int | None, typer.Option(help="How many files move at once, 1 to 10000.")]
OnExhausted = Annotated[
    ExhaustedWord | None, typer.Option(help="What follows when a file's retries are spent.")
]
Shares = Annotated[
    list[str] | None,
    typer.Option(
        "--share", metavar="VO=WEIGHT", help="The weight of a VO, * for each other; once for each."
    ),
]
MaxStreams = Annotated[int | None, typer.Option(help="Streams for one file at most; 0: no limit.")]
Bandwidth = Annotated[
    str | None,
    typer.Option("--bandwidth", metavar="SIZE", help="Bytes in a second at most, as 100MB; or 0."),
]
Nominal = Annotated[
    str | None, typer.Option("--nominal", metavar="SIZE", help="Bytes in a second that it bears.")
]
Contact = Annotated[str | None, typer.Option(help="Whom to ask: a mail address or a URL.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Retries = Annotated[int | None, typer.Option(help="How often a file is tried again.")]
RetryDelay = Annotated[
    str | None, typer.Option(metavar="DURATION", help="How long a file waits before, as 30s.")
]
Optimizer = Annotated[
    ModeWord | None, typer.Option(help="How boldly the number of files follows what it bears.")
]
Least = Annotated[int | None, typer.Option("--min-files", help="The optimizer's lower bound.")]
Most = Annotated[int | None, typer.Option("--most-files", help="The optimizer's upper bound.")]
Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FILE]...", help="transfers/<uuid>/files/<n>, as `held` lists them."),
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
    if output == "json":
        terminal.show_messages(channels)
        return
    rows = ((channel.name.removeprefix("channels/"), _state(channel.state)) for channel in channels)
    terminal.table(("NAME", "STATE"), rows, "no channels")


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
    wanted, _ = _settings(locals())
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
    wanted, fields = _settings(locals())
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
    if output == "json":
        terminal.show_json({})
    else:
        terminal.line(f"removed {plain(name)}")


@app.command()
def held(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    output: Output = "text",
) -> None:
    """List files whose retries are spent, those held longest first. For its managers."""
    with connect() as client:
        files = list(client.channels.held(name, limit=limit))
    if output == "json":
        terminal.show_messages(files)
        return
    columns = ("FILE", "SOURCE", "TARGET", "WHY")
    terminal.table(columns, map(_held_row, files), "no files are held on it")


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
    if output == "json":
        terminal.show_messages(found)
        return
    rows = (
        (
            binding.name,
            plain(binding.group or binding.subject),
            plain(binding.issuer),
            units.local_time(binding.expire_time),
        )
        for binding in found
    )
    terminal.table(("BINDING", "MANAGER", "?ISSUER", "?UNTIL"), rows, "nobody but admins does")


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
    given = {} if clear else _weights("--set", weights) if weights else None
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
        terminal.line(f"{done} {count} files" if count != 1 else f"{done} 1 file")


def _weights(option: str, given: list[str]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for text in given:
        name, equals, weight = text.rpartition("=")
        if not equals or not name or not weight.isdecimal():
            raise typer.BadParameter(f"{option} {text}: expected NAME=WEIGHT, as atlas=70")
        weights[name] = int(weight)
    return weights


def _settings(options: dict[str, Any]) -> tuple[Channel, list[str]]:
    """What options ask for: the settings, and the names of those that are asked for."""
    from gridlane.transfer.v1 import channel_pb2

    channel = channel_pb2.Channel()
    fields: list[str] = []
    for option, (field, read) in _FIELDS.items():
        if options[option] not in (None, []):
            setattr(channel, field, read(option, options[option]))
            fields.append(field)
    if options["share"]:
        channel.vo_shares.update(_weights("--share", options["share"]))
        fields.append("vo_shares")
    if options["retry_delay"] is not None:
        delay = units.parse_option("--retry-delay", options["retry_delay"], units.parse_duration)
        channel.default_retry_delay.FromTimedelta(delay)
        fields.append("default_retry_delay")
    fields += _optimizer(channel, options)
    return channel, fields


def _optimizer(channel: Channel, options: dict[str, Any]) -> list[str]:
    """Set what is asked of the optimizer; the names of the settings that are."""
    from gridlane.transfer.v1 import channel_pb2

    least, most = options["min_files"], options["most_files"]
    if options["optimizer"] is None:
        if least is not None or most is not None:
            raise typer.BadParameter("--min-files and --most-files belong to --optimizer")
        return []
    if options["optimizer"] != "none":
        mode = f"OPTIMIZER_MODE_{options['optimizer'].upper()}"
        channel.optimizer.mode = channel_pb2.OptimizerMode.Value(mode)
        channel.optimizer.min_files = least or 0
        channel.optimizer.max_files = most or 0
    return ["optimizer"]


def _as_given(option: str, value: Any) -> Any:
    return value


def _size(option: str, text: str) -> int:
    return units.parse_option(f"--{option}", text, units.parse_size)


def _state_of(option: str, word: str) -> int:
    from gridlane.transfer.v1.channel_pb2 import ChannelState

    return ChannelState.Value(f"CHANNEL_STATE_{word.upper()}")


def _exhausted_of(option: str, word: str) -> int:
    from gridlane.transfer.v1.channel_pb2 import ExhaustedAction

    return ExhaustedAction.Value(f"EXHAUSTED_ACTION_{word.upper()}")


# The options that are one setting each: its field, and how the option is read.
_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "state": ("state", _state_of),
    "max_files": ("max_files", _as_given),
    "on_exhausted": ("on_exhausted", _exhausted_of),
    "max_streams": ("max_streams", _as_given),
    "bandwidth": ("max_bandwidth_bytes_per_second", _size),
    "nominal": ("nominal_throughput_bytes_per_second", _size),
    "contact": ("contact", _as_given),
    "description": ("description", _as_given),
    "retries": ("default_max_retries", _as_given),
}


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
    yield "retries spent", exhausted.removeprefix("EXHAUSTED_ACTION_").lower()
    if channel.HasField("default_max_retries"):
        yield "retries", str(channel.default_max_retries)
    if channel.HasField("default_retry_delay"):
        yield "retry delay", f"{channel.default_retry_delay.ToTimedelta().total_seconds():g} s"
    yield "streams", str(channel.max_streams or "")
    yield "bandwidth", _rate(channel.max_bandwidth_bytes_per_second)
    yield "nominal", _rate(channel.nominal_throughput_bytes_per_second)
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
    yield "throughput", _rate(usage.bytes_per_second)


def _rate(bytes_per_second: int) -> str:
    return f"{units.size(bytes_per_second)}/s" if bytes_per_second else ""
