"""The mark by which a transaction on PostgreSQL is found again when the answer to COMMIT was lost.

Every transaction that changed something leaves a row of its own, last before its COMMIT. Whoever
lost the answer tries to leave the same row: while the lost transaction is still open the database
makes it wait; afterwards the row is there, and so is all the rest of the transaction, or it can be
left, and the transaction will never have been. That holds after a crash, a restart and on a standby
that was promoted: whatever the database knows of the transaction, it knows as a whole.

Responsible for the statements; when to ask, and what to do then, is `postgresql`'s. The table is
every service's (`database.service_metadata`).
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection

from gridlane.ids import uuid7

# A transaction that changed nothing needs none, and must not begin to write for it.
_LEAVE: Final = (
    "INSERT INTO commit_mark (id) SELECT $1::uuid"
    " WHERE pg_current_xact_id_if_assigned() IS NOT NULL"
    " RETURNING pg_backend_pid(), transaction_timestamp()"
)
_LET_GO: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = $1 AND xact_start = $2 AND state LIKE 'idle in transaction%'"
)
_CLAIM: Final = (
    "INSERT INTO commit_mark (id) VALUES ($1::uuid) ON CONFLICT (id) DO NOTHING RETURNING id"
)
_FORGET: Final = "DELETE FROM commit_mark WHERE id < $1::uuid"
# Far longer than anybody asks.
_KEPT_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class CommitMark:
    """The mark of one transaction, and where it was left."""

    id: str
    backend: int
    began: datetime

    @classmethod
    async def leave(cls, driver: Any) -> "CommitMark | None":
        """Mark the transaction of an asyncpg connection; None when it changed nothing."""
        mark = uuid7()
        row = await driver.fetchrow(_LEAVE, mark)
        return None if row is None else cls(mark, *row)

    async def is_there(self, conn: AsyncConnection) -> bool:
        """Whether the transaction was committed; if not, it never will be.

        Parameters:
            conn: another connection, with nothing begun on it; what is done on it is to be undone.
        """
        # Where the network ate the connection, the server still waits for the COMMIT, with all
        # locks: it is told that nobody will send it.
        await conn.exec_driver_sql(_LET_GO, (self.backend, self.began))
        claimed: CursorResult[Any] = await conn.exec_driver_sql(_CLAIM, (self.id,))
        return claimed.first() is None


async def forget_old_marks(conn: AsyncConnection) -> None:
    """Delete the marks of which nobody will ask any more; `conn` commits each statement."""
    oldest = f"{time.time_ns() // 1_000_000 - _KEPT_MS:012x}"
    await conn.exec_driver_sql(_FORGET, (f"{oldest[:8]}-{oldest[8:]}-7000-8000-000000000000",))
