"""The gRPC shells: messages in, messages out, no rules. Those of transfer jobs stand in
`service_jobs`, those of channels in `service_channels`.

Each class has the methods of the service of its name in `protos/gridlane/transfer/v1`, where they
are documented. What they do is in the module of each noun.
"""

from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf import empty_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from gridlane.authorization.v1 import audit_entry_pb2
from gridlane.transfer.v1 import (
    audit_service_pb2,
    backend_admin_service_pb2,
    backend_pb2,
    backend_service_pb2,
    content_pb2,
    event_service_pb2,
    replica_pb2,
    replica_service_pb2,
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
    storage_service_pb2,
)
from gridlane.type.v1 import feed_pb2, outcome_pb2
from gridlane.type.v1 import status_pb2 as service_status_pb2
from gridlane_kit import errors
from gridlane_kit.audit_reading import AuditReader
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_kit.feed import Feed, Position, put_events
from gridlane_kit.pages import page_request
from gridlane_transfer.backends.transfer_backends import TransferBackends
from gridlane_transfer.catalogue.replicas import Replicas
from gridlane_transfer.content.content import Content
from gridlane_transfer.content.content_info import ContentInfos
from gridlane_transfer.status import Status
from gridlane_transfer.storage.storage_admin import StorageAdmin
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import storage

M = TypeVar("M", bound=Message)


class StorageShell:
    """gridlane.transfer.v1.StorageService."""

    def __init__(
        self,
        elements: StorageElements,
        content: Content,
        infos: ContentInfos,
        status: Status,
    ) -> None:
        self._elements = elements
        self._content = content
        self._infos = infos
        self._status = status

    async def GetStorageElement(  # noqa: N802
        self, request: storage_service_pb2.GetStorageElementRequest, call: Call
    ) -> storage_element_pb2.StorageElement:
        element = self._elements.get(request.name)
        if element is None:
            raise errors.not_found(request.name)
        return (await self._status.element_messages([element]))[0]

    async def ListStorageElements(  # noqa: N802
        self, request: storage_service_pb2.ListStorageElementsRequest, call: Call
    ) -> storage_service_pb2.ListStorageElementsResponse:
        page = page_request(
            storage.BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListStorageElements", call.principal.owner),
        )
        elements, token = self._elements.page(page)
        return storage_service_pb2.ListStorageElementsResponse(
            storage_elements=await self._status.element_messages(elements), next_page_token=token
        )

    async def StatContent(  # noqa: N802
        self, request: storage_service_pb2.StatContentRequest, call: Call
    ) -> content_pb2.ContentInfo:
        return await self._infos.stat(request.file, call)

    async def PutContent(  # noqa: N802
        self, requests: AsyncIterator[storage_service_pb2.PutContentRequest], call: Call
    ) -> storage_service_pb2.PutContentResponse:
        return await self._content.put(requests, call)

    async def GetContent(  # noqa: N802
        self, request: storage_service_pb2.GetContentRequest, call: Call
    ) -> AsyncIterator[storage_service_pb2.GetContentResponse]:
        async for part in self._content.get(request, call):
            yield part

    async def DeleteContent(  # noqa: N802
        self, request: storage_service_pb2.DeleteContentRequest, call: Call
    ) -> storage_service_pb2.DeleteContentResponse:
        await self._content.delete(request.file, call)
        return storage_service_pb2.DeleteContentResponse()

    async def GetTransferStatus(  # noqa: N802
        self, request: storage_service_pb2.GetTransferStatusRequest, call: Call
    ) -> service_status_pb2.ServiceStatus:
        return await self._status.service()


class StorageAdminShell:
    """gridlane.transfer.v1.StorageAdminService."""

    def __init__(self, admin: StorageAdmin) -> None:
        self._admin = admin

    async def CreateStorageElement(  # noqa: N802
        self, request: storage_admin_service_pb2.CreateStorageElementRequest, call: Call
    ) -> storage_element_pb2.StorageElement:
        return await self._admin.create(request, call)

    async def UpdateStorageElement(  # noqa: N802
        self, request: storage_admin_service_pb2.UpdateStorageElementRequest, call: Call
    ) -> storage_element_pb2.StorageElement:
        return await self._admin.update(request, call)

    async def DeleteStorageElement(  # noqa: N802
        self, request: storage_admin_service_pb2.DeleteStorageElementRequest, call: Call
    ) -> storage_admin_service_pb2.DeleteStorageElementResponse:
        return await self._admin.delete(request, call)

    async def BanStorage(  # noqa: N802
        self, request: storage_admin_service_pb2.BanStorageRequest, call: Call
    ) -> storage_ban_pb2.StorageBan:
        return await self._admin.ban(request, call)

    async def UnbanStorage(  # noqa: N802
        self, request: storage_admin_service_pb2.UnbanStorageRequest, call: Call
    ) -> storage_admin_service_pb2.UnbanStorageResponse:
        return await self._admin.unban(request, call)

    async def ListStorageBans(  # noqa: N802
        self, request: storage_admin_service_pb2.ListStorageBansRequest, call: Call
    ) -> storage_admin_service_pb2.ListStorageBansResponse:
        return await self._admin.list_bans(request, call)


