"""SIGKILL of the real server at every failpoint, then a start: its life goes on and ends once."""

import pytest
from faults import cycles as suite
from faults import lives
from faults.cycles import Cycle, Cycles

# Cycles run two at a time behind the tests, so that one test may wait for several.
pytestmark = pytest.mark.timeout(300)
ENOUGH = 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cycle" in metafunc.fixturenames:
        cycles = suite.all_cycles(suite.registered())
        metafunc.parametrize("cycle", [pytest.param(c, marks=_marks(c)) for c in cycles], ids=str)


def _marks(cycle: Cycle) -> list[pytest.MarkDecorator]:
    """Every failpoint is met in each run; again, later in a life, where there is time for it."""
    return [pytest.mark.long] if cycle.hit > 1 else []


def test_a_life_goes_on_and_ends_once(cycle: Cycle, cycles: Cycles) -> None:
    assert cycles.outcome(cycle).restarts == {cycle.failpoint: 1}


@pytest.mark.long
def test_a_task_ends_once_when_its_server_dies_at_one_failpoint_after_the_other_in_turn(
    cycles: Cycles,
) -> None:
    came_by = {name for name, count in cycles.in_turn().restarts.items() if count}
    assert came_by >= suite.ALSO_AT_FIRST_START
    others = came_by - suite.ALSO_AT_FIRST_START
    assert others == {name for name in others if lives.TaskLife in suite.lives_of(name)}
    # Not all: what follows a commit is not reached by a server that died right behind that commit.
    assert len(came_by) > ENOUGH


def test_every_registered_failpoint_has_killed_a_server(cycles: Cycles) -> None:
    names = suite.registered()
    first = suite.first_cycles(names)
    cycles.begin(first)
    hit: set[str] = set()
    for cycle in first:
        hit |= cycles.outcome(cycle).restarts.keys()
    assert hit == set(names)
