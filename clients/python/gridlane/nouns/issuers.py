"""Issuers whose tokens are believed: `client.issuers`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.authorization.v1 import issuer_service_pb2 as rpc
from gridlane.authorization.v1.issuer_pb2 import Issuer
from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun, duration, equals
from gridlane.transport import Method

_SERVICE = "gridlane.authorization.v1.IssuerService"
CREATE = Method(_SERVICE, "CreateIssuer", rpc.CreateIssuerRequest, Issuer)
UPDATE = Method(_SERVICE, "UpdateIssuer", rpc.UpdateIssuerRequest, Issuer)
DELETE = Method(_SERVICE, "DeleteIssuer", rpc.DeleteIssuerRequest, rpc.DeleteIssuerResponse)
GET = Method(_SERVICE, "GetIssuer", rpc.GetIssuerRequest, Issuer)
LIST = Method(_SERVICE, "ListIssuers", rpc.ListIssuersRequest, rpc.ListIssuersResponse)


class Issuers(ClientNoun[Mode]):
    """Who says who somebody is. Administrators alone change them; in force everywhere within a
    second."""

    @verb
    async def create(
        self,
        issuer: str,
        *,
        url: str,
        vo: str,
        audiences: Sequence[str] = (),
        jwks_uri: str = "",
        jwks: str = "",
        algorithms: Sequence[str] = (),
        enabled: bool = False,
        max_group_age: timedelta | None = None,
        max_token_lifetime: timedelta | None = None,
        description: str = "",
        reason: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> Issuer:
        """Add an issuer; the answer means that it is durable, not that its keys are there.

        Parameters:
            issuer: the name that it gets ("cms-iam"), which cannot be changed.
            url: the claim `iss` of its tokens, exactly, to a trailing slash; cannot be changed.
            vo: the one virtual organisation for which it speaks ("cms"); cannot be changed.
            audiences: further values of `aud` that are accepted from it.
            jwks_uri: where its public keys are fetched; empty: where its metadata say.
            jwks: its public keys themselves, as a JSON Web Key Set; nothing is fetched then.
            algorithms: "RS256", "ES256" or both; empty: both.
            enabled: whether its tokens are accepted from now on.
            max_group_age: how long the groups of a token are believed of work that was submitted
                with it and runs later; None: 24 h.
            max_token_lifetime: the longest time from `iat` to `exp`; None: any.
            description: what it is, for people.
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same one, for 30
                days. None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            AlreadyExists: there is one of that name or URL.
            InvalidArgument: a rule is broken, or policy forbids to connect to where its keys are.
            FailedPrecondition: there is no such VO.
            PermissionDenied: the caller is no administrator.
        """
        given = Issuer(
            url=url,
            vo=vo.removeprefix("vos/"),
            audiences=audiences,
            jwks_uri=jwks_uri,
            jwks=jwks,
            algorithms=algorithms,
            enabled=enabled,
            max_group_age=duration(max_group_age),
            max_token_lifetime=duration(max_token_lifetime),
            description=description,
        )
        request = rpc.CreateIssuerRequest(
            issuer_id=issuer.removeprefix("issuers/"),
            issuer=given,
            reason=reason,
            request_id=request_id or uuid7(),
            validate_only=validate_only,
        )
        return await self._calls.unary(CREATE, request, timeout)

    @verb
    async def update(
        self,
        name: str,
        *,
        audiences: Sequence[str] | None = None,
        jwks_uri: str | None = None,
        jwks: str | None = None,
        algorithms: Sequence[str] | None = None,
        enabled: bool | None = None,
        max_group_age: timedelta | None = None,
        max_token_lifetime: timedelta | None = None,
        description: str | None = None,
        clear: Collection[str] = (),
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> Issuer:
        """Change an issuer. Switched off, its tokens are refused from then on, and what its users
        watch ends.

        Parameters:
            name: "issuers/<id>" or the bare id.
            audiences, jwks_uri, jwks, algorithms, enabled, max_group_age, max_token_lifetime,
                description: their new values, as for `create`; None leaves them.
            clear: the names of those that get their defaults ("max_token_lifetime").
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not changed. Such a call is made once.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
            FailedPrecondition: it is Gridlane's own or comes from the settings, or no administrator
                could prove its identity any more.
            Aborted: it has another revision.
        """
        values = {
            "audiences": audiences,
            "jwks_uri": jwks_uri,
            "jwks": jwks,
            "algorithms": algorithms,
            "enabled": enabled,
            "max_group_age": duration(max_group_age),
            "max_token_lifetime": duration(max_token_lifetime),
            "description": description,
        }
        given: dict[str, Any] = {field: v for field, v in values.items() if v is not None}
        request = rpc.UpdateIssuerRequest(
            issuer=Issuer(name=collection_name(name, "issuers"), **given),
            update_mask=FieldMask(paths=sorted({*given, *clear})),
            reason=reason,
            revision=revision,
        )
        return await self._calls.unary(UPDATE, request, timeout, repeat=not revision)

    @verb
    async def delete(
        self, name: str, *, reason: str = "", revision: int = 0, timeout: Timeout = None
    ) -> int:
        """Take an issuer off the list; roles of its users stay, and count again when it is added
        again.

        Parameters:
            name: "issuers/<id>" or the bare id.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not deleted. Such a call is made once.
            timeout: see the package.

        Returns:
            The revision of the policy that no longer has it.

        Raises:
            NotFound: there is none of that name, or an attempt whose answer was lost has deleted
                it.
            FailedPrecondition: as for `update`.
            Aborted: it has another revision.
        """
        request = rpc.DeleteIssuerRequest(
            name=collection_name(name, "issuers"), reason=reason, revision=revision
        )
        answer = await self._calls.unary(DELETE, request, timeout, repeat=not revision)
        return answer.policy_revision

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> Issuer:
        """One issuer, and how its keys are.

        Parameters:
            name: "issuers/<id>" or the bare id.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
        """
        request = rpc.GetIssuerRequest(name=collection_name(name, "issuers"))
        return await self._calls.unary(GET, request, timeout)

    @stream
    def list(
        self, *, vo: str | None = None, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[Issuer]:
        """The issuers, by name: those of the policy, those of the settings, Gridlane's own.

        Parameters:
            vo: only those that speak for this virtual organisation.
            limit: at most this many; None for all.
            timeout: for each page.
        """
        request = rpc.ListIssuersRequest(filter=equals(vo=vo))
        return self._listed(LIST, request, lambda page: page.issuers, limit, timeout)
