"""Workload's tables, and the statements on single jobs.

Responsible for what is stored of a job and how it is read and written. What a change means is
`jobs`' and `steps`'; statements that pick work for the reconciler are in `queue_store`.

A row keeps the job in two encoded parts: `job`, which never changes (description, owner, VO,
number), and `status`, which every change replaces; together they are the message `Job`. What is
searched by has a column of its own beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
    bindparam,
    insert,
    literal_column,
    select,
    update,
)

from gridlane.workload.v1.job_pb2 import Job
from gridlane_kit import errors, request_ids
from gridlane_kit.database import (
    Counter,
    Micros,
    Text36,
    insert_values,
    only_on,
    rows_by_key,
    service_metadata,
)
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed, NewEvent, feed_tables
from gridlane_kit.leases import held_by, lease_columns, release
from gridlane_kit.numbers import Numbers
from gridlane_kit.request_ids import RequestKey, request_id_table
from gridlane_workload import encoding, states

METADATA = service_metadata()
MIGRATIONS = Path(__file__).parent / "migrations"
FEED_TABLES = feed_tables(METADATA)
REQUEST_ID = request_id_table(METADATA)

JOB = Table(
    "job",
    METADATA,
    Column("number", Counter, primary_key=True, autoincrement=False),
    Column("uid", Text36, nullable=False, unique=True),
    Column("owner", String(512), nullable=False),
    Column("vo", String(64), nullable=False),
    Column("state", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    # When the reconciler is to look at it; null while only a caller can move it.
    Column("due_us", Micros),
    Column("end_us", Micros),
    # The ids under which an attempt's transfers are submitted, committed before they are used.
    Column("stage_in_request", Text36),
    Column("stage_out_request", Text36),
    # Steps in a row that could not be taken.
    Column("failed_steps", Integer, nullable=False),
    Column("traceparent", String(55), nullable=False),
    # Whoever submitted it, with the scopes of then: later steps are taken in its name.
    Column("principal", Text, nullable=False),
    Column("job", LargeBinary, nullable=False),
    Column("status", LargeBinary, nullable=False),
    # The owner's active group at submission: job sharers of the same one reach it. Null for none.
    Column("owner_group", String(255)),
    # Set while the job is held: when that was said last.
    Column("held_us", Micros),
    *lease_columns(),
)
# Every documented listing goes along one of these (`listings`), newest first.
Index(None, JOB.c.owner, JOB.c.number)
Index(None, JOB.c.owner, JOB.c.state, JOB.c.number)
Index(None, JOB.c.vo, JOB.c.number)
Index(None, JOB.c.vo, JOB.c.state, JOB.c.number)
Index(None, JOB.c.state, JOB.c.number)
_GROUPED = JOB.c.owner_group.is_not(None)
for _by in ((), (JOB.c.state,)):
    Index(
        None,
        JOB.c.owner_group,
        *_by,
        JOB.c.number,
        sqlite_where=_GROUPED,
        postgresql_where=_GROUPED,
    )
_DUE = JOB.c.due_us.is_not(None)
Index(None, JOB.c.due_us, sqlite_where=_DUE, postgresql_where=_DUE)
# Written out, not bound: only then does a planner see that the index has what is asked for.
IS_STARTABLE: Final = and_(
    JOB.c.state == literal_column(str(states.WAITING)), JOB.c.held_us.is_(None)
)
"""Waits for a place, and may have one."""
# The state comes first although it is always the same: so SQLite's planner prefers this index, in
# whose order nothing needs to be sorted, to that of all states.
Index(
    "ix_job_startable",
    JOB.c.state,
    JOB.c.priority.desc(),
    JOB.c.number,
    sqlite_where=IS_STARTABLE,
    postgresql_where=IS_STARTABLE,
)
_ENDED = JOB.c.end_us.is_not(None)
Index(None, JOB.c.end_us, sqlite_where=_ENDED, postgresql_where=_ENDED)

# Numbers are given out in the transaction that stores what gets them, so that events carry them
# too.
_COUNTER = Table(
    "counter",
    METADATA,
    Column("name", String(50), primary_key=True),
    Column("last", BigInteger, nullable=False),
    info=only_on("sqlite"),
)
_NUMBERS: Final = Numbers(
    METADATA, "job_number", last=_COUNTER.c.last, row={"name": "job", "last": 0}
)

# How far the transfer service's feed was followed; only a hint of where to go on.
_CURSOR = Table(
    "followed",
    METADATA,
    Column("source", String(50), primary_key=True),
    Column("epoch", Text36, nullable=False),
    Column("position", BigInteger, nullable=False),
)


class Submission(NamedTuple):
    """A job to be stored.

    Parameters:
        uid: the job's UUIDv7.
        owner, owner_group, vo, priority: as in the columns.
        job: the encoded Job that never changes, still without its number.
        status: the encoded first status.
        event: the first event; its payload still without the job.
        principal: the stored form of the submitter.
        traceparent: of the submitting call.
        due_us: when the reconciler is to look at it.
        request: the request's key; None when it has no id.
    """

    uid: str
    owner: str
    owner_group: str | None
    vo: str
    priority: int
    job: bytes
    status: bytes
    event_id: str
    event: bytes
    principal: str
    traceparent: str
    due_us: int
    request: RequestKey | None


class Accepted(NamedTuple):
    """A job was stored: encoded, as its submitter is told."""

    job: bytes


@dataclass(frozen=True, slots=True)
class Repeated:
    """The request was executed before; it made the job of this name."""

    name: str


class StoredJob(NamedTuple):
    """What a caller's answer is made from."""

    number: int
    uid: str
    owner: str
    vo: str
    job: bytes
    status: bytes
    owner_group: str | None

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.uid}"

    @property
    def encoded(self) -> bytes:
        """The whole job, encoded."""
        return self.job + self.status

    def message(self) -> Job:
        """The whole job, a message of its own for each caller."""
        return Job.FromString(self.encoded)


