"""A real DiracX of the run's own: the released packages, its routers, databases and tokens.

Responsible for its configuration, keys and settings, for the sandbox store that it wants (moto, at
rest), for its start on one of its databases, and for a user's token. Nothing of it is in this
repository: `make diracx` installs it beside.

All its settings are its defaults, but for those that make it cheaper: no access log, warnings only,
and uvloop and httptools, which uvicorn takes when they are there.
"""

import asyncio
import base64
import hashlib
import json
import re
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from benchmarks.http_load import Connection, HttpMethod
from benchmarks.mariadb import MariaDb, mariadb
from benchmarks.processes import (
    REPOSITORY,
    ChildFailedError,
    Clock,
    Tree,
    check_running,
    program,
    succeed,
)
from benchmarks.row import PeerMissingError
from benchmarks.run import Run

_PROGRAMS: Final = REPOSITORY / ".tools" / "diracx" / "bin"
_USER: Final = "alice"
_SUBJECT: Final = "11111111-1111-1111-1111-111111111111"
_START_S: Final = 60.0
_LOOK_S: Final = 0.2
_EXPORT: Final = re.compile(r"""^export (\w+)=(?:"(.*)"|'(.*)')$""", re.MULTILINE)
_DATABASE: Final = "DIRACX_DB_URL_"


@dataclass(frozen=True, slots=True)
class DiracX:
    """A running DiracX with a user who may submit."""

    server: Clock
    database: Clock | None
    port: int
    token: str

    def method(self, path: str, body: Callable[[], bytes], callers: int) -> HttpMethod:
        """Returns one of its operations (POST), to be called in the user's name."""
        return HttpMethod(
            self.server,
            self.port,
            path,
            body,
            database=self.database,
            callers=callers,
            token=self.token,
        )


@dataclass(frozen=True, slots=True)
class _Installation:
    """What several servers of one run have in common."""

    configuration: str
    keys: Path
    store_port: int
    api_key: bytes


@asynccontextmanager
async def diracx(run: Run, *, with_mariadb: bool) -> AsyncIterator[DiracX]:
    """Runs DiracX on MariaDB, or on SQLite files.

    Raises:
        PeerMissingError: it, or MariaDB, is not installed.
        ChildFailedError: it did not start.
    """
    installation = await run.shared(_installation)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(_directory()))
        settings = await _databases(directory)
        database: MariaDb | None = None
        if with_mariadb:
            names = [name.removeprefix(_DATABASE) for name in settings if _DATABASE in name]
            (port,) = _free_ports(1)
            server_directory = directory / "mariadb"
            server_directory.mkdir()
            database = await stack.enter_async_context(mariadb(server_directory, port, names))
            settings |= {_DATABASE + name: database.url(name) for name in names}
        (port,) = _free_ports(1)
        settings |= _settings(installation, port)
        log = directory / "diracx.log"
        command = [
            str(_PROGRAMS / "uvicorn"),
            "--factory",
            "diracx.testing.routers:create_app",
            "--host=127.0.0.1",
            f"--port={port}",
            "--no-access-log",
            "--log-level=warning",
        ]
        process = await stack.enter_async_context(program(*command, log=log, environment=settings))
        token = await _token(process, log, port, installation.api_key)
        yield DiracX(Tree(process.pid), database, port, token)


@asynccontextmanager
async def _installation() -> AsyncIterator[_Installation]:
    """Makes configuration and key with DiracX's own commands, and runs the sandbox store."""
    if not (_PROGRAMS / "uvicorn").exists():
        raise PeerMissingError("DiracX is not installed: make diracx")
    with _directory() as name:
        directory = Path(name)
        configuration = f"git+file://{directory / 'configuration'}"
        keys = directory / "keys.json"
        await _configure("generate-cs", configuration)
        await _configure(
            *("add-vo", configuration, "--vo=local", "--default-group=user"),
            *("--idp-url=https://idp.invalid", "--idp-client-id=benchmarks"),
        )
        await _configure(
            *("add-user", configuration, "--vo=local"),
            *(f"--sub={_SUBJECT}", f"--preferred-username={_USER}"),
        )
        await _python("diracx.logic", "rotate-jwk", f"--jwks-path={keys}")
        (port,) = _free_ports(1)
        async with _sandbox_store(directory / "moto.log", port):
            yield _Installation(configuration, keys, port, secrets.token_bytes(16))


