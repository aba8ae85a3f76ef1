"""The gateway over stand-ins of the other services, which answer, refuse and hang as a test wants.

Stand-ins, because the real services do not hang on demand; the gateway over the real ones is tested
end to end.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from grpc import aio

from gridlane.authorization.v1 import authorization_service_pb2, token_service_pb2
from gridlane.gateway.v1 import task_service_pb2_grpc
from gridlane.reporting.v1 import accounting_record_pb2, accounting_service_pb2
from gridlane.transfer.v1 import (
    channel_pb2,
    channel_service_pb2,
    replica_pb2,
    replica_service_pb2,
    storage_element_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.type.v1 import status_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_gateway.room import GatewayRoom
from gridlane_gateway.settings import GatewaySettings
from gridlane_kit import errors
from gridlane_kit.admission import Admission
from gridlane_kit.call import Call
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server, ServiceRoom
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key

ISSUER = "https://issuer.test/"
PING_TIMEOUT_S = 0.3
assert token_service_pb2.DESCRIPTOR.name  # a server wants its whole package


@dataclass
class Grid:
    """What the stand-ins know; services in `away` refuse, those in `hanging` never answer."""

    jobs: dict[str, job_pb2.Job] = field(default_factory=dict)
    job_events: list[job_event_pb2.JobEvent] = field(default_factory=list)
    transfers: list[transfer_job_pb2.TransferJob] = field(default_factory=list)
    transfer_events: list[transfer_event_pb2.TransferEvent] = field(default_factory=list)
    records: list[accounting_record_pb2.AccountingRecord] = field(default_factory=list)
    known_lfns: set[str] = field(default_factory=set)
    elements: list[storage_element_pb2.StorageElement] = field(default_factory=list)
    channel_states: list[int] = field(default_factory=lambda: [channel_pb2.CHANNEL_STATE_ACTIVE])
    backend_reachable: bool = True
    submitted: list[job_service_pb2.SubmitJobRequest] = field(default_factory=list)
    replayed: job_pb2.Job | None = None
    away: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    unlisted: set[str] = field(default_factory=set)
    watches: int = 0

    async def arrive(self, call: Call) -> None:
        """What every call of a stand-in goes through first."""
        service = call.method.split(".")[1]
        self.asked.append(call.method.rpartition("/")[2])
        if service in self.away:
            raise errors.peer_unavailable(service)
        if service in self.hanging:
            await asyncio.Event().wait()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Counts a watch while it is open."""
        self.watches += 1
        try:
            yield
        finally:
            self.watches -= 1

    def status(self, service: str) -> status_pb2.ServiceStatus:
        return status_pb2.ServiceStatus(service=service, reachable=True, authenticated=True)


@dataclass
class Authorization:
    grid: Grid

    async def GetAuthorizationStatus(
        self, request: authorization_service_pb2.GetAuthorizationStatusRequest, call: Call
    ) -> status_pb2.ServiceStatus:
        await self.grid.arrive(call)
        return self.grid.status("authorization")


