"""What is kept, and for how long.

Responsible for deleting entries of the audit, role bindings, users' tokens and signing keys past
their end, and old request ids, a bit at a time. A binding past its end counts for nobody; that its
row goes is a revision like any other, so that followers forget it too.
"""

from typing import Final

from sqlalchemy import Connection

from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import bindings, policy, signing_keys, user_tokens
from gridlane_authorization.store.tables import AUDIT, REQUEST_ID
from gridlane_kit import audit, request_ids
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.logs import logger
from gridlane_kit.policy import PolicyChange
from gridlane_kit.retention import pruning

_COMMITTED: Final = failpoint("authorization.prune.committed")
_CHUNK: Final = 500
_LISTED_DAYS: Final = 30
"""So long tokens are listed that have ended (`ListTokens`)."""
_DAY_US: Final = 86_400_000_000


class Retention:
    """Deletes what is past its time."""

    def __init__(self, settings: AuthorizationSettings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._log = logger("authorization")

    async def run(self) -> None:
        """Prunes again and again; never returns."""
        await pruning(self.prune, self._settings.prune_interval_s, self._log).run()

    async def prune(self) -> int:
        """Deletes what is past its time.

        Returns:
            How many rows, request ids aside.
        """
        now = now_us()
        await self._db.write(lambda conn: request_ids.purge(conn, REQUEST_ID, now))
        ended_us = now - round(self._settings.keep_ended_bindings_days * _DAY_US)
        listed_us = now - _LISTED_DAYS * _DAY_US
        audited_us = now - round(self._settings.keep_audit_days * _DAY_US)

        def prune_bindings(conn: Connection) -> int:
            revision = policy.lock(conn) + 1
            ended = bindings.take_ended(conn, ended_us, _CHUNK)
            if ended:
                policy.record(conn, PolicyChange(revision, removed=ended), now)
            return len(ended)

        def prune_tokens(conn: Connection) -> int:
            return user_tokens.prune(conn, listed_us, _CHUNK)

        def prune_keys(conn: Connection) -> int:
            return signing_keys.prune(conn, now, _CHUNK)

        def prune_audit(conn: Connection) -> int:
            return audit.prune(conn, AUDIT, audited_us, _CHUNK)

        count = 0
        for write, prune in (
            (self._db.write_after_lock, prune_bindings),
            (self._db.write, prune_tokens),
            (self._db.write, prune_keys),
            (self._db.write, prune_audit),
        ):
            while deleted := await write(prune):
                _COMMITTED()
                count += deleted
        return count
