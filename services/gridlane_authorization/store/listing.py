"""One way to list what a caller reaches along several indexes, newest first."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, false, select, true, union_all

from gridlane_kit.pages import Keyset, Page


def newest_first(
    table: Table,
    reaches: Sequence[ColumnElement[bool]],
    where: ColumnElement[bool],
    keyset: Keyset,
    page: Page,
) -> Select[Any]:
    """The statement for a page of what a caller may see; for `fetch_page` with the same keyset.

    Parameters:
        reaches: the parts of what it may see, each along an index of its own; none: nothing.
        where: what is asked for.
        keyset: of one column, descending.
    """
    if len(reaches) <= 1:
        return select(table).where(*(reaches or [false()]), where)
    # Each index gives its newest, and of those the page is made. One condition with OR would read
    # and sort them all.
    (key,) = keyset.columns
    after = true() if page.after is None else keyset.after(page.after)
    newest = (
        select(key)
        .where(reach, where, after)
        .order_by(*keyset.order())
        .limit(page.size + 1)
        .subquery()
        for reach in reaches
    )
    keys = union_all(*(select(part.c[key.name]) for part in newest))
    return select(table).where(key.in_(keys))
