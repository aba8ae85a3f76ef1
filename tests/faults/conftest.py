"""The cycles of the run: begun together, waited for by their tests, told as a table at the end."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from postgresql import PostgresqlServer
from split import SplitServer
from support import lent
from workers import Told

# Before they are imported: their assertions, too, tell what they compared.
pytest.register_assert_rewrite(
    "faults.checks",
    "faults.cycles",
    "faults.channel_lives",
    "faults.file_lives",
    "faults.key_lives",
    "faults.lives",
    "faults.policy_lives",
    "faults.remote_lives",
    "faults.storage_lives",
    "faults.transfer_checks",
    "faults.transfer_lives",
    "faults.transfer_load",
    "faults.verb_lives",
    "faults.veto_lives",
    "faults.split_cycles",
)

from faults.cycles import Cycle, Cycles, Outcome  # noqa: E402
from faults.split_cycles import ENVIRONMENT, SplitCycles  # noqa: E402

# They wait for leases and starts more than they compute.
_DEPLOYMENTS_AT_ONCE = 4


@pytest.fixture(scope="session")
def cycles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tell: Told
) -> Iterator[Cycles]:
    """All cycles that this run has tests for, under way."""
    running = Cycles(tmp_path_factory.mktemp("cycles"))
    if any("in_turn" in item.name for item in request.session.items):
        running.begin_in_turn()
    running.begin(_asked(request, "cycle"))
    yield running
    running.close()
    _tell(tell, running.outcomes())


@pytest.fixture(scope="session")
def split_cycles(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgresql_server: PostgresqlServer,
    tell: Told,
) -> Iterator[SplitCycles]:
    """The same with one process a service."""
    folder = tmp_path_factory.mktemp("split-cycles")
    running = SplitCycles(folder, postgresql_server.new_databases, _DEPLOYMENTS_AT_ONCE)
    running.begin(_asked(request, "split_cycle"))
    yield running
    running.close()
    _tell(tell, running.outcomes())


@pytest.fixture(scope="module")
def database(postgresql_server: PostgresqlServer) -> PostgresqlServer:
    """Where the five processes of a module have their databases."""
    return postgresql_server


@pytest.fixture(scope="module")
def _shared_server_of_five(
    database: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SplitServer]:
    folder = tmp_path_factory.mktemp("split")
    server = SplitServer(folder / "server", database.new_databases(), ENVIRONMENT)
    yield server
    server.close()


@pytest.fixture
def server(_shared_server_of_five: SplitServer) -> Iterator[SplitServer]:
    """The module's five processes; what a test ended is started again for the next."""
    with lent(_shared_server_of_five):
        yield _shared_server_of_five


def _asked(request: pytest.FixtureRequest, parameter: str) -> Iterator[Cycle]:
    """The cycles that this run's tests ask for."""
    for item in request.session.items:
        spec = getattr(item, "callspec", None)
        cycle = spec.params.get(parameter) if spec is not None else None
        if isinstance(cycle, Cycle):
            yield cycle


def _tell(tell: Told, outcomes: Sequence[Outcome]) -> None:
    """How often each failpoint killed a real server that was started again."""
    for where in sorted({outcome.where for outcome in outcomes}):
        there = [outcome for outcome in outcomes if outcome.where == where]
        restarts: Counter[str] = Counter()
        for outcome in there:
            restarts.update(outcome.restarts)
        seconds = sum(outcome.seconds for outcome in there)
        total = (
            f"{where}: {len(restarts)} failpoints, {len(there)} lives, "
            f"{restarts.total()} restarts, {seconds:.0f} s of lives"
        )
        each = [f"{name:<45} {count:>3}" for name, count in sorted(restarts.items())]
        tell(f"failpoint × restarts, {where}", [*each, total])
