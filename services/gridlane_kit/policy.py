"""The policy that decisions are made from: who holds which role, who is vetoed.

Responsible for the frozen form of the bindings, indexed by identity, and for the one mutable place
of a process that holds the policy in force (`PolicyHolder`). Not for where a policy comes from
(only Authorization keeps bindings) nor for what a role may do (`decision`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gridlane_kit.identity import owner_key

_Key = tuple[str, str, str]


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

    @property
    def owner(self) -> str:
        """The identity's key, as in `Principal.owner`."""
        return owner_key(self.issuer, self.subject)

    @property
    def key(self) -> _Key:
        """What of the binding differs from the others of its identity; its end does not."""
        return (self.role, self.vo, self.channel_uid)


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

# The index is kept in parts: a change copies those that it touches, and shares the others.
_PARTS: Final = 256
_Part = dict[str, tuple[Binding, ...]]
_Index = tuple[_Part, ...]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What leads from one revision to `revision`.

    `added`: each takes the place of one that differs from it in nothing but its end. `removed`:
    their ends do not matter. `jobs_vo_readable` None: as before.
    """

    revision: int
    added: Sequence[Binding] = ()
    removed: Sequence[Binding] = ()
    added_vos: frozenset[str] = frozenset()
    removed_vos: frozenset[str] = frozenset()
    jobs_vo_readable: bool | None = None


class Policy:
    """All bindings in force at one revision, vetoes among them (role VETOED). Never changed:
    `changed` makes another one.

    Parameters:
        revision: grows with every change.
        bindings: in force, or past their end.
        jobs_vo_readable: whether jobs may be read by every member of their VO.
        vos: the virtual organisations that exist.
        closed: nothing is known of anybody: every decision is refused (POLICY_STALE).
    """

    __slots__ = ("_index", "_made", "closed", "jobs_vo_readable", "revision", "vos")

    def __init__(
        self,
        revision: int,
        bindings: Iterable[Binding] = (),
        jobs_vo_readable: bool = True,
        vos: Iterable[str] = (),
        *,
        closed: bool = False,
    ) -> None:
        self.revision = revision
        self.jobs_vo_readable = jobs_vo_readable
        self.vos = frozenset(vos)
        self.closed = closed
        self._index = _indexed(bindings)
        # What was asked for so far; most identities never are.
        self._made: dict[str, Grants] = {}

    def __repr__(self) -> str:
        return f"Policy(revision={self.revision}, closed={self.closed})"

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """All bindings, those of one identity together; gathered at each use."""
        return tuple(b for part in self._index for held in part.values() for b in held)

    def grants(self, owner: str, now_us: int) -> Grants:
        """Returns what the identity with this owner key holds now; O(1)."""
        grants = self._made.get(owner) or self._make(owner)
        if grants.until_us is None or now_us < grants.until_us:
            return grants
        return _grants(
            [b for b in grants.bindings if b.expires_us is None or now_us < b.expires_us]
        )

    def roles_of(self, owner: str, now_us: int) -> tuple[Binding, ...]:
        """Returns the bindings of the identity that are in force now."""
        return self.grants(owner, now_us).bindings

    def changed(self, change: PolicyChange) -> "Policy":
        """Returns the policy after a change; costs what the change is large, not the policy."""
        readable = change.jobs_vo_readable
        policy = Policy(
            change.revision,
            jobs_vo_readable=self.jobs_vo_readable if readable is None else readable,
            vos=(self.vos - change.removed_vos) | change.added_vos,
        )
        policy._index = _reindexed(self._index, change.added, change.removed)
        return policy

    def _make(self, owner: str) -> Grants:
        held = self._index[hash(owner) % _PARTS].get(owner)
        if held is None:
            return _NO_GRANTS
        made = self._made[owner] = _grants(held)
        return made


class PolicyDraft:
    """A policy that comes in parts, and is none until it is whole."""

    def __init__(self) -> None:
        self._index = _indexed(())
        self._vos: set[str] = set()

    def add(self, bindings: Iterable[Binding], vos: Iterable[str]) -> None:
        """Takes a part of the bindings and of the virtual organisations."""
        _put(self._index, bindings)
        self._vos.update(vos)

    def finished(self, revision: int, *, jobs_vo_readable: bool) -> Policy:
        """Returns the policy; the draft is not used any more."""
        policy = Policy(revision, jobs_vo_readable=jobs_vo_readable, vos=self._vos)
        policy._index = self._index
        return policy


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


def _indexed(bindings: Iterable[Binding]) -> _Index:
    index: _Index = tuple({} for _ in range(_PARTS))
    _put(index, bindings)
    return index


def _put(index: _Index, bindings: Iterable[Binding]) -> None:
    for binding in bindings:
        owner = binding.owner
        part = index[hash(owner) % _PARTS]
        held = part.get(owner)
        part[owner] = (binding,) if held is None else (*held, binding)


def _reindexed(index: _Index, added: Sequence[Binding], removed: Sequence[Binding]) -> _Index:
    parts = list(index)
    copied: set[int] = set()
    gone = {(binding.owner, binding.key) for binding in (*removed, *added)}
    for owner in {owner for owner, _ in gone}:
        number = hash(owner) % _PARTS
        if number not in copied:
            copied.add(number)
            parts[number] = parts[number].copy()
        left = tuple(b for b in parts[number].pop(owner, ()) if (owner, b.key) not in gone)
        if left:
            parts[number][owner] = left
    _put(tuple(parts), added)
    return tuple(parts)


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
