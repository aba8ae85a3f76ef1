"""The room of Transfer: everything of the service put together, for a server to run.

Responsible for construction and for the order of start, drain and stop. Transfer calls no other
service.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from gridlane.transfer.v1 import (  # noqa: F401 - the server reads the services' descriptors
    activity_service_pb2,
    backend_admin_service_pb2,
    backend_service_pb2,
    channel_admin_service_pb2,
    channel_service_pb2,
    event_service_pb2,
    replica_service_pb2,
    storage_admin_service_pb2,
    storage_service_pb2,
    transfer_admin_service_pb2,
    transfer_service_pb2,
)
from gridlane_kit.database import Database
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.metrics import GROUP_COMMIT_QUEUE, Metrics
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.standing_work import ChangedRights
from gridlane_kit.telemetry import Telemetry
from gridlane_transfer import replicas as replica_calls
from gridlane_transfer import service
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.channels import Channels
from gridlane_transfer.content import Content
from gridlane_transfer.file_transfers import RetryPolicy
from gridlane_transfer.reconciler import Reconciler
from gridlane_transfer.replicas import Replicas
from gridlane_transfer.retention import Retention
from gridlane_transfer.settings import TransferSettings
from gridlane_transfer.standing_files import StandingFiles
from gridlane_transfer.states import FileState
from gridlane_transfer.status import Status
from gridlane_transfer.storage_elements import StorageElements
from gridlane_transfer.store import channels as channel_rows
from gridlane_transfer.store import contents, jobs, standing
from gridlane_transfer.store.catalogue import LogicalFile
from gridlane_transfer.store.contents import Finished, Unregistered
from gridlane_transfer.store.jobs import (
    Cancel,
    Canceled,
    NewTransferJob,
    Resubmitted,
    Submitted,
)
from gridlane_transfer.store.moving import Keep, Moving
from gridlane_transfer.store.standing import Settled, Standing
from gridlane_transfer.store.tables import FEED, METADATA
from gridlane_transfer.submission import Submissions
from gridlane_transfer.transfer_jobs import TransferJobs
from gridlane_transfer.uploads import Uploads

MIGRATIONS = Path(__file__).parent / "migrations"
_PACKAGE = "gridlane.transfer.v1"

PROMISED = tuple(
    service.full_name
    for module in (
        activity_service_pb2,
        backend_admin_service_pb2,
        backend_service_pb2,
        channel_admin_service_pb2,
        storage_admin_service_pb2,
        transfer_admin_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Services of the contract that nothing implements yet. They are served all the same: a call is
decided like any other, and then answered with NOT_IMPLEMENTED."""


