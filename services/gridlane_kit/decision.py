"""Who may do what: the permission table and the one pure function that evaluates it.

Responsible for the coarse decision on a call: veto first, then role, then the token's scopes, which
only narrow. The answer says how far the caller's right reaches (`Visibility`); that the resource at
hand lies within the reach is decided by the store's query. No I/O here, and nothing of how a policy
is kept or brought (`policy`).

The roles and what each may do are those of the gLite File Transfer Service's documentation, joined
to DIRAC's properties (JobAdministrator = VO manager, NormalUser = submitter) and the WLCG token
profile's capabilities. Every method of the contracts names a permission of this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple

from gridlane_kit import errors
from gridlane_kit.identity import Principal, PrincipalKind, normal_path
from gridlane_kit.policy import Grants, Policy

_NONE: Final[frozenset[str]] = frozenset()
_SERVICES: Final = frozenset({"authorization", "transfer", "workload", "reporting", "gateway"})


class Reach(Enum):
    """How far a role's right reaches."""

    ALL = auto()
    """Everything."""
    CHANNEL = auto()
    """What lies on the channels that the caller manages."""
    VO = auto()
    """What belongs to a VO: managed (VO manager), bound and belonged to (submitter), belonged to.
    """
    OWN = auto()
    """What the caller owns."""


class Vetoed(Enum):
    """What a vetoed caller gets."""

    DENIED = auto()
    EMPTY = auto()
    """An empty listing without an error (gLite's list of requests)."""


class Reason(Enum):
    """Why a call is denied; each is the error reason of the same name."""

    CALLER_VETOED = auto()
    PERMISSION_DENIED = auto()
    SCOPE_TOO_NARROW = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission: the reach that each role gives, and who else may.

    `vo_readable`: a member of the VO may read it too, where the policy says that jobs are readable
    within their VO. `scopes`: the WLCG capabilities of which a narrowed token needs one; empty when
    scopes do not govern the permission. `services`: those that may act so for themselves. `actors`:
    when not empty, only these services may, on the caller's behalf. `jobs`: a job's own token may,
    for that job.
    """

    admin: Reach | None = None
    channel_manager: Reach | None = None
    vo_manager: Reach | None = None
    submitter: Reach | None = None
    regular: Reach | None = None
    vo_readable: bool = False
    vetoed: Vetoed = Vetoed.DENIED
    scopes: frozenset[str] = _NONE
    services: frozenset[str] = _NONE
    actors: frozenset[str] = _NONE
    jobs: bool = False


class Visibility(NamedTuple):
    """What of a collection a call may touch; a store turns it into a WHERE clause.

    `nothing` excludes all, `everything` includes all; otherwise a row is within reach when its
    owner is `owner`, its VO is in `vos` or its channel's uid is in `channels`. `job` narrows to one
    job: the caller is that job itself.
    """

    everything: bool = False
    owner: str | None = None
    vos: frozenset[str] = _NONE
    channels: frozenset[str] = _NONE
    nothing: bool = False
    job: str | None = None

    def covers(self, *, owner: str = "", vo: str = "", channel: str = "") -> bool:
        """Whether a row of this owner, VO and channel uid (empty: it has none) is within reach."""
        if self.nothing or self.job is not None:
            return False
        return (
            self.everything
            or (bool(owner) and owner == self.owner)
            or vo in self.vos
            or channel in self.channels
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

_READ = frozenset({"storage.read"})
_WRITE = frozenset({"storage.create", "storage.modify"})
_MODIFY = frozenset({"storage.modify"})
_MOVE = _WRITE | {"storage.stage"}
_LOOK = _MOVE | {"storage.read", "storage.poll"}
_COMPUTE_READ = frozenset({"compute.read"})
_COMPUTE_CREATE = frozenset({"compute.create"})
_COMPUTE_CANCEL = frozenset({"compute.cancel"})

_ALL, _CHANNEL, _VO, _OWN = Reach.ALL, Reach.CHANNEL, Reach.VO, Reach.OWN

_SELF = Rule(regular=_OWN, services=_SERVICES, jobs=True)
_STATUS = Rule(admin=_ALL, regular=_ALL, services=_SERVICES)
_JOB_VIEW = Rule(admin=_ALL, vo_manager=_VO, regular=_OWN, vo_readable=True, scopes=_COMPUTE_READ)
_JOB_SUBMIT = Rule(admin=_ALL, submitter=_VO, scopes=_COMPUTE_CREATE)
_JOB_KILL = Rule(admin=_ALL, vo_manager=_VO, regular=_OWN, scopes=_COMPUTE_CANCEL)

PERMISSIONS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "authorization.self.view": _SELF,
        "authorization.policy.view": Rule(services=_SERVICES),
        "authorization.policy.follow": Rule(services=_SERVICES),
        "authorization.tokens.mint": Rule(regular=_OWN, actors=frozenset({"workload"})),
        "authorization.status.view": _STATUS,
        "transfer.jobs.submit": Rule(admin=_ALL, submitter=_VO, scopes=_MOVE),
        "transfer.jobs.view": Rule(
            admin=_ALL,
            channel_manager=_CHANNEL,
            vo_manager=_VO,
            regular=_OWN,
            vo_readable=True,
            scopes=_LOOK,
        ),
        "transfer.jobs.list": Rule(
            admin=_ALL,
            channel_manager=_CHANNEL,
            vo_manager=_VO,
            regular=_OWN,
            vetoed=Vetoed.EMPTY,
            scopes=_LOOK,
        ),
        "transfer.jobs.cancel": Rule(
            admin=_ALL, channel_manager=_CHANNEL, vo_manager=_VO, regular=_OWN, scopes=_MOVE
        ),
        "transfer.channels.list": Rule(admin=_ALL, regular=_ALL),
        "transfer.channels.view": Rule(admin=_ALL, channel_manager=_CHANNEL, vo_manager=_ALL),
        "transfer.storage.view": Rule(admin=_ALL, regular=_ALL),
        "transfer.content.read": Rule(admin=_ALL, regular=_VO, scopes=_READ),
        "transfer.content.write": Rule(admin=_ALL, submitter=_VO, scopes=_WRITE),
        "transfer.content.delete": Rule(admin=_ALL, vo_manager=_VO, submitter=_OWN, scopes=_MODIFY),
        "transfer.replicas.view": Rule(admin=_ALL, regular=_VO, scopes=_LOOK),
        "transfer.replicas.register": Rule(admin=_ALL, submitter=_VO, scopes=_WRITE),
        "transfer.replicas.unregister": Rule(
            admin=_ALL, vo_manager=_VO, submitter=_OWN, scopes=_MODIFY
        ),
        "transfer.events.follow": Rule(services=frozenset({"reporting", "workload"})),
        "transfer.status.view": _STATUS,
        "workload.jobs.submit": _JOB_SUBMIT,
        "workload.jobs.view": _JOB_VIEW,
        "workload.jobs.list": Rule(
            admin=_ALL,
            vo_manager=_VO,
            regular=_OWN,
            vetoed=Vetoed.EMPTY,
            scopes=_COMPUTE_READ,
        ),
        "workload.jobs.kill": _JOB_KILL,
        "workload.logs.read": Rule(admin=_ALL, vo_manager=_VO, regular=_OWN, scopes=_COMPUTE_READ),
        "workload.events.follow": Rule(services=frozenset({"reporting"})),
        "workload.status.view": _STATUS,
        "reporting.accounting.view": _JOB_VIEW,
        "reporting.spans.view": _JOB_VIEW,
        "reporting.spans.write": Rule(services=_SERVICES, jobs=True),
        "reporting.status.view": _STATUS,
        "gateway.tasks.submit": _JOB_SUBMIT,
        "gateway.tasks.view": _JOB_VIEW,
        "gateway.tasks.cancel": _JOB_KILL,
        "gateway.status.view": _STATUS,
        "server.reflection.view": Rule(admin=_ALL, regular=_ALL),
    }
)


def decide(principal: Principal, permission: str, policy: Policy, now_us: int) -> Decision:
    """Decides whether the caller may use a permission, and how far.

    Parameters:
        principal: the caller; with an `actor`, the one on whose behalf a service calls.
        permission: a key of `PERMISSIONS`.
        policy: bindings and vetoes in force.
        now_us: microseconds since the epoch (UTC); bindings past their end do not count.

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
    grants = policy.grants(principal.owner, now_us)
    if grants.vetoed:
        if rule.vetoed is Vetoed.EMPTY:
            return _allowed("vetoed: an empty list", NOTHING, revision, permission)
        return _denied(permission, revision, Reason.CALLER_VETOED)
    if rule.actors and principal.actor not in rule.actors:
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    if principal.kind is PrincipalKind.JOB:
        if rule.jobs and principal.job is not None:
            return _allowed("job: its own", Visibility(job=principal.job), revision, permission)
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    return _by_role(permission, principal, grants, policy)


