"""The jobs of channels: which jobs have, or had, a file on one.

Responsible for the table that keeps it, a row for each job and channel, so that a manager's
listings go from one job to the next whatever number of files each has. A row stays when its job's
last file there has moved to another channel: who lists by it asks for the files too (`lies_on`).
An older version of the service that still runs notes nothing: its jobs are found, and noted later.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, select

from gridlane_kit.database import insert_values
from gridlane_kit.pages import Keyset, Page
from gridlane_transfer.channels.channels import NO_CHANNEL
from gridlane_transfer.states import JobKind
from gridlane_transfer.store.tables import FILE, JOB, JOB_CHANNEL
from gridlane_transfer.store.visibility import lies_on

_NEWEST_FIRST: Final = Keyset(JOB_CHANNEL.c.job_number, descending=True)

PAGE: Final = 100
"""Of so many jobs it is noted at once where their files lie."""

OnChannel = tuple[str, int]
"""A channel's uid, and the number of a job."""


def note_new(conn: Connection, found: Iterable[OnChannel]) -> None:
    """Note where the files of new jobs lie.

    Parameters:
        found: as often as there are files.
    """
    rows = sorted(one for one in set(found) if one[0] != NO_CHANNEL)
    insert_values(conn, JOB_CHANNEL, ("channel_uid", "job_number"), rows)


def note(conn: Connection, found: Collection[OnChannel]) -> None:
    """Note where files of jobs lie of which some may be noted."""
    if not found:
        return
    numbers = {number for _, number in found}
    known = select(JOB_CHANNEL).where(JOB_CHANNEL.c.job_number.in_(numbers))
    note_new(conn, set(found) - {(row.channel_uid, row.job_number) for row in conn.execute(known)})


def unnoted(conn: Connection, after: int) -> Sequence[int]:
    """The numbers of the next jobs of which nothing is noted, in order.

    Parameters:
        after: the number of the last one seen.
    """
    is_noted = exists().where(JOB_CHANNEL.c.job_number == JOB.c.number)
    statement = (
        select(JOB.c.number)
        .where(JOB.c.number > after, JOB.c.kind != JobKind.DELETION, ~is_noted)
        .order_by(JOB.c.number)
        .limit(PAGE)
    )
    return conn.execute(statement).scalars().all()


def newest_number(conn: Connection) -> int:
    """The number of the newest job; 0: there is none."""
    return conn.execute(select(func.max(JOB.c.number))).scalar_one() or 0


def complete(conn: Connection, job_numbers: Collection[int]) -> None:
    """Note where the files of jobs lie of which nothing is noted."""
    lie = select(FILE.c.channel_uid, FILE.c.job_number).where(FILE.c.job_number.in_(job_numbers))
    note(conn, {(uid, number) for uid, number in conn.execute(lie.distinct())})


def forget(conn: Connection, job_numbers: Collection[int]) -> None:
    """Drop what is noted of jobs that are no more."""
    conn.execute(delete(JOB_CHANNEL).where(JOB_CHANNEL.c.job_number.in_(job_numbers)))


def newest(
    channels: Collection[str], where: ColumnElement[bool], page: Page
) -> list[ColumnElement[bool]]:
    """The first jobs of a page of each channel, as conditions for `along_indexes`.

    Parameters:
        where: what is asked for of each job.
        page: of a listing by the job's number, the newest first.
    """
    return [JOB.c.number.in_(_first(uid, where, page)) for uid in channels]


def _first(uid: str, where: ColumnElement[bool], page: Page) -> Select[Any]:
    # Not joined: an engine might begin with the jobs that fit, and sort what it finds.
    is_asked_for = exists().where(JOB.c.number == JOB_CHANNEL.c.job_number, lies_on([uid]), where)
    first = (
        select(JOB_CHANNEL.c.job_number)
        .where(JOB_CHANNEL.c.channel_uid == uid, is_asked_for)
        .order_by(*_NEWEST_FIRST.order())
        .limit(page.size + 1)
    )
    if page.after is not None:
        first = first.where(_NEWEST_FIRST.after(page.after))
    return select(first.subquery().c.job_number)


def all_of(channels: Collection[str], first: int | None, last: int | None) -> ColumnElement[bool]:
    """The jobs that have a file on one of some channels, found by these.

    Parameters:
        first, last: bounds of the jobs' numbers; None: there is none.
    """
    numbers = select(JOB_CHANNEL.c.job_number).where(JOB_CHANNEL.c.channel_uid.in_(channels))
    if first is not None:
        numbers = numbers.where(JOB_CHANNEL.c.job_number >= first)
    if last is not None:
        numbers = numbers.where(JOB_CHANNEL.c.job_number <= last)
    return and_(JOB.c.number.in_(numbers), lies_on(channels))
