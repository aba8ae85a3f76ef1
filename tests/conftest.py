"""Fixtures for every test: real embedded servers.

`embedded_server` is shared by the whole run: for tests that leave it as they find it, but for jobs
and files of their own. `start_server` makes servers of one's own, with the environment one wants;
all are ended when the test is.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import EmbeddedServer

# A busy machine is no finding: properties are about values, pytest's own timeout about time.
settings.register_profile("gridlane", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gridlane")

StartServer = Callable[..., EmbeddedServer]


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
    if not _shared_server.alive:
        _shared_server.start()
    written = len(_shared_server.output)
    yield _shared_server
    print(_shared_server.output[written:])


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
