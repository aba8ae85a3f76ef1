"""Transfer jobs as rows: inserted whole, read in groups, listed in pages, cancelled.

Responsible for statements and for what one transaction holds; what a job may be is decided in
`transfer_jobs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, select, update
from sqlalchemy import insert as sql_insert

from gridlane.transfer.v1 import event_pb2
from gridlane_kit import errors, request_ids
from gridlane_kit.clock import now_us
from gridlane_kit.database import insert_rows
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed, NewEvent
from gridlane_kit.filters import Filter
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.request_ids import Conflict, Replay, RequestKey, SameAs
from gridlane_transfer import messages
from gridlane_transfer.channels import Channels
from gridlane_transfer.states import FILE_FINAL, UNSTARTED, FileState
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import (
    FEED,
    FILE,
    FILE_COLUMNS,
    JOB,
    JOB_COLUMNS,
    NUMBERS,
    REQUEST_ID,
    FileRow,
    JobRow,
)
from gridlane_transfer.store.visibility import visible_jobs

_TAKE_NUMBERS = (
    update(NUMBERS)
    .values(jobs=NUMBERS.c.jobs + bindparam("jobs"), files=NUMBERS.c.files + bindparam("files"))
    .returning(NUMBERS.c.jobs, NUMBERS.c.files)
)
_READ = select(*JOB_COLUMNS).where(JOB.c.uuid.in_(bindparam("uuids", expanding=True)))
_READ_FILES = (
    select(*FILE_COLUMNS)
    .where(FILE.c.job_number.in_(bindparam("numbers", expanding=True)))
    .order_by(FILE.c.job_number, FILE.c.n)
)
NEWEST_FIRST = Keyset(JOB.c.number, descending=True)
IN_ORDER = Keyset(FILE.c.n)
FILTER_COLUMNS: Mapping[str, Any] = {
    "state": JOB.c.state,
    "vo": JOB.c.vo,
    "tags.gridlane.job": JOB.c.job_tag,
}


@dataclass(frozen=True, slots=True)
class NewTransferJob:
    """A job to insert.

    Parameters:
        request: the request's key, when the caller gave an id.
        row: the job; its number is not known yet.
        files: columns of each file but its own and its job's number.
        event: what is told of it, complete but for the job's number.
    """

    request: RequestKey | None
    row: JobRow
    files: Sequence[Mapping[str, Any]]
    event: event_pb2.TransferEvent

    @property
    def name(self) -> str:
        """The job's resource name."""
        return self.event.transfer_job


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was inserted: its number, and the first of its files'; the others follow it."""

    number: int
    first_file: int


@dataclass(frozen=True, slots=True)
class Resubmitted:
    """The request came before; this is the job that it made."""

    name: str


_PENDING = Submitted(0, 0)
"""Stands in the answers for what is still to be inserted."""


def insert(
    conn: Connection, entries: Sequence[NewTransferJob], *, feed: Feed
) -> list[Submitted | Resubmitted | Exception]:
    """Insert jobs with their files, request ids and events."""
    claims = request_ids.claim(conn, REQUEST_ID, [entry.request for entry in entries])
    answers: list[Submitted | Resubmitted | Exception] = []
    new: list[NewTransferJob] = []
    for entry, claim in zip(entries, claims, strict=True):
        if isinstance(claim, Replay):
            answers.append(Resubmitted(claim.resource))
        elif isinstance(claim, SameAs):
            answers.append(Resubmitted(entries[claim.index].name))
        elif isinstance(claim, Conflict):
            answers.append(errors.request_id_reused())
        else:
            new.append(entry)
            answers.append(_PENDING)
    if not new:
        return answers
    inserted = iter(_insert_new(conn, feed, new))
    return [next(inserted) if answer is _PENDING else answer for answer in answers]


def _insert_new(conn: Connection, feed: Feed, entries: Sequence[NewTransferJob]) -> list[Submitted]:
    taken = {"jobs": len(entries), "files": sum(len(entry.files) for entry in entries)}
    last_job, last_file = conn.execute(_TAKE_NUMBERS, taken).one()
    number, first_file = last_job - taken["jobs"] + 1, last_file - taken["files"] + 1
    given: list[Submitted] = []
    rows: list[Mapping[str, Any]] = []
    files: list[Mapping[str, Any]] = []
    for entry in entries:
        given.append(Submitted(number, first_file))
        rows.append({**entry.row._asdict(), "number": number})
        files += [
            {**file, "number": first_file + n, "job_number": number}
            for n, file in enumerate(entry.files)
        ]
        number += 1
        first_file += len(entry.files)
    insert_rows(conn, JOB, rows)
    insert_rows(conn, FILE, files)
    request_ids.remember(
        conn,
        REQUEST_ID,
        [(entry.request, entry.name) for entry in entries if entry.request is not None],
    )
    feed.append(conn, [_submitted(e, one.number) for e, one in zip(entries, given, strict=True)])
    return given


def _submitted(entry: NewTransferJob, number: int) -> NewEvent:
    event, row = entry.event, entry.row
    # The same number again when the batch is applied again: it is taken anew after a rollback.
    event.job.number = number
    return NewEvent(
        event.event_id,
        event.transfer_job,
        "job.READY",
        row.create_us,
        event.SerializeToString(),
        row.owner,
        row.vo,
    )


