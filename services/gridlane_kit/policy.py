"""The policy that decisions are made from: who holds which role, who is vetoed, which tokens were
revoked, which issuers are believed.

Responsible for the frozen form of the bindings, indexed by who holds them (an identity, or a group
of a VO), and for the one mutable place of a process that holds the policy in force
(`PolicyHolder`). Not for where a policy comes from (only Authorization keeps bindings) nor for what
a role may do (`decision`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gridlane_kit.clock import now_us
from gridlane_kit.identity import Principal, owner_key
from gridlane_kit.issuers import PolicyIssuer
from gridlane_kit.roles import IN_ITS_VOS as IN_ITS_VOS
from gridlane_kit.roles import Role as Role

_Key = tuple[str, str, str]


class WorkAction(StrEnum):
    """What a veto does to the work of those vetoed; later ones are severer."""

    KEEP = "keep"
    HOLD = "hold"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Binding:
    """One role given to one identity, or to a group: everybody whose token asserts it, in that VO.

    `vo` belongs to VO_MANAGER and to the roles `IN_ITS_VOS` (an empty one lets such a role count in
    every VO that its holder belongs to), and to every binding of a group; `channel_uid` to
    CHANNEL_MANAGER. `expires_us`: microseconds since the epoch (UTC), None = never. `group` (with a
    leading slash) stands instead of issuer and subject, which are empty then. `queued_work` and
    `running_work` belong to VETOED.
    """

    issuer: str
    subject: str
    role: Role
    vo: str = ""
    channel_uid: str = ""
    expires_us: int | None = None
    group: str = ""
    queued_work: WorkAction = WorkAction.HOLD
    running_work: WorkAction = WorkAction.KEEP

    @property
    def owner(self) -> str:
        """The key of who holds it: an identity's, as in `Principal.owner`, or a group's."""
        if self.group:
            return _group_key(self.vo, self.group)
        return owner_key(self.issuer, self.subject)

    @property
    def key(self) -> _Key:
        """What differs from the holder's other bindings; neither its end nor what a veto does to
        work does."""
        return (self.role, self.vo, self.channel_uid)


@dataclass(frozen=True, slots=True)
class Grants:
    """What one caller holds, ready to decide from.

    `in_vos`: the VOs in which each held role of `IN_ITS_VOS` counts, as far as the caller belongs
    to them; an empty set means every VO that the caller belongs to. `until_us` is when the first of
    the bindings ends; from then on the grants must be made anew. `queued_work` and `running_work`:
    what the severest of the vetoes says.
    """

    vetoed: bool = False
    admin: bool = False
    channels: frozenset[str] = frozenset()
    managed_vos: frozenset[str] = frozenset()
    in_vos: Mapping[Role, frozenset[str]] = field(default_factory=lambda: _NO_ROLES)
    until_us: int | None = None
    bindings: tuple[Binding, ...] = ()
    queued_work: WorkAction = WorkAction.KEEP
    running_work: WorkAction = WorkAction.KEEP


_NO_ROLES: Final[Mapping[Role, frozenset[str]]] = MappingProxyType({})
_NO_GRANTS: Final = Grants()
_NO_TOKENS: Final[Mapping[str, int]] = MappingProxyType({})
_NO_ISSUERS: Final[Mapping[str, PolicyIssuer]] = MappingProxyType({})

# The index is kept in parts: a change copies those that it touches, and shares the others.
_PARTS: Final = 256
_Part = dict[str, tuple[Binding, ...]]
_Index = tuple[_Part, ...]
# Grants that join an identity's and its groups' bindings are kept for so many callers.
_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What leads from one revision to `revision`.

    `added`: each takes the place of one that differs from it in nothing but its end and what it
    does to work. `removed`: neither matters. `jobs_vo_readable` None: as before. `revoked`: tokens
    by `jti`, with their end. `added_groups` and `removed_groups`: paths of declared groups.
    `set_issuers`: each takes the place of the one of its name; `removed_issuers`: names.
    """

    revision: int
    added: Sequence[Binding] = ()
    removed: Sequence[Binding] = ()
    added_vos: frozenset[str] = frozenset()
    removed_vos: frozenset[str] = frozenset()
    jobs_vo_readable: bool | None = None
    revoked: Mapping[str, int] = field(default_factory=lambda: _NO_TOKENS)
    added_groups: frozenset[str] = frozenset()
    removed_groups: frozenset[str] = frozenset()
    set_issuers: Sequence[PolicyIssuer] = ()
    removed_issuers: frozenset[str] = frozenset()


