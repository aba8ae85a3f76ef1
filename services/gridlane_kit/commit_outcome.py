"""What became of a commit on PostgreSQL whose answer was lost.

Responsible for the statements that name a transaction before its COMMIT and that tell its outcome
afterwards; when to ask, and what to do then, is `postgresql`'s.

The outcome is that of the transaction's id (PostgreSQL manual, 9.27.8, `pg_xact_status`). But a
crash loses whatever did not reach the log, ids among it, and then the next transaction bears the
same one: asked too late, "committed" would speak of somebody else's. So an id is believed as long
as the server did not crash since; and after a crash when recovery found it in the log, which the
checkpoint at its end says: what it calls the next id is above ours. After a later checkpoint that
proves nothing any more, and a committed id is no answer. A server that was promoted (another
timeline) is one that crashed.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection

# Recovery after a crash throws the statistics away, a clean stop keeps them (manual, 28.2).
_LAST_CRASH: Final = "extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())::text"
_NAME: Final = f"SELECT pg_current_xact_id_if_assigned()::text, pg_backend_pid(), {_LAST_CRASH}"
_STATUS: Final = f"""
SELECT CASE
    WHEN pg_is_in_recovery() THEN NULL
    WHEN {_LAST_CRASH} IS NOT DISTINCT FROM $2::text THEN pg_xact_status($1::text::xid8)
    -- Promoted, and no checkpoint since.
    WHEN left(pg_walfile_name(pg_current_wal_lsn()), 8) <> lpad(upper(to_hex(timeline_id)), 8, '0')
        THEN NULL
    WHEN split_part(next_xid, ':', 1)::numeric * 4294967296 + split_part(next_xid, ':', 2)::numeric
        <= $1::text::numeric THEN 'aborted'
    -- The checkpoint at the end of recovery: nothing was written beside it.
    WHEN checkpoint_lsn = redo_lsn THEN pg_xact_status($1::text::xid8)
    ELSE nullif(pg_xact_status($1::text::xid8), 'committed')
END
FROM pg_control_checkpoint()
"""  # noqa: S608 - of constants
_LET_GO: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1"
    " AND backend_xid = ($2::text::xid8)::xid AND state LIKE 'idle in transaction%'"
)


@dataclass(frozen=True, slots=True)
class WrittenTransaction:
    """A transaction that changed something, to be found again."""

    number: str
    backend: int
    last_crash: str | None

    @classmethod
    async def current(cls, driver: Any) -> "WrittenTransaction | None":
        """The transaction of an asyncpg connection, None when it changed nothing."""
        row = await driver.fetchrow(_NAME)
        return None if row[0] is None else cls(*row)

    async def outcome(self, conn: AsyncConnection) -> str | None:
        """Ask on another connection; "committed", "aborted", or None: it cannot be told (yet)."""
        # Where the network ate the connection, the server still waits for the COMMIT, with all
        # locks: it is told that nobody will send it.
        await conn.exec_driver_sql(_LET_GO, (self.backend, self.number))
        found: CursorResult[Any] = await conn.exec_driver_sql(
            _STATUS, (self.number, self.last_crash)
        )
        status: str | None = found.scalar()
        return status if status in {"committed", "aborted"} else None
