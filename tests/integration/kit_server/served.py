"""The sample service, served: its room, what a test holds of a server with it, and its failures.

Responsible for the types of the fixtures that `conftest` makes. Implementations of the sample are
the tests' own.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import raw_calls
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gridlane_kit.assertions import AssertionSigner, service_jwks
from gridlane_kit.peers import EDGES
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.telemetry import FinishedSpan
from gridlane_kit.tokens import TokenSigner, new_key
from gridlane_kit.wire_peers import WirePeers

ISSUER = "https://issuer.test/"
AUDIENCE = "https://gridlane.test"
SAMPLE = "gridlane.transfer.sample.v1.SampleService"
SERVICE_KEYS = {service: new_key() for service in EDGES}
JWKS = service_jwks(SERVICE_KEYS)
"""The services' keys, and the file of public halves that each of them has."""


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
        call = raw_calls.unary(self.channel, self.path(method))
        return await call(raw, timeout=timeout, metadata=headers)

    async def refused(self, method: str, request: Any, **options: Any) -> Failure:
        """Calls a method that must fail; returns the failure."""
        with pytest.raises(aio.AioRpcError) as caught:
            await self.unary(method, request, **options)
        return failure_of(caught.value)


Serve = Callable[..., Awaitable[Served]]
FailureOf = Callable[[aio.AioRpcError], Failure]
SignerOf = Callable[[str], AssertionSigner]
WirePeersOf = Callable[..., WirePeers]


def policy_for_ada(*roles: Role, revision: int = 1) -> Policy:
    """Ada with these roles in the VO "local"."""
    return Policy(revision, [Binding(ISSUER, "ada", role, vo="local") for role in roles])
