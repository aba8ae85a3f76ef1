"""How many files a channel moves at once when that follows what the way bears.

Responsible for the rule, a pure function of how the last window went. What it is told, when it is
asked and where its answer is kept is `optimizing`'s and `store.optimizing`'s. The idea is FTS3's
optimizer: one more while all goes well, fewer when it does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gridlane_transfer.channels.channels import Optimizer, OptimizerMode


@dataclass(frozen=True, slots=True)
class Window:
    """How a channel did between two decisions.

    Parameters:
        finished, failed: attempts that ended.
        bytes_per_second: what moved; `before` in the window before.
        full: all places were in use, and files waited.
    """

    finished: int
    failed: int
    bytes_per_second: int
    before: int
    full: bool


@dataclass(frozen=True, slots=True)
class _Manner:
    """How boldly a mode goes.

    Parameters:
        up: files more, while all goes well.
        keeps: it gives way to failures only when the throughput falls too.
    """

    up: int
    keeps: bool = False


_MANNERS: Final[Mapping[OptimizerMode, _Manner]] = {
    OptimizerMode.CONSERVATIVE: _Manner(up=1),
    OptimizerMode.MODERATE: _Manner(up=2),
    OptimizerMode.AGGRESSIVE: _Manner(up=4, keeps=True),
}
# The first failure takes a file's place away; when more than this part fails, half of them.
_BAD: Final = 0.2
# Throughput that is less than this part of what it was has fallen.
_FALLEN: Final = 0.9


def decide(optimizer: Optimizer, allowed: int, window: Window) -> int:
    """How many files may move at once from now on.

    Parameters:
        allowed: how many may until now.
    """
    manner = _MANNERS.get(optimizer.mode)
    if manner is None:
        return allowed
    ended = window.finished + window.failed
    fallen = window.bytes_per_second < window.before * _FALLEN
    wanted = allowed
    if window.failed and not (manner.keeps and not fallen):
        wanted = allowed // 2 if window.failed > ended * _BAD else allowed - 1
    elif window.finished and not window.failed and window.full and not fallen:
        wanted = allowed + manner.up
    return optimizer.bounded(wanted)
