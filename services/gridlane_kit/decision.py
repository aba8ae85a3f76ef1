"""The one pure function that decides who may do what.

Responsible for the coarse decision on a call, by the table of `permissions`: veto first, then role,
then the token's scopes, which only narrow. The answer says how far the caller's right reaches
(`Visibility`); that the resource at hand lies within the reach is decided by the store's query. No
I/O here, and nothing of how a policy is kept or brought (`policy`).
"""

from enum import Enum, auto
from typing import Final, NamedTuple

from gridlane_kit import errors
from gridlane_kit.identity import Principal, PrincipalKind, normal_path
from gridlane_kit.permissions import PERMISSIONS, Reach, Rule, Vetoed
from gridlane_kit.policy import Grants, Policy, Role, WorkAction

_NONE: Final[frozenset[str]] = frozenset()
_NO_PAIRS: Final[frozenset[tuple[str, str]]] = frozenset()
# The service that calls others for work alone that was accepted before; what it does for work that
# goes on in spite of a veto, and what ends such work.
_WORKS_LATER: Final = "workload"
_MOVES: Final = frozenset({"transfer.jobs.submit", "transfer.jobs.view"})
_STARTS: Final = "authorization.tokens.mint"
_END_OF_WORK: Final = "transfer.jobs.cancel"


class Reason(Enum):
    """Why a call is denied; each is the error reason of the same name."""

    CALLER_VETOED = auto()
    PERMISSION_DENIED = auto()
    SCOPE_TOO_NARROW = auto()


class Visibility(NamedTuple):
    """What of a collection a call may touch; a store turns it into a WHERE clause.

    `nothing` excludes all, `everything` includes all; otherwise a row is within reach when its
    owner is `owner`, its VO is in `vos`, its channel's uid is in `channels`, or its VO and its
    owner's active group when it was made are a pair in `groups`. `job` narrows to one job: the
    caller is that job itself.
    """

    everything: bool = False
    owner: str | None = None
    vos: frozenset[str] = _NONE
    channels: frozenset[str] = _NONE
    nothing: bool = False
    job: str | None = None
    groups: frozenset[tuple[str, str]] = _NO_PAIRS

    def covers(
        self, *, owner: str = "", vo: str = "", channel: str = "", group: str | None = None
    ) -> bool:
        """Whether a row is within reach.

        Parameters:
            owner, vo, channel: its owner's key, VO and channel uid; empty when it has none.
            group: its owner's active group; None or empty when there was none.
        """
        if self.nothing or self.job is not None:
            return False
        return (
            self.everything
            or (bool(owner) and owner == self.owner)
            or vo in self.vos
            or channel in self.channels
            or (bool(group) and (vo, group) in self.groups)
        )


class Decision(NamedTuple):
    """The answer. `rule` names the row and column of the table that gave it, for people and the
    audit; `permission` is the one that was asked for; what is made belongs to one of the
    `existing_vos`."""

    allowed: bool
    rule: str
    visibility: Visibility
    policy_revision: int
    reason: Reason | None = None
    scopes_needed: frozenset[str] = _NONE
    permission: str = ""
    existing_vos: frozenset[str] = _NONE


NOTHING: Final = Visibility(nothing=True)
EVERYTHING: Final = Visibility(everything=True)


def decide(
    principal: Principal,
    permission: str,
    policy: Policy,
    now_us: int,
    *,
    despite_veto: bool = False,
) -> Decision:
    """Decides whether the caller may use a permission, and how far.

    A veto may let the work go on that those vetoed have submitted (`WorkAction.KEEP`): then what
    Workload does on their behalf, which is always such work, is decided as though there were none.
    It may end their transfers whatever the veto says.

    Parameters:
        principal: the caller; with an `actor`, the one on whose behalf a service calls.
        permission: a key of `PERMISSIONS`.
        policy: bindings and vetoes in force.
        now_us: microseconds since the epoch (UTC); bindings past their end do not count.
        despite_veto: as though there were no veto.

    Raises:
        KeyError: the table has no such permission. Servers check theirs at start.
        GridlaneError: POLICY_STALE: the policy is closed, and nothing can be said of anybody.
    """
    rule = PERMISSIONS[permission]
    if policy.closed:
        raise errors.policy_stale()
    revision = policy.revision
    if principal.kind is PrincipalKind.SERVICE:
        if principal.subject in rule.services:
            return _allowed("service", EVERYTHING, revision, permission)
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    grants = policy.grants(principal, now_us)
    if grants.vetoed and not (despite_veto or _is_kept(principal, permission, grants)):
        if rule.vetoed is Vetoed.EMPTY:
            return _allowed("vetoed: an empty list", NOTHING, revision, permission)
        return _denied(permission, revision, Reason.CALLER_VETOED)
    if rule.actors and principal.actor not in rule.actors:
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    if principal.kind is PrincipalKind.JOB:
        if rule.jobs and principal.job is not None:
            return _allowed("job: its own", Visibility(job=principal.job), revision, permission)
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    return _by_role(permission, principal.at(now_us), grants, policy)


def _is_kept(principal: Principal, permission: str, grants: Grants) -> bool:
    """Whether a call is a step of work that goes on, or is ended, in spite of a veto."""
    if principal.actor != _WORKS_LATER:
        return False
    if permission in _MOVES:
        return WorkAction.KEEP in (grants.queued_work, grants.running_work)
    if permission == _STARTS:
        return grants.queued_work is WorkAction.KEEP
    return permission == _END_OF_WORK


