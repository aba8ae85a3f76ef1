"""Ends what is late: files that may wait no longer for their start, jobs past their end.

Responsible for looking often enough that both are exact within a second. What is late, and what
becomes of it, is `store.deadlines`'.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gridlane_kit import logs
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_transfer.store import deadlines
from gridlane_transfer.store.deadlines import Ended, Late

_ENDED = failpoint("transfer.deadline.committed")
_LOOK_S: Final = 0.4
_STORE_RETRY_S: Final = 1.0
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
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="transfer-deadlines")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                while await self._look():
                    pass
            except GridlaneError as error:
                _log.warning("what is late could not be ended", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)
            except Exception:
                # Whatever it is, what is late stays so, and is found again.
                _log.exception("what is late could not be ended")
                await asyncio.sleep(_STORE_RETRY_S)
            await asyncio.sleep(_LOOK_S)

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
