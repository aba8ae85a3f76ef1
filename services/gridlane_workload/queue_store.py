"""The statements that pick jobs: those that are due, those that may start, those whose time to be
kept is over.

Responsible for which rows, in which order, at most how many. Tables, and the statements on single
jobs, are in `store`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, or_, select, update

from gridlane_kit.leases import claim_due, database_now_us
from gridlane_workload import states
from gridlane_workload.store import FEED_TABLES, IS_STARTABLE, JOB

# Rows deleted in one transaction, so that writers are not held up.
_DELETE_CHUNK = 500
_ANY_WAITING = select(exists(select(JOB.c.number).where(IS_STARTABLE)))


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for work.

    Parameters:
        holder: by `leases.new_holder`.
        ttl: of the leases.
        limit: at most so many jobs.
        woken: jobs (uuids) about which an event came; they are due whatever their row says.
        now_us: what is due by now.
    """

    holder: str
    ttl: timedelta
    limit: int
    woken: frozenset[str]
    now_us: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """Leased rows, and when the next one is due (None: none that is not leased)."""

    rows: Sequence[Row[Any]]
    next_due_us: int | None


def claim_all(conn: Connection, wishes: Sequence[Claim]) -> list[Claimed | Exception]:
    """Lease what is due, for each wish."""
    return [_claim(conn, wish) for wish in wishes]


def _claim(conn: Connection, wish: Claim) -> Claimed:
    # What was only accepted is admitted in bulk (`changes.admit`).
    admitted = JOB.c.state != states.RECEIVED
    due = and_(JOB.c.due_us <= wish.now_us, admitted)
    if wish.woken:
        due = or_(due, JOB.c.uid.in_(sorted(wish.woken)))
    rows = claim_due(
        conn,
        JOB,
        where=due,
        order_by=[JOB.c.due_us],
        limit=wish.limit,
        holder=wish.holder,
        ttl=wish.ttl,
    )
    next_due = select(func.min(JOB.c.due_us)).where(
        JOB.c.due_us.is_not(None), admitted, JOB.c.lease_until_us <= database_now_us()
    )
    return Claimed(rows, conn.execute(next_due).scalar())


def any_startable(conn: Connection, places: int) -> tuple[bool, bool]:
    """Whether `startable` would find jobs, and whether the backend is full."""
    if count_at_backend(conn) >= places:
        return False, True
    return bool(conn.execute(_ANY_WAITING).scalar()), False


def startable(conn: Connection, places: int) -> tuple[Sequence[Row[Any]], bool]:
    """The waiting jobs for which the backend has a place: by priority, then by age.

    Parameters:
        places: how many the backend takes at once.

    Returns:
        The rows, and whether the backend is full with them.
    """
    free = places - count_at_backend(conn)
    if free <= 0:
        return [], True
    waiting = select(JOB).where(IS_STARTABLE)
    in_order = waiting.order_by(JOB.c.priority.desc(), JOB.c.number)
    rows = conn.execute(in_order.limit(free)).all()
    return rows, len(rows) == free


def count_at_backend(conn: Connection) -> int:
    """How many jobs the backend has."""
    return conn.execute(
        select(func.count()).where(JOB.c.state.in_(sorted(states.AT_BACKEND)))
    ).scalar_one()


def take_back(conn: Connection) -> None:
    """Void all leases, and make due what was to be looked at later: no other process has them."""
    conn.execute(
        update(JOB)
        .where(JOB.c.due_us.is_not(None))
        .values(due_us=0, lease_holder=None, lease_until_us=0)
    )


def delete_ended(conn: Connection, before_us: int) -> list[str]:
    """Delete jobs that ended before a time, some at once.

    A job of which the feed still has events stays: a follower has not taken them yet, or they are
    kept longer.

    Returns:
        The uuids of those deleted; empty when there are none left.
    """
    event = FEED_TABLES.event
    told = exists().where(event.c.subject == "jobs/" + JOB.c.uid)
    old = (
        select(JOB.c.number)
        .where(JOB.c.end_us < before_us, JOB.c.due_us.is_(None), ~told)
        .order_by(JOB.c.end_us)
        .limit(_DELETE_CHUNK)
    )
    deleted = delete(JOB).where(JOB.c.number.in_(old)).returning(JOB.c.uid)
    return list(conn.execute(deleted).scalars())


def without_need_of_directory(conn: Connection, uids: Collection[str], before_us: int) -> list[str]:
    """Those of some jobs that ended before a time, or are not known any more."""
    kept = conn.execute(
        select(JOB.c.uid).where(
            JOB.c.uid.in_(uids), or_(JOB.c.end_us.is_(None), JOB.c.end_us >= before_us)
        )
    ).scalars()
    return sorted(set(uids) - set(kept))
