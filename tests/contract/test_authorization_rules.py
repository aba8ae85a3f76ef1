"""The rules beside the fields of `gridlane.authorization.v1` let through what their comments
describe, and name the field that they refuse."""

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from gridlane.authorization.v1 import (
    credential_service_pb2,
    group_service_pb2,
    issuer_service_pb2,
    permission_pb2,
    quota_service_pb2,
    role_service_pb2,
    signing_key_service_pb2,
    token_service_pb2,
    vo_service_pb2,
)
from gridlane_kit.errors import GridlaneError
from gridlane_kit.validation import validate

UUID = "0192f0c4-0000-7000-8000-000000000000"
ALICE: Mapping[str, str] = {"issuer": "https://iam.example.org/", "subject": "alice"}
ISSUER: Mapping[str, Any] = {"url": "https://iam.example.org/"}
QUOTA: Mapping[str, Any] = {"vo": "cms", "resource": "QUOTA_RESOURCE_JOBS", "limit": "10"}
CSR = "-----BEGIN CERTIFICATE REQUEST-----"


def create(**binding: Any) -> tuple[type[Message], dict[str, Any]]:
    return role_service_pb2.CreateRoleBindingRequest, {"role_binding": binding}


GOOD: Mapping[str, tuple[type[Message], Mapping[str, Any]]] = {
    "an administrator": create(**ALICE, role="ROLE_ADMIN"),
    "a manager of a channel": create(**ALICE, role="ROLE_CHANNEL_MANAGER", channel_uid=UUID),
    "a manager of a VO": create(**ALICE, role="ROLE_VO_MANAGER", vo="cms"),
    "a submitter in all its VOs": create(**ALICE, role="ROLE_SUBMITTER"),
    "a group of job monitors": create(group="/cms/ops", role="ROLE_JOB_MONITOR", vo="cms"),
    "a whole VO that submits": create(group="/cms", role="ROLE_SUBMITTER", vo="cms"),
    "a veto that cancels": create(
        **ALICE, role="ROLE_VETOED_USER", queued_work="WORK_ACTION_CANCEL"
    ),
    "a binding's new end": (
        role_service_pb2.UpdateRoleBindingRequest,
        {
            "role_binding": {"name": f"roleBindings/{UUID}", "expire_time": "2030-01-01T00:00:00Z"},
            "update_mask": "expireTime",
            "revision": "7",
        },
    ),
    "a VO": (vo_service_pb2.CreateVoRequest, {"vo_id": "vo.example.org", "vo": {}}),
    "a group below another": (
        group_service_pb2.CreateGroupRequest,
        {"parent": "vos/cms", "group_id": "muon", "group": {"path": "/cms/production/muon"}},
    ),
    "an issuer": (
        issuer_service_pb2.CreateIssuerRequest,
        {
            "issuer_id": "cms-iam",
            "issuer": {**ISSUER, "vo": "cms", "algorithms": ["ES256"], "enabled": True},
        },
    ),
    "a quota of a VO": (quota_service_pb2.CreateQuotaRequest, {"quota": QUOTA}),
    "a quota over a week": (
        quota_service_pb2.CreateQuotaRequest,
        {"quota": {**QUOTA, "resource": "QUOTA_RESOURCE_TRANSFERRED_BYTES", "window": "604800s"}},
    ),
    "a question about oneself": (
        permission_pb2.CheckPermissionRequest,
        {"permission": "transfer.jobs.cancel"},
    ),
    "a token": (
        credential_service_pb2.PutCredentialRequest,
        {"vo": "cms", "token": {"access_token": "a.b.c"}},
    ),
    "a narrower token": (
        token_service_pb2.ExchangeTokenRequest,
        {"scopes": ["storage.read:/cms"], "active_group": "/cms/ops", "lifetime": "3600s"},
    ),
    "a token to revoke": (token_service_pb2.RevokeTokenRequest, {"name": f"tokens/{UUID}"}),
    "a new key in two days": (
        signing_key_service_pb2.RotateSigningKeyRequest,
        {"publish_for": "172800s"},
    ),
}

