"""Lists of many things as people keep them: CSV and JSON lines.

Responsible for reading the rows of such a list, and for saying which line is wrong; what a row
stands for is said by whoever reads it. A CSV has a header with the names of its columns, or no
header and the leading ones in order. A JSON line is an object.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Annotated, Any, Literal, TypeVar

import typer

Item = TypeVar("Item")
ListFormat = Literal["csv", "jsonl"]

_SUFFIXES: Mapping[str, ListFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

#: The options of every command that takes a list.
From = Annotated[
    str,
    typer.Option("--from", metavar="FILE", help="A list, CSV or JSON lines; -: standard input."),
]
Written = Annotated[
    ListFormat | None, typer.Option("--format", help="Of the list. Without: by its name.")
]


def format_of(name: str, given: ListFormat | None) -> ListFormat:
    """How a list is written: as said, else by the end of its name.

    Raises:
        ValueError: neither tells.
    """
    found = given or _SUFFIXES.get(PurePath(name).suffix.lower())
    if found is None:
        raise ValueError(f"{name}: say --format csv or --format jsonl")
    return found


def read_list(
    from_: str,
    written: ListFormat | None,
    columns: Sequence[str],
    leading: int,
    make: Callable[[Mapping[str, Any]], Item],
) -> Iterator[tuple[str, Item]]:
    """What a list that was named on the command line has: the place of each, and the item.

    Parameters:
        from_: a path; "-" for standard input.
        written: how, when that was said.
        columns, leading, make: as `read_rows`.

    Raises:
        ValueError: a line is wrong; it is named by its number.
        typer.BadParameter: it is not said how the list is written.
    """
    name = "standard input" if from_ == "-" else from_
    try:
        form = format_of(name, written)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with opened(from_) as lines:
        yield from read_rows(lines, name, form, columns, leading, make)


def read_rows(
    lines: IO[str],
    name: str,
    written: ListFormat,
    columns: Sequence[str],
    leading: int,
    make: Callable[[Mapping[str, Any]], Item],
) -> Iterator[tuple[str, Item]]:
    """The rows of a list, one after the other: where it has them ("files.csv, line 7"), and what
    they stand for.

    Parameters:
        name: of the list, for messages.
        columns: that a CSV may have; the first one tells a header.
        leading: how many of them a CSV without a header has.
        make: makes an item of a row; raises ValueError.

    Raises:
        ValueError: a line is wrong; it is named by its number.
    """
    text = _text(lines)
    rows = _csv_rows(text, columns, leading) if written == "csv" else _json_rows(text)
    number = 0
    try:
        for number, row in rows:
            yield f"{name}, line {number}", make(row)
    except _LineError as error:
        raise ValueError(f"{name}, line {error.number}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}, line {number}: {error}") from error


@contextmanager
def opened(from_: str) -> Iterator[IO[str]]:
    """A list's lines; standard input stays open."""
    if from_ == "-":
        yield sys.stdin
        return
    with Path(from_).open(encoding="utf-8-sig", newline="") as lines:
        yield lines


class _LineError(Exception):
    """A line that cannot be read."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def _text(lines: IO[str]) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007 - told when a line is no text
            yield line
    except UnicodeDecodeError as error:
        raise _LineError(number + 1, "no text in UTF-8") from error


def _csv_rows(
    lines: Iterator[str], known: Sequence[str], leading: int
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(lines, strict=True)
    columns: list[str] = list(known[:leading])
    for row in _read(reader):
        if reader.line_num == 1 and [cell.strip() for cell in row[:1]] == [known[0]]:
            columns = [cell.strip() for cell in row]
            unknown = sorted(set(columns) - set(known))
            if unknown:
                raise _LineError(1, f"no such columns: {', '.join(unknown)}")
            continue
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(columns):
            raise _LineError(reader.line_num, "more cells than columns")
        cells = {column: cell.strip() for column, cell in zip(columns, row)}  # noqa: B905
        yield reader.line_num, {column: cell for column, cell in cells.items() if cell}


def _read(reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise _LineError(reader.line_num, f"no CSV: {error}") from error


def _json_rows(lines: Iterator[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _LineError(number, f"no JSON: {error.msg}, column {error.colno}") from error
        if not isinstance(row, dict):
            raise _LineError(number, "no JSON object")
        yield number, row
