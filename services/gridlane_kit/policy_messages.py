"""The policy as the contract carries it: bindings, changes, snapshots in parts.

Responsible for the mapping between `gridlane.authorization.v1` and the forms that decisions are
made from (`policy`), in both directions. Not for who sends what when (`policy_feed`).
"""

import sys
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from gridlane.authorization.v1 import issuer_pb2, policy_pb2, policy_service_pb2
from gridlane_kit.clock import from_timestamp, now_us, to_duration, to_timestamp
from gridlane_kit.issuers import Issuer, PolicyIssuer
from gridlane_kit.logs import logger
from gridlane_kit.policy import (
    Binding,
    Policy,
    PolicyChange,
    PolicyDraft,
    Role,
    WorkAction,
)

# A binding's texts are at most 610 characters long (its columns) and a group's path 255, so a full
# part of a snapshot is below 3 MB: a message may have 4 MiB.
PART_SIZE: Final = 1000
"""Bindings, virtual organisations, revoked tokens, declared groups, in one part of a snapshot."""

ISSUERS_PART: Final = 8
"""Issuers in one part: each may bring its keys, 64 KiB of them."""

_log = logger("policy")
_MICROS: Final = 1_000_000

_ROLES: Final = MappingProxyType(
    {
        Role.ADMIN: policy_pb2.ROLE_ADMIN,
        Role.CHANNEL_MANAGER: policy_pb2.ROLE_CHANNEL_MANAGER,
        Role.VO_MANAGER: policy_pb2.ROLE_VO_MANAGER,
        Role.SUBMITTER: policy_pb2.ROLE_SUBMITTER,
        Role.REGULAR: policy_pb2.ROLE_REGULAR_USER,
        Role.VETOED: policy_pb2.ROLE_VETOED_USER,
        Role.JOB_SHARER: policy_pb2.ROLE_JOB_SHARER,
        Role.PILOT: policy_pb2.ROLE_PILOT,
        Role.JOB_MONITOR: policy_pb2.ROLE_JOB_MONITOR,
    }
)
_ROLES_OF: Final = MappingProxyType({number: role for role, number in _ROLES.items()})
_ACTIONS: Final = MappingProxyType(
    {
        WorkAction.KEEP: policy_pb2.WORK_ACTION_KEEP,
        WorkAction.HOLD: policy_pb2.WORK_ACTION_HOLD,
        WorkAction.CANCEL: policy_pb2.WORK_ACTION_CANCEL,
    }
)
_ACTIONS_OF: Final = MappingProxyType({number: action for action, number in _ACTIONS.items()})


def binding_message(binding: Binding) -> policy_pb2.RoleBinding:
    """Returns the contract's form of a binding."""
    message = policy_pb2.RoleBinding(
        issuer=binding.issuer,
        subject=binding.subject,
        role=_ROLES[binding.role],
        vo=binding.vo,
        channel_uid=binding.channel_uid,
        group=binding.group,
    )
    if binding.role is Role.VETOED:
        message.queued_work = _ACTIONS[binding.queued_work]
        message.running_work = _ACTIONS[binding.running_work]
    if binding.expires_us is not None:
        message.expire_time.CopyFrom(to_timestamp(binding.expires_us))
    return message


def binding_of(message: policy_pb2.RoleBinding) -> Binding:
    """Reads a binding.

    Raises:
        KeyError: a role, or an action on work, that this version does not know: the policy cannot
            be evaluated.
    """
    expires = message.HasField("expire_time")
    return Binding(
        # Few differ, and there may be very many bindings.
        sys.intern(message.issuer),
        message.subject,
        _ROLES_OF[message.role],
        sys.intern(message.vo),
        message.channel_uid,
        from_timestamp(message.expire_time) if expires else None,
        sys.intern(message.group),
        _ACTIONS_OF[message.queued_work or policy_pb2.WORK_ACTION_HOLD],
        _ACTIONS_OF[message.running_work or policy_pb2.WORK_ACTION_KEEP],
    )


def change_message(change: PolicyChange) -> policy_service_pb2.PolicyChange:
    """Returns the contract's form of a change."""
    message = policy_service_pb2.PolicyChange(
        revision=change.revision,
        added_bindings=map(binding_message, change.added),
        removed_bindings=map(binding_message, change.removed),
        added_vos=sorted(change.added_vos),
        removed_vos=sorted(change.removed_vos),
        added_groups=sorted(change.added_groups),
        removed_groups=sorted(change.removed_groups),
        revoked_tokens=map(_revoked_message, change.revoked.items()),
        set_issuers=map(_policy_issuer_message, change.set_issuers),
        removed_issuers=sorted(change.removed_issuers),
    )
    if change.jobs_vo_readable is not None:
        message.settings.jobs_vo_readable = change.jobs_vo_readable
        message.settings.SetInParent()
    return message


def change_of(message: policy_service_pb2.PolicyChange) -> PolicyChange:
    """Reads a change.

    Raises:
        KeyError: as `binding_of`.
    """
    settings = message.settings if message.HasField("settings") else None
    return PolicyChange(
        revision=message.revision,
        added=[binding_of(binding) for binding in message.added_bindings],
        removed=[binding_of(binding) for binding in message.removed_bindings],
        added_vos=frozenset(message.added_vos),
        removed_vos=frozenset(message.removed_vos),
        jobs_vo_readable=None if settings is None else settings.jobs_vo_readable,
        revoked=dict(map(_revoked_of, message.revoked_tokens)),
        added_groups=frozenset(message.added_groups),
        removed_groups=frozenset(message.removed_groups),
        set_issuers=_believable(message.set_issuers),
        removed_issuers=frozenset(message.removed_issuers) | _names(message.set_issuers),
    )


