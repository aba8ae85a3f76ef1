"""Reporting as a room of a server: start, handlers, drain, stop.

Responsible for wiring: which feeds are followed, whom it calls, what its metrics read.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import event_service_pb2 as transfer_events
from gridlane.type.v1 import feed_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import event_service_pb2 as job_events
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_kit.call import Call, Caller
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.identity import service_principal
from gridlane_kit.metrics import FEED_LAG_SECONDS, QUARANTINED, Metrics
from gridlane_kit.peers import Peers, reading
from gridlane_kit.telemetry import FinishedSpan, Telemetry, TraceContext
from gridlane_reporting.accounting import file_record, job_record
from gridlane_reporting.follower import Follower, Source
from gridlane_reporting.otlp import OtlpShell
from gridlane_reporting.service import AccountingShell, SpanShell
from gridlane_reporting.settings import ReportingSettings
from gridlane_reporting.spans import SpanRing
from gridlane_reporting.store import METADATA, MIGRATIONS, void_leases

JOB_EVENTS_COMMITTED = failpoint("reporting.job_events.committed")
JOB_EVENTS_ACKNOWLEDGED = failpoint("reporting.job_events.acknowledged")
TRANSFER_EVENTS_COMMITTED = failpoint("reporting.transfer_events.committed")
TRANSFER_EVENTS_ACKNOWLEDGED = failpoint("reporting.transfer_events.acknowledged")

CONSUMER: Final = "reporting"
_ACK_TIMEOUT_S: Final = 10.0


class ReportingRoom:
    """Reporting.

    Parameters:
        settings: what is in force.
        database_url: where its database lies.
        peers: for Workload and Transfer.
        telemetry: whose contexts the followers' calls carry.
        metrics: where the feeds' lags are reported.
        migrate: bring an older schema up to date at start.
        exclusive: no other process has the database: the leases of one that died are void at start.
    """

    name = "reporting"

    def __init__(
        self,
        settings: ReportingSettings,
        *,
        database_url: str,
        peers: Peers,
        telemetry: Telemetry,
        metrics: Metrics,
        migrate: bool = True,
        exclusive: bool = True,
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._telemetry = telemetry
        self._metrics = metrics
        self._migrate = migrate
        self._exclusive = exclusive
        self._jobs = peers.workload_jobs
        self._job_events = peers.workload_events
        self._transfer_events = peers.transfer_events
        self._ring = SpanRing(settings.span_ring_size, settings.job_span_limit)
        self._db: Database | None = None
        self._followers: list[
            Follower[job_event_pb2.JobEvent] | Follower[transfer_event_pb2.TransferEvent]
        ] = []
        self._tasks: list[asyncio.Task[None]] = []

    def accept_span(self, span: FinishedSpan) -> None:
        """Keeps a span of this process: a sink for its telemetry."""
        self._ring.accept(span)

    async def start(self) -> None:
        """Opens the database and begins to follow; the calls wait until all rooms are there."""
        self._db = await Database.open(
            self._database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=self._migrate
        )
        if self._exclusive:
            await self._db.write(void_leases)
        retry_s, lease_s = self._settings.retry_s, self._settings.lease_s
        self._followers = [
            Follower(self._workload(), self._db, retry_s=retry_s, lease_s=lease_s),
            Follower(self._transfer(), self._db, retry_s=retry_s, lease_s=lease_s),
        ]
        for follower in self._followers:
            label = f"reporting/{follower.name}"
            self._metrics.watch(FEED_LAG_SECONDS, label, follower.lag_s)
            self._metrics.watch(QUARANTINED, label, follower.in_quarantine)
            task = asyncio.create_task(follower.run(), name=f"follow {follower.name}")
            self._tasks.append(task)

    def handlers(self) -> Sequence[tuple[str, object]]:
        """Returns the services and their implementations; `start` has been awaited."""
        if self._db is None:
            raise RuntimeError("the room has not been started")
        accounting = AccountingShell(
            self._db, lambda: [follower.status() for follower in self._followers]
        )
        otlp = OtlpShell(self._ring, accept_job_spans=self._settings.accept_job_spans)
        return [
            ("gridlane.reporting.v1.AccountingService", accounting),
            ("gridlane.reporting.v1.SpanService", SpanShell(self._ring, self._job_for)),
            ("opentelemetry.proto.collector.trace.v1.TraceService", otlp),
        ]

    async def drain(self) -> None:
        """Stops following; what was taken is durable, the rest comes again at the next start."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        for follower in self._followers:
            with contextlib.suppress(GridlaneError):  # then it runs out by itself
                await follower.release()

    async def stop(self) -> None:
        """Closes the database."""
        if self._db is not None:
            await self._db.close()
            self._db = None

    async def _job_for(self, request: job_service_pb2.GetJobRequest, call: Call) -> job_pb2.Job:
        return await self._jobs(call).GetJob(request)

    def _workload(self) -> Source[job_event_pb2.JobEvent]:
        async def follow(
            after: feed_pb2.FeedPosition | None,
        ) -> AsyncGenerator[job_events.FollowJobEventsResponse, None]:
            request = job_events.FollowJobEventsRequest(after=after)
            stub = self._job_events(self._itself(None))
            async with reading(stub.FollowJobEvents(request)) as pages:
                async for page in pages:
                    yield page

        async def acknowledge(position: feed_pb2.FeedPosition) -> None:
            request = job_events.AckJobEventsRequest(consumer=CONSUMER, position=position)
            await self._job_events(self._itself(_ACK_TIMEOUT_S)).AckJobEvents(request)

        return Source(
            name="workload",
            follow=follow,
            acknowledge=acknowledge,
            account=job_record,
            committed=JOB_EVENTS_COMMITTED,
            acknowledged=JOB_EVENTS_ACKNOWLEDGED,
        )

    def _transfer(self) -> Source[transfer_event_pb2.TransferEvent]:
        async def follow(
            after: feed_pb2.FeedPosition | None,
        ) -> AsyncGenerator[transfer_events.FollowTransferEventsResponse, None]:
            request = transfer_events.FollowTransferEventsRequest(after=after)
            stub = self._transfer_events(self._itself(None))
            async with reading(stub.FollowTransferEvents(request)) as pages:
                async for page in pages:
                    yield page

        async def acknowledge(position: feed_pb2.FeedPosition) -> None:
            request = transfer_events.AckTransferEventsRequest(consumer=CONSUMER, position=position)
            await self._transfer_events(self._itself(_ACK_TIMEOUT_S)).AckTransferEvents(request)

        return Source(
            name="transfer",
            follow=follow,
            acknowledge=acknowledge,
            account=file_record,
            committed=TRANSFER_EVENTS_COMMITTED,
            acknowledged=TRANSFER_EVENTS_ACKNOWLEDGED,
        )

    def _itself(self, timeout_s: float | None) -> Caller:
        """Returns Reporting as a caller; unsampled, since following makes calls without end."""
        root = self._telemetry.root()
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        trace = TraceContext(root.trace_id, root.span_id, 0, sampled=False)
        return Caller(service_principal("reporting"), deadline, trace)
