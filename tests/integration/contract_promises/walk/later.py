"""Well-formed requests of the methods that this version does not carry out.

Responsible for the same as `requests`, for methods of which the server says who may and nothing
more: what is named may be somebody's or nobody's, and nothing is used up. A method that is carried
out has its place in `requests`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from integration.contract_promises.walk.world import NOBODYS, Things

Fields = Mapping[str, Any]


class AboutThing(Protocol):
    """What a call is about."""

    @property
    def thing(self) -> Things: ...


_CREDENTIAL: Final = f"credentials/{NOBODYS}"
_CHANNEL: Final = {"source": "local", "target": "far"}
_ELEMENT: Final = {"endpoints": [{"base_url": "https://storage.test/walk"}]}


def _named(name: str, noun: str = "") -> Callable[[AboutThing], Fields]:
    return lambda about: {name: getattr(about.thing, noun or name)}


def _constant(**fields: Any) -> Callable[[AboutThing], Fields]:
    return lambda _: fields


def _quota(about: AboutThing) -> Fields:
    return {"quota": {"vo": about.thing.vo, "resource": 1, "limit": 1}}


def _copy(about: AboutThing) -> Fields:
    checksum = {"type": 1, "value": "08ab027a"}
    return {"lfn": about.thing.lfn, "url": about.thing.url, "size_bytes": 6, "checksum": checksum}


def _removal(about: AboutThing) -> Fields:
    return {"lfn": about.thing.lfn, "replica": about.thing.url}


def _transfer(about: AboutThing) -> Fields:
    files = [{"source": about.thing.lfn, "target": f"{about.thing.lfn}-copy"}]
    return {"vo": about.thing.vo, "files": files}


BUILDERS: Final[Mapping[str, Callable[[Any], Fields]]] = {
    "CredentialService/StartDelegation": _named("vo"),
    "CredentialService/PutCredential": lambda a: {
        "vo": a.thing.vo,
        "token": {"access_token": "a.b.c"},
    },
    "CredentialService/DeleteCredential": _constant(name=_CREDENTIAL),
    "CredentialService/GetCredential": _constant(name=_CREDENTIAL),
    "CredentialService/ListCredentials": _constant(),
    "CredentialService/SignSubProxy": lambda a: {
        "credential": _CREDENTIAL,
        "vo": a.thing.vo,
        "csr_pem": "-----BEGIN CERTIFICATE REQUEST-----",
        "resource": a.thing.job,
    },
    "CredentialService/FetchAccessToken": lambda a: {
        "credential": _CREDENTIAL,
        "vo": a.thing.vo,
        "audiences": ["https://storage.test"],
        "scopes": ["storage.read:/"],
        "resource": a.thing.job,
    },
    "QuotaService/CreateQuota": _quota,
    "QuotaService/UpdateQuota": _constant(quota={"name": f"quotas/{NOBODYS}", "limit": 1}),
    "QuotaService/DeleteQuota": _constant(name=f"quotas/{NOBODYS}"),
    "QuotaService/GetQuota": _constant(name=f"quotas/{NOBODYS}"),
    "QuotaService/ListQuotas": _constant(),
    "QuotaService/ReportQuotaUse": _constant(
        uses=[{"quota": f"quotas/{NOBODYS}", "used": 1, "time": {"seconds": 1_800_000_000}}]
    ),
    "ActivityService/GetActivityShares": lambda a: {"name": f"vos/{a.thing.vo}/activityShares"},
    "ActivityService/UpdateActivityShares": lambda a: {
        "activity_shares": {"name": f"vos/{a.thing.vo}/activityShares", "active": True}
    },
    "BackendAdminService/ListBackendDrift": _constant(parent="transferBackends/embedded"),
    "BackendAdminService/PushBackendConfiguration": _constant(name="transferBackends/embedded"),
    "BackendService/GetTransferBackend": _constant(name="transferBackends/embedded"),
    "BackendService/ListTransferBackends": _constant(),
    "ChannelAdminService/CreateChannel": _constant(channel_id="walk", channel=_CHANNEL),
    "ChannelAdminService/DeleteChannel": _named("name", "channel"),
    "ChannelAdminService/UpdateChannel": lambda a: {"channel": {"name": a.thing.channel}},
    "ChannelAdminService/ListHeldFiles": _named("parent", "channel"),
    "ChannelAdminService/ReleaseChannelFiles": _named("name", "channel"),
    "ChannelAdminService/FailChannelFiles": _named("name", "channel"),
    "ReplicaService/BatchRegisterReplicas": lambda a: {"requests": [_copy(a)]},
    "ReplicaService/UnregisterReplica": _removal,
    "ReplicaService/BatchUnregisterReplicas": lambda a: {"requests": [_removal(a)]},
    "StorageAdminService/CreateStorageElement": _constant(
        storage_element_id="walk", storage_element=_ELEMENT
    ),
    "StorageAdminService/UpdateStorageElement": lambda a: {
        "storage_element": {"name": a.thing.element, "description": "walked"}
    },
    "StorageAdminService/DeleteStorageElement": _named("name", "element"),
    "StorageAdminService/BanStorage": lambda a: {
        "parent": a.thing.element,
        "storage_ban": {"operations": [1], "action": 1, "reason": "walked"},
    },
    "StorageAdminService/UnbanStorage": lambda a: {"name": f"{a.thing.element}/bans/{NOBODYS}"},
    "StorageAdminService/ListStorageBans": _named("parent", "element"),
    "StorageService/StatContent": _named("file", "lfn"),
    "TransferAdminService/UpdateTransferJob": lambda a: {
        "transfer_job": {"name": a.thing.transfer, "priority": 4}
    },
    "TransferAdminService/ReleaseHeldFiles": _named("name", "transfer"),
    "TransferAdminService/FailHeldFiles": _named("name", "transfer"),
    "TransferService/BatchSubmitTransferJobs": lambda a: {
        "requests": [{"transfer_job": _transfer(a)}]
    },
    "TransferService/SubmitStagingJob": lambda a: {
        "vo": a.thing.vo,
        "files": [{"source": a.thing.lfn}],
    },
    "TransferService/SubmitDeletionJob": lambda a: {
        "vo": a.thing.vo,
        "files": [{"file": a.thing.lfn}],
    },
    "TransferService/SummarizeTransferJobs": _constant(),
    "TransferService/GetFileTransfer": lambda a: {"name": f"{a.thing.transfer}/files/1"},
    "TransferService/ListFileAttempts": lambda a: {"parent": f"{a.thing.transfer}/files/1"},
    "TransferService/ExplainTransferJob": _named("name", "transfer"),
    "TransferService/BatchCancelTransferJobs": lambda a: {"names": [a.thing.transfer]},
    "TransferService/CancelFileTransfers": lambda a: {
        "parent": a.thing.transfer,
        "names": [f"{a.thing.transfer}/files/1"],
    },
    "TransferService/RetryTransferJob": _named("name", "transfer"),
}

STREAMS: Final[Mapping[str, Callable[[Any], Sequence[Fields]]]] = {
    "TransferService/SubmitTransferJobStream": lambda a: [
        {"header": {"transfer_job": {"vo": a.thing.vo}}},
        {"files": {"files": _transfer(a)["files"]}},
    ],
}
