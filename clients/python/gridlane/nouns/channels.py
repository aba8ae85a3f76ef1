"""Transfer channels: `client.channels`."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gridlane.calls import Timeout
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import channel_service_pb2 as rpc
from gridlane.transfer.v1.channel_pb2 import Channel
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.ChannelService"
GET = Method(_SERVICE, "GetChannel", rpc.GetChannelRequest, Channel)
LIST = Method(_SERVICE, "ListChannels", rpc.ListChannelsRequest, rpc.ListChannelsResponse)


class Channels(ClientNoun[Mode]):
    """The managed ways between storage elements."""

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> Channel:
        """All of one channel.

        Parameters:
            name: "channels/<name>" or the bare name.
            timeout: see the package.

        Raises:
            PermissionDenied: only admins, the channel's manager and VO managers may; whether the
                channel is there makes no difference.
            NotFound: there is none of that name.
        """
        request = rpc.GetChannelRequest(name=collection_name(name, "channels"))
        return await self._calls.unary(GET, request, timeout)

    @stream
    def list(self, *, limit: int | None = None, timeout: Timeout = None) -> AsyncGenerator[Channel]:
        """Channels by name, with name and state alone.

        Parameters:
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListChannelsRequest()
        return self._listed(LIST, request, lambda page: page.channels, limit, timeout)
