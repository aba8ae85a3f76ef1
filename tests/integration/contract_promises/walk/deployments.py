"""The deployments that are walked: one process on SQLite, five on PostgreSQL.

Responsible for the shapes, for their world, and for showing what the servers wrote.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from integration.contract_promises.walk.world import World, prepared, world_environment
from postgresql import PostgresqlServer
from split import SplitServer
from support import EmbeddedServer

ALL: Final = "all"
JOBS_CLOSED: Final = "all-jobs-closed"
"""One process, whose policy says that jobs are not readable within their VO."""
SPLIT: Final = pytest.param("split", marks=pytest.mark.five_processes)


@contextmanager
def world_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The prepared world of the shape that is the request's parameter."""
    shape = str(request.param)
    root = tmp_path_factory.mktemp(shape)
    readable = shape != JOBS_CLOSED
    environment = world_environment(root, readable=readable)
    server: EmbeddedServer | SplitServer
    if shape in (ALL, JOBS_CLOSED):
        server = EmbeddedServer(root, environment)
    else:
        postgresql: PostgresqlServer = request.getfixturevalue("postgresql_server")
        server = SplitServer(root, postgresql.new_databases(), environment)
    try:
        with prepared(server, readable=readable) as world:
            yield world
    finally:
        print(server.output)
        server.close()
