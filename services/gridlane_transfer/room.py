"""The room of Transfer: everything of the service put together, for a server to run.

Responsible for construction and for the order of start, drain and stop. Transfer calls no other
service.
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from gridlane.transfer.v1 import (  # noqa: F401 - the server reads the services' descriptors
    activity_service_pb2,
    audit_service_pb2,
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
from gridlane_kit.audit_reading import AuditReader
from gridlane_kit.database import Database
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.metrics import GROUP_COMMIT_QUEUE, Metrics
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.standing_work import ChangedRights
from gridlane_kit.telemetry import Telemetry
from gridlane_transfer import service
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.transfer_backends import TransferBackends
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
from gridlane_transfer.jobs.job_verbs import Around, JobVerbs
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
from gridlane_transfer.status import Status
from gridlane_transfer.storage.banned_files import BannedFiles
from gridlane_transfer.storage.element_rules import ElementRules
from gridlane_transfer.storage.storage_admin import StorageAdmin
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import channels as channel_rows
from gridlane_transfer.store import storage
from gridlane_transfer.store.refresh import Kind, Refresh
from gridlane_transfer.store.tables import AUDIT, FEED, METADATA, TURN
from gridlane_transfer.writes import FileWork, Writes

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
            (
                f"{_PACKAGE}.TransferAuditService",
                service.TransferAuditShell(AuditReader(parts.db, AUDIT)),
            ),
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
    """What exists once the store is open.

    Put together in an order: what is done in the background, then the verbs that wake it.
    """

    def __init__(
        self, room: TransferRoom, db: Database, channels: Channels, refresh: Refresh
    ) -> None:
        self._room = room
        self._settings = settings = room._settings
        self._elements, self._mover = room._elements, room._mover
        self.db = db
        self.channels = channels
        self.refresh = refresh
        self.feed = Feed(db, FEED)
        self.group = GroupCommit(db, on_commit=self.feed.wake, turn=TURN)
        self.catalogue = EmbeddedCatalogue(db, self.group, self._elements)
        self._successes = Successes()
        self._order = SourceOrder(self._elements, self._successes)
        self._work = FileWork(
            self.feed,
            channels,
            self._elements,
            self.catalogue,
            RetryPolicy(settings.retry_delay_s, settings.retry_delay_max_s),
            self._order,
            self._mover.checksums,
        )
        self._writes = Writes(self.group, self.feed, channels, self._elements, self._work)
        self._make_movers()
        self._make_job_verbs()
        self._make_watchers()
        self._make_content()
        self._make_storage()
        self._make_channels()
        self.retention = Retention(
            db,
            self.feed,
            every_s=settings.retention_every_s,
            job_age=timedelta(days=settings.job_retention_days),
            event_age=timedelta(days=settings.event_retention_days),
            audit_age=timedelta(days=settings.audit_retention_days),
        )

    def _make_movers(self) -> None:
        """What moves files, registers them, and removes copies on their way."""
        room, settings, writes = self._room, self._settings, self._writes
        self.reconciler = Reconciler(
            self.db,
            self._work.moving,
            self._mover,
            self.channels,
            room._policy,
            room._telemetry,
            claim=writes.claim,
            report=writes.report,
            keep=writes.keep,
            successes=self._successes,
            exclusive=room._exclusive,
            poll_s=settings.poll_s,
            lease_s=settings.lease_s,
        )
        self.registrar = Registrar(
            self.db,
            self._work.registering,
            self.catalogue,
            claim=writes.claim_owed,
            report=writes.registered,
            exclusive=room._exclusive,
            lease_s=settings.lease_s,
            wake=self.reconciler.wake,
        )
        self.channels.subscribe(self.reconciler.wake)
        self.hop_copies = HopCopies(
            self.db,
            self._mover,
            self._elements,
            exclusive=room._exclusive,
            lease_s=settings.lease_s,
        )

    def _make_job_verbs(self) -> None:
        """The calls on jobs, and what they leave to be done."""
        room, mover = self._room, self._mover
        around = Around(
            db=self.db,
            feed=self.feed,
            group=self.group,
            channels=self.channels,
            elements=self._elements,
            backend=mover,
            policy=room._policy,
            submissions=Submissions(
                self._elements,
                self.channels,
                self._order,
                self.catalogue,
                backend=mover.name,
                checksums=mover.checksums,
            ),
            wake=self.reconciler.wake,
            abort=self.reconciler.abort,
            exclusive=room._exclusive,
            lease_s=self._settings.lease_s,
        )
        self.verbs = JobVerbs(around, self._writes.jobs, self._work.removing, self._writes.hold)

    def _make_watchers(self) -> None:
        """What ends or stops files as time passes, and as rights and bans change."""
        room, abort = self._room, self.reconciler.abort
        standing_files = StandingFiles(
            self.db, settle=self._writes.settle, wake=self.reconciler.wake, abort=abort
        )
        self.rights = ChangedRights(room._policy, standing_files.look, room.name)
        self.deadlines = Deadlines(
            self.db, end=self._writes.end_late, noted=self.verbs.sweeps.noted, abort=abort
        )
        self.banned_files = BannedFiles(
            self.db, self._elements, review=self._writes.review, wake=self._wake, abort=abort
        )

    def _make_content(self) -> None:
        """The bytes that go through the service, and the names of what is stored."""
        elements, mover, settings = self._elements, self._mover, self._settings
        self.replicas = Replicas(self.catalogue, elements)
        self.uploads = Uploads(
            self.db,
            elements,
            finish=self._writes.finish_upload,
            exclusive=self._room._exclusive,
            lease_s=settings.lease_s,
        )
        self.remote = RemoteFiles(http_options(settings))
        self.content = Content(elements, self.replicas, self.uploads, mover, self.remote)
        self.infos = ContentInfos(elements, self.replicas, mover)

    def _make_storage(self) -> None:
        """The backends, and the settings of storage elements."""
        elements, mover, settings = self._elements, self._mover, self._settings
        self.backends = TransferBackends(mover)
        addresses = AddressPolicy(settings.http.allowed_networks)
        self.status = Status(self.db, mover, elements, addresses)
        rules = ElementRules(elements, mover, addresses, settings.storage_file_roots)
        self.storage_admin = StorageAdmin(
            self.db, elements, rules, self.refresh, self.status.element_messages
        )

    def _make_channels(self) -> None:
        """The settings of channels and shares, and what is seen to on channels."""
        settings = self._settings
        self.channel_admin = ChannelAdmin(
            self.db,
            self.channels,
            self._elements,
            self.refresh,
            held=self._writes.hold,
            wake=self.reconciler.wake,
            backend=self._mover,
            max_files=settings.max_files,
        )
        self.activities = Activities(self.db, self.refresh)
        self.channel_care = ChannelCare(
            self.db,
            self.feed,
            self.channels,
            self._elements,
            self.refresh,
            settings.optimizer_every_s,
        )

    def _wake(self) -> None:
        """Has files looked for that may be moved or removed again."""
        self.reconciler.wake()
        self.verbs.removals.wake()
