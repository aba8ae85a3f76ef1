"""A real server with the sample service, and a raw-bytes client, for the tests of the pipeline."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gridlane.type.v1 import options_pb2
from gridlane_kit import logs
from gridlane_kit.admission import Admission, Limits
from gridlane_kit.assertions import AssertionSigner, AssertionVerifier, service_jwks
from gridlane_kit.metrics import Metrics
from gridlane_kit.peers import EDGES
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import FinishedSpan, Telemetry
from gridlane_kit.tls import ClientTls
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key
from gridlane_kit.wire_peers import WirePeers

REPOSITORY = Path(__file__).resolve().parents[3]
ISSUER = "https://issuer.test/"
AUDIENCE = "https://gridlane.test"
SAMPLE = "gridlane.transfer.sample.v1.SampleService"
_RULES_IMPORT = "buf/validate/validate.proto"
SERVICE_KEYS = {service: new_key() for service in EDGES}
JWKS = service_jwks(SERVICE_KEYS)
"""The services' keys, and the file of public halves that each of them has."""

assert options_pb2.DESCRIPTOR  # the pool must know the options before the sample


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    logs.configure(json=True, level="INFO")


@pytest.fixture(scope="session")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    """The compiled sample contract, without the import of the rules, as the generator makes it."""
    tree = tmp_path_factory.mktemp("sample")
    shutil.copytree(REPOSITORY / "protos/gridlane/type", tree / "gridlane/type")
    shutil.copytree(REPOSITORY / "third_party/buf", tree / "buf")
    shutil.copy(Path(__file__).with_name("sample.proto"), tree)
    (tree / "buf.yaml").write_text("version: v2\n")
    buf = Path(sys.executable).with_name("buf")
    command = [buf, "build", tree, "--as-file-descriptor-set", "-o", tree / "sample.binpb"]
    subprocess.run(command, check=True, timeout=60)
    compiled = descriptor_pb2.FileDescriptorSet.FromString((tree / "sample.binpb").read_bytes())
    file = next(f for f in compiled.file if f.name == "sample.proto")
    file.dependency.remove(_RULES_IMPORT)
    return file


@pytest.fixture(scope="session")
def messages(sample_file: descriptor_pb2.FileDescriptorProto) -> SimpleNamespace:
    """The sample's message classes, by name."""
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(sample_file.SerializeToString())
    return SimpleNamespace(
        **{
            m.name: message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"{sample_file.package}.{m.name}")
            )
            for m in sample_file.message_type
        }
    )


@dataclass
class Room:
    """A room with the sample service; notes in which order it was asked for what."""

    implementation: object
    name: str = "sample"
    full_name: str = SAMPLE
    steps: list[str] = field(default_factory=list)

    async def start(self) -> None:
        self.steps.append("start")

    def handlers(self) -> Sequence[tuple[str, object]]:
        return [(self.full_name, self.implementation)]

    async def drain(self) -> None:
        self.steps.append("drain")

    async def stop(self) -> None:
        self.steps.append("stop")


@dataclass
class Failure:
    """A failed call, its details unpacked."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    fields: dict[str, str]
    retry_after_s: float | None
    trace_id: str
    raw: str


def failure_of(error: aio.AioRpcError) -> Failure:
    """Unpacks what a client sees; fails the test when it is no Gridlane error."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for target in (info, bad, retry):
            detail.Unpack(target)
    assert info.domain == "gridlane"
    return Failure(
        code=error.code(),
        reason=info.reason,
        message=error.details() or "",
        metadata=dict(info.metadata),
        fields={v.field: v.description for v in bad.field_violations},
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() or None,
        trace_id=str(trailing["gridlane-trace-id"]),
        raw=f"{error.details()} {status}",
    )