@dataclass
class Jobs:
    grid: Grid

    async def SubmitJob(self, request: job_service_pb2.SubmitJobRequest, call: Call) -> job_pb2.Job:
        await self.grid.arrive(call)
        if request.validate_only:
            return self.grid.replayed or request.job
        self.grid.submitted.append(request)
        return job_pb2.Job(name="jobs/01939f5e-0000-7000-8000-00000000000a", trace_id="t")

    async def GetJob(self, request: job_service_pb2.GetJobRequest, call: Call) -> job_pb2.Job:
        await self.grid.arrive(call)
        if request.name not in self.grid.jobs:
            raise errors.not_found(request.name)
        return self.grid.jobs[request.name]

    async def ListJobEvents(
        self, request: job_service_pb2.ListJobEventsRequest, call: Call
    ) -> job_service_pb2.ListJobEventsResponse:
        await self.grid.arrive(call)
        return job_service_pb2.ListJobEventsResponse(events=self.grid.job_events)

    async def WatchJobs(
        self, request: job_service_pb2.WatchJobsRequest, call: Call
    ) -> AsyncIterator[job_service_pb2.WatchJobsResponse]:
        await self.grid.arrive(call)
        with self.grid.watched():
            for place in range(int(request.resume_token or 0), len(self.grid.job_events)):
                yield job_service_pb2.WatchJobsResponse(
                    events=[self.grid.job_events[place]], resume_token=str(place + 1)
                )
            await asyncio.Event().wait()

    async def GetWorkloadStatus(
        self, request: job_service_pb2.GetWorkloadStatusRequest, call: Call
    ) -> status_pb2.ServiceStatus:
        await self.grid.arrive(call)
        status = self.grid.status("workload")
        status.backends.add(name="database", reachable=True)
        status.backends.add(
            name="embedded", reachable=self.grid.backend_reachable, message="it sleeps"
        )
        return status


