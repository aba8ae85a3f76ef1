"""Transfer jobs as rows: inserted whole, read in groups, listed in pages, deleted.

Responsible for statements and for what one transaction holds; what a job may be is decided in
`transfer_jobs`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    select,
    true,
)

from gridlane.transfer.v1 import event_pb2
from gridlane_kit import audit, errors, request_ids
from gridlane_kit.audit import AuditEntry
from gridlane_kit.database import insert_values
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed, NewEvent
from gridlane_kit.filters import Filter
from gridlane_kit.listing import along_indexes
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.request_ids import Conflict, Replay, RequestKey, SameAs
from gridlane_transfer import messages
from gridlane_transfer.states import JOB_FINAL, FileState, JobState
from gridlane_transfer.store import channel_jobs, storage, sweeps
from gridlane_transfer.store.sweeps import SweepKind
from gridlane_transfer.store.tables import (
    AUDIT,
    FEED,
    FILE,
    FILE_ATTEMPT,
    FILE_COLUMNS,
    FILE_NUMBERS,
    JOB,
    JOB_COLUMNS,
    JOB_NUMBERS,
    REQUEST_ID,
    FileRow,
    JobRow,
)
from gridlane_transfer.store.visibility import by_channels, lies_on, reaches, visible_jobs

_READ = select(*JOB_COLUMNS).where(JOB.c.uuid.in_(bindparam("uuids", expanding=True)))
FIRST_FILES: Final = 1000
"""So many of a job's files are answered with it."""
_READ_FILES = (
    select(*FILE_COLUMNS)
    .where(
        FILE.c.job_number.in_(bindparam("numbers", expanding=True)),
        FILE.c.n <= FIRST_FILES,
    )
    .order_by(FILE.c.job_number, FILE.c.n)
)
_DELETED_AT_ONCE: Final = 1000
"""So many files of ended jobs are deleted in one transaction."""
NEWEST_FIRST = Keyset(JOB.c.number, descending=True)
IN_ORDER = Keyset(FILE.c.n)
_OF_A_JOB: Final = "tags.gridlane.job"
FILTER_COLUMNS: Mapping[str, Any] = {
    "state": JOB.c.state,
    "vo": JOB.c.vo,
    _OF_A_JOB: JOB.c.job_tag,
}


class MoreOfFile(NamedTuple):
    """The columns of a file that few fill; see `FileRow`."""

    failure: bytes | None = None
    failure_class: int | None = None
    activity: str | None = None
    metadata: str | None = None
    scitag: int | None = None
    guid: str | None = None
    queue_until_us: int | None = None
    alternatives: str | None = None
    route: str | None = None
    hop: int = 0


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
    queue: str
    more: MoreOfFile | None = None

    def with_failure(self, failure: bytes, failure_class: int) -> "NewFile":
        """The file with why it waits."""
        more = MoreOfFile() if self.more is None else self.more
        return self._replace(more=more._replace(failure=failure, failure_class=failure_class))

    def as_stored(self) -> FileRow:
        """The row that it will be, but for the numbers."""
        given = self._asdict()
        more = given.pop("more")
        values = dict.fromkeys(FileRow._fields) | FileRow._field_defaults | _UNNUMBERED | given
        return FileRow(**(values if more is None else {**values, **more._asdict()}))


_UNNUMBERED: Final = dict.fromkeys(
    (
        "number",
        "job_number",
        "attempt",
        "retries",
        "transferred_bytes",
        "lease_epoch",
        "lease_until_us",
    ),
    0,
)
# In the order of the table.
_BEFORE, _AFTER = NewFile._fields[:-2], NewFile._fields[-2:-1]
_FEW_COLUMNS = ("number", "job_number", *_BEFORE, *_AFTER)
_ALL_COLUMNS = ("number", "job_number", *_BEFORE, *MoreOfFile._fields, *_AFTER)


@dataclass(frozen=True, slots=True)
class NewTransferJob:
    """A job to insert.

    Parameters:
        request: the request's key, when the caller gave an id.
        row: the job; its number is not known yet.
        event: what is told of it, complete but for the job's number.
        by_bans: how many of its files wait for the end of bans, by the bans' uids.
        entry: what goes into the audit with it, if something does.
    """

    request: RequestKey | None
    row: JobRow
    files: Sequence[NewFile]
    event: event_pb2.TransferEvent
    by_bans: Mapping[str, int] = field(default_factory=dict)
    entry: AuditEntry | None = None

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
    rows = [
        entry.row._replace(number=number, total_bytes=known_bytes(entry.files))
        for entry, number in zip(entries, job_numbers, strict=True)
    ]
    insert_values(conn, JOB, JobRow._fields, rows)
    of_jobs = zip(job_numbers, entries, strict=True)
    files = [(job, file) for job, entry in of_jobs for file in entry.files]
    numbers = iter(insert_files(conn, files))
    channel_jobs.note_new(conn, ((file.channel_uid, job) for job, file in files))
    given = [
        Submitted(number, list(islice(numbers, len(entry.files))))
        for number, entry in zip(job_numbers, entries, strict=True)
    ]
    request_ids.remember(
        conn,
        REQUEST_ID,
        [(entry.request, entry.name) for entry in entries if entry.request is not None],
    )
    feed.append(conn, [_submitted(e, one.number) for e, one in zip(entries, given, strict=True)])
    for entry in entries:
        storage.count_affected(conn, entry.by_bans)
    audit.append(conn, AUDIT, [entry.entry for entry in entries if entry.entry is not None])
    return given


