"""A well-formed request of every method, about a thing of any relation to the caller.

Responsible for one small builder a method: what names the thing, so that the answer follows from
nothing but who may. What a call would use up is made for it alone, where the table lets the caller
do it. Knows nothing of the table; whether a method has a builder is asked by the walk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from google.protobuf.message import Message
from integration.contract_promises.stranger import adler32
from integration.contract_promises.walk import later
from integration.contract_promises.walk.wire import OTLP
from integration.contract_promises.walk.world import (
    CONTENT,
    ISSUER,
    Things,
    World,
    issuer_fields,
)

from gridlane.authorization.v1 import policy_pb2
from gridlane.ids import uuid7

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What a call is about: a thing of a relation to the caller of a role. `acts`: the table lets
    the caller do it, so that what is used up must be the call's own; `acts_on_own`: and the same
    of the caller's own thing beside it."""

    world: World
    role: str
    relation: str
    acts: bool
    acts_on_own: bool = False

    @cached_property
    def thing(self) -> Things:
        return self.world.things(self.role, self.relation)

    @cached_property
    def own(self) -> Things:
        return self.world.things(self.role, "own")

    @property
    def owner(self) -> str:
        """A token of whose the thing is."""
        return self.world.owner(self.role, self.relation)

    @property
    def new_lfn(self) -> str:
        return f"LFN:/{self.thing.vo}/new/{uuid7()}"

    @property
    def binding(self) -> str:
        """A role binding that may be lost."""
        if not self.acts:
            return self.thing.binding
        holder = self.world.callers[self.role].subject if self.relation == "own" else "bob"
        subject = holder if self.relation == "own" else f"passing-{uuid7()}"
        given = dict(self.world.harmless(self.relation))
        if self.relation == "own":
            given["role"] = policy_pb2.ROLE_PILOT
        return self.world.bind(subject=subject, **given).name

    @property
    def file(self) -> str:
        """A file that may be lost."""
        if not self.acts:
            return self.thing.lfn
        lfn = self.new_lfn
        self.world.put(self.owner, lfn)
        return lfn

    @property
    def element(self) -> str:
        """A storage element that may be changed, banned and lost."""
        return self.world.new_element() if self.acts else self.thing.element

    @property
    def channel(self) -> str:
        """A channel that may be lost."""
        return self.world.new_channel() if self.acts else self.thing.channel

    @property
    def ban(self) -> str:
        """A ban of a storage element that may be lost."""
        return self.world.harmless_ban(self.thing.element) if self.acts else self.thing.ban

    @property
    def token(self) -> str:
        """A token that may be lost."""
        if not self.acts:
            return self.thing.token
        return self.world.recorded_token(self.thing.token_subject)

    @property
    def vo(self) -> str:
        """A virtual organisation that may be lost."""
        if not self.acts:
            return f"vos/{self.thing.vo}"
        method = "VoService/CreateVo"
        request = self.world.wire.request(method, vo_id=f"v{uuid7()}", vo={})
        return str(self.world.done(method, self.world.admin, request).name)

    @property
    def issuer(self) -> str:
        """An issuer that may be lost."""
        return self.world.add_issuer(f"i{uuid7()}") if self.acts else self.thing.issuer

    @property
    def group(self) -> str:
        """A group that may be lost."""
        if not self.acts:
            return self.thing.group
        vo, name = self.thing.vo, f"g{uuid7()}"
        self.world.declare(vo, f"/{vo}/{name}", name)
        return f"vos/{vo}/groups/{name}"


def _new_issuer(_: About) -> Fields:
    """One that is not believed, of a VO that exists whatever the call is about."""
    id_ = f"i{uuid7()}"
    return {"issuer_id": id_, "issuer": issuer_fields(id_)}


def _job(about: About) -> Fields:
    return {"vo": about.thing.vo, "description": {"executors": [{"command": ["true"]}]}}


