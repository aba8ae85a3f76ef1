"""Authorization served over the wire, and those who call it, for the tests of what it manages.

Responsible for one replica's life (`office`) and for short ways to say what tests say again and
again. Several offices may share a database, as replicas do.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gridlane.authorization.v1 import (
    audit_entry_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    group_pb2,
    group_service_pb2,
    group_service_pb2_grpc,
    issuer_service_pb2_grpc,
    policy_pb2,
    role_service_pb2,
    role_service_pb2_grpc,
    signing_key_service_pb2_grpc,
    token_service_pb2_grpc,
    vo_pb2,
    vo_service_pb2,
    vo_service_pb2_grpc,
)
from gridlane.type.v1.time_window_pb2 import TimeWindow
from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.room import AuthorizationRoom
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer
from gridlane_kit.admission import Admission
from gridlane_kit.issuer_keys import FileKeys
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.policy_issuers import PolicyIssuers
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import Server
from gridlane_kit.settings import ServerSettings
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, dump_key, new_key
from gridlane_server.issuers import outside_issuers

ISSUER: Final = AuthorizationSettings().issuer
NOBODYS: Final = "01939f5e-0000-7000-8000-000000000001"
"""A uuid of nothing."""
CHANNEL: Final = "01939f5e-0000-7000-8000-00000000c4a1"
OTHER_CHANNEL: Final = "01939f5e-0000-7000-8000-00000000c4a2"
ADMIN: Final = policy_pb2.ROLE_ADMIN
CHANNEL_MANAGER: Final = policy_pb2.ROLE_CHANNEL_MANAGER
VO_MANAGER: Final = policy_pb2.ROLE_VO_MANAGER
SUBMITTER: Final = policy_pb2.ROLE_SUBMITTER
VETOED: Final = policy_pb2.ROLE_VETOED_USER
JOB_MONITOR: Final = policy_pb2.ROLE_JOB_MONITOR
_CALL_S: Final = 20
_PAGE: Final = 50
_SIGNER: Final = TokenSigner(new_key(), ISSUER, AuthorizationSettings().audience)


@dataclass(frozen=True)
class Refusal:
    """What a refused caller is told."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str]
    fields: tuple[str, ...]


