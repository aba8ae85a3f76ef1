"""Has files stand as the rights of their owners say, whenever those change.

Responsible for going through the unfinished jobs of those whose rights changed, some at once, and
for having done what follows: copies ended, files that may start again looked for. The rules are
`rights`', the statements `store.standing`'s; when to look is the kit's (`standing_work`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.policy import Policy
from gridlane_transfer.moving import rights
from gridlane_transfer.store import standing
from gridlane_transfer.store.standing import Settled, Standing
from gridlane_transfer.store.tables import JobRow

_AT_ONCE: Final = 20
"""So many jobs are settled in one transaction; each may have a page of files there."""
_SETTLED = failpoint("transfer.rights.committed")


class StandingFiles:
    """Looks at what stands.

    Parameters:
        settle: the write, through the group commit.
        wake: has due files looked for.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        *,
        settle: WriteKind[Standing, Settled],
        wake: Callable[[], None],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._settle = settle
        self._wake = wake
        self._abort = abort

    async def look(self, policy: Policy, owners: Collection[str] | None) -> bool:
        """Look at the unfinished jobs of some owners (None: of everybody).

        Returns:
            True: nothing is left to be done.

        Raises:
            GridlaneError: the store did not answer; looking again does the rest.
        """
        after = 0
        while True:
            rows = await self._page(owners, after)
            concerned = [row.number for row in rows if rights.concerns(row, policy)]
            if concerned:
                await self._have_settled(policy, concerned)
            if len(rows) < standing.PAGE:
                return True
            after = rows[-1].number

    async def _page(self, owners: Collection[str] | None, after: int) -> list[JobRow]:
        return await self._db.read(lambda conn: standing.unfinished(conn, owners, after))

    async def _have_settled(self, policy: Policy, numbers: Sequence[int]) -> None:
        left = [Standing(number, policy) for number in numbers]
        while left:
            some, left = left[:_AT_ONCE], left[_AT_ONCE:]
            defect: Exception | None = None
            for one, settled in zip(some, await self._settle.many(some), strict=True):
                if isinstance(settled, Exception):
                    defect = defect or settled
                    continue
                if settled.aborted:
                    self._abort(settled.aborted)
                if settled.started:
                    self._wake()
                if settled.after is not None:
                    left.append(replace(one, after=settled.after))
            _SETTLED()
            if defect is not None:
                raise defect
