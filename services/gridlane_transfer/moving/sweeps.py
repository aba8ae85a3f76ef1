"""Does bit by bit what large jobs still owe: files let onto their channels, cancelled, ranked anew,
deleted.

Responsible for when a step is taken: at once when one is noted here, at the start what an earlier
process left, and with a slow poll what others noted. What a step does is `store.sweeps`'.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_transfer.store import sweeps
from gridlane_transfer.store.sweeps import Sweep, Swept

_SWEPT = failpoint("transfer.sweep.committed")
# Jobs that are worked on in turn, a step each.
_AT_ONCE: Final = 4
_POLL_S: Final = 5.0
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
        self._background = Background(
            self._sweep_all,
            name="transfer-sweeps",
            log=_log,
            trouble="work on large jobs could not be done",
        )

    def start(self) -> None:
        """Begin, with what was left."""
        self._background.start()

    def noted(self) -> None:
        """Say that work was noted, and is committed."""
        self._background.wake()

    async def stop(self) -> None:
        """End; what is left is taken up by whoever starts next."""
        await self._background.stop()

    async def _sweep_all(self) -> float:
        while await self._sweep():
            pass
        return _POLL_S

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
