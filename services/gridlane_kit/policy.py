"""The policy that decisions are made from: who holds which role, who is vetoed.

Responsible for the frozen form of the bindings, indexed by identity, and for the one mutable place
of a process that holds the policy in force (`PolicyHolder`). Not for where a policy comes from
(only Authorization keeps bindings) nor for what a role may do (`decision`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gridlane_kit.identity import owner_key


class Role(StrEnum):
    """The roles of the gLite File Transfer Service. REGULAR needs no binding."""

    ADMIN = "admin"
    CHANNEL_MANAGER = "channel_manager"
    VO_MANAGER = "vo_manager"
    SUBMITTER = "submitter"
    REGULAR = "regular"
    VETOED = "vetoed"


@dataclass(frozen=True, slots=True)
class Binding:
    """One role given to one identity.

    `vo` belongs to VO_MANAGER and SUBMITTER (an empty one lets a submitter submit in every VO it
    belongs to), `channel_uid` to CHANNEL_MANAGER. `expires_us`: microseconds since the epoch (UTC),
    None = never.
    """

    issuer: str
    subject: str
    role: Role
    vo: str = ""
    channel_uid: str = ""
    expires_us: int | None = None


@dataclass(frozen=True, slots=True)
class Grants:
    """What one identity holds, ready to decide from.

    `submit_vos` empty with `submits` set means every VO the caller belongs to. `until_us` is when
    the first of the bindings ends; from then on the grants must be made anew.
    """

    vetoed: bool = False
    admin: bool = False
    channels: frozenset[str] = frozenset()
    managed_vos: frozenset[str] = frozenset()
    submits: bool = False
    submit_vos: frozenset[str] = frozenset()
    until_us: int | None = None
    bindings: tuple[Binding, ...] = ()


_NO_GRANTS: Final = Grants()


@dataclass(frozen=True, slots=True)
class Policy:
    """All bindings in force at one revision, vetoes among them (role VETOED).

    `jobs_vo_readable`: whether jobs may be read by every member of their VO.
    """

    revision: int
    bindings: Sequence[Binding] = ()
    jobs_vo_readable: bool = True
    _index: Mapping[str, Grants] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_owner: dict[str, list[Binding]] = {}
        for binding in self.bindings:
            by_owner.setdefault(owner_key(binding.issuer, binding.subject), []).append(binding)
        index = {owner: _grants(bindings) for owner, bindings in by_owner.items()}
        object.__setattr__(self, "bindings", tuple(self.bindings))
        object.__setattr__(self, "_index", MappingProxyType(index))

    def grants(self, owner: str, now_us: int) -> Grants:
        """Returns what the identity with this owner key holds now; O(1)."""
        grants = self._index.get(owner, _NO_GRANTS)
        if grants.until_us is None or now_us < grants.until_us:
            return grants
        return _grants(
            [b for b in grants.bindings if b.expires_us is None or now_us < b.expires_us]
        )

    def roles_of(self, owner: str, now_us: int) -> tuple[Binding, ...]:
        """Returns the bindings of the identity that are in force now."""
        return self.grants(owner, now_us).bindings


class PolicyHolder:
    """The policy in force in this process; replaced whole, never changed in place."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy
        self._followers: list[Callable[[Policy], None]] = []

    def replace(self, policy: Policy) -> None:
        """Puts a policy in force and tells those who asked, for example to cut open streams."""
        self.current = policy
        for follower in self._followers:
            follower(policy)

    def subscribe(self, follower: Callable[[Policy], None]) -> None:
        """Has `follower` called, in the event loop's thread, after every replacement."""
        self._followers.append(follower)


def _grants(bindings: Iterable[Binding]) -> Grants:
    held = tuple(bindings)
    ends = [b.expires_us for b in held if b.expires_us is not None]
    submitter = [b.vo for b in held if b.role is Role.SUBMITTER]
    return Grants(
        vetoed=any(b.role is Role.VETOED for b in held),
        admin=any(b.role is Role.ADMIN for b in held),
        channels=frozenset(
            b.channel_uid for b in held if b.role is Role.CHANNEL_MANAGER and b.channel_uid
        ),
        managed_vos=frozenset(b.vo for b in held if b.role is Role.VO_MANAGER and b.vo),
        submits=bool(submitter),
        submit_vos=frozenset() if "" in submitter else frozenset(submitter),
        until_us=min(ends, default=None),
        bindings=held,
    )
