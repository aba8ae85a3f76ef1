"""`gridlane channel`: transfer channels."""

from __future__ import annotations

from typing import Annotated

import typer

from gridlane.cli import terminal
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output

app = typer.Typer(help="Channels: list, show.", no_args_is_help=True)


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
def show(
    name: Annotated[str, typer.Argument(metavar="CHANNEL", help="channels/<name>, or the name.")],
    output: Output = "text",
) -> None:
    """Show all of one channel: for admins, its manager and VO managers."""
    with connect() as client:
        channel = client.channels.get(name)
    if output == "json":
        terminal.show_json(terminal.as_dict(channel))
        return
    terminal.details(
        (
            ("channel", channel.name),
            ("uid", channel.uid),
            ("from", channel.source),
            ("to", channel.target),
            ("state", _state(channel.state)),
            ("files at once", str(channel.max_files)),
        )
    )