BAD: Mapping[str, tuple[type[Message], Mapping[str, Any], str]] = {
    "nobody's role": (*create(role="ROLE_ADMIN"), "issuer and subject"),
    "a subject without its issuer": (*create(subject="alice", role="ROLE_ADMIN"), "issuer"),
    "an identity and a group": (
        *create(**ALICE, group="/cms", role="ROLE_SUBMITTER", vo="cms"),
        "or a group",
    ),
    "no role": (*create(**ALICE), "role_binding.role is set"),
    "everybody's role": (*create(**ALICE, role="ROLE_REGULAR_USER"), "REGULAR_USER"),
    "a role from the future": (*create(**ALICE, role=99), "role_binding.role"),
    "a manager of no VO": (*create(**ALICE, role="ROLE_VO_MANAGER"), "VO_MANAGER"),
    "an administrator of a VO": (*create(**ALICE, role="ROLE_ADMIN", vo="cms"), "ADMIN"),
    "a group of no VO": (*create(group="/cms", role="ROLE_SUBMITTER"), "with a group"),
    "a group of another VO": (
        *create(group="/cmsx/ops", role="ROLE_SUBMITTER", vo="cms"),
        "lies below",
    ),
    "a group that climbs": (
        *create(group="/cms/../atlas", role="ROLE_SUBMITTER", vo="cms"),
        "role_binding.group",
    ),
    "a manager of no channel": (*create(**ALICE, role="ROLE_CHANNEL_MANAGER"), "channel_uid"),
    "a submitter of a channel": (
        *create(**ALICE, role="ROLE_SUBMITTER", channel_uid=UUID),
        "channel_uid",
    ),
    "held work without a veto": (
        *create(**ALICE, role="ROLE_SUBMITTER", running_work="WORK_ACTION_HOLD"),
        "VETOED_USER",
    ),
    "a change of no binding": (
        role_service_pb2.UpdateRoleBindingRequest,
        {"role_binding": {"expire_time": "2030-01-01T00:00:00Z"}},
        "name is set",
    ),
    "a holder that changes": (
        role_service_pb2.UpdateRoleBindingRequest,
        {
            "role_binding": {"name": f"roleBindings/{UUID}", "subject": "bob"},
            "updateMask": "subject",
        },
        "update_mask",
    ),
    "a VO with a slash": (
        vo_service_pb2.CreateVoRequest,
        {"vo_id": "cms/groups", "vo": {}},
        "vo_id",
    ),
    "a VO without a name": (vo_service_pb2.CreateVoRequest, {"vo": {}}, "vo_id"),
    "a change of no VO": (
        vo_service_pb2.UpdateVoRequest,
        {"vo": {"description": "physics"}},
        "vo.name is set",
    ),
    "a group outside its VO": (
        group_service_pb2.CreateGroupRequest,
        {"parent": "vos/cms", "group_id": "ops", "group": {"path": "/atlas/ops"}},
        "group.path",
    ),
    "a group of nobody": (
        group_service_pb2.CreateGroupRequest,
        {"group_id": "ops", "group": {"path": "/atlas/ops"}},
        "parent",
    ),
    "an issuer of no VO": (
        issuer_service_pb2.CreateIssuerRequest,
        {"issuer_id": "cms-iam", "issuer": ISSUER},
        "issuer.vo are set",
    ),
    "an issuer without TLS": (
        issuer_service_pb2.CreateIssuerRequest,
        {
            "issuer_id": "cms-iam",
            "issuer": {**ISSUER, "url": "http://iam.example.org/", "vo": "cms"},
        },
        "issuer.url",
    ),
    "an issuer whose identities could be taken for others": (
        issuer_service_pb2.CreateIssuerRequest,
        {
            "issuer_id": "cms-iam",
            "issuer": {"url": "https://iam.example.org/|alice", "vo": "cms"},
        },
        "issuer.url",
    ),
    "keys fetched in the clear": (
        issuer_service_pb2.CreateIssuerRequest,
        {
            "issuer_id": "cms-iam",
            "issuer": {**ISSUER, "vo": "cms", "jwks_uri": "http://iam.example.org/jwk"},
        },
        "issuer.jwks_uri",
    ),
    "keys from two places": (
        issuer_service_pb2.CreateIssuerRequest,
        {
            "issuer_id": "cms-iam",
            "issuer": {
                **ISSUER,
                "vo": "cms",
                "jwks_uri": "https://iam.example.org/jwk",
                "jwks": "{}",
            },
        },
        "not both",
    ),
    "the algorithm none": (
        issuer_service_pb2.CreateIssuerRequest,
        {"issuer_id": "cms-iam", "issuer": {**ISSUER, "vo": "cms", "algorithms": ["none"]}},
        "issuer.algorithms",
    ),
    "a quota of nothing": (
        quota_service_pb2.CreateQuotaRequest,
        {"quota": {"vo": "cms"}},
        "quota.resource",
    ),
    "a quota of a user and a group": (
        quota_service_pb2.CreateQuotaRequest,
        {"quota": {**QUOTA, **ALICE, "group": "/cms"}},
        "or a group",
    ),
    "a window for what is counted as it is": (
        quota_service_pb2.CreateQuotaRequest,
        {"quota": {**QUOTA, "window": "604800s"}},
        "quota.window",
    ),
    "a sum without a window": (
        quota_service_pb2.CreateQuotaRequest,
        {"quota": {**QUOTA, "resource": "QUOTA_RESOURCE_CORE_SECONDS"}},
        "quota.window",
    ),
    "a permission that is none": (
        permission_pb2.CheckPermissionRequest,
        {"permission": "everything"},
        "permission",
    ),
    "no questions": (permission_pb2.BatchCheckPermissionsRequest, {}, "requests"),
    "a credential of no kind": (
        credential_service_pb2.PutCredentialRequest,
        {"vo": "cms"},
        "credential",
    ),
    "a key in the place of a chain": (
        credential_service_pb2.PutCredentialRequest,
        {
            "proxy": {
                "delegation": f"delegations/{UUID}",
                "certificate_chain_pem": "-----BEGIN PRIVATE KEY-----",
            }
        },
        "proxy.certificate_chain_pem",
    ),
    "a sub-proxy of a day": (
        credential_service_pb2.SignSubProxyRequest,
        {"vo": "cms", "csr_pem": CSR, "resource": "jobs/1", "lifetime": "86400s"},
        "lifetime",
    ),
    "an access token for everybody": (
        credential_service_pb2.FetchAccessTokenRequest,
        {"vo": "cms", "scopes": ["storage.read:/"], "resource": "jobs/1"},
        "audiences",
    ),
    "two scopes in one": (
        token_service_pb2.ExchangeTokenRequest,
        {"scopes": ["storage.read:/cms compute.create"]},
        "scopes[0]",
    ),
    "an active group that is not the user's": (
        token_service_pb2.CreateTokenRequest,
        {"subject": "alice", "groups": ["/cms"], "active_group": "/cms/ops"},
        "one of groups",
    ),
    "a token for a year": (
        token_service_pb2.CreateTokenRequest,
        {"subject": "alice", "lifetime": "31536000s"},
        "lifetime",
    ),
    "a key that is found out, in two days": (
        signing_key_service_pb2.RotateSigningKeyRequest,
        {"publish_for": "172800s", "revoke_present": True},
        "revoke_present",
    ),
}


@pytest.mark.parametrize(("kind", "content"), GOOD.values(), ids=GOOD.keys())
def test_what_the_comments_describe_is_accepted(
    kind: type[Message], content: dict[str, Any]
) -> None:
    validate(ParseDict(content, kind()))


@pytest.mark.parametrize(("kind", "content", "named"), BAD.values(), ids=BAD.keys())
def test_what_breaks_a_rule_is_refused_and_named(
    kind: type[Message], content: dict[str, Any], named: str
) -> None:
    with pytest.raises(GridlaneError) as refused:
        validate(ParseDict(content, kind()))
    (bad,) = refused.value.details
    assert isinstance(bad, error_details_pb2.BadRequest)
    said = [f"{violation.field}: {violation.description}" for violation in bad.field_violations]
    assert any(named in text for text in said), said


def test_a_batch_of_questions_is_not_refused_for_one_of_them() -> None:
    good = permission_pb2.CheckPermissionRequest(permission="transfer.jobs.cancel")
    validate(
        permission_pb2.BatchCheckPermissionsRequest(
            requests=[good, permission_pb2.CheckPermissionRequest(permission="nonsense")]
        )
    )
