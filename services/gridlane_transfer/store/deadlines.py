"""Times that submissions set: when files are to have started, and when jobs are to have ended.

Responsible for finding what is late, along indexes of those times, and for the transaction that
ends it. When to look is `deadlines`' above the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.failures import Failed, timed_out
from gridlane_transfer.states import FileState, legal
from gridlane_transfer.store import sweeps
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.sweeps import PAGE, SweepKind
from gridlane_transfer.store.tables import FILE, FILE_COLUMNS, JOB, FileRow

_WAITING: Final = sorted(
    int(state)
    for state in FileState
    if legal(state, FileState.FAILED) and state not in (FileState.ACTIVE, FileState.RETRYING)
)
_LATE_FILES = select(FILE.c.job_number).where(
    FILE.c.queue_until_us <= bindparam("now"), FILE.c.state.in_(_WAITING)
)
_LATE_JOBS = select(JOB.c.number).where(
    JOB.c.expire_us <= bindparam("now"), JOB.c.end_us.is_(None), JOB.c.cancel_us.is_(None)
)
_LATE_OF_JOB = (
    select(*FILE_COLUMNS)
    .where(
        FILE.c.job_number == bindparam("number"),
        FILE.c.queue_until_us <= bindparam("now"),
        FILE.c.state.in_(_WAITING),
    )
    .limit(PAGE)
    .with_for_update()
)
_EXPIRED: Final = timed_out(
    "cancelled: the time at which the job was to end has come", "give it more"
)


@dataclass(frozen=True, slots=True)
class Late:
    """A job that has something late."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What was ended.

    Parameters:
        more: there is more of it.
        aborted: files whose copies are to be ended.
    """

    more: bool = False
    aborted: Sequence[int] = ()


def late(conn: Connection, limit: int) -> list[Late]:
    """Jobs that have something late now; at most so many of each kind."""
    now = {"now": now_us()}
    files = conn.execute(_LATE_FILES.limit(limit), now).scalars()
    jobs = conn.execute(_LATE_JOBS.limit(limit), now).scalars()
    return [Late(number) for number in sorted({*files, *jobs})]


def end(
    conn: Connection, entries: Sequence[Late], *, feed: Feed, channels: Channels
) -> list[Ended | Exception]:
    """End what is late of jobs."""
    return [_end(conn, feed, channels, entry.number) for entry in entries]


def _end(conn: Connection, feed: Feed, channels: Channels, number: int) -> Ended:
    now = now_us()
    if conn.execute(_LATE_JOBS.where(JOB.c.number == number), {"now": now}).first() is not None:
        swept = sweeps.cancel_files(conn, feed, channels, number, _EXPIRED)
        if not swept.done:
            sweeps.begin(conn, number, SweepKind.CANCEL)
        return Ended(more=not swept.done, aborted=swept.aborted)
    rows = [
        FileRow._make(row) for row in conn.execute(_LATE_OF_JOB, {"number": number, "now": now})
    ]
    changes = Changes(conn, feed, channels, now)
    changes.load([number])
    for row in rows:
        changes.file(row, FileState.FAILED, failure=_never_started(row), lease_until_us=0)
    changes.save()
    return Ended(more=len(rows) == PAGE)


def _never_started(row: FileRow) -> Failed:
    return timed_out(
        f"it was not started within the time that it may wait: {row.source}",
        "give it more time, or find out what it waited for",
    )
