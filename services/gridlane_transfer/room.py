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
from gridlane_transfer import service
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.transfer_backends import TransferBackends
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.catalogue.embedded import EmbeddedCatalogue
from gridlane_transfer.catalogue.replicas import Replicas
from gridlane_transfer.channels.activities import Activities
from gridlane_transfer.channels.channel_admin import ChannelAdmin
from gridlane_transfer.channels.channel_care import ChannelCare
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.content.content import Content
from gridlane_transfer.content.content_info import ContentInfos
from gridlane_transfer.content.remote_content import RemoteFiles
from gridlane_transfer.content.uploads import Uploads
from gridlane_transfer.jobs.job_verbs import Around, JobVerbs, JobWrites
from gridlane_transfer.jobs.submission import Submissions
from gridlane_transfer.moving.deadlines import Deadlines
from gridlane_transfer.moving.file_transfers import RetryPolicy
from gridlane_transfer.moving.hop_copies import HopCopies
from gridlane_transfer.moving.reconciler import Reconciler
from gridlane_transfer.moving.registrar import Registrar
from gridlane_transfer.moving.source_order import SourceOrder, Successes
from gridlane_transfer.moving.standing_files import StandingFiles
from gridlane_transfer.retention import Retention
from gridlane_transfer.service_channels import (
    ActivityShell,
    ChannelAdminShell,
    ChannelShell,
)
from gridlane_transfer.service_jobs import TransferAdminShell, TransferShell
from gridlane_transfer.settings import TransferSettings
from gridlane_transfer.states import FileState
from gridlane_transfer.status import Status
from gridlane_transfer.storage.banned_files import BannedFiles
from gridlane_transfer.storage.element_rules import ElementRules
from gridlane_transfer.storage.storage_admin import StorageAdmin
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, contents, held, standing, storage
from gridlane_transfer.store import channels as channel_rows
from gridlane_transfer.store import deadlines as late
from gridlane_transfer.store.banned import Review, Reviewed
from gridlane_transfer.store.contents import Finished, Unregistered
from gridlane_transfer.store.deadlines import Ended, Late
from gridlane_transfer.store.held import HeldDone, HeldFiles
from gridlane_transfer.store.moving import Keep, Moving
from gridlane_transfer.store.refresh import Kind, Refresh
from gridlane_transfer.store.registering import Registering
from gridlane_transfer.store.removals import Removing
from gridlane_transfer.store.standing import Settled, Standing
from gridlane_transfer.store.tables import FEED, METADATA

MIGRATIONS = Path(__file__).parent / "migrations"
_PACKAGE = "gridlane.transfer.v1"


