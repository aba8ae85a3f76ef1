"""Reporting's tables and statements.

Responsible for accounting records, for how far each feed was taken, and for the events that could
not be taken. Records, quarantine and cursor of one batch are one transaction: after a crash nothing
is owed and nothing is counted twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from gridlane.reporting.v1 import accounting_record_pb2
from gridlane_kit.database import Counter, Micros, Text36, insert_rows, service_metadata
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Position
from gridlane_kit.filters import Filter
from gridlane_kit.leases import claim_due, lease_columns, release, renew
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_reporting.accounting import NewRecord

METADATA = service_metadata()
MIGRATIONS = Path(__file__).parent / "migrations"

_RECORD = Table(
    "accounting_record",
    METADATA,
    Column("uid", Text36, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("end_us", Micros, nullable=False),
    Column("owner", String(512), nullable=False),
    Column("vo", String(64), nullable=False),
    Column("job", String(64), nullable=False),
    Column("message", LargeBinary, nullable=False),
    # The owner's active group when the work was submitted; null for none.
    Column("owner_group", String(255)),
)
# One for each documented way to list, and for the reaches that a caller may have.
Index(None, _RECORD.c.end_us, _RECORD.c.uid)
Index(None, _RECORD.c.kind, _RECORD.c.end_us, _RECORD.c.uid)
Index(None, _RECORD.c.vo, _RECORD.c.end_us, _RECORD.c.uid)
Index(None, _RECORD.c.owner, _RECORD.c.end_us, _RECORD.c.uid)
_GROUPED = _RECORD.c.owner_group.is_not(None)
Index(
    None,
    _RECORD.c.owner_group,
    _RECORD.c.end_us,
    _RECORD.c.uid,
    sqlite_where=_GROUPED,
    postgresql_where=_GROUPED,
)
Index(None, _RECORD.c.job, _RECORD.c.end_us, _RECORD.c.uid)

_CURSOR = Table(
    "feed_cursor",
    METADATA,
    Column("source", String(32), primary_key=True),
    Column("epoch", Text36, nullable=False),
    Column("position", BigInteger, nullable=False),
)

# Which process of the service follows a feed.
_LEASE = Table(
    "feed_lease",
    METADATA,
    Column("source", String(32), primary_key=True),
    *lease_columns(),
)

_QUARANTINE = Table(
    "quarantine",
    METADATA,
    Column("number", Counter, primary_key=True, autoincrement=True),
    Column("source", String(32), nullable=False),
    Column("event_id", String(64), nullable=False),
    Column("create_time_us", Micros, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", LargeBinary, nullable=False),
    UniqueConstraint("source", "event_id"),
)

_NOT_TAKEN: Final = (DBAPIError, OverflowError)
NEWEST_FIRST: Final = Keyset(_RECORD.c.end_us, _RECORD.c.uid, descending=True)
_COLUMNS: Final = {"job": _RECORD.c.job, "type": _RECORD.c.kind, "vo": _RECORD.c.vo}


@dataclass(frozen=True, slots=True)
class PoisonEvent:
    """An event that cannot be accounted; `message` is the event, or the record made of it."""

    event_id: str
    reason: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one batch of a feed: records, poison, and how far it reaches.

    Parameters:
        lease: under which the feed is followed.
    """

    source: str
    lease: "FeedLease"
    records: Sequence[NewRecord]
    poison: Sequence[PoisonEvent]
    position: Position
    now_us: int


@dataclass(frozen=True, slots=True)
class FeedLease:
    """The right of one process to follow a feed."""

    source: str
    holder: str
    epoch: int
    ttl: timedelta


class LostLeaseError(Exception):
    """Another process follows the feed."""


def claim_feed(conn: Connection, source: str, holder: str, ttl: timedelta) -> FeedLease | None:
    """Lease a feed; None while another process has it."""
    its = _LEASE.c.source == source
    if conn.execute(select(_LEASE.c.source).where(its)).first() is None:
        conn.execute(insert(_LEASE).values(source=source))
    rows = claim_due(
        conn, _LEASE, where=its, order_by=[_LEASE.c.source], limit=1, holder=holder, ttl=ttl
    )
    return FeedLease(source, holder, rows[0].lease_epoch, ttl) if rows else None


def keep_feed(conn: Connection, lease: FeedLease) -> None:
    """Renew a lease.

    Raises:
        LostLeaseError
    """
    its = _LEASE.c.source == lease.source
    holder, epoch = lease.holder, lease.epoch
    if not renew(conn, _LEASE, where=its, holder=holder, epoch=epoch, ttl=lease.ttl):
        raise LostLeaseError


def give_feed_back(conn: Connection, lease: FeedLease) -> None:
    """Let another process follow at once."""
    its = _LEASE.c.source == lease.source
    release(conn, _LEASE, where=its, holder=lease.holder, epoch=lease.epoch)


def void_leases(conn: Connection) -> None:
    """End every lease: no other process has this database, so their holders are no more."""
    conn.execute(update(_LEASE).values(lease_until_us=0))


