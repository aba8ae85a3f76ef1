"""A service's own database: run a function in a read or a write transaction.

Responsible for what all engines share: the interface, the metadata's naming convention, and the
quick ways to insert, to read by a key and to run a statement that never changes.
What is particular to an engine stands in its module (`sqlite`). Not responsible for tables and
statements (each service's `store`), for migrations (`migrations`), or for gathering writes
(`group_commit`).

A store's functions are synchronous and take a `Connection`: they serve every engine, and never wait
for anything but the database.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    CursorResult,
    Dialect,
    Executable,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Update,
    Uuid,
    bindparam,
    insert,
    make_url,
    select,
    update,
)

from gridlane_kit.errors import GridlaneError

T = TypeVar("T")

# Column types that all services use: ids as canonical text, times as microseconds since 1970 UTC,
# and numbers that the database counts up (SQLite counts only what is declared INTEGER).
Text36 = String(36)
Micros = BigInteger
Counter = BigInteger().with_variant(Integer, "sqlite")

_ONLY_ON = "gridlane_only_on"

# Every constraint has a name, so that a migration can name it (Alembic, "The Importance of Naming
# Constraints").
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def service_metadata() -> MetaData:
    """The metadata in which a service declares its tables; `commit_mark`'s is in it already."""
    metadata = MetaData(naming_convention=_NAMING)
    mark = Column("id", Uuid(as_uuid=False), primary_key=True)
    Table("commit_mark", metadata, mark, info=only_on("postgresql"))
    return metadata


def turn_table(metadata: MetaData) -> Table:
    """The table whose lock is the turn of `Database.write`; it never has a row."""
    number = Column("id", Integer, primary_key=True, autoincrement=False)
    return Table("write_turn", metadata, number, info=only_on("postgresql"))


def only_on(dialect: str) -> dict[str, Any]:
    """The `info` of a table that is there on one engine alone ("postgresql")."""
    return {_ONLY_ON: dialect}


def is_on(table: Table, dialect: str) -> bool:
    """Whether an engine has this table."""
    return bool(table.info.get(_ONLY_ON, dialect) == dialect)


def create_tables(conn: Connection, metadata: MetaData) -> None:
    """Make the tables of a metadata that the connection's engine has."""
    tables = [table for table in metadata.sorted_tables if is_on(table, conn.dialect.name)]
    metadata.create_all(conn, tables)


class DatabaseUnusableError(Exception):
    """A database that cannot be opened as asked; the message says why, and the cure."""


