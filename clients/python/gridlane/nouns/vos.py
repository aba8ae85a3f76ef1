"""Virtual organisations: `client.vos`."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.authorization.v1 import vo_service_pb2 as rpc
from gridlane.authorization.v1.vo_pb2 import Vo
from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun
from gridlane.transport import Method

_SERVICE = "gridlane.authorization.v1.VoService"
CREATE = Method(_SERVICE, "CreateVo", rpc.CreateVoRequest, Vo)
UPDATE = Method(_SERVICE, "UpdateVo", rpc.UpdateVoRequest, Vo)
DELETE = Method(_SERVICE, "DeleteVo", rpc.DeleteVoRequest, rpc.DeleteVoResponse)
GET = Method(_SERVICE, "GetVo", rpc.GetVoRequest, Vo)
LIST = Method(_SERVICE, "ListVos", rpc.ListVosRequest, rpc.ListVosResponse)


class Vos(ClientNoun[Mode]):
    """Those who work together. Administrators alone change them."""

    @verb
    async def create(
        self,
        vo: str,
        *,
        description: str = "",
        contact: str = "",
        reason: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> Vo:
        """Make a virtual organisation; the answer means that it is durable.

        Parameters:
            vo: its name ("cms"), which cannot be changed.
            description: what it is, for people.
            contact: whom to ask: an address of mail or a URL.
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same one, for 30
                days. None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            AlreadyExists: there is one of that name.
            PermissionDenied: the caller is no administrator.
        """
        request = rpc.CreateVoRequest(
            vo_id=vo.removeprefix("vos/"),
            vo=Vo(description=description, contact=contact),
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
        contact: str | None = None,
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> Vo:
        """Change a virtual organisation.

        Parameters:
            name: "vos/<vo>" or the bare name.
            description, contact: their new values; None leaves them, "" empties them.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not changed. Such a call is made once.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
            Aborted: it has another revision.
        """
        given = {"description": description, "contact": contact}
        request = rpc.UpdateVoRequest(
            vo=Vo(
                name=collection_name(name, "vos"),
                description=description or "",
                contact=contact or "",
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
        """Delete a virtual organisation; jobs, transfers and files of it stay.

        Parameters:
            name: "vos/<vo>" or the bare name.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not deleted. Such a call is made once.
            timeout: see the package.

        Returns:
            The revision of the policy that no longer has it.

        Raises:
            NotFound: there is none of that name, or an attempt whose answer was lost has deleted
                it.
            FailedPrecondition: something names it; `metadata["by"]` says what.
            Aborted: it has another revision.
        """
        request = rpc.DeleteVoRequest(
            name=collection_name(name, "vos"), reason=reason, revision=revision
        )
        answer = await self._calls.unary(DELETE, request, timeout, repeat=not revision)
        return answer.policy_revision

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> Vo:
        """One virtual organisation.

        Parameters:
            name: "vos/<vo>" or the bare name.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = rpc.GetVoRequest(name=collection_name(name, "vos"))
        return await self._calls.unary(GET, request, timeout)

    @stream
    def list(self, *, limit: int | None = None, timeout: Timeout = None) -> AsyncGenerator[Vo]:
        """The virtual organisations that the caller may see, by name.

        Parameters:
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListVosRequest()
        return self._listed(LIST, request, lambda page: page.vos, limit, timeout)
