"""`gridlane put`, `gridlane get`, `gridlane rm`: bytes into the store, out of it, and away."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridlane.cli import terminal, units
from gridlane.cli.exit_codes import CannotCreateError, ExitCode
from gridlane.cli.pace import Pace
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output

if TYPE_CHECKING:
    from gridlane.client import Client
    from gridlane.errors import GridlaneError

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+")

Checksum = Annotated[
    str | None,
    typer.Option(metavar="ALGORITHM:HEX", help="What the bytes must have, as ADLER32:0a1b2c3d."),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(put)
    app.command()(get)
    app.command()(rm)


def is_remote(text: str) -> bool:
    """Whether a text is a URL or a logical file name, not a local path."""
    return _REMOTE.fullmatch(text) is not None


def normal(text: str) -> str:
    """A logical file name with its prefix in capitals, as the catalogue has it.

    Other texts as they are.
    """
    return f"LFN:{text[4:]}" if text[:4].upper() == "LFN:" else text


def remote(text: str) -> str:
    """A logical file name or URL, as it is sent.

    Raises:
        typer.BadParameter: it is neither.
    """
    if not is_remote(text):
        raise typer.BadParameter(
            f"{text!r} is a local path: expected a logical file name (LFN:/vo/path) or a URL"
        )
    return normal(text)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error; None where that is no terminal."""
    if not sys.stderr.isatty() or terminal.is_json():
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=terminal.err(), transient=True) as bar:
        task = bar.add_task(terminal.plain(label), total=None, told="")
        pace = Pace()

        def show(done: int, total: int) -> None:
            pace.take(time.monotonic(), done)
            told = f"{units.size(done)} of {units.size(total)}{pace.text(total)}"
            bar.update(task, completed=done, total=total, told=told)

        yield show


def put(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The local file.")],
    target: Annotated[str, typer.Argument(metavar="LFN|URL", help="Ends with /: a folder.")],
    checksum: Checksum = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other bytes there.")
    ] = False,
    output: Output = "text",
) -> None:
    """Put a local file into the store and register it."""
    from gridlane.checksums import format_checksum

    goal = remote(target)
    if goal.endswith("/"):
        goal += path.name
    with connect() as client, progress_bar(path.name) as progress:
        stored = client.storage.put(
            path, goal, checksum=checksum, overwrite=overwrite, progress=progress
        )
    if output == "json":
        terminal.show_json(terminal.as_dict(stored))
        return
    name = stored.lfn or stored.url
    summed = format_checksum(stored.checksum)
    terminal.line(f"{terminal.plain(name)}  {units.size(stored.size_bytes)}  {summed}")


def get(
    source: Annotated[
        str, typer.Argument(metavar="LFN|URL", help="A logical file name (LFN:/vo/path) or a URL.")
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder.")] = Path(),
    checksum: Checksum = None,
    output: Output = "text",
) -> None:
    """Get a file out of the store, verified; the local file is there whole or not at all."""
    from gridlane.checksums import format_checksum

    name = remote(source)
    local = path / name.rstrip("/").rpartition("/")[2] if path.is_dir() else path
    with connect() as client, progress_bar(local.name) as progress:
        next(client.storage.elements(limit=1), None)  # a stream is patient, people are not
        try:
            verified = client.storage.get(name, local, checksum=checksum, progress=progress)
        except OSError as error:
            raise CannotCreateError(error.errno, error.strerror, error.filename) from error
    count, summed = local.stat().st_size, format_checksum(verified)
    if output == "json":
        # As the contracts write it: a count of bytes is a text, a checksum an object.
        told = {"path": str(local), "size_bytes": str(count)}
        sum_of = terminal.as_dict(verified)
        terminal.show_json({**told, "checksum": sum_of} if sum_of else told)
        return
    shown = summed or "no checksum is registered: not verified"
    terminal.line(f"{terminal.plain(str(local))}  {units.size(count)}  {shown}")


def rm(
    names: Annotated[
        list[str],
        typer.Argument(metavar="LFN|URL", help="A logical file name: all its copies; or a URL."),
    ],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="A file that is not there is well too.")
    ] = False,
    output: Output = "text",
) -> int:
    """Remove files from the store, and their registration. One that cannot be does not keep the
    others.
    """
    given = [remote(name) for name in names]
    failed: list[GridlaneError] = []
    with connect() as client:
        for name in given:
            failed += _removed(client, name, force)
    if failed:
        return terminal.fail_calls(failed)
    if output == "json":
        terminal.show_json({})
    return ExitCode.OK


def _removed(client: Client, name: str, missing_ok: bool) -> list[GridlaneError]:
    """Remove one file; why it could not be."""
    from gridlane.errors import GridlaneError

    try:
        client.storage.delete(name, missing_ok=missing_ok)
    except GridlaneError as error:
        return [error]
    return []
