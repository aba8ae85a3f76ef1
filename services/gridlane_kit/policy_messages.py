"""The policy as the contract carries it: bindings, changes, snapshots in parts.

Responsible for the mapping between `gridlane.authorization.v1` and the forms that decisions are
made from (`policy`), in both directions. Not for who sends what when (`policy_feed`).
"""

import sys
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from gridlane.authorization.v1 import policy_pb2, policy_service_pb2
from gridlane_kit.clock import from_timestamp, now_us, to_timestamp
from gridlane_kit.policy import (
    Binding,
    Policy,
    PolicyChange,
    PolicyDraft,
    Role,
    WorkAction,
)

# A binding's texts are at most 610 characters long (its columns), so a full part of a snapshot is
# below 2.5 MB: a message may have 4 MiB.
PART_SIZE: Final = 1000
"""Bindings, and virtual organisations, and revoked tokens, in one part of a snapshot."""

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
        revoked_tokens=map(_revoked_message, change.revoked.items()),
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
    )


def snapshot_parts(epoch: str, policy: Policy) -> Iterator[policy_service_pb2.PolicySnapshot]:
    """Yields the whole policy in parts of at most `PART_SIZE` bindings, each made when it is taken.

    Parameters:
        epoch: in which the policy's revision counts.
    """
    bindings, vos, now = policy.bindings, sorted(policy.vos), now_us()
    revoked = [token for token in policy.revoked.items() if token[1] > now]
    count = max(len(bindings), len(vos), len(revoked))
    settings = policy_service_pb2.PolicySettings(jobs_vo_readable=policy.jobs_vo_readable)
    for start in range(0, max(count, 1), PART_SIZE):
        end = start + PART_SIZE
        yield policy_service_pb2.PolicySnapshot(
            epoch=epoch,
            revision=policy.revision,
            bindings=map(binding_message, bindings[start:end]),
            vos=vos[start:end],
            settings=settings,
            last=end >= count,
            revoked_tokens=map(_revoked_message, revoked[start:end]),
        )


def take_part(draft: PolicyDraft, part: policy_service_pb2.PolicySnapshot) -> Policy | None:
    """Takes a part of a snapshot into a draft.

    Returns:
        The policy, when that was the last part.

    Raises:
        KeyError: as `binding_of`.
    """
    revoked = dict(map(_revoked_of, part.revoked_tokens))
    draft.add(map(binding_of, part.bindings), part.vos, revoked)
    if not part.last:
        return None
    return draft.finished(part.revision, jobs_vo_readable=part.settings.jobs_vo_readable)


def _revoked_message(token: tuple[str, int]) -> policy_service_pb2.RevokedToken:
    jti, expires_us = token
    return policy_service_pb2.RevokedToken(jti=jti, expire_time=to_timestamp(expires_us))


def _revoked_of(message: policy_service_pb2.RevokedToken) -> tuple[str, int]:
    return message.jti, from_timestamp(message.expire_time)