def read_cursor(conn: Connection, source: str) -> Position | None:
    """Returns how far a feed was taken, None when it never was."""
    row = conn.execute(select(_CURSOR).where(_CURSOR.c.source == source)).one_or_none()
    return None if row is None else Position(epoch=row.epoch, position=row.position)


def count_quarantined(conn: Connection, source: str) -> int:
    """Returns how many events of a feed could not be taken."""
    statement = select(func.count()).select_from(_QUARANTINE).where(_QUARANTINE.c.source == source)
    return conn.execute(statement).scalar_one()


def take(conn: Connection, taken: Taken) -> int:
    """Stores one batch of a feed, all of it or nothing.

    A record that is there already is left as it is: the event came before. A record that the
    database refuses goes into quarantine instead, and never holds up the feed.

    Returns:
        How many events of this batch are new in quarantine.

    Raises:
        LostLeaseError: another process follows the feed; it takes the batch.
    """
    keep_feed(conn, taken.lease)
    poison = [*taken.poison, *_insert_records(conn, taken.records)]
    quarantined = _quarantine(conn, taken, poison)
    _save_cursor(conn, taken.source, taken.position)
    return quarantined


def list_records(
    conn: Connection, visibility: Visibility, chosen: Filter, page: Page
) -> tuple[list[accounting_record_pb2.AccountingRecord], str]:
    """Returns a page of what a caller may see, newest end first, and the next page's token."""
    statement = select(_RECORD).where(_visible(visibility), chosen.where(_COLUMNS))
    rows, token = fetch_page(conn, statement, NEWEST_FIRST, page)
    messages = [accounting_record_pb2.AccountingRecord.FromString(row.message) for row in rows]
    return messages, token


def _insert_records(conn: Connection, records: Sequence[NewRecord]) -> list[PoisonEvent]:
    by_uid = {record.uid: record for record in records}
    if not by_uid:
        return []
    present = conn.execute(select(_RECORD.c.uid).where(_RECORD.c.uid.in_(by_uid))).scalars()
    for uid in present.all():
        del by_uid[uid]
    new = list(by_uid.values())
    try:
        with conn.begin_nested():
            insert_rows(conn, _RECORD, [_row(record) for record in new])
    except _NOT_TAKEN as error:
        if not _is_refusal(error):
            raise
        return _insert_one_by_one(conn, new)
    return []


def _insert_one_by_one(conn: Connection, records: Sequence[NewRecord]) -> list[PoisonEvent]:
    poison = []
    for record in records:
        try:
            with conn.begin_nested():
                insert_rows(conn, _RECORD, [_row(record)])
        except _NOT_TAKEN as error:
            if not _is_refusal(error):
                raise
            reason = f"the database refused the record: {type(error).__name__}"
            message = record.message.SerializeToString()
            poison.append(PoisonEvent(event_id=record.event_id, reason=reason, message=message))
    return poison


def _is_refusal(error: Exception) -> bool:
    """Whether it speaks of a row, not of the database."""
    if type(error) is not DBAPIError:
        return isinstance(error, IntegrityError | DataError | OverflowError)
    # PostgreSQL: data exceptions; without a state, the driver could not even send the value.
    state = getattr(error.orig, "sqlstate", None)
    return not error.connection_invalidated and (state is None or state.startswith("22"))


def _row(record: NewRecord) -> dict[str, Any]:
    return {
        "uid": record.uid,
        "kind": record.kind,
        "end_us": record.end_us,
        "owner": record.owner,
        "owner_group": record.owner_group,
        "vo": record.vo,
        "job": record.job,
        "message": record.message.SerializeToString(),
    }


def _quarantine(conn: Connection, taken: Taken, poison: Sequence[PoisonEvent]) -> int:
    if not poison:
        return 0
    by_id = {event.event_id: event for event in poison}
    present = select(_QUARANTINE.c.event_id).where(
        _QUARANTINE.c.source == taken.source, _QUARANTINE.c.event_id.in_(by_id)
    )
    for event_id in conn.execute(present).scalars().all():
        del by_id[event_id]
    rows = [
        {
            "source": taken.source,
            "event_id": event.event_id,
            "create_time_us": taken.now_us,
            "reason": event.reason,
            "message": event.message,
        }
        for event in by_id.values()
    ]
    if rows:
        conn.execute(insert(_QUARANTINE), rows)
    return len(rows)


def _save_cursor(conn: Connection, source: str, position: Position) -> None:
    values = {"epoch": position.epoch, "position": position.position}
    moved = conn.execute(update(_CURSOR).where(_CURSOR.c.source == source).values(values))
    if moved.rowcount == 0:
        conn.execute(insert(_CURSOR).values(source=source, **values))


def _visible(visibility: Visibility) -> ColumnElement[bool]:
    if visibility.nothing or visibility.job is not None:
        return false()
    if visibility.everything:
        return true()
    return or_(
        false(),
        *([_RECORD.c.owner == visibility.owner] if visibility.owner else []),
        *([_RECORD.c.vo.in_(visibility.vos)] if visibility.vos else []),
        *(
            and_(_RECORD.c.owner_group == group, _RECORD.c.vo == vo)
            for vo, group in sorted(visibility.groups)
        ),
    )
