"""Workload as a room of a server: start, handlers, drain, stop.

Responsible for making the parts and for the order in which they begin and end.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from gridlane.type.v1.feed_pb2 import FeedPosition
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.logs import logger
from gridlane_kit.peers import Peers
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.standing_work import ChangedRights
from gridlane_kit.telemetry import Telemetry
from gridlane_workload import changes, queue_store, store
from gridlane_workload.backends.embedded.runner import EmbeddedBackend
from gridlane_workload.changes import KillWish
from gridlane_workload.logs import Logs
from gridlane_workload.reading import Reading
from gridlane_workload.reconciler import Reconciler
from gridlane_workload.retention import Retention
from gridlane_workload.rights import StandingJobs
from gridlane_workload.service import JobEventShell, JobShell
from gridlane_workload.settings import WorkloadSettings
from gridlane_workload.status import Status
from gridlane_workload.steps import Steps
from gridlane_workload.store import FEED_TABLES, METADATA, MIGRATIONS, StoredJob
from gridlane_workload.submissions import Submissions
from gridlane_workload.transfers import Transfers

_TRANSFER: Final = "transfer"
# A position that is lost is found again by polling, so it is not written for every event.
_KEEP_CURSOR_S: Final = 1.0


class WorkloadRoom:
    """Workload in one process.

    Parameters:
        settings: what is in force.
        database_url: where its database lies.
        jobs_directory: where payloads work; Transfer's storage element `jobs` is the same
            directory, and that of every process of Workload on this database.
        peers: Transfer's and Authorization's services, as Workload may call them.
        telemetry: the process's.
        policy: in force; later steps are decided under it again.
        address: where payloads reach the services; asked when one is started.
        ca: the roots (PEM) that payloads verify the services with; None: no own ones.
        migrate: bring an older schema up to date at start.
        exclusive: nobody else uses the database: leases of a process that is gone are void at once.
            With several processes on one database they run out by themselves.

    Raises:
        AccountError: `run_as` of the settings cannot be used.
    """

    name = "workload"

    def __init__(
        self,
        settings: WorkloadSettings,
        *,
        database_url: str,
        jobs_directory: Path,
        peers: Peers,
        telemetry: Telemetry,
        policy: PolicyHolder,
        address: Callable[[], str],
        ca: Path | None = None,
        migrate: bool = True,
        exclusive: bool = True,
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._peers = peers
        self._telemetry = telemetry
        self._policy = policy
        self._migrate = migrate
        self._exclusive = exclusive
        self._backend = EmbeddedBackend(settings, jobs_directory, address, ca)
        self._log = logger("workload")
        self._background: list[asyncio.Task[None]] = []
        self._handlers: Sequence[tuple[str, object]] = ()
        self._cursor: FeedPosition | None = None
        self._db: Database
        self._feed: Feed
        self._group: GroupCommit
        self._reconciler: Reconciler
        self._rights: ChangedRights
        self.retention: Retention

    async def start(self) -> None:
        """Open the database, begin to write, take up the jobs where they were left."""
        self._db = await Database.open(
            self._database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=self._migrate
        )
        if self._exclusive:
            await self._db.write(queue_store.take_back)
        self._feed = Feed(self._db, FEED_TABLES)
        await self._feed.start()
        self._group = GroupCommit(self._db, on_commit=self._feed.wake)
        self._make_parts()
        await self._group.start()
        await self._backend.open(self._reconciler.wake)
        await self._reconciler.start()
        self._rights.start()

    def _make_parts(self) -> None:
        db, feed, group, backend = self._db, self._feed, self._group, self._backend
        reads: GroupedRead[str, StoredJob] = GroupedRead(db, store.fetch)
        transfers = Transfers(self._peers, self._telemetry)
        steps = Steps(
            self._settings, backend, self._peers, transfers, self._telemetry, self._policy
        )
        # What callers wait for is declared, and so applied, before what the reconciler does.
        submissions = Submissions(
            db, group, feed, reads, backend, lambda: self._reconciler.accepted()
        )
        kill: WriteKind[KillWish, StoredJob] = group.kind(
            "jobs.kill",
            lambda conn, wishes: changes.kill(conn, feed, wishes),
            key=lambda wish: wish.uid,
        )
        self._reconciler = Reconciler(
            self._settings,
            db,
            group,
            feed,
            steps,
            backend,
            transfers,
            self._telemetry,
            exclusive=self._exclusive,
        )
        shell = JobShell(
            submissions,
            Reading(db, reads, self._policy),
            Logs(backend, feed, reads),
            feed,
            Status(db, backend),
            kill,
            self._reconciler.due,
        )
        self._handlers = [
            ("gridlane.workload.v1.JobService", shell),
            ("gridlane.workload.v1.JobEventService", JobEventShell(feed)),
        ]
        self._begin("workload-follower", self._follow_transfers(transfers))
        self._begin("workload-cursor", self._keep_cursor_now_and_then())
        standing = StandingJobs(db, self._reconciler.wake)
        self._rights = ChangedRights(self._policy, standing.look, self.name)
        self.retention = Retention(self._settings, db, feed, backend)
        self._begin("workload-retention", self.retention.run())

    def handlers(self) -> Sequence[tuple[str, object]]:
        """The services and their implementations; `start` has been awaited."""
        return self._handlers

    async def drain(self) -> None:
        """Take no further step, write what is queued. Payloads go on running."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._rights.stop()
        await self._reconciler.drain()
        await self._group.drain()
        await self._keep_cursor()
        await self._feed.stop()

    async def stop(self) -> None:
        """Close what was opened."""
        await self._backend.close()
        await self._db.close()

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._tell_of_end)
        self._background.append(task)

    def _tell_of_end(self, task: asyncio.Task[None]) -> None:
        """Log that background work ended by a defect: it is missed, but nothing stands still."""
        if not task.cancelled() and task.exception() is not None:
            self._log.error(
                "background work ended", task=task.get_name(), exc_info=task.exception()
            )

    async def _follow_transfers(self, transfers: Transfers) -> None:
        kept = await self._db.read(lambda conn: store.read_cursor(conn, _TRANSFER))
        after = None if kept is None else FeedPosition(epoch=kept[0], position=kept[1])
        await transfers.follow(after, self._reconciler.wake, self._note_cursor)

    def _note_cursor(self, position: FeedPosition) -> None:
        self._cursor = position

    async def _keep_cursor_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_CURSOR_S)
            try:
                await self._keep_cursor()
            except GridlaneError as error:
                self._log.info("a position was not kept", reason=error.reason)

    async def _keep_cursor(self) -> None:
        noted, self._cursor = self._cursor, None
        if noted is not None:
            await self._db.write(
                lambda conn: store.write_cursor(conn, _TRANSFER, noted.epoch, noted.position)
            )
