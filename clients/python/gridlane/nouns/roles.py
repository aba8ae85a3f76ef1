"""Roles given and taken: `client.roles`. A veto is the role "vetoed"."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Literal

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.authorization.v1 import role_service_pb2 as rpc
from gridlane.authorization.v1.policy_pb2 import RoleBinding
from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import role_binding_name
from gridlane.nouns.noun import ClientNoun, equals, timestamp
from gridlane.roles import filter_word, role_of, work_action_of
from gridlane.transport import Method

_SERVICE = "gridlane.authorization.v1.RoleService"
CREATE = Method(_SERVICE, "CreateRoleBinding", rpc.CreateRoleBindingRequest, RoleBinding)
UPDATE = Method(_SERVICE, "UpdateRoleBinding", rpc.UpdateRoleBindingRequest, RoleBinding)
DELETE = Method(
    _SERVICE, "DeleteRoleBinding", rpc.DeleteRoleBindingRequest, rpc.DeleteRoleBindingResponse
)
GET = Method(_SERVICE, "GetRoleBinding", rpc.GetRoleBindingRequest, RoleBinding)
LIST = Method(
    _SERVICE, "ListRoleBindings", rpc.ListRoleBindingsRequest, rpc.ListRoleBindingsResponse
)

#: What a veto does to work.
Action = Literal["keep", "hold", "cancel"]


class Roles(ClientNoun[Mode]):
    """The bindings of roles to identities and groups. A change is in force in every service within
    a second; `client.authorization.check` with its revision as `minimum_revision` waits for it.
    """

    @verb
    async def grant(
        self,
        role: str,
        subject: str = "",
        *,
        issuer: str = "",
        group: str = "",
        vo: str = "",
        channel_uid: str = "",
        expire_time: datetime | None = None,
        queued_work: Action | None = None,
        running_work: Action | None = None,
        reason: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> RoleBinding:
        """Give a role to an identity or a group; the answer means that it is durable.

        Parameters:
            role: as a word ("submitter", "vo_manager").
            subject, issuer: the identity that gets it.
            group: the group that gets it instead ("/cms/production"); `vo` says whose that is.
            vo: where it holds; needed for "vo_manager".
            channel_uid: the channel of a "channel_manager".
            expire_time: when it ends, with a time zone; None: never.
            queued_work, running_work: for "vetoed": what happens to work that has not begun (None:
                "hold") and that runs (None: "keep").
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same binding, for 30
                days. None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            InvalidArgument: `violations` names each field that is wrong.
            PermissionDenied: the caller may not give that role there.
            AlreadyExists: the holder has that role there already.
            FailedPrecondition: the VO has no such group; or the last administrator would be vetoed.
            ValueError: there is no such role.
        """
        binding = RoleBinding(
            issuer=issuer,
            subject=subject,
            group=group,
            role=role_of(role),
            vo=vo,
            channel_uid=channel_uid,
            expire_time=timestamp(expire_time),
            queued_work=work_action_of(queued_work),
            running_work=work_action_of(running_work),
        )
        request = rpc.CreateRoleBindingRequest(
            role_binding=binding,
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
        expire_time: datetime | None = None,
        queued_work: Action | None = None,
        running_work: Action | None = None,
        clear: Sequence[str] = (),
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> RoleBinding:
        """Change when a binding ends, or what a veto does to work.

        Parameters:
            name: "roleBindings/<uuid>" or the bare id.
            expire_time, queued_work, running_work: their new values; None leaves them.
            clear: names of those that are to have their default: ("expire_time",) is for ever.
            reason: why; kept in the audit.
            revision: the binding's, as it was read: a later one is not changed. Such a call is made
                once.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
            PermissionDenied: the caller may see it, not change it.
            Aborted: it has another revision.
            FailedPrecondition: the last administrator would get an end.
        """
        binding = RoleBinding(
            name=role_binding_name(name),
            expire_time=timestamp(expire_time),
            queued_work=work_action_of(queued_work),
            running_work=work_action_of(running_work),
        )
        given: set[str] = {field.name for field, _ in binding.ListFields()} - {"name"}
        request = rpc.UpdateRoleBindingRequest(
            role_binding=binding,
            update_mask=FieldMask(paths=sorted({*given, *clear})),
            reason=reason,
            revision=revision,
        )
        return await self._calls.unary(UPDATE, request, timeout, repeat=not revision)

    @verb
    async def revoke(
        self, name: str, *, reason: str = "", revision: int = 0, timeout: Timeout = None
    ) -> int:
        """Take a role away, or end a veto.

        Parameters:
            name: "roleBindings/<uuid>" or the bare id.
            reason: why; kept in the audit.
            revision: the binding's, as it was read: a later one is not taken. Such a call is made
                once.
            timeout: see the package.

        Returns:
            The revision of the policy that no longer has it.

        Raises:
            NotFound: there is none that the caller may see, or an attempt whose answer was lost has
                taken it.
            PermissionDenied: the caller may see it, not take it.
            Aborted: it has another revision.
            FailedPrecondition: it is the last administrator's.
        """
        request = rpc.DeleteRoleBindingRequest(
            name=role_binding_name(name), reason=reason, revision=revision
        )
        answer = await self._calls.unary(DELETE, request, timeout, repeat=not revision)
        return answer.policy_revision

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> RoleBinding:
        """One binding.

        Parameters:
            name: "roleBindings/<uuid>" or the bare id.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = rpc.GetRoleBindingRequest(name=role_binding_name(name))
        return await self._calls.unary(GET, request, timeout)

    @stream
    def list(
        self,
        *,
        subject: str | None = None,
        issuer: str | None = None,
        role: str | None = None,
        vo: str | None = None,
        channel_uid: str | None = None,
        group: str | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[RoleBinding]:
        """The bindings in force that the caller may see, newest first.

        Parameters:
            subject, role, vo, channel_uid, group: only those; one of them, or `vo` with `role`, or
                `issuer` with `subject`.
            issuer: of the subject.
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            InvalidArgument: the parameters are no such combination.
            ValueError: there is no such role.
        """
        filtered = equals(
            issuer=issuer,
            subject=subject,
            vo=vo,
            role=filter_word(role) if role else None,
            channel_uid=channel_uid,
            group=group,
        )
        request = rpc.ListRoleBindingsRequest(filter=filtered)
        return self._listed(LIST, request, lambda page: page.role_bindings, limit, timeout)
