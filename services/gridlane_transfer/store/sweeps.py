"""What is still to be done to the files of a job that has too many for one transaction.

Responsible for the list of such work and for one small step of each kind. The wish is committed
with what the caller was answered; the steps follow, in whatever process, and none is lost: a step
and the end of its work are one transaction. When steps are taken is `sweeps`' above the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_transfer import messages
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.options import options_of
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.states import UNSTARTED, FileState
from gridlane_transfer.store import channel_jobs
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import (
    FILE,
    FILE_ATTEMPT,
    FILE_COLUMNS,
    JOB,
    JOB_COLUMNS,
    SWEEP,
    FileRow,
    JobRow,
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
    """Work on the files of a job.

    Parameters:
        after: the last file, by its number in the job, that was passed by work which goes through
            all of them.
    """

    job_number: int
    kind: SweepKind
    after: int = 0


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
        after: as in `Sweep`.
    """

    done: bool
    opened: bool = False
    aborted: Sequence[int] = ()
    after: int = 0


def begin(conn: Connection, job_number: int, kind: SweepKind, after: int = 0) -> None:
    """Note that work is to be done; again is once, from where it begins now.

    Parameters:
        after: as in `Sweep`.
    """
    key = (SWEEP.c.job_number == job_number, SWEEP.c.kind == int(kind))
    if not conn.execute(update(SWEEP).where(*key).values(after_n=after)).rowcount:
        values = {"job_number": job_number, "kind": int(kind), "create_us": now_us()}
        conn.execute(insert(SWEEP).values(**values, after_n=after))


def pending(conn: Connection, limit: int) -> list[Sweep]:
    """Work that is to be done, the oldest first; at most so much of it."""
    rows = conn.execute(select(SWEEP).order_by(SWEEP.c.create_us).limit(limit))
    return [Sweep(row.job_number, SweepKind(row.kind), row.after_n) for row in rows]


def step(
    conn: Connection, entries: Sequence[Sweep], *, feed: Feed, channels: Channels
) -> list[Swept | Exception]:
    """Do a bit of each."""
    return [_step(conn, feed, channels, entry) for entry in entries]


def _step(conn: Connection, feed: Feed, channels: Channels, sweep: Sweep) -> Swept:
    key = (SWEEP.c.job_number == sweep.job_number, SWEEP.c.kind == int(sweep.kind))
    held = select(SWEEP.c.after_n).where(*key).with_for_update(skip_locked=True)
    after = conn.execute(held).scalar()
    if after is None:
        return Swept(done=True)  # done, or another process is about to
    # Since it was found it may have begun anew.
    swept = _work(conn, feed, channels, replace(sweep, after=after))
    if swept.done:
        conn.execute(delete(SWEEP).where(*key))
    elif swept.after != after:
        conn.execute(update(SWEEP).where(*key).values(after_n=swept.after))
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
            return _rank(conn, sweep)


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
    conn: Connection,
    job: JobRow,
    new: NewRank,
    after: int,
    channels: frozenset[str] | None = None,
) -> Swept:
    """Give the next files of a job, those of them that have not started, another rank or activity.

    Parameters:
        after: the last file that was passed.
        channels: only those on channels with these uids; None: all.
    """
    values: dict[str, Any] = {}
    if new.rank is not None:
        values["rank"] = new.rank
    if new.activity is not None:
        values |= {"activity": new.activity or None, "queue": new.queue}
    if not values:
        return Swept(done=True)
    asked = [FILE.c.job_number == job.number]
    if channels is not None:
        asked.append(FILE.c.channel_uid.in_(sorted(channels)))
        following = select(FILE.c.n).where(*asked, FILE.c.n > after).order_by(FILE.c.n).limit(1)
        first = conn.execute(following).scalar()
        if first is None:
            return Swept(done=True, opened=True)
        after = first - 1
    last = after + PAGE
    asked += [FILE.c.n > after, FILE.c.n <= last]
    conn.execute(update(FILE).where(*asked, FILE.c.state.in_(_UNSTARTED)).values(values))
    return Swept(last >= messages.file_count(job.counts), opened=True, after=last)


def _rank(conn: Connection, sweep: Sweep) -> Swept:
    """The next files of a job get what the job says by now."""
    found = conn.execute(select(*JOB_COLUMNS).where(JOB.c.number == sweep.job_number)).first()
    if found is None:
        return Swept(done=True)  # it has ended and was deleted
    job = JobRow._make(found)
    of_rank = sweep.kind is SweepKind.RANK
    new = NewRank.of(
        job.vo, job.priority if of_rank else None, None if of_rank else job.activity or ""
    )
    return rank_files(conn, job, new, sweep.after)


def _delete(conn: Connection, job_number: int) -> Swept:
    numbers = _numbers(conn, FILE.c.job_number == job_number)
    conn.execute(delete(FILE_ATTEMPT).where(FILE_ATTEMPT.c.file_number.in_(numbers)))
    conn.execute(delete(FILE).where(FILE.c.number.in_(numbers)))
    channel_jobs.forget(conn, [job_number])
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