class Caller:
    """Somebody who calls, with a token.

    Parameters:
        channel: to an office.
        subject, vos, groups, scopes: what the token says.
        token: the token itself, which says all of that.
    """

    def __init__(self, channel: aio.Channel, subject: str, *vos: str, **claims: Any) -> None:
        token = claims.pop("token", "") or _SIGNER.sign_user(
            subject, vos=vos, lifetime_s=600, **claims
        )
        self.subject = subject
        self._metadata = (("authorization", f"Bearer {token}"),)
        self.roles = role_service_pb2_grpc.RoleServiceStub(channel)
        self.vos = vo_service_pb2_grpc.VoServiceStub(channel)
        self.groups = group_service_pb2_grpc.GroupServiceStub(channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        self.keys = signing_key_service_pb2_grpc.SigningKeyServiceStub(channel)
        self.issuers = issuer_service_pb2_grpc.IssuerServiceStub(channel)
        self.me = authorization_service_pb2_grpc.AuthorizationServiceStub(channel)

    async def __call__(self, method: Any, request: Message) -> Any:
        """Calls."""
        return await method(request, metadata=self._metadata, timeout=_CALL_S)

    async def refused(self, method: Any, request: Message) -> Refusal:
        """Calls what must be refused; returns what is told."""
        with pytest.raises(aio.AioRpcError) as caught:
            await self(method, request)
        return _refusal(caught.value)

    async def reason(self, method: Any, request: Message) -> str:
        """Calls what must be refused; returns the reason alone."""
        return (await self.refused(method, request)).reason

    async def listed(self, method: Any, request: Any, field: str) -> list[Any]:
        """All that a listing shows it in a field of its answers, page by page."""
        found: list[Any] = []
        while True:
            page = await self(method, request)
            assert len(getattr(page, field)) <= (request.page_size or _PAGE)
            found += getattr(page, field)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    async def is_known(self) -> bool:
        """Whether its token proves somebody; if not, it is because it is not acceptable."""
        try:
            await self(self.me.WhoAmI, authorization_service_pb2.WhoAmIRequest())
        except aio.AioRpcError as error:
            if error.code().name != "UNAUTHENTICATED":
                raise
            return False
        return True

    async def give(
        self, subject: str, role: int, *, reason: str = "", request_id: str = "", **fields: Any
    ) -> policy_pb2.RoleBinding:
        """Gives a role; `subject` may be a group's path."""
        given: policy_pb2.RoleBinding = await self(
            self.roles.CreateRoleBinding,
            giving(subject, role, reason=reason, request_id=request_id, **fields),
        )
        return given

    async def take(self, name: str, **options: Any) -> int:
        """Takes a role away; returns the policy's revision."""
        request = role_service_pb2.DeleteRoleBindingRequest(name=name, **options)
        return int((await self(self.roles.DeleteRoleBinding, request)).policy_revision)

    async def bindings(self, asked: str = "", size: int = 1000) -> list[policy_pb2.RoleBinding]:
        """All bindings that it sees, page by page."""
        request = role_service_pb2.ListRoleBindingsRequest(filter=asked, page_size=size)
        return await self.listed(self.roles.ListRoleBindings, request, "role_bindings")

    async def make_vo(self, vo: str, **options: Any) -> Any:
        """Makes a virtual organisation."""
        request = vo_service_pb2.CreateVoRequest(vo_id=vo, vo=vo_pb2.Vo(), **options)
        return await self(self.vos.CreateVo, request)

    async def make_group(self, vo: str, id_: str, path: str, **options: Any) -> Any:
        """Declares a group."""
        request = group_service_pb2.CreateGroupRequest(
            parent=f"vos/{vo}", group_id=id_, group=group_pb2.Group(path=path), **options
        )
        return await self(self.groups.CreateGroup, request)

    async def entries(
        self, asked: str = "", size: int = 1000, **window: Any
    ) -> list[audit_entry_pb2.AuditEntry]:
        """The entries of the audit that it sees, page by page."""
        request = audit_service_pb2.ListAuditEntriesRequest(
            filter=asked, page_size=size, window=TimeWindow(**window)
        )
        return await self.listed(self.audit.ListAuditEntries, request, "audit_entries")


class Office:
    """A replica of Authorization that serves; `root` is its first administrator."""

    def __init__(self, channel: aio.Channel, policy: PolicyHolder, signer: TokenSigner) -> None:
        self._channel = channel
        self.policy = policy
        self.signer = signer
        self.root = Caller(channel, "root", token=signer.sign_user("root", lifetime_s=600))

    def caller(self, subject: str, *vos: str, **claims: Any) -> Caller:
        """Somebody without a role, unless one was given."""
        return Caller(self._channel, subject, *vos, **claims)


def giving(
    subject: str,
    role: int,
    *,
    reason: str = "",
    request_id: str = "",
    validate_only: bool = False,
    **fields: Any,
) -> role_service_pb2.CreateRoleBindingRequest:
    """The request that gives a role; a `subject` that begins with a slash is a group's path."""
    holder = {"group": subject} if subject[:1] == "/" else {"issuer": ISSUER, "subject": subject}
    return role_service_pb2.CreateRoleBindingRequest(
        role_binding=policy_pb2.RoleBinding(**{**holder, "role": role, **fields}),
        reason=reason,
        request_id=request_id,
        validate_only=validate_only,
    )


@asynccontextmanager
async def office(
    database_url: str, *, files: KeyFiles | None = None, **settings: Any
) -> AsyncIterator[Office]:
    """Serves a replica of Authorization until the end of the block.

    Parameters:
        files: of its signing key; None: it is one that all such offices have, and no JWKS is kept.
    """
    given = AuthorizationSettings.load(
        "authorization", **{"bootstrap_admin": f"{ISSUER} root", **settings}
    )
    policy, metrics = PolicyHolder(Policy(0, closed=True)), Metrics()
    stack = AsyncExitStack()
    if files is None:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        files, signer = KeyFiles(folder / "key.pem", None), _SIGNER
        files.key.write_bytes(dump_key(signer.key))
    else:
        signer = read_signer(files.key, ISSUER, given.audience)
    known = StaticKeys(signer.jwks()) if files.jwks is None else FileKeys(files.jwks)
    believed = outside_issuers(given)
    PolicyIssuers(believed, policy)
    pipeline = Pipeline(
        verifier=TokenVerifier({ISSUER: known}, given.audience, believed),
        policy=policy,
        telemetry=Telemetry("authorization"),
        metrics=metrics,
        admission=Admission(),
    )
    room = AuthorizationRoom(
        given,
        database_url=database_url,
        signer=signer,
        keys=files,
        policy=policy,
        token_file=None,
        metrics=metrics,
        issuers=believed,
    )
    server = Server(
        ServerSettings.load("server", port=0, health_port=0, grace_s=0.2), [room], pipeline
    )
    async with stack:
        if isinstance(known, FileKeys):
            fresh = asyncio.create_task(known.keep_fresh())
            stack.callback(fresh.cancel)
        await believed.start()
        stack.push_async_callback(believed.stop)
        await server.start()
        stack.push_async_callback(server.stop)
        channel = await stack.enter_async_context(aio.insecure_channel(server.address))
        yield Office(channel, policy, signer)


def _refusal(error: aio.AioRpcError) -> Refusal:
    trailing: Any = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return Refusal(
        error.code().name,
        info.reason,
        error.details() or "",
        dict(info.metadata),
        tuple(violation.field for violation in bad.field_violations),
    )
