"""Questions about permissions: who may ask about whom, and under which revision of the policy.

Responsible for the rules of `CheckPermission` and `BatchCheckPermissions`. What the answer is and
what it rests on is `judgement`'s.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gridlane.authorization.v1 import permission_pb2, policy_pb2
from gridlane.type.v1 import error_reason_pb2, principal_pb2
from gridlane_authorization import judgement
from gridlane_authorization.judgement import Ground, Question, Target
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.decision import Decision, Reason, Visibility, decide
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import (
    SERVICE_ISSUER,
    Principal,
    PrincipalKind,
    normal_path,
    owner_key,
)
from gridlane_kit.permissions import PERMISSIONS
from gridlane_kit.policy import IN_ITS_VOS, Binding, Policy, PolicyHolder, Role
from gridlane_kit.steps import denial
from gridlane_kit.validation import validate

CHECK: Final = "authorization.permissions.check"
_VIEW_ROLES: Final = "authorization.roles.view"
WAIT_S: Final = 5.0
"""So long a call waits for the revision that it asks for."""
_TO_ANSWER_S: Final = 0.1
"""What is left of the deadline to say that the revision did not come."""
_AT_A_TIME: Final = 10
"""So many questions are answered before others get their turn."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose right is asked for, what counts of it, and whether its roles may be spoken of."""

    principal: Principal
    held: Sequence[Binding]
    roles_known: bool