@dataclass
class Transfers:
    grid: Grid

    async def ListTransferJobs(
        self, request: transfer_service_pb2.ListTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.ListTransferJobsResponse:
        await self.grid.arrive(call)
        return transfer_service_pb2.ListTransferJobsResponse(
            transfer_jobs=[
                t for t in reversed(self.grid.transfers) if t.name not in self.grid.unlisted
            ]
        )

    async def GetTransferJob(
        self, request: transfer_service_pb2.GetTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        await self.grid.arrive(call)
        return next(t for t in self.grid.transfers if t.name == request.name)

    async def ListTransferEvents(
        self, request: transfer_service_pb2.ListTransferEventsRequest, call: Call
    ) -> transfer_service_pb2.ListTransferEventsResponse:
        await self.grid.arrive(call)
        return transfer_service_pb2.ListTransferEventsResponse(events=self._of(request.parent))

    async def WatchTransferJobs(
        self, request: transfer_service_pb2.WatchTransferJobsRequest, call: Call
    ) -> AsyncIterator[transfer_service_pb2.WatchTransferJobsResponse]:
        await self.grid.arrive(call)
        events = self._of(request.names[0])
        with self.grid.watched():
            for place in range(int(request.resume_token or 0), len(events)):
                yield transfer_service_pb2.WatchTransferJobsResponse(
                    events=[events[place]], resume_token=str(place + 1)
                )
            await asyncio.Event().wait()

    async def CancelTransferJob(
        self, request: transfer_service_pb2.CancelTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        await self.grid.arrive(call)
        return next(t for t in self.grid.transfers if t.name == request.name)

    def _of(self, name: str) -> list[transfer_event_pb2.TransferEvent]:
        return [e for e in self.grid.transfer_events if e.transfer_job == name]


@dataclass
class Storage:
    grid: Grid

    async def ListStorageElements(
        self, request: storage_service_pb2.ListStorageElementsRequest, call: Call
    ) -> storage_service_pb2.ListStorageElementsResponse:
        await self.grid.arrive(call)
        return storage_service_pb2.ListStorageElementsResponse(storage_elements=self.grid.elements)

    async def GetTransferStatus(
        self, request: storage_service_pb2.GetTransferStatusRequest, call: Call
    ) -> status_pb2.ServiceStatus:
        await self.grid.arrive(call)
        return self.grid.status("transfer")


@dataclass
class Channels:
    grid: Grid

    async def ListChannels(
        self, request: channel_service_pb2.ListChannelsRequest, call: Call
    ) -> channel_service_pb2.ListChannelsResponse:
        await self.grid.arrive(call)
        return channel_service_pb2.ListChannelsResponse(
            channels=[
                channel_pb2.Channel(name="channels/default", state=state)  # type: ignore[arg-type]
                for state in self.grid.channel_states
            ]
        )


@dataclass
class Replicas:
    grid: Grid

    async def ResolveReplicas(
        self, request: replica_service_pb2.ResolveReplicasRequest, call: Call
    ) -> replica_service_pb2.ResolveReplicasResponse:
        await self.grid.arrive(call)
        return replica_service_pb2.ResolveReplicasResponse(
            results=[
                replica_service_pb2.ResolvedFile(file=replica_pb2.LogicalFile(lfn=lfn))
                if lfn in self.grid.known_lfns
                else replica_service_pb2.ResolvedFile(status=errors.not_found(lfn).to_status())
                for lfn in request.lfns
            ]
        )


@dataclass
class Accounting:
    grid: Grid

    async def ListAccountingRecords(
        self, request: accounting_service_pb2.ListAccountingRecordsRequest, call: Call
    ) -> accounting_service_pb2.ListAccountingRecordsResponse:
        await self.grid.arrive(call)
        return accounting_service_pb2.ListAccountingRecordsResponse(records=self.grid.records)

    async def GetReportingStatus(
        self, request: accounting_service_pb2.GetReportingStatusRequest, call: Call
    ) -> status_pb2.ServiceStatus:
        await self.grid.arrive(call)
        return self.grid.status("reporting")


@dataclass
class StandInRoom:
    """The room of all stand-ins."""

    grid: Grid
    name: str = "stand-ins"

    async def start(self) -> None:
        pass

    def handlers(self) -> Sequence[tuple[str, object]]:
        grid = self.grid
        return [
            ("gridlane.authorization.v1.AuthorizationService", Authorization(grid)),
            ("gridlane.authorization.v1.TokenService", object()),
            ("gridlane.workload.v1.JobService", Jobs(grid)),
            ("gridlane.transfer.v1.TransferService", Transfers(grid)),
            ("gridlane.transfer.v1.StorageService", Storage(grid)),
            ("gridlane.transfer.v1.ChannelService", Channels(grid)),
            ("gridlane.transfer.v1.ReplicaService", Replicas(grid)),
            ("gridlane.reporting.v1.AccountingService", Accounting(grid)),
        ]

    async def drain(self) -> None:
        pass

    async def stop(self) -> None:
        pass


@dataclass
class Gateway:
    """The gateway as ada calls it, and the grid behind it."""

    grid: Grid
    tasks: "task_service_pb2_grpc.TaskServiceAsyncStub"
    metadata: tuple[tuple[str, str], ...]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    grid = Grid()
    signer = TokenSigner(new_key(), ISSUER, "gridlane")
    policy = Policy(1, [Binding(ISSUER, "ada", Role.SUBMITTER, vo="local")], vos=["local"])
    pipeline = Pipeline(
        verifier=TokenVerifier({ISSUER: StaticKeys(signer.jwks())}, "gridlane"),
        policy=PolicyHolder(policy),
        telemetry=Telemetry("test"),
        metrics=Metrics(),
        admission=Admission(),
    )
    settings = GatewaySettings.load(
        "gateway", ping_timeout_s=PING_TIMEOUT_S, part_timeout_s=1, lookup_interval_s=0.02
    )
    room = GatewayRoom(settings, peers=pipeline.peers_for("gateway"))
    rooms: list[ServiceRoom] = [StandInRoom(grid), room]
    server = Server(
        ServerSettings.load("server", port=0, health_port=0, grace_s=1), rooms, pipeline
    )
    await server.start()
    token = signer.sign_user("ada", lifetime_s=600, vos=["local"])
    async with aio.insecure_channel(server.address) as channel:
        tasks = task_service_pb2_grpc.TaskServiceStub(channel)
        yield Gateway(grid, tasks, (("authorization", f"Bearer {token}"),))
    async with asyncio.timeout(20):
        await server.stop()


@pytest.fixture
def denied() -> type[grpc.RpcError]:
    """What a refused call raises."""
    return aio.AioRpcError
