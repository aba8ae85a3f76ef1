"""Pacing: under load, a group of calls waits a moment for company.

Responsible for when the next group of `group_commit` or `grouped_read` begins. A group costs nearly
the same for one call as for many. On a fast disk a commit is over so soon that the next group would
take only the few calls that the busy event loop got to meanwhile: the processor then goes into
groups instead of calls. So while many call at once, groups begin a moment apart; a lone caller
never waits.
"""

import asyncio
from typing import Final

# Measured with 64 callers, SQLite on a fast disk: commits of 18 calls instead of 8 and SubmitJob
# 14 % cheaper, reads of 10 instead of 1 to 2 and GetJob a fifth cheaper (benchmarks, rows
# submit-job and get-job).
_PAUSE_S: Final = 0.002
# Calls in a group that say that many call at once, and for how long that holds.
_MANY: Final = 4
_HOLDS_S: Final = 0.05


class Pace:
    """The pace of one kind of group."""

    def __init__(self) -> None:
        self._busy_until = 0.0

    async def wait(self) -> None:
        """Come back after a moment while many call at once, immediately otherwise."""
        if asyncio.get_running_loop().time() < self._busy_until:
            await asyncio.sleep(_PAUSE_S)

    def grouped(self, calls: int) -> None:
        """Take note of how many calls a group has."""
        if calls >= _MANY:
            self._busy_until = asyncio.get_running_loop().time() + _HOLDS_S
