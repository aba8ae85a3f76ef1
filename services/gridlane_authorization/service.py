"""The gRPC shells of Authorization: messages in, messages out.

No rules here: the kit has decided on the permission before a method is entered, roles are read from
the policy in force, tokens are made by the kit's signer.
"""

import contextlib
import time
from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.authorization.v1 import (
    authorization_service_pb2,
    policy_pb2,
    policy_service_pb2,
    token_service_pb2,
)
from gridlane.type.v1 import principal_pb2, status_pb2
from gridlane_authorization.policy import policy_message, roles_held
from gridlane_authorization.policy_feed import PolicyFeed
from gridlane_authorization.store import read_state
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.identity import Principal, PrincipalKind
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.tokens import TokenSigner
from gridlane_kit.version import VERSION

_KINDS = {
    PrincipalKind.USER: principal_pb2.PRINCIPAL_KIND_USER,
    PrincipalKind.JOB: principal_pb2.PRINCIPAL_KIND_JOB,
    PrincipalKind.SERVICE: principal_pb2.PRINCIPAL_KIND_SERVICE,
}


class AuthorizationShell:
    """`gridlane.authorization.v1.AuthorizationService`."""

    def __init__(self, db: Database, policy: PolicyHolder) -> None:
        self._db = db
        self._policy = policy

    async def WhoAmI(  # noqa: N802 - the contract's name
        self, request: authorization_service_pb2.WhoAmIRequest, call: Call
    ) -> authorization_service_pb2.WhoAmIResponse:
        """Answers who the caller is and which roles it holds."""
        principal = call.principal
        policy = self._policy.current
        response = authorization_service_pb2.WhoAmIResponse(
            principal=principal_message(principal),
            roles=roles_held(
                policy, principal.issuer, principal.subject, principal.owner, now_us()
            ),
            scopes=sorted(principal.scopes or ()),
            policy_revision=policy.revision,
        )
        if principal.token_expires_us is not None:
            response.expire_time.CopyFrom(to_timestamp(principal.token_expires_us))
        return response

    async def GetPolicy(  # noqa: N802
        self, request: authorization_service_pb2.GetPolicyRequest, call: Call
    ) -> policy_pb2.Policy:
        """Answers the whole policy in force."""
        return policy_message(self._policy.current)

    async def GetAuthorizationStatus(  # noqa: N802
        self, request: authorization_service_pb2.GetAuthorizationStatusRequest, call: Call
    ) -> status_pb2.ServiceStatus:
        """Answers how the service and its database are."""
        started = time.monotonic()
        database = status_pb2.BackendStatus(name="database", reachable=True)
        try:
            await self._db.read(read_state)
        except errors.GridlaneError as error:
            database.reachable = False
            database.message = error.message
        database.latency.FromNanoseconds(int((time.monotonic() - started) * 1e9))
        return status_pb2.ServiceStatus(
            service="authorization",
            reachable=True,
            authenticated=True,
            version=VERSION,
            backends=[database],
        )


class PolicyShell:
    """`gridlane.authorization.v1.PolicyService`."""

    def __init__(self, feed: PolicyFeed) -> None:
        self._feed = feed

    async def FollowPolicy(  # noqa: N802
        self, request: policy_service_pb2.FollowPolicyRequest, call: Call
    ) -> AsyncIterator[policy_service_pb2.FollowPolicyResponse]:
        """Streams what the follower lacks, then changes and heartbeats."""
        async with contextlib.aclosing(self._feed.follow(request.epoch, request.revision)) as news:
            async for message in news:
                yield message


class TokenShell:
    """`gridlane.authorization.v1.TokenService`."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    async def MintJobToken(  # noqa: N802
        self, request: token_service_pb2.MintJobTokenRequest, call: Call
    ) -> token_service_pb2.MintJobTokenResponse:
        """Signs a token for one attempt of the caller's job.

        The caller is the job's owner, for whom the workload service acts; no other service may.
        """
        owner = call.principal
        lifetime_s = max(1, request.lifetime.seconds)
        token = self._signer.sign_job(
            owner.issuer,
            owner.subject,
            job=request.job,
            attempt=request.attempt,
            vos=owner.vos,
            lifetime_s=lifetime_s,
        )
        return token_service_pb2.MintJobTokenResponse(
            token=token, expire_time=Timestamp(seconds=int(time.time()) + lifetime_s)
        )


def principal_message(principal: Principal) -> principal_pb2.Principal:
    """Returns the contract's form of a principal."""
    return principal_pb2.Principal(
        issuer=principal.issuer,
        subject=principal.subject,
        display_name=principal.display_name,
        vos=sorted(principal.vos),
        groups=sorted(principal.groups),
        kind=_KINDS[principal.kind],
    )