def _directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="gridlane-benchmark-")


async def _databases(directory: Path) -> dict[str, str]:
    """The settings that name its databases, all of them SQLite files."""
    files = directory / "db"
    files.mkdir()
    exports = await _python("diracx.db", "generate-local-urls", str(files))
    return {name: double or single for name, double, single in _EXPORT.findall(exports)}


def _settings(installation: _Installation, port: int) -> dict[str, str]:
    store = {
        "endpoint_url": f"http://127.0.0.1:{installation.store_port}",
        "aws_access_key_id": "benchmarks",
        "aws_secret_access_key": "benchmarks",
    }
    state_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {
        "DIRACX_CONFIG_BACKEND_URL": installation.configuration,
        "DIRACX_SERVICE_AUTH_TOKEN_ISSUER": f"http://127.0.0.1:{port}",
        "DIRACX_SERVICE_AUTH_TOKEN_KEYSTORE": f"file://{installation.keys}",
        "DIRACX_SERVICE_AUTH_STATE_KEY": state_key,
        # Longer than a run.
        "DIRACX_SERVICE_AUTH_ACCESS_TOKEN_EXPIRE_MINUTES": "600",
        "DIRACX_SANDBOX_STORE_BUCKET_NAME": "sandboxes",
        "DIRACX_SANDBOX_STORE_AUTO_CREATE_BUCKET": "true",
        "DIRACX_SANDBOX_STORE_S3_CLIENT_KWARGS": json.dumps(store),
        "DIRACX_LEGACY_EXCHANGE_HASHED_API_KEY": hashlib.sha256(installation.api_key).hexdigest(),
        "DIRACX_LOG_LEVEL": "WARNING",
    }


async def _python(*arguments: str) -> str:
    return await succeed(str(_PROGRAMS / "python"), "-m", *arguments)


async def _configure(*arguments: str) -> None:
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "benchmarks"), ("EMAIL", "benchmarks@example.org"))
    }
    await succeed(str(_PROGRAMS / "dirac"), "internal", *arguments, environment=identity)


@asynccontextmanager
async def _sandbox_store(log: Path, port: int) -> AsyncIterator[None]:
    command = (str(_PROGRAMS / "moto_server"), "--host=127.0.0.1", f"--port={port}")
    async with program(*command, log=log) as process:
        async with asyncio.timeout(_START_S):
            while not await _listens(port):
                check_running(process, "moto", log)
                await asyncio.sleep(_LOOK_S)
        yield


async def _listens(port: int) -> bool:
    try:
        await (await Connection.connect(port)).close()
    except OSError:
        return False
    return True


async def _token(process: asyncio.subprocess.Process, log: Path, port: int, api_key: bytes) -> str:
    """Waits until DiracX serves (at first it answers 503), and returns a token of the user."""
    scope = quote("vo:local group:user")
    path = f"/api/auth/legacy-exchange?preferred_username={_USER}&scope={scope}"
    encoded = base64.urlsafe_b64encode(api_key).decode()
    headers = {"authorization": f"Bearer diracx:legacy:{encoded}"}
    said = "nothing"
    for _ in range(int(_START_S / _LOOK_S)):
        check_running(process, "DiracX", log)
        if await _listens(port):
            status, answer = await _once(port, path, headers)
            if status == 200:
                token: str = json.loads(answer)["access_token"]
                return token
            said = f"{status}: {answer.decode()}"
        await asyncio.sleep(_LOOK_S)
    raise ChildFailedError(f"DiracX was not ready after {_START_S:.0f} s; it said {said}")


async def _once(port: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    connection = await Connection.connect(port)
    try:
        return await connection.call("GET", path, headers)
    finally:
        await connection.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
