"""Removes the files of deletion jobs in the background.

Responsible for the loop and for what is removed now. It is woken by submissions, with a slow look
behind; what is claimed and what follows is `store.removals`', what may be removed
`removal_orders`'. A file that is not there counts as removed; a process that was paused past its
lease removes nothing, since somebody may have put another file there meanwhile.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background, telling
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.leases import new_holder
from gridlane_kit.policy import PolicyHolder
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.removal_orders import RemoveOrder, not_yours
from gridlane_transfer.states import FileState
from gridlane_transfer.store.removals import (
    Removal,
    RemovalReport,
    RemovalRequest,
    Removing,
)
from gridlane_transfer.store.tables import FileRow

_CLAIMED = failpoint("transfer.removal.claimed")
_GONE = failpoint("transfer.removal.removed")
_REPORTED = failpoint("transfer.removal.committed")
_AT_ONCE: Final = 16
_LOOK_S: Final = 1.0
_STORE_RETRY_S: Final = 1.0
_log = logs.logger("transfer.removals")
# Its lease runs out, and it is claimed anew.
_ended = telling(_log, "the work on a removal ended before its answer was stored")


class Removals:
    """The loop.

    Parameters:
        policy: what the owners may do now.
        claim, report: the writes, through the group commit.
        exclusive: no other process has this database, so that nobody else takes files over.
        lease_s: how long a file is leased; renewed at a third of it.
    """

    def __init__(
        self,
        db: Database,
        removing: Removing,
        backend: TransferBackend,
        policy: PolicyHolder,
        *,
        claim: WriteKind[RemovalRequest, list[Removal]],
        report: WriteKind[RemovalReport, FileRow | None],
        exclusive: bool,
        lease_s: float,
    ) -> None:
        self._db = db
        self._removing = removing
        self._backend = backend
        self._policy = policy
        self._claim = claim
        self._report = report
        self._exclusive = exclusive
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        # By a file's number and the epoch of its lease: who lost a lease may still be at work here
        # when the file is claimed anew.
        self._running: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._background = Background(
            self._claim_all,
            name="transfer-removals",
            log=_log,
            trouble="files to be removed could not be claimed",
        )
        self._leases = Background(
            self._renew,
            name="transfer-removal-leases",
            log=_log,
            trouble="leases could not be renewed",
            first_s=lease_s / 3,
        )

    def start(self) -> None:
        """Begin, with what was left."""
        self._background.start()
        self._leases.start()

    def wake(self) -> None:
        """Have files looked for that are to be removed."""
        self._background.wake()

    async def drain(self) -> None:
        """Remove no more; what is left is taken up by whoever starts next."""
        await self._background.stop()
        await self._leases.stop()
        working = list(self._running.values())
        for task in working:
            task.cancel()
        if working:
            await asyncio.wait(working)
        await self._db.write(lambda conn: self._removing.release(conn, self._holder))

    async def _claim_all(self) -> float:
        while await self._step():
            pass
        return _LOOK_S

    async def _step(self) -> bool:
        """Claim as much as may be removed at once; whether there may be more to claim now."""
        limit = _AT_ONCE - len(self._running)
        if limit <= 0 or not await self._db.read(self._removing.is_due):
            return False
        request = RemovalRequest(limit, self._holder, self._ttl, self._policy.current)
        removals = await self._claim(request)
        _CLAIMED()
        for removal in removals:
            number, epoch = removal.file.number, removal.file.lease_epoch
            task = asyncio.create_task(self._work(removal), name=f"transfer-removal-{number}")
            task.add_done_callback(_ended)
            self._running[number, epoch] = task
        return True

    async def _work(self, removal: Removal) -> None:
        number = removal.file.number
        epoch, lfn = removal.file.lease_epoch, removal.order.lfn
        try:
            if not self._exclusive and not await self._is_held(number, epoch):
                return
            gone, failed = await self._remove(removal.file, removal.order)
            _GONE()
            report = RemovalReport(number, self._holder, epoch, lfn, gone, failed)
            file = await self._store(report)
            _REPORTED()
            if file is not None and file.state == FileState.RETRYING:
                delay_s = max(0.0, (file.due_us - now_us()) / 1_000_000) + 0.002
                asyncio.get_running_loop().call_later(delay_s, self.wake)
        finally:
            self._running.pop((number, epoch), None)
            self.wake()

    async def _remove(
        self, file: FileRow, order: RemoveOrder
    ) -> tuple[Sequence[str], Failed | None]:
        """Remove all copies; which ones are taken out of the catalogue, and why something is left,
        if it is.
        """
        if order.looked_at:
            found = await self._backend.stat(order.copies[0])
            if not isinstance(found, Failed):
                return (), not_yours(file)
            absent = found.failure_class is FailureClass.SOURCE_MISSING
            return (), None if absent else found
        failed: Failed | None = None
        left: set[str] = set()
        for copy in order.copies:
            answer = await self._backend.remove(copy)
            if isinstance(answer, Failed):
                failed = failed or answer
                left.add(copy.url)
        return [url for url in order.registered if url not in left], failed

    async def _is_held(self, number: int, epoch: int) -> bool:
        """Whether a file is still this process's; asked however long the store is away."""
        while True:
            try:
                return number in await self._keep([(number, epoch)])
            except GridlaneError as error:
                _log.warning("a removal waits for the store", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)

    async def _store(self, report: RemovalReport) -> FileRow | None:
        """Store an answer, however long the store is away."""
        while True:
            try:
                return await self._report(report)
            except GridlaneError as error:
                _log.warning("a removal could not be stored", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)

    async def _renew(self) -> float:
        if self._running:
            await self._keep(list(self._running))
        return self._ttl.total_seconds() / 3

    async def _keep(self, held: Sequence[tuple[int, int]]) -> Collection[int]:
        holder, ttl = self._holder, self._ttl
        return await self._db.write(lambda conn: self._removing.keep(conn, held, holder, ttl))
