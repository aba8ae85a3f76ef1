"""The cycles of the run: begun together, waited for by their tests, shown as a table at the end."""

from collections import Counter
from collections.abc import Iterator

import pytest

# Before they are imported: their assertions, too, tell what they compared.
pytest.register_assert_rewrite(
    "faults.checks", "faults.cycles", "faults.file_lives", "faults.lives"
)

from faults.cycles import Cycle, Cycles, Outcome  # noqa: E402

_shown: list[Outcome] = []


@pytest.fixture(scope="session")
def cycles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cycles]:
    """All cycles that this run has tests for, under way."""
    running = Cycles(tmp_path_factory.mktemp("cycles"))
    items = request.session.items
    if any("in_turn" in item.name for item in items):
        running.begin_in_turn()
    asked = [getattr(item, "callspec", None) for item in items]
    found = [spec.params.get("cycle") for spec in asked if spec is not None]
    running.begin(cycle for cycle in found if isinstance(cycle, Cycle))
    yield running
    running.close()
    _shown.extend(running.outcomes())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how often each failpoint killed a real server that was started again."""
    restarts: Counter[str] = Counter()
    for outcome in _shown:
        restarts.update(outcome.restarts)
    if not restarts:
        return
    terminalreporter.section("failpoint × restarts")
    for name, count in sorted(restarts.items()):
        terminalreporter.write_line(f"{name:<45} {count:>3}")
    seconds = sum(outcome.seconds for outcome in _shown)
    terminalreporter.write_line(
        f"{len(_shown)} lives, {restarts.total()} restarts, {seconds:.0f} s of lives"
    )
