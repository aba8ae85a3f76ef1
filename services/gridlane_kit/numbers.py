"""Numbers that a service gives to what it stores: never the same one twice.

Responsible for where they come from on each engine. On SQLite, with its one writer, a row counts;
numbers have no gaps. On PostgreSQL a sequence does, since every transaction would meet every other
one in that row: there numbers that a transaction took in vain are lost, and of two jobs submitted
at the same time the one with the lower number may be committed later.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy import Sequence as DatabaseSequence

from gridlane_kit.database import run_kept


class Numbers:
    """One series of numbers, from 1.

    Parameters:
        metadata: the service's; the sequence becomes a part of it.
        name: of the sequence.
        last: the column of a table of SQLite's alone that holds the last number given.
        row: the row of it, as it is before the first number.
    """

    def __init__(
        self, metadata: MetaData, name: str, *, last: Column[int], row: Mapping[str, Any]
    ) -> None:
        table = last.table
        key = [column == row[column.name] for column in table.primary_key.columns]
        self._count = (
            update(table).where(*key).values({last.name: last + bindparam("count")}).returning(last)
        )
        self._begin = insert(table).values(row)
        each = func.generate_series(literal_column("1"), bindparam("count", type_=BigInteger))
        sequence = DatabaseSequence(name, metadata=metadata)
        self._next = select(sequence.next_value()).select_from(each)

    def take(self, conn: Connection, count: int) -> Sequence[int]:
        """The next `count` numbers, in order; not always one after the other."""
        if count == 0:
            return ()
        if conn.dialect.name == "postgresql":
            return run_kept(conn, self._next, count=count).scalars().all()
        last = run_kept(conn, self._count, count=count).scalar()
        if last is None:
            conn.execute(self._begin)
            last = run_kept(conn, self._count, count=count).scalar_one()
        return range(last - count + 1, last + 1)