def _transfer(about: About) -> Fields:
    file = {"source": "LFN:/bound/bob/bound", "target": about.new_lfn}
    return {"vo": about.thing.vo, "files": [file]}


def _copy(about: About) -> Fields:
    return {
        "lfn": about.thing.lfn,
        "url": about.thing.url,
        "size_bytes": len(CONTENT),
        "checksum": adler32(CONTENT),
    }


def _unregistered(about: About) -> Fields:
    """A copy that may be lost; that of what is absent was never registered, by no other call."""
    if about.relation == "absent":
        return {"lfn": about.new_lfn, "replica": about.thing.url}
    if not about.acts:
        return {"lfn": about.thing.lfn, "replica": about.thing.url}
    lfn = about.new_lfn
    return {"lfn": lfn, "replica": about.world.put(about.owner, lfn)}


def _unregistered_both(about: About) -> Fields:
    """The thing's copy, and one of a file of the caller's own: of one that is not to be lost, a
    copy that there is not."""
    own: Fields = {"lfn": about.own.lfn, "replica": "storageElements/none"}
    if about.acts_on_own:
        own = _unregistered(About(about.world, about.role, "own", acts=True))
    return {"requests": [_unregistered(about), own]}


def _question(about: About) -> Fields:
    return {
        "permission": "workload.jobs.list",
        "principal": {"issuer": ISSUER, "subject": about.thing.subject},
    }


def _new_binding(about: About) -> Fields:
    subject = f"new-{uuid7()}"
    if about.relation == "own":
        subject = about.world.callers[about.role].subject
        return {"issuer": ISSUER, "subject": subject, "role": policy_pb2.ROLE_PILOT, "vo": "left"}
    return {"issuer": ISSUER, "subject": subject, **about.world.harmless(about.relation)}


def _later(about: About) -> Fields:
    return {"name": about.thing.binding, "expire_time": {"seconds": 4_000_000_000}}


def _name(noun: str) -> Callable[[About], Fields]:
    return lambda about: {"name": getattr(about.thing, noun)}


def _names(noun: str) -> Callable[[About], Fields]:
    """The thing, and one of the caller's own."""
    return lambda about: {"names": [getattr(about.thing, noun), getattr(about.own, noun)]}


def _nothing(_: About) -> Fields:
    return {}


