"""Groups of virtual organisations: `client.groups`."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.authorization.v1 import group_service_pb2 as rpc
from gridlane.authorization.v1.group_pb2 import Group
from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name, group_name
from gridlane.nouns.noun import ClientNoun
from gridlane.transport import Method

_SERVICE = "gridlane.authorization.v1.GroupService"
CREATE = Method(_SERVICE, "CreateGroup", rpc.CreateGroupRequest, Group)
UPDATE = Method(_SERVICE, "UpdateGroup", rpc.UpdateGroupRequest, Group)
DELETE = Method(_SERVICE, "DeleteGroup", rpc.DeleteGroupRequest, rpc.DeleteGroupResponse)
GET = Method(_SERVICE, "GetGroup", rpc.GetGroupRequest, Group)
LIST = Method(_SERVICE, "ListGroups", rpc.ListGroupsRequest, rpc.ListGroupsResponse)


class Groups(ClientNoun[Mode]):
    """The groups to which roles can be given. Who is in one is said by the issuers of tokens."""

    @verb
    async def create(
        self,
        vo: str,
        group: str,
        path: str = "",
        *,
        description: str = "",
        dirac_group: str = "",
        reason: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> Group:
        """Declare a group; the answer means that it is durable.

        Parameters:
            vo: "cms" or "vos/cms".
            group: its name within the VO ("production").
            path: as tokens assert it; empty: "/<vo>/<group>".
            description: what it is for, for people.
            dirac_group: under which its work is handed to DIRAC; empty: it is not.
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same one, for 30
                days. None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            AlreadyExists: there is one of that name or path.
            PermissionDenied: the VO is not the caller's to manage, or does not exist.
        """
        parent = collection_name(vo, "vos")
        request = rpc.CreateGroupRequest(
            parent=parent,
            group_id=group,
            group=Group(
                path=path or f"/{parent.removeprefix('vos/')}/{group}",
                description=description,
                dirac_group=dirac_group,
            ),
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
        description: str | None = None,
        dirac_group: str | None = None,
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> Group:
        """Change a group.

        Parameters:
            name: "vos/<vo>/groups/<group>" or "<vo>/<group>".
            description, dirac_group: their new values; None leaves them, "" empties them.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not changed. Such a call is made once.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
            Aborted: it has another revision.
        """
        given = {"description": description, "dirac_group": dirac_group}
        request = rpc.UpdateGroupRequest(
            group=Group(
                name=group_name(name), description=description or "", dirac_group=dirac_group or ""
            ),
            update_mask=FieldMask(paths=[f for f, value in given.items() if value is not None]),
            reason=reason,
            revision=revision,
        )
        return await self._calls.unary(UPDATE, request, timeout, repeat=not revision)

    @verb
    async def delete(
        self, name: str, *, reason: str = "", revision: int = 0, timeout: Timeout = None
    ) -> int:
        """Take a group back.

        Parameters:
            name: "vos/<vo>/groups/<group>" or "<vo>/<group>".
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not deleted. Such a call is made once.
            timeout: see the package.

        Returns:
            The revision of the policy that no longer has it.

        Raises:
            NotFound: there is none that the caller may see, or an attempt whose answer was lost has
                deleted it.
            FailedPrecondition: something names it; `metadata["by"]` says what.
            Aborted: it has another revision.
        """
        request = rpc.DeleteGroupRequest(name=group_name(name), reason=reason, revision=revision)
        answer = await self._calls.unary(DELETE, request, timeout, repeat=not revision)
        return answer.policy_revision

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> Group:
        """One group.

        Parameters:
            name: "vos/<vo>/groups/<group>" or "<vo>/<group>".
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
        """
        return await self._calls.unary(GET, rpc.GetGroupRequest(name=group_name(name)), timeout)

    @stream
    def list(
        self, vo: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[Group]:
        """The groups of a virtual organisation by name.

        Parameters:
            vo: "cms" or "vos/cms".
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            NotFound: there is no such VO that the caller may see.
        """
        request = rpc.ListGroupsRequest(parent=collection_name(vo, "vos"))
        return self._listed(LIST, request, lambda page: page.groups, limit, timeout)
