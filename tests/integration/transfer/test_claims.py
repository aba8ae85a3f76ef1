"""Limits hold whoever claims: two processes on one database never move more files at once than a
channel and a storage element let them, by the times in the database.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from gridlane.transfer.v1 import (
    channel_admin_service_pb2,
    channel_admin_service_pb2_grpc,
    channel_pb2,
    storage_admin_service_pb2,
    storage_admin_service_pb2_grpc,
    storage_element_pb2,
)
from gridlane_kit import postgresql
from gridlane_transfer.store.tables import FILE_ATTEMPT

FILES = 60


def most_at_once(conn: Connection, element: str | None = None) -> int:
    """How many attempts (into an element) overlapped at most."""
    a = FILE_ATTEMPT.c
    statement = select(a.start_us, a.end_us, a.target_element)
    moments: list[tuple[int, int]] = []
    for start_us, end_us, target in conn.execute(statement):
        if element in (None, target):
            # Of the same moment an end comes first: its place was free when the other was claimed.
            moments += [(start_us, 1), (end_us, -1)]
    most = running = 0
    for _, step in sorted(moments):
        running += step
        most = max(most, running)
    return most


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_two_processes_together_keep_to_the_places_of_a_channel(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[float] = []
    held = postgresql._held

    def counted(turn: asyncio.Lock, until: float) -> Any:
        again.append(until)
        return held(turn, until)

    monkeypatch.setattr(postgresql, "_held", counted)
    given = {"max_files": 3, "poll_s": 0.1}
    first = await start_house(given=given)
    second = await start_house(given=given)
    sue = first.client("sue")
    files = [
        (first.file(f"local/in/{n}", bytes(20_000)), f"LFN:/local/out/{n}") for n in range(FILES)
    ]
    jobs = [await sue.submit(*files[::2]), await sue.submit(*files[1::2])]
    for job in jobs:
        assert words.job(await sue.ended(job.name, seconds=60)) == "FINISHED"
    assert await first.room._parts.db.read(most_at_once) == 3
    assert second.room.mover.capacity() > 3
    # They take turns: hardly any transaction has met another one and was run again.
    assert len(again) < FILES / 10, len(again)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_storage_element_takes_no_more_than_it_says_over_all_channels(
    start_house: Any, tmp_path: Path, words: Any
) -> None:
    house = await start_house(
        given={"max_files": 4, "storage_file_roots": [str(tmp_path)], "poll_s": 0.1}
    )
    sue, admin = house.client("sue"), house.client("admin")
    (tmp_path / "small").mkdir()
    stub = storage_admin_service_pb2_grpc.StorageAdminServiceStub(house.channel)
    await stub.CreateStorageElement(
        storage_admin_service_pb2.CreateStorageElementRequest(
            storage_element_id="small",
            storage_element=storage_element_pb2.StorageElement(
                endpoints=[
                    storage_element_pb2.StorageEndpoint(base_url=(tmp_path / "small").as_uri())
                ],
                vo_paths={"local": "/local"},
                limits=storage_element_pb2.StorageLimits(max_active_in=1),
            ),
        ),
        metadata=admin.metadata,
        timeout=20,
    )
    pairs = [
        (house.file(f"local/in/{n}", bytes(50_000)), (tmp_path / f"small/local/{n}").as_uri())
        for n in range(12)
    ]
    elsewhere = [(source, f"LFN:/local/out/{n}") for n, (source, _) in enumerate(pairs)]
    async with asyncio.timeout(60):
        jobs = [await sue.submit(*pairs), await sue.submit(*elsewhere)]
        for job in jobs:
            assert words.job(await sue.ended(job.name, seconds=60)) == "FINISHED"
    db = house.room._parts.db
    assert await db.read(lambda conn: most_at_once(conn, "storageElements/small")) == 1
    assert await db.read(most_at_once) > 1


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_a_changed_channel_is_in_force_in_every_process_within_a_second(
    start_house: Any,
) -> None:
    first, second = await start_house(), await start_house()
    admin = first.client("admin")
    stub = channel_admin_service_pb2_grpc.ChannelAdminServiceStub(first.channel)
    made = await stub.CreateChannel(
        channel_admin_service_pb2.CreateChannelRequest(
            channel_id="wan", channel=channel_pb2.Channel(source="local", target="mirror")
        ),
        metadata=admin.metadata,
        timeout=20,
    )
    async with asyncio.timeout(5):
        while second.room._parts.channels.by_name("channels/wan") is None:
            await asyncio.sleep(0.02)
    target = (second.mirror / "local/b").as_uri()
    job = await second.client("sue").submit((second.file("local/a"), target))
    assert job.files[0].channel == made.name


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_channels_on_which_nothing_waits_any_more_are_not_taken_for_waiting(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"poll_s": 0.1})
    admin, sue = house.client("admin"), house.client("sue")
    stub = channel_admin_service_pb2_grpc.ChannelAdminServiceStub(house.channel)
    request = channel_admin_service_pb2.CreateChannelRequest(
        channel_id="wan", channel=channel_pb2.Channel(source="local", target="mirror")
    )
    await stub.CreateChannel(request, metadata=admin.metadata, timeout=20)
    source = house.file("local/a")
    for target in ((house.mirror / "local/b").as_uri(), "LFN:/local/b"):
        job = await sue.ended((await sue.submit((source, target))).name)
        assert words.job(job) == "FINISHED"
    ledger = house.room._parts.reconciler._ledger
    async with asyncio.timeout(20):
        while ledger.standing(0.0).waited:
            await asyncio.sleep(0.02)