def _by_role(permission: str, principal: Principal, grants: Grants, policy: Policy) -> Decision:
    rule, revision = PERMISSIONS[permission], policy.revision
    column, visibility = _reach(rule, principal, grants, policy.jobs_vo_readable)
    if visibility is NOTHING:
        return _denied(permission, revision, Reason.PERMISSION_DENIED)
    if rule.scopes and not _scopes_cover(principal, rule.scopes):
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


def _scopes_cover(principal: Principal, scopes: frozenset[str]) -> bool:
    if principal.capabilities is None:
        return True
    for c in principal.capabilities:
        if c.operation in scopes and (c.path is not None or not c.operation.startswith("storage.")):
            return True
    return False


def _reach(
    rule: Rule, principal: Principal, grants: Grants, vo_readable: bool
) -> tuple[str, Visibility]:
    """Joins what the caller's roles give; (the strongest role, NOTHING) when that is nothing."""
    column = _column_of_all(rule, grants)
    if column:
        return column, EVERYTHING
    channels = vos = _NONE
    owner: str | None = None
    if grants.managed_vos and rule.vo_manager is Reach.VO:
        column, vos = "VO manager: that VO", grants.managed_vos
    if grants.channels and rule.channel_manager is Reach.CHANNEL:
        column, channels = column or "channel manager: that channel", grants.channels
    if grants.submits and rule.submitter is Reach.VO:
        bound = principal.vos & grants.submit_vos if grants.submit_vos else principal.vos
        column, vos = column or "submitter: its VOs", vos | bound
    if grants.submits and rule.submitter is Reach.OWN:
        column, owner = column or "submitter: own", principal.owner
    if rule.regular is Reach.OWN:
        column, owner = column or "regular user: own", principal.owner
    if rule.regular is Reach.VO or (rule.vo_readable and vo_readable):
        column, vos = column or "regular user: its VOs", vos | principal.vos
    if owner is None and not vos and not channels:
        return column, NOTHING
    return column, Visibility(False, owner, vos, channels)


def _column_of_all(rule: Rule, grants: Grants) -> str:
    if grants.admin and rule.admin is Reach.ALL:
        return "admin: all"
    if rule.regular is Reach.ALL:
        return "regular user: all"
    if grants.managed_vos and rule.vo_manager is Reach.ALL:
        return "VO manager: all"
    return ""
