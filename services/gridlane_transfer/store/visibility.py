"""What a caller may touch, as a WHERE clause. Who may what is decided before, in
`gridlane_kit.decision`.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, ColumnElement, exists, false, or_, true

from gridlane_kit.decision import Visibility
from gridlane_transfer.store.tables import FILE, JOB


def visible_jobs(visibility: Visibility, *, filtered: bool = False) -> ColumnElement[bool]:
    """The jobs within reach: own, of a VO, or with a file on a channel of the caller's.

    Parameters:
        filtered: whether the statement has another condition with an index of its own, which finds
            fewer rows than all that the caller may see.
    """
    if visibility.nothing or visibility.job is not None:
        return false()
    if visibility.everything:
        return true()
    several = (visibility.owner is not None) + bool(visibility.vos) + bool(visibility.channels) > 1
    # Two reaches joined by OR would be gathered from two indexes and sorted as a whole; in the
    # order of the listing they are found on the way.
    of: Callable[[Column[Any]], ColumnElement[Any]] = _unindexed if several or filtered else _as_is
    reached: list[ColumnElement[bool]] = []
    if visibility.owner is not None:
        reached.append(of(JOB.c.owner) == visibility.owner)
    if visibility.vos:
        reached.append(of(JOB.c.vo).in_(sorted(visibility.vos)))
    if visibility.channels:
        reached.append(
            exists().where(
                FILE.c.job_number == JOB.c.number,
                FILE.c.channel_uid.in_(sorted(visibility.channels)),
            )
        )
    return or_(false(), *reached)


def visible_vos(visibility: Visibility, column: Column[str]) -> ColumnElement[bool]:
    """The rows of the VOs within reach.

    Parameters:
        column: the table's VO.
    """
    if visibility.nothing or visibility.job is not None:
        return false()
    return true() if visibility.everything else column.in_(sorted(visibility.vos))


def _as_is(column: Column[Any]) -> ColumnElement[Any]:
    return column


def _unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """A column's value in a form that no index has."""
    return column.concat("")
