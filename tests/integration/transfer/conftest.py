"""A real server with Transfer's room, and clients of several users.

On SQLite, unless a test or its module names the engines: what stores, reads and claims runs on
both; tests of messages' shapes, of rules without a store and of the mover alone do not.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gridlane.transfer.v1 import (
    channel_service_pb2_grpc,
    event_service_pb2_grpc,
    replica_service_pb2_grpc,
    storage_admin_service_pb2_grpc,
    storage_service_pb2,
    storage_service_pb2_grpc,
    transfer_admin_service_pb2_grpc,
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.type.v1 import checksum_pb2, failure_pb2
from gridlane_kit.admission import Admission
from gridlane_kit.call import Caller
from gridlane_kit.identity import Principal
from gridlane_kit.metrics import Metrics
from gridlane_kit.peers import Peers
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.settings import ServerSettings
from gridlane_kit.sqlite import sqlite_file
from gridlane_kit.telemetry import FinishedSpan, Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key
from gridlane_transfer.room import TransferRoom
from gridlane_transfer.settings import StorageElementSettings, TransferSettings

ISSUER = "https://issuer.test/"
FINAL = frozenset(
    {
        transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_REGISTRATION_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_CANCELED,
    }
)
BINDINGS = (
    Binding(ISSUER, "admin", Role.ADMIN),
    Binding(ISSUER, "sue", Role.SUBMITTER, "local"),
    Binding(ISSUER, "max", Role.VO_MANAGER, "local"),
    Binding(ISSUER, "eve", Role.SUBMITTER, "other"),
)
VOS: Mapping[str, Sequence[str]] = {
    "admin": ["local"],
    "sue": ["local"],
    "bob": ["local"],
    "max": ["local"],
    "eve": ["other"],
}


class Client:
    """One user's stubs."""

    def __init__(self, channel: aio.Channel, token: str) -> None:
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.jobs = Bound(transfer_service_pb2_grpc.TransferServiceStub(channel), self.metadata)
        self.admin = Bound(
            transfer_admin_service_pb2_grpc.TransferAdminServiceStub(channel), self.metadata
        )
        self.storage = Bound(storage_service_pb2_grpc.StorageServiceStub(channel), self.metadata)
        self.storage_admin = Bound(
            storage_admin_service_pb2_grpc.StorageAdminServiceStub(channel), self.metadata
        )
        self.replicas = Bound(replica_service_pb2_grpc.ReplicaServiceStub(channel), self.metadata)
        self.channels = Bound(channel_service_pb2_grpc.ChannelServiceStub(channel), self.metadata)
        self.events = Bound(event_service_pb2_grpc.TransferEventServiceStub(channel), self.metadata)

    async def submit(
        self, *files: tuple[str, str] | transfer_job_pb2.FileTransfer, **fields: Any
    ) -> transfer_job_pb2.TransferJob:
        """Submits a job of pairs of source and target, or of whole file messages."""
        request_id = fields.pop("request_id", "")
        job = transfer_job_pb2.TransferJob(files=[_file(file) for file in files], **fields)
        return await self.jobs.SubmitTransferJob(
            transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job, request_id=request_id)
        )

    async def get(self, name: str) -> transfer_job_pb2.TransferJob:
        return await self.jobs.GetTransferJob(transfer_service_pb2.GetTransferJobRequest(name=name))

    async def ended(self, name: str, seconds: float = 20) -> transfer_job_pb2.TransferJob:
        """The job once it is final, waited for by its watch."""
        request = transfer_service_pb2.WatchTransferJobsRequest(names=[name])
        async with asyncio.timeout(seconds):
            async for page in self.jobs.WatchTransferJobs(request, timeout=seconds):
                if page.events[-1].job.state in FINAL:
                    break
        return await self.get(name)

    async def in_state(self, name: str, state: str, seconds: float = 10) -> None:
        """Waits until the first file of a job is in a state."""
        wanted = transfer_job_pb2.FileTransferState.Value(f"FILE_TRANSFER_STATE_{state}")
        async with asyncio.timeout(seconds):
            while (await self.get(name)).files[0].state != wanted:
                await asyncio.sleep(0.01)

    async def history(self, name: str) -> list[str]:
        """What happened: "file ACTIVE" and "job FINISHED" in order."""
        answer = await self.jobs.ListTransferEvents(
            transfer_service_pb2.ListTransferEventsRequest(parent=name, page_size=1000)
        )
        return [
            f"file {_word(transfer_job_pb2.FileTransferState, event.file.state)}"
            if event.HasField("file")
            else f"job {_word(transfer_job_pb2.TransferJobState, event.job.state)}"
            for event in answer.events
        ]

    async def put(
        self,
        file: str,
        content: bytes,
        *,
        checksum: checksum_pb2.Checksum | None = None,
        size_bytes: int | None = None,
        overwrite: bool = False,
    ) -> storage_service_pb2.PutContentResponse:
        size = len(content) if size_bytes is None else size_bytes

        async def parts() -> AsyncIterator[storage_service_pb2.PutContentRequest]:
            yield storage_service_pb2.PutContentRequest(
                header=storage_service_pb2.PutContentHeader(
                    file=file, size_bytes=size, checksum=checksum, overwrite=overwrite
                )
            )
            for start in range(0, len(content), 1 << 20):
                yield storage_service_pb2.PutContentRequest(
                    chunk=content[start : start + (1 << 20)]
                )

        return await self.storage.PutContent(parts())

    async def read(self, file: str, offset: int = 0) -> bytes:
        request = storage_service_pb2.GetContentRequest(file=file, offset_bytes=offset)
        return b"".join([part.chunk async for part in self.storage.GetContent(request)])


