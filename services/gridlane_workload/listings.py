"""The statements that list jobs.

Responsible for that every documented listing goes along an index, whoever asks: a page costs the
same among a thousand jobs and among a million. What a caller may see is decided by its visibility.
"""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, true

from gridlane_kit.decision import Visibility
from gridlane_kit.listing import along_indexes, looked_at
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
    in_state = true() if state is None else JOB.c.state == state
    return along_indexes(STORED, list(_reaches(visibility, vo)), in_state, NEWEST_FIRST, page)


def _reaches(visibility: Visibility, vo: str | None) -> Iterator[ColumnElement[bool]]:
    """The parts of a caller's reach, each along one index."""
    if visibility.nothing:
        return
    of_vo = true() if vo is None else JOB.c.vo == vo
    if visibility.everything:
        yield of_vo
        return
    if visibility.job is not None:
        yield and_(JOB.c.uid == visibility.job.removeprefix("jobs/"), of_vo)
        return
    if visibility.owner is not None:
        also = true() if vo is None else looked_at(JOB.c.vo == vo)
        yield and_(JOB.c.owner == visibility.owner, also)
    for name in sorted(visibility.vos):
        if vo is None or vo == name:
            yield JOB.c.vo == name
    for name, group in sorted(visibility.groups):
        if (vo is None or vo == name) and name not in visibility.vos:
            yield and_(JOB.c.owner_group == group, looked_at(JOB.c.vo == name))
