"""The gRPC shells of Authorization: messages in, messages out.

No rules here: the kit has decided on the permission before a method is entered, roles are read from
the policy in force, tokens are made by the kit's signer.
"""

import contextlib
import time
from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.authorization.v1 import (
    audit_entry_pb2,
    audit_service_pb2,
    authorization_service_pb2,
    group_pb2,
    group_service_pb2,
    issuer_pb2,
    issuer_service_pb2,
    permission_pb2,
    policy_pb2,
    policy_service_pb2,
    role_service_pb2,
    signing_key_pb2,
    signing_key_service_pb2,
    token_pb2,
    token_service_pb2,
    vo_pb2,
    vo_service_pb2,
)
from gridlane.type.v1 import status_pb2
from gridlane_authorization.checks import Checks
from gridlane_authorization.groups import Groups
from gridlane_authorization.issuers import Issuers
from gridlane_authorization.policy import policy_message, roles_held
from gridlane_authorization.policy_feed import PolicyFeed
from gridlane_authorization.roles import Roles
from gridlane_authorization.signing_keys import SigningKeys
from gridlane_authorization.store import read_state
from gridlane_authorization.user_tokens import UserTokens
from gridlane_authorization.vos import Vos
from gridlane_kit import errors
from gridlane_kit.audit_reading import AuditReader
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.plans import Denied
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.principal_messages import principal_message
from gridlane_kit.tokens import TokenSigner
from gridlane_kit.version import VERSION


class AuthorizationShell:
    """`gridlane.authorization.v1.AuthorizationService`."""

    def __init__(self, db: Database, policy: PolicyHolder) -> None:
        self._db = db
        self._policy = policy
        self._checks = Checks(policy)

    async def WhoAmI(  # noqa: N802 - the contract's name
        self, request: authorization_service_pb2.WhoAmIRequest, call: Call
    ) -> authorization_service_pb2.WhoAmIResponse:
        """Answers who the caller is and which roles it holds."""
        principal = call.principal
        policy = self._policy.current
        response = authorization_service_pb2.WhoAmIResponse(
            principal=principal_message(principal),
            roles=roles_held(policy, principal, now_us()),
            scopes=sorted(principal.scopes or ()),
            policy_revision=policy.revision,
        )
        if principal.token_expires_us is not None:
            response.expire_time.CopyFrom(to_timestamp(principal.token_expires_us))
        return response

    async def CheckPermission(  # noqa: N802
        self, request: permission_pb2.CheckPermissionRequest, call: Call
    ) -> permission_pb2.CheckPermissionResponse:
        """Answers whether somebody may do something."""
        return await self._checks.check(request, call)

    async def BatchCheckPermissions(  # noqa: N802
        self, request: permission_pb2.BatchCheckPermissionsRequest, call: Call
    ) -> permission_pb2.BatchCheckPermissionsResponse:
        """Answers many such questions under one revision."""
        return await self._checks.check_many(request, call)

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


class JobTokenShell:
    """What jobs need of `gridlane.authorization.v1.TokenService`."""

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


class TokenShell(JobTokenShell):
    """`gridlane.authorization.v1.TokenService`."""

    def __init__(self, signer: TokenSigner, tokens: UserTokens, denied: Denied) -> None:
        super().__init__(signer)
        self._tokens = tokens
        self.denied = denied

    async def CreateToken(  # noqa: N802
        self, request: token_service_pb2.CreateTokenRequest, call: Call
    ) -> token_service_pb2.CreateTokenResponse:
        """Signs a token for a user."""
        return await self._tokens.create(request, call)

    async def ListTokens(  # noqa: N802
        self, request: token_service_pb2.ListTokensRequest, call: Call
    ) -> token_service_pb2.ListTokensResponse:
        """Lists tokens of users."""
        return await self._tokens.list(request, call)

    async def RevokeToken(  # noqa: N802
        self, request: token_service_pb2.RevokeTokenRequest, call: Call
    ) -> token_pb2.Token:
        """Revokes one."""
        return await self._tokens.revoke(request, call)

    async def ExchangeToken(  # noqa: N802
        self, request: token_service_pb2.ExchangeTokenRequest, call: Call
    ) -> token_service_pb2.ExchangeTokenResponse:
        """Signs one that says less."""
        return await self._tokens.exchange(request, call)


class RoleShell:
    """`gridlane.authorization.v1.RoleService`."""

    def __init__(self, roles: Roles, denied: Denied) -> None:
        self._roles = roles
        self.denied = denied

    async def CreateRoleBinding(  # noqa: N802
        self, request: role_service_pb2.CreateRoleBindingRequest, call: Call
    ) -> policy_pb2.RoleBinding:
        """Gives a role."""
        return await self._roles.create(request, call)

    async def UpdateRoleBinding(  # noqa: N802
        self, request: role_service_pb2.UpdateRoleBindingRequest, call: Call
    ) -> policy_pb2.RoleBinding:
        """Changes a binding."""
        return await self._roles.update(request, call)

    async def DeleteRoleBinding(  # noqa: N802
        self, request: role_service_pb2.DeleteRoleBindingRequest, call: Call
    ) -> role_service_pb2.DeleteRoleBindingResponse:
        """Takes a role away."""
        return await self._roles.delete(request, call)

    async def GetRoleBinding(  # noqa: N802
        self, request: role_service_pb2.GetRoleBindingRequest, call: Call
    ) -> policy_pb2.RoleBinding:
        """Answers one binding."""
        return await self._roles.get(request, call)

    async def ListRoleBindings(  # noqa: N802
        self, request: role_service_pb2.ListRoleBindingsRequest, call: Call
    ) -> role_service_pb2.ListRoleBindingsResponse:
        """Lists bindings."""
        return await self._roles.list(request, call)


