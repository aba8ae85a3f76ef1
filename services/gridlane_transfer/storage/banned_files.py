"""Has files stand as the bans of storage elements say, whenever those change.

Responsible for going through the files at the elements concerned, some at once: at the start, when
bans are laid on or lifted, when one ends by itself, when a file has waited long enough, and when
its source has got another copy. What becomes of a file is `bans`', the statements are
`store.banned`'s.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_transfer.storage.bans import Ban
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned
from gridlane_transfer.store.banned import Review, Reviewed

_REVIEWED: Final = failpoint("transfer.banned.committed")
# After a change every process knows it within a second: what was accepted meanwhile is looked for
# once more.
_AGAIN_S: Final = 2.0
_log = logs.logger("transfer.bans")


class BannedFiles:
    """The loop.

    Parameters:
        review: the write, through the group commit.
        wake: has due files looked for.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        elements: StorageElements,
        *,
        review: WriteKind[Review, Reviewed],
        wake: Callable[[], None],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._elements = elements
        self._review = review
        self._wake = wake
        self._abort = abort
        self._lifted = True  # what a process that is no more has left
        self._seen: dict[str, Ban] = {}
        self._look_again: dict[str, float] = {}
        self._background = Background(
            self._look_now,
            name="transfer-bans",
            log=_log,
            trouble="files at banned storages could not be looked at",
        )
        elements.subscribe(self._background.wake)

    def start(self) -> None:
        """Begin, with what changed while nobody looked."""
        self._background.start()

    async def stop(self) -> None:
        """End; whoever starts next goes through everything."""
        await self._background.stop()

    async def _look_now(self) -> float | None:
        # What is not done to its end is done from its beginning.
        lifted, self._lifted = self._lifted, True
        await self._look(lifted)
        self._lifted = False
        return await self._pause_s()

    async def _look(self, lifted: bool) -> None:
        """Go through what changed since the last look.

        Parameters:
            lifted: whether a ban has ended of which nothing is known here.
        """
        now_s = asyncio.get_running_loop().time()
        in_force = {ban.uid: ban for ban in self._elements.bans.all() if ban.in_force(now_us())}
        new = {ban.element for uid, ban in in_force.items() if uid not in self._seen}
        again = {element for element, due_s in self._look_again.items() if due_s <= now_s}
        lifted = lifted or any(uid not in in_force for uid in self._seen)
        for element in sorted(new | again):
            await self._look_at(element)
        if lifted:
            await self._look_at_blocked(None)
        else:
            await self._look_at_blocked(now_us())
        self._seen = in_force
        for element in again:
            del self._look_again[element]
        for element in new:
            self._look_again[element] = now_s + _AGAIN_S

    async def _look_at(self, element: str) -> None:
        for end in ("target", "source"):
            after = 0
            while True:
                numbers = await self._page(element, end, after)
                await self._have_reviewed(numbers)
                if len(numbers) < banned.PAGE:
                    break
                after = numbers[-1]

    async def _page(self, element: str, end: str, after: int) -> list[int]:
        return await self._db.read(lambda conn: banned.at_element(conn, element, end, after))

    async def _look_at_blocked(self, until_us: int | None) -> None:
        """Go through the files that are blocked: all, or those that are due at a time."""
        after = (0, 0)
        while True:
            found = await self._blocked(after)
            concerned = [
                number for due_us, number in found if until_us is None or due_us <= until_us
            ]
            await self._have_reviewed(concerned)
            if len(concerned) < banned.PAGE:
                return
            after = found[-1]

    async def _blocked(self, after: tuple[int, int]) -> list[tuple[int, int]]:
        return await self._db.read(lambda conn: banned.blocked(conn, after))

    async def _have_reviewed(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        aborted: list[int] = []
        started = False
        defect: Exception | None = None
        found = await self._review.many([Review(number) for number in numbers])
        for number, reviewed in zip(numbers, found, strict=True):
            if isinstance(reviewed, Exception):
                defect = defect or reviewed
                continue
            aborted += [number] if reviewed.aborted else []
            started = started or reviewed.started
        _REVIEWED()
        if aborted:
            self._abort(aborted)
        if started:
            self._wake()
        if defect is not None:
            raise defect

    async def _pause_s(self) -> float | None:
        """Seconds until there is something to look at; None: until a change."""
        now = now_us()
        bans = self._elements.bans
        ends = [
            bans.next_end_us(now),
            await self._db.read(banned.next_deadline_us) if bans.any else None,
        ]
        pauses = [max(0.0, (end - now) / 1e6) + 0.002 for end in ends if end is not None]
        loop_s = asyncio.get_running_loop().time()
        pauses += [max(0.0, due_s - loop_s) for due_s in self._look_again.values()]
        # Files that other processes accept may tire first, and others get a copy.
        pauses += [_AGAIN_S] if bans.any else []
        return min(pauses, default=None)
