"""Removes the copies that files which have ended left on their way (multihop).

Responsible for when a copy is removed and tried again; a copy that cannot be removed is tried for
ever, less and less often, since nobody else knows of it. What is to be removed stands in the store
(`store.leftovers`), written with the file's end.
"""

from datetime import timedelta
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.leases import new_holder
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import leftovers
from gridlane_transfer.store.leftovers import Leftover

_REMOVED = failpoint("transfer.hop.removed")
_LOOK_S: Final = 1.0
_AT_ONCE: Final = 20
_FIRST_RETRY_S: Final = 2.0
_LONGEST_RETRY_S: Final = 3600.0
_log = logs.logger("transfer.hops")


class HopCopies:
    """The loop.

    Parameters:
        exclusive: no other process has this database: its leases are void at the start.
        lease_s: how long a copy is leased while it is removed.
    """

    def __init__(
        self,
        db: Database,
        backend: TransferBackend,
        elements: StorageElements,
        *,
        exclusive: bool,
        lease_s: float,
    ) -> None:
        self._db = db
        self._backend = backend
        self._elements = elements
        self._exclusive = exclusive
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        self._background = Background(
            self._remove_all,
            name="transfer-hop-copies",
            log=_log,
            trouble="copies on the way could not be removed",
        )

    async def start(self) -> None:
        """Begin, with what was left."""
        if self._exclusive:
            await self._db.write(leftovers.release_all)
        self._background.start()

    async def stop(self) -> None:
        """End; what is left is removed by whoever starts next."""
        await self._background.stop()

    async def _remove_all(self) -> float:
        while await self._remove_some():
            pass
        return _LOOK_S

    async def _remove_some(self) -> bool:
        """Remove what is due; whether there may be more."""
        if not await self._db.read(leftovers.is_due):
            return False
        rows = await self._db.write(
            lambda conn: leftovers.claim(conn, self._holder, _AT_ONCE, self._ttl)
        )
        for row in rows:
            await self._remove(row)
        return len(rows) == _AT_ONCE

    async def _remove(self, row: Leftover) -> None:
        try:
            failed = await self._failure(row.url)
        except Exception as error:
            # A defect: its copy is put off as well, so that the others are not left for ever.
            _log.exception("a copy on the way could not be removed", file=row.number)
            failed = f"{type(error).__name__}: {error}"
        if failed is None:
            _REMOVED()
            await self._db.write(lambda conn: leftovers.forget(conn, row))
            return
        delay_s = min(_FIRST_RETRY_S * 2.0 ** min(row.tries, 30), _LONGEST_RETRY_S)
        _log.warning("a copy on the way could not be removed", file=row.number, why=failed)
        due_us = now_us() + round(delay_s * 1_000_000)
        await self._db.write(lambda conn: leftovers.postpone(conn, row, due_us))

    async def _failure(self, url: str) -> str | None:
        """Remove a copy; why it could not be."""
        located = self._elements.locate(url, internal=True, own=True, operation=Operation.REMOVE)
        if located is None:
            return "no storage element serves it any more"
        removed = await self._backend.remove(located.location)
        return removed.message if isinstance(removed, Failed) else None
