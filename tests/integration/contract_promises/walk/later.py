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


def _named(name: str, noun: str = "") -> Callable[[AboutThing], Fields]:
    return lambda about: {name: getattr(about.thing, noun or name)}


def _constant(**fields: Any) -> Callable[[AboutThing], Fields]:
    return lambda _: fields


def _quota(about: AboutThing) -> Fields:
    return {"quota": {"vo": about.thing.vo, "resource": 1, "limit": 1}}


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
}

STREAMS: Final[Mapping[str, Callable[[Any], Sequence[Fields]]]] = {}
