"""An error becomes a status with ErrorInfo first and its details after it."""

import inspect
import typing

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from gridlane_kit import errors
from gridlane_kit.errors import CODES, ErrorReason, GridlaneError

MADE = {
    "token_missing": errors.token_missing(),
    "token_invalid": errors.token_invalid(),
    "token_expired": errors.token_expired(),
    "permission_denied": errors.permission_denied("workload.jobs.submit"),
    "issuer_unavailable": errors.issuer_unavailable(),
    "group_not_asserted": errors.group_not_asserted("/cms/production"),
    "group_not_declared": errors.group_not_declared("/cms/production", "cms"),
    "caller_vetoed": errors.caller_vetoed(),
    "scope_too_narrow": errors.scope_too_narrow("workload.jobs.submit", "compute.create"),
    "malformed_message": errors.malformed_message(),
    "invalid": errors.invalid([("job.vo", "at most 200 characters")]),
    "address_forbidden": errors.address_forbidden("issuer.jwks_uri", "https://10.0.0.1/"),
    "capability_missing": errors.capability_missing(
        [("transfer_job.target_qos", "leave it empty")], "TARGET_QOS", "embedded"
    ),
    "request_id_too_old": errors.request_id_too_old(30),
    "token_not_ours": errors.token_not_ours("page_token"),
    "filter_unsupported": errors.filter_unsupported("a=b", "one of: state"),
    "no_storage_element": errors.no_storage_element("srm://x/y", "url"),
    "vo_ambiguous": errors.vo_ambiguous({"cms", "atlas"}),
    "not_found": errors.not_found("jobs/1"),
    "request_id_reused": errors.request_id_reused(),
    "already_exists": errors.already_exists("channels/a"),
    "illegal_transition": errors.illegal_transition("jobs/1", "DONE", "RUNNING"),
    "precondition": errors.precondition("jobs/1", "has no input"),
    "revision_conflict": errors.revision_conflict("jobs/1"),
    "last_admin": errors.last_admin("roleBindings/1"),
    "in_use": errors.in_use("vos/cms", "issuers/cms-iam"),
    "position_trimmed": errors.position_trimmed("e:1", "e:7"),
    "overloaded": errors.overloaded("unary", 0.5),
    "too_many_exchanges": errors.too_many_exchanges(1000, 6, 60.0),
    "no_space": errors.no_space("local"),
    "store_full": errors.store_full(),
    "draining": errors.draining("e", 7),
    "watcher_too_slow": errors.watcher_too_slow("e", 7),
    "peer_unavailable": errors.peer_unavailable("transfer"),
    "store_unavailable": errors.store_unavailable(),
    "policy_stale": errors.policy_stale(),
    "revision_not_reached": errors.revision_not_reached(1042, 1041),
    "deadline_exceeded": errors.deadline_exceeded(),
    "not_implemented": errors.not_implemented("X/Y"),
    "checksum_mismatch": errors.checksum_mismatch("ADLER32:1", "ADLER32:2"),
    "internal": errors.internal("abc"),
}

NOT_MADE_YET = {
    ErrorReason.CREDENTIAL_MISSING,
    ErrorReason.CREDENTIAL_EXPIRED,
    ErrorReason.QUOTA_EXCEEDED,
}
"""Reasons of methods that answer UNIMPLEMENTED so far."""


def details(status: status_pb2.Status) -> list[object]:
    kinds: tuple[type[Message], ...] = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.RetryInfo,
    )
    unpacked: list[object] = []
    for detail in status.details:
        messages = [kind() for kind in kinds]
        unpacked.append(next(message for message in messages if detail.Unpack(message)))
    return unpacked


def test_every_constructor_and_every_reason_is_covered_here() -> None:
    constructors = {
        name
        for name, function in inspect.getmembers(errors, inspect.isfunction)
        if not name.startswith("_")
        and typing.get_type_hints(function).get("return") is GridlaneError
    }
    assert constructors == MADE.keys()
    assert {error.reason for error in MADE.values()} == set(ErrorReason) - NOT_MADE_YET