@dataclass(frozen=True, slots=True)
class Advance:
    """A step's result: the job as it is to be, under the conditions on which the step was taken.

    Parameters:
        number: the row.
        revision: the one that the step was taken from.
        holder, epoch: the lease; None for a change by a caller, in the same transaction as its
            read.
        values: columns to set.
        events: appended when the change is made.
    """

    number: int
    revision: int
    holder: str | None
    epoch: int
    values: Mapping[str, Any]
    events: Sequence[NewEvent] = ()


STORED: Final = tuple(JOB.c[name] for name in StoredJob._fields)


def submit(
    conn: Connection, feed: Feed, entries: Sequence[Submission]
) -> list[Accepted | Repeated | Exception]:
    """Store jobs with their first events and their request ids; one answer for each."""
    claims = request_ids.claim(conn, REQUEST_ID, [entry.request for entry in entries])
    new = [
        entry
        for entry, claim in zip(entries, claims, strict=True)
        if isinstance(claim, request_ids.New)
    ]
    stored = iter(_insert(conn, feed, new))
    answers: list[Accepted | Repeated | Exception] = []
    for claim in claims:
        match claim:
            case request_ids.New():
                answers.append(Accepted(next(stored)))
            case request_ids.Replay(name):
                answers.append(Repeated(name))
            case request_ids.SameAs(index):
                answers.append(Repeated(f"jobs/{entries[index].uid}"))
            case request_ids.Conflict():
                answers.append(errors.request_id_reused())
    return answers


_RECEIVED: Final = int(states.RECEIVED)
_NEW_COLUMNS: Final = (
    "number",
    "uid",
    "owner",
    "vo",
    "state",
    "revision",
    "attempt",
    "priority",
    "due_us",
    "failed_steps",
    "traceparent",
    "principal",
    "job",
    "status",
    "owner_group",
)


