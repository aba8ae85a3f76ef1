"""What tests of the audit do: every verb that leaves an entry, and reading it.

Not a test: `test_audit` and `test_audited_files` use it.
"""

from typing import Any

from google.protobuf.json_format import ParseDict
from integration.transfer.channel_calls import Admin, settled
from integration.transfer.failing_mover import fail

from gridlane.authorization.v1.audit_entry_pb2 import AuditEntry
from gridlane.transfer.v1 import (
    activity_pb2,
    activity_service_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    channel_admin_service_pb2,
    channel_pb2,
    storage_admin_service_pb2,
    transfer_admin_service_pb2,
    transfer_service_pb2,
)
from gridlane.transfer.v1.channel_pb2 import Channel
from gridlane.transfer.v1.storage_ban_pb2 import BanAction, StorageBan
from gridlane.transfer.v1.storage_element_pb2 import StorageElement, StorageOperation
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob


class Reader:
    """One user's look at the audit."""

    def __init__(self, house: Any, user: str) -> None:
        client = house.client(user)
        stub = audit_service_pb2_grpc.TransferAuditServiceStub(house.channel)
        self._stub = type(client.channels)(stub, client.metadata)

    async def get(self, name: str) -> AuditEntry:
        request = audit_service_pb2.GetAuditEntryRequest(name=name)
        found: AuditEntry = await self._stub.GetAuditEntry(request)
        return found

    async def page(self, **asked: Any) -> audit_service_pb2.ListAuditEntriesResponse:
        request = audit_service_pb2.ListAuditEntriesRequest(**asked)
        found: audit_service_pb2.ListAuditEntriesResponse = await self._stub.ListAuditEntries(
            request
        )
        return found

    async def entries(self, asked: str = "", **given: Any) -> list[AuditEntry]:
        """All of them, page by page."""
        found: list[AuditEntry] = []
        token = ""
        while True:
            page = await self.page(filter=asked, page_token=token, **given)
            found += page.audit_entries
            token = page.next_page_token
            if not token:
                return found


class Office:
    """Somebody who uses every verb that leaves an entry, in a server of its own."""

    def __init__(self, house: Any, root: Any) -> None:
        self.house = house
        self.root = root
        self.admin = house.client("admin")
        self.channels = Admin(house, "admin")

    async def on_channels(self) -> None:
        made = await self.channels.create("lane", reason="more ways")
        await self.channels.channels.UpdateChannel(
            channel_admin_service_pb2.UpdateChannelRequest(
                channel=Channel(name=made.name, max_files=7), reason="slower"
            )
        )
        release = channel_admin_service_pb2.ReleaseChannelFilesRequest
        fail = channel_admin_service_pb2.FailChannelFilesRequest
        delete = channel_admin_service_pb2.DeleteChannelRequest
        await self.channels.channels.ReleaseChannelFiles(release(name=made.name, reason="is back"))
        await self.channels.channels.FailChannelFiles(fail(name=made.name, reason="is over"))
        await self.channels.channels.DeleteChannel(delete(name=made.name, reason="too slow"))

    async def on_storage(self) -> None:
        place = {"endpoints": [{"base_url": (self.root / "disk").as_uri()}], "site": "DESY"}
        rpc, storage = storage_admin_service_pb2, self.admin.storage_admin
        made = await storage.CreateStorageElement(
            rpc.CreateStorageElementRequest(
                storage_element_id="disk",
                storage_element=ParseDict(place, StorageElement()),
                reason="more room",
            )
        )
        await storage.UpdateStorageElement(
            rpc.UpdateStorageElementRequest(
                storage_element=StorageElement(name=made.name, site="CERN"), reason="moved"
            )
        )
        ban = await self.ban(made.name, "local", "no quota left")
        await storage.UnbanStorage(rpc.UnbanStorageRequest(name=ban, reason="more quota"))
        await storage.DeleteStorageElement(
            rpc.DeleteStorageElementRequest(name=made.name, reason="retired")
        )

    async def ban(self, element: str, vo: str, reason: str) -> str:
        request = storage_admin_service_pb2.BanStorageRequest(
            parent=element,
            storage_ban=StorageBan(
                operations=[StorageOperation.STORAGE_OPERATION_STAGE],
                action=BanAction.BAN_ACTION_WAIT,
                vo=vo,
                reason=reason,
            ),
        )
        return str((await self.admin.storage_admin.BanStorage(request)).name)

    async def share(self, weight: int, reason: str = "", vo: str = "local") -> None:
        shares = activity_pb2.ActivityShares(
            name=f"vos/{vo}/activityShares",
            activities=[activity_pb2.ActivityShare(activity="production", weight=weight)],
        )
        await self.channels.activities.UpdateActivityShares(
            activity_service_pb2.UpdateActivitySharesRequest(activity_shares=shares, reason=reason)
        )

    async def on_jobs(self) -> str:
        """Of a job of sue's, by max, who manages her VO; its name."""
        await self.channels.create("slow", state="CHANNEL_STATE_INACTIVE")
        sue, max_ = self.house.client("sue"), self.house.client("max")
        source, mirror = self.house.file("local/a"), (self.house.mirror / "local").as_uri()
        job = await sue.submit((source, f"{mirror}/b"), max_retries=0)
        rpc = transfer_admin_service_pb2
        await max_.admin.UpdateTransferJob(
            rpc.UpdateTransferJobRequest(
                transfer_job=TransferJob(name=job.name, priority=5, activity="thesis"),
                reason="urgent",
            )
        )
        await max_.admin.ReleaseHeldFiles(
            rpc.ReleaseHeldFilesRequest(name=job.name, reason="it is mended")
        )
        await max_.admin.FailHeldFiles(rpc.FailHeldFilesRequest(name=job.name, reason="give up"))
        wrong = await sue.submit(("LFN:/local/none", source + "2"), max_retries=0)
        failed = await sue.ended(wrong.name)
        await max_.jobs.RetryTransferJob(
            transfer_service_pb2.RetryTransferJobRequest(name=failed.name, reason="it is there now")
        )
        await max_.jobs.CancelTransferJob(
            transfer_service_pb2.CancelTransferJobRequest(name=job.name, reason="never mind")
        )
        return str(job.name)

    async def held(self, *names: str) -> Any:
        """A job of sue's whose files are held on the channel `hold`."""
        hold = channel_pb2.EXHAUSTED_ACTION_HOLD
        made = await self.channels.create("hold", default_max_retries=0, on_exhausted=hold)
        fail(self.house.room.mover)
        folder = (self.house.mirror / "local").as_uri()
        job = await self.house.client("sue").submit(
            *[(self.house.file(f"local/{name}"), f"{folder}/{name}") for name in names]
        )
        await settled(self.house.client("sue"), job.name, "HELD")
        assert job.files[0].channel == made.name
        return job