class BackendShell:
    """gridlane.transfer.v1.BackendService."""

    def __init__(self, backends: TransferBackends) -> None:
        self._backends = backends

    async def GetTransferBackend(  # noqa: N802
        self, request: backend_service_pb2.GetTransferBackendRequest, call: Call
    ) -> backend_pb2.TransferBackend:
        return self._backends.get(request.name)

    async def ListTransferBackends(  # noqa: N802
        self, request: backend_service_pb2.ListTransferBackendsRequest, call: Call
    ) -> backend_service_pb2.ListTransferBackendsResponse:
        found = self._backends.page(request, call)
        return backend_service_pb2.ListTransferBackendsResponse(transfer_backends=found)


class BackendAdminShell:
    """gridlane.transfer.v1.BackendAdminService."""

    def __init__(self, backends: TransferBackends) -> None:
        self._backends = backends

    async def ListBackendDrift(  # noqa: N802
        self, request: backend_admin_service_pb2.ListBackendDriftRequest, call: Call
    ) -> backend_admin_service_pb2.ListBackendDriftResponse:
        return self._backends.drifts(request, call)

    async def PushBackendConfiguration(  # noqa: N802
        self, request: backend_admin_service_pb2.PushBackendConfigurationRequest, call: Call
    ) -> backend_admin_service_pb2.PushBackendConfigurationResponse:
        return self._backends.push(request.name)


class ReplicaShell:
    """gridlane.transfer.v1.ReplicaService."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def RegisterReplica(  # noqa: N802
        self, request: replica_service_pb2.RegisterReplicaRequest, call: Call
    ) -> replica_pb2.LogicalFile:
        return await self._replicas.register(request, call)

    async def BatchRegisterReplicas(  # noqa: N802
        self, request: replica_service_pb2.BatchRegisterReplicasRequest, call: Call
    ) -> replica_service_pb2.BatchRegisterReplicasResponse:
        registered = await self._replicas.register_many(request.requests, call)
        results = [
            replica_service_pb2.ResolvedFile(file=file, status=status)
            for file, status in map(_item_or_status, registered)
        ]
        return replica_service_pb2.BatchRegisterReplicasResponse(results=results)

    async def UnregisterReplica(  # noqa: N802
        self, request: replica_service_pb2.UnregisterReplicaRequest, call: Call
    ) -> replica_service_pb2.UnregisterReplicaResponse:
        await self._replicas.unregister(request, call)
        return replica_service_pb2.UnregisterReplicaResponse()

    async def BatchUnregisterReplicas(  # noqa: N802
        self, request: replica_service_pb2.BatchUnregisterReplicasRequest, call: Call
    ) -> replica_service_pb2.BatchUnregisterReplicasResponse:
        refusals = await self._replicas.unregister_many(request.requests, call)
        done = empty_pb2.Empty()
        results = [
            outcome_pb2.Outcome(done=done)
            if refusal is None
            else outcome_pb2.Outcome(status=refusal.to_status())
            for refusal in refusals
        ]
        return replica_service_pb2.BatchUnregisterReplicasResponse(results=results)

    async def ResolveReplicas(  # noqa: N802
        self, request: replica_service_pb2.ResolveReplicasRequest, call: Call
    ) -> replica_service_pb2.ResolveReplicasResponse:
        found = await self._replicas.resolve(request.lfns, call)
        results = [
            replica_service_pb2.ResolvedFile(file=file, status=status)
            for file, status in map(_item_or_status, found)
        ]
        return replica_service_pb2.ResolveReplicasResponse(results=results)

    async def ListReplicas(  # noqa: N802
        self, request: replica_service_pb2.ListReplicasRequest, call: Call
    ) -> replica_service_pb2.ListReplicasResponse:
        files, token = await self._replicas.list_below(request, call)
        return replica_service_pb2.ListReplicasResponse(files=files, next_page_token=token)


class TransferEventShell:
    """gridlane.transfer.v1.TransferEventService."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def FollowTransferEvents(  # noqa: N802
        self, request: event_service_pb2.FollowTransferEventsRequest, call: Call
    ) -> AsyncIterator[event_service_pb2.FollowTransferEventsResponse]:
        after = _position(request.after) if request.after.epoch else None
        epoch = (await self._feed.position()).epoch
        async for events in self._feed.follow(after):
            page = event_service_pb2.FollowTransferEventsResponse(
                position=feed_pb2.FeedPosition(epoch=epoch, position=events[-1].position)
            )
            put_events(page.events, events)
            yield page

    async def AckTransferEvents(  # noqa: N802
        self, request: event_service_pb2.AckTransferEventsRequest, call: Call
    ) -> event_service_pb2.AckTransferEventsResponse:
        await self._feed.ack(request.consumer, _position(request.position))
        return event_service_pb2.AckTransferEventsResponse()


class TransferAuditShell:
    """gridlane.transfer.v1.TransferAuditService."""

    def __init__(self, reader: AuditReader) -> None:
        self._reader = reader

    async def GetAuditEntry(  # noqa: N802
        self, request: audit_service_pb2.GetAuditEntryRequest, call: Call
    ) -> audit_entry_pb2.AuditEntry:
        return await self._reader.get(request.name, call)

    async def ListAuditEntries(  # noqa: N802
        self, request: audit_service_pb2.ListAuditEntriesRequest, call: Call
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        entries, token = await self._reader.list(request, call)
        return audit_service_pb2.ListAuditEntriesResponse(
            audit_entries=entries, next_page_token=token
        )


def _item_or_status(found: M | GridlaneError) -> tuple[M | None, status_pb2.Status | None]:
    """One of a result's two members."""
    return (None, found.to_status()) if isinstance(found, GridlaneError) else (found, None)


def _position(message: feed_pb2.FeedPosition) -> Position:
    return Position(message.epoch, message.position)
