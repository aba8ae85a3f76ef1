"""A file whose source is a logical name lies on the channel of the copy that would be taken now."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from integration.transfer.channel_calls import Admin

from gridlane.transfer.v1 import (
    channel_pb2,
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

SOURCE = "LFN:/local/a"
OFF = channel_pb2.CHANNEL_STATE_INACTIVE
File = transfer_job_pb2.FileTransfer


@pytest.fixture
async def admin(house: Any, sue: Any) -> Admin:
    """An administrator, of a house with a logical file on `local` and a channel from there that
    starts nothing.
    """
    await sue.put(SOURCE, b"once")
    made = Admin(house, "admin")
    await made.create("out", source="local", target="*", state=OFF)
    return made


async def copied(house: Any, sue: Any, admin: Admin) -> None:
    """Has a second copy of the logical file on `mirror`."""
    await admin.update("out", "state", state=channel_pb2.CHANNEL_STATE_ACTIVE)
    mirrored = (house.mirror / "local" / "a").as_uri()
    job = await sue.submit((SOURCE, mirrored), placement=True)
    assert (await sue.ended(job.name)).files[0].HasField("end_time")
    await admin.update("out", "state", state=OFF)


async def ban(admin: Admin, element: str) -> None:
    banned = storage_ban_pb2.StorageBan(
        action=storage_ban_pb2.BAN_ACTION_WAIT,
        reason="the tape robot",
        operations=[storage_element_pb2.STORAGE_OPERATION_READ],
    )
    await admin.client.storage_admin.BanStorage(
        storage_admin_service_pb2.BanStorageRequest(
            parent=f"storageElements/{element}", storage_ban=banned
        )
    )


async def test_a_state_of_the_copys_channel_holds_for_its_logical_name(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    job = await sue.submit((SOURCE, "LFN:/local/b"))
    assert [(one.channel, one.source_storage_element) for one in job.files] == [
        ("channels/out", "storageElements/local")
    ]
    answer = await sue.jobs.ExplainTransferJob(
        transfer_service_pb2.ExplainTransferJobRequest(name=job.name)
    )
    (told,) = [one for file in answer.files for one in file.explanations]
    assert (told.resource, told.message.partition(":")[0]) == (
        "channels/out",
        "channel out is INACTIVE",
    )
    await admin.update("out", "state", state=channel_pb2.CHANNEL_STATE_ACTIVE)
    assert words.job(await sue.ended(job.name)) == "FINISHED"


async def test_the_channel_is_that_of_the_copy_whose_turn_it_is(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local")
    job = await sue.submit((SOURCE, "LFN:/local/b"))
    assert job.files[0].channel == "channels/out"
    await ban(admin, "local")
    job = await sue.submit((SOURCE, "LFN:/local/c"))
    assert job.files[0].channel == "channels/mirrored"
    (moved,) = (await sue.ended(job.name)).files
    assert (moved.channel, moved.source_storage_element) == (
        "channels/mirrored",
        "storageElements/mirror",
    )


async def test_a_copy_at_the_target_itself_is_no_source(house: Any, sue: Any, admin: Admin) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local")
    job = await sue.submit((SOURCE, (house.storage / "local" / "a").as_uri()), overwrite=2)
    assert job.files[0].channel == "channels/mirrored"


async def test_a_name_without_a_copy_lies_on_a_channel_from_anywhere(
    sue: Any, admin: Admin
) -> None:
    job = await sue.submit(("LFN:/local/none", "LFN:/local/b"))
    assert [(one.channel, one.source_storage_element) for one in job.files] == [
        ("channels/default", "")
    ]


async def parts(file: Any) -> AsyncIterator[transfer_service_pb2.SubmitTransferJobStreamRequest]:
    header = transfer_service_pb2.SubmitTransferJobHeader(
        transfer_job=transfer_job_pb2.TransferJob(vo="local")
    )
    files = transfer_service_pb2.FileTransferChunk(files=[file])
    yield transfer_service_pb2.SubmitTransferJobStreamRequest(header=header)
    yield transfer_service_pb2.SubmitTransferJobStreamRequest(files=files)


async def test_it_is_so_of_jobs_in_a_batch_of_streamed_ones_and_on_the_way(
    house: Any, sue: Any, admin: Admin
) -> None:
    description = transfer_job_pb2.TransferJob(
        files=[File(source=SOURCE, target=f"LFN:/local/{name}") for name in "bc"]
    )
    request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=description)
    batch = transfer_service_pb2.BatchSubmitTransferJobsRequest(requests=[request])
    answer = await sue.jobs.BatchSubmitTransferJobs(batch)
    streamed = await sue.jobs.SubmitTransferJobStream(
        parts(File(source=SOURCE, target="LFN:/local/d"))
    )
    target = (house.mirror / "local" / "e").as_uri()
    hopping = await sue.submit(File(source=SOURCE, target=target, via=["storageElements/local"]))
    several = await sue.submit(
        File(source=SOURCE, target="LFN:/local/f", alternative_sources=[target])
    )
    for name in (answer.results[0].transfer_job.name, streamed.name, hopping.name, several.name):
        async with asyncio.timeout(10):
            while {one.channel for one in (await sue.get(name)).files} != {"channels/out"}:
                await asyncio.sleep(0.02)


async def test_the_catalogue_is_asked_once_for_a_job_and_not_for_urls(
    house: Any, sue: Any, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    catalogue = house.room._started.catalogue
    resolve = catalogue.resolve

    async def counted(lfns: Any) -> Any:
        asked.append(list(lfns))
        return await resolve(lfns)

    monkeypatch.setattr(catalogue, "resolve", counted)
    await sue.submit((house.file("local/x"), "LFN:/local/y"))
    assert asked == []
    named = [SOURCE, "LFN:/local/none", SOURCE]
    await sue.submit(*[(name, f"LFN:/local/b{n}") for n, name in enumerate(named)])
    assert asked == [[SOURCE, "LFN:/local/none"]]
