"""What a caller may touch, as a WHERE clause. Who may what is decided before, in
`gridlane_kit.decision`.
"""

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, exists, false, or_, true

from gridlane_kit.decision import Visibility
from gridlane_kit.listing import looked_at
from gridlane_transfer.store.tables import FILE, JOB


def visible_jobs(visibility: Visibility) -> ColumnElement[bool]:
    """The jobs within reach: own, of a VO, of a group in a VO, or with a file on a channel of the
    caller's.

    For statements that find a few jobs by another condition with an index of its own, which this
    one leaves to it. What lists jobs goes along `reaches`.
    """
    return or_(false(), *_reaches(visibility, _unindexed))


def reaches(visibility: Visibility, vo: str | None) -> list[ColumnElement[bool]]:
    """The parts of a caller's reach, each with an index that has the order of listings; without
    what lies on channels (`by_channels`).

    Parameters:
        vo: only jobs of this VO; None for any.
    """
    visibility = visibility._replace(channels=frozenset())
    if visibility.everything:
        return [true() if vo is None else JOB.c.vo == vo]
    if vo is None:
        return _reaches(visibility, _as_is)
    if vo in visibility.vos:
        return [JOB.c.vo == vo]
    return [and_(reach, looked_at(JOB.c.vo == vo)) for reach in _reaches(visibility, _as_is)]


def by_channels(visibility: Visibility, vo: str | None) -> Collection[str]:
    """The channels, by their uids, on which a caller reaches jobs that may lie outside the other
    parts of its reach; they are found by `channel_jobs`.

    Parameters:
        vo: as `reaches` takes it.
    """
    others = visibility.everything or visibility.nothing or visibility.job is not None
    return () if others or vo in visibility.vos else sorted(visibility.channels)


def _reaches(
    visibility: Visibility, of: Callable[[Column[Any]], ColumnElement[Any]]
) -> list[ColumnElement[bool]]:
    if visibility.nothing or visibility.job is not None:
        return []
    if visibility.everything:
        return [true()]
    reached = [of(JOB.c.vo) == vo for vo in sorted(visibility.vos)]
    if visibility.owner is not None:
        reached.append(of(JOB.c.owner) == visibility.owner)
    for vo, group in sorted(visibility.groups):
        if vo not in visibility.vos:
            reached.append(and_(of(JOB.c.owner_group) == group, looked_at(JOB.c.vo == vo)))
    if visibility.channels:
        reached.append(lies_on(visibility.channels))
    return reached


def lies_on(channels: Collection[str]) -> ColumnElement[bool]:
    """The jobs that have a file on one of some channels, given by their uids, as a condition for
    jobs that are found by another one.
    """
    return exists().where(
        FILE.c.job_number == JOB.c.number, FILE.c.channel_uid.in_(sorted(channels))
    )


def _as_is(column: Column[Any]) -> ColumnElement[Any]:
    return column


def _unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """A column's value in a form that no index has."""
    return column.concat("")