class SigningKeyShell:
    """`gridlane.authorization.v1.SigningKeyService`."""

    def __init__(self, keys: SigningKeys, denied: Denied) -> None:
        self._keys = keys
        self.denied = denied

    async def ListSigningKeys(  # noqa: N802
        self, request: signing_key_service_pb2.ListSigningKeysRequest, call: Call
    ) -> signing_key_service_pb2.ListSigningKeysResponse:
        """Lists the keys."""
        return await self._keys.list(request, call)

    async def RotateSigningKey(  # noqa: N802
        self, request: signing_key_service_pb2.RotateSigningKeyRequest, call: Call
    ) -> signing_key_pb2.SigningKey:
        """Makes a new one."""
        return await self._keys.rotate(request, call)


class VoShell:
    """`gridlane.authorization.v1.VoService`."""

    def __init__(self, vos: Vos, denied: Denied) -> None:
        self._vos = vos
        self.denied = denied

    async def CreateVo(  # noqa: N802
        self, request: vo_service_pb2.CreateVoRequest, call: Call
    ) -> vo_pb2.Vo:
        """Makes a virtual organisation."""
        return await self._vos.create(request, call)

    async def UpdateVo(  # noqa: N802
        self, request: vo_service_pb2.UpdateVoRequest, call: Call
    ) -> vo_pb2.Vo:
        """Changes one."""
        return await self._vos.update(request, call)

    async def DeleteVo(  # noqa: N802
        self, request: vo_service_pb2.DeleteVoRequest, call: Call
    ) -> vo_service_pb2.DeleteVoResponse:
        """Deletes one."""
        return await self._vos.delete(request, call)

    async def GetVo(  # noqa: N802
        self, request: vo_service_pb2.GetVoRequest, call: Call
    ) -> vo_pb2.Vo:
        """Answers one."""
        return await self._vos.get(request, call)

    async def ListVos(  # noqa: N802
        self, request: vo_service_pb2.ListVosRequest, call: Call
    ) -> vo_service_pb2.ListVosResponse:
        """Lists virtual organisations."""
        return await self._vos.list(request, call)


class GroupShell:
    """`gridlane.authorization.v1.GroupService`."""

    def __init__(self, groups: Groups, denied: Denied) -> None:
        self._groups = groups
        self.denied = denied

    async def CreateGroup(  # noqa: N802
        self, request: group_service_pb2.CreateGroupRequest, call: Call
    ) -> group_pb2.Group:
        """Declares a group."""
        return await self._groups.create(request, call)

    async def UpdateGroup(  # noqa: N802
        self, request: group_service_pb2.UpdateGroupRequest, call: Call
    ) -> group_pb2.Group:
        """Changes one."""
        return await self._groups.update(request, call)

    async def DeleteGroup(  # noqa: N802
        self, request: group_service_pb2.DeleteGroupRequest, call: Call
    ) -> group_service_pb2.DeleteGroupResponse:
        """Takes one back."""
        return await self._groups.delete(request, call)

    async def GetGroup(  # noqa: N802
        self, request: group_service_pb2.GetGroupRequest, call: Call
    ) -> group_pb2.Group:
        """Answers one."""
        return await self._groups.get(request, call)

    async def ListGroups(  # noqa: N802
        self, request: group_service_pb2.ListGroupsRequest, call: Call
    ) -> group_service_pb2.ListGroupsResponse:
        """Lists a VO's groups."""
        return await self._groups.list(request, call)


class IssuerShell:
    """`gridlane.authorization.v1.IssuerService`."""

    def __init__(self, issuers: Issuers, denied: Denied) -> None:
        self._issuers = issuers
        self.denied = denied

    async def CreateIssuer(  # noqa: N802
        self, request: issuer_service_pb2.CreateIssuerRequest, call: Call
    ) -> issuer_pb2.Issuer:
        """Adds an issuer."""
        return await self._issuers.create(request, call)

    async def UpdateIssuer(  # noqa: N802
        self, request: issuer_service_pb2.UpdateIssuerRequest, call: Call
    ) -> issuer_pb2.Issuer:
        """Changes one."""
        return await self._issuers.update(request, call)

    async def DeleteIssuer(  # noqa: N802
        self, request: issuer_service_pb2.DeleteIssuerRequest, call: Call
    ) -> issuer_service_pb2.DeleteIssuerResponse:
        """Takes one off the list."""
        return await self._issuers.delete(request, call)

    async def GetIssuer(  # noqa: N802
        self, request: issuer_service_pb2.GetIssuerRequest, call: Call
    ) -> issuer_pb2.Issuer:
        """Answers one."""
        return await self._issuers.get(request, call)

    async def ListIssuers(  # noqa: N802
        self, request: issuer_service_pb2.ListIssuersRequest, call: Call
    ) -> issuer_service_pb2.ListIssuersResponse:
        """Lists the issuers."""
        return await self._issuers.list(request, call)


class AuditShell:
    """`gridlane.authorization.v1.AuditService`."""

    def __init__(self, reader: AuditReader) -> None:
        self._reader = reader

    async def GetAuditEntry(  # noqa: N802
        self, request: audit_service_pb2.GetAuditEntryRequest, call: Call
    ) -> audit_entry_pb2.AuditEntry:
        """Answers one entry."""
        return await self._reader.get(request.name, call)

    async def ListAuditEntries(  # noqa: N802
        self, request: audit_service_pb2.ListAuditEntriesRequest, call: Call
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        """Lists entries."""
        entries, token = await self._reader.list(request, call)
        return audit_service_pb2.ListAuditEntriesResponse(
            audit_entries=entries, next_page_token=token
        )