@dataclass
class Served:
    """The sample, served: a channel to it and everything a test may want to turn."""

    server: Server
    pipeline: Pipeline
    policy: PolicyHolder
    signer: TokenSigner
    channel: aio.Channel
    room: Room
    spans: list[FinishedSpan]

    def token(self, subject: str = "ada", **claims: Any) -> str:
        return self.signer.sign_user(subject, lifetime_s=600, **{"vos": ["local"], **claims})

    def headers(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {token or self.token()}"),)

    def path(self, method: str) -> str:
        return f"/{SAMPLE}/{method}"

    async def unary(
        self, method: str, request: Any, *, timeout: float = 10, metadata: Any = None
    ) -> bytes:
        """Sends raw bytes, or a message; the answer is raw bytes."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        headers = self.headers() if metadata is None else metadata
        answer: bytes = await self.channel.unary_unary(self.path(method))(
            raw, timeout=timeout, metadata=headers
        )
        return answer

    async def refused(self, method: str, request: Any, **options: Any) -> Failure:
        """Calls a method that must fail; returns the failure."""
        with pytest.raises(aio.AioRpcError) as caught:
            await self.unary(method, request, **options)
        return failure_of(caught.value)


Serve = Callable[..., Awaitable[Served]]


def policy_for_ada(*roles: Role, revision: int = 1) -> Policy:
    """Ada with these roles in the VO "local"."""
    return Policy(revision, [Binding(ISSUER, "ada", role, vo="local") for role in roles])


@pytest.fixture
def failure() -> Callable[[aio.AioRpcError], Failure]:
    """Unpacks a failed call."""
    return failure_of


@pytest.fixture
def rooms() -> list[Room]:
    """The rooms that `serve` made in this test, in order."""
    return []


@pytest.fixture
async def serve(messages: SimpleNamespace, rooms: list[Room]) -> AsyncIterator[Serve]:
    """Serves an implementation of the sample; stops what was served at the end of the test."""
    async with AsyncExitStack() as stack:

        async def serve(
            implementation: object,
            *,
            limits: Limits | None = None,
            roles: Sequence[Role] = (Role.SUBMITTER,),
            default_deadline_s: float = 30.0,
            ratio: float = 1.0,
            receiver: str | None = "transfer",
            **settings: Any,
        ) -> Served:
            signer = TokenSigner(new_key(), ISSUER, AUDIENCE)
            policy = PolicyHolder(policy_for_ada(*roles))
            spans: list[FinishedSpan] = []
            pipeline = Pipeline(
                verifier=TokenVerifier({ISSUER: StaticKeys(signer.jwks())}, AUDIENCE),
                assertions=AssertionVerifier(receiver, JWKS) if receiver else None,
                policy=policy,
                telemetry=Telemetry("test", ratio=ratio, sinks=[spans.append]),
                metrics=Metrics(),
                admission=Admission(limits),
                default_deadline_s=default_deadline_s,
            )
            room = Room(implementation)
            rooms.append(room)
            given = {"port": 0, "health_port": 0, "grace_s": 5, **settings}
            server = Server(ServerSettings.load("server", **given), [room], pipeline)
            await server.start()
            stack.push_async_callback(_stop, server)
            channel = aio.insecure_channel(server.address)  # of no use where the server has TLS
            stack.push_async_callback(channel.close)
            return Served(server, pipeline, policy, signer, channel, room, spans)

        yield serve


WirePeersOf = Callable[..., WirePeers]


@pytest.fixture
def signer_of() -> Callable[[str], AssertionSigner]:
    """Returns what a service signs its assertions with."""
    return lambda service: AssertionSigner(service, SERVICE_KEYS[service])


@pytest.fixture
async def wire_peers() -> AsyncIterator[WirePeersOf]:
    """Makes the peers of a service ("workload"), with Transfer at an address."""
    async with AsyncExitStack() as stack:

        def make(
            address: str,
            *,
            service: str = "workload",
            tls: ClientTls | None = None,
            spans: list[FinishedSpan] | None = None,
            signer: AssertionSigner | None = None,
            **options: Any,
        ) -> WirePeers:
            sinks = [] if spans is None else [spans.append]
            peers = WirePeers(
                service,
                {"transfer": address},
                signer or AssertionSigner(service, SERVICE_KEYS[service]),
                tls,
                Telemetry(service, sinks=sinks),
                **options,
            )
            stack.push_async_callback(peers.close)
            return peers

        yield make


async def _stop(server: Server) -> None:
    async with asyncio.timeout(20):
        await server.stop()
