"""The gRPC shells: messages in, messages out, no rules.

Each class has the methods of the service of its name in `protos/gridlane/transfer/v1`, where they
are documented. What they do is in the module of each noun.
"""

from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf.message import Message
from google.rpc import status_pb2

from gridlane.transfer.v1 import (
    channel_pb2,
    channel_service_pb2,
    event_pb2,
    event_service_pb2,
    replica_pb2,
    replica_service_pb2,
    storage_element_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.type.v1 import feed_pb2
from gridlane.type.v1 import status_pb2 as service_status_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.feed import Feed, Position
from gridlane_kit.pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, page_request
from gridlane_transfer import messages
from gridlane_transfer.channels import PREFIX as CHANNEL_PREFIX
from gridlane_transfer.channels import Channels
from gridlane_transfer.content import Content
from gridlane_transfer.replicas import Replicas
from gridlane_transfer.status import Status
from gridlane_transfer.storage_elements import StorageElements
from gridlane_transfer.store import channels as channel_rows
from gridlane_transfer.transfer_jobs import TransferJobs

M = TypeVar("M", bound=Message)


class TransferShell:
    """gridlane.transfer.v1.TransferService."""

    def __init__(self, jobs: TransferJobs) -> None:
        self._jobs = jobs

    async def SubmitTransferJob(  # noqa: N802 - the method's name in the contract
        self, request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._jobs.submit(request, call)

    async def GetTransferJob(  # noqa: N802
        self, request: transfer_service_pb2.GetTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._jobs.get(request.name, call)

    async def BatchGetTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.BatchGetTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.BatchGetTransferJobsResponse:
        found = await self._jobs.batch_get(request.names, call)
        results = [
            transfer_service_pb2.TransferJobResult(transfer_job=job, status=status)
            for job, status in map(_item_or_status, found)
        ]
        return transfer_service_pb2.BatchGetTransferJobsResponse(results=results)

    async def ListTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.ListTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.ListTransferJobsResponse:
        jobs, token = await self._jobs.list_jobs(request, call)
        return transfer_service_pb2.ListTransferJobsResponse(
            transfer_jobs=jobs, next_page_token=token
        )

    async def ListFileTransfers(  # noqa: N802
        self, request: transfer_service_pb2.ListFileTransfersRequest, call: Call
    ) -> transfer_service_pb2.ListFileTransfersResponse:
        files, token = await self._jobs.list_files(request, call)
        return transfer_service_pb2.ListFileTransfersResponse(files=files, next_page_token=token)

    async def ListTransferEvents(  # noqa: N802
        self, request: transfer_service_pb2.ListTransferEventsRequest, call: Call
    ) -> transfer_service_pb2.ListTransferEventsResponse:
        events, token = await self._jobs.list_events(request, call)
        return transfer_service_pb2.ListTransferEventsResponse(events=events, next_page_token=token)

    async def CancelTransferJob(  # noqa: N802
        self, request: transfer_service_pb2.CancelTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._jobs.cancel(request.name, call, request.reason)

    async def WatchTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.WatchTransferJobsRequest, call: Call
    ) -> AsyncIterator[transfer_service_pb2.WatchTransferJobsResponse]:
        async for events, token in self._jobs.watch(request.names, request.resume_token, call):
            yield transfer_service_pb2.WatchTransferJobsResponse(events=events, resume_token=token)


class StorageShell:
    """gridlane.transfer.v1.StorageService."""

    def __init__(self, elements: StorageElements, content: Content, status: Status) -> None:
        self._elements = elements
        self._content = content
        self._status = status

    async def GetStorageElement(  # noqa: N802
        self, request: storage_service_pb2.GetStorageElementRequest, call: Call
    ) -> storage_element_pb2.StorageElement:
        element = self._elements.get(request.name)
        if element is None:
            raise errors.not_found(request.name)
        return await self._status.element_message(element)

    async def ListStorageElements(  # noqa: N802
        self, request: storage_service_pb2.ListStorageElementsRequest, call: Call
    ) -> storage_service_pb2.ListStorageElementsResponse:
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        try:
            elements, token = self._elements.page(request.page_token, size)
        except KeyError:
            raise errors.token_not_ours("page_token") from None
        return storage_service_pb2.ListStorageElementsResponse(
            storage_elements=[await self._status.element_message(one) for one in elements],
            next_page_token=token,
        )

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


class ChannelShell:
    """gridlane.transfer.v1.ChannelService."""

    def __init__(self, db: Database, channels: Channels) -> None:
        self._db = db
        self._channels = channels

    async def GetChannel(  # noqa: N802
        self, request: channel_service_pb2.GetChannelRequest, call: Call
    ) -> channel_pb2.Channel:
        channel = self._channels.by_name(request.name)
        if channel is not None and call.visibility.covers(channel=channel.uid):
            return messages.channel_message(channel)
        if call.visibility.everything:
            raise errors.not_found(request.name)
        # Where the role decides, present and absent names are answered alike.
        raise errors.permission_denied("transfer.channels.view")

    async def ListChannels(  # noqa: N802
        self, request: channel_service_pb2.ListChannelsRequest, call: Call
    ) -> channel_service_pb2.ListChannelsResponse:
        page = page_request(
            channel_rows.BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListChannels", call.principal.owner),
        )
        channels, token = await self._db.read(lambda conn: channel_rows.page(conn, page))
        return channel_service_pb2.ListChannelsResponse(
            channels=[
                channel_pb2.Channel(
                    name=CHANNEL_PREFIX + channel.name,
                    state=channel_pb2.ChannelState.ValueType(channel.state),
                )
                for channel in channels
            ],
            next_page_token=token,
        )


class ReplicaShell:
    """gridlane.transfer.v1.ReplicaService."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def RegisterReplica(  # noqa: N802
        self, request: replica_service_pb2.RegisterReplicaRequest, call: Call
    ) -> replica_pb2.LogicalFile:
        return await self._replicas.register(request, call)

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
            yield event_service_pb2.FollowTransferEventsResponse(
                events=[event_pb2.TransferEvent.FromString(event.payload) for event in events],
                position=feed_pb2.FeedPosition(epoch=epoch, position=events[-1].position),
            )

    async def AckTransferEvents(  # noqa: N802
        self, request: event_service_pb2.AckTransferEventsRequest, call: Call
    ) -> event_service_pb2.AckTransferEventsResponse:
        await self._feed.ack(request.consumer, _position(request.position))
        return event_service_pb2.AckTransferEventsResponse()


def _item_or_status(found: M | GridlaneError) -> tuple[M | None, status_pb2.Status | None]:
    """One of a result's two members."""
    return (None, found.to_status()) if isinstance(found, GridlaneError) else (found, None)


def _position(message: feed_pb2.FeedPosition) -> Position:
    return Position(message.epoch, message.position)