@pytest.mark.parametrize("error", MADE.values(), ids=MADE.keys())
def test_a_status_has_code_message_and_error_info(error: GridlaneError) -> None:
    status = error.to_status()
    info = details(status)[0]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert status.code == CODES[error.reason].value[0]
    assert status.message == error.message == str(error)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        error.reason.value,
        "gridlane",
        error.metadata,
    )


def test_invalid_fields_are_named_one_by_one() -> None:
    _, bad = details(errors.invalid([("a", "x"), ("b.c", "y")]).to_status())
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("a", "x"), ("b.c", "y")]


def test_of_very_many_violations_as_many_are_told_as_a_status_has_room_for() -> None:
    found = [(f"job.inputs[{i}].path", "is not acceptable here") for i in range(1000)]
    for error in (errors.invalid(found), errors.capability_missing(found, "QUEUE")):
        status = error.to_status()
        _, bad = details(status)
        assert isinstance(bad, error_details_pb2.BadRequest)
        *told, last = ((v.field, v.description) for v in bad.field_violations)
        assert told == found[: len(told)]
        assert len(told) > 5
        assert last == ("…", f"and {1000 - len(told)} more")
        assert status.ByteSize() < 4096


def test_a_missing_capability_names_field_cure_and_backend() -> None:
    error = MADE["capability_missing"]
    _, bad = details(error.to_status())
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("transfer_job.target_qos", "leave it empty")
    ]
    assert error.metadata == {
        "field": "transfer_job.target_qos",
        "capability": "TARGET_QOS",
        "backend": "embedded",
    }


def test_an_illegal_transition_says_from_and_to() -> None:
    error = MADE["illegal_transition"]
    _, failure = details(error.to_status())
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    assert failure.violations[0].subject == "jobs/1"
    assert error.metadata == {"name": "jobs/1", "from": "DONE", "to": "RUNNING"}


def test_an_illegal_transition_says_what_may_follow() -> None:
    error = errors.illegal_transition("jobs/1", "WAITING", "DONE", ["MATCHED", "KILLED"])
    assert error.metadata["allowed"] == "MATCHED,KILLED"
    assert error.message.endswith("cannot become DONE, only MATCHED or KILLED")
    final = errors.illegal_transition("jobs/1", "DELETED", "DONE", [])
    assert final.metadata["allowed"] == ""
    assert final.message.endswith("cannot become DONE: nothing follows")


@pytest.mark.parametrize(
    "name", ["overloaded", "store_full", "store_unavailable", "policy_stale", "draining"]
)
def test_what_is_worth_a_retry_says_when(name: str) -> None:
    retry = details(MADE[name].to_status())[-1]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() >= 500


def test_an_overload_names_its_limit() -> None:
    assert MADE["overloaded"].code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert MADE["overloaded"].metadata == {"limit": "unary"}


@pytest.mark.parametrize(
    ("permission", "roles"),
    [
        ("workload.jobs.submit", "ADMIN SUBMITTER"),
        ("workload.jobs.kill", "ADMIN VO_MANAGER JOB_SHARER"),
        ("transfer.jobs.cancel", "ADMIN CHANNEL_MANAGER VO_MANAGER JOB_SHARER"),
        ("authorization.vos.manage", "ADMIN"),
    ],
)
def test_a_denial_names_the_roles_that_would_do(permission: str, roles: str) -> None:
    denied = errors.permission_denied(permission, "jobs/1")
    assert denied.metadata == {"permission": permission, "resource": "jobs/1", "roles": roles}
    assert denied.message.endswith(f"for jobs/1: {' or '.join(roles.split())} does")


def test_a_denial_of_what_no_role_gives_names_none() -> None:
    assert "roles" not in errors.permission_denied("authorization.tokens.mint").metadata
