"""Where services under measurement keep their data: SQLite files, or a PostgreSQL of the run's own.

Responsible for empty databases and for the processor time of a database that has processes of its
own. The services make their tables in them.
"""

import asyncio
import itertools
import shutil
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import psutil
from sqlalchemy import make_url

from benchmarks.processes import ChildFailedError, Clock, tree_cpu_seconds
from benchmarks.row import Engine
from benchmarks.run import Run
from gridlane_kit.sqlite import sqlite_url

with warnings.catch_warnings():
    # At its import it looks for a folder that a machine without a desktop need not have.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    from pgserver.postgres_server import get_server

_STOP_S: Final = 10.0


class Databases(Protocol):
    """A place for databases."""

    @property
    def clock(self) -> Clock | None:
        """Whose processor time is the databases'; None when it is the services'."""

    def new(self, service: str) -> str:
        """Makes an empty database and returns its URL."""


class SqliteFiles:
    """Files in a directory."""

    clock: Clock | None = None

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new(self, service: str) -> str:
        """Returns the URL of a file that is not there yet."""
        return sqlite_url(self._directory / f"{service}.sqlite")


class PostgresqlServer:
    """A server with PostgreSQL's own settings, which have fsync on; gone at `close`."""

    def __init__(self) -> None:
        # The server runs as a user of its own, who must get there.
        self._root = Path(tempfile.mkdtemp(prefix="gridlane-benchmark-postgresql-"))
        self._root.chmod(0o755)
        self._numbers = itertools.count(1)
        self._server = get_server(self._root / "data", cleanup_mode="stop")

    @property
    def clock(self) -> Clock | None:
        """The server itself."""
        return self

    def new(self, service: str) -> str:
        """Makes an empty database."""
        name = f"{service}_{next(self._numbers)}"
        self._server.psql(f"CREATE DATABASE {name}")
        url = make_url(self._server.get_uri(database=name))
        return url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    def cpu_seconds(self) -> float:
        """Returns the processor time of all its processes so far, in seconds."""
        pid = self._server.get_pid()
        if pid is None:
            raise ChildFailedError("PostgreSQL has ended")
        return tree_cpu_seconds(pid)

    def close(self) -> None:
        """Stops it and deletes its files."""
        pid = self._server.get_pid()
        if pid is not None:
            # "Immediate": nobody wants the checkpoint of an orderly end.
            process = psutil.Process(pid)
            process.send_signal(signal.SIGQUIT)
            process.wait(_STOP_S)
        self._server.cleanup()
        shutil.rmtree(self._root, ignore_errors=True)


async def databases(run: Run, engine: Engine, directory: Path) -> Databases:
    """Returns where to make databases on an engine: files in the directory, or the run's server."""
    if engine is Engine.SQLITE:
        return SqliteFiles(directory)
    return await run.shared(_postgresql)


@asynccontextmanager
async def _postgresql() -> AsyncIterator[PostgresqlServer]:
    server = await asyncio.to_thread(PostgresqlServer)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.close)
