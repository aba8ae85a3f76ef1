"""A real server with the sample service, and a raw-bytes client, for the tests of the pipeline."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc import aio
from integration.kit_server.served import (
    AUDIENCE,
    ISSUER,
    JWKS,
    SERVICE_KEYS,
    FailureOf,
    Room,
    Serve,
    Served,
    SignerOf,
    WirePeersOf,
    failure_of,
    policy_for_ada,
)

from gridlane.type.v1 import options_pb2
from gridlane_kit import logs
from gridlane_kit.admission import Admission, Limits
from gridlane_kit.assertions import AssertionSigner, AssertionVerifier
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import FinishedSpan, Telemetry
from gridlane_kit.tls import ClientTls
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key
from gridlane_kit.wire_peers import WirePeers

REPOSITORY = Path(__file__).resolve().parents[3]
_RULES_IMPORT = "buf/validate/validate.proto"

assert options_pb2.DESCRIPTOR.name  # the pool must know the options before the sample


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    logs.configure(json=True, level="INFO")


@pytest.fixture(scope="session")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    """The compiled sample contract, without the import of the rules, as the generator makes it."""
    tree = tmp_path_factory.mktemp("sample")
    shutil.copytree(REPOSITORY / "protos/gridlane/type", tree / "gridlane/type")
    for package in ("buf", "google"):
        shutil.copytree(REPOSITORY / "third_party" / package, tree / package)
    shutil.copy(Path(__file__).with_name("sample.proto"), tree)
    (tree / "buf.yaml").write_text("version: v2\n")
    buf = Path(sys.executable).with_name("buf")
    binary = tree / "sample.binpb"
    options = ("--as-file-descriptor-set", "-o", binary)
    subprocess.run([buf, "build", tree, *options], check=True, timeout=60)
    compiled = descriptor_pb2.FileDescriptorSet.FromString(binary.read_bytes())
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


@pytest.fixture
def failure() -> FailureOf:
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


@pytest.fixture
def signer_of() -> SignerOf:
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
