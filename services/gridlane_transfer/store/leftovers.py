"""Copies on the way of files that have ended (multihop): what is to be removed, as rows.

Responsible for the statements. A row is written with the file's end, in the same transaction, so
that no copy is forgotten; it goes once the copy is gone. Who removes is `hop_copies`.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, select, update

from gridlane_kit.database import insert_values
from gridlane_kit.leases import claim_due, database_now_us, held_by
from gridlane_transfer.moving import routes
from gridlane_transfer.store.tables import LEFTOVER, FileRow


class NewLeftover(NamedTuple):
    """The columns of a copy to be removed."""

    url: str
    number: int
    """Its file's."""
    due_us: int


class Leftover(NamedTuple):
    """A row of `leftover`."""

    url: str
    number: int
    tries: int
    due_us: int
    lease_holder: str | None
    lease_epoch: int
    lease_until_us: int


_DUE: Final = LEFTOVER.c.due_us <= database_now_us()


def of_file(row: FileRow, time_us: int) -> list[NewLeftover]:
    """What a file that ends leaves on its way.

    Parameters:
        row: with a route.
    """
    if row.route is None:
        return []
    left = routes.read(row.route).left_behind(row.hop)
    return [NewLeftover(url, row.number, time_us) for url in left]


def insert(conn: Connection, new: Sequence[NewLeftover]) -> None:
    """Write down what is to be removed."""
    insert_values(conn, LEFTOVER, NewLeftover._fields, new)


def claim(conn: Connection, holder: str, limit: int, ttl: timedelta) -> list[Leftover]:
    """Lease copies that are to be removed now."""
    rows = claim_due(
        conn,
        LEFTOVER,
        where=_DUE,
        order_by=[LEFTOVER.c.due_us],
        limit=limit,
        holder=holder,
        ttl=ttl,
    )
    return [Leftover._make(row) for row in rows]


def forget(conn: Connection, row: Leftover) -> None:
    """Its copy is gone."""
    conn.execute(delete(LEFTOVER).where(LEFTOVER.c.url == row.url, _held(row)))


def postpone(conn: Connection, row: Leftover, due_us: int) -> None:
    """Its copy could not be removed: try again at a time."""
    conn.execute(
        update(LEFTOVER)
        .where(LEFTOVER.c.url == row.url, _held(row))
        .values(tries=row.tries + 1, due_us=due_us, lease_until_us=0)
    )


def release_all(conn: Connection) -> None:
    """End every lease: no other process has this database, so their holders are no more."""
    conn.execute(update(LEFTOVER).values(lease_until_us=0))


def is_due(conn: Connection) -> bool:
    """Whether a copy is to be removed now that nobody is removing."""
    free = LEFTOVER.c.lease_until_us <= database_now_us()
    return conn.execute(select(LEFTOVER.c.url).where(_DUE, free).limit(1)).first() is not None


def _held(row: Leftover) -> Any:
    return held_by(LEFTOVER, row.lease_holder or "", row.lease_epoch)