def _by_role(permission: str, principal: Principal, grants: Grants, policy: Policy) -> Decision:
    rule, revision = PERMISSIONS[permission], policy.revision
    column, visibility = _reach(rule, principal, grants, policy)
    if visibility is NOTHING:
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    if not _scopes_allow(principal, rule):
        return _denied(permission, revision, Reason.SCOPE_TOO_NARROW, rule.scopes)
    return _allowed(column, visibility, revision, permission, policy.vos)


def scope_covers(principal: Principal, operation: str, path: str) -> bool:
    """Whether the caller's token lets it do `operation` on `path`.

    True for every path when the token carries no capability scopes. A scope's path covers itself
    and what lies below it at a slash: "/foo/bar" covers "/foo/bar/x", never "/foo/bargain" (WLCG
    profile 1.0).

    Parameters:
        operation: "storage.read", "storage.create", "storage.modify", "storage.stage",
            "storage.poll".
        path: absolute and decoded, as in the scope. One with "." or ".." segments is never covered.
    """
    if principal.capabilities is None:
        return True
    wanted = normal_path(path)
    if wanted is None:
        return False
    for capability in principal.capabilities:
        if capability.operation == operation and _lies_below(wanted, capability.path):
            return True
    return False


def _lies_below(path: str, base: str | None) -> bool:
    return base is not None and (path == base or path.startswith(base + "/"))


def _allowed(
    rule: str,
    visibility: Visibility,
    revision: int,
    permission: str,
    vos: frozenset[str] = _NONE,
) -> Decision:
    return Decision(True, rule, visibility, revision, None, _NONE, permission, vos)


def _denied(
    permission: str, revision: int, reason: Reason, scopes: frozenset[str] = _NONE
) -> Decision:
    return Decision(False, "denied", NOTHING, revision, reason, scopes, permission)


def _scopes_allow(principal: Principal, rule: Rule) -> bool:
    if principal.capabilities is None:
        return True
    scopes = rule.scopes
    if not scopes:
        return not rule.whole
    for c in principal.capabilities:
        if c.operation in scopes and (c.path is not None or not c.operation.startswith("storage.")):
            return True
    return False


_IN_ITS_VOS: Final = {
    (Role.SUBMITTER, Reach.VO): "submitter: its VOs",
    (Role.SUBMITTER, Reach.OWN): "submitter: own",
    (Role.JOB_SHARER, Reach.GROUP): "job sharer: its active group",
    (Role.PILOT, Reach.VO): "pilot: its VOs",
    (Role.JOB_MONITOR, Reach.VO): "job monitor: its VOs",
}


def _reach(
    rule: Rule, principal: Principal, grants: Grants, policy: Policy
) -> tuple[str, Visibility]:
    """Joins what the caller's roles give; (the strongest role, NOTHING) when that is nothing."""
    column = _column_of_all(rule, grants)
    if column:
        return column, EVERYTHING
    channels = vos = _NONE
    groups = _NO_PAIRS
    owner: str | None = None
    if grants.managed_vos and rule.vo_manager is Reach.VO:
        column, vos = "VO manager: that VO", grants.managed_vos
    if grants.channels and rule.channel_manager is Reach.CHANNEL:
        column, channels = column or "channel manager: that channel", grants.channels
    if rule.in_its_vos and grants.in_vos:
        in_vos, owner, more, groups = _reach_in_its_vos(rule, principal, grants, policy)
        column, vos = column or in_vos, vos | more
    if rule.regular is Reach.OWN:
        column, owner = column or "regular user: own", principal.owner
    if rule.regular is Reach.VO or (rule.vo_readable and policy.jobs_vo_readable):
        column, vos = column or "regular user: its VOs", vos | principal.vos
    if owner is None and not vos and not channels and not groups:
        return column, NOTHING
    return column, Visibility(False, owner, vos, channels, False, None, groups)


def _reach_in_its_vos(
    rule: Rule, principal: Principal, grants: Grants, policy: Policy
) -> tuple[str, str | None, frozenset[str], frozenset[tuple[str, str]]]:
    """What the roles give that count where their holder belongs: the strongest of them, the owner,
    the VOs and the groups."""
    column, owner, vos, groups = "", None, _NONE, _NO_PAIRS
    active = principal.active_group
    for role, reach in rule.in_its_vos:
        bound = grants.in_vos.get(role)
        if bound is None:
            continue
        column = column or _IN_ITS_VOS[role, reach]
        belongs = principal.vos & bound if bound else principal.vos
        if reach is Reach.VO:
            vos |= belongs
        elif reach is Reach.OWN:
            owner = principal.owner
        elif active in principal.groups and policy.may_be_active(active):
            groups = frozenset((vo, active) for vo in belongs)
    return column, owner, vos, groups


def _column_of_all(rule: Rule, grants: Grants) -> str:
    if grants.admin and rule.admin is Reach.ALL:
        return "admin: all"
    if rule.regular is Reach.ALL:
        return "regular user: all"
    if grants.managed_vos and rule.vo_manager is Reach.ALL:
        return "VO manager: all"
    return ""
