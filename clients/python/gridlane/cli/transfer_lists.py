"""Files to move as people list them: CSV and JSON lines.

Responsible for reading such lists, and for saying which line is wrong. A CSV has a header with
`source` and `target` (and, as needed, `checksum`, `size_bytes`, `activity`, `metadata`), or no
header and source and target as its first two columns. A JSON line is an object with the fields of
a FileTransfer; a checksum may be written "ADLER32:0a1b2c3d".
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

ListFormat = Literal["csv", "jsonl"]

_SUFFIXES: Mapping[str, ListFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_COLUMNS = ("source", "target", "checksum", "size_bytes", "activity", "metadata")


def format_of(name: str, given: ListFormat | None) -> ListFormat:
    """How a list is written: as said, else by the end of its name.

    Raises:
        ValueError: neither tells.
    """
    found = given or _SUFFIXES.get(PurePath(name).suffix.lower())
    if found is None:
        raise ValueError(f"{name}: say --format csv or --format jsonl")
    return found


def read_files(lines: IO[str], name: str, written: ListFormat) -> Iterator[FileTransfer]:
    """The files of a list, one after the other.

    Parameters:
        name: of the list, for messages.

    Raises:
        ValueError: a line is wrong; it is named by its number.
    """
    rows = _csv_rows(lines, name) if written == "csv" else _json_rows(lines, name)
    return (_numbered(row, f"{name}, line {number}") for number, row in rows)


def _numbered(row: Mapping[str, Any], where: str) -> FileTransfer:
    try:
        return _file(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _csv_rows(lines: IO[str], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(lines)
    columns: list[str] = list(_COLUMNS[:2])
    for row in reader:
        if reader.line_num == 1 and [cell.strip() for cell in row[:1]] == ["source"]:
            columns = [cell.strip() for cell in row]
            unknown = sorted(set(columns) - set(_COLUMNS))
            if unknown:
                raise ValueError(f"{name}, line 1: no such columns: {', '.join(unknown)}")
            continue
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(columns):
            raise ValueError(f"{name}, line {reader.line_num}: more cells than columns")
        cells = {column: cell.strip() for column, cell in zip(columns, row)}  # noqa: B905
        yield reader.line_num, {column: cell for column, cell in cells.items() if cell}


def _json_rows(lines: IO[str], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{name}, line {number}: no JSON object")
        yield number, row


def _file(row: Mapping[str, Any]) -> FileTransfer:
    from google.protobuf.json_format import ParseDict, ParseError

    from gridlane.checksums import parse_checksum
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

    fields = dict(row)
    checksum = fields.pop("checksum", None)
    if isinstance(checksum, dict):
        fields["checksum"] = checksum
        checksum = None
    file = FileTransfer()
    try:
        ParseDict(fields, file)
    except ParseError as error:
        raise ValueError(str(error)) from error
    if not (file.source and file.target):
        raise ValueError("source and target are needed")
    if checksum:
        file.checksum.CopyFrom(parse_checksum(checksum))
    return file
