"""How many files a channel moves at once follows what the way bears."""

import pytest

from gridlane_transfer.channels.channels import Optimizer, OptimizerMode
from gridlane_transfer.channels.optimizer import Window, decide

GOOD = Window(finished=20, failed=0, bytes_per_second=1000, before=1000, full=True)
FIRST_FAILURE = Window(finished=20, failed=1, bytes_per_second=1000, before=1000, full=True)
BAD = Window(finished=5, failed=5, bytes_per_second=1000, before=1000, full=True)
BAD_AND_SLOW = Window(finished=5, failed=5, bytes_per_second=400, before=1000, full=True)
SLOWER = Window(finished=20, failed=0, bytes_per_second=400, before=1000, full=True)
IDLE = Window(finished=20, failed=0, bytes_per_second=1000, before=1000, full=False)
NOTHING = Window(finished=0, failed=0, bytes_per_second=0, before=1000, full=False)


@pytest.mark.parametrize(
    ("mode", "window", "after"),
    [
        ("FIXED", GOOD, 10),
        ("FIXED", BAD, 10),
        ("CONSERVATIVE", GOOD, 11),
        ("CONSERVATIVE", FIRST_FAILURE, 9),
        ("CONSERVATIVE", BAD, 5),
        ("CONSERVATIVE", SLOWER, 10),
        ("CONSERVATIVE", IDLE, 10),
        ("CONSERVATIVE", NOTHING, 10),
        ("MODERATE", GOOD, 12),
        ("MODERATE", FIRST_FAILURE, 9),
        ("MODERATE", BAD, 5),
        ("AGGRESSIVE", GOOD, 14),
        ("AGGRESSIVE", FIRST_FAILURE, 10),
        ("AGGRESSIVE", BAD, 10),
        ("AGGRESSIVE", BAD_AND_SLOW, 5),
    ],
)
def test_more_while_all_goes_well_and_fewer_at_failures(
    mode: str, window: Window, after: int
) -> None:
    assert decide(Optimizer(OptimizerMode[mode], 2, 100), 10, window) == after


@pytest.mark.parametrize(
    ("least", "most", "allowed", "window", "after"),
    [
        (2, 10, 10, GOOD, 10),
        (8, 20, 9, BAD, 8),
        (12, 20, 10, NOTHING, 12),
        (2, 6, 10, NOTHING, 6),
        (1, 10, 1, BAD, 1),
    ],
)
def test_the_bounds_hold_whatever_happens(
    least: int, most: int, allowed: int, window: Window, after: int
) -> None:
    optimizer = Optimizer(OptimizerMode.MODERATE, least, most)
    assert decide(optimizer, allowed, window) == after


def test_a_way_that_bears_more_and_more_reaches_its_upper_bound_and_comes_back() -> None:
    optimizer = Optimizer(OptimizerMode.CONSERVATIVE, 2, 20)
    allowed = 4
    for _ in range(30):
        allowed = decide(optimizer, allowed, GOOD)
    assert allowed == 20
    for _ in range(10):
        allowed = decide(optimizer, allowed, BAD)
    assert allowed == 2
