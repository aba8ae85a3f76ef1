"""Workload in a real server on loopback, with the real Transfer and real tokens beside it.

Workload's database is on SQLite, unless a test or its module names the engines: what stores, reads
and picks jobs runs on both; tests of messages' shapes, of logs and of payloads alone do not.
Transfer's is always on SQLite here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from schemas import Schemas

from gridlane.authorization.v1 import authorization_service_pb2, token_service_pb2
from gridlane.workload.v1 import event_service_pb2, event_service_pb2_grpc, job_service_pb2_grpc
from gridlane.workload.v1 import job_service_pb2 as calls
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Executor, Job, JobDescription, JobState
from gridlane_authorization.service import JobTokenShell
from gridlane_kit import logs
from gridlane_kit.admission import Admission
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.metrics import Metrics
from gridlane_kit.peers import Peers
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.settings import ServerSettings
from gridlane_kit.sqlite import sqlite_file, sqlite_url
from gridlane_kit.telemetry import FinishedSpan, Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key
from gridlane_transfer.room import TransferRoom
from gridlane_transfer.settings import TransferSettings, embedded_storage_elements
from gridlane_workload import states
from gridlane_workload.room import WorkloadRoom
from gridlane_workload.settings import WorkloadSettings

ISSUER = "https://issuer.test/"
PATIENCE_S = 30
# As many copies at once as by default, by one process, which starts sooner than two.
MOVER = {"workers": 1, "copies_per_worker": 4}
assert authorization_service_pb2.DESCRIPTOR.name
assert token_service_pb2.DESCRIPTOR.name
assert event_service_pb2.DESCRIPTOR.name


class Tokens:
    """A room with Authorization's own shell for jobs' tokens; its policy is the test's."""

    name = "authorization"

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    async def start(self) -> None: ...

    def handlers(self) -> Sequence[tuple[str, object]]:
        return [("gridlane.authorization.v1.TokenService", JobTokenShell(self._signer))]

    async def drain(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class User:
    """A caller with its stubs."""

    jobs: Any
    events: Any
    metadata: tuple[tuple[str, str], ...]

    async def submit(self, *command: str, request_id: str = "", **description: Any) -> Job:
        asked = JobDescription(executors=[Executor(command=command)], **description)
        request = calls.SubmitJobRequest(job=Job(description=asked), request_id=request_id)
        answer: Job = await self.jobs.SubmitJob(request, timeout=10, metadata=self.metadata)
        return answer

    async def get(self, name: str) -> Job:
        request = calls.GetJobRequest(name=name)
        answer: Job = await self.jobs.GetJob(request, timeout=10, metadata=self.metadata)
        return answer

    async def kill(self, name: str, reason: str = "") -> Job:
        request = calls.KillJobRequest(name=name, reason=reason)
        answer: Job = await self.jobs.KillJob(request, timeout=10, metadata=self.metadata)
        return answer

    async def ended(self, name: str) -> Job:
        """Waits until a job has ended, by watching it."""
        return await self.reached(name, *states.ENDED)

    async def reached(self, name: str, *wanted: int) -> Job:
        """Waits until a job is in one of some states, by watching it."""
        request = calls.WatchJobsRequest(names=[name])
        async with asyncio.timeout(PATIENCE_S):
            stream = self.jobs.WatchJobs(request, metadata=self.metadata)
            async for page in stream:
                if page.events[-1].state in wanted:
                    stream.cancel()
                    return await self.get(name)
        raise AssertionError(f"{name} never got to {wanted}")

    async def history(self, name: str) -> list[JobEvent]:
        """The events of a job up to its state of now: on PostgreSQL one gets its place in the
        history a moment after the commit that changed the state.
        """
        request = calls.ListJobEventsRequest(parent=name, page_size=1000)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await self.jobs.ListJobEvents(request, timeout=10, metadata=self.metadata)
                if answer.events and answer.events[-1].state == (await self.get(name)).state:
                    return list(answer.events)
                await asyncio.sleep(0.02)

    async def log(self, name: str, **asked: Any) -> bytes:
        request = calls.ReadJobLogRequest(name=name, **asked)
        stream = self.jobs.ReadJobLog(request, timeout=PATIENCE_S, metadata=self.metadata)
        return b"".join([part.chunk async for part in stream])


def words(events: Sequence[JobEvent]) -> list[str]:
    """The states of a history, each once as long as it stays."""
    said: list[str] = []
    for event in events:
        word = JobState.Name(event.state).removeprefix("JOB_STATE_")
        if said[-1:] != [word]:
            said.append(word)
    return said


def reason_of(error: aio.AioRpcError) -> str:
    """The reason in an error's details."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


@dataclass
class Grid:
    """A server with Workload, Transfer and tokens on one data directory."""

    data: DataDirectory
    signer: TokenSigner
    policy: PolicyHolder
    server: Server
    room: WorkloadRoom
    spans: list[FinishedSpan]
    reporting: Peers
    stack: AsyncExitStack
    _channel: aio.Channel | None = field(default=None)

    async def user(self, subject: str, vos: Collection[str] = ("local",), **token: Any) -> User:
        if self._channel is None:
            self._channel = aio.insecure_channel(self.server.address)
            self.stack.push_async_callback(self._channel.close)
        signed = self.signer.sign_user(
            subject, lifetime_s=600, display_name=subject, vos=vos, **token
        )
        return User(
            job_service_pb2_grpc.JobServiceStub(self._channel),
            event_service_pb2_grpc.JobEventServiceStub(self._channel),
            (("authorization", f"Bearer {signed}"),),
        )

    def stored(self, path: str) -> Path:
        """Where `LFN:/local/<path>` lies."""
        return self.data.storage / "local" / path


POLICY = Policy(
    revision=1,
    bindings=[
        Binding(ISSUER, "ada", Role.SUBMITTER, vo="local"),
        Binding(ISSUER, "bob", Role.SUBMITTER, vo="local"),
        Binding(ISSUER, "eve", Role.SUBMITTER, vo="other"),
        Binding(ISSUER, "mia", Role.VO_MANAGER, vo="local"),
        Binding(ISSUER, "root", Role.ADMIN),
    ],
    vos=["local", "other"],
)

MakeGrid = Callable[..., Awaitable[Grid]]


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    logs.configure(json=True, level="WARNING")


@pytest.fixture
def engine() -> str:
    """The database engine of a test that names none."""
    return "sqlite"


@pytest.fixture
def schema() -> str:
    """Databases are Workload's."""
    return "workload"


@pytest.fixture
async def make_grid(tmp_path: Path, database_url: str, schemas: Schemas) -> AsyncIterator[MakeGrid]:
    """Starts servers, one after the other on the same data directory and database."""
    key = new_key()
    async with AsyncExitStack() as all_of_them:

        async def make(
            policy: Policy = POLICY, *, with_transfer: bool = True, **settings: Any
        ) -> Grid:
            stack = await all_of_them.enter_async_context(AsyncExitStack())
            data = DataDirectory.open(tmp_path / "data")
            stack.callback(data.close)
            transfers = data.database_file("transfer")
            if with_transfer and not transfers.exists():
                schemas.copy_file("transfer", transfers)
            signer = TokenSigner(key, ISSUER, "gridlane")
            holder = PolicyHolder(policy)
            spans: list[FinishedSpan] = []
            telemetry = Telemetry("gridlane", sinks=[spans.append])
            pipeline = Pipeline(
                verifier=TokenVerifier({ISSUER: StaticKeys(signer.jwks())}, "gridlane"),
                policy=holder,
                telemetry=telemetry,
                metrics=Metrics(),
                admission=Admission(),
            )
            elements = embedded_storage_elements(data.storage, data.jobs)
            given: dict[str, Any] = {"max_running": 2, "poll_s": 2.0, **settings}
            room = WorkloadRoom(
                WorkloadSettings(**given),
                database_url=database_url,
                jobs_directory=data.jobs,
                peers=pipeline.peers_for("workload"),
                telemetry=telemetry,
                policy=holder,
                address=lambda: server.address,
                exclusive=sqlite_file(database_url) is not None,
            )
            transfer = TransferRoom(
                TransferSettings.load("transfer", **MOVER).with_storage_elements(elements),
                database_url=sqlite_url(transfers),
                telemetry=telemetry,
                policy=holder,
                exclusive=True,
            )
            server = Server(
                ServerSettings(port=0, health_port=0, grace_s=1),
                [Tokens(signer), *([transfer] if with_transfer else []), room],
                pipeline,
            )
            await server.start()
            stack.push_async_callback(server.stop)
            peers = pipeline.peers_for("reporting")
            return Grid(data, signer, holder, server, room, spans, peers, stack)

        yield make


@pytest.fixture
async def grid(make_grid: MakeGrid) -> Grid:
    return await make_grid()


@pytest.fixture
async def ada(grid: Grid) -> User:
    return await grid.user("ada")


async def refused(awaited: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """The code and the reason with which a call is refused."""
    with pytest.raises(aio.AioRpcError) as raised:
        await awaited
    return raised.value.code(), reason_of(raised.value)
