"""`gridlane replica register` and `unregister`: one copy, or a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gridlane.cli import replica_lists, terminal
from gridlane.cli.exit_codes import ExitCode
from gridlane.cli.files import normal
from gridlane.cli.lists import From, Written, read_list
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain

if TYPE_CHECKING:
    from gridlane.errors import GridlaneError

Item = TypeVar("Item")


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(register)
    app.command()(unregister)


def register(
    lfn: Annotated[
        str, typer.Argument(metavar="LFN", help="Its logical name, as LFN:/local/a.csv.")
    ] = "",
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the copy lies.")] = "",
    size: Annotated[int | None, typer.Option(min=0, help="In bytes.")] = None,
    checksum: Annotated[
        str, typer.Option(metavar="ALGORITHM:HEX", help="As ADLER32:0a1b2c3d.")
    ] = "",
    guid: Annotated[str, typer.Option(help="A UUID, of a file that is new.")] = "",
    from_: From = "",
    written: Written = None,
    output: Output = "text",
) -> int:
    """Register copies that lie on storage elements: one, or a list with --from. Those that are
    good are durable even when others are refused.
    """
    if from_:
        _alone(lfn, url, size, checksum, guid)
        rows = read_list(from_, written, replica_lists.COPIES, 4, replica_lists.copy_of)
        places, copies = _unzipped(rows)
    elif lfn and url and size is not None and checksum:
        from gridlane.descriptions import new_replica

        made = new_replica(normal(lfn), url, size_bytes=size, checksum=checksum, guid=guid)
        places, copies = [""], [made]
    else:
        raise typer.BadParameter("LFN, URL, --size and --checksum are needed, or --from FILE")
    with connect() as client:
        results = client.replicas.register_many(copies)
    failed = _named(places, results)
    files = [result for result in results if not isinstance(result, Exception)]
    if failed:
        if from_:
            _tell(f"registered {_copies(len(files))}", output)
        return terminal.fail_calls(failed, files)
    if output == "json":
        terminal.show_messages(files)
    else:
        _tell(f"registered {_copies(len(files))}" if from_ else plain(files[0].lfn), output)
    return ExitCode.OK


def unregister(
    lfn: Annotated[
        str, typer.Argument(metavar="LFN", help="Its logical name, as LFN:/local/a.csv.")
    ] = "",
    copy: Annotated[
        str, typer.Argument(metavar="COPY", help="Its URL, or the storage element it lies on.")
    ] = "",
    from_: From = "",
    written: Written = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="A copy that is not registered is well too.")
    ] = False,
    output: Output = "text",
) -> int:
    """Take copies out of the catalogue, a file with its last one; the bytes stay. One, or a list
    with --from. One that cannot be does not keep the others.
    """
    from gridlane.errors import NotFound

    if from_:
        _alone(lfn, copy)
        rows = read_list(from_, written, replica_lists.REMOVALS, 2, replica_lists.removal_of)
        places, removals = _unzipped(rows)
    elif lfn and copy:
        places, removals = [""], [(normal(lfn), replica_lists.copy_name(copy))]
    else:
        raise typer.BadParameter("LFN and COPY are needed, or --from FILE")
    with connect() as client:
        refusals = client.replicas.unregister_many(removals)
    failed = [
        error for error in _named(places, refusals) if not (force and isinstance(error, NotFound))
    ]
    gone = sum(refusal is None for refusal in refusals)
    if failed:
        if from_:
            _tell(f"took out {_copies(gone)}", output)
        return terminal.fail_calls(failed)
    if output == "json":
        terminal.show_json({"unregistered": gone})
    else:
        _tell(f"took out {_copies(gone)}", output)
    return ExitCode.OK


def _alone(*given: object) -> None:
    """Refuse single things beside a list."""
    if any(value not in ("", None) for value in given):
        raise typer.BadParameter("give one copy, or --from, not both")


def _unzipped(rows: Iterable[tuple[str, Item]]) -> tuple[list[str], list[Item]]:
    """The places and items of a list, all of which is read before any of it is done.

    Raises:
        ValueError: it is empty.
    """
    listed = list(rows)
    if not listed:
        raise ValueError("the list has no copies")
    return [place for place, _ in listed], [item for _, item in listed]


def _named(places: Sequence[str], results: Sequence[object]) -> list[GridlaneError]:
    """What was refused, each said of the place where the list has it."""
    from gridlane.errors import GridlaneError, Violation

    failed = []
    for place, result in zip(places, results):  # noqa: B905 - Python 3.9 knows no strict
        if isinstance(result, GridlaneError):
            if place:
                result.message = f"{place}: {result.message}"
                result.violations = tuple(
                    Violation(f"{place} {one.field}".strip(), one.description)
                    for one in result.violations
                )
            failed.append(result)
    return failed


def _tell(text: str, output: terminal.Format) -> None:
    if output == "text":
        terminal.line(text)


def _copies(number: int) -> str:
    return "1 copy" if number == 1 else f"{number} copies"
