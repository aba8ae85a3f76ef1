"""Priorities of DIRAC, FTS3 and BPS, one in the terms of the others.

Responsible for one mapping through DIRAC's scale, which is that of Gridlane's jobs; FTS3's is that
of its transfers. In all of them more is sooner. The mapping never turns an order round, keeps both
ends, and takes one system's default to the other's:

    ======  ===========  =======
    system  priorities   default
    ======  ===========  =======
    DIRAC   0 to 10      1
    FTS3    1 to 5       3
    BPS     any integer  0
    ======  ===========  =======

What it must lose: DIRAC has one priority below its default where FTS3 has two, so FTS3's 2 comes
back as 1; of BPS's integers those from -1 to 9 come back as they were. An unset priority is not
mapped: it stays unset, and each system uses its own default. Sources: Priority of DIRAC's JDL,
FTS3's job parameters, HTCondor's JobPrio, which BPS's priority becomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DIRAC_DEFAULT: Final = 1
FTS3_DEFAULT: Final = 3
BPS_DEFAULT: Final = 0

FTS3_OF_DIRAC: Final[Mapping[int, int]] = MappingProxyType(
    {0: 1, 1: 3, 2: 4, 3: 4, 4: 4, 5: 4, 6: 5, 7: 5, 8: 5, 9: 5, 10: 5}
)
"""FTS3's priority for each of DIRAC's."""

DIRAC_OF_FTS3: Final[Mapping[int, int]] = MappingProxyType({1: 0, 2: 0, 3: 1, 4: 5, 5: 10})
"""DIRAC's priority for each of FTS3's."""

_ABOVE_BPS: Final = DIRAC_DEFAULT - BPS_DEFAULT


def fts3_from_dirac(priority: int) -> int:
    """FTS3's priority, 1 to 5, for one of DIRAC's.

    Raises:
        ValueError: it is not one of 0 to 10.
    """
    return _look_up(FTS3_OF_DIRAC, priority, "DIRAC")


def dirac_from_fts3(priority: int) -> int:
    """DIRAC's priority, 0 to 10, for one of FTS3's.

    Raises:
        ValueError: it is not one of 1 to 5.
    """
    return _look_up(DIRAC_OF_FTS3, priority, "FTS3")


def bps_from_dirac(priority: int) -> int:
    """BPS's priority, -1 to 9, for one of DIRAC's.

    Raises:
        ValueError: it is not one of 0 to 10.
    """
    _look_up(FTS3_OF_DIRAC, priority, "DIRAC")
    return priority - _ABOVE_BPS


def dirac_from_bps(priority: int) -> int:
    """DIRAC's priority, 0 to 10, for any integer of BPS's."""
    return min(max(priority + _ABOVE_BPS, min(FTS3_OF_DIRAC)), max(FTS3_OF_DIRAC))


def fts3_from_bps(priority: int) -> int:
    """FTS3's priority, 1 to 5, for any integer of BPS's."""
    return fts3_from_dirac(dirac_from_bps(priority))


def bps_from_fts3(priority: int) -> int:
    """BPS's priority, one of -1, 0, 4 and 9, for one of FTS3's.

    Raises:
        ValueError: it is not one of 1 to 5.
    """
    return bps_from_dirac(dirac_from_fts3(priority))


def _look_up(table: Mapping[int, int], priority: int, system: str) -> int:
    if priority not in table:
        raise ValueError(
            f"priority {priority} is not one of {system}'s, {min(table)} to {max(table)}"
        )
    return table[priority]
