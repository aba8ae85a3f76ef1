"""Storage elements as administrators make, change, remove and ban them: `client.storage_settings`.

The elements themselves, and the bytes in them, are `client.storage`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name, storage_ban_name
from gridlane.nouns.noun import ClientNoun, timestamp
from gridlane.storage_words import ban_action_of, operations_of
from gridlane.transfer.v1 import storage_admin_service_pb2 as rpc
from gridlane.transfer.v1.storage_ban_pb2 import StorageBan
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.StorageAdminService"
CREATE = Method(_SERVICE, "CreateStorageElement", rpc.CreateStorageElementRequest, StorageElement)
UPDATE = Method(_SERVICE, "UpdateStorageElement", rpc.UpdateStorageElementRequest, StorageElement)
DELETE = Method(
    _SERVICE,
    "DeleteStorageElement",
    rpc.DeleteStorageElementRequest,
    rpc.DeleteStorageElementResponse,
)
BAN = Method(_SERVICE, "BanStorage", rpc.BanStorageRequest, StorageBan)
UNBAN = Method(_SERVICE, "UnbanStorage", rpc.UnbanStorageRequest, rpc.UnbanStorageResponse)
LIST_BANS = Method(
    _SERVICE, "ListStorageBans", rpc.ListStorageBansRequest, rpc.ListStorageBansResponse
)
_ELEMENTS = "storageElements"


class StorageSettings(ClientNoun[Mode]):
    """Storage elements made, changed, removed and banned. Administrators alone do that."""

    @verb
    async def create(
        self,
        name: str,
        settings: StorageElement,
        *,
        reason: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> StorageElement:
        """Make a storage element; the answer means that it is durable and can be named at once.

        Parameters:
            name: its name, which cannot be changed.
            settings: the rest of it; at least one endpoint.
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same one, for 30
                days. None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            AlreadyExists: there is one of that name, or with a place of the same files.
            InvalidArgument: a field breaks its rules; reason CAPABILITY_MISSING: nothing reaches an
                endpoint's protocol; reason ADDRESS_FORBIDDEN: policy closes its address.
            PermissionDenied: the caller is no administrator.
        """
        request = rpc.CreateStorageElementRequest(
            storage_element_id=name.removeprefix(f"{_ELEMENTS}/"),
            storage_element=settings,
            reason=reason,
            request_id=request_id or uuid7(),
            validate_only=validate_only,
        )
        return await self._calls.unary(CREATE, request, timeout)

    @verb
    async def update(
        self,
        name: str,
        settings: StorageElement,
        *,
        fields: Sequence[str] = (),
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> StorageElement:
        """Change settings of a storage element. In force everywhere within a second.

        Parameters:
            name: "storageElements/<name>" or the bare name.
            settings: the new values.
            fields: those that change, as "site" or "access.read"; one that `settings` does not set
                goes back to its default. Empty: every field that is set.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not changed. Such a call is made once.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
            Aborted: it has another revision.
            FailedPrecondition: it is configured where the service runs; or replicas are registered
                under what would go, `metadata["by"]` says which.
        """
        given = StorageElement()
        given.CopyFrom(settings)
        given.name = collection_name(name, _ELEMENTS)
        request = rpc.UpdateStorageElementRequest(
            storage_element=given,
            update_mask=FieldMask(paths=fields),
            reason=reason,
            revision=revision,
        )
        return await self._calls.unary(UPDATE, request, timeout, repeat=not revision)

    @verb
    async def delete(
        self, name: str, *, reason: str = "", revision: int = 0, timeout: Timeout = None
    ) -> None:
        """Remove a storage element; no byte on it is touched.

        Parameters:
            name: "storageElements/<name>" or the bare name.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not removed. Such a call is made once.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name, or an attempt whose answer was lost has removed
                it.
            FailedPrecondition: something uses it, `metadata["by"]` says what; or it is configured
                where the service runs.
            Aborted: it has another revision.
        """
        request = rpc.DeleteStorageElementRequest(
            name=collection_name(name, _ELEMENTS), reason=reason, revision=revision
        )
        await self._calls.unary(DELETE, request, timeout, repeat=not revision)

    @verb
    async def ban(
        self,
        name: str,
        reason: str,
        *,
        action: str = "wait",
        operations: Sequence[str] = (),
        vo: str = "",
        wait_timeout: timedelta | None = None,
        accept_submissions: bool = False,
        expire_time: datetime | None = None,
        request_id: str | None = None,
        timeout: Timeout = None,
    ) -> StorageBan:
        """Keep a storage element from being used. In force everywhere within a second.

        Parameters:
            name: "storageElements/<name>" or the bare name.
            reason: why, for those whose files wait and for the audit.
            action: what becomes of files that wait for it: "wait" or "cancel".
            operations: what may not be done, "read", "write", "check", "remove"; empty: everything.
            vo: who may not; empty: nobody may.
            wait_timeout: with "wait": how long a file waits, then it is cancelled; None: as long as
                the ban is in force.
            accept_submissions: with "wait": take submissions that need it, and have them wait.
            expire_time: when it ends by itself, with a time zone; None: never.
            request_id: a UUIDv7; the same id with the same content answers the same ban, for 30
                days. None: a new one.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
            PermissionDenied: the caller is no administrator.
            ValueError: there is no such action or operation.
        """
        given = StorageBan(
            action=ban_action_of(action),
            operations=operations_of(operations),
            vo=vo,
            accept_submissions=accept_submissions,
            expire_time=timestamp(expire_time),
            reason=reason,
        )
        if wait_timeout is not None:
            duration = Duration()
            duration.FromTimedelta(wait_timeout)
            given.wait_timeout.CopyFrom(duration)
        request = rpc.BanStorageRequest(
            parent=collection_name(name, _ELEMENTS),
            storage_ban=given,
            request_id=request_id or uuid7(),
        )
        return await self._calls.unary(BAN, request, timeout)

    @verb
    async def unban(self, ban: str, *, reason: str = "", timeout: Timeout = None) -> None:
        """Lift a ban: what it blocked goes on, what it cancelled stays cancelled.

        Parameters:
            ban: "storageElements/<name>/bans/<uuid>", or "<name>/<uuid>".
            reason: why; kept in the audit.
            timeout: see the package.

        Raises:
            NotFound: it is gone: lifted, ended by itself, or lifted by an attempt of this very call
                whose answer was lost.
        """
        request = rpc.UnbanStorageRequest(name=storage_ban_name(ban), reason=reason)
        await self._calls.unary(UNBAN, request, timeout)

    @stream
    def bans(
        self, name: str = "-", *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[StorageBan]:
        """The bans in force, newest first.

        Parameters:
            name: of one storage element; "-": of all.
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            NotFound: there is no such storage element.
        """
        parent = collection_name(name, _ELEMENTS)
        request = rpc.ListStorageBansRequest(parent=parent)
        return self._listed(LIST_BANS, request, lambda page: page.storage_bans, limit, timeout)