class Database(ABC):
    """An open database; made by `open`, used from one event loop."""

    @classmethod
    async def open(
        cls, url: str, *, metadata: MetaData, migrations: Path | None, migrate: bool
    ) -> "Database":
        """Open a database and see to its schema.

        Parameters:
            url: SQLAlchemy's form, `sqlite:////absolute/path` or
                `postgresql+asyncpg://user@host/database`.
            metadata: the service's tables.
            migrations: the service's `migrations` folder; None makes the tables as they stand in
                `metadata`.
            migrate: bring an older schema up to date; otherwise it is refused.

        Raises:
            DatabaseUnusableError: no such engine, or a schema that is older or unknown.
        """
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            from gridlane_kit.sqlite import SqliteDatabase

            return await SqliteDatabase.open_file(
                Path(parsed.database or ""),
                metadata=metadata,
                migrations=migrations,
                migrate=migrate,
            )
        if backend == "postgresql":
            from gridlane_kit.postgresql import PostgresqlDatabase

            return await PostgresqlDatabase.open_url(
                parsed, metadata=metadata, migrations=migrations, migrate=migrate
            )
        raise DatabaseUnusableError(
            f"{backend}: there is no such engine; give sqlite:////absolute/path or"
            " postgresql+asyncpg://user@host/database"
        )

    @abstractmethod
    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a read transaction, on one consistent snapshot.

        Raises:
            GridlaneError: STORE_UNAVAILABLE.
        """

    @abstractmethod
    async def write(self, fn: Callable[[Connection], T], *, turn: Table | None = None) -> T:
        """Run `fn` in a write transaction of its own; it is durable when this returns.

        For rare writes; what callers wait for in numbers goes through `group_commit`. Transactions
        behave as if they ran one after the other; where engines run `fn` again to hold that, what
        an earlier run did is undone: so `fn` does nothing but statements. When it raises, nothing
        of it is kept. A caller that is cancelled does not cut it off half way.

        Parameters:
            turn: made by `turn_table`: of the transactions that give it, in whatever process, one
                runs at a time, and sees what the one before it did. For those that would meet each
                other mostly, and be run again and again.

        Raises:
            GridlaneError: NO_SPACE, nothing was changed; STORE_UNAVAILABLE, it is not known whether
                something was, if the database went away at the commit and did not come back.
        """

    @abstractmethod
    async def write_after_lock(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn`, which takes a lock first, in a write transaction of its own.

        Each statement sees what had been committed when it began, so that those after the lock see
        what its last holder did. Otherwise as `write`.
        """

    @abstractmethod
    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard`, in the event loop, when a process notifies the channel; until cancelled.

        Also called when notifications may have been missed. An engine that has no other processes
        never calls it.
        """

    @abstractmethod
    def store_failure(self, error: BaseException) -> GridlaneError | None:
        """What callers are told when the whole store failed; None when `error` is another one."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is running and close."""


def insert_rows(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows at the least cost: straight through the driver.

    Parameters:
        rows: all with the same keys, names of columns; values of types that the driver takes as
            they are (str, int, float, bytes, None). Client-side column defaults are not applied.
    """
    if rows:
        columns = tuple(column.name for column in table.columns if column.name in rows[0])
        if len(columns) != len(rows[0]) or len(columns) < 2:
            raise ValueError(f"{sorted(rows[0])} are not two or more columns of {table.name}")
        values = itemgetter(*columns)
        insert_values(conn, table, columns, [values(row) for row in rows])


def insert_values(
    conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert many rows as `insert_rows` does, for what is inserted in numbers.

    Parameters:
        columns: names, in the table's order.
        rows: the values of these columns, for each row.
    """
    if rows:
        conn.exec_driver_sql(_insert_statement(table, columns, conn.dialect), rows)


class RowUpdate:
    """Writes some columns of many rows at the least cost, as `insert_values` inserts them.

    Parameters:
        row: the type of the rows that are given: a named tuple whose fields are columns.
        key: the columns by which a row is found.
        columns: those that are written.
    """

    def __init__(
        self,
        table: Table,
        row: type[tuple[Any, ...]],
        *,
        key: Sequence[str],
        columns: Sequence[str],
    ) -> None:
        values: Mapping[str, Any] = {name: bindparam(name) for name in columns}
        found = (table.c[name] == bindparam(f"key_{name}") for name in key)
        self._statement = update(table).where(*found).values(values)
        self._fields: tuple[str, ...] = row._fields  # type: ignore[attr-defined]

    def __call__(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows, of the type that was given."""
        if rows:
            text, values = _row_statement(self._statement, self._fields, conn.dialect)
            conn.exec_driver_sql(text, [values(row) for row in rows])


def rows_by_key(
    conn: Connection,
    columns: Sequence[Column[Any]],
    key: Column[Any],
    keys: Sequence[Any],
    *,
    locked: bool = False,
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Read columns of the rows whose `key` is one of `keys`, at the least cost.

    Parameters:
        columns: of one table, of types that the driver gives as they are.
        keys: as the driver takes them; rows come in no order.
        locked: keep other transactions from changing them (SELECT FOR UPDATE).
    """
    if not keys:
        return ()
    # Filled up to a power of two, so that few statements serve all sizes.
    size = 1 << (len(keys) - 1).bit_length()
    statement = _by_key_statement(tuple(columns), key, size, locked)
    text, _, _ = _driver_statement(statement, conn.dialect)
    return conn.exec_driver_sql(text, (*keys, *repeat(keys[-1], size - len(keys)))).all()


def run_kept(conn: Connection, statement: Executable, **values: Any) -> CursorResult[Any]:
    """Run a statement that is kept by its module, at the least cost.

    To run it through SQLAlchemy costs a multiple of what it costs the database. Neither values nor
    results are converted.

    Parameters:
        statement: the same object every time.
        values: of its bound parameters.
    """
    text, names, fixed = _driver_statement(statement, conn.dialect)
    given = {**fixed, **values}
    return conn.exec_driver_sql(text, tuple(given[name] for name in names))


@lru_cache(maxsize=512)
def _by_key_statement(
    columns: tuple[Column[Any], ...], key: Column[Any], size: int, locked: bool
) -> Select[Any]:
    found = select(*columns).where(key.in_([bindparam(f"key_{n}") for n in range(size)]))
    return found.with_for_update() if locked else found


@lru_cache(maxsize=512)
def _driver_statement(
    statement: Executable, dialect: Dialect
) -> tuple[str, Sequence[str], Mapping[str, Any]]:
    """The statement's text, the names of its parameters in order, the values that it brings."""
    compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    return str(compiled), tuple(compiled.positiontup or ()), compiled.params


@lru_cache(maxsize=512)
def _row_statement(
    statement: Update, fields: tuple[str, ...], dialect: Dialect
) -> tuple[str, Callable[[tuple[Any, ...]], Any]]:
    """The statement's text, and what takes the values of its parameters out of a row."""
    text, names, _ = _driver_statement(statement, dialect)
    return text, itemgetter(*(fields.index(name.removeprefix("key_")) for name in names))


@lru_cache(maxsize=512)
def _insert_statement(table: Table, columns: tuple[str, ...], dialect: Dialect) -> str:
    if columns != tuple(column.name for column in table.columns if column.name in columns):
        raise ValueError(f"{columns} are not columns of {table.name} in its order")
    return str(insert(table).inline().compile(dialect=dialect, column_keys=columns))
