"""One process a service, on PostgreSQL: SIGKILL of the one that meets a failpoint of a life, which
comes back while the others go on; the life ends once.
"""

import pytest
from faults import split_cycles as suite
from faults.cycles import Cycle
from faults.split_cycles import SplitCycles

# Cycles run side by side behind the tests, so that one test may wait for several.
pytestmark = [pytest.mark.five_processes, pytest.mark.timeout(300)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "split_cycle" in metafunc.fixturenames:
        metafunc.parametrize("split_cycle", suite.all_cycles(), ids=str)


def test_a_life_ends_once_when_one_of_five_processes_dies_and_comes_back(
    split_cycle: Cycle, split_cycles: SplitCycles
) -> None:
    assert split_cycles.outcome(split_cycle).restarts == {split_cycle.name: 1}


def test_every_failpoint_of_this_shape_has_killed_a_process_of_each_service_that_has_it(
    split_cycles: SplitCycles,
) -> None:
    every = suite.all_cycles()
    split_cycles.begin(every)
    killed = suite.hit(split_cycles.outcome(cycle) for cycle in every)
    assert killed == {
        Cycle(name, every[0].life, service=service).name
        for name in suite.reachable()
        for service in suite.services_of(name)
    }
