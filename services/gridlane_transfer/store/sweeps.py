"""What is still to be done to the files of a job that has too many for one transaction.

Responsible for the list of such work and for one small step of each kind. The wish is committed
with what the caller was answered; the steps follow, in whatever process, and none is lost: a step
and the end of its work are one transaction. When steps are taken is `sweeps`' above the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.options import options_of
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.states import UNSTARTED, FileState
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import (
    FILE,
    FILE_ATTEMPT,
    FILE_COLUMNS,
    JOB,
    SWEEP,
    FileRow,
)

PAGE: Final = 500
"""So many files change in one transaction."""

HIGHEST_PRIORITY: Final = 5

_CANCELABLE: Final = sorted(int(state) for state in UNSTARTED | {FileState.ACTIVE})
_UNSTARTED: Final = sorted(int(state) for state in UNSTARTED)


class SweepKind(IntEnum):
    """Kinds of work."""

    OPEN = 1
    """Files of a job that came as a stream go from SUBMITTED onto their channels."""
    CANCEL = 2
    """Files of a job whose end was asked for are cancelled."""
    RANK = 3
    """Files that have not started get the rank of their job's priority."""
    DELETE = 4
    """Files that have no job go: those of a deleted job, or of one that never came to be."""
    ACTIVITY = 5
    """Files that have not started get the activity of their job."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Work on the files of a job."""

    job_number: int
    kind: SweepKind