class Policy:
    """All bindings in force at one revision, vetoes among them (role VETOED). Never changed:
    `changed` makes another one.

    Parameters:
        revision: grows with every change.
        bindings: in force, or past their end.
        jobs_vo_readable: whether jobs may be read by every member of their VO.
        vos: the virtual organisations that exist.
        revoked: Gridlane's own tokens (`jti`) that are not accepted any more, with the time at
            which each ends by itself (microseconds since the epoch, UTC).
        groups: the paths of the groups that VOs have declared.
        issuers: the outside issuers that are believed by policy, beside those of the settings.
        closed: nothing is known of anybody: every decision is refused (POLICY_STALE).
    """

    __slots__ = (
        "_declaring_vos",
        "_groups",
        "_index",
        "_joined",
        "_made",
        "closed",
        "groups",
        "issuers",
        "jobs_vo_readable",
        "revision",
        "revoked",
        "vos",
    )

    def __init__(
        self,
        revision: int,
        bindings: Iterable[Binding] = (),
        jobs_vo_readable: bool = True,
        vos: Iterable[str] = (),
        *,
        revoked: Mapping[str, int] | None = None,
        groups: Iterable[str] = (),
        issuers: Iterable[PolicyIssuer] = (),
        closed: bool = False,
    ) -> None:
        self.revision = revision
        self.jobs_vo_readable = jobs_vo_readable
        self.vos = frozenset(vos)
        self.revoked = _NO_TOKENS if revoked is None else revoked
        self.groups = frozenset(groups)
        self._declaring_vos = frozenset(map(vo_of_group, self.groups))
        # By name. As long as none changes, all policies share it.
        self.issuers = _by_name(_NO_ISSUERS, issuers)
        self.closed = closed
        held = tuple(bindings)
        self._index = _indexed(held)
        # All groups that hold something, and perhaps some that did before a change.
        self._groups = _groups_of(held)
        # What was asked for so far; most identities never are.
        self._made: dict[str, Grants] = {}
        self._joined: dict[tuple[str, frozenset[str], frozenset[str]], Grants] = {}

    def __repr__(self) -> str:
        return f"Policy(revision={self.revision}, closed={self.closed})"

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """All bindings, those of one holder together; gathered at each use."""
        return tuple(b for part in self._index for held in part.values() for b in held)

    def grants(self, principal: Principal, now_us: int) -> Grants:
        """Returns what a caller holds now, by itself and by its groups; O(1).

        A group's binding counts for those who assert the group and belong to the binding's VO: what
        the issuers of one VO assert gives nothing in another. When the groups have outlived their
        time (`Principal.groups_until_us`), their vetoes alone count.

        Parameters:
            now_us: microseconds since the epoch (UTC).
        """
        if self._groups and not self._groups.isdisjoint(principal.groups):
            grants = self._join(principal)
        else:
            owner = principal.owner
            grants = self._made.get(owner) or self._make(owner)
        outlived = principal.has_outlived_its_groups(now_us)
        if not outlived and (grants.until_us is None or now_us < grants.until_us):
            return grants
        in_force = [b for b in grants.bindings if b.expires_us is None or now_us < b.expires_us]
        if outlived:
            # Who was in a vetoed group is not let off because that is long ago.
            in_force = [b for b in in_force if not b.group or b.role is Role.VETOED]
        return _grants(in_force)

    def may_be_active(self, group: str) -> bool:
        """Whether callers may act in a group that their token asserts.

        A VO that declares groups wants these and no others; one that declares none leaves them to
        the issuer of its tokens.

        Parameters:
            group: its path, "/cms/production"; the empty one, no group, may always be.
        """
        return group in self.groups or not group or vo_of_group(group) not in self._declaring_vos

    def changed(self, change: PolicyChange) -> "Policy":
        """Returns the policy after a change; costs what the change is large, not the policy."""
        readable = change.jobs_vo_readable
        policy = Policy(
            change.revision,
            jobs_vo_readable=self.jobs_vo_readable if readable is None else readable,
            vos=(self.vos - change.removed_vos) | change.added_vos,
            revoked=_revoked(self.revoked, change.revoked),
            groups=(self.groups - change.removed_groups) | change.added_groups,
        )
        policy.issuers = _by_name(self.issuers, change.set_issuers, change.removed_issuers)
        policy._index = _reindexed(self._index, change.added, change.removed)
        policy._groups = self._groups | _groups_of(change.added)
        return policy

    def held_by(self, holder: str) -> tuple[Binding, ...]:
        """Returns the bindings of a holder, by its key (`Binding.owner`)."""
        return self._index[hash(holder) % _PARTS].get(holder, ())

    def changed_holders(self, before: "Policy") -> frozenset[str]:
        """Returns the keys of those whose bindings are not what they were in `before`.

        Costs what the change is large, where this policy was made from that one by `changed`.
        """
        return frozenset(
            holder
            for part, old in zip(self._index, before._index, strict=True)
            if part is not old
            for holder in part.keys() | old.keys()
            if part.get(holder) != old.get(holder)
        )

    def _make(self, owner: str) -> Grants:
        held = self.held_by(owner)
        if not held:
            return _NO_GRANTS
        made = self._made[owner] = _grants(held)
        return made

    def _join(self, principal: Principal) -> Grants:
        key = (principal.owner, principal.vos, principal.groups)
        joined = self._joined.get(key)
        if joined is None:
            owners = [principal.owner]
            for vo in principal.vos:
                owners += [_group_key(vo, group) for group in self._groups & principal.groups]
            held = [binding for owner in owners for binding in self.held_by(owner)]
            if len(self._joined) >= _KEPT:
                self._joined.clear()
            joined = self._joined[key] = _grants(held)
        return joined


