"""Files whose sources are banned, or that no channel leads from: what else they are read from, also
when that is there only later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from integration.transfer.channel_calls import Admin
from sqlalchemy import Connection, update

from gridlane.transfer.v1 import (
    channel_pb2,
    replica_service_pb2,
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
    transfer_job_pb2,
)
from gridlane_kit.clock import now_us
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage.bans import NEVER_US
from gridlane_transfer.store import banned
from gridlane_transfer.store.refresh import Kind, bump
from gridlane_transfer.store.tables import CHANNEL

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

NAMES = ("near", "mid", "far", "end")
LFN = "LFN:/local/a"
OFF = channel_pb2.CHANNEL_STATE_INACTIVE
CONTENT = b"gridlane\n" * 50
File = transfer_job_pb2.FileTransfer


class Ground:
    """A server with storage elements, and a logical file on the first one.

    Parameters:
        house: the server.
    """

    def __init__(self, house: Any, words: Any) -> None:
        self.house, self.words = house, words
        self.sue, self.admin = house.client("sue"), Admin(house, "admin")

    def at(self, name: str, path: str) -> str:
        return (self.house.root / name / "local" / path).as_uri()

    def made(self, name: str, path: str) -> str:
        url: str = self.house.file(f"local/{path}", CONTENT, below=self.house.root / name)
        return url

    async def register(self, name: str, path: str = "a") -> None:
        """Registers a copy of a logical file that lies on an element."""
        await self.sue.replicas.RegisterReplica(
            replica_service_pb2.RegisterReplicaRequest(
                lfn=f"LFN:/local/{path}",
                url=self.made(name, path),
                size_bytes=len(CONTENT),
                checksum=self.words.adler32(CONTENT),
            )
        )

    async def unregister(self, name: str, path: str = "a") -> None:
        await self.sue.replicas.UnregisterReplica(
            replica_service_pb2.UnregisterReplicaRequest(
                lfn=f"LFN:/local/{path}", replica=f"storageElements/{name}"
            )
        )

    async def only_from(self, *names: str) -> None:
        """Leaves channels from some elements alone; none of them starts anything yet."""
        for name in names:
            await self.admin.create(name, source=name, target="end", state=OFF)
        await self.admin.delete("default")

    async def remove(self, name: str) -> None:
        """Removes a channel on which files lie, as if they had come there just then."""
        uid = (await self.admin.get(name)).uid
        parts = self.house.room._started

        def gone(conn: Connection) -> None:
            removed = update(CHANNEL).where(CHANNEL.c.uid == uid).values(delete_us=now_us())
            conn.execute(removed)
            bump(conn, Kind.CHANNELS)

        await parts.db.write(gone)
        await parts.refresh.now()

    async def start(self, *names: str) -> None:
        for name in names:
            await self.admin.update(name, "state", state=channel_pb2.CHANNEL_STATE_ACTIVE)

    async def finished_from(self, name: str) -> str:
        """Which element the file of a job was read from, once it has ended well."""
        job = await self.sue.ended(name)
        assert self.words.job(job) == "FINISHED", job.files[0].failure
        return str(job.files[0].source_storage_element.removeprefix("storageElements/"))

    async def ban(self, *names: str) -> None:
        for name in names:
            banned = storage_ban_pb2.StorageBan(
                action=storage_ban_pb2.BAN_ACTION_WAIT,
                reason="the tape robot",
                accept_submissions=True,
                operations=[storage_element_pb2.STORAGE_OPERATION_READ],
            )
            await self.admin.client.storage_admin.BanStorage(
                storage_admin_service_pb2.BanStorageRequest(
                    parent=f"storageElements/{name}", storage_ban=banned
                )
            )

    async def looked(self) -> None:
        """Waits until the bans' files have been looked at, once more too."""
        watcher = self.house.room._started.banned_files
        async with asyncio.timeout(10):
            while len(watcher._seen) < 1 or watcher._look_again:
                await asyncio.sleep(0.02)

    async def due_us(self) -> int:
        """Until when the only file that is blocked waits."""
        ((due_us, _),) = await self.house.room._started.db.read(
            lambda conn: banned.blocked(conn, (0, 0))
        )
        return int(due_us)

    async def blocked(self, file: Any) -> str:
        """A job whose file waits for the end of a ban."""
        job = await self.sue.submit(file)
        await self.sue.in_state(job.name, "BLOCKED")
        await self.looked()
        return str(job.name)


@pytest.fixture
async def ground(start_house: Callable[..., Awaitable[Any]], tmp_path: Path, words: Any) -> Ground:
    for name in NAMES:
        (tmp_path / name).mkdir()
    elements = [
        StorageElementSettings(
            name=name, base_url=(tmp_path / name).as_uri(), vo_paths={"local": "/local"}
        )
        for name in NAMES
    ]
    made = Ground(
        await start_house(elements=elements, given={"poll_s": 0.1, "optimizer_every_s": 0.4}), words
    )
    await made.register("near")
    return made


async def registered(ground: Ground) -> None:
    await ground.register("mid")


async def put(ground: Ground) -> None:
    await ground.sue.put(ground.at("mid", "a"), CONTENT)