class TransferRoom:
    """The service in a server.

    Parameters:
        database_url: the service's own database.
        telemetry: where spans go.
        policy: the decisions' data; submitters are decided anew when it changes and when a
            file starts.
        metrics: where the queue's depth is shown; None for nowhere.
        exclusive: no other process has the database: leases of a process that died are void at
            start. With several processes on one database, which see the same storage, they run out
            by themselves.
        migrate: bring an older schema up to date at start.
    """

    name = "transfer"

    def __init__(
        self,
        settings: TransferSettings,
        *,
        database_url: str,
        telemetry: Telemetry,
        policy: PolicyHolder,
        metrics: Metrics | None = None,
        exclusive: bool = True,
        migrate: bool = True,
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._telemetry = telemetry
        self._policy = policy
        self._metrics = metrics
        self._exclusive = exclusive
        self._migrate = migrate
        self._elements = StorageElements(settings.storage_elements)
        self._mover = EmbeddedMover(
            workers=settings.workers,
            copies_per_worker=settings.copies_per_worker,
            stall_s=settings.stall_s,
        )
        self._parts: _Parts | None = None

    @property
    def mover(self) -> EmbeddedMover:
        """The mover, for those who look at its processes."""
        return self._mover

    async def start(self) -> None:
        """Open the store, take up what was left, begin to move."""
        self._elements.prepare()
        db = await Database.open(
            self._database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=self._migrate
        )
        max_files = self._settings.max_files
        channels = Channels(
            await db.write(lambda conn: channel_rows.ensure_default(conn, max_files))
        )
        self._parts = parts = _Parts(self, db, channels)
        await parts.feed.start()
        await parts.group.start()
        await parts.uploads.start()
        await parts.reconciler.start()
        parts.rights.start()
        parts.retention.start()
        if self._metrics is not None:
            self._metrics.watch(GROUP_COMMIT_QUEUE, self.name, lambda: parts.group.depth)

    def handlers(self) -> Sequence[tuple[str, object]]:
        """The implementations, by their services' full names; None where there is none yet."""
        parts = self._started
        return [
            (f"{_PACKAGE}.TransferService", service.TransferShell(parts.jobs)),
            (
                f"{_PACKAGE}.StorageService",
                service.StorageShell(self._elements, parts.content, parts.status),
            ),
            (f"{_PACKAGE}.ChannelService", service.ChannelShell(parts.db, parts.channels)),
            (f"{_PACKAGE}.ReplicaService", service.ReplicaShell(parts.replicas)),
            (f"{_PACKAGE}.TransferEventService", service.TransferEventShell(parts.feed)),
            *((name, None) for name in PROMISED),
        ]

    async def drain(self) -> None:
        """Move no more, finish what is queued, end the followers."""
        parts = self._parts
        if parts is None:
            return
        await parts.retention.stop()
        await parts.rights.stop()
        await parts.reconciler.drain()
        await parts.uploads.stop()
        await parts.group.drain()
        await parts.feed.stop()

    async def stop(self) -> None:
        """Let go of the store."""
        if self._parts is not None:
            await self._parts.db.close()

    @property
    def _started(self) -> "_Parts":
        if self._parts is None:
            raise RuntimeError("the room was not started")
        return self._parts


class _Parts:
    """What exists once the store is open."""

    def __init__(self, room: TransferRoom, db: Database, channels: Channels) -> None:
        settings = room._settings
        elements, mover = room._elements, room._mover
        self.db = db
        self.channels = channels
        self.feed = feed = Feed(db, FEED)
        self.group = group = GroupCommit(db, on_commit=feed.wake)
        retry = RetryPolicy(settings.retry_delay_s, settings.retry_delay_max_s)
        moving = Moving(feed, channels, elements, retry, mover.checksums)
        # Applied in this order within a batch: an answer makes room before the next files are
        # claimed.
        submit: WriteKind[NewTransferJob, Submitted | Resubmitted] = group.kind(
            "jobs.submit", partial(jobs.insert, feed=feed), key=lambda new: new.row.uuid
        )
        cancel: WriteKind[Cancel, Canceled] = group.kind(
            "jobs.cancel",
            partial(jobs.cancel, feed=feed, channels=channels),
            key=lambda one: one.uuid,
        )
        settle: WriteKind[Standing, Settled] = group.kind(
            "files.settle",
            partial(standing.settle, feed=feed, channels=channels),
            key=lambda one: one.number,
        )
        report = group.kind("files.report", moving.report, key=lambda one: one.number)
        keep: WriteKind[Keep, FileState | None] = group.kind(
            "files.keep", moving.keep, key=lambda one: one.number
        )
        claim = group.kind("files.claim", moving.claim, key=lambda one: one.channel.uid)
        register = group.kind("replicas.register", replica_calls.register, key=lambda one: one.url)
        unregister = group.kind(
            "replicas.unregister", replica_calls.unregister, key=lambda one: one.lfn
        )
        finish: WriteKind[Finished, LogicalFile | Unregistered] = group.kind(
            "uploads.finish", contents.finish, key=lambda one: one.upload.uuid
        )
        self.reconciler = Reconciler(
            db,
            moving,
            mover,
            channels,
            room._policy,
            room._telemetry,
            claim=claim,
            report=report,
            keep=keep,
            exclusive=room._exclusive,
            poll_s=settings.poll_s,
            lease_s=settings.lease_s,
        )
        standing_files = StandingFiles(
            db, settle=settle, wake=self.reconciler.wake, abort=self.reconciler.abort
        )
        self.rights = ChangedRights(room._policy, standing_files.look, room.name)
        self.jobs = TransferJobs(
            db,
            feed,
            channels,
            Submissions(elements, channels, mover.checksums),
            mover,
            room._policy,
            submit=submit,
            cancel=cancel,
            wake=self.reconciler.wake,
            abort=self.reconciler.abort,
        )
        self.replicas = Replicas(db, elements, register=register)
        self.uploads = Uploads(
            db, elements, finish=finish, exclusive=room._exclusive, lease_s=settings.lease_s
        )
        self.content = Content(elements, self.replicas, self.uploads, unregister=unregister)
        self.status = Status(db, mover, elements)
        self.retention = Retention(
            db,
            feed,
            every_s=settings.retention_every_s,
            job_age=timedelta(days=settings.job_retention_days),
            event_age=timedelta(days=settings.event_retention_days),
        )
