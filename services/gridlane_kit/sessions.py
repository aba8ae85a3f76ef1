"""Sessions: what is remembered of a caller between its calls.

Responsible for not proving the same token and not making the same decision twice: a session holds
the principal that a token proved, and the decisions made for it under the policy in force. It lasts
until the token or a role binding ends, the token is revoked or a key of the issuer is gone, at most
five minutes; a new policy makes every decision anew. Lives in memory only, bounded; it is found by
a hash (SHA-256) of the `authorization` header and of the group in which the caller wants to act: no
two callers are taken for each other, and no token is kept.
"""

import time
from dataclasses import replace
from hashlib import sha256
from typing import Final, Protocol

from gridlane_kit import errors
from gridlane_kit.clock import now_us
from gridlane_kit.decision import Decision, decide
from gridlane_kit.identity import Principal, Proof, Trust
from gridlane_kit.policy import Policy, PolicyHolder, vo_of_group

MAX_AGE_S: Final = 300.0
_SCHEME: Final = "bearer "
_NONE_YET: Final = Policy(0, closed=True)


class Verifier(Protocol):
    """Proves who sends a bearer token: a user's, or a service's assertion."""

    async def prove(self, token: str) -> Proof:
        """Returns the principal and until when the token is good.

        Raises:
            GridlaneError: the token proves nobody.
        """


class Session:
    """One token's principal and decisions under one policy; `good_until_s` is on the wall clock
    (UTC), `trust` what the token was proven by.

    `principal` is the one that acts: as the token proved it (`proven`), but for the group that it
    acts in.
    """

    __slots__ = ("decisions", "good_until_s", "policy", "principal", "proven", "trust")

    def __init__(self, principal: Principal, good_until_s: float, trust: Trust) -> None:
        self.principal = self.proven = principal
        self.good_until_s = good_until_s
        self.trust = trust
        self.policy = _NONE_YET
        self.decisions: dict[str, Decision] = {}


class Sessions:
    """The sessions of this process.

    Parameters:
        verifier: proves tokens.
        policy: the policy in force.
        size: about how many sessions are kept; those not used lately go first.
    """

    def __init__(self, verifier: Verifier, policy: PolicyHolder, *, size: int = 10_000) -> None:
        self._verifier = verifier
        self._policy = policy
        self._half = max(1, size // 2)
        # Two generations instead of a list by use: what is found costs no write.
        self._young: dict[bytes, Session] = {}
        self._old: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def known(self, header: str, group: str = "") -> Session | None:
        """Returns the session of a caller that was proven lately and is good.

        Parameters:
            header: its `authorization` header.
            group: the group in which it wants to act; empty for the token's first one.

        Raises:
            GridlaneError: of one that is known, but not under the policy in force: TOKEN_INVALID,
                it was revoked; PERMISSION_DENIED, its VO has not declared the group.
        """
        # Written out: each call passes here.
        key = _key(header, group) if group else sha256(header.encode()).digest()
        session = self._young.get(key)
        if session is None:
            session = self._old.pop(key, None)
            if session is None:
                return None
            self._keep(key, session)
        if time.time() < session.good_until_s and not session.trust.ended:
            if session.policy is not self._policy.current:
                _begin_under(session, self._policy.current, group)
            return session
        self._young.pop(key, None)
        return None

    async def prove(self, header: str, group: str = "") -> Session:
        """Begins the session of a caller; the parameters are those of `known`.

        Raises:
            GridlaneError: TOKEN_MISSING; TOKEN_INVALID: it was revoked; PERMISSION_DENIED: the
                group is not one of the caller's, or its VO has not declared it; what the verifier
                raises.
        """
        token = header[len(_SCHEME) :].strip()
        if header[: len(_SCHEME)].lower() != _SCHEME or not token:
            raise errors.token_missing()
        principal, expires_s, trust = await self._verifier.prove(token)
        session = Session(principal, min(expires_s, time.time() + MAX_AGE_S), trust)
        _begin_under(session, self._policy.current, group)
        self._keep(_key(header, group), session)
        return session

    def decision(self, session: Session, permission: str) -> Decision:
        """Returns the decision for a session's principal under the policy that was in force when
        the session was asked for.

        Raises:
            GridlaneError: POLICY_STALE.
        """
        decision = session.decisions.get(permission)
        if decision is None:
            decision = decide(session.principal, permission, session.policy, now_us())
            session.decisions[permission] = decision
        return decision

    def _keep(self, key: bytes, session: Session) -> None:
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[key] = session


def refuse_revoked(principal: Principal, policy: Policy) -> None:
    """Refuses a caller whose token was revoked.

    Raises:
        GridlaneError: TOKEN_INVALID.
    """
    if principal.token_id in policy.revoked:
        raise errors.token_invalid()


def _key(header: str, group: str) -> bytes:
    # Neither has a line feed: gRPC's metadata are printable.
    text = f"{header}\n{group}" if group else header
    return sha256(text.encode()).digest()


def acting(proven: Principal, group: str, policy: Policy) -> Principal:
    """Returns a caller as it acts: in the group that it chose, or in the one of its token.

    What a VO has not declared, though it declares groups, is not acted in: the choice is refused,
    and a token's own group is none. A service that calls for somebody names the group in which that
    one acted when the work was accepted: that is not chosen anew.

    Parameters:
        proven: as the token says.
        group: the caller's choice; empty for none.

    Raises:
        GridlaneError: PERMISSION_DENIED.
    """
    if not group:
        kept = proven.actor is not None or policy.may_be_active(proven.active_group)
        return proven if kept else replace(proven, active_group="")
    if group not in proven.groups:
        raise errors.group_not_asserted(group)
    if not policy.may_be_active(group):
        raise errors.group_not_declared(group, vo_of_group(group))
    return replace(proven, active_group=group)


def _begin_under(session: Session, policy: Policy, group: str) -> None:
    refuse_revoked(session.proven, policy)
    session.principal = acting(session.proven, group, policy)
    session.policy = policy
    session.decisions = {}
    ends_us = policy.grants(session.principal, now_us()).until_us
    if ends_us is not None:
        session.good_until_s = min(session.good_until_s, ends_us / 1e6)