async def placed(ground: Ground) -> None:
    file = (ground.made("far", "elsewhere"), ground.at("mid", "a"))
    assert await ground.finished_from((await ground.sue.submit(file, placement=True)).name) == "far"


@pytest.mark.parametrize("comes", [registered, put, placed])
async def test_a_new_copy_lets_a_file_go_on_that_a_ban_keeps_waiting(
    ground: Ground, comes: Callable[[Ground], Awaitable[None]]
) -> None:
    await ground.ban("near")
    name = await ground.blocked((LFN, ground.at("end", "a")))
    await comes(ground)
    assert await ground.finished_from(name) == "mid"


async def test_it_goes_on_on_the_channel_of_the_new_copy(ground: Ground) -> None:
    await ground.admin.create("near", source="near", target="end", state=OFF)
    await ground.ban("near")
    name = await ground.blocked((LFN, ground.at("end", "a")))
    await ground.register("mid")
    assert await ground.finished_from(name) == "mid"


async def test_it_does_so_for_a_file_whose_copies_are_tried_one_by_one(ground: Ground) -> None:
    await ground.register("far")
    await ground.admin.create("far", source="far", target="end", state=OFF)
    (ground.house.root / "near/local/a").unlink()
    job = await ground.sue.submit((LFN, ground.at("end", "a")), max_retries=0)
    await ground.sue.in_state(job.name, "RETRYING")
    await ground.ban("far")
    await ground.sue.in_state(job.name, "BLOCKED")
    await ground.looked()
    await ground.register("mid")
    assert await ground.finished_from(job.name) == "mid"


async def test_a_new_copy_that_is_banned_or_that_no_channel_leads_from_changes_nothing(
    ground: Ground,
) -> None:
    await ground.only_from("near", "far")
    await ground.start("near", "far")
    await ground.ban("near", "far")
    name = await ground.blocked((LFN, ground.at("end", "a")))
    before = await ground.sue.history(name)
    for element in ("far", "mid"):
        await ground.register(element)
        async with asyncio.timeout(10):
            while await ground.due_us() < NEVER_US:
                await asyncio.sleep(0.02)
    assert await ground.sue.history(name) == before


async def test_a_file_waits_for_a_banned_copy_when_no_channel_leads_from_the_free_one(
    ground: Ground,
) -> None:
    await ground.only_from("near")
    await ground.register("mid")
    job = await ground.sue.submit((LFN, ground.at("end", "a")))
    await ground.ban("near")
    await ground.start("near")
    await ground.sue.in_state(job.name, "BLOCKED")


async def test_a_name_that_no_channel_leads_from_makes_room_for_the_next_source(
    ground: Ground,
) -> None:
    await ground.only_from("near", "far")
    await ground.register("mid")
    file = File(
        source=LFN, target=ground.at("end", "a"), alternative_sources=[ground.made("far", "b")]
    )
    job = await ground.sue.submit(file, max_retries=0)
    assert job.files[0].source_storage_element == "storageElements/near"
    await ground.unregister("near")
    await ground.start("near", "far")
    assert await ground.finished_from(job.name) == "far"


async def test_a_next_source_that_no_channel_leads_from_is_passed_over(ground: Ground) -> None:
    await ground.only_from("near", "far")
    await ground.start("near", "far")
    file = File(
        source=ground.at("near", "none"),
        target=ground.at("end", "a"),
        alternative_sources=[ground.made("mid", "b"), ground.made("far", "b")],
    )
    job = await ground.sue.submit(file, max_retries=0)
    assert await ground.finished_from(job.name) == "far"


async def test_a_next_source_that_is_a_name_lies_on_the_channel_of_its_copy(
    ground: Ground,
) -> None:
    await ground.only_from("near", "far")
    await ground.register("far", "b")
    file = File(
        source=ground.at("near", "none"),
        target=ground.at("end", "a"),
        alternative_sources=["LFN:/local/b"],
    )
    job = await ground.sue.submit(file, max_retries=0)
    await ground.start("near")
    async with asyncio.timeout(10):
        while (await ground.sue.get(job.name)).files[0].channel != "channels/far":
            await asyncio.sleep(0.02)
    await ground.start("far")
    assert await ground.finished_from(job.name) == "far"


@pytest.mark.parametrize("logical", [False, True])
async def test_a_file_whose_channel_is_no_more_goes_on_from_elsewhere(
    ground: Ground, logical: bool
) -> None:
    await ground.only_from("near", "far")
    await ground.register("far")
    near, far, end = (ground.at(name, "a") for name in ("near", "far", "end"))
    several = File(source=near, target=end, alternative_sources=[far])
    job = await ground.sue.submit((LFN, end) if logical else several)
    assert job.files[0].channel == "channels/near"
    await ground.remove("near")
    await ground.start("far")
    assert await ground.finished_from(job.name) == "far"


async def test_names_whose_copies_are_all_banned_do_not_take_turns(ground: Ground) -> None:
    await ground.register("mid", "b")
    file = File(source=LFN, target=ground.at("end", "a"), alternative_sources=["LFN:/local/b"])
    await ground.ban("near", "mid")
    name = await ground.blocked(file)
    assert (await ground.sue.history(name)).count("file BLOCKED") <= 1
