"""Storage elements that are banned or drain: what is refused, what waits, what is cancelled, and
what goes on afterwards."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from grpc import aio

from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)

pb = storage_admin_service_pb2
READ = storage_element_pb2.STORAGE_OPERATION_READ
WRITE = storage_element_pb2.STORAGE_OPERATION_WRITE
REMOVE = storage_element_pb2.STORAGE_OPERATION_REMOVE
BANNED = storage_element_pb2.ACCESS_STATE_BANNED
BYTES = 500 << 20


class Warden:
    """A house that copies one file at a time, and who bans its storage elements."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self.sue, self.admin = house.client("sue"), house.client("admin")

    async def ban(
        self, element: str = "mirror", action: str = "WAIT", request_id: str = "", **fields: Any
    ) -> storage_ban_pb2.StorageBan:
        wait = fields.pop("wait_s", None)
        lasting = fields.pop("lasting_s", None)
        given = storage_ban_pb2.StorageBan(
            action=storage_ban_pb2.BanAction.Value(f"BAN_ACTION_{action}"),
            reason="disk server replaced",
            **fields,
        )
        if wait is not None:
            given.wait_timeout.CopyFrom(Duration(seconds=wait))
        if lasting is not None:
            given.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=lasting))
        return await self.admin.storage_admin.BanStorage(
            pb.BanStorageRequest(
                parent=f"storageElements/{element}", storage_ban=given, request_id=request_id
            )
        )

    async def unban(self, ban: storage_ban_pb2.StorageBan) -> None:
        await self.admin.storage_admin.UnbanStorage(pb.UnbanStorageRequest(name=ban.name))

    async def bans(self, element: str = "-") -> list[storage_ban_pb2.StorageBan]:
        request = pb.ListStorageBansRequest(parent=f"storageElements/{element}")
        return list((await self.sue.storage_admin.ListStorageBans(request)).storage_bans)

    async def element(self, name: str = "mirror") -> storage_element_pb2.StorageElement:
        request = storage_service_pb2.GetStorageElementRequest(name=f"storageElements/{name}")
        return await self.sue.storage.GetStorageElement(request)

    async def affected(self, count: int) -> None:
        """Waits until the one ban in force has done something to so many files."""
        async with asyncio.timeout(10):
            while [ban.affected_files for ban in await self.bans()] != [count]:
                await asyncio.sleep(0.02)

    def mirrored(self, name: str) -> str:
        return (self.house.mirror / "local" / name).as_uri()

    async def busy(self) -> transfer_job_pb2.TransferJob:
        """Has the one place taken by a long copy to the element `local`."""
        return await self._long("LFN:/local/busy")

    async def busy_at_mirror(self) -> transfer_job_pb2.TransferJob:
        return await self._long(self.mirrored("busy"))

    async def _long(self, target: str) -> transfer_job_pb2.TransferJob:
        big = self.house.storage / "local/big"
        big.parent.mkdir(parents=True, exist_ok=True)
        with big.open("wb") as file:
            file.truncate(BYTES)
        job = await self.sue.submit((big.as_uri(), target))
        await self.sue.in_state(job.name, "ACTIVE")
        return job

    async def waiting(self, name: str = "a") -> transfer_job_pb2.TransferJob:
        """A job to the mirror that has not started."""
        source = self.house.file(f"local/{name}")
        return await self.sue.submit((source, self.mirrored(name)))


@pytest.fixture
async def warden(start_house: Any) -> Warden:
    return Warden(await start_house(given={"max_files": 1}))


