"""`gridlane replica`: the catalogue of logical files."""

from __future__ import annotations

from typing import Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.files import normal
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain

app = typer.Typer(help="Logical files and their copies: list, show.", no_args_is_help=True)


@app.command("list")
def list_replicas(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="As LFN:/local/.")],
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    output: Output = "text",
) -> None:
    """List logical files below a path, by name."""
    from gridlane.checksums import format_checksum

    with connect() as client:
        files = list(client.replicas.list(normal(prefix), limit=limit))
    if output == "json":
        terminal.show_messages(files)
        return
    rows = (
        (
            plain(file.lfn),
            units.size(file.size_bytes),
            format_checksum(file.checksum),
            ", ".join(r.storage_element.removeprefix("storageElements/") for r in file.replicas),
            units.short_time(file.create_time),
        )
        for file in files
    )
    columns = ("LFN", ">SIZE", "CHECKSUM", "?COPIES", "REGISTERED")
    terminal.table(columns, rows, "no logical files below that path", names=False)


@app.command()
def show(
    lfn: Annotated[str, typer.Argument(metavar="LFN", help="As LFN:/local/a.csv.")],
    output: Output = "text",
) -> None:
    """Show one logical file and where its copies lie."""
    from gridlane.checksums import format_checksum
    from gridlane.errors import GridlaneError

    with connect() as client:
        (file,) = client.replicas.resolve([normal(lfn)])
    if isinstance(file, GridlaneError):
        raise file
    if output == "json":
        terminal.show_json(terminal.as_dict(file))
        return
    pairs = [
        ("lfn", plain(file.lfn)),
        ("size", f"{units.size(file.size_bytes)} ({file.size_bytes} bytes)"),
        ("checksum", format_checksum(file.checksum)),
        ("registered", units.local_time(file.create_time)),
    ]
    for replica in file.replicas:
        where = replica.storage_element.removeprefix("storageElements/")
        pairs.append(("copy", plain(f"{where}  {replica.url}")))
    terminal.details(pairs)
