"""The gRPC shells of channels and of the shares of activities: messages in, messages out, no rules.

Each class has the methods of the service of its name in `protos/gridlane/transfer/v1`, where they
are documented. What they do is `channel_admin`'s and `activities`'.
"""

from gridlane.transfer.v1 import (
    activity_pb2,
    activity_service_pb2,
    channel_admin_service_pb2,
    channel_pb2,
    channel_service_pb2,
)
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.pages import page_request
from gridlane_transfer.channels.activities import Activities
from gridlane_transfer.channels.channel_admin import ChannelAdmin
from gridlane_transfer.channels.channels import PREFIX
from gridlane_transfer.store import channels as rows


class ChannelShell:
    """gridlane.transfer.v1.ChannelService."""

    def __init__(self, db: Database, admin: ChannelAdmin) -> None:
        self._db = db
        self._admin = admin

    async def GetChannel(  # noqa: N802 - the method's name in the contract
        self, request: channel_service_pb2.GetChannelRequest, call: Call
    ) -> channel_pb2.Channel:
        return await self._admin.get(request.name, call)

    async def ListChannels(  # noqa: N802
        self, request: channel_service_pb2.ListChannelsRequest, call: Call
    ) -> channel_service_pb2.ListChannelsResponse:
        page = page_request(
            rows.BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListChannels", call.principal.owner),
        )
        channels, token = await self._db.read(lambda conn: rows.page(conn, page))
        return channel_service_pb2.ListChannelsResponse(
            channels=[
                channel_pb2.Channel(
                    name=PREFIX + channel.name,
                    state=channel_pb2.ChannelState.ValueType(channel.state),
                )
                for channel in channels
            ],
            next_page_token=token,
        )


class ChannelAdminShell:
    """gridlane.transfer.v1.ChannelAdminService."""

    def __init__(self, admin: ChannelAdmin) -> None:
        self._admin = admin

    async def CreateChannel(  # noqa: N802
        self, request: channel_admin_service_pb2.CreateChannelRequest, call: Call
    ) -> channel_pb2.Channel:
        return await self._admin.create(request, call)

    async def DeleteChannel(  # noqa: N802
        self, request: channel_admin_service_pb2.DeleteChannelRequest, call: Call
    ) -> channel_admin_service_pb2.DeleteChannelResponse:
        return await self._admin.delete(request, call)

    async def UpdateChannel(  # noqa: N802
        self, request: channel_admin_service_pb2.UpdateChannelRequest, call: Call
    ) -> channel_pb2.Channel:
        return await self._admin.update(request, call)

    async def ListHeldFiles(  # noqa: N802
        self, request: channel_admin_service_pb2.ListHeldFilesRequest, call: Call
    ) -> channel_admin_service_pb2.ListHeldFilesResponse:
        files, token = await self._admin.list_held(request, call)
        return channel_admin_service_pb2.ListHeldFilesResponse(files=files, next_page_token=token)

    async def ReleaseChannelFiles(  # noqa: N802
        self, request: channel_admin_service_pb2.ReleaseChannelFilesRequest, call: Call
    ) -> channel_admin_service_pb2.ReleaseChannelFilesResponse:
        released = await self._admin.release(request, call)
        return channel_admin_service_pb2.ReleaseChannelFilesResponse(released_files=released)

    async def FailChannelFiles(  # noqa: N802
        self, request: channel_admin_service_pb2.FailChannelFilesRequest, call: Call
    ) -> channel_admin_service_pb2.FailChannelFilesResponse:
        failed = await self._admin.fail(request, call)
        return channel_admin_service_pb2.FailChannelFilesResponse(failed_files=failed)


class ActivityShell:
    """gridlane.transfer.v1.ActivityService."""

    def __init__(self, activities: Activities) -> None:
        self._activities = activities

    async def GetActivityShares(  # noqa: N802
        self, request: activity_service_pb2.GetActivitySharesRequest, call: Call
    ) -> activity_pb2.ActivityShares:
        return await self._activities.get(request.name, call)

    async def UpdateActivityShares(  # noqa: N802
        self, request: activity_service_pb2.UpdateActivitySharesRequest, call: Call
    ) -> activity_pb2.ActivityShares:
        return await self._activities.update(request, call)
