"""Attempts of files as rows: one for each time that a file was started.

Responsible for the statements, and for what a row says of its attempt's end. It is written in the
transactions that change the file (`changes`), so that the two never disagree; it goes with the file
(`sweeps`).
"""

from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from gridlane.type.v1 import failure_pb2
from gridlane_kit.database import RowUpdate, insert_values
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_transfer.states import FileState
from gridlane_transfer.store.tables import FILE_ATTEMPT, FileRow


class AttemptRow(NamedTuple):
    """A row of `file_attempt`."""

    file_number: int
    attempt: int
    hop: int
    channel_uid: str
    source_url: str
    target_url: str
    source_element: str
    target_element: str
    start_us: int
    end_us: int | None
    transferred_bytes: int
    outcome: int
    failure: bytes | None
    actual_checksum: str | None


COLUMNS: Final = [FILE_ATTEMPT.c[name] for name in AttemptRow._fields]
OLDEST_FIRST: Final = Keyset(FILE_ATTEMPT.c.attempt)

_ENDING: Final = (
    "source_url",
    "source_element",
    "end_us",
    "transferred_bytes",
    "outcome",
    "failure",
    "actual_checksum",
)
_UPDATE: Final = RowUpdate(
    FILE_ATTEMPT, AttemptRow, key=["file_number", "attempt"], columns=_ENDING
)
_UNDER_WAY: Final = frozenset(
    {FileState.ACTIVE, FileState.CANCELING, FileState.REGISTERING, FileState.ARCHIVING}
)
_LOST: Final = failure_pb2.Failure(
    failure_class=failure_pb2.FAILURE_CLASS_BACKEND_LOST,
    message="the process that moved it is no more",
    recoverable=True,
).SerializeToString()


class Attempts:
    """What one transaction tells of attempts.

    Parameters:
        time_us: when it happens.
    """

    def __init__(self, time_us: int) -> None:
        self._time_us = time_us
        self._begun: dict[tuple[int, int], AttemptRow] = {}
        self._changed: dict[tuple[int, int], AttemptRow] = {}

    def note(self, before: FileRow, after: FileRow) -> None:
        """Take note of a file's change, when it begins or ends an attempt."""
        if after.attempt != before.attempt:
            if before.state == FileState.ACTIVE:
                lost = before._replace(failure=_LOST)
                self._end(_row(lost, FileState.RETRYING, self._time_us))
            self._begun[after.number, after.attempt] = _row(after, FileState.ACTIVE, None)
            return
        under_way = before.attempt > 0 and before.state in _UNDER_WAY
        if under_way and after.state not in (before.state, FileState.CANCELING):
            ended_before = before.state in (FileState.REGISTERING, FileState.ARCHIVING)
            end_us = before.end_us if ended_before else None
            outcome = FileState(after.state)
            if outcome is FileState.READY and after.hop:
                outcome = FileState.FINISHED  # it has arrived where the next hop begins
            self._end(_row(after, outcome, end_us or self._time_us))

    def _end(self, row: AttemptRow) -> None:
        key = row.file_number, row.attempt
        if key in self._begun:
            self._begun[key] = row
        else:
            self._changed[key] = row

    def save(self, conn: Connection) -> None:
        """Write everything."""
        insert_values(conn, FILE_ATTEMPT, AttemptRow._fields, list(self._begun.values()))
        _UPDATE(conn, list(self._changed.values()))


def page(conn: Connection, file_number: int, page_: Page) -> tuple[list[AttemptRow], str]:
    """A page of a file's attempts, oldest first, and the token of the next page."""
    statement = select(*COLUMNS).where(FILE_ATTEMPT.c.file_number == file_number)
    rows, token = fetch_page(conn, statement, OLDEST_FIRST, page_)
    return [AttemptRow._make(row) for row in rows], token


def _row(file: FileRow, outcome: FileState, end_us: int | None) -> AttemptRow:
    return AttemptRow(
        file_number=file.number,
        attempt=file.attempt,
        hop=file.hop,
        channel_uid=file.channel_uid,
        source_url=file.source_url or "",
        target_url=file.target_url,
        source_element=file.source_element,
        target_element=file.target_element,
        start_us=file.start_us or 0,
        end_us=end_us,
        transferred_bytes=file.transferred_bytes,
        outcome=int(outcome),
        failure=file.failure,
        actual_checksum=file.actual_checksum,
    )
