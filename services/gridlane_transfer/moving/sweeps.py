"""Does bit by bit what large jobs still owe: files let onto their channels, cancelled, ranked anew,
deleted.

Responsible for when a step is taken: at once when one is noted here, at the start what an earlier
process left, and with a slow poll what others noted. What a step does is `store.sweeps`'.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gridlane_kit import logs
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_transfer.store import sweeps
from gridlane_transfer.store.sweeps import Sweep, Swept

_SWEPT = failpoint("transfer.sweep.committed")
# Jobs that are worked on in turn, a step each.
_AT_ONCE: Final = 4
_POLL_S: Final = 5.0
_STORE_RETRY_S: Final = 1.0
_log = logs.logger("transfer.sweeps")


class Sweeps:
    """The loop.

    Parameters:
        step: the write, through the group commit.
        wake: has due files looked for.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        *,
        step: WriteKind[Sweep, Swept],
        wake: Callable[[], None],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._step = step
        self._wake = wake
        self._abort = abort
        self._noted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what was left."""
        self._task = asyncio.create_task(self._run(), name="transfer-sweeps")

    def noted(self) -> None:
        """Say that work was noted, and is committed."""
        self._noted.set()

    async def stop(self) -> None:
        """End; what is left is taken up by whoever starts next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self._noted.clear()
            try:
                while await self._sweep():
                    pass
            except GridlaneError as error:
                _log.warning("work on large jobs waits", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            except Exception:
                # Whatever it is, it stays noted, and must not keep other jobs from their work.
                _log.exception("work on large jobs failed")
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._noted.wait()
            except TimeoutError:
                continue

    async def _sweep(self) -> bool:
        """Take a step of each; whether there is more to do at once."""
        found = await self._db.read(lambda conn: sweeps.pending(conn, _AT_ONCE))
        if not found:
            return False
        progress = False
        defect: Exception | None = None
        for swept in await self._step.many(found):
            if isinstance(swept, Exception):
                defect = defect or swept
                continue
            progress = progress or not swept.done
            if swept.aborted:
                self._abort(swept.aborted)
            if swept.opened:
                self._wake()
        _SWEPT()
        if defect is not None:
            raise defect
        return progress or len(found) == _AT_ONCE