async def refused(call: Any) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_ban_refuses_submissions_and_bytes_until_it_is_lifted(
    warden: Warden, words: Any
) -> None:
    source = warden.house.file("local/a", b"abc")
    await warden.sue.put(warden.mirrored("there"), b"there")
    ban = await warden.ban()
    assert ban.name.startswith("storageElements/mirror/bans/")
    assert ban.creator.subject == "admin"
    element = await warden.element()
    assert (element.readable, element.writable) == (False, False)
    access = element.access
    assert {access.read, access.write, access.check, access.remove} == {BANNED}
    delete = storage_service_pb2.DeleteContentRequest(file=warden.mirrored("there"))
    for call in (
        warden.sue.submit((source, warden.mirrored("b"))),
        warden.sue.submit((warden.mirrored("there"), "LFN:/local/c")),
        warden.sue.put(warden.mirrored("d"), b"x"),
        warden.sue.read(warden.mirrored("there")),
        warden.sue.storage.DeleteContent(delete),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert words.reason(error) == "PRECONDITION"
        assert dict(words.info(error).metadata) == {
            "subject": "storageElements/mirror",
            "ban": ban.name,
        }
        assert "disk server replaced" in (error.details() or "")
    await warden.unban(ban)
    job = await warden.sue.submit((source, warden.mirrored("b")))
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"
    assert (await warden.element()).writable


async def test_a_ban_of_one_operation_or_vo_leaves_the_others(warden: Warden, words: Any) -> None:
    source = warden.house.file("local/a")
    await warden.sue.put(warden.mirrored("there"), b"there")
    ban = await warden.ban(operations=[WRITE])
    element = await warden.element()
    assert (element.readable, element.writable) == (True, False)
    assert (element.access.write, element.access.read != BANNED) == (BANNED, True)
    job = await warden.sue.submit((warden.mirrored("there"), "LFN:/local/c"))
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"
    assert words.reason(await refused(warden.sue.submit((source, warden.mirrored("b"))))) == (
        "PRECONDITION"
    )
    await warden.unban(ban)
    await warden.ban(vo="other")
    assert (await warden.element()).writable
    job = await warden.sue.submit((source, warden.mirrored("b")))
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"
    await warden.ban(vo="local")
    assert (await warden.element()).writable, "for others it is"
    assert words.reason(await refused(warden.sue.submit((source, warden.mirrored("c"))))) == (
        "PRECONDITION"
    )


async def test_files_that_wait_are_blocked_and_go_on(warden: Warden, words: Any) -> None:
    busy = await warden.busy()
    job = await warden.waiting()
    ban = await warden.ban()
    assert ban.affected_files == 1
    await warden.sue.in_state(job.name, "BLOCKED")
    found = await warden.sue.get(job.name)
    assert (words.job(found), words.failure(found)) == ("SUBMITTED", "STORAGE_BANNED")
    assert "disk server replaced" in found.files[0].failure.message
    await warden.affected(1)
    assert words.job(await warden.sue.ended(busy.name, 60)) == "FINISHED"
    assert words.files(await warden.sue.get(job.name)) == ["BLOCKED"]
    await warden.unban(ban)
    ended = await warden.sue.ended(job.name)
    assert words.job(ended) == "FINISHED"
    assert not ended.files[0].HasField("failure")
    assert await warden.sue.history(job.name) == [
        "job READY", "file BLOCKED", "job SUBMITTED", "file READY", "job READY", "file ACTIVE",
        "job ACTIVE", "file FINISHED", "job FINISHED",
    ]  # fmt: skip


async def test_files_that_wait_are_cancelled(warden: Warden, words: Any) -> None:
    busy = await warden.busy()
    job = await warden.waiting()
    ban = await warden.ban(action="CANCEL")
    ended = await warden.sue.ended(job.name)
    assert (words.job(ended), words.files(ended)) == ("CANCELED", ["CANCELED"])
    assert words.failure(ended) == "STORAGE_BANNED"
    await warden.affected(1)
    await warden.unban(ban)
    assert words.job(await warden.sue.ended(busy.name, 60)) == "FINISHED"
    assert words.files(await warden.sue.get(job.name)) == ["CANCELED"]


async def test_running_copies_go_on_under_wait(warden: Warden, words: Any) -> None:
    job = await warden.busy_at_mirror()
    await warden.ban()
    assert words.job(await warden.sue.ended(job.name, 60)) == "FINISHED"


@pytest.mark.parametrize("element", ["mirror", "local"])
async def test_running_copies_are_aborted_under_cancel(
    warden: Warden, words: Any, element: str
) -> None:
    job = await warden.busy_at_mirror()
    await warden.ban(element, action="CANCEL")
    ended = await warden.sue.ended(job.name)
    assert (words.files(ended), words.failure(ended)) == (["CANCELED"], "STORAGE_BANNED")
    assert not (warden.house.mirror / "local/busy").exists()
    assert warden.house.leftovers() == []
    await warden.affected(1)


async def test_submissions_are_accepted_and_wait_when_the_ban_says_so(
    warden: Warden, words: Any
) -> None:
    ban = await warden.ban(accept_submissions=True)
    job = await warden.waiting()
    assert (words.job(job), words.files(job)) == ("SUBMITTED", ["BLOCKED"])
    assert words.failure(job) == "STORAGE_BANNED"
    assert (await warden.sue.get(job.name)).files[0] == job.files[0]
    await warden.affected(1)
    assert words.reason(await refused(warden.sue.put(warden.mirrored("b"), b"x"))) == (
        "PRECONDITION"
    )
    await warden.unban(ban)
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"


async def test_a_file_waits_only_so_long(warden: Warden, words: Any) -> None:
    await warden.ban(accept_submissions=True, wait_s=1)
    job = await warden.waiting()
    assert words.files(job) == ["BLOCKED"]
    ended = await warden.sue.ended(job.name)
    assert (words.job(ended), words.failure(ended)) == ("CANCELED", "STORAGE_BANNED")
    assert "waited" in ended.files[0].failure.message
    waited = ended.end_time.ToMicroseconds() - ended.create_time.ToMicroseconds()
    assert waited >= 1_000_000


async def test_a_ban_ends_by_itself(warden: Warden, words: Any) -> None:
    ban = await warden.ban(accept_submissions=True, lasting_s=2)
    job = await warden.waiting()
    assert words.files(job) == ["BLOCKED"]
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"
    assert await warden.bans() == []
    assert (await warden.element()).writable
    gone = await refused(warden.unban(ban))
    assert gone.code() == grpc.StatusCode.NOT_FOUND


async def test_blocked_files_are_cancelled_by_their_owner(warden: Warden, words: Any) -> None:
    await warden.ban(accept_submissions=True)
    job = await warden.waiting()
    canceled = await warden.sue.jobs.CancelTransferJob(
        transfer_service_pb2.CancelTransferJobRequest(name=job.name)
    )
    assert words.files(canceled) == ["CANCELED"]


async def test_of_two_bans_the_stricter_counts_and_the_milder_stays(
    warden: Warden, words: Any
) -> None:
    mild = await warden.ban(accept_submissions=True)
    strict = await warden.ban()
    assert [ban.name for ban in await warden.bans("mirror")] == [strict.name, mild.name]
    assert await warden.bans("local") == []
    assert words.reason(await refused(warden.waiting())) == "PRECONDITION"
    await warden.unban(strict)
    job = await warden.waiting()
    assert words.files(job) == ["BLOCKED"]
    strict = await warden.ban()
    await warden.unban(mild)
    await asyncio.sleep(0)
    assert words.files(await warden.sue.get(job.name)) == ["BLOCKED"]
    await warden.unban(strict)
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"


async def test_a_restart_forgets_no_ban(warden: Warden, words: Any) -> None:
    ban = await warden.ban(accept_submissions=True)
    job = await warden.waiting()
    await warden.house.restart()
    warden = Warden(warden.house)
    assert [one.name for one in await warden.bans()] == [ban.name]
    assert words.files(await warden.sue.get(job.name)) == ["BLOCKED"]
    await warden.unban(ban)
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"


async def test_copies_of_a_logical_file_elsewhere_are_taken(warden: Warden, words: Any) -> None:
    """One copy of two is banned; with both, the file waits."""
    await warden.sue.put("LFN:/local/a", b"twice")
    job = await warden.sue.submit(
        ("LFN:/local/a", warden.mirrored("a")), placement=True, overwrite=2
    )
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"
    await warden.ban("local", operations=[READ])
    assert await warden.sue.read("LFN:/local/a") == b"twice"
    job = await warden.sue.submit(("LFN:/local/a", "LFN:/local/b"))
    ended = await warden.sue.ended(job.name)
    assert words.job(ended) == "FINISHED"
    assert ended.files[0].source_storage_element == "storageElements/mirror"
    both = await warden.ban("mirror", operations=[READ], accept_submissions=True)
    job = await warden.sue.submit(("LFN:/local/a", "LFN:/local/c"))
    await warden.sue.in_state(job.name, "BLOCKED")
    assert words.reason(await refused(warden.sue.read("LFN:/local/a"))) == "PRECONDITION"
    await warden.unban(both)
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"


async def test_a_drain_refuses_new_targets_and_keeps_what_was_accepted(
    start_house: Any, tmp_path: Path, words: Any
) -> None:
    root = tmp_path / "open"
    (root / "new").mkdir(parents=True)
    house = await start_house(given={"max_files": 1, "storage_file_roots": [str(root)]})
    warden = Warden(house)
    settings = ParseDict(
        {
            "endpoints": [{"base_url": (root / "new").as_uri()}],
            "vo_paths": {"local": "/local"},
        },
        storage_element_pb2.StorageElement(),
    )
    made = await warden.admin.storage_admin.CreateStorageElement(
        pb.CreateStorageElementRequest(storage_element_id="new", storage_element=settings)
    )
    target = (root / "new/local").as_uri()
    busy = await warden.busy()
    accepted = await warden.sue.submit((house.file("local/a"), f"{target}/a"))
    drain = storage_element_pb2.StorageElement(name=made.name, draining=True)
    drained = await warden.admin.storage_admin.UpdateStorageElement(
        pb.UpdateStorageElementRequest(storage_element=drain)
    )
    assert (drained.readable, drained.writable) == (True, False)
    for call in (
        warden.sue.submit((house.file("local/b"), f"{target}/b")),
        warden.sue.put(f"{target}/b", b"x"),
    ):
        error = await refused(call)
        assert words.reason(error) == "PRECONDITION"
        assert dict(words.info(error).metadata) == {"subject": made.name}
    assert words.job(await warden.sue.ended(busy.name, 60)) == "FINISHED"
    assert words.job(await warden.sue.ended(accepted.name)) == "FINISHED"
    job = await warden.sue.submit((f"{target}/a", "LFN:/local/from"))
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"


async def test_bans_are_asked_for_once_and_refused_where_they_make_no_sense(
    warden: Warden, words: Any
) -> None:
    request_id = uuid7()
    ban = await warden.ban(request_id=request_id)
    again = await warden.ban(request_id=request_id)
    assert again.name == ban.name
    assert len(await warden.bans()) == 1
    other = await refused(warden.ban("local", request_id=request_id))
    assert words.reason(other) == "REQUEST_ID_REUSED"
    for fields, element in (
        ({"action": "CANCEL", "accept_submissions": True}, "mirror"),
        ({"lasting_s": -5}, "mirror"),
        ({"vo": "a\0b"}, "mirror"),
    ):
        assert words.reason(await refused(warden.ban(element, **fields))) == "INVALID_FIELDS"
    assert (await refused(warden.ban("none"))).code() == grpc.StatusCode.NOT_FOUND
    absent = pb.ListStorageBansRequest(parent="storageElements/none")
    listing = await refused(warden.sue.storage_admin.ListStorageBans(absent))
    assert listing.code() == grpc.StatusCode.NOT_FOUND
    denied = warden.sue.storage_admin.UnbanStorage(pb.UnbanStorageRequest(name=ban.name))
    assert words.reason(await refused(denied)) == "PERMISSION_DENIED"


async def test_a_submission_that_was_accepted_before_the_ban_is_answered_again(
    warden: Warden, words: Any
) -> None:
    source, request_id = warden.house.file("local/a"), uuid7()
    file = (source, warden.mirrored("a"))
    job = await warden.sue.submit(file, request_id=request_id)
    await warden.ban(vo="local")
    again = await warden.sue.submit(file, request_id=request_id)
    assert again.name == job.name
    assert words.reason(await refused(warden.sue.submit(file, request_id=uuid7()))) == (
        "PRECONDITION"
    )


async def test_removals_wait_for_the_end_of_a_ban_too(warden: Warden, words: Any) -> None:
    await warden.sue.put("LFN:/local/a", b"to go")
    ban = await warden.ban("local", operations=[REMOVE], accept_submissions=True)
    removal = transfer_service_pb2.SubmitDeletionJobRequest()
    removal.files.add(file="LFN:/local/a")
    job = await warden.sue.jobs.SubmitDeletionJob(removal)
    assert words.files(job) == ["BLOCKED"]
    # Another ban is looked at meanwhile, and lifted.
    await warden.unban(await warden.ban("mirror"))
    assert words.files(await warden.sue.get(job.name)) == ["BLOCKED"]
    await warden.unban(ban)
    assert words.job(await warden.sue.ended(job.name)) == "FINISHED"
    assert not (warden.house.storage / "local/a").exists()


async def test_bans_are_paged_newest_first(warden: Warden, words: Any) -> None:
    laid = [await warden.ban(element, vo="other") for element in ("mirror", "local", "mirror")]

    async def page(parent: str, token: str = "") -> pb.ListStorageBansResponse:
        request = pb.ListStorageBansRequest(
            parent=f"storageElements/{parent}", page_size=1, page_token=token
        )
        return await warden.sue.storage_admin.ListStorageBans(request)

    seen: list[str] = []
    token = ""
    while True:
        found = await page("-", token)
        seen += [ban.name for ban in found.storage_bans]
        token = found.next_page_token
        if not token:
            break
    assert seen == [ban.name for ban in reversed(laid)]
    first = await page("mirror")
    assert [ban.name for ban in first.storage_bans] == [laid[2].name]
    assert words.reason(await refused(page("local", first.next_page_token))) == "TOKEN_NOT_OURS"
