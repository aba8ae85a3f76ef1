"""What a caller may touch, as a WHERE clause: the part that services' stores share.

Responsible for rows that belong to a VO and to nobody in particular. Rows that have an owner, or
lie on a channel, are each store's own: what they are found by depends on its indexes. Who may what
is decided before (`decision`).
"""

from sqlalchemy import Column, ColumnElement, false, true

from gridlane_kit.decision import Visibility


def visible_vos(visibility: Visibility, column: Column[str]) -> ColumnElement[bool]:
    """The rows of the VOs within reach.

    Parameters:
        column: the table's VO.
    """
    if visibility.nothing or visibility.job is not None:
        return false()
    return true() if visibility.everything else column.in_(sorted(visibility.vos))