def ensure_numbers(conn: Connection) -> None:
    """Begin to count, in a new database."""
    if conn.execute(select(NUMBERS.c.id)).first() is None:
        conn.execute(sql_insert(NUMBERS).values(id=1, jobs=0, files=0))


def read(conn: Connection, uuids: Sequence[str]) -> dict[str, JobRow]:
    """Jobs by uuid; what is not there is left out."""
    rows = map(JobRow._make, conn.execute(_READ, {"uuids": uuids}))
    return {row.uuid: row for row in rows}


def read_with_files(
    conn: Connection, uuids: Sequence[str]
) -> dict[str, tuple[JobRow, list[FileRow]]]:
    """Jobs by uuid, each with its files in order."""
    jobs = read(conn, uuids)
    files: dict[int, list[FileRow]] = {job.number: [] for job in jobs.values()}
    for row in map(FileRow._make, conn.execute(_READ_FILES, {"numbers": list(files)})):
        files[row.job_number].append(row)
    return {uuid: (job, files[job.number]) for uuid, job in jobs.items()}


def visible(conn: Connection, uuids: Sequence[str], visibility: Visibility) -> dict[str, JobRow]:
    """Those of the jobs that are within reach, by uuid."""
    statement = select(*JOB_COLUMNS).where(
        JOB.c.uuid.in_(uuids), visible_jobs(visibility, filtered=True)
    )
    return {row.uuid: JobRow._make(row) for row in conn.execute(statement)}


def page(
    conn: Connection, visibility: Visibility, filter_: Filter, page_: Page
) -> tuple[list[JobRow], str]:
    """A page of the jobs within reach, newest first, and the token of the next page."""
    visible_ = visible_jobs(visibility, filtered=bool(filter_.clauses))
    statement = select(*JOB_COLUMNS).where(visible_, filter_.where(FILTER_COLUMNS))
    rows, token = fetch_page(conn, statement, NEWEST_FIRST, page_)
    return [JobRow._make(row) for row in rows], token


def files_page(conn: Connection, job: JobRow, page_: Page) -> tuple[list[FileRow], str]:
    """A page of a job's files, and the token of the next page."""
    statement = select(*FILE_COLUMNS).where(FILE.c.job_number == job.number)
    rows, token = fetch_page(conn, statement, IN_ORDER, page_)
    return [FileRow._make(row) for row in rows], token


@dataclass(frozen=True, slots=True)
class Cancel:
    """Asks for a job's end, with the reach of who asks."""

    uuid: str
    visibility: Visibility


@dataclass(frozen=True, slots=True)
class Canceled:
    """A job whose end was asked for, with its files; `running` are those to abort."""

    job: JobRow
    files: Sequence[FileRow]
    running: Sequence[int]


def cancel(
    conn: Connection, entries: Sequence[Cancel], *, feed: Feed, channels: Channels
) -> list[Canceled | Exception]:
    """Cancel jobs: unstarted files end here, running ones become CANCELING."""
    return [_cancel(conn, feed, channels, entry) for entry in entries]


def _cancel(
    conn: Connection, feed: Feed, channels: Channels, entry: Cancel
) -> Canceled | Exception:
    name = messages.PREFIX + entry.uuid
    found = visible(conn, [entry.uuid], entry.visibility).get(entry.uuid)
    if found is None:
        return errors.not_found(name)
    _, files = read_with_files(conn, [entry.uuid])[entry.uuid]
    if not _may_end(found, files, entry.visibility):
        # A channel's manager acts on a whole job only when all of it lies on the channels managed.
        return errors.permission_denied("transfer.jobs.cancel")
    changes = Changes(conn, feed, channels, now_us())
    changes.load([found.number])
    if found.cancel_us is None and any(row.state not in FILE_FINAL for row in files):
        changes.cancel(found.number)
        for row in files:
            if row.state in UNSTARTED:
                changes.file(row, FileState.CANCELED)
            elif row.state == FileState.ACTIVE:
                changes.file(row, FileState.CANCELING)
        changes.save()
    job, files = read_with_files(conn, [entry.uuid])[entry.uuid]
    return Canceled(job, files, [row.number for row in files if row.state == FileState.CANCELING])


def _may_end(job: JobRow, files: Sequence[FileRow], visibility: Visibility) -> bool:
    return visibility.covers(owner=job.owner, vo=job.vo) or all(
        row.channel_uid in visibility.channels for row in files
    )


def delete_ended(conn: Connection, before_us: int, limit: int) -> int:
    """Delete jobs that ended before a time and whose events are all gone, so that every follower
    has had them.

    Parameters:
        limit: at most so many at once.

    Returns:
        How many were deleted.
    """
    has_events = exists().where(FEED.event.c.subject == messages.PREFIX + JOB.c.uuid)
    statement = select(JOB.c.number).where(JOB.c.end_us < before_us, ~has_events)
    numbers = conn.execute(statement.order_by(JOB.c.end_us).limit(limit)).scalars().all()
    conn.execute(delete(FILE).where(FILE.c.job_number.in_(numbers)))
    conn.execute(delete(JOB).where(JOB.c.number.in_(numbers)))
    return len(numbers)
