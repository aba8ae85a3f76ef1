"""Fixtures for every test: real embedded servers, real databases.

`embedded_server` is shared by the whole run: for tests that leave it as they find it, but for jobs
and files of their own. `start_server` makes servers of one's own, with the environment one wants;
all are ended when the test is.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import memory
import pytest
from hypothesis import HealthCheck, settings
from postgresql import PostgresqlServer
from schemas import Schemas
from support import EmbeddedServer, lent
from workers import ByFile, Told, long_first

from gridlane_kit.sqlite import sqlite_url

# A busy machine is no finding: properties are about values, pytest's own timeout about time.
settings.register_profile("gridlane", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gridlane")

pytest_plugins = ["second_tries"]
StartServer = Callable[..., EmbeddedServer]
_ROOM_BYTES = 2 << 30
_TOLD = pytest.StashKey[Told]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TOLD] = Told()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        long_first(items)


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Told:
    """Says something when the run is over: `tell("heading", ["a line"])`."""
    return pytestconfig.stash[_TOLD]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands on what it was told."""
    handed_on = getattr(session.config, "workeroutput", None)
    if handed_on is not None:
        handed_on["told"] = session.config.stash[_TOLD].sections


def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("told", {})  # none of a worker that crashed
    node.config.stash[_TOLD].merge(told)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    config.stash[_TOLD].write(terminalreporter)


@pytest.fixture(scope="session")
def _shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("shared-server"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def embedded_server(_shared_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """The run's shared server; started by the first who needs it, and again should it have died."""
    with lent(_shared_server):
        yield _shared_server


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Makes and starts servers of the test's own: `start_server(environment={…})`."""
    servers: list[EmbeddedServer] = []

    def start(environment: Mapping[str, str] | None = None) -> EmbeddedServer:
        server = EmbeddedServer(tmp_path / f"server-{len(servers)}", environment)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()
        print(server.output)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """The run's PostgreSQL; for tests that leave it as they find it, but for databases."""
    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each of the database engines."""
    return str(request.param)


@pytest.fixture
def schema() -> str:
    """The service whose schema a test's database has from the start; empty: it has no tables."""
    return ""


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Schemas:
    """Makes databases that have a service's schema."""
    return Schemas(tmp_path_factory.mktemp("schemas"))


@pytest.fixture
def database_url(
    engine: str, schema: str, schemas: Schemas, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of a database on the test's engine, with its `schema`, which goes with the test."""
    if engine == "sqlite":
        where = memory.folder(_ROOM_BYTES)
        with tempfile.TemporaryDirectory(prefix="gridlane-sqlite-", dir=where) as folder:
            file = Path(folder) / "test.sqlite"
            if schema:
                schemas.copy_file(schema, file)
            yield sqlite_url(file)
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    url = schemas.copy_on(server, schema) if schema else server.new_database()
    yield url
    server.drop(url)
