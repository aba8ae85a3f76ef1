"""Who acts: the Principal that every call, decision and owned row refers to.

Responsible for the shape of an identity, its storage form (work done later is done in the name of
the principal that submitted it, with the scopes it had then) and the split of a token's scopes into
capabilities. Not for how an identity is proven (`tokens`) nor for what it may do (`decision`).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

SERVICE_ISSUER: Final = "urn:gridlane:service"
"""Issuer of the identities under which services act for themselves. No user's token carries it."""

_CAPABILITY_PREFIXES = ("storage.", "compute.")


class PrincipalKind(StrEnum):
    """What kind of caller a principal is; the values are those stored and those in tokens."""

    USER = "user"
    JOB = "job"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability scope of a token (WLCG profile): an operation and, for storage, a path.

    `path` is decoded, has no empty and no "." segment and no trailing slash ("/" is the empty
    string), so that a prefix test at a slash decides; None means that the scope can cover no path:
    one that is not absolute, or climbs.
    """

    operation: str
    path: str | None


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    Issuer and subject are the identity; everything else describes it. `scopes` is None when the
    token carried none; `actor` names the service that acts on the principal's behalf; `job`
    ("jobs/{uuid}") and `attempt` are set for a job's own token; `token_expires_us` (microseconds
    since the epoch, UTC) is when the token that proved the identity ends, `token_id` which one it
    was (`jti`); both are empty where no token of its own proved it. `active_group` is the one
    of `groups` in which the caller acts (DIRAC's group), empty for none. `groups_until_us`
    (microseconds since the epoch, UTC) is until when the groups are believed of work that runs
    later; None: without an end.
    """

    issuer: str
    subject: str
    display_name: str = ""
    vos: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    kind: PrincipalKind = PrincipalKind.USER
    actor: str | None = None
    job: str | None = None
    attempt: int | None = None
    token_expires_us: int | None = field(default=None, compare=False)
    active_group: str = ""
    token_id: str = field(default="", compare=False)
    groups_until_us: int | None = field(default=None, compare=False)
    owner: str = field(init=False, compare=False)
    """`issuer|subject`: the key under which rows are owned and roles are bound."""
    capabilities: tuple[Capability, ...] | None = field(init=False, compare=False, repr=False)
    """The capability scopes; None when there are none, so that the token narrows nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner", owner_key(self.issuer, self.subject))
        object.__setattr__(self, "capabilities", _capabilities(self.scopes))

    def on_behalf(self, service: str) -> "Principal":
        """Returns the principal with `service` as the one that acts for it."""
        return replace(self, actor=service)

    def has_outlived_its_groups(self, now_us: int) -> bool:
        """Whether this is the principal of work that runs so much later than it was submitted that
        the groups, which a token asserted then, are not believed any more.

        As long as the caller's own token is at hand, they are.
        """
        until_us = self.groups_until_us
        return until_us is not None and self.token_expires_us is None and now_us >= until_us

    def at(self, now_us: int) -> "Principal":
        """Returns what is believed of the principal at a time (microseconds since the epoch, UTC):
        it, or it without groups."""
        if not self.has_outlived_its_groups(now_us):
            return self
        return replace(self, groups=frozenset(), active_group="", groups_until_us=None)

    def to_json(self) -> str:
        """Returns the storage form: stable text that `from_json` reads back. It is remembered, for
        the same few submit most work.

        The token's id and expiry are left out: what is stored outlives the token, and is decided
        anew under the policy of the day.
        """
        return _stored(self, self.groups_until_us)

    @staticmethod
    @lru_cache(maxsize=4096)
    def from_json(text: str) -> "Principal":
        """Reads what `to_json` wrote; what was read is remembered, for the same few own most rows.

        Raises:
            KeyError, ValueError: the text is not such a form.
        """
        stored = json.loads(text)
        return Principal(
            issuer=stored["issuer"],
            subject=stored["subject"],
            display_name=stored["display_name"],
            vos=frozenset(stored["vos"]),
            groups=frozenset(stored["groups"]),
            scopes=None if stored["scopes"] is None else frozenset(stored["scopes"]),
            kind=PrincipalKind(stored["kind"]),
            job=stored["job"],
            attempt=stored["attempt"],
            # Rows from before there were active groups have none.
            active_group=stored.get("active_group", ""),
            # Nor had the groups an age.
            groups_until_us=stored.get("groups_until_us"),
        )


@lru_cache(maxsize=4096)
def _stored(principal: Principal, groups_until_us: int | None) -> str:
    """The storage form; `groups_until_us` is the one thing of it that equal principals can differ
    in."""
    stored: dict[str, object] = {
        "issuer": principal.issuer,
        "subject": principal.subject,
        "display_name": principal.display_name,
        "vos": sorted(principal.vos),
        "groups": sorted(principal.groups),
        "active_group": principal.active_group,
        "scopes": None if principal.scopes is None else sorted(principal.scopes),
        "kind": principal.kind.value,
        "job": principal.job,
        "attempt": principal.attempt,
    }
    if principal.groups and groups_until_us is not None:
        stored["groups_until_us"] = groups_until_us
    return json.dumps(stored, sort_keys=True, separators=(",", ":"))


class Trust:
    """The keys, or the word, of an issuer as they were when something was proven by them."""

    __slots__ = ("_followers", "ended")

    def __init__(self) -> None:
        self.ended = False
        """Whether what was proven must be proven anew: a key is gone, or the issuer."""
        self._followers: set[Callable[[], None]] = set()

    def end(self) -> None:
        """Says that what was proven must be proven anew; tells who follows, once."""
        self.ended = True
        followers, self._followers = self._followers, set()
        for follower in followers:
            follower()

    def follow(self, follower: Callable[[], None]) -> None:
        """Has `follower` called when it ends; at once when it has ended."""
        if self.ended:
            follower()
        else:
            self._followers.add(follower)

    def leave(self, follower: Callable[[], None]) -> None:
        """Has `follower` called no more."""
        self._followers.discard(follower)


class Proof(NamedTuple):
    """A principal that was proven, until when (seconds since the epoch, UTC), and by what."""

    principal: Principal
    expires_s: float
    trust: Trust = Trust()


def owner_key(issuer: str, subject: str) -> str:
    """Returns the key under which an identity owns rows and holds roles."""
    return f"{issuer}|{subject}"


def service_principal(service: str) -> Principal:
    """Returns the identity of a service that acts for itself, for example "reporting"."""
    return Principal(
        issuer=SERVICE_ISSUER, subject=service, display_name=service, kind=PrincipalKind.SERVICE
    )


def scope_is_whole(scope: str) -> bool:
    """Whether a scope has the absolute path that those for storage need (WLCG profile)."""
    operation, _, path = scope.partition(":")
    return not operation.startswith("storage.") or path.startswith("/")


def normal_path(path: str) -> str | None:
    """Returns an absolute path without a trailing slash, or None when it is not absolute and plain.

    Empty, "." and ".." segments are refused rather than resolved: what they mean differs between
    storage systems, and a scope must not depend on it.
    """
    if path == "/":
        return ""
    if not path.startswith("/"):
        return None
    plain = path.removesuffix("/")
    closed = plain + "/"
    return None if "//" in closed or "/./" in closed or "/../" in closed else plain


def capability_of(scope: str) -> Capability | None:
    """Returns the capability that a scope is; None for one of another kind."""
    if not scope.startswith(_CAPABILITY_PREFIXES):
        return None
    operation, colon, path = scope.partition(":")
    if colon and not operation.startswith("storage."):
        return Capability(scope, None)  # whatever it narrows to, it is not the whole operation
    return Capability(operation, _scope_path(path))


def _capabilities(scopes: Iterable[str] | None) -> tuple[Capability, ...] | None:
    found = map(capability_of, sorted(scopes or ()))
    return tuple(capability for capability in found if capability is not None) or None


def _scope_path(path: str) -> str | None:
    """Reads the path of a scope: percent-encoded (RFC 3986), not always in its plainest form."""
    if not path.startswith("/"):
        return None
    kept = []
    for encoded in path.split("/"):
        try:
            segment = unquote(encoded, errors="strict")
        except UnicodeDecodeError:
            return None
        if segment == ".." or "/" in segment or "\0" in segment:
            return None
        if segment not in ("", "."):
            kept.append(segment)
    return "".join(f"/{segment}" for segment in kept)
