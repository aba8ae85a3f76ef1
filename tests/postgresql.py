"""A real PostgreSQL for tests: its files, its life and its deaths."""

import itertools
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import memory
import psutil
from sqlalchemy import make_url

with warnings.catch_warnings():
    # At its import it looks for a folder that a machine without a desktop need not have.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    from pgserver.postgres_server import get_server

# What it tells goes to a standard error that pytest may have closed by then.
logging.getLogger("pgserver").setLevel(logging.CRITICAL)


_DEATH_SECONDS = 10
_START_SECONDS = 60
_ROOM_BYTES = 2 << 30
_DROPPED_AT_ONCE = 20
_START = "import sys; from pgserver import get_server; get_server(sys.argv[1], cleanup_mode=None)"


def _is_dead(process: psutil.Process) -> bool:
    """Whether a process runs no more, be it that nobody has asked how it ended."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class PostgresqlServer:
    """A server of one's own, on a Unix socket in a directory of its own, gone at `close`."""

    def __init__(self) -> None:
        # Not below pytest's directory: the server runs as a user of its own, who may not enter. In
        # memory: it makes hundreds of databases, of hundreds of files each.
        self._root = Path(
            tempfile.mkdtemp(prefix="gridlane-postgresql-", dir=memory.folder(_ROOM_BYTES))
        )
        self._root.chmod(0o755)
        self._numbers = itertools.count(1)
        self._unneeded: list[str] = []
        self.start()
        # Several deployments at once, each of five processes with a pool of connections.
        self.sql("ALTER SYSTEM SET max_connections = 500")
        # What it keeps of its log, a gigabyte otherwise.
        self.sql("ALTER SYSTEM SET max_wal_size = '128MB'")
        postmaster = psutil.Process(self._server.get_pid())
        postmaster.send_signal(signal.SIGINT)  # a fast shutdown (manual, 19.5)
        self._bury([postmaster])
        self.start()

    def start(self) -> None:
        """Start, again too; waits until it serves.

        By a process of its own: the server runs as another user, for which Python forks, and a fork
        beside the threads of gRPC may die of a segmentation fault.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            done = subprocess.run(
                [sys.executable, "-c", _START, str(self.data)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_START_SECONDS,
            )
            if done.returncode == 0:
                break
            # It is given ten seconds, and may have more to recover on a busy machine.
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.2)
        self._server = get_server(self.data, cleanup_mode="stop")

    def crash(self) -> None:
        """Kill every process of the server; what was committed is there at the next start."""
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        self._bury(processes)

    def _bury(self, processes: Sequence[psutil.Process]) -> None:
        """Wait for their deaths, and forget the server."""
        deadline = time.monotonic() + _DEATH_SECONDS
        while not all(map(_is_dead, processes)):
            assert time.monotonic() < deadline, "PostgreSQL does not die"
            time.sleep(0.005)
        # Their numbers are taken until somebody has asked how they ended, which may last: without
        # these files the next start believes no number.
        for mark in (
            self.data / "postmaster.pid",
            self.socket.with_name(f"{self.socket.name}.lock"),
        ):
            mark.unlink(missing_ok=True)
        self._server.cleanup_mode = None  # there is nothing left to stop
        self._server.cleanup()

    @property
    def backends(self) -> list[psutil.Process]:
        """The processes that serve connections."""
        postmaster = psutil.Process(self._server.get_pid())
        return [
            child
            for child in postmaster.children()
            if "postgres: postgres" in " ".join(child.cmdline())
        ]

    @property
    def data(self) -> Path:
        """The folder of the server's files."""
        return self._root / "data"

    def restart(self, away_s: float = 0.0) -> None:
        """Crash, stay away for so long, start."""
        self.crash()
        time.sleep(away_s)
        self.start()

    def new_database(self, like: str = "") -> str:
        """Make a database; returns its URL.

        Parameters:
            like: the URL of one that nobody uses, to copy; empty: it has no tables.
        """
        name = f"test_{next(self._numbers)}"
        original = f" TEMPLATE {make_url(like).database}" if like else ""
        self._server.psql(f"CREATE DATABASE {name}{original}")
        url = make_url(self._server.get_uri(database=name))
        return url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    def drop(self, database_url: str) -> None:
        """Have a database that nobody needs any more deleted, together with others like it."""
        self._unneeded.append(str(make_url(database_url).database))
        if len(self._unneeded) >= _DROPPED_AT_ONCE:
            statements = [f"DROP DATABASE {name} WITH (FORCE);" for name in self._unneeded]
            self._unneeded.clear()
            self.sql("\n".join(statements))

    def new_databases(self) -> str:
        """Make an empty database for each service; returns the template of their URLs."""
        name = f"test_{next(self._numbers)}"
        for service in ("authorization", "transfer", "workload", "reporting"):
            self._server.psql(f"CREATE DATABASE {name}_{service}")
        uri: str = self._server.get_uri(database=f"{name}_{{service}}")
        return uri.replace("postgresql:", "postgresql+asyncpg:", 1)

    def sql(self, statement: str) -> str:
        """Run a statement as the superuser; returns what psql says."""
        return str(self._server.psql(statement))

    @property
    def socket(self) -> Path:
        """The Unix socket that the server listens on."""
        directory = make_url(self._server.get_uri()).query["host"]
        return Path(str(directory)) / ".s.PGSQL.5432"

    def close(self) -> None:
        """End at once, and delete the files."""
        postmaster = psutil.Process(self._server.get_pid())
        # Unlike SIGKILL it leaves no shared memory behind (manual, 19.5).
        postmaster.send_signal(signal.SIGQUIT)
        self._bury([postmaster])
        shutil.rmtree(self._root, ignore_errors=True)
