"""Leases: which process works on a row, and until when.

Responsible for the columns, for claiming due rows, for renewing and giving back. What is due, and
what is done with it, is the service's. A lease expires by the database's clock, never by a
holder's. A holder that was paused past its lease may still believe in it: so every WHERE of a
holder carries `held_by`, and a write of one that lost its lease changes nothing. `lease_epoch`
grows with each claim; it also belongs into the names of what a holder writes outside the database.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Row,
    String,
    Table,
    and_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from gridlane.ids import uuid7

R = TypeVar("R")


class database_now_us(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock in a statement: microseconds since 1970 UTC, exact to a millisecond."""

    type = BigInteger()
    inherit_cache = True
    name = "database_now_us"


@compiles(database_now_us, "sqlite")
def _sqlite_now(element: database_now_us, compiler: SQLCompiler, **kwargs: Any) -> str:
    # SQLite counts days since noon of -4713-11-24; 2440587.5 is 1970-01-01 00:00 UTC.
    return "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"


@compiles(database_now_us, "postgresql")
def _postgresql_now(element: database_now_us, compiler: SQLCompiler, **kwargs: Any) -> str:
    # Not now(), which is the time at which the transaction began.
    return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def lease_columns() -> list[Column[Any]]:
    """The columns of a leased table: holder, epoch, and the end of the lease (0: not leased)."""
    return [
        Column("lease_holder", String(200)),
        Column("lease_epoch", BigInteger, nullable=False, server_default="0"),
        Column("lease_until_us", BigInteger, nullable=False, server_default="0"),
    ]


def new_holder() -> str:
    """A name for a holder, unique among all processes and restarts: host, pid, and an id."""
    return f"{platform.node()}:{os.getpid()}:{uuid7()}"


def claim_due(
    conn: Connection,
    table: Table,
    *,
    where: ColumnElement[bool],
    order_by: Sequence[ColumnElement[Any]],
    limit: int,
    holder: str,
    ttl: timedelta,
) -> Sequence[Row[Any]]:
    """Lease rows that are due and that nobody holds.

    Parameters:
        where: what is due.
        order_by: which come first when there are more than `limit`.
        holder: who leases, by `new_holder`.
        ttl: how long, from now by the database's clock.

    Returns:
        The whole rows as they are after the claim, in no particular order; their `lease_epoch` goes
        into `held_by`.
    """
    key = _key(table)
    free = and_(where, table.c.lease_until_us <= database_now_us())
    due = select(*table.primary_key.columns).where(free).order_by(*order_by).limit(limit)
    # Where holders claim at the same time (PostgreSQL), each passes by what another is claiming.
    due = due.with_for_update(skip_locked=True)
    statement = (
        update(table)
        .where(key.in_(due))
        .values(
            lease_holder=holder,
            lease_epoch=table.c.lease_epoch + 1,
            lease_until_us=_until(ttl),
        )
        .returning(*table.columns)
    )
    return conn.execute(statement).all()


def held_by(table: Table, holder: str, epoch: int) -> ColumnElement[bool]:
    """The condition that `holder` still has the lease of `epoch`; part of its every WHERE.

    It holds past the lease's end as long as nobody else has claimed the row.
    """
    return and_(table.c.lease_holder == holder, table.c.lease_epoch == epoch)


def renew(
    conn: Connection,
    table: Table,
    *,
    where: ColumnElement[bool],
    holder: str,
    epoch: int,
    ttl: timedelta,
) -> bool:
    """Keep the row of `where` for another `ttl` from now.

    Returns:
        False when the lease is lost: stop the work, its results will not be accepted.
    """
    statement = (
        update(table).where(where, held_by(table, holder, epoch)).values(lease_until_us=_until(ttl))
    )
    return conn.execute(statement).rowcount > 0


def renew_all(
    conn: Connection,
    table: Table,
    *,
    where: ColumnElement[bool],
    holder: str,
    epochs: Mapping[int, int],
    ttl: timedelta,
    returning: ColumnElement[R],
) -> dict[int, R]:
    """Keep many rows for another `ttl` from now, in one statement.

    Parameters:
        where: which rows may be kept.
        epochs: the epoch of each, by the row's key, which is a single number.
        returning: what is told of each row.

    Returns:
        What is asked for, by key; the lease of what is missing is lost.
    """
    key = _key(table)
    mine = tuple_(key, table.c.lease_epoch).in_(list(epochs.items()))
    statement = (
        update(table)
        .where(where, table.c.lease_holder == holder, mine)
        .values(lease_until_us=_until(ttl))
        .returning(key, returning)
    )
    return {row[0]: row[1] for row in conn.execute(statement)}


def release(
    conn: Connection, table: Table, *, where: ColumnElement[bool], holder: str, epoch: int
) -> bool:
    """Give the row of `where` back, so that it can be claimed at once.

    Returns:
        False when the lease was lost before.
    """
    statement = (
        update(table)
        .where(where, held_by(table, holder, epoch))
        .values(lease_holder=None, lease_until_us=0)
    )
    return conn.execute(statement).rowcount > 0


def _until(ttl: timedelta) -> ColumnElement[int]:
    return database_now_us() + ttl // timedelta(microseconds=1)


def _key(table: Table) -> ColumnElement[Any]:
    columns = list(table.primary_key.columns)
    return columns[0] if len(columns) == 1 else tuple_(*columns)