def insert_files(conn: Connection, files: Sequence[tuple[int, NewFile]]) -> Sequence[int]:
    """Insert files; their numbers, in order.

    Parameters:
        files: each with the number of its job.
    """
    numbers = FILE_NUMBERS.take(conn, len(files))
    few: list[tuple[Any, ...]] = []
    full: list[tuple[Any, ...]] = []
    for its, (job, file) in zip(numbers, files, strict=True):
        if file.more is None:
            few.append((its, job, *file[:-1]))
        else:
            full.append((its, job, *file[:-2], *file.more, file.queue))
    insert_values(conn, FILE, _FEW_COLUMNS, few)
    insert_values(conn, FILE, _ALL_COLUMNS, full)
    return numbers


def known_bytes(files: Iterable[NewFile]) -> int:
    """The sizes of files together, of those whose size is known."""
    return sum(file.size_bytes or 0 for file in files)


def _submitted(entry: NewTransferJob, number: int) -> NewEvent:
    event, row = entry.event, entry.row
    # The same number again when the batch is applied again: it is taken anew after a rollback.
    event.job.number = number
    return NewEvent(
        event.event_id,
        event.transfer_job,
        f"job.{JobState(row.state).name}",
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
    channels = by_channels(visibility, filter_.value("vo"))
    if channels and state is not None and state not in JOB_FINAL:  # there are few
        reached.append(and_(lies_on(channels), where))
    elif channels:
        reached += channel_jobs.newest(channels, where, page_)
    return along_indexes(JOB_COLUMNS, reached, in_state, NEWEST_FIRST, page_)


def files_page(
    conn: Connection, job: JobRow, page_: Page, state: int | None = None
) -> tuple[list[FileRow], str]:
    """A page of a job's files, and the token of the next page.

    Parameters:
        state: only those in this state; None: all.
    """
    statement = select(*FILE_COLUMNS).where(FILE.c.job_number == job.number)
    if state is not None:
        statement = statement.where(FILE.c.state == state)
    rows, token = fetch_page(conn, statement, IN_ORDER, page_)
    return [FileRow._make(row) for row in rows], token


def files_in(
    conn: Connection, job: JobRow, states: Collection[int], page_: Page
) -> tuple[list[FileRow], str]:
    """A page of a job's files that are in one of some states, and the token of the next page."""
    of_job = FILE.c.job_number == job.number
    in_states = [FILE.c.state == state for state in sorted(states)]
    # The keyset's column is unique in the job only.
    statement = along_indexes(FILE_COLUMNS, in_states, of_job, IN_ORDER, page_).where(of_job)
    rows, token = fetch_page(conn, statement, IN_ORDER, page_)
    return [FileRow._make(row) for row in rows], token


def files_by_n(conn: Connection, job_number: int, ns: Iterable[int]) -> dict[int, FileRow]:
    """Files of a job by their numbers in it; what is not there is left out."""
    statement = select(*FILE_COLUMNS).where(
        FILE.c.job_number == job_number, FILE.c.n.in_(sorted(set(ns)))
    )
    return {row.n: row for row in map(FileRow._make, conn.execute(statement))}


def running(conn: Connection, job_numbers: Collection[int]) -> list[tuple[int, int, int | None]]:
    """The files of jobs that are ACTIVE: the job's number, the file's, and when it was started."""
    statement = select(FILE.c.job_number, FILE.c.number, FILE.c.start_us).where(
        FILE.c.job_number.in_(sorted(job_numbers)), FILE.c.state == int(FileState.ACTIVE)
    )
    return [(row.job_number, row.number, row.start_us) for row in conn.execute(statement)]


def may_act_on_all(conn: Connection, job: JobRow, visibility: Visibility) -> bool:
    """Whether a job is within reach as a whole: by itself, or since all its files lie on channels
    of the caller's.
    """
    if covers(visibility, job):
        return True
    elsewhere = select(FILE.c.number).where(
        FILE.c.job_number == job.number, FILE.c.channel_uid.not_in(sorted(visibility.channels))
    )
    return bool(visibility.channels) and conn.execute(elsewhere.limit(1)).first() is None


def delete_ended(conn: Connection, before_us: int, limit: int) -> int:
    """Delete jobs that ended before a time and whose events are all gone, so that every follower
    has had them: with a thousand files in all at most. Those of large ones go afterwards, bit by
    bit (`sweeps`).

    Parameters:
        limit: at most so many at once.

    Returns:
        How many were deleted.
    """
    has_events = exists().where(FEED.event.c.subject == messages.PREFIX + JOB.c.uuid)
    statement = select(JOB.c.number, JOB.c.counts).where(JOB.c.end_us < before_us, ~has_events)
    numbers: list[int] = []
    small: list[int] = []
    files = 0
    for number, counts in conn.execute(statement.order_by(JOB.c.end_us).limit(limit)).all():
        count = messages.file_count(counts)
        if count > sweeps.PAGE:
            sweeps.begin(conn, number, SweepKind.DELETE)
        elif files + count > _DELETED_AT_ONCE:
            break
        else:
            files += count
            small.append(number)
        numbers.append(number)
    of_small = select(FILE.c.number).where(FILE.c.job_number.in_(small))
    conn.execute(delete(FILE_ATTEMPT).where(FILE_ATTEMPT.c.file_number.in_(of_small)))
    conn.execute(delete(FILE).where(FILE.c.job_number.in_(small)))
    conn.execute(delete(JOB).where(JOB.c.number.in_(numbers)))
    channel_jobs.forget(conn, numbers)
    return len(numbers)
