"""What is old goes: events that every follower has, jobs that ended long ago, request ids past
their time, bans that ended by themselves. What an older version of the service left out is added.

Responsible for when and in which order; in small transactions, so that writers are not held up. A
job goes only after its events, and those never before every follower's ack.
"""

from datetime import timedelta
from functools import partial

from gridlane_kit import audit, logs, request_ids
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.feed import Feed
from gridlane_kit.retention import pruning
from gridlane_transfer.store import channel_jobs, jobs, storage
from gridlane_transfer.store.tables import AUDIT, REQUEST_ID

# In one transaction; of jobs the files are counted too.
_JOB_CHUNK = 200
_AUDIT_CHUNK = 500
_log = logs.logger("transfer.retention")


class Retention:
    """The loop.

    Parameters:
        every_s: how often it looks.
        job_age, event_age, audit_age: how long ended jobs, events, and entries of the audit are
            kept.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        *,
        every_s: float,
        job_age: timedelta,
        event_age: timedelta,
        audit_age: timedelta = timedelta(days=400),
    ) -> None:
        self._db = db
        self._feed = feed
        self._job_age = job_age
        self._event_age = event_age
        self._audit_age = audit_age
        self._complete_to = self._seen_to = 0
        self._pruning = pruning(self.prune, every_s, _log)

    def start(self) -> None:
        """Begin."""
        self._pruning.start()

    async def stop(self) -> None:
        """End."""
        await self._pruning.stop()

    async def prune(self) -> int:
        """Delete what is old now; answers how many jobs."""
        await self._feed.prune(self._event_age)
        before_us = now_us() - self._job_age // timedelta(microseconds=1)
        total = 0
        while deleted := await self._db.write(
            lambda conn: jobs.delete_ended(conn, before_us, _JOB_CHUNK)
        ):
            total += deleted
        await self._db.write(lambda conn: request_ids.purge(conn, REQUEST_ID, now_us()))
        audited_us = now_us() - self._audit_age // timedelta(microseconds=1)
        while await self._db.write(lambda conn: audit.prune(conn, AUDIT, audited_us, _AUDIT_CHUNK)):
            continue
        await self._db.write(lambda conn: storage.prune_bans(conn, now_us()))
        await self._note_channels()
        return total

    async def _note_channels(self) -> None:
        """Have it noted on which channels jobs lie that an older version of the service took while
        this one ran already: of all jobs at first, then of those that came since the look before
        the last one, whose transactions are over.
        """
        after, newest = self._complete_to, await self._db.read(channel_jobs.newest_number)
        while found := await self._db.read(partial(channel_jobs.unnoted, after=after)):
            await self._db.write(partial(channel_jobs.complete, job_numbers=found))
            after = found[-1]
        self._complete_to, self._seen_to = self._seen_to, newest