BUILDERS: Final[Mapping[str, Callable[[About], Fields]]] = {
    "AuthorizationService/WhoAmI": _nothing,
    "AuthorizationService/GetPolicy": _nothing,
    "AuthorizationService/GetAuthorizationStatus": _nothing,
    "AuthorizationService/CheckPermission": _question,
    "AuthorizationService/BatchCheckPermissions": lambda a: {"requests": [_question(a)]},
    "PolicyService/FollowPolicy": _nothing,
    "RoleService/GetRoleBinding": _name("binding"),
    "RoleService/ListRoleBindings": lambda a: {"page_size": 1000},
    "RoleService/CreateRoleBinding": lambda a: {
        "role_binding": _new_binding(a),
        "validate_only": a.acts,
    },
    "RoleService/UpdateRoleBinding": lambda a: {"role_binding": _later(a)},
    "RoleService/DeleteRoleBinding": lambda a: {"name": a.binding},
    "VoService/GetVo": lambda a: {"name": f"vos/{a.thing.vo}"},
    "VoService/ListVos": lambda a: {"page_size": 1000},
    "VoService/CreateVo": lambda a: {"vo_id": f"v{uuid7()}", "vo": {}},
    "VoService/UpdateVo": lambda a: {"vo": {"name": f"vos/{a.thing.vo}", "contact": a.role}},
    "VoService/DeleteVo": lambda a: {"name": a.vo},
    "GroupService/GetGroup": _name("group"),
    "GroupService/ListGroups": lambda a: {"parent": f"vos/{a.thing.vo}", "page_size": 1000},
    "GroupService/CreateGroup": lambda a: {
        "parent": f"vos/{a.thing.vo}",
        "group_id": (name := f"g{uuid7()}"),
        "group": {"path": f"/{a.thing.vo}/{name}"},
    },
    "GroupService/UpdateGroup": lambda a: {"group": {"name": a.thing.group, "description": a.role}},
    "GroupService/DeleteGroup": lambda a: {"name": a.group},
    "IssuerService/GetIssuer": _name("issuer"),
    "IssuerService/ListIssuers": lambda a: {"page_size": 1000},
    "IssuerService/CreateIssuer": _new_issuer,
    "IssuerService/UpdateIssuer": lambda a: {
        "issuer": {"name": a.thing.issuer, "description": a.role}
    },
    "IssuerService/DeleteIssuer": lambda a: {"name": a.issuer},
    "SigningKeyService/ListSigningKeys": lambda a: {"page_size": 1000},
    # The present key retires, and the walk's tokens stay good.
    "SigningKeyService/RotateSigningKey": lambda a: {"request_id": uuid7()},
    "TokenService/CreateToken": lambda a: {"subject": f"new-{uuid7()}", "vos": [a.thing.vo]},
    "TokenService/ListTokens": lambda a: {"page_size": 1000},
    "TokenService/RevokeToken": lambda a: {"name": a.token},
    "TokenService/ExchangeToken": _nothing,
    "AuditService/GetAuditEntry": _name("entry"),
    "AuditService/ListAuditEntries": lambda a: {"filter": f'resource = "{a.thing.binding}"'},
    "TokenService/MintJobToken": lambda a: {
        "job": a.thing.job,
        "attempt": 1,
        "lifetime": {"seconds": 60},
    },
    "TransferService/SubmitTransferJob": lambda a: {"transfer_job": _transfer(a)},
    "TransferService/BatchSubmitTransferJobs": lambda a: {
        "requests": [{"transfer_job": _transfer(a)}]
    },
    "TransferService/SubmitStagingJob": lambda a: {
        "vo": a.thing.vo,
        "files": [{"source": "LFN:/bound/bob/bound"}],
    },
    "TransferService/SubmitDeletionJob": lambda a: {
        "vo": a.thing.vo,
        "files": [{"file": a.file}],
    },
    "TransferService/SummarizeTransferJobs": lambda a: {"filter": f'name = "{a.thing.transfer}"'},
    "TransferService/GetFileTransfer": lambda a: {"name": f"{a.thing.transfer}/files/1"},
    "TransferService/ListFileAttempts": lambda a: {"parent": f"{a.thing.transfer}/files/1"},
    "TransferService/ExplainTransferJob": _name("transfer"),
    "TransferService/BatchCancelTransferJobs": _names("transfer"),
    "TransferService/CancelFileTransfers": lambda a: {
        "parent": a.thing.transfer,
        "names": [f"{a.thing.transfer}/files/1"],
    },
    "TransferService/RetryTransferJob": _name("failed_transfer"),
    "TransferAdminService/UpdateTransferJob": lambda a: {
        "transfer_job": {"name": a.thing.transfer, "priority": 4}
    },
    "TransferAdminService/ReleaseHeldFiles": _name("transfer"),
    "TransferAdminService/FailHeldFiles": _name("transfer"),
    "TransferService/GetTransferJob": _name("transfer"),
    "TransferService/ListFileTransfers": lambda a: {"parent": a.thing.transfer},
    "TransferService/ListTransferEvents": lambda a: {"parent": a.thing.transfer},
    "TransferService/CancelTransferJob": _name("transfer"),
    "TransferService/WatchTransferJobs": lambda a: {"names": [a.thing.transfer]},
    "TransferService/BatchGetTransferJobs": _names("transfer"),
    "TransferService/ListTransferJobs": lambda a: {"page_size": 1000},
    "ChannelService/ListChannels": lambda a: {"page_size": 1000},
    "ChannelService/GetChannel": _name("channel"),
    "ChannelAdminService/CreateChannel": lambda a: {
        "channel_id": f"w{uuid7()}",
        "channel": {"source": "local", "target": "far"},
    },
    "ChannelAdminService/DeleteChannel": lambda a: {"name": a.channel},
    "ChannelAdminService/UpdateChannel": lambda a: {
        "channel": {"name": a.thing.channel, "description": a.role}
    },
    "ChannelAdminService/ListHeldFiles": lambda a: {"parent": a.thing.channel},
    "ChannelAdminService/ReleaseChannelFiles": _name("channel"),
    "ChannelAdminService/FailChannelFiles": _name("channel"),
    "ActivityService/GetActivityShares": lambda a: {"name": f"vos/{a.thing.vo}/activityShares"},
    "ActivityService/UpdateActivityShares": lambda a: {
        "activity_shares": {"name": f"vos/{a.thing.vo}/activityShares", "active": True}
    },
    "TransferAuditService/GetAuditEntry": _name("transfer_entry"),
    "TransferAuditService/ListAuditEntries": lambda a: {
        "filter": f'vo = "{a.thing.vo}"',
        "page_size": 1000,
    },
    "StorageAdminService/CreateStorageElement": lambda a: {
        "storage_element_id": f"w{uuid7()}",
        "storage_element": a.world.open_place(),
    },
    "StorageAdminService/UpdateStorageElement": lambda a: {
        "storage_element": {"name": a.element, "description": "walked"}
    },
    "StorageAdminService/DeleteStorageElement": lambda a: {"name": a.element},
    "StorageAdminService/BanStorage": lambda a: {
        "parent": a.element,
        "storage_ban": {"operations": [1], "action": 1, "reason": "walked"},
    },
    "StorageAdminService/UnbanStorage": lambda a: {"name": a.ban},
    "StorageAdminService/ListStorageBans": lambda a: {
        "parent": "storageElements/-",
        "page_size": 1000,
    },
    "BackendService/GetTransferBackend": _name("backend"),
    "BackendService/ListTransferBackends": lambda a: {"page_size": 1000},
    "BackendAdminService/ListBackendDrift": lambda a: {"parent": a.thing.backend},
    "BackendAdminService/PushBackendConfiguration": _name("backend"),
    "StorageService/GetStorageElement": _name("element"),
    "StorageService/ListStorageElements": lambda a: {"page_size": 1000},
    "StorageService/GetContent": lambda a: {"file": a.thing.lfn},
    "StorageService/StatContent": lambda a: {"file": a.thing.lfn},
    "StorageService/DeleteContent": lambda a: {"file": a.file},
    "StorageService/GetTransferStatus": _nothing,
    "ReplicaService/ResolveReplicas": lambda a: {"lfns": [a.thing.lfn, a.own.lfn]},
    "ReplicaService/ListReplicas": lambda a: {
        "prefix": a.thing.lfn.rpartition("/")[0] + "/",
        "page_size": 1000,
    },
    "ReplicaService/RegisterReplica": _copy,
    "ReplicaService/BatchRegisterReplicas": lambda a: {"requests": [_copy(a)]},
    "ReplicaService/UnregisterReplica": _unregistered,
    "ReplicaService/BatchUnregisterReplicas": _unregistered_both,
    "TransferEventService/FollowTransferEvents": _nothing,
    "TransferEventService/AckTransferEvents": lambda a: {
        "consumer": "walk",
        "position": {"epoch": uuid7(), "position": 0},
    },
    "JobService/SubmitJob": lambda a: {"job": _job(a)},
    "JobService/BatchSubmitJobs": lambda a: {"requests": [{"job": _job(a)}]},
    "JobService/GetJob": _name("job"),
    "JobService/ListJobEvents": lambda a: {"parent": a.thing.job},
    "JobService/WatchJobs": lambda a: {"names": [a.thing.job]},
    "JobService/BatchGetJobs": _names("job"),
    "JobService/ListJobs": lambda a: {"page_size": 1000},
    "JobService/KillJob": _name("job"),
    "JobService/ReadJobLog": _name("job"),
    "JobService/GetWorkloadStatus": _nothing,
    "JobEventService/FollowJobEvents": _nothing,
    "JobEventService/AckJobEvents": lambda a: {
        "consumer": "walk",
        "position": {"epoch": uuid7(), "position": 0},
    },
    "AccountingService/ListAccountingRecords": lambda a: {"filter": f'job = "{a.thing.job}"'},
    "AccountingService/GetReportingStatus": _nothing,
    "SpanService/ListJobSpans": lambda a: {"job": a.thing.job},
    "TaskService/SubmitTask": lambda a: {"job": _job(a)},
    "TaskService/DescribeTask": _name("job"),
    "TaskService/WatchTask": _name("job"),
    "TaskService/CancelTask": _name("job"),
    "TaskService/Ping": _nothing,
    f"{OTLP}/Export": _nothing,
    "grpc.health.v1.Health/Check": _nothing,
    "grpc.health.v1.Health/List": _nothing,
    "grpc.health.v1.Health/Watch": _nothing,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": lambda a: {
        "list_services": ""
    },
}

