"""The cycles of the run: begun together, waited for by their tests, shown as a table at the end."""

from collections import Counter
from collections.abc import Iterator

import pytest
from postgresql import PostgresqlServer

# Before they are imported: their assertions, too, tell what they compared.
pytest.register_assert_rewrite(
    "faults.checks", "faults.cycles", "faults.file_lives", "faults.lives", "faults.split_cycles"
)

from faults.cycles import Cycle, Cycles, Outcome  # noqa: E402
from faults.split_cycles import SplitCycles  # noqa: E402

# They wait for leases and starts more than they compute.
_DEPLOYMENTS_AT_ONCE = 4

_shown: list[Outcome] = []


@pytest.fixture(scope="session")
def cycles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cycles]:
    """All cycles that this run has tests for, under way."""
    running = Cycles(tmp_path_factory.mktemp("cycles"))
    if any("in_turn" in item.name for item in request.session.items):
        running.begin_in_turn()
    running.begin(_asked(request, "cycle"))
    yield running
    running.close()
    _shown.extend(running.outcomes())


@pytest.fixture(scope="session")
def split_cycles(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgresql_server: PostgresqlServer,
) -> Iterator[SplitCycles]:
    """The same with one process a service."""
    folder = tmp_path_factory.mktemp("split-cycles")
    running = SplitCycles(folder, postgresql_server.new_databases, _DEPLOYMENTS_AT_ONCE)
    running.begin(_asked(request, "split_cycle"))
    yield running
    running.close()
    _shown.extend(running.outcomes())


def _asked(request: pytest.FixtureRequest, parameter: str) -> Iterator[Cycle]:
    """The cycles that this run's tests ask for."""
    for item in request.session.items:
        spec = getattr(item, "callspec", None)
        cycle = spec.params.get(parameter) if spec is not None else None
        if isinstance(cycle, Cycle):
            yield cycle


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how often each failpoint killed a real server that was started again."""
    for where in sorted({outcome.where for outcome in _shown}):
        outcomes = [outcome for outcome in _shown if outcome.where == where]
        restarts: Counter[str] = Counter()
        for outcome in outcomes:
            restarts.update(outcome.restarts)
        terminalreporter.section(f"failpoint × restarts, {where}")
        for name, count in sorted(restarts.items()):
            terminalreporter.write_line(f"{name:<45} {count:>3}")
        seconds = sum(outcome.seconds for outcome in outcomes)
        terminalreporter.write_line(
            f"{where}: {len(restarts)} failpoints, {len(outcomes)} lives, "
            f"{restarts.total()} restarts, {seconds:.0f} s of lives"
        )