def snapshot_parts(epoch: str, policy: Policy) -> Iterator[policy_service_pb2.PolicySnapshot]:
    """Yields the whole policy in parts of at most `PART_SIZE` bindings, each made when it is taken.

    Parameters:
        epoch: in which the policy's revision counts.
    """
    bindings, vos, now = policy.bindings, sorted(policy.vos), now_us()
    groups = sorted(policy.groups)
    revoked = [token for token in policy.revoked.items() if token[1] > now]
    count = max(len(bindings), len(vos), len(revoked), len(groups))
    settings = policy_service_pb2.PolicySettings(jobs_vo_readable=policy.jobs_vo_readable)
    issuers = [policy.issuers[name] for name in sorted(policy.issuers)]
    parts = max(-(-count // PART_SIZE), -(-len(issuers) // ISSUERS_PART), 1)
    for number in range(parts):
        start, end = number * PART_SIZE, (number + 1) * PART_SIZE
        of_issuers = slice(number * ISSUERS_PART, (number + 1) * ISSUERS_PART)
        yield policy_service_pb2.PolicySnapshot(
            epoch=epoch,
            revision=policy.revision,
            bindings=map(binding_message, bindings[start:end]),
            vos=vos[start:end],
            settings=settings,
            last=number == parts - 1,
            revoked_tokens=map(_revoked_message, revoked[start:end]),
            groups=groups[start:end],
            issuers=map(_policy_issuer_message, issuers[of_issuers]),
        )


def take_part(draft: PolicyDraft, part: policy_service_pb2.PolicySnapshot) -> Policy | None:
    """Takes a part of a snapshot into a draft.

    Returns:
        The policy, when that was the last part.

    Raises:
        KeyError: as `binding_of`.
    """
    revoked = dict(map(_revoked_of, part.revoked_tokens))
    issuers = _believable(part.issuers)
    draft.add(map(binding_of, part.bindings), part.vos, revoked, part.groups, issuers)
    if not part.last:
        return None
    return draft.finished(part.revision, jobs_vo_readable=part.settings.jobs_vo_readable)


def issuer_message(
    issuer: Issuer, name: str, origin: issuer_pb2.IssuerOrigin.ValueType
) -> issuer_pb2.Issuer:
    """Returns the contract's form of an issuer that is believed, without how its keys are."""
    message = issuer_pb2.Issuer(
        name=name,
        url=issuer.url,
        vo=issuer.vo,
        audiences=issuer.audiences,
        algorithms=sorted(issuer.algorithms),
        jwks_uri=issuer.jwks_uri,
        jwks=issuer.jwks,
        enabled=True,
        origin=origin,
        max_group_age=to_duration(round(issuer.max_group_age_s * _MICROS)),
    )
    if issuer.max_token_lifetime_s is not None:
        lifetime_us = round(issuer.max_token_lifetime_s * _MICROS)
        message.max_token_lifetime.CopyFrom(to_duration(lifetime_us))
    return message


def issuer_of(message: issuer_pb2.Issuer) -> PolicyIssuer:
    """Reads an issuer that is believed; what is unset has its default.

    Raises:
        ValidationError: it is none that this version could believe; names the fields.
    """
    terms: dict[str, Any] = {
        "name": message.name,
        "url": message.url,
        "vo": message.vo,
        "audiences": tuple(message.audiences),
        "jwks_uri": message.jwks_uri,
        "jwks": message.jwks,
    }
    if message.algorithms:
        terms["algorithms"] = tuple(sorted(message.algorithms))
    for field in ("max_group_age", "max_token_lifetime"):
        if message.HasField(field):
            terms[f"{field}_s"] = getattr(message, field).ToMicroseconds() / _MICROS
    return PolicyIssuer(**terms)


def _believable(messages: Iterable[issuer_pb2.Issuer]) -> tuple[PolicyIssuer, ...]:
    """Those that this version can believe. It is no reason to know nothing of anybody that it does
    not understand one, of whom it believes nothing."""
    found = []
    for message in messages:
        try:
            found.append(issuer_of(message))
        except ValidationError as error:
            _log.error(
                "an issuer of the policy is not believed: it is not understood",
                issuer=message.name,
                problem=error.errors(include_url=False, include_input=False)[0]["msg"],
            )
    return tuple(found)


def _names(messages: Iterable[issuer_pb2.Issuer]) -> frozenset[str]:
    """The names of all: one that is not understood takes the place of what it was before."""
    return frozenset(message.name for message in messages)


def _policy_issuer_message(issuer: PolicyIssuer) -> issuer_pb2.Issuer:
    return issuer_message(issuer, issuer.name, issuer_pb2.ISSUER_ORIGIN_POLICY)


def _revoked_message(token: tuple[str, int]) -> policy_service_pb2.RevokedToken:
    jti, expires_us = token
    return policy_service_pb2.RevokedToken(jti=jti, expire_time=to_timestamp(expires_us))


def _revoked_of(message: policy_service_pb2.RevokedToken) -> tuple[str, int]:
    return message.jti, from_timestamp(message.expire_time)
