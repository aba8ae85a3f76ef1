"""The database engine SQLite: one file a service, one writer thread, two reader threads.

Responsible for connections, pragmas, transactions and for telling a failing store from a wrong
statement. WAL with FULL sync: a commit that returned has been synced to disk, and readers never
wait for the writer. The data directory's lock (`data_directory`) keeps other processes away.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from gridlane_kit import errors
from gridlane_kit.database import Database, DatabaseUnusableError, create_tables
from gridlane_kit.migrations import check_schema

T = TypeVar("T")

_READERS = 2
_BUSY_TIMEOUT_S = 5.0
# A checkpoint costs two syncs: every 16 MiB of log instead of SQLite's 4, and the log file stays
# below 64 MiB.
_WRITER_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 4000",
    "journal_size_limit = 67108864",
    "cache_size = -32768",
)
_READER_PRAGMAS = ("query_only = ON", "cache_size = -16384")
_BEGIN = "gridlane_begin"

# Primary result codes that speak of the store and not of the statement (sqlite.org/rescode.html).
_STORE_FAILURES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


class SqliteDatabase(Database):
    """An open SQLite file; made by `Database.open`."""

    def __init__(self, writer: Connection, readers: list[Connection], pool: ThreadPoolExecutor):
        self._writer = writer
        self._readers = readers
        self._writer_thread = pool
        self._reader_threads = ThreadPoolExecutor(_READERS, thread_name_prefix="sqlite-reader")

    @classmethod
    async def open_file(
        cls, path: Path, *, metadata: MetaData, migrations: Path | None, migrate: bool
    ) -> "SqliteDatabase":
        """Open a file; parameters and errors as `Database.open`."""
        if not path.is_absolute():
            raise DatabaseUnusableError(
                f"the database file {str(path)!r} is not an absolute path: write"
                " sqlite:////absolute/path"
            )
        pool = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")

        def connect() -> tuple[Connection, list[Connection]]:
            engine = _engine(path)
            writer = _connect(engine, "BEGIN IMMEDIATE", _WRITER_PRAGMAS)
            try:
                _require_wal(writer, path)
                if migrations is None:
                    with writer.begin():
                        create_tables(writer, metadata)
                else:
                    check_schema(writer, metadata, migrations, migrate=migrate)
                # Not before: a migration that copies a table drops the old one, and what refers to
                # it stays.
                _driver(writer).execute("PRAGMA foreign_keys = ON")
                return writer, [_connect(engine, "BEGIN", _READER_PRAGMAS) for _ in range(_READERS)]
            except BaseException:
                writer.close()
                raise

        try:
            writer, readers = await asyncio.get_running_loop().run_in_executor(pool, connect)
        except (DBAPIError, sqlite3.Error) as error:
            pool.shutdown()
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise DatabaseUnusableError(f"the database {path} cannot be opened: {cause}") from error
        except BaseException:
            pool.shutdown()
            raise
        return cls(writer, readers, pool)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._reader_threads, self._read, fn
        )

    async def write(self, fn: Callable[[Connection], T], *, turn: Table | None = None) -> T:
        # There is one writer: it is always one's turn.
        return await asyncio.get_running_loop().run_in_executor(
            self._writer_thread, self._transact, self._writer, fn
        )

    async def write_after_lock(self, fn: Callable[[Connection], T]) -> T:
        return await self.write(fn)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    def store_failure(self, error: BaseException) -> errors.GridlaneError | None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:
            return None
        if code == sqlite3.SQLITE_FULL:
            return errors.store_full()
        # The primary code is the lowest byte of the extended one.
        return errors.store_unavailable() if code & 0xFF in _STORE_FAILURES else None

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._reader_threads.shutdown)
        for reader in self._readers:
            reader.close()
        # The last one to close moves the log into the file and deletes it.
        await loop.run_in_executor(self._writer_thread, self._writer.close)
        self._writer_thread.shutdown()

    def _read(self, fn: Callable[[Connection], T]) -> T:
        # As many connections as threads: there is always one.
        connection = self._readers.pop()
        try:
            return self._transact(connection, fn)
        finally:
            self._readers.append(connection)

    def _transact(self, connection: Connection, fn: Callable[[Connection], T]) -> T:
        try:
            with connection.begin():
                return fn(connection)
        except (DBAPIError, sqlite3.Error) as error:
            # SQLite keeps a transaction open whose commit failed for a deferred constraint.
            _end_transaction(connection)
            failure = self.store_failure(error)
            if failure is None:
                raise
            raise failure from error


def sqlite_url(path: Path) -> str:
    """The URL of a database file for `Database.open`."""
    return f"sqlite:///{path.absolute()}"


def sqlite_file(url: str) -> Path | None:
    """The database file that a URL names; None when it names another engine's database."""
    parsed = make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def _engine(path: Path) -> Engine:
    # isolation_level None: the driver begins nothing by itself, SQLAlchemy's "begin" event does.
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": _BUSY_TIMEOUT_S,
            "cached_statements": 512,
        },
    )
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    _driver(connection).execute(connection.get_execution_options()[_BEGIN])


def _connect(engine: Engine, begin: str, pragmas: tuple[str, ...]) -> Connection:
    connection = engine.connect().execution_options(**{_BEGIN: begin})
    try:
        for pragma in pragmas:
            _driver(connection).execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _require_wal(writer: Connection, path: Path) -> None:
    (mode,) = _driver(writer).execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        raise DatabaseUnusableError(
            f"the file system of {path} does not allow SQLite's write-ahead log (mode {mode}):"
            " put the data directory on a local file system"
        )


def _end_transaction(connection: Connection) -> None:
    driver = _driver(connection)
    if driver.in_transaction:
        driver.rollback()


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the engine is made in this module
    return driver
