"""Tokens for users: who may have which, what an exchanged one may say, what ends with it.

Responsible for the rules of `TokenService`, but for those of jobs. What a token looks like is the
kit's (`gridlane_kit.tokens`); a token itself is kept nowhere. An exchange keeps the writers' order
too: a token that is revoked at the same time ends with what is had from it, or gives nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from google.protobuf.duration_pb2 import Duration
from sqlalchemy import Connection

from gridlane.authorization.v1 import token_pb2, token_service_pb2
from gridlane.ids import uuid7
from gridlane_authorization import messages
from gridlane_authorization.changes import Attempt, Changed, Changes
from gridlane_authorization.store import groups, user_tokens
from gridlane_authorization.store.user_tokens import NEWEST_FIRST, StoredToken
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import scope_covers
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.identity import Principal, capability_of, scope_is_whole
from gridlane_kit.pages import page_request
from gridlane_kit.policy import PolicyChange, vo_of_group
from gridlane_kit.tokens import TokenSigner

PREFIX: Final = "tokens/"
FILTER: Final = FilterRules({"subject": Field(str)}, combinations=[["subject"]])

_CREATED_S: Final = 86_400
_EXCHANGED_S: Final = 3_600
"""How long tokens are good for which no time is asked; WLCG profile 4.3.1."""
_LONGEST_EXCHANGED_S: Final = 21_600
"""How long one is good at most that was had by exchange."""


class UserTokens:
    """Signs, lists, revokes and narrows users' tokens.

    Parameters:
        signer: of the deployment.
        most_exchanges: how many tokens one user may have by exchange in the time that one of them
            is good at most; so many are good at once, then, and no more rows grow than that.
    """

    def __init__(
        self, db: Database, changes: Changes, signer: TokenSigner, most_exchanges: int
    ) -> None:
        self._db = db
        self._changes = changes
        self._signer = signer
        self._most_exchanges = most_exchanges

    async def create(
        self, request: token_service_pb2.CreateTokenRequest, call: Call
    ) -> token_service_pb2.CreateTokenResponse:
        """Signs a token for a user of Gridlane's own issuer.

        Raises:
            GridlaneError: INVALID_FIELDS, PRECONDITION, and those of `Changes.change`.
        """
        attempt = Attempt.of(call, request, "")
        lifetime_s = _seconds(request.lifetime, _CREATED_S)
        token, stored = self._sign(attempt, self._asked_for(request), lifetime_s)
        made = await self._changes.change(attempt, partial(_create, stored))
        return token_service_pb2.CreateTokenResponse(token=token, resource=made)

    async def list(
        self, request: token_service_pb2.ListTokensRequest, call: Call
    ) -> token_service_pb2.ListTokensResponse:
        """Lists the tokens that were signed for the caller; an administrator's are all.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED, TOKEN_NOT_OURS.
        """
        asked = FILTER.parse(request.filter)
        page = page_request(
            NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, asked.canonical, call.principal.owner),
        )
        rows, token = await self._db.read(
            lambda conn: user_tokens.page(conn, call.visibility, asked, page)
        )
        return token_service_pb2.ListTokensResponse(
            tokens=map(messages.token, rows), next_page_token=token
        )

    async def revoke(
        self, request: token_service_pb2.RevokeTokenRequest, call: Call
    ) -> token_pb2.Token:
        """Revokes a token, and those that were had from it by exchange.

        Raises:
            GridlaneError: NOT_FOUND, and those of `Changes.change`.
        """
        attempt = Attempt.of(call, request, request.name)
        return await self._changes.change(attempt, partial(_revoke, attempt))

    async def exchange(
        self, request: token_service_pb2.ExchangeTokenRequest, call: Call
    ) -> token_service_pb2.ExchangeTokenResponse:
        """Signs a token that says less than the caller's.

        Raises:
            GridlaneError: INVALID_FIELDS, TOKEN_INVALID, TOKEN_EXPIRED, SCOPE_TOO_NARROW,
                PERMISSION_DENIED, OVERLOADED, and those of `Changes.change`.
        """
        messages.refuse_nul(audience=request.audience)
        attempt = Attempt(call, "", "", now_us())
        left_s = _time_left_s(call, attempt.time_us)
        lifetime_s = min(_seconds(request.lifetime, _EXCHANGED_S), left_s)
        principal = _narrowed(request, call)
        token, stored = self._sign(attempt, principal, lifetime_s, request.audience)
        exchanged = replace(stored, exchanged_for=call.principal.token_id)
        act = partial(_exchange, exchanged, self._most_exchanges)
        made = await self._changes.change(attempt, act)
        return token_service_pb2.ExchangeTokenResponse(token=token, resource=made)

    def _asked_for(self, request: token_service_pb2.CreateTokenRequest) -> Principal:
        name = request.display_name or request.subject
        messages.refuse_nul(display_name=name, vos="".join(request.vos))
        if not name.isprintable():
            raise errors.invalid([("display_name", "has what cannot be printed")])
        _refuse_broken(request.scopes)
        return Principal(
            self._signer.issuer,
            request.subject,
            name,
            frozenset(request.vos),
            frozenset(request.groups),
            frozenset(request.scopes) or None,
            active_group=request.active_group,
        )

    def _sign(
        self, attempt: Attempt, principal: Principal, lifetime_s: int, audience: str = ""
    ) -> tuple[str, StoredToken]:
        signed_s = attempt.time_us // 1_000_000
        stored = StoredToken(
            uuid7(),
            principal,
            attempt.call.principal,
            audience or self._signer.audience,
            attempt.time_us,
            (signed_s + lifetime_s) * 1_000_000,
            attempt.reason,
        )
        token = self._signer.sign_for(
            principal,
            token_id=stored.jti,
            audience=stored.audience,
            issued_s=signed_s,
            expires_s=signed_s + lifetime_s,
        )
        return token, stored


def _create(stored: StoredToken, conn: Connection, revision: int) -> Changed[token_pb2.Token]:
    vos = stored.principal.vos
    for path in sorted(stored.principal.groups):
        if not any(groups.declared(conn, vo, path) for vo in vos):
            raise errors.precondition(
                path, f"no VO of the token has a group with the path {path}: create it first"
            )
    user_tokens.insert_one(conn, stored)
    return Changed(stored.name, "", None, messages.token(stored), change=None)


def _revoke(attempt: Attempt, conn: Connection, revision: int) -> Changed[token_pb2.Token]:
    jti = attempt.resource.removeprefix(PREFIX)
    found = user_tokens.visible(conn, jti, attempt.call.visibility)
    if found is None:
        raise errors.not_found(attempt.resource)
    ended = user_tokens.revoke(conn, found, attempt.time_us)
    after = user_tokens.read(conn, jti)
    if after is None:
        raise TypeError("a token that is revoked stays listed")
    change = PolicyChange(revision, revoked=ended) if ended else None
    return Changed(found.name, "", messages.token(found), messages.token(after), change)


def _exchange(
    stored: StoredToken, most: int, conn: Connection, revision: int
) -> Changed[token_pb2.Token]:
    _refuse_too_many(conn, stored, most)
    parent = user_tokens.read(conn, stored.exchanged_for)
    # Another issuer may have given one of its tokens the same id.
    if (
        parent is not None
        and parent.principal.owner == stored.principal.owner
        and parent.revoke_time_us is not None
    ):
        raise errors.token_invalid()
    active = stored.principal.active_group
    if active and not groups.may_be_active(conn, vo_of_group(active), active):
        raise errors.group_not_declared(active, vo_of_group(active))
    user_tokens.insert_one(conn, stored)
    return Changed(stored.name, "", None, messages.token(stored), change=None)


def _refuse_too_many(conn: Connection, stored: StoredToken, most: int) -> None:
    """Refuses an exchange to who had too many.

    Raises:
        GridlaneError: OVERLOADED; the time to come again is when the first of them is past.
    """
    window_us = _LONGEST_EXCHANGED_S * 1_000_000
    now = stored.create_time_us
    had = user_tokens.exchanged_since(conn, stored.principal.owner, now - window_us, most)
    if len(had) >= most:
        again_s = max(1.0, (had[0] + window_us - now) / 1e6)
        raise errors.too_many_exchanges(most, _LONGEST_EXCHANGED_S // 3600, again_s)


def _time_left_s(call: Call, now_us: int) -> int:
    """How long the caller's token is good still.

    Raises:
        GridlaneError: PERMISSION_DENIED: the caller did not come with a token of its own;
            TOKEN_EXPIRED.
    """
    ends_us = call.principal.token_expires_us
    if ends_us is None or call.principal.actor is not None:
        raise errors.permission_denied(
            call.decision.permission, message="only who comes with a token can exchange it"
        )
    left_s = ends_us // 1_000_000 - now_us // 1_000_000
    if left_s < 1:
        raise errors.token_expired()
    return left_s


def _narrowed(request: token_service_pb2.ExchangeTokenRequest, call: Call) -> Principal:
    """Returns the caller as the token that it asks for shows it.

    Raises:
        GridlaneError: INVALID_FIELDS, SCOPE_TOO_NARROW, PERMISSION_DENIED.
    """
    caller, permission = call.principal, call.decision.permission
    held = _part_of(caller.groups, request.groups, permission)
    active = request.active_group or (caller.active_group if caller.active_group in held else "")
    if active and active not in held:
        raise errors.permission_denied(permission, active, "no group of the token is called so")
    return replace(
        caller,
        vos=_part_of(caller.vos, request.vos, permission),
        groups=held,
        active_group=active,
        scopes=_scopes(caller, request.scopes, permission),
    )


def _part_of(held: frozenset[str], asked: Collection[str], permission: str) -> frozenset[str]:
    foreign = sorted(set(asked) - held)
    if foreign:
        raise errors.permission_denied(
            permission, foreign[0], f"{foreign[0]}: your token does not say that you belong to it"
        )
    return frozenset(asked) or held


def _scopes(caller: Principal, asked: Sequence[str], permission: str) -> frozenset[str] | None:
    """Returns the scopes of a narrower token, which never says more than the caller's.

    One without a capability among its scopes is not narrowed at all: where the caller's is, that
    would be more.
    """
    if not asked:
        return caller.scopes
    _refuse_broken(asked)
    lacking = [scope for scope in asked if not _covers(caller, scope)]
    if lacking:
        raise errors.scope_too_narrow(permission, lacking[0])
    if caller.capabilities is not None and not any(map(capability_of, asked)):
        raise errors.scope_too_narrow(permission, "")
    return frozenset(asked)


def _covers(caller: Principal, scope: str) -> bool:
    wanted = capability_of(scope)
    if caller.scopes is None or scope in caller.scopes:
        return True
    if wanted is None:
        return False
    if caller.capabilities is None:
        return True
    # What has a path of its own is of storage; of what else there is, the same scope alone covers.
    return wanted.path is not None and scope_covers(caller, wanted.operation, wanted.path or "/")


def _refuse_broken(scopes: Sequence[str]) -> None:
    """Refuses scopes with which no token is good (WLCG profile)."""
    broken = [
        (f"scopes[{place}]", "a storage scope has an absolute path: storage.read:/cms")
        for place, scope in enumerate(scopes)
        if not scope_is_whole(scope)
    ]
    if broken:
        raise errors.invalid(broken)


def _seconds(asked: Duration, default_s: int) -> int:
    """A lifetime in whole seconds; a part of one counts as one."""
    return asked.seconds + (asked.nanos > 0) or default_s