STREAMS: Final[Mapping[str, Callable[[About], Sequence[Fields]]]] = {
    "TransferService/SubmitTransferJobStream": lambda a: [
        {"header": {"transfer_job": {"vo": a.thing.vo}}},
        {"files": {"files": _transfer(a)["files"]}},
    ],
    "StorageService/PutContent": lambda a: [
        {"header": {"file": a.new_lfn, "size_bytes": len(CONTENT)}},
        {"chunk": CONTENT},
    ],
}
"""Those whose client streams."""

LISTED: Final[Mapping[str, tuple[str, str, Callable[[About], str | int]]]] = {
    "RoleService/ListRoleBindings": ("role_bindings", "name", lambda a: a.thing.binding),
    "VoService/ListVos": ("vos", "name", lambda a: f"vos/{a.thing.vo}"),
    "IssuerService/ListIssuers": ("issuers", "name", lambda a: a.thing.issuer),
    "SigningKeyService/ListSigningKeys": ("signing_keys", "name", lambda a: a.thing.key),
    "TokenService/ListTokens": ("tokens", "name", lambda a: a.thing.token),
    "AuditService/ListAuditEntries": ("audit_entries", "name", lambda a: a.thing.entry),
    "TransferAuditService/ListAuditEntries": (
        "audit_entries",
        "name",
        lambda a: a.thing.transfer_entry,
    ),
    "TransferService/ListTransferJobs": ("transfer_jobs", "name", lambda a: a.thing.transfer),
    "TransferService/SummarizeTransferJobs": ("jobs", "count", lambda a: 1),
    "ChannelService/ListChannels": ("channels", "name", lambda a: a.thing.channel),
    "BackendService/ListTransferBackends": (
        "transfer_backends",
        "name",
        lambda a: a.thing.backend,
    ),
    "StorageAdminService/ListStorageBans": ("storage_bans", "name", lambda a: a.thing.ban),
    "StorageService/ListStorageElements": (
        "storage_elements",
        "name",
        lambda a: a.thing.element,
    ),
    "ReplicaService/ListReplicas": ("files", "lfn", lambda a: a.thing.lfn),
    "JobService/ListJobs": ("jobs", "name", lambda a: a.thing.job),
    "AccountingService/ListAccountingRecords": ("records", "job", lambda a: a.thing.job),
}
"""Of what a listing answers: the field, the field in it that names the thing, and that name."""


ALONE: Final = {**BUILDERS, **later.BUILDERS}
STREAMED: Final = {**STREAMS, **later.STREAMS}
WALKED: Final = ALONE.keys() | STREAMED.keys()
"""The methods that have a builder."""


def requests_for(method: str, about: About) -> Sequence[Message]:
    """The messages of a call."""
    fields = STREAMED[method](about) if method in STREAMED else [ALONE[method](about)]
    return [about.world.wire.request(method, **each) for each in fields]
