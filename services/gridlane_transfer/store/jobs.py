"""Transfer jobs as rows: inserted whole, read in groups, listed in pages, cancelled.

Responsible for statements and for what one transaction holds; what a job may be is decided in
`transfer_jobs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    delete,
    exists,
    select,
    true,
)

from gridlane.transfer.v1 import event_pb2
from gridlane_kit import errors, request_ids
from gridlane_kit.clock import now_us
from gridlane_kit.database import insert_values
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed, NewEvent
from gridlane_kit.filters import Filter
from gridlane_kit.listing import along_indexes
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.request_ids import Conflict, Replay, RequestKey, SameAs
from gridlane_transfer import messages
from gridlane_transfer.channels import Channels
from gridlane_transfer.failures import Failed
from gridlane_transfer.states import FILE_FINAL, UNSTARTED, FileState
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import (
    FEED,
    FILE,
    FILE_COLUMNS,
    FILE_NUMBERS,
    JOB,
    JOB_COLUMNS,
    JOB_NUMBERS,
    REQUEST_ID,
    FileRow,
    JobRow,
)
from gridlane_transfer.store.visibility import reaches, visible_jobs

_READ = select(*JOB_COLUMNS).where(JOB.c.uuid.in_(bindparam("uuids", expanding=True)))
_READ_FILES = (
    select(*FILE_COLUMNS)
    .where(FILE.c.job_number.in_(bindparam("numbers", expanding=True)))
    .order_by(FILE.c.job_number, FILE.c.n)
)
NEWEST_FIRST = Keyset(JOB.c.number, descending=True)
IN_ORDER = Keyset(FILE.c.n)
_OF_A_JOB: Final = "tags.gridlane.job"
FILTER_COLUMNS: Mapping[str, Any] = {
    "state": JOB.c.state,
    "vo": JOB.c.vo,
    _OF_A_JOB: JOB.c.job_tag,
}


class NewFile(NamedTuple):
    """The columns of a file to insert, but for its own and its job's number; see `FileRow`."""

    n: int
    source: str
    target: str
    target_url: str
    target_lfn: str
    source_element: str
    target_element: str
    checksum: str | None
    size_bytes: int | None
    overwrite: int
    state: int
    channel_uid: str
    rank: int
    due_us: int


_NEW_FILE_COLUMNS = ("number", "job_number", *NewFile._fields)


@dataclass(frozen=True, slots=True)
class NewTransferJob:
    """A job to insert.

    Parameters:
        request: the request's key, when the caller gave an id.
        row: the job; its number is not known yet.
        event: what is told of it, complete but for the job's number.
    """

    request: RequestKey | None
    row: JobRow
    files: Sequence[NewFile]
    event: event_pb2.TransferEvent

    @property
    def name(self) -> str:
        """The job's resource name."""
        return self.event.transfer_job


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was inserted: its number, and those of its files in order."""

    number: int
    files: Sequence[int]


@dataclass(frozen=True, slots=True)
class Resubmitted:
    """The request came before; this is the job that it made."""

    name: str


_PENDING = Submitted(0, ())
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
    job_numbers = JOB_NUMBERS.take(conn, len(entries))
    file_numbers = iter(FILE_NUMBERS.take(conn, sum(len(entry.files) for entry in entries)))
    given: list[Submitted] = []
    rows: list[JobRow] = []
    files: list[tuple[Any, ...]] = []
    for entry, number in zip(entries, job_numbers, strict=True):
        rows.append(entry.row._replace(number=number))
        numbers = list(islice(file_numbers, len(entry.files)))
        files += [(its, number, *file) for its, file in zip(numbers, entry.files, strict=True)]
        given.append(Submitted(number, numbers))
    insert_values(conn, JOB, JobRow._fields, rows)
    insert_values(conn, FILE, _NEW_FILE_COLUMNS, files)
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


def read(conn: Connection, uuids: Sequence[str]) -> dict[str, JobRow]:
    """Jobs by uuid; what is not there is left out."""
    rows = map(JobRow._make, conn.execute(_READ, {"uuids": uuids}))
    return {row.uuid: row for row in rows}


def read_with_files(
    conn: Connection, uuids: Sequence[str]
) -> dict[str, tuple[JobRow, list[FileRow]]]:
    """Jobs by uuid, each with its files in order."""
    jobs = read(conn, uuids)
    files = _files(conn, [job.number for job in jobs.values()])
    return {uuid: (job, files[job.number]) for uuid, job in jobs.items()}


def _files(conn: Connection, numbers: Sequence[int]) -> dict[int, list[FileRow]]:
    """The files of jobs, in order, by the jobs' numbers."""
    files: dict[int, list[FileRow]] = {number: [] for number in numbers}
    for row in map(FileRow._make, conn.execute(_READ_FILES, {"numbers": list(files)})):
        files[row.job_number].append(row)
    return files


