"""A MariaDB server of the run's own, for peers that are made for it.

Responsible for finding the server's program (installed, or unpacked from Debian's packages by
`make mariadb`), for an empty data directory and for the server's life. Every transaction is on disk
when it is answered (InnoDB's default, given here to be seen).
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import (
    REPOSITORY,
    ChildFailedError,
    Tree,
    check_running,
    program,
    succeed,
)
from benchmarks.row import PeerMissingError

_UNPACKED: Final = REPOSITORY / ".tools" / "mariadb"
_START_S: Final = 30.0
_LOOK_S: Final = 0.05
# What mariadb-install-db, a script that wants more packages, gives the server.
_SYSTEM_TABLES: Final = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
_BEFORE: Final = """\
create database mysql;
use mysql;
set @current_hostname='localhost';
set @auth_root_socket=NULL;
"""


@dataclass(frozen=True, slots=True)
class MariaDb(Tree):
    """A running server; `root` has no password on loopback."""

    port: int

    def url(self, database: str) -> str:
        """The URL of a database for SQLAlchemy with aiomysql."""
        return f"mysql+aiomysql://root@127.0.0.1:{self.port}/{database}"


@dataclass(frozen=True, slots=True)
class _Program:
    """Where the server's program is, and what it needs to run."""

    base: Path
    """The folder with sbin/ and share/mysql/."""
    libraries: Path | None

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.libraries is None else {"LD_LIBRARY_PATH": str(self.libraries)}

    def command(self, data: Path, *options: str) -> list[str]:
        given = [
            "--no-defaults",
            f"--basedir={self.base}",
            f"--datadir={data}",
            f"--lc-messages-dir={self.share}",
            *options,
        ]
        # As root it wants to be told so.
        user = ["--user=root"] if os.geteuid() == 0 else []
        return [str(self.base / "sbin" / "mariadbd"), *given, *user]

    @property
    def share(self) -> Path:
        return self.base / "share" / "mysql"


@asynccontextmanager
async def mariadb(directory: Path, port: int, databases: Sequence[str]) -> AsyncIterator[MariaDb]:
    """Runs a server with these databases, all empty.

    Parameters:
        directory: an empty one of the server's own.
        port: on loopback.

    Raises:
        PeerMissingError: there is no MariaDB on this machine.
        ChildFailedError: it did not start.
    """
    found = _find()
    data, log = directory / "data", directory / "log"
    data.mkdir()
    await succeed(
        *found.command(data, "--bootstrap"),
        environment=found.environment,
        given=_bootstrap(found.share, databases),
    )
    options = (
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={directory / 'socket'}",
        "--innodb-flush-log-at-trx-commit=1",
        "--max-connections=1000",
    )
    command = found.command(data, *options)
    async with program(*command, log=log, environment=found.environment) as process:
        for _ in range(int(_START_S / _LOOK_S)):
            check_running(process, "MariaDB", log)
            if b"ready for connections" in log.read_bytes():
                break
            await asyncio.sleep(_LOOK_S)
        else:
            raise ChildFailedError(f"MariaDB was not ready after {_START_S:.0f} s")
        yield MariaDb(process.pid, port)


def _find() -> _Program:
    if (_UNPACKED / "usr" / "sbin" / "mariadbd").exists():
        (libraries,) = (_UNPACKED / "usr" / "lib").glob("*-linux-gnu*")
        return _Program(_UNPACKED / "usr", libraries)
    installed = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if installed is None:
        raise PeerMissingError("MariaDB is not installed: make mariadb, or install it yourself")
    return _Program(Path(installed).resolve().parent.parent, None)


def _bootstrap(share: Path, databases: Sequence[str]) -> bytes:
    tables = "".join((share / name).read_text(encoding="utf-8") for name in _SYSTEM_TABLES)
    made = "".join(f"create database {name};\n" for name in databases)
    return f"{_BEFORE}{tables}\n{made}".encode()
