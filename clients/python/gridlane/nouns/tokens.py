"""Tokens that Gridlane signs for users: `client.tokens`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

from gridlane.authorization.v1 import token_service_pb2 as rpc
from gridlane.authorization.v1.token_pb2 import Token
from gridlane.calls import Timeout
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun, duration, equals
from gridlane.transport import Method

_SERVICE = "gridlane.authorization.v1.TokenService"
CREATE = Method(_SERVICE, "CreateToken", rpc.CreateTokenRequest, rpc.CreateTokenResponse)
LIST = Method(_SERVICE, "ListTokens", rpc.ListTokensRequest, rpc.ListTokensResponse)
REVOKE = Method(_SERVICE, "RevokeToken", rpc.RevokeTokenRequest, Token)
EXCHANGE = Method(_SERVICE, "ExchangeToken", rpc.ExchangeTokenRequest, rpc.ExchangeTokenResponse)


class Tokens(ClientNoun[Mode]):
    """Tokens of Gridlane's own issuer. A token itself is in one answer alone, and kept nowhere."""

    @verb
    async def create(
        self,
        subject: str,
        *,
        display_name: str = "",
        vos: Sequence[str] = (),
        groups: Sequence[str] = (),
        active_group: str = "",
        scopes: Sequence[str] = (),
        lifetime: timedelta | None = None,
        reason: str = "",
        timeout: Timeout = None,
    ) -> rpc.CreateTokenResponse:
        """Sign a token for a user of Gridlane's own issuer; for administrators. Never repeated: one
        whose answer was lost is found with `list`.

        Parameters:
            subject: the user.
            display_name: a name for people; empty: the subject.
            vos: the virtual organisations to which the user belongs.
            groups: paths of declared groups ("/cms/production").
            active_group: one of them; empty: none.
            scopes: that narrow it ("storage.read:/cms"); none: it is not narrowed.
            lifetime: how long it is good; None: a day. At most 30 days.
            reason: why; kept in the audit.
            timeout: see the package.

        Raises:
            InvalidArgument: `violations` names each field that is wrong.
            FailedPrecondition: no VO of these has such a group.
            PermissionDenied: the caller is no administrator.
        """
        request = rpc.CreateTokenRequest(
            subject=subject,
            display_name=display_name,
            vos=vos,
            groups=groups,
            active_group=active_group,
            scopes=scopes,
            lifetime=duration(lifetime),
            reason=reason,
        )
        return await self._calls.unary(CREATE, request, timeout, repeat=False)

    @verb
    async def exchange(
        self,
        *,
        scopes: Sequence[str] = (),
        vos: Sequence[str] = (),
        groups: Sequence[str] = (),
        active_group: str = "",
        audience: str = "",
        lifetime: timedelta | None = None,
        timeout: Timeout = None,
    ) -> rpc.ExchangeTokenResponse:
        """Have a token that says less than the one with which this client calls.

        Parameters:
            scopes, vos, groups: some of the caller's; none: the caller's.
            active_group: one of the groups; empty: the caller's, where it is among them.
            audience: for whom it is; empty: this deployment.
            lifetime: how long it is good, and no longer than the caller's; None: an hour. At most
                6 hours.
            timeout: see the package.

        Raises:
            PermissionDenied: the caller's token does not say so much.
        """
        request = rpc.ExchangeTokenRequest(
            scopes=scopes,
            vos=vos,
            groups=groups,
            active_group=active_group,
            audience=audience,
            lifetime=duration(lifetime),
        )
        return await self._calls.unary(EXCHANGE, request, timeout)

    @verb
    async def revoke(self, name: str, *, reason: str = "", timeout: Timeout = None) -> Token:
        """Revoke a token, and those that were had from it by exchange; in force everywhere within a
        second.

        Parameters:
            name: "tokens/<id>" or the bare id.
            reason: why; kept in the audit.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may revoke.
        """
        request = rpc.RevokeTokenRequest(name=collection_name(name, "tokens"), reason=reason)
        return await self._calls.unary(REVOKE, request, timeout)

    @stream
    def list(
        self,
        *,
        subject: str | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[Token]:
        """The tokens that were signed for the caller, all of them for an administrator; newest
        first.

        Parameters:
            subject: only those of this user.
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        filtered = equals(subject=subject)
        request = rpc.ListTokensRequest(filter=filtered)
        return self._listed(LIST, request, lambda page: page.tokens, limit, timeout)