class Asked(NamedTuple):
    """A job, by uuid, and the reach of who asks for it."""

    uuid: str
    visibility: Visibility


def read_within(
    conn: Connection, asked: Sequence[Asked]
) -> dict[Asked, tuple[JobRow, list[FileRow]]]:
    """Jobs within the reach of who asks, each with its files in order.

    Of those that are not, no file is read: they take no longer than what is not there.
    """
    rows = read(conn, [uuid for uuid, visibility in asked if not visibility.channels])
    found: dict[Asked, JobRow] = {}
    for one in asked:
        row = rows.get(one.uuid)
        if one.visibility.channels:
            # What lies on a channel is known by the files alone.
            row = visible(conn, [one.uuid], one.visibility).get(one.uuid)
        elif row is not None and not covers(one.visibility, row):
            row = None
        if row is not None:
            found[one] = row
    files = _files(conn, [row.number for row in found.values()])
    return {one: (row, files[row.number]) for one, row in found.items()}


def covers(visibility: Visibility, job: JobRow) -> bool:
    """Whether a job is within reach by itself, wherever its files lie."""
    return visibility.covers(owner=job.owner, vo=job.vo, group=job.owner_group)


def visible(conn: Connection, uuids: Sequence[str], visibility: Visibility) -> dict[str, JobRow]:
    """Those of the jobs that are within reach, by uuid."""
    statement = select(*JOB_COLUMNS).where(JOB.c.uuid.in_(uuids), visible_jobs(visibility))
    return {row.uuid: JobRow._make(row) for row in conn.execute(statement)}


def page(
    conn: Connection, visibility: Visibility, filter_: Filter, page_: Page
) -> tuple[list[JobRow], str]:
    """A page of the jobs within reach, newest first, and the token of the next page."""
    rows, token = fetch_page(conn, _listing(visibility, filter_, page_), NEWEST_FIRST, page_)
    return [JobRow._make(row) for row in rows], token


def _listing(visibility: Visibility, filter_: Filter, page_: Page) -> Select[Any]:
    """The statement for a page, along indexes whoever asks."""
    where = filter_.where(FILTER_COLUMNS)
    if filter_.value(_OF_A_JOB) is not None:  # there are few
        return select(*JOB_COLUMNS).where(visible_jobs(visibility), where)
    state = filter_.value("state")
    in_state = true() if state is None else JOB.c.state == state
    reached = reaches(visibility, filter_.value("vo"))
    return along_indexes(JOB_COLUMNS, reached, in_state, NEWEST_FIRST, page_)


def files_page(conn: Connection, job: JobRow, page_: Page) -> tuple[list[FileRow], str]:
    """A page of a job's files, and the token of the next page."""
    statement = select(*FILE_COLUMNS).where(FILE.c.job_number == job.number)
    rows, token = fetch_page(conn, statement, IN_ORDER, page_)
    return [FileRow._make(row) for row in rows], token


@dataclass(frozen=True, slots=True)
class Cancel:
    """Asks for a job's end, with the reach of who asks; `why` is what its files keep of it."""

    uuid: str
    visibility: Visibility
    why: Failed | None = None


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
        return errors.permission_denied("transfer.jobs.cancel", name)
    changes = Changes(conn, feed, channels, now_us())
    changes.load([found.number])
    if found.cancel_us is None and any(row.state not in FILE_FINAL for row in files):
        changes.cancel(found.number)
        for row in files:
            if row.state in UNSTARTED:
                changes.file(row, FileState.CANCELED, failure=entry.why)
            elif row.state == FileState.ACTIVE:
                changes.file(row, FileState.CANCELING, failure=entry.why)
        changes.save()
    job, files = read_with_files(conn, [entry.uuid])[entry.uuid]
    return Canceled(job, files, [row.number for row in files if row.state == FileState.CANCELING])


def _may_end(job: JobRow, files: Sequence[FileRow], visibility: Visibility) -> bool:
    return covers(visibility, job) or all(row.channel_uid in visibility.channels for row in files)


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