class Bound:
    """A stub whose calls carry the user's token."""

    def __init__(self, stub: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self._stub, method)
        return lambda request, timeout=20: call(request, metadata=self._metadata, timeout=timeout)


@dataclass
class House:
    """A running server. `start` it anew after `stop` to see what a restart does."""

    root: Path
    database_url: str
    given: dict[str, Any] = field(default_factory=dict)
    elements: list[StorageElementSettings] = field(default_factory=list)
    bindings: tuple[Binding, ...] = BINDINGS
    spans: list[FinishedSpan] = field(default_factory=list)
    policy: PolicyHolder = field(init=False)
    room: TransferRoom = field(init=False)
    peers: Peers = field(init=False)
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        self.signer = TokenSigner(new_key(), ISSUER, "https://gridlane.test")
        self.policy = PolicyHolder(Policy(1, self.bindings, vos=["local", "other"]))
        self.elements = self.elements or [
            StorageElementSettings(
                name="local", base_url=self.storage.as_uri(), vo_paths={"local": "/local"}
            ),
            StorageElementSettings(
                name="mirror", base_url=self.mirror.as_uri(), vo_paths={"local": "/local"}
            ),
            StorageElementSettings(name="jobs", base_url=self.jobs.as_uri(), internal=True),
        ]
        for folder in (self.storage, self.mirror, self.jobs):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    @property
    def mirror(self) -> Path:
        return self.root / "mirror"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    async def start(self) -> None:
        settings = TransferSettings(
            **{"retry_delay_s": 0.05, "storage_elements": self.elements, **self.given}
        )
        self.telemetry = Telemetry("test", sinks=[self.spans.append])
        self.room = TransferRoom(
            settings,
            database_url=self.database_url,
            telemetry=self.telemetry,
            policy=self.policy,
            exclusive=sqlite_file(self.database_url) is not None,
        )
        pipeline = Pipeline(
            verifier=TokenVerifier(
                {ISSUER: StaticKeys(self.signer.jwks())}, "https://gridlane.test"
            ),
            policy=self.policy,
            telemetry=self.telemetry,
            metrics=Metrics(),
            admission=Admission(),
        )
        self.peers = pipeline.peers_for("workload")
        self.server = Server(
            ServerSettings(port=0, health_port=0, grace_s=1.0), [self.room], pipeline
        )
        await self.server.start()
        self.channel = aio.insecure_channel(self.server.address)

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def client(
        self, user: str, scopes: Iterable[str] | None = None, groups: Sequence[str] = ()
    ) -> Client:
        token = self.signer.sign_user(
            user, lifetime_s=600, vos=VOS[user], groups=groups, scopes=scopes
        )
        return Client(self.channel, token)

    def caller(self, user: str) -> Caller:
        """A user on whose behalf the workload service calls, through the peers."""
        principal = Principal(ISSUER, user, vos=frozenset(VOS[user]))
        return Caller(principal, None, self.telemetry.root())

    async def submit_for(
        self, user: str, *files: tuple[str, str], **fields: Any
    ) -> transfer_job_pb2.TransferJob:
        """Submits a job as the workload service does, on a user's behalf."""
        job = transfer_job_pb2.TransferJob(files=[_file(file) for file in files], **fields)
        request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
        return await self.peers.transfer_jobs(self.caller(user)).SubmitTransferJob(request)

    def file(self, path: str, content: bytes = b"gridlane\n", below: Path | None = None) -> str:
        """Makes a file; returns its URL."""
        target = (below or self.storage) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target.as_uri()

    def leftovers(self) -> list[str]:
        """Temporary files that lie anywhere."""
        return [path.name for path in self.root.rglob(".gridlane-*")]