def http_options(settings: TransferSettings) -> HttpOptions:
    """What is configured for HTTP, as the mover's workers want it."""
    return HttpOptions(**settings.http.model_dump())


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
            http=http_options(settings),
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
        await db.write(lambda conn: channel_rows.ensure_default(conn, max_files))
        channels, refresh = Channels(), Refresh(db)
        refresh.follow(Kind.CHANNELS, channel_rows.read_all, channels.replace)
        refresh.follow(Kind.STORAGE_ELEMENTS, storage.read_all, self._elements.take)
        await refresh.start()
        self._parts = parts = _Parts(self, db, channels, refresh)
        await parts.feed.start()
        await parts.group.start()
        await parts.uploads.start()
        await parts.reconciler.start()
        await parts.registrar.start()
        parts.rights.start()
        parts.banned_files.start()
        parts.deadlines.start()
        await parts.verbs.start()
        await parts.hop_copies.start()
        parts.channel_care.start()
        parts.retention.start()
        if self._metrics is not None:
            self._metrics.watch(GROUP_COMMIT_QUEUE, self.name, lambda: parts.group.depth)

    def handlers(self) -> Sequence[tuple[str, object]]:
        """The implementations, by their services' full names."""
        parts = self._started
        return [
            (f"{_PACKAGE}.TransferService", TransferShell(parts.verbs)),
            (f"{_PACKAGE}.TransferAdminService", TransferAdminShell(parts.verbs.admin)),
            (
                f"{_PACKAGE}.StorageService",
                service.StorageShell(self._elements, parts.content, parts.infos, parts.status),
            ),
            (f"{_PACKAGE}.StorageAdminService", service.StorageAdminShell(parts.storage_admin)),
            (f"{_PACKAGE}.ChannelService", ChannelShell(parts.db, parts.channel_admin)),
            (f"{_PACKAGE}.ChannelAdminService", ChannelAdminShell(parts.channel_admin)),
            (f"{_PACKAGE}.ActivityService", ActivityShell(parts.activities)),
            (f"{_PACKAGE}.BackendService", service.BackendShell(parts.backends)),
            (f"{_PACKAGE}.BackendAdminService", service.BackendAdminShell(parts.backends)),
            (f"{_PACKAGE}.ReplicaService", service.ReplicaShell(parts.replicas)),
            (f"{_PACKAGE}.TransferEventService", service.TransferEventShell(parts.feed)),
        ]

    async def drain(self) -> None:
        """Move no more, finish what is queued, end the followers."""
        parts = self._parts
        if parts is None:
            return
        await parts.retention.stop()
        await parts.channel_care.stop()
        await parts.rights.stop()
        await parts.banned_files.stop()
        await parts.deadlines.stop()
        await parts.hop_copies.stop()
        await parts.verbs.drain()
        await parts.registrar.drain()
        await parts.reconciler.drain()
        await parts.uploads.stop()
        parts.remote.stop()
        await parts.refresh.stop()
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

    def __init__(
        self, room: TransferRoom, db: Database, channels: Channels, refresh: Refresh
    ) -> None:
        settings = room._settings
        elements, mover = room._elements, room._mover
        self.db = db
        self.channels = channels
        self.refresh = refresh
        self.feed = feed = Feed(db, FEED)
        self.group = group = GroupCommit(db, on_commit=feed.wake)
        retry = RetryPolicy(settings.retry_delay_s, settings.retry_delay_max_s)
        successes = Successes()
        order = SourceOrder(elements, successes)
        self.catalogue = EmbeddedCatalogue(db, group)
        registering = Registering(feed, channels, elements, retry, self.catalogue)
        moving = Moving(
            feed,
            channels,
            elements,
            retry,
            mover.checksums,
            order,
            self.catalogue,
            registering,
        )
        # Applied in this order within a batch: an answer makes room before the next files are
        # claimed.
        removing = Removing(feed, channels, elements, retry)
        writes = JobWrites(group, feed, channels, removing)
        settle: WriteKind[Standing, Settled] = group.kind(
            "files.settle",
            partial(standing.settle, feed=feed, channels=channels),
            key=lambda one: one.number,
        )
        review: WriteKind[Review, Reviewed] = group.kind(
            "files.review",
            partial(banned.review, feed=feed, channels=channels, elements=elements),
            key=lambda one: one.number,
        )
        report = group.kind("files.report", moving.report, key=lambda one: one.number)
        keep: WriteKind[Keep, FileState | None] = group.kind(
            "files.keep", moving.keep, key=lambda one: one.number
        )
        claim = group.kind("files.claim", moving.claim, key=lambda one: one.holder)
        self.registrar = Registrar(
            db,
            registering,
            self.catalogue,
            claim=group.kind("files.owed", registering.claim, key=lambda one: one.holder),
            report=group.kind("files.registered", registering.report, key=lambda one: one.number),
            exclusive=room._exclusive,
            lease_s=settings.lease_s,
        )
        finish: WriteKind[Finished, LogicalFile | Unregistered] = group.kind(
            "uploads.finish", contents.finish, key=lambda one: one.upload.uuid
        )
        hold: WriteKind[HeldFiles, HeldDone] = group.kind(
            "files.held",
            partial(held.settle, feed=feed, channels=channels),
            key=lambda one: one.key,
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
            successes=successes,
            exclusive=room._exclusive,
            poll_s=settings.poll_s,
            lease_s=settings.lease_s,
        )
        channels.subscribe(self.reconciler.wake)
        standing_files = StandingFiles(
            db, settle=settle, wake=self.reconciler.wake, abort=self.reconciler.abort
        )
        end_late: WriteKind[Late, Ended] = group.kind(
            "files.end_late",
            partial(late.end, feed=feed, channels=channels),
            key=lambda one: one.number,
        )
        self.hop_copies = HopCopies(
            db, mover, elements, exclusive=room._exclusive, lease_s=settings.lease_s
        )
        self.rights = ChangedRights(room._policy, standing_files.look, room.name)
        around = Around(
            db=db,
            feed=feed,
            group=group,
            channels=channels,
            elements=elements,
            backend=mover,
            policy=room._policy,
            submissions=Submissions(
                elements, channels, order, backend=mover.name, checksums=mover.checksums
            ),
            wake=self.reconciler.wake,
            abort=self.reconciler.abort,
            exclusive=room._exclusive,
            lease_s=settings.lease_s,
        )
        self.verbs = JobVerbs(around, writes, removing, hold)
        self.deadlines = Deadlines(
            db, end=end_late, noted=self.verbs.sweeps.noted, abort=self.reconciler.abort
        )
        self.replicas = Replicas(self.catalogue, elements)
        self.uploads = Uploads(
            db, elements, finish=finish, exclusive=room._exclusive, lease_s=settings.lease_s
        )
        self.remote = RemoteFiles(http_options(settings))
        self.content = Content(elements, self.replicas, self.uploads, mover, self.remote)
        self.infos = ContentInfos(elements, self.replicas, mover)
        self.backends = TransferBackends(mover)
        self.status = Status(db, mover, elements)
        self.banned_files = BannedFiles(
            db,
            elements,
            review=review,
            wake=self._wake,
            abort=self.reconciler.abort,
        )
        rules = ElementRules(
            elements,
            mover,
            AddressPolicy(settings.http.allowed_networks),
            settings.storage_file_roots,
        )
        self.storage_admin = StorageAdmin(
            db, elements, rules, refresh, self.status.element_messages
        )
        self.channel_admin = ChannelAdmin(
            db,
            channels,
            elements,
            refresh,
            held=hold,
            wake=self.reconciler.wake,
            has=mover.capabilities,
            max_files=settings.max_files,
        )
        self.activities = Activities(db, refresh)
        self.channel_care = ChannelCare(db, feed, channels, refresh, settings.optimizer_every_s)
        self.retention = Retention(
            db,
            feed,
            every_s=settings.retention_every_s,
            job_age=timedelta(days=settings.job_retention_days),
            event_age=timedelta(days=settings.event_retention_days),
            audit_age=timedelta(days=settings.audit_retention_days),
        )

    def _wake(self) -> None:
        """Has files looked for that may be moved or removed again."""
        self.reconciler.wake()
        self.verbs.removals.wake()
