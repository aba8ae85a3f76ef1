"""The statements that list jobs.

Responsible for that every documented listing goes along an index, whoever asks: a page costs the
same among a thousand jobs and among a million. What a caller may see is decided by its visibility.
"""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, false, literal, select, true, union_all

from gridlane_kit.decision import Visibility
from gridlane_kit.pages import Keyset, Page
from gridlane_workload.states import State
from gridlane_workload.store import JOB, STORED

NEWEST_FIRST: Final = Keyset(JOB.c.number, descending=True)


def listing(
    visibility: Visibility, *, state: State | None, vo: str | None, page: Page
) -> Select[Any]:
    """The statement for a page of what a caller may see; for `fetch_page` with `NEWEST_FIRST`.

    Parameters:
        state, vo: what the filter asks for; None for any.
    """
    reaches = list(_reaches(visibility, state, vo))
    if len(reaches) <= 1:
        return select(*STORED).where(*(reaches or [false()]))
    # Own jobs and those of managed VOs lie along different indexes: each gives its newest, and of
    # those the page is made. One condition with OR would read and sort them all.
    after = true() if page.after is None else NEWEST_FIRST.after(page.after)
    newest = [
        select(JOB.c.number)
        .where(reach, after)
        .order_by(*NEWEST_FIRST.order())
        .limit(page.size + 1)
        .subquery()
        for reach in reaches
    ]
    numbers = union_all(*(select(part.c.number) for part in newest))
    return select(*STORED).where(JOB.c.number.in_(numbers))


def _reaches(
    visibility: Visibility, state: State | None, vo: str | None
) -> Iterator[ColumnElement[bool]]:
    """The parts of a caller's reach, each along one index."""
    if visibility.nothing:
        return
    in_state = true() if state is None else JOB.c.state == state
    of_vo = true() if vo is None else JOB.c.vo == vo
    if visibility.everything:
        yield and_(in_state, of_vo)
        return
    if visibility.job is not None:
        yield and_(JOB.c.uid == visibility.job.removeprefix("jobs/"), in_state, of_vo)
        return
    if visibility.owner is not None:
        # An expression instead of the column keeps the planner from the VO's index.
        also = true() if vo is None else (JOB.c.vo + literal("")) == vo
        yield and_(JOB.c.owner == visibility.owner, in_state, also)
    for name in sorted(visibility.vos):
        if vo is None or vo == name:
            yield and_(JOB.c.vo == name, in_state)
    for name, group in sorted(visibility.groups):
        if (vo is None or vo == name) and name not in visibility.vos:
            yield and_(JOB.c.owner_group == group, (JOB.c.vo + literal("")) == name, in_state)
