"""Files to move as people list them: CSV and JSON lines.

Responsible for what a row of such a list stands for. A CSV has a header with `source` and `target`
(and, as needed, `checksum`, `size_bytes`, `alternative_sources`, `via`, `activity`, `metadata`,
`guid`), or no header and source and target as its first two columns. Several sources or stops of
one cell are parted by spaces. A JSON line is an object with the fields of a FileTransfer; a
checksum may be written "ADLER32:0a1b2c3d".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from gridlane.cli.files import is_remote, normal
from gridlane.cli.lists import ListFormat, read_list, read_rows

if TYPE_CHECKING:
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

_COLUMNS = (
    "source",
    "target",
    "checksum",
    "size_bytes",
    "alternative_sources",
    "via",
    "activity",
    "metadata",
    "guid",
)
_SEVERAL = ("alternative_sources", "via")


class ListedFile(NamedTuple):
    """A file of a list."""

    #: Where the list has it: "files.csv, line 7".
    place: str
    file: FileTransfer


def read_files(lines: IO[str], name: str, written: ListFormat) -> Iterator[ListedFile]:
    """The files of a list, one after the other.

    Parameters:
        name: of the list, for messages.

    Raises:
        ValueError: a line is wrong; it is named by its number.
    """
    for place, file in read_rows(lines, name, written, _COLUMNS, 2, _file):
        yield ListedFile(place, file)


def files_of(from_: str, written: ListFormat | None) -> Iterator[ListedFile]:
    """The files of a list that was named on the command line; errors as `lists.read_list`."""
    for place, file in read_list(from_, written, _COLUMNS, 2, _file):
        yield ListedFile(place, file)


def _file(row: Mapping[str, Any]) -> FileTransfer:
    from google.protobuf.json_format import ParseDict, ParseError

    from gridlane.checksums import parse_checksum
    from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer

    fields = dict(row)
    checksum = fields.get("checksum")
    if isinstance(checksum, str):
        del fields["checksum"]
    for name in _SEVERAL:
        if isinstance(cell := fields.get(name), str):
            fields[name] = cell.split()
    file = FileTransfer()
    try:
        ParseDict(fields, file)
    except ParseError as error:
        # Behind its first line protobuf lists every field, in a spelling of its own.
        raise ValueError(str(error).partition("\n")[0].rstrip(".")) from error
    if not (file.source and file.target):
        raise ValueError("source and target are needed")
    for end in (file.source, file.target, *file.alternative_sources):
        if not is_remote(end):
            raise ValueError(f"{end!r} is no logical file name (LFN:/vo/path) and no URL")
    file.source, file.target = normal(file.source), normal(file.target)
    file.alternative_sources[:] = map(normal, file.alternative_sources)
    if isinstance(checksum, str) and checksum:
        file.checksum.CopyFrom(parse_checksum(checksum))
    return file
