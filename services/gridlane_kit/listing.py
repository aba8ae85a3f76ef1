"""The one statement that lists what a caller reaches along several indexes.

Responsible for a listing whose rows are reached in several ways (as an owner's, a group's, those of
a VO), each along an index of its own in the order of the listing. What a caller reaches is each
store's, as its indexes are; orders and pages are `pages`'.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, case, false, select, true, union_all

from gridlane_kit.pages import Keyset, Page


def along_indexes(
    what: Table | Sequence[ColumnElement[Any]],
    reaches: Sequence[ColumnElement[bool]],
    where: ColumnElement[bool],
    keyset: Keyset,
    page: Page,
) -> Select[Any]:
    """Returns the statement for a page of what a caller reaches; for `fetch_page` with the same
    keyset.

    Each index gives its first rows, and of those the page is made: one condition with OR would read
    and sort all that is reached.

    Parameters:
        what: selects, the keyset's column among it.
        reaches: the parts of what the caller reaches; none: nothing.
        where: what is asked for, of each part.
        keyset: of one column, which is unique.
    """
    chosen = select(what) if isinstance(what, Table) else select(*what)
    if len(reaches) <= 1:
        return chosen.where(*(reaches or [false()]), where)
    (key,) = keyset.columns
    after = true() if page.after is None else keyset.after(page.after)
    first = (
        select(key)
        .where(reach, where, after)
        .order_by(*keyset.order())
        .limit(page.size + 1)
        .subquery()
        for reach in reaches
    )
    keys = union_all(*(select(part.c[key.name]) for part in first))
    return chosen.where(key.in_(keys))


def looked_at(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition that is looked at row by row, on the way along an index that another one has.

    No index serves this form of it, and PostgreSQL takes a value that is computed to be NULL in one
    row of 200: so a page along the other index is soon full, and is not collected and sorted
    whole. What an owner has in a VO is most of what it has, which statistics of single columns do
    not tell.
    """
    return case((condition, 1)).is_not(None)
