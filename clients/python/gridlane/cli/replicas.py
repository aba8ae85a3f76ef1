"""`gridlane replica`: the catalogue of logical files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import replica_changes, terminal, units
from gridlane.cli.files import normal
from gridlane.cli.session import connect
from gridlane.cli.terminal import Limit, Output, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridlane.transfer.v1.replica_pb2 import LogicalFile

app = typer.Typer(
    help="Logical files and their copies: list, show, register, unregister.",
    no_args_is_help=True,
)


@app.command("list")
def list_replicas(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="As LFN:/local/.")],
    limit: Limit = 100,
    output: Output = "text",
) -> None:
    """List logical files below a path, by name."""
    with connect() as client:
        files = list(client.replicas.list(normal(prefix), limit=limit))
    columns = ("LFN", ">SIZE", "CHECKSUM", "?COPIES", "REGISTERED")
    empty = "no logical files below that path"
    terminal.show_list(files, columns, _row, empty, output, names=False)


def _row(file: LogicalFile) -> tuple[str, ...]:
    from gridlane.checksums import format_checksum

    return (
        plain(file.lfn),
        units.size(file.size_bytes),
        format_checksum(file.checksum),
        ", ".join(r.storage_element.removeprefix("storageElements/") for r in file.replicas),
        units.short_time(file.create_time),
    )


@app.command()
def show(
    lfn: Annotated[str, typer.Argument(metavar="LFN", help="As LFN:/local/a.csv.")],
    output: Output = "text",
) -> None:
    """Show one logical file and where its copies lie."""
    from gridlane.errors import GridlaneError

    with connect() as client:
        (file,) = client.replicas.resolve([normal(lfn)])
    if isinstance(file, GridlaneError):
        raise file
    terminal.show_message(file, _pairs(file), output)


def _pairs(file: LogicalFile) -> Iterator[tuple[str, str]]:
    from gridlane.checksums import format_checksum

    yield "lfn", plain(file.lfn)
    yield "size", f"{units.size(file.size_bytes)} ({file.size_bytes} bytes)"
    yield "checksum", format_checksum(file.checksum)
    yield "guid", file.guid
    yield "vo", plain(file.vo)
    yield "owner", plain(file.owner.subject)
    yield "registered", units.local_time(file.create_time)
    for replica in file.replicas:
        where = replica.storage_element.removeprefix("storageElements/")
        yield "copy", plain(f"{where}  {replica.url}")


replica_changes.add_to(app)
