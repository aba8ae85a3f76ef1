"""`gridlane channel`: transfer channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridlane.transfer.v1.channel_pb2 import Channel

app = typer.Typer(help="Channels: list, show.", no_args_is_help=True)


@app.command("list")
def list_channels(output: Output = "text") -> None:
    """List channels by name."""
    with connect() as client:
        channels = list(client.channels.list())
    terminal.show_list(channels, ("NAME", "STATE"), _row, "no channels", output)


def _row(channel: Channel) -> tuple[str, ...]:
    return channel.name.removeprefix("channels/"), _state(channel)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="CHANNEL", help="channels/<name>, or the name.")],
    output: Output = "text",
) -> None:
    """Show all of one channel: for admins, its manager and VO managers."""
    with connect() as client:
        channel = client.channels.get(name)
    terminal.show_message(channel, _pairs(channel), output)


def _pairs(channel: Channel) -> Iterator[tuple[str, str]]:
    yield "channel", channel.name
    yield "uid", channel.uid
    yield "from", channel.source
    yield "to", channel.target
    yield "state", _state(channel)
    yield "files at once", str(channel.max_files)


def _state(channel: Channel) -> str:
    from gridlane.states import enum_word
    from gridlane.transfer.v1.channel_pb2 import ChannelState

    word = enum_word(ChannelState, channel.state, "CHANNEL_STATE_")
    return f"[green]{word}[/]" if word == "ACTIVE" else f"[yellow]{word}[/]"