def _insert(conn: Connection, feed: Feed, entries: Sequence[Submission]) -> list[bytes]:
    """Insert jobs; each encoded, as its submitter is told."""
    rows: list[tuple[Any, ...]] = []
    events: list[NewEvent] = []
    stored: list[bytes] = []
    for entry, number in zip(entries, _NUMBERS.take(conn, len(entries)), strict=True):
        job = encoding.with_number(entry.job, number)
        stored.append(job + entry.status)
        rows.append(
            (
                number,
                entry.uid,
                entry.owner,
                entry.vo,
                _RECEIVED,
                1,
                0,
                entry.priority,
                entry.due_us,
                0,
                entry.traceparent,
                entry.principal,
                job,
                entry.status,
                entry.owner_group,
            )
        )
        events.append(
            NewEvent(
                event_id=entry.event_id,
                subject=f"jobs/{entry.uid}",
                kind="RECEIVED",
                time_us=entry.due_us,
                payload=encoding.with_job(entry.event, job, entry.status),
                owner=entry.owner,
                vo=entry.vo,
            )
        )
    insert_values(conn, JOB, _NEW_COLUMNS, rows)
    feed.append(conn, events)
    request_ids.remember(
        conn,
        REQUEST_ID,
        [(e.request, f"jobs/{e.uid}") for e in entries if e.request is not None],
    )
    return stored


def fetch(conn: Connection, uids: Sequence[str]) -> Mapping[str, StoredJob]:
    """Read jobs by their uuids; what is not there is left out."""
    jobs = map(StoredJob._make, rows_by_key(conn, STORED, JOB.c.uid, uids))
    return {job.uid: job for job in jobs}


def sees(visibility: Visibility, job: StoredJob) -> bool:
    """`visible` for a job that was read for several callers at once."""
    if visibility.job is not None:
        return visibility.job == job.name
    return visibility.covers(owner=job.owner, vo=job.vo, group=job.owner_group)


# Bound names must differ from the columns' that are set.
_AS_READ = and_(
    JOB.c.number == bindparam("its_number"), JOB.c.revision == bindparam("its_revision")
)
_GIVEN_BACK: Final = {"lease_holder": None, "lease_until_us": 0}


def advance(conn: Connection, feed: Feed, entries: Sequence[Advance]) -> list[bool | Exception]:
    """Make changes whose conditions still hold; False for those that came too late.

    A holder's lease is given back either way.
    """
    made: list[bool | Exception] = []
    events: list[NewEvent] = []
    for entry in entries:
        changed = _advance(conn, entry)
        made.append(changed)
        if changed:
            events += entry.events
        elif entry.holder is not None:
            release(
                conn,
                JOB,
                where=JOB.c.number == entry.number,
                holder=entry.holder,
                epoch=entry.epoch,
            )
    feed.append(conn, events)
    return made


def _advance(conn: Connection, entry: Advance) -> bool:
    statement = update(JOB).where(_AS_READ)
    values = dict(entry.values)
    if entry.holder is not None:
        statement = statement.where(held_by(JOB, entry.holder, entry.epoch))
        values |= _GIVEN_BACK
    read = {"its_number": entry.number, "its_revision": entry.revision}
    return conn.execute(statement.values(values), read).rowcount == 1


def read_cursor(conn: Connection, source: str) -> tuple[str, int] | None:
    """How far a source was followed: epoch and position."""
    row = conn.execute(
        select(_CURSOR.c.epoch, _CURSOR.c.position).where(_CURSOR.c.source == source)
    ).first()
    return None if row is None else (row.epoch, row.position)


def write_cursor(conn: Connection, source: str, epoch: str, position: int) -> None:
    """Keep how far a source was followed."""
    values = {"epoch": epoch, "position": position}
    known = conn.execute(update(_CURSOR).where(_CURSOR.c.source == source).values(values))
    if known.rowcount == 0:
        conn.execute(insert(_CURSOR).values(source=source, **values))
