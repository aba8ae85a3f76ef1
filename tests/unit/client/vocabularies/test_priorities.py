"""Priorities of DIRAC, FTS3 and BPS in each other's terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.vocabularies import priorities

# DIRAC | FTS3 | BPS
TABLE = """
0  | 1 | -1
1  | 3 | 0
2  | 4 | 1
3  | 4 | 2
4  | 4 | 3
5  | 4 | 4
6  | 5 | 5
7  | 5 | 6
8  | 5 | 7
9  | 5 | 8
10 | 5 | 9
"""
ROWS = [tuple(map(int, line.split("|"))) for line in TABLE.strip().splitlines()]
DIRAC_OF_FTS3 = {1: 0, 2: 0, 3: 1, 4: 5, 5: 10}

integers = st.integers(min_value=-(2**63), max_value=2**63)


@pytest.mark.parametrize(("dirac", "fts3", "bps"), ROWS)
def test_each_priority_of_dirac(dirac: int, fts3: int, bps: int) -> None:
    assert priorities.fts3_from_dirac(dirac) == fts3
    assert priorities.bps_from_dirac(dirac) == bps
    assert priorities.dirac_from_bps(bps) == dirac
    assert priorities.fts3_from_bps(bps) == fts3


@pytest.mark.parametrize(("fts3", "dirac"), DIRAC_OF_FTS3.items())
def test_each_priority_of_fts3(fts3: int, dirac: int) -> None:
    assert priorities.dirac_from_fts3(fts3) == dirac
    assert priorities.bps_from_fts3(fts3) == dirac - 1


@pytest.mark.parametrize("fts3", [1, 3, 4, 5])
def test_fts3s_come_back_as_they_were_but_for_the_second_last(fts3: int) -> None:
    assert priorities.fts3_from_dirac(priorities.dirac_from_fts3(fts3)) == fts3
    assert priorities.fts3_from_dirac(priorities.dirac_from_fts3(2)) == 1


def test_defaults_are_taken_to_defaults() -> None:
    assert priorities.fts3_from_dirac(priorities.DIRAC_DEFAULT) == priorities.FTS3_DEFAULT
    assert priorities.dirac_from_fts3(priorities.FTS3_DEFAULT) == priorities.DIRAC_DEFAULT
    assert priorities.dirac_from_bps(priorities.BPS_DEFAULT) == priorities.DIRAC_DEFAULT
    assert priorities.fts3_from_bps(priorities.BPS_DEFAULT) == priorities.FTS3_DEFAULT


@given(integers, integers)
def test_no_order_is_turned_round(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert priorities.dirac_from_bps(low) <= priorities.dirac_from_bps(high)
    assert priorities.fts3_from_bps(low) <= priorities.fts3_from_bps(high)


@given(integers)
def test_any_integer_of_bps_has_a_place(priority: int) -> None:
    assert 0 <= priorities.dirac_from_bps(priority) <= 10
    assert 1 <= priorities.fts3_from_bps(priority) <= 5


@pytest.mark.parametrize("priority", [-1, 11])
def test_what_dirac_does_not_have_is_refused(priority: int) -> None:
    for function in (priorities.fts3_from_dirac, priorities.bps_from_dirac):
        with pytest.raises(ValueError, match=f"{priority} is not one of DIRAC's, 0 to 10"):
            function(priority)


@pytest.mark.parametrize("priority", [0, 6])
def test_what_fts3_does_not_have_is_refused(priority: int) -> None:
    for function in (priorities.dirac_from_fts3, priorities.bps_from_fts3):
        with pytest.raises(ValueError, match=f"{priority} is not one of FTS3's, 1 to 5"):
            function(priority)
