"""The feed's tables and statements: events in the order of their commits, cursors, acks, retention.

Responsible for what is stored and for what a cursor may still read. Handing events to those who
follow is `feed`. What an event means is the service's.

A cursor is (epoch, position). On SQLite, which has one writer, the AUTOINCREMENT id is the
position: it grows in commit order and is never given twice. On PostgreSQL writers run side by side,
and a number that is handed out before the commit may be seen after a higher one, so that readers
skip it. There a change puts its event into `event_pending`, and what has been committed is moved to
`event` by `sequence`, one at a time, which gives it its position.

A restored database starts a new epoch, on which a follower stops. Retention deletes a prefix, never
past what a consumer has acknowledged.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from gridlane_kit import errors
from gridlane_kit.database import Counter, Micros, Text36, insert_values, only_on

# Events in one read, and so in what a follower is given at once.
READ_LIMIT = 500
# On which PostgreSQL tells the processes of a service that there are new events.
CHANNEL = "gridlane_feed"
# The advisory lock under which positions are given: "feed" in ASCII.
_SEQUENCING = 0x66656564


class NewEvent(NamedTuple):
    """An event to be stored: the values of its row, in the columns' order.

    Parameters:
        event_id: a UUIDv7; a follower keeps it with the source, and so takes each event once.
        subject: the resource's name, for example `jobs/0192…`.
        kind: what happened, in the service's words.
        time_us: when, microseconds since 1970-01-01 UTC.
        payload: the event's message, encoded.
        owner: "issuer|subject" of the resource's owner, for who may see it.
        vo: the resource's VO, for the same.
    """

    event_id: str
    subject: str
    kind: str
    time_us: int
    payload: bytes
    owner: str
    vo: str


class StoredEvent(NamedTuple):
    """An event with its place in the feed; otherwise as `NewEvent`."""

    event_id: str
    subject: str
    kind: str
    time_us: int
    payload: bytes
    owner: str
    vo: str
    position: int


class Messages(Protocol):
    """A repeated field of messages."""

    def add(self) -> Message:
        """Append an empty one."""


def put_events(into: Messages, events: Iterable[StoredEvent]) -> None:
    """Append events to a field of a message: to read them there costs half of what it costs to copy
    them into it.
    """
    for event in events:
        into.add().MergeFromString(event.payload)


@dataclass(frozen=True, slots=True)
class Position:
    """A cursor: everything up to `position` of the `epoch` has been seen."""

    epoch: str
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.position}"


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events after a cursor, and the cursor up to which there are no others."""

    events: list[StoredEvent]
    up_to: Position

    @property
    def full(self) -> bool:
        """Whether there may be more."""
        return len(self.events) == READ_LIMIT


@dataclass(frozen=True, slots=True)
class FeedTables:
    """The feed's tables in a service's metadata; made by `feed_tables`."""

    event: Table
    pending: Table
    state: Table
    ack: Table


def feed_tables(metadata: MetaData) -> FeedTables:
    """Declare the feed's tables."""
    event = Table(
        "event",
        metadata,
        Column("position", Counter, primary_key=True, autoincrement=True),
        *_content_columns(),
        sqlite_autoincrement=True,
    )
    pending = Table(
        "event_pending",
        metadata,
        Column("id", BigInteger, primary_key=True, autoincrement=True),
        *_content_columns(),
        info=only_on("postgresql"),
    )
    # A resource's history is the feed of its subject.
    Index(None, event.c.subject, event.c.position)
    state = Table(
        "feed_state",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("epoch", Text36, nullable=False),
        # Everything up to here was deleted.
        Column("trimmed_to", BigInteger, nullable=False),
    )
    ack = Table(
        "event_ack",
        metadata,
        Column("consumer", String(200), primary_key=True),
        Column("position", BigInteger, nullable=False),
        Column("time_us", Micros, nullable=False),
    )
    return FeedTables(event, pending, state, ack)


