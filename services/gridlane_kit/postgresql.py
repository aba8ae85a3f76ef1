"""The database engine PostgreSQL: one database a service, a pool of asyncpg connections.

Responsible for connections, isolation, running transactions again, and for what became of a commit
whose answer was lost. A write is SERIALIZABLE and is run again when it met another one (PostgreSQL
manual, 13.5 "Serialization Failure Handling"): so the stores, written for SQLite's one writer, need
no thought of races, and services may have replicas. A read is one snapshot. Writes that would meet
most of the time take turns instead: what they wait for is a lock, and they wait before they look.

When the connection breaks at COMMIT, the database is asked for the transaction's mark
(`commit_mark`): what was committed is answered, what was not is run again. Nothing is done twice.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, MetaData, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from gridlane_kit import errors
from gridlane_kit.commit_mark import CommitMark, forget_old_marks
from gridlane_kit.database import Database, DatabaseUnusableError, create_tables
from gridlane_kit.failpoints import failpoint
from gridlane_kit.migrations import check_schema

T = TypeVar("T")

# What the URL may say otherwise: type and default. One connection of the pool listens for
# notifications; `timeout` is for connecting and `command_timeout` for a statement, in seconds; the
# caches are of prepared statements, SQLAlchemy's and asyncpg's own.
_POOL_SIZE: Final = "pool_size"
_PARAMETERS: Final[Mapping[str, tuple[type[int] | type[float], float]]] = {
    _POOL_SIZE: (int, 9),
    "timeout": (float, 5.0),
    "command_timeout": (float, 30.0),
    "prepared_statement_cache_size": (int, 512),
    "statement_cache_size": (int, 100),
}
# A sequential scan locks the whole table against other writers (manual, 13.2.3), and a plan that
# was made for an empty table is kept while it grows: what callers wait for has its index. What has
# none looks dear that way, and must not be compiled for it. A process that is frozen within a
# transaction would keep the others from its rows for as long: the server ends that (manual, 19.11),
# and the process, once it wakes, runs the transaction again.
_IDLE_MS: Final = "idle_in_transaction_session_timeout"
_SERVER_SETTINGS: Final = {"enable_seqscan": "off", "jit": "off", _IDLE_MS: "10000"}
# How long a transaction is tried again when it met others, or while the database is away: less
# than callers wait, so that they are told.
_TRY_FOR_S: Final = 3.0
_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.25
_LISTEN_AGAIN_S: Final = 1.0
_FORGET_MARKS_S: Final = 600.0
# How long the outcome of a commit is asked for: a restart of the database fits in.
_ASK_FOR_S: Final = 10.0
# How many commits of a transaction may be cut off and found undone.
_COMMITS: Final = 3

_BEFORE_COMMIT = failpoint("kit.postgresql.before_commit")
_log = logging.getLogger(__name__)


class _Failure(Enum):
    """What an error says of the database."""

    CONFLICT = auto()  # it met another transaction, and nothing was changed
    LOST = auto()  # the database or the connection to it is away
    FULL = auto()
    BROKEN = auto()  # it answers, but cannot serve


# SQLSTATE, or its class of two characters (manual, appendix A).
_FAILURES: Final = {
    "40001": _Failure.CONFLICT,  # serialization_failure
    "40P01": _Failure.CONFLICT,  # deadlock_detected
    "55P03": _Failure.CONFLICT,  # lock_not_available
    # invalid_sql_statement_name: a pooler gave another connection between its parts.
    "26000": _Failure.CONFLICT,
    "08": _Failure.LOST,  # connection exceptions
    "57P01": _Failure.LOST,  # admin_shutdown
    "57P02": _Failure.LOST,  # crash_shutdown
    "57P03": _Failure.LOST,  # cannot_connect_now
    "57P05": _Failure.LOST,  # idle_session_timeout
    "25P03": _Failure.LOST,  # idle_in_transaction_session_timeout
    "25006": _Failure.BROKEN,  # read_only_sql_transaction: a standby, or one that was set so
    "0A000": _Failure.BROKEN,  # feature_not_supported: SERIALIZABLE on a standby
    "53300": _Failure.LOST,  # too_many_connections
    "53100": _Failure.FULL,  # disk_full
    "53": _Failure.BROKEN,  # insufficient resources
    "57014": _Failure.BROKEN,  # query_canceled: it took too long
    "58": _Failure.BROKEN,  # system error, I/O error among them
    "XX": _Failure.BROKEN,  # internal error, corruption
}
# Errors of the network, of the pool, and of asyncpg about a connection that is not there or speaks
# nonsense.
_LOST: Final = (
    OSError,
    TimeoutError,
    PoolTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# This statement alone is no part of the transaction's snapshot, which the next one takes when all
# that had the lock before have committed (manual, LOCK). Readers and other writers pass by.
_TAKE_TURN: Final = "LOCK TABLE {} IN EXCLUSIVE MODE"

# What leaves a connection in a state that nobody knows.
_UNSOUND: Final = frozenset({_Failure.LOST, _Failure.BROKEN})


class _OutcomeUnknownError(Exception):
    """The connection broke at COMMIT."""

    def __init__(self, result: Any, mark: CommitMark) -> None:
        super().__init__(f"the connection was lost at the commit marked {mark.id}")
        self.result = result
        self.mark = mark


class PostgresqlDatabase(Database):
    """An open PostgreSQL database; made by `Database.open`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(isolation_level="SERIALIZABLE")
        self._reader = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        # Statements that stand alone: a connection that listens is in no transaction.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writes: set[asyncio.Task[Any]] = set()
        # Whoever met another transaction is run again in turn, or many would meet over and over.
        self._turn = asyncio.Lock()
        self._forgetting = asyncio.create_task(self._forget_marks(), name="postgresql-marks")

    @classmethod
    async def open_url(
        cls, url: URL, *, metadata: MetaData, migrations: Path | None, migrate: bool
    ) -> "PostgresqlDatabase":
        """Open a database; parameters and errors as `Database.open`."""
        shown = url.render_as_string(hide_password=True)
        try:
            url, options = _options(url.set(drivername="postgresql+asyncpg"))
        except ValueError as error:
            raise DatabaseUnusableError(f"the database {shown}: {error}") from error
        pool_size = options.pop(_POOL_SIZE)
        try:
            await _see_to_schema(url, options, metadata, migrations, migrate=migrate)
        except (DBAPIError, asyncpg.PostgresError, *_LOST) as error:
            cause = (error.orig if isinstance(error, DBAPIError) else None) or error
            said = str(cause) or type(cause).__name__
            raise DatabaseUnusableError(f"the database {shown} cannot be used: {said}") from error
        engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_TRY_FOR_S,
            # The connection used last is used first, so that the others may rest.
            pool_use_lifo=True,
            connect_args=options,
        )
        return cls(engine)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        async def attempt() -> T:
            async with _connection(self._reader) as conn, conn.begin():
                return await conn.run_sync(fn)

        return await _again(attempt, self._turn)

    async def write(self, fn: Callable[[Connection], T], *, turn: Table | None = None) -> T:
        return await self._write_on(self._writer, fn, turn)

    async def write_after_lock(self, fn: Callable[[Connection], T]) -> T:
        return await self._write_on(self._engine, fn)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        while True:
            try:
                await self._listen(channel, heard)
            except Exception as error:
                if _failure(error) is None:
                    raise
                _log.warning("notifications of %s are not heard for now: %s", channel, error)
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Listen until the connection is lost."""
        lost = asyncio.Event()
        async with self._single.connect() as conn:
            driver: Any = (await conn.get_raw_connection()).driver_connection
            driver.add_termination_listener(lambda *_: lost.set())
            await driver.add_listener(channel, lambda *_: heard())
            heard()
            try:
                await lost.wait()
            finally:
                await conn.invalidate()

    async def _forget_marks(self) -> None:
        while True:
            try:
                async with self._single.connect() as conn:
                    await forget_old_marks(conn)
            except Exception as error:
                if _failure(error) is None:
                    raise
                _log.warning("old marks of commits are kept for now: %s", error)
            await asyncio.sleep(_FORGET_MARKS_S)

    async def _write_on(
        self, engine: AsyncEngine, fn: Callable[[Connection], T], turn: Table | None = None
    ) -> T:
        # In a task of its own: a caller that leaves does not cut the transaction off half way.
        task = asyncio.create_task(self._write(engine, fn, turn), name="postgresql-write")
        self._writes.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def store_failure(self, error: BaseException) -> errors.GridlaneError | None:
        failure = _failure(error)
        if failure is None:
            return None
        return errors.store_full() if failure is _Failure.FULL else errors.store_unavailable()

    async def close(self) -> None:
        self._forgetting.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._forgetting
        finally:
            if self._writes:
                await asyncio.wait(self._writes)
            await self._engine.dispose()

    async def _write(
        self, engine: AsyncEngine, fn: Callable[[Connection], T], turn: Table | None
    ) -> T:
        async def attempt() -> T:
            for _ in range(_COMMITS):
                try:
                    return await self._transact(engine, fn, turn)
                except _OutcomeUnknownError as unknown:
                    if await self._was_committed(unknown):
                        result: T = unknown.result
                        return result
            raise ConnectionResetError(f"the connection was lost at {_COMMITS} commits")

        return await _again(attempt, self._turn)

    async def _transact(
        self, engine: AsyncEngine, fn: Callable[[Connection], T], turn: Table | None
    ) -> T:
        async with _connection(engine) as conn:
            await conn.begin()
            if turn is not None:
                await conn.exec_driver_sql(_TAKE_TURN.format(turn.name))
            result = await conn.run_sync(fn)
            driver: Any = (await conn.get_raw_connection()).driver_connection
            mark = await CommitMark.leave(driver)
            _BEFORE_COMMIT()
            try:
                await conn.commit()
            except Exception as error:
                if mark is None or _failure(error) is not _Failure.LOST:
                    raise
                raise _OutcomeUnknownError(result, mark) from error
            if driver.is_in_transaction():
                raise ConnectionResetError("the transaction went on after its COMMIT")
            return result

    async def _was_committed(self, unknown: _OutcomeUnknownError) -> bool:
        """Ask what became of a transaction.

        Raises:
            GridlaneError: STORE_UNAVAILABLE: it could not be found out.
        """
        async for pause in _pauses(_ASK_FOR_S):
            try:
                async with self._engine.connect() as conn:
                    committed = await unknown.mark.is_there(conn)
            except Exception as error:
                if _failure(error) is None:
                    raise
            else:
                _log.warning("%s: it was %s", unknown, "committed" if committed else "aborted")
                return committed
            await asyncio.sleep(pause)
        _log.error("%s, and its outcome could not be found out", unknown)
        raise errors.store_unavailable() from unknown

    def _written(self, task: "asyncio.Task[Any]") -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # or a write whose caller left is reported as one nobody asked for


@asynccontextmanager
async def _connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection of the pool, which gets it back only when nothing was cut off on it.

    Where BEGIN got no answer in time, the driver may think that a transaction has begun when none
    has, or none when one has. Then the next one would be a savepoint in it, and its COMMIT no end.
    """
    async with engine.connect() as conn:
        try:
            yield conn
        except BaseException as error:
            if not isinstance(error, Exception) or _failure(error) in _UNSOUND:
                await conn.invalidate()
            raise


