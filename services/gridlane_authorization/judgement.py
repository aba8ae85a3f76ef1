"""Answers to "may this principal do that to this?", with their grounds.

Responsible for what follows from a decision once the target is known: whether it lies within reach,
which of the roles held gives that, which role or scope lacks, and until when the answer holds.
Pure: the decision itself is the kit's (`gridlane_kit.decision`), who may ask is `checks`'.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from urllib.parse import quote

from gridlane_kit.decision import NOTHING, Decision, Reason, Visibility, decide, scope_covers
from gridlane_kit.identity import Principal
from gridlane_kit.permissions import PERMISSIONS
from gridlane_kit.policy import IN_ITS_VOS, Binding, Policy, Role

_NONE: Final[frozenset[str]] = frozenset()

# What these make belongs to a VO that must exist.
_MADE_IN_A_VO: Final = frozenset(
    {"gateway.tasks.submit", "transfer.jobs.submit", "workload.jobs.submit"}
)

_STRONGEST_FIRST: Final = (
    Role.ADMIN,
    Role.VO_MANAGER,
    Role.CHANNEL_MANAGER,
    Role.SUBMITTER,
    Role.JOB_SHARER,
    Role.PILOT,
    Role.JOB_MONITOR,
)

# A place for a role that is only imagined, where the question names none.
_SOME_PLACE: Final = "some"

# A holder of very many bindings with an end is told an early one of them.
_MOST_ENDS: Final = 16


class Target(NamedTuple):
    """What is acted upon: its VO, the uid of its channel, its owner's key and active group, the
    path of the file; empty what is not known."""

    vo: str = ""
    channel: str = ""
    owner: str = ""
    group: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a principal has a permission for a target; None: for anything at all."""

    principal: Principal
    permission: str
    target: Target | None = None


class Answer(NamedTuple):
    """Whether, why not, by which row and column of the table, how far the right reaches whatever
    the target, and the scopes of which one lacks."""

    allowed: bool
    reason: Reason | None
    rule: str
    visibility: Visibility
    scopes_needed: frozenset[str] = _NONE


@dataclass(frozen=True, slots=True)
class Ground:
    """The policy, as far as a question rests on it.

    Parameters:
        held: the bindings of the principal that count.
        policy: what holds for everybody is taken from it.
    """

    held: Sequence[Binding]
    policy: Policy

    def with_only(self, held: Sequence[Binding]) -> Policy:
        """The policy, if these were all the bindings."""
        policy = self.policy
        return Policy(
            policy.revision,
            held,
            policy.jobs_vo_readable,
            policy.vos,
            groups=policy.groups,
            closed=policy.closed,
        )


def answer(question: Question, ground: Ground, now_us: int) -> Answer:
    """Answers a question.

    Parameters:
        now_us: microseconds since the epoch (UTC); bindings past their end do not count.

    Raises:
        KeyError: there is no such permission.
        GridlaneError: POLICY_STALE.
    """
    given = _answer(question, ground.with_only(ground.held), now_us)
    if not given.allowed or question.target is None or given.visibility.everything:
        return given
    for held in _by_role(ground.held):
        alone = _answer(question, ground.with_only(held), now_us)
        if alone.allowed:
            return given._replace(rule=alone.rule)
    return given


def role_needed(question: Question, ground: Ground, now_us: int) -> Role | None:
    """Returns the least role that, given where the target is, would turn a denial around.

    Returns:
        None when none would, or when it is not a role that lacks.
    """
    target = question.target or Target()
    for role in reversed(_STRONGEST_FIRST):
        imagined = _in_place(role, question.principal, target)
        policy = ground.with_only((*ground.held, imagined))
        if _answer(question, policy, now_us).allowed:
            return role
    return None


def holds_until(question: Question, given: Answer, ground: Ground, now_us: int) -> int | None:
    """Returns when an answer ends if the policy does not change: as bindings end.

    Returns:
        Microseconds since the epoch (UTC); None: it does not end.
    """
    ends = sorted({b.expires_us for b in ground.held if b.expires_us and b.expires_us > now_us})
    policy = ground.with_only(ground.held)
    for end in ends[:_MOST_ENDS]:
        then = _answer(question, policy, end)
        same = (then.allowed, then.reason) == (given.allowed, given.reason)
        if not same or (question.target is None and then.visibility != given.visibility):
            return end
    return ends[_MOST_ENDS] if len(ends) > _MOST_ENDS else None


def _answer(question: Question, policy: Policy, now_us: int) -> Answer:
    principal, permission, target = question.principal, question.permission, question.target
    decision = decide(principal, permission, policy, now_us)
    reach = decision.visibility
    if decision.reason is Reason.SCOPE_TOO_NARROW:
        whole = decide(replace(principal, scopes=None), permission, policy, now_us)
        return Answer(False, decision.reason, whole.rule, NOTHING, decision.scopes_needed)
    if not decision.allowed:
        return Answer(False, decision.reason, decision.rule, NOTHING)
    if reach.nothing:  # an empty listing, for the vetoed
        return Answer(False, Reason.CALLER_VETOED, decision.rule, NOTHING)
    if target is None:
        return Answer(True, None, decision.rule, reach)
    if not _covers(decision, target):
        return Answer(False, Reason.PERMISSION_DENIED, decision.rule, reach)
    lacking = _scopes_lacking(principal, permission, target.path)
    if lacking:
        return Answer(False, Reason.SCOPE_TOO_NARROW, decision.rule, reach, lacking)
    return Answer(True, None, decision.rule, reach)


def _covers(decision: Decision, target: Target) -> bool:
    if (
        decision.permission in _MADE_IN_A_VO
        and target.vo
        and target.vo not in decision.existing_vos
    ):
        return False
    return decision.visibility.covers(
        owner=target.owner, vo=target.vo, channel=target.channel, group=target.group
    )


def _scopes_lacking(principal: Principal, permission: str, path: str) -> frozenset[str]:
    operations = {s for s in PERMISSIONS[permission].scopes if s.startswith("storage.")}
    if not path or not operations:
        return _NONE
    if any(scope_covers(principal, operation, path) for operation in operations):
        return _NONE
    return frozenset(f"{operation}:{quote(path)}" for operation in operations)


def _by_role(held: Sequence[Binding]) -> Iterator[Sequence[Binding]]:
    """None at all, as everybody; then the bindings of each role by itself, the strongest first."""
    yield ()
    for role in _STRONGEST_FIRST:
        of_role = [binding for binding in held if binding.role is role]
        if of_role:
            yield of_role


def _in_place(role: Role, principal: Principal, target: Target) -> Binding:
    """A role as it would be given to a principal where the target is."""
    vo = channel = ""
    if role is Role.VO_MANAGER:
        vo = target.vo or _SOME_PLACE
    elif role is Role.CHANNEL_MANAGER:
        channel = target.channel or _SOME_PLACE
    elif role in IN_ITS_VOS:
        vo = target.vo
    return Binding(principal.issuer, principal.subject, role, vo, channel)
