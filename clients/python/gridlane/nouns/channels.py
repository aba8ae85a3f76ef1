"""Transfer channels: `client.channels`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import channel_admin_service_pb2 as admin_rpc
from gridlane.transfer.v1 import channel_service_pb2 as rpc
from gridlane.transfer.v1.channel_pb2 import Channel
from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.ChannelService"
_ADMIN = "gridlane.transfer.v1.ChannelAdminService"
GET = Method(_SERVICE, "GetChannel", rpc.GetChannelRequest, Channel)
LIST = Method(_SERVICE, "ListChannels", rpc.ListChannelsRequest, rpc.ListChannelsResponse)
CREATE = Method(_ADMIN, "CreateChannel", admin_rpc.CreateChannelRequest, Channel)
UPDATE = Method(_ADMIN, "UpdateChannel", admin_rpc.UpdateChannelRequest, Channel)
DELETE = Method(
    _ADMIN, "DeleteChannel", admin_rpc.DeleteChannelRequest, admin_rpc.DeleteChannelResponse
)
HELD = Method(
    _ADMIN, "ListHeldFiles", admin_rpc.ListHeldFilesRequest, admin_rpc.ListHeldFilesResponse
)
RELEASE = Method(
    _ADMIN,
    "ReleaseChannelFiles",
    admin_rpc.ReleaseChannelFilesRequest,
    admin_rpc.ReleaseChannelFilesResponse,
)
FAIL = Method(
    _ADMIN,
    "FailChannelFiles",
    admin_rpc.FailChannelFilesRequest,
    admin_rpc.FailChannelFilesResponse,
)


class Channels(ClientNoun[Mode]):
    """The managed ways between storage elements."""

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> Channel:
        """All of one channel, with what is on it now.

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

    @verb
    async def create(
        self,
        name: str,
        channel: Channel,
        *,
        reason: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> Channel:
        """Make a channel; the answer means that it is durable.

        Parameters:
            name: its name, which cannot be changed.
            channel: its ends, `source` and `target`, and its settings; `name` stays empty.
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same one, for 30
                days. None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            AlreadyExists: there is one of that name.
            FailedPrecondition: an end is no storage element.
            InvalidArgument: a setting is wrong, or asks for what no backend does.
            PermissionDenied: the caller is no administrator.
        """
        request = admin_rpc.CreateChannelRequest(
            channel_id=name.removeprefix("channels/"),
            channel=channel,
            reason=reason,
            request_id=request_id or uuid7(),
            validate_only=validate_only,
        )
        return await self._calls.unary(CREATE, request, timeout)

    @verb
    async def update(
        self,
        channel: Channel,
        *,
        fields: Sequence[str] = (),
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> Channel:
        """Change settings of a channel.

        Parameters:
            channel: its `name` and the new values.
            fields: what changes; one that is named and not set goes back to its default. None
                named: every setting that is set.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not changed. Such a call is made once.
            timeout: see the package.

        Raises:
            PermissionDenied: only admins and the channel's managers may.
            NotFound: there is none of that name.
            Aborted: it has another revision.
        """
        given = Channel()
        given.CopyFrom(channel)
        given.name = collection_name(channel.name, "channels")
        request = admin_rpc.UpdateChannelRequest(
            channel=given, update_mask=FieldMask(paths=fields), reason=reason, revision=revision
        )
        return await self._calls.unary(UPDATE, request, timeout, repeat=not revision)

    @verb
    async def delete(
        self, name: str, *, reason: str = "", revision: int = 0, timeout: Timeout = None
    ) -> None:
        """Remove a channel on which no file lies that has not ended.

        Parameters:
            name: "channels/<name>" or the bare name.
            reason: why; kept in the audit.
            revision: its own, as it was read: a later one is not removed. Such a call is made once.
            timeout: see the package.

        Raises:
            NotFound: there is none of that name, or an attempt whose answer was lost has removed
                it.
            FailedPrecondition: files lie on it that have not ended.
            Aborted: it has another revision.
        """
        request = admin_rpc.DeleteChannelRequest(
            name=collection_name(name, "channels"), reason=reason, revision=revision
        )
        await self._calls.unary(DELETE, request, timeout, repeat=not revision)

    @stream
    def held(
        self, name: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[FileTransfer]:
        """The files on a channel whose retries are spent, those held longest first.

        Parameters:
            name: "channels/<name>" or the bare name.
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = admin_rpc.ListHeldFilesRequest(parent=collection_name(name, "channels"))
        return self._listed(HELD, request, lambda page: page.files, limit, timeout)

    @verb
    async def release(
        self, name: str, files: Sequence[str] = (), *, reason: str = "", timeout: Timeout = None
    ) -> int:
        """Let held files on a channel start again, with all their retries.

        Parameters:
            name: "channels/<name>" or the bare name.
            files: "transfers/<uuid>/files/<n>", at most 1000; none: all that are held on it.
            reason: why; kept in the audit.
            timeout: see the package.

        Returns:
            How many were held and are not any more.
        """
        request = admin_rpc.ReleaseChannelFilesRequest(
            name=collection_name(name, "channels"), files=files, reason=reason
        )
        return (await self._calls.unary(RELEASE, request, timeout)).released_files

    @verb
    async def fail(
        self, name: str, files: Sequence[str] = (), *, reason: str = "", timeout: Timeout = None
    ) -> int:
        """Give held files on a channel up: they become FAILED with the failure they are held for.

        Parameters and result as of `release`.
        """
        request = admin_rpc.FailChannelFilesRequest(
            name=collection_name(name, "channels"), files=files, reason=reason
        )
        return (await self._calls.unary(FAIL, request, timeout)).failed_files
