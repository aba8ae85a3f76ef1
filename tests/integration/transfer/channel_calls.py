"""What tests of channels do: an administrator's calls, a mover that fails when it is told to.

Not a test: `test_channels` uses it.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.transfer.v1 import (
    activity_service_pb2_grpc,
    channel_admin_service_pb2,
    channel_admin_service_pb2_grpc,
    channel_pb2,
    channel_service_pb2,
    transfer_job_pb2,
)
from gridlane_kit.policy import Binding, Policy, Role

ISSUER = "https://issuer.test/"


class Admin:
    """A user's stubs of channels and shares."""

    def __init__(self, house: Any, user: str) -> None:
        self.client = house.client(user)
        bound = type(self.client.channels)
        metadata = self.client.metadata
        admin = channel_admin_service_pb2_grpc.ChannelAdminServiceStub(house.channel)
        activities = activity_service_pb2_grpc.ActivityServiceStub(house.channel)
        self.channels = bound(admin, metadata)
        self.activities = bound(activities, metadata)

    async def create(self, channel_id: str, **fields: Any) -> channel_pb2.Channel:
        asked = {
            name: fields.pop(name)
            for name in ("request_id", "validate_only", "reason")
            if name in fields
        }
        ends = {"source": "local", "target": "mirror"}
        channel = channel_pb2.Channel(**{**ends, **fields})
        return await self.channels.CreateChannel(
            channel_admin_service_pb2.CreateChannelRequest(
                channel_id=channel_id, channel=channel, **asked
            )
        )

    async def update(
        self, name: str, *mask: str, revision: int = 0, **fields: Any
    ) -> channel_pb2.Channel:
        return await self.channels.UpdateChannel(
            channel_admin_service_pb2.UpdateChannelRequest(
                channel=channel_pb2.Channel(name=f"channels/{name}", **fields),
                update_mask=FieldMask(paths=mask),
                revision=revision,
            )
        )

    async def delete(self, name: str, revision: int = 0) -> None:
        await self.channels.DeleteChannel(
            channel_admin_service_pb2.DeleteChannelRequest(
                name=f"channels/{name}", revision=revision
            )
        )

    async def get(self, name: str) -> channel_pb2.Channel:
        return await self.client.channels.GetChannel(
            channel_service_pb2.GetChannelRequest(name=f"channels/{name}")
        )

    async def held(self, name: str, **page: Any) -> Any:
        return await self.channels.ListHeldFiles(
            channel_admin_service_pb2.ListHeldFilesRequest(parent=f"channels/{name}", **page)
        )

    async def release(self, name: str, *files: str) -> int:
        answer = await self.channels.ReleaseChannelFiles(
            channel_admin_service_pb2.ReleaseChannelFilesRequest(
                name=f"channels/{name}", files=files
            )
        )
        return int(answer.released_files)

    async def fail(self, name: str, *files: str) -> int:
        answer = await self.channels.FailChannelFiles(
            channel_admin_service_pb2.FailChannelFilesRequest(name=f"channels/{name}", files=files)
        )
        return int(answer.failed_files)


async def refused(call: Awaitable[Any], code: grpc.StatusCode) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    assert caught.value.code() is code, caught.value
    return caught.value


def let_manage(house: Any, user: str, channel: channel_pb2.Channel) -> None:
    """Gives a user the role of the manager of a channel."""
    policy = house.policy.current
    role = Binding(ISSUER, user, Role.CHANNEL_MANAGER, channel_uid=channel.uid)
    house.policy.replace(
        Policy(policy.revision + 1, [*policy.bindings, role], vos=["local", "other"])
    )


async def settled(sue: Any, name: str, state: str, seconds: float = 20) -> None:
    """Waits until all files of a job are in a state."""
    wanted = transfer_job_pb2.FileTransferState.Value(f"FILE_TRANSFER_STATE_{state}")
    async with asyncio.timeout(seconds):
        while {file.state for file in (await sue.get(name)).files} != {wanted}:
            await asyncio.sleep(0.02)