async def _again(attempt: Callable[[], Awaitable[T]], turn: asyncio.Lock) -> T:
    """Run a transaction until it neither meets another one nor loses its connection.

    Parameters:
        turn: held while one that met another is run again.

    Raises:
        GridlaneError: the store failed.
        Exception: what the transaction's function raised.
    """
    until = asyncio.get_running_loop().time() + _TRY_FOR_S
    last: Exception | None = None
    failure: _Failure | None = None
    async for pause in _pauses(_TRY_FOR_S):
        try:
            if failure is not _Failure.CONFLICT:
                return await attempt()
            async with _held(turn, until):
                return await attempt()
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
            if failure is _Failure.FULL:
                raise errors.store_full() from error
            last = error
            if failure is _Failure.BROKEN:
                break
        await asyncio.sleep(pause)
    _log.warning("the database cannot be used: %s", last)
    raise errors.store_unavailable() from last


@asynccontextmanager
async def _held(lock: asyncio.Lock, until: float) -> AsyncIterator[None]:
    """Hold a lock.

    Raises:
        TimeoutError: it was not free in time.
    """
    async with asyncio.timeout_at(until):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def _pauses(limit_s: float) -> AsyncIterator[float]:
    """Pauses between attempts, of random length and longer and longer, for about so long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    longest = _FIRST_PAUSE_S
    while True:
        yield random.uniform(0, longest)  # noqa: S311 - no secret
        if loop.time() >= until:
            return
        longest = min(2 * longest, _LONGEST_PAUSE_S)


def _options(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL without the parameters that are read here, and those.

    Raises:
        ValueError: a parameter is no number.
    """
    given = [name for name in _PARAMETERS if name in url.query]
    options: dict[str, Any] = {"server_settings": _SERVER_SETTINGS}
    for name, (kind, default) in _PARAMETERS.items():
        try:
            options[name] = kind(str(url.query[name])) if name in given else default
        except ValueError as error:
            raise ValueError(f"{name}={url.query[name]} is not a number") from error
    if not options["prepared_statement_cache_size"]:
        # Through a pooler, several clients share a server's connection: statements have no name.
        options["prepared_statement_name_func"] = str
    return url.difference_update_query(given), options