StartHouse = Callable[..., Awaitable[House]]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The database engine that a test names; SQLite for one that names none."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def schema() -> str:
    """Databases are Transfer's."""
    return "transfer"


@pytest.fixture
def mover() -> Mapping[str, int]:
    """The mover of a test that names none: one process, which makes as many copies at once as the
    two of the default settings, but starts in half the time.
    """
    return {"workers": 1, "copies_per_worker": 4}


@pytest.fixture
async def start_house(
    tmp_path: Path, database_url: str, mover: Mapping[str, int]
) -> AsyncIterator[StartHouse]:
    """Starts a server with settings of one's own."""
    async with AsyncExitStack() as stack:

        async def start(given: Mapping[str, Any] | None = None, **fields: Any) -> House:
            settings = dict(given or {})
            if "workers" not in settings:
                settings = {**mover, **settings}
            house = House(tmp_path, database_url, settings, **fields)
            await house.start()
            stack.push_async_callback(house.stop)
            return house

        yield start


@pytest.fixture
def connect() -> Callable[[aio.Channel, str], Client]:
    """Makes a client of a channel and a token."""
    return Client


@pytest.fixture
async def house(start_house: StartHouse) -> House:
    return await start_house()


@pytest.fixture
def sue(house: House) -> Client:
    """A submitter of the VO `local`."""
    return house.client("sue")


def _file(
    file: tuple[str, str] | transfer_job_pb2.FileTransfer,
) -> transfer_job_pb2.FileTransfer:
    if isinstance(file, tuple):
        return transfer_job_pb2.FileTransfer(source=file[0], target=file[1])
    return file


class Words:
    """Enum values in words, checksums, reasons: what tests compare with."""

    @staticmethod
    def adler32(content: bytes) -> checksum_pb2.Checksum:
        return checksum_pb2.Checksum(
            type=checksum_pb2.CHECKSUM_TYPE_ADLER32, value=f"{zlib.adler32(content):08x}"
        )

    @staticmethod
    def job(job: transfer_job_pb2.TransferJob) -> str:
        return _word(transfer_job_pb2.TransferJobState, job.state)

    @staticmethod
    def files(job: transfer_job_pb2.TransferJob) -> list[str]:
        return [_word(transfer_job_pb2.FileTransferState, file.state) for file in job.files]

    @staticmethod
    def failure(job: transfer_job_pb2.TransferJob, index: int = 0) -> str:
        return _word(failure_pb2.FailureClass, job.files[index].failure.failure_class)

    @staticmethod
    def reason(error: grpc.RpcError) -> str:
        """The documented reason of an error."""
        return _info(error)[0].reason

    @staticmethod
    def info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
        """The reason of an error, with its metadata."""
        return _info(error)[0]

    @staticmethod
    def violations(error: grpc.RpcError) -> dict[str, str]:
        """The violations that an error names, by field."""
        found = {}
        for detail in _details(error):
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                found.update({one.field: one.description for one in bad.field_violations})
        return found


@pytest.fixture
def words() -> Words:
    return Words()


def _word(enum: Any, number: int) -> str:
    name: str = enum.Name(number)
    return name.partition("_STATE_")[2] or name.removeprefix("FAILURE_CLASS_")


def _details(error: grpc.RpcError) -> list[Any]:
    assert isinstance(error, aio.AioRpcError)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            return list(status_pb2.Status.FromString(value).details)
    return []


def _info(error: grpc.RpcError) -> list[error_details_pb2.ErrorInfo]:
    found = []
    for detail in _details(error):
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            found.append(info)
    return found