class PolicyDraft:
    """A policy that comes in parts, and is none until it is whole."""

    def __init__(self) -> None:
        self._index = _indexed(())
        self._groups: frozenset[str] = frozenset()
        self._vos: set[str] = set()
        self._revoked: dict[str, int] = {}
        self._declared: set[str] = set()
        self._issuers: list[PolicyIssuer] = []

    def add(
        self,
        bindings: Iterable[Binding],
        vos: Iterable[str],
        revoked: Mapping[str, int] = MappingProxyType({}),
        groups: Iterable[str] = (),
        issuers: Iterable[PolicyIssuer] = (),
    ) -> None:
        """Takes a part of the bindings, the virtual organisations, the revoked tokens, the declared
        groups, the issuers."""
        part = tuple(bindings)
        _put(self._index, part)
        self._groups |= _groups_of(part)
        self._vos.update(vos)
        self._revoked.update(revoked)
        self._declared.update(groups)
        self._issuers.extend(issuers)

    def finished(self, revision: int, *, jobs_vo_readable: bool) -> Policy:
        """Returns the policy; the draft is not used any more."""
        policy = Policy(
            revision,
            jobs_vo_readable=jobs_vo_readable,
            vos=self._vos,
            revoked=self._revoked,
            groups=self._declared,
            issuers=self._issuers,
        )
        policy._index = self._index
        policy._groups = self._groups
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


def _revoked(before: Mapping[str, int], more: Mapping[str, int]) -> Mapping[str, int]:
    """Joins revoked tokens; those that have ended by themselves need not be known any more."""
    if not more:
        return before
    now = now_us()
    return {jti: end for jti, end in (*before.items(), *more.items()) if end > now}


def _by_name(
    before: Mapping[str, PolicyIssuer],
    put: Iterable[PolicyIssuer],
    removed: frozenset[str] = frozenset(),
) -> Mapping[str, PolicyIssuer]:
    """Joins issuers; what was there, when nothing changes."""
    named = {issuer.name: issuer for issuer in put}
    if not named and removed.isdisjoint(before):
        return before
    left = {name: issuer for name, issuer in before.items() if name not in removed}
    return MappingProxyType(left | named)


def _group_key(vo: str, group: str) -> str:
    """The key under which a group holds roles. No identity's has a NUL: `claims` refuses it."""
    return f"\0{vo}|{group}"


def vo_of_group(path: str) -> str:
    """Returns the name of the VO to which a group's path says that it belongs ("/cms/production":
    "cms"); empty for what is no path."""
    return path[1:].partition("/")[0]


def is_group(holder: str) -> bool:
    """Whether the key of a holder (`Binding.owner`) is that of a group."""
    return holder.startswith("\0")


def _groups_of(bindings: Iterable[Binding]) -> frozenset[str]:
    return frozenset(binding.group for binding in bindings if binding.group)


def _grants(bindings: Iterable[Binding]) -> Grants:
    held = tuple(bindings)
    ends = [b.expires_us for b in held if b.expires_us is not None]
    vetoes = [b for b in held if b.role is Role.VETOED]
    return Grants(
        vetoed=bool(vetoes),
        admin=any(b.role is Role.ADMIN for b in held),
        channels=frozenset(
            b.channel_uid for b in held if b.role is Role.CHANNEL_MANAGER and b.channel_uid
        ),
        managed_vos=frozenset(b.vo for b in held if b.role is Role.VO_MANAGER and b.vo),
        in_vos=_in_vos(held) or _NO_ROLES,
        until_us=min(ends, default=None),
        bindings=held,
        queued_work=_severest(b.queued_work for b in vetoes),
        running_work=_severest(b.running_work for b in vetoes),
    )


def _in_vos(held: Sequence[Binding]) -> dict[Role, frozenset[str]]:
    found: dict[Role, frozenset[str]] = {}
    for role in IN_ITS_VOS:
        vos = frozenset(b.vo for b in held if b.role is role)
        if vos:
            found[role] = frozenset() if "" in vos else vos
    return found


def _severest(actions: Iterable[WorkAction]) -> WorkAction:
    return max(actions, key=list(WorkAction).index, default=WorkAction.KEEP)