def _content_columns() -> list[Column[Any]]:
    return [
        Column("event_id", Text36, nullable=False),
        Column("subject", String(300), nullable=False),
        Column("kind", String(100), nullable=False),
        Column("time_us", Micros, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("owner", String(512), nullable=False),
        Column("vo", String(200), nullable=False),
    ]


def ensure_epoch(conn: Connection, tables: FeedTables) -> str:
    """The feed's epoch; a feed that has none yet begins one."""
    epoch: str | None = conn.execute(select(tables.state.c.epoch)).scalar()
    if epoch is None:
        epoch = str(uuid4())
        conn.execute(insert(tables.state).values(id=1, epoch=epoch, trimmed_to=0))
    return epoch


def append(conn: Connection, tables: FeedTables, events: Sequence[NewEvent]) -> None:
    """Store events in the writer's transaction."""
    table = tables.pending if is_sequenced(conn) else tables.event
    insert_values(conn, table, NewEvent._fields, events)


def is_sequenced(conn: Connection) -> bool:
    """Whether events of this engine get their positions by `sequence`."""
    return conn.dialect.name == "postgresql"


def has_pending(conn: Connection, tables: FeedTables) -> bool:
    """Whether committed events wait for their positions."""
    return bool(conn.execute(select(exists(select(tables.pending.c.id)))).scalar())


def sequence(conn: Connection, tables: FeedTables, limit: int) -> int:
    """Give committed events their positions, and tell the processes that follow.

    Parameters:
        conn: in a transaction whose statements each see what was committed when they begin
            (`Database.write_after_lock`).
        limit: at most so many, oldest first.

    Returns:
        How many there were.
    """
    # One process at a time, so that positions grow in the order of commits; the lock goes with the
    # commit, after which the next one sees what this one did.
    conn.execute(select(func.pg_advisory_xact_lock(_SEQUENCING)))
    event, pending, state = tables.event, tables.pending, tables.state
    oldest = select(pending.c.id).order_by(pending.c.id).limit(limit).scalar_subquery()
    moved = delete(pending).where(pending.c.id.in_(oldest)).returning(*pending.c).cte("moved")
    last = select(
        func.coalesce(select(func.max(event.c.position)).scalar_subquery(), state.c.trimmed_to)
    ).scalar_subquery()
    position = last + func.row_number().over(order_by=moved.c.id)
    content = [column.name for column in pending.c if column.name != "id"]
    moved_rows = select(position, *(moved.c[name] for name in content))
    count = conn.execute(insert(event).from_select(["position", *content], moved_rows)).rowcount
    if count:
        conn.execute(select(func.pg_notify(CHANNEL, "")))
    return count


def last_position(conn: Connection, tables: FeedTables) -> Position:
    """The present end of the feed."""
    _, last = _bounds(conn, tables)
    return last


def page_after(
    conn: Connection,
    tables: FeedTables,
    cursor: Position | None,
    subjects: Collection[str] | None = None,
) -> EventPage:
    """Read on from a cursor.

    Parameters:
        cursor: None begins at the oldest event that is kept.
        subjects: only events of these resources; None for all.

    Raises:
        GridlaneError: POSITION_TRIMMED.
    """
    first, last = _bounds(conn, tables)
    after = first if cursor is None else cursor
    if after.epoch != last.epoch or not first.position <= after.position <= last.position:
        raise errors.position_trimmed(str(after), str(first))
    events = events_after(conn, tables, after.position, limit=READ_LIMIT, subjects=subjects)
    if len(events) < READ_LIMIT:
        return EventPage(events, last)
    return EventPage(events, Position(last.epoch, events[-1].position))


def _bounds(conn: Connection, tables: FeedTables) -> tuple[Position, Position]:
    """The oldest and the newest cursor that the feed knows."""
    state = tables.state.c
    newest = select(func.max(tables.event.c.position)).scalar_subquery()
    epoch, trimmed_to, last = conn.execute(select(state.epoch, state.trimmed_to, newest)).one()
    return Position(epoch, trimmed_to), Position(epoch, last or trimmed_to)


def events_after(
    conn: Connection,
    tables: FeedTables,
    after: int,
    *,
    limit: int,
    subjects: Collection[str] | None = None,
) -> list[StoredEvent]:
    """Events after a position in order, whether or not older ones were deleted."""
    event = tables.event
    statement = select(
        event.c.event_id,
        event.c.subject,
        event.c.kind,
        event.c.time_us,
        event.c.payload,
        event.c.owner,
        event.c.vo,
        event.c.position,
    ).where(event.c.position > after)
    if subjects is not None:
        statement = statement.where(event.c.subject.in_(subjects))
    return [
        StoredEvent(*row) for row in conn.execute(statement.order_by(event.c.position).limit(limit))
    ]


def acknowledge(
    conn: Connection, tables: FeedTables, consumer: str, cursor: Position, now_us: int
) -> None:
    """Keep how far a consumer has come; it never goes back.

    Raises:
        GridlaneError: POSITION_TRIMMED for another epoch or a position that is not there yet.
    """
    last = last_position(conn, tables)
    if cursor.epoch != last.epoch or cursor.position > last.position:
        raise errors.position_trimmed(str(cursor), str(last))
    ack = tables.ack
    furthest = case((ack.c.position < cursor.position, cursor.position), else_=ack.c.position)
    known = conn.execute(
        update(ack).where(ack.c.consumer == consumer).values(position=furthest, time_us=now_us)
    )
    if known.rowcount == 0:
        values = {"consumer": consumer, "position": cursor.position, "time_us": now_us}
        conn.execute(insert(ack).values(values))


def last_older_than(conn: Connection, tables: FeedTables, time_us: int) -> int:
    """The position up to which every event is older than a time."""
    event = tables.event
    young = select(event.c.position).where(event.c.time_us >= time_us)
    first_young = conn.execute(young.order_by(event.c.position).limit(1)).scalar()
    return last_position(conn, tables).position if first_young is None else first_young - 1


def prune(conn: Connection, tables: FeedTables, up_to: int, limit: int) -> int:
    """Delete events from the oldest on.

    Parameters:
        up_to: the last position that may go; what a consumer has not acknowledged stays in any
            case.
        limit: about how many at once.

    Returns:
        How many were deleted; 0 when there are none left to delete.
    """
    event = tables.event
    oldest = conn.execute(select(func.min(event.c.position))).scalar()
    acknowledged = conn.execute(select(func.min(tables.ack.c.position))).scalar()
    if acknowledged is not None:
        up_to = min(up_to, acknowledged)
    if oldest is None or oldest > up_to:
        return 0
    up_to = min(up_to, oldest + limit - 1)
    conn.execute(update(tables.state).values(trimmed_to=up_to))
    return conn.execute(delete(event).where(event.c.position <= up_to)).rowcount
