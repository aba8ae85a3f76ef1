"""The permission table: what each role may do, and how far.

Responsible for the table alone, which is data; `decision` evaluates it. Every method of the
contracts names a permission of this table, and a server that finds another one does not start.

The roles and what each may do are those of the gLite File Transfer Service's documentation, joined
to DIRAC's properties (JobAdministrator = VO manager, NormalUser = submitter, JobSharing = job
sharer, GenericPilot = pilot, JobMonitor = job monitor) and the WLCG token profile's capabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from gridlane_kit.roles import IN_ITS_VOS, Role

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
    GROUP = auto()
    """What belongs to those who act in the caller's active group (job sharer)."""
    OWN = auto()
    """What the caller owns."""


class Vetoed(Enum):
    """What a vetoed caller gets."""

    DENIED = auto()
    EMPTY = auto()
    """An empty listing without an error (gLite's list of requests)."""


# What each role can be given, by the name of its field in `Rule`.
_REACHES: Final[Mapping[Role, tuple[Reach, ...]]] = MappingProxyType(
    {
        Role.ADMIN: (Reach.ALL,),
        Role.CHANNEL_MANAGER: (Reach.CHANNEL,),
        Role.VO_MANAGER: (Reach.ALL, Reach.VO),
        Role.SUBMITTER: (Reach.VO, Reach.OWN),
        Role.REGULAR: (Reach.ALL, Reach.VO, Reach.OWN),
        Role.JOB_SHARER: (Reach.GROUP,),
        Role.PILOT: (Reach.VO,),
        Role.JOB_MONITOR: (Reach.VO,),
    }
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission: the reach that each role gives, and who else may.

    `vo_readable`: a member of the VO may read it too, where the policy says that jobs are readable
    within their VO. `scopes`: the WLCG capabilities of which a narrowed token needs one; empty when
    scopes do not govern the permission. `whole`: no capability covers it, and a token that was
    narrowed to capabilities is refused, so that one stolen from a job changes no policy.
    `services`: those that may act so for themselves. `actors`: when not empty, only these services
    may, on the caller's behalf. `jobs`: a job's own token may, for that job.

    Raises:
        ValueError: a role is given a reach that it cannot have.
    """

    admin: Reach | None = None
    channel_manager: Reach | None = None
    vo_manager: Reach | None = None
    submitter: Reach | None = None
    regular: Reach | None = None
    job_sharer: Reach | None = None
    pilot: Reach | None = None
    job_monitor: Reach | None = None
    vo_readable: bool = False
    vetoed: Vetoed = Vetoed.DENIED
    scopes: frozenset[str] = _NONE
    services: frozenset[str] = _NONE
    actors: frozenset[str] = _NONE
    jobs: bool = False
    whole: bool = False
    in_its_vos: tuple[tuple[Role, Reach], ...] = field(init=False, repr=False)
    """What the roles give that count only in VOs to which their holder belongs."""

    def __post_init__(self) -> None:
        reaches: dict[Role, Reach | None] = {role: getattr(self, role) for role in _REACHES}
        given = {role: reach for role, reach in reaches.items() if reach is not None}
        for role, reach in given.items():
            if reach not in _REACHES[role]:
                raise ValueError(f"{role} cannot reach {reach.name}")
        in_its_vos = tuple((role, reach) for role, reach in given.items() if role in IN_ITS_VOS)
        object.__setattr__(self, "in_its_vos", in_its_vos)


_READ = frozenset({"storage.read"})
_WRITE = frozenset({"storage.create", "storage.modify"})
_MODIFY = frozenset({"storage.modify"})
_MOVE = _WRITE | {"storage.stage"}
_LOOK = _MOVE | {"storage.read", "storage.poll"}
_COMPUTE_READ = frozenset({"compute.read"})
_COMPUTE_CREATE = frozenset({"compute.create"})
_COMPUTE_CANCEL = frozenset({"compute.cancel"})
_COMPUTE_MODIFY = frozenset({"compute.modify"})

_ALL, _CHANNEL, _VO, _GROUP, _OWN = Reach.ALL, Reach.CHANNEL, Reach.VO, Reach.GROUP, Reach.OWN

_SELF = Rule(regular=_OWN, services=_SERVICES, jobs=True)
_STATUS = Rule(admin=_ALL, regular=_ALL, services=_SERVICES)
_OPEN = Rule(admin=_ALL, regular=_ALL)
_ITS_VOS = Rule(admin=_ALL, vo_manager=_VO, regular=_VO)
_JOB_VIEW = Rule(
    admin=_ALL,
    vo_manager=_VO,
    regular=_OWN,
    job_sharer=_GROUP,
    job_monitor=_VO,
    vo_readable=True,
    scopes=_COMPUTE_READ,
)
_JOB_SUBMIT = Rule(admin=_ALL, submitter=_VO, scopes=_COMPUTE_CREATE)
_JOB_KILL = Rule(
    admin=_ALL, vo_manager=_VO, regular=_OWN, job_sharer=_GROUP, scopes=_COMPUTE_CANCEL
)
_ADMIN_ONLY = Rule(admin=_ALL, whole=True)
_VO_MANAGED = Rule(admin=_ALL, vo_manager=_VO, whole=True)
_MANAGED_JOB = Rule(admin=_ALL, channel_manager=_CHANNEL, vo_manager=_VO, scopes=_MOVE)

PERMISSIONS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "authorization.self.view": _SELF,
        "authorization.policy.view": Rule(services=_SERVICES),
        "authorization.policy.follow": Rule(services=_SERVICES),
        "authorization.tokens.mint": Rule(regular=_OWN, actors=frozenset({"workload"})),
        "authorization.status.view": _STATUS,
        "authorization.permissions.check": Rule(
            admin=_ALL, vo_manager=_VO, regular=_OWN, services=_SERVICES
        ),
        "authorization.roles.view": Rule(
            admin=_ALL, channel_manager=_CHANNEL, vo_manager=_VO, regular=_OWN
        ),
        "authorization.roles.manage": Rule(
            admin=_ALL, channel_manager=_CHANNEL, vo_manager=_VO, whole=True
        ),
        "authorization.vos.view": _ITS_VOS,
        "authorization.vos.manage": _ADMIN_ONLY,
        "authorization.groups.view": _ITS_VOS,
        "authorization.groups.manage": _VO_MANAGED,
        "authorization.issuers.view": _OPEN,
        "authorization.issuers.manage": _ADMIN_ONLY,
        "authorization.audit.view": Rule(admin=_ALL, vo_manager=_VO),
        "authorization.credentials.view": Rule(admin=_ALL, regular=_OWN),
        "authorization.credentials.manage": Rule(regular=_OWN, whole=True),
        "authorization.credentials.use": Rule(
            regular=_OWN, actors=frozenset({"transfer", "workload", "reporting"})
        ),
        "authorization.quotas.view": _ITS_VOS,
        "authorization.quotas.manage": _VO_MANAGED,
        "authorization.quotas.report": Rule(services=frozenset({"transfer", "workload"})),
        "authorization.tokens.view": Rule(admin=_ALL, regular=_OWN),
        "authorization.tokens.create": _ADMIN_ONLY,
        "authorization.tokens.revoke": Rule(admin=_ALL, regular=_OWN, whole=True),
        "authorization.tokens.exchange": Rule(regular=_OWN),
        "authorization.keys.view": _OPEN,
        "authorization.keys.rotate": _ADMIN_ONLY,
        "transfer.jobs.submit": Rule(admin=_ALL, submitter=_VO, scopes=_MOVE),
        "transfer.jobs.view": Rule(
            admin=_ALL,
            channel_manager=_CHANNEL,
            vo_manager=_VO,
            regular=_OWN,
            job_sharer=_GROUP,
            vo_readable=True,
            scopes=_LOOK,
        ),
        "transfer.jobs.list": Rule(
            admin=_ALL,
            channel_manager=_CHANNEL,
            vo_manager=_VO,
            regular=_OWN,
            job_sharer=_GROUP,
            vetoed=Vetoed.EMPTY,
            scopes=_LOOK,
        ),
        "transfer.jobs.cancel": Rule(
            admin=_ALL,
            channel_manager=_CHANNEL,
            vo_manager=_VO,
            regular=_OWN,
            job_sharer=_GROUP,
            scopes=_MOVE,
        ),
        "transfer.jobs.retry": Rule(
            admin=_ALL,
            channel_manager=_CHANNEL,
            vo_manager=_VO,
            submitter=_OWN,
            job_sharer=_GROUP,
            scopes=_MOVE,
        ),
        "transfer.jobs.update": _MANAGED_JOB,
        "transfer.jobs.release": _MANAGED_JOB,
        "transfer.channels.list": _OPEN,
        "transfer.channels.view": Rule(admin=_ALL, channel_manager=_CHANNEL, vo_manager=_ALL),
        "transfer.channels.create": _ADMIN_ONLY,
        "transfer.channels.delete": _ADMIN_ONLY,
        "transfer.channels.manage": Rule(admin=_ALL, channel_manager=_CHANNEL, whole=True),
        "transfer.storage.view": _OPEN,
        "transfer.storage.manage": _ADMIN_ONLY,
        "transfer.backends.view": _OPEN,
        "transfer.backends.manage": _ADMIN_ONLY,
        "transfer.activities.view": _ITS_VOS,
        "transfer.activities.manage": _VO_MANAGED,
        "transfer.content.read": Rule(admin=_ALL, regular=_VO, scopes=_READ),
        "transfer.content.write": Rule(admin=_ALL, submitter=_VO, scopes=_WRITE),
        "transfer.content.delete": Rule(admin=_ALL, vo_manager=_VO, submitter=_OWN, scopes=_MODIFY),
        "transfer.replicas.view": Rule(admin=_ALL, regular=_VO, scopes=_LOOK),
        "transfer.replicas.register": Rule(admin=_ALL, submitter=_VO, scopes=_WRITE),
        "transfer.replicas.unregister": Rule(
            admin=_ALL, vo_manager=_VO, submitter=_OWN, scopes=_MODIFY
        ),
        "transfer.events.follow": Rule(services=frozenset({"reporting", "workload"})),
        "transfer.audit.view": Rule(admin=_ALL, vo_manager=_VO),
        "transfer.status.view": _STATUS,
        "workload.jobs.submit": _JOB_SUBMIT,
        "workload.jobs.view": _JOB_VIEW,
        "workload.jobs.list": Rule(
            admin=_ALL,
            vo_manager=_VO,
            regular=_OWN,
            job_sharer=_GROUP,
            job_monitor=_VO,
            vetoed=Vetoed.EMPTY,
            scopes=_COMPUTE_READ,
        ),
        "workload.jobs.kill": _JOB_KILL,
        "workload.jobs.reschedule": Rule(
            admin=_ALL,
            vo_manager=_VO,
            regular=_OWN,
            job_sharer=_GROUP,
            pilot=_VO,
            scopes=_COMPUTE_MODIFY,
        ),
        "workload.jobs.report": Rule(admin=_ALL, pilot=_VO, scopes=_COMPUTE_MODIFY, jobs=True),
        "workload.logs.read": Rule(
            admin=_ALL, vo_manager=_VO, regular=_OWN, job_sharer=_GROUP, scopes=_COMPUTE_READ
        ),
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
        "server.reflection.view": _OPEN,
    }
)

_BY_ROLES: Final[Mapping[str, tuple[Role, ...]]] = MappingProxyType(
    {
        name: tuple(r for r in _REACHES if r is not Role.REGULAR and getattr(rule, r) is not None)
        for name, rule in PERMISSIONS.items()
    }
)


def roles_giving(permission: str) -> tuple[Role, ...]:
    """Returns the roles that give a permission somewhere, the strongest first; the one that
    everybody has is none of them. Of no permission: none.
    """
    return _BY_ROLES.get(permission, ())