class Checks:
    """Answers what somebody may do.

    Parameters:
        policy: the policy in force in this process.
    """

    def __init__(self, policy: PolicyHolder) -> None:
        self._policy = policy
        self._changed = asyncio.Event()
        policy.subscribe(self._tell)

    async def check(
        self, request: permission_pb2.CheckPermissionRequest, call: Call
    ) -> permission_pb2.CheckPermissionResponse:
        """Answers one question.

        Raises:
            GridlaneError: INVALID_FIELDS, REVISION_NOT_REACHED, POLICY_STALE; PERMISSION_DENIED:
                the caller may not ask about the principal, which may not exist.
        """
        _require_sense(request)
        policy = await self._reached(request.minimum_revision, call)
        return _answered(request, call, policy)

    async def check_many(
        self, request: permission_pb2.BatchCheckPermissionsRequest, call: Call
    ) -> permission_pb2.BatchCheckPermissionsResponse:
        """Answers many questions under one revision.

        Raises:
            GridlaneError: REVISION_NOT_REACHED, POLICY_STALE.
        """
        refused = [_refusal(asked) for asked in request.requests]
        wanted = [
            asked.minimum_revision
            for asked, error in zip(request.requests, refused, strict=True)
            if error is None
        ]
        policy = await self._reached(max(wanted, default=0), call)
        response = permission_pb2.BatchCheckPermissionsResponse(policy_revision=policy.revision)
        for number, (asked, error) in enumerate(zip(request.requests, refused, strict=True)):
            response.results.append(_result(asked, error, call, policy))
            if number % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
        return response

    async def _reached(self, revision: int, call: Call) -> Policy:
        """Returns the policy in force once it has a revision.

        Raises:
            GridlaneError: REVISION_NOT_REACHED.
        """
        left_s = call.remaining()
        wait_s = WAIT_S if left_s is None else min(WAIT_S, max(0.0, left_s - _TO_ANSWER_S))
        try:
            async with asyncio.timeout(wait_s):
                while self._policy.current.revision < revision:
                    await self._changed.wait()
        except TimeoutError:
            raise errors.revision_not_reached(revision, self._policy.current.revision) from None
        return self._policy.current

    def _tell(self, policy: Policy) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _require_sense(request: permission_pb2.CheckPermissionRequest) -> None:
    """Refuses what the rules beside the fields cannot.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    wrong = []
    if request.permission not in PERMISSIONS:
        wrong.append(("permission", "one that a method declares; there is no such permission"))
    who = request.principal
    if request.HasField("principal"):
        if not (who.issuer and who.subject):
            wrong.append(("principal", "issuer and subject are set, or the field is not"))
        if who.kind == principal_pb2.PRINCIPAL_KIND_JOB:
            wrong.append(("principal.kind", "a user or a service: a job's token is its owner's"))
    path = request.target.path
    if path and normal_path(path) is None:
        wrong.append(("target.path", "absolute, and without '.', '..' and empty parts"))
    if wrong:
        raise errors.invalid(wrong)


def _refusal(request: permission_pb2.CheckPermissionRequest) -> GridlaneError | None:
    """Why a question of a batch cannot be asked at all."""
    try:
        validate(request)
        _require_sense(request)
    except GridlaneError as error:
        return error
    return None


def _result(
    request: permission_pb2.CheckPermissionRequest,
    refused: GridlaneError | None,
    call: Call,
    policy: Policy,
) -> permission_pb2.PermissionResult:
    if refused is None:
        try:
            return permission_pb2.PermissionResult(permission=_answered(request, call, policy))
        except GridlaneError as error:
            if policy.closed:
                raise
            refused = error
    return permission_pb2.PermissionResult(status=refused.to_status())


def _answered(
    request: permission_pb2.CheckPermissionRequest, call: Call, policy: Policy
) -> permission_pb2.CheckPermissionResponse:
    now = now_us()
    subject = _subject(request, call.principal, policy, now)
    ground = Ground(subject.held, policy)
    question = Question(subject.principal, request.permission, _target(request))
    given = judgement.answer(question, ground, now)
    response = permission_pb2.CheckPermissionResponse(
        allowed=given.allowed,
        rule=given.rule,
        scopes_needed=sorted(given.scopes_needed),
        policy_revision=policy.revision,
        reach=_reach(given.visibility, subject.principal),
    )
    if given.reason is not None:
        response.reason = error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{given.reason.name}")
    if given.reason is Reason.PERMISSION_DENIED and subject.roles_known:
        role = judgement.role_needed(question, ground, now)
        if role is not None:
            response.role_needed = policy_pb2.Role.Value(f"ROLE_{role.name}")
    ends_us = judgement.holds_until(question, given, ground, now)
    if ends_us is not None:
        response.expire_time.CopyFrom(to_timestamp(ends_us))
    return response


def _subject(
    request: permission_pb2.CheckPermissionRequest, caller: Principal, policy: Policy, now: int
) -> _Subject:
    """Returns whose right is asked for; decided anew, since the policy may have been waited for.

    Raises:
        GridlaneError: PERMISSION_DENIED, the same whether somebody is not known or may not be asked
            about.
    """
    right = decide(caller, CHECK, policy, now)
    if not right.allowed:
        raise denial(right, CHECK)
    who = request.principal
    if not request.HasField("principal") or owner_key(who.issuer, who.subject) == caller.owner:
        return _Subject(caller, policy.grants(caller, now).bindings, roles_known=True)
    named = _named(who)
    if right.visibility.everything:
        known = decide(caller, _VIEW_ROLES, policy, now).visibility.everything
        return _Subject(named, policy.grants(named, now).bindings, roles_known=known)
    return _member(named, right, policy, now)


def _member(named: Principal, right: Decision, policy: Policy, now: int) -> _Subject:
    """A principal as the manager of a VO may ask about it: one bound there, as far as it is there.

    What it is elsewhere is not the manager's to know, but that it is an administrator, or vetoed.
    """
    managed = right.visibility.vos
    itself = replace(named, groups=frozenset(), active_group="")
    if not any(binding.vo in managed for binding in policy.grants(itself, now).bindings):
        raise errors.permission_denied(CHECK)
    inside = replace(named, vos=named.vos & managed)
    held = policy.grants(inside, now).bindings
    return _Subject(
        inside, [binding for binding in held if _counts_in(binding, managed)], roles_known=True
    )


def _counts_in(binding: Binding, vos: frozenset[str]) -> bool:
    everywhere = not binding.vo and binding.role in IN_ITS_VOS
    return everywhere or binding.vo in vos or binding.role in (Role.ADMIN, Role.VETOED)


def _named(who: principal_pb2.Principal) -> Principal:
    """A principal as the question describes it: nobody's token narrows it."""
    service = who.issuer == SERVICE_ISSUER
    return Principal(
        issuer=who.issuer,
        subject=who.subject,
        vos=frozenset(who.vos),
        groups=frozenset(who.groups),
        active_group=who.active_group,
        kind=PrincipalKind.SERVICE if service else PrincipalKind.USER,
    )


def _target(request: permission_pb2.CheckPermissionRequest) -> Target | None:
    if not request.HasField("target"):
        return None
    target, owner = request.target, request.target.owner
    return Target(
        vo=target.vo,
        channel=target.channel_uid,
        owner=owner_key(owner.issuer, owner.subject) if owner.subject else "",
        group=owner.active_group,
        path=target.path,
    )


def _reach(visibility: Visibility, principal: Principal) -> permission_pb2.PermissionReach:
    return permission_pb2.PermissionReach(
        everything=visibility.everything,
        own=visibility.owner is not None,
        active_group=principal.active_group if visibility.groups else "",
        vos=sorted(visibility.vos),
        channel_uids=sorted(visibility.channels),
    )
