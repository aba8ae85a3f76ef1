"""What is kept, and for how long.

Responsible for deleting events, ended jobs, their directories and old request ids, a bit at a time.
Never past a follower's acknowledgement: an event that was not taken keeps its job.
"""

from datetime import timedelta
from functools import partial
from typing import Final

from gridlane.ids import uuid7_time_ms
from gridlane_kit import request_ids
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed
from gridlane_kit.logs import logger
from gridlane_kit.retention import pruning
from gridlane_workload import queue_store
from gridlane_workload.backends.interface import Backend
from gridlane_workload.settings import WorkloadSettings
from gridlane_workload.store import REQUEST_ID

_COMMITTED: Final = failpoint("workload.prune.committed")
_DIRECTORY_CHUNK: Final = 200
_DAY_US: Final = 86_400_000_000


class Retention:
    """Deletes what is past its time."""

    def __init__(
        self, settings: WorkloadSettings, db: Database, feed: Feed, backend: Backend
    ) -> None:
        self._settings = settings
        self._db = db
        self._feed = feed
        self._backend = backend
        self._log = logger("workload")

    async def run(self) -> None:
        """Prune again and again; never returns."""
        await pruning(self.prune, self._settings.prune_interval_s, self._log).run()

    async def prune(self) -> int:
        """Delete what is past its time.

        Returns:
            How many jobs were deleted.
        """
        now = now_us()
        await self._feed.prune(timedelta(days=self._settings.keep_finished_days))
        await self._db.write(lambda conn: request_ids.purge(conn, REQUEST_ID, now))
        before_us = now - round(self._settings.keep_finished_days * _DAY_US)
        count = 0
        while deleted := await self._db.write(
            lambda conn: queue_store.delete_ended(conn, before_us)
        ):
            _COMMITTED()
            count += len(deleted)
        await self._prune_directories(now)
        return count

    async def _prune_directories(self, now: int) -> None:
        """Delete directories of jobs that ended long ago, or that are not known any more."""
        before_us = now - round(self._settings.keep_directories_days * _DAY_US)
        old = [uid for uid in await self._backend.directories() if _made_us(uid) < before_us]
        for start in range(0, len(old), _DIRECTORY_CHUNK):
            some = old[start : start + _DIRECTORY_CHUNK]
            find = partial(queue_store.without_need_of_directory, uids=some, before_us=before_us)
            for uid in await self._db.read(find):
                await self._backend.remove(uid)


def _made_us(uid: str) -> int:
    """When a job was made; what is no job's directory is as new as can be."""
    try:
        return uuid7_time_ms(uid) * 1000
    except ValueError:
        return 1 << 62