@dataclass(frozen=True, slots=True)
class NewRank:
    """What the files of a job that have not started get.

    Parameters:
        rank: None: as it is.
        activity: with `queue`, the one of its VO and activity; None: as it is.
    """

    rank: int | None = None
    activity: str | None = None
    queue: str | None = None

    @classmethod
    def of(cls, vo: str, priority: int | None, activity: str | None) -> "NewRank":
        """By a job's priority and activity."""
        return cls(
            None if priority is None else HIGHEST_PRIORITY - priority,
            activity,
            None if activity is None else f"{vo}/{activity}",
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """What a step did.

    Parameters:
        done: there is nothing left to be done.
        opened: files may start.
        aborted: files whose copies are to be ended.
    """

    done: bool
    opened: bool = False
    aborted: Sequence[int] = ()


def begin(conn: Connection, job_number: int, kind: SweepKind) -> None:
    """Note that work is to be done; again is once."""
    key = (SWEEP.c.job_number == job_number, SWEEP.c.kind == int(kind))
    if conn.execute(select(SWEEP.c.kind).where(*key)).first() is None:
        values = {"job_number": job_number, "kind": int(kind), "create_us": now_us()}
        conn.execute(insert(SWEEP).values(values))


def pending(conn: Connection, limit: int) -> list[Sweep]:
    """Work that is to be done, the oldest first; at most so much of it."""
    rows = conn.execute(select(SWEEP).order_by(SWEEP.c.create_us).limit(limit))
    return [Sweep(row.job_number, SweepKind(row.kind)) for row in rows]


def step(
    conn: Connection, entries: Sequence[Sweep], *, feed: Feed, channels: Channels
) -> list[Swept | Exception]:
    """Do a bit of each."""
    return [_step(conn, feed, channels, entry) for entry in entries]


def _step(conn: Connection, feed: Feed, channels: Channels, sweep: Sweep) -> Swept:
    key = (SWEEP.c.job_number == sweep.job_number, SWEEP.c.kind == int(sweep.kind))
    held = select(SWEEP.c.kind).where(*key).with_for_update(skip_locked=True)
    if conn.execute(held).first() is None:
        return Swept(done=True)  # done, or another process is about to
    swept = _work(conn, feed, channels, sweep)
    if swept.done:
        conn.execute(delete(SWEEP).where(*key))
    return swept


def _work(conn: Connection, feed: Feed, channels: Channels, sweep: Sweep) -> Swept:
    is_there = select(JOB.c.number).where(JOB.c.number == sweep.job_number)
    if sweep.kind is SweepKind.DELETE:
        return _delete(conn, sweep.job_number)
    if conn.execute(is_there).first() is None:
        return Swept(done=True)
    match sweep.kind:
        case SweepKind.OPEN:
            return _open(conn, feed, channels, sweep.job_number)
        case SweepKind.CANCEL:
            return cancel_files(conn, feed, channels, sweep.job_number)
        case SweepKind.RANK | SweepKind.ACTIVITY:
            return rank_files(conn, sweep.job_number, _rank_of(conn, sweep))


def _open(conn: Connection, feed: Feed, channels: Channels, job_number: int) -> Swept:
    rows = _files(conn, job_number, [int(FileState.SUBMITTED)])
    changes = Changes(conn, feed, channels, now_us())
    changes.load([job_number])
    job = changes.job(job_number)
    limit_us = options_of(job.options).max_time_in_queue_us
    # Counted from when the whole job was there, not from when the file came in.
    late: dict[str, Any] = {} if limit_us is None else {"queue_until_us": job.create_us + limit_us}
    for row in rows:
        changes.file(row, FileState.READY, told=False, **late)
    changes.save()
    return Swept(len(rows) < PAGE, opened=bool(rows))


def cancel_files(
    conn: Connection, feed: Feed, channels: Channels, job_number: int, why: Failed | None = None
) -> Swept:
    """Cancel the next files of a job whose end is asked for: unstarted ones end, running ones are
    CANCELING. The wish itself is noted at its first files.

    Parameters:
        why: what they all keep of it, when the wish is noted.
    """
    rows = _files(conn, job_number, _CANCELABLE)
    changes = Changes(conn, feed, channels, now_us())
    changes.load([job_number])
    if changes.job(job_number).cancel_us is None:
        changes.cancel(job_number, why)
    aborted = [row.number for row in rows if row.state == FileState.ACTIVE]
    for row in rows:
        moves = row.state == FileState.ACTIVE
        changes.file(row, FileState.CANCELING if moves else FileState.CANCELED)
    changes.save()
    return Swept(len(rows) < PAGE, aborted=aborted)


def rank_files(
    conn: Connection, job_number: int, new: NewRank, channels: frozenset[str] | None = None
) -> Swept:
    """Give the next files of a job that have not started another rank or activity.

    Parameters:
        channels: only those on channels with these uids; None: all.
    """
    values: dict[str, Any] = {}
    others: list[ColumnElement[bool]] = []
    if new.rank is not None:
        values["rank"] = new.rank
        others.append(FILE.c.rank != new.rank)
    if new.activity is not None:
        values |= {"activity": new.activity or None, "queue": new.queue}
        others.append(FILE.c.queue != new.queue)
    if not values:
        return Swept(done=True)
    where = [FILE.c.job_number == job_number, FILE.c.state.in_(_UNSTARTED), or_(*others)]
    if channels is not None:
        where.append(FILE.c.channel_uid.in_(sorted(channels)))
    numbers = _numbers(conn, *where)
    conn.execute(update(FILE).where(FILE.c.number.in_(numbers)).values(values))
    return Swept(len(numbers) < PAGE, opened=True)


def _rank_of(conn: Connection, sweep: Sweep) -> NewRank:
    """What a job's files get, as the job says by now."""
    statement = select(JOB.c.vo, JOB.c.priority, JOB.c.activity)
    job = conn.execute(statement.where(JOB.c.number == sweep.job_number)).one()
    if sweep.kind is SweepKind.RANK:
        return NewRank.of(job.vo, job.priority, None)
    return NewRank.of(job.vo, None, job.activity or "")


def _delete(conn: Connection, job_number: int) -> Swept:
    numbers = _numbers(conn, FILE.c.job_number == job_number)
    conn.execute(delete(FILE_ATTEMPT).where(FILE_ATTEMPT.c.file_number.in_(numbers)))
    conn.execute(delete(FILE).where(FILE.c.number.in_(numbers)))
    return Swept(len(numbers) < PAGE)


def _files(conn: Connection, job_number: int, states: Sequence[int]) -> list[FileRow]:
    statement = (
        select(*FILE_COLUMNS)
        .where(FILE.c.job_number == job_number, FILE.c.state.in_(states))
        .order_by(FILE.c.state, FILE.c.n)
        .limit(PAGE)
        .with_for_update()
    )
    return [FileRow._make(row) for row in conn.execute(statement)]


def _numbers(conn: Connection, *where: ColumnElement[bool]) -> Sequence[int]:
    statement = select(FILE.c.number).where(*where).limit(PAGE)
    return conn.execute(statement).scalars().all()