async def _see_to_schema(
    url: URL,
    options: Mapping[str, Any],
    metadata: MetaData,
    migrations: Path | None,
    *,
    migrate: bool,
) -> None:
    """Look whether the server is durable, and bring the schema up to date."""

    def check(conn: Connection) -> None:
        if migrations is None:
            with conn.begin():
                create_tables(conn, metadata)
        else:
            check_schema(conn, metadata, migrations, migrate=migrate)

    # A migration, also waiting for another process's, may last longer than any other statement.
    settings = {**_SERVER_SETTINGS, _IDLE_MS: "0"}
    unlimited = {**options, "command_timeout": None, "server_settings": settings}
    engine = create_async_engine(url, poolclass=NullPool, connect_args=unlimited)
    async with engine.connect() as conn:
        await conn.run_sync(_require_durable)
        await conn.run_sync(check)


def _require_durable(conn: Connection) -> None:
    """Refuse a server that answers before its disk does."""
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if conn.exec_driver_sql(f"SHOW {setting}").scalar() == "off":
            raise DatabaseUnusableError(
                f"the database has {setting} = off, so that a crash loses what was answered: set it"
                " to on"
            )
    conn.rollback()


def _failure(error: BaseException | None) -> _Failure | None:
    """What an error says of the store; None when it speaks of a statement or of something else."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return _Failure.LOST
        # A prepared statement whose table was migrated meanwhile: the next run prepares it anew.
        if isinstance(getattr(error.orig, "__cause__", None), asyncpg.InvalidCachedStatementError):
            return _Failure.CONFLICT
        return _failure(error.orig)
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _FAILURES.get(state) or _FAILURES.get(state[:2])
    return _Failure.LOST if isinstance(error, _LOST) else None
