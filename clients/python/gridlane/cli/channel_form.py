"""What the options of `gridlane channel create` and `update` say, as a channel's settings.

Responsible for the options that both have, and for which fields they name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gridlane.cli import units

if TYPE_CHECKING:
    from gridlane.transfer.v1.channel_pb2 import Channel

StateWord = Literal["active", "drain", "inactive", "stopped"]
ExhaustedWord = Literal["fail", "hold"]
ModeWord = Literal["none", "fixed", "conservative", "moderate", "aggressive"]

State = Annotated[StateWord | None, typer.Option(help="Whether files start on it.")]
MaxFiles = Annotated[
    int | None, typer.Option(min=1, help="How many files move at once, 1 to 10000.")
]
OnExhausted = Annotated[
    ExhaustedWord | None, typer.Option(help="What follows when a file's retries are spent.")
]
Shares = Annotated[
    list[str] | None,
    typer.Option(
        "--share", metavar="VO=WEIGHT", help="The weight of a VO, * for each other; once for each."
    ),
]
MaxStreams = Annotated[
    int | None, typer.Option(min=0, help="Streams for one file at most; 0: no limit.")
]
Bandwidth = Annotated[
    str | None,
    typer.Option("--bandwidth", metavar="BYTES", help="In a second at most, as 100M; 0: no limit."),
]
Nominal = Annotated[
    str | None, typer.Option("--nominal", metavar="BYTES", help="What it bears in a second.")
]
Contact = Annotated[str | None, typer.Option(help="Whom to ask: a mail address or a URL.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Retries = Annotated[int | None, typer.Option(min=0, help="How often a file is tried again.")]
RetryDelay = Annotated[
    str | None, typer.Option(metavar="DURATION", help="How long a file waits before, as 30s.")
]
Optimizer = Annotated[
    ModeWord | None, typer.Option(help="How boldly the number of files follows what it bears.")
]
Least = Annotated[int | None, typer.Option("--min-files", help="The optimizer's lower bound.")]
Most = Annotated[int | None, typer.Option("--most-files", help="The optimizer's upper bound.")]


def settings_of(options: dict[str, Any]) -> tuple[Channel, list[str]]:
    """What the options of a command ask for: the settings, and the fields that they name.

    Parameters:
        options: the command's, by name; None: not given.

    Raises:
        typer.BadParameter: one has not its form.
    """
    from gridlane.transfer.v1 import channel_pb2

    channel = channel_pb2.Channel()
    fields: list[str] = []
    for option, (field, read) in _FIELDS.items():
        if options[option] not in (None, []):
            setattr(channel, field, read(option, options[option]))
            fields.append(field)
    if options["share"]:
        channel.vo_shares.update(weights_of("--share", options["share"]))
        fields.append("vo_shares")
    delay = units.parse_option("--retry-delay", options["retry_delay"], units.parse_duration)
    if delay is not None:
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


def weights_of(option: str, given: list[str]) -> dict[str, int]:
    """The weights of "atlas=70", by name.

    Raises:
        typer.BadParameter: one has another form.
    """
    weights: dict[str, int] = {}
    for text in given:
        name, equals, weight = text.rpartition("=")
        if not equals or not name or not weight.isdecimal():
            raise typer.BadParameter(f"{option} {text}: expected NAME=WEIGHT, as atlas=70")
        weights[name] = int(weight)
    return weights
