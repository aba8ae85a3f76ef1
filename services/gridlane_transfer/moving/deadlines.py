"""Ends what is late: files that may wait no longer for their start, jobs past their end.

Responsible for looking often enough that both are exact within a second. What is late, and what
becomes of it, is `store.deadlines`'.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_transfer.store import deadlines
from gridlane_transfer.store.deadlines import Ended, Late

_ENDED = failpoint("transfer.deadline.committed")
_LOOK_S: Final = 0.4
_AT_ONCE: Final = 50
_log = logs.logger("transfer.deadlines")


class Deadlines:
    """The loop.

    Parameters:
        end: the write, through the group commit.
        noted: has what is left of large jobs done.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        *,
        end: WriteKind[Late, Ended],
        noted: Callable[[], None],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._end = end
        self._noted = noted
        self._abort = abort
        self._background = Background(
            self._end_all,
            name="transfer-deadlines",
            log=_log,
            trouble="what is late could not be ended",
        )

    def start(self) -> None:
        """Begin."""
        self._background.start()

    async def stop(self) -> None:
        """End."""
        await self._background.stop()

    async def _end_all(self) -> float:
        while await self._look():
            pass
        return _LOOK_S

    async def _look(self) -> bool:
        """End what is late; whether there is more of it."""
        found = await self._db.read(lambda conn: deadlines.late(conn, _AT_ONCE))
        if not found:
            return False
        more = len(found) >= _AT_ONCE
        defect: Exception | None = None
        for ended in await self._end.many(found):
            if isinstance(ended, Exception):
                defect = defect or ended
                continue
            more = more or ended.more
            if ended.aborted:
                self._abort(ended.aborted)
        _ENDED()
        self._noted()
        if defect is not None:
            raise defect
        return more
