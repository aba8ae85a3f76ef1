"""A file whose source is a logical name lies on the channel of the copy that would be taken now,
and never moves on another one.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from integration.transfer import failing_mover
from integration.transfer.channel_calls import Admin
from sqlalchemy import Connection, select, update

from gridlane.transfer.v1 import (
    channel_pb2,
    replica_service_pb2,
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_transfer.backends.embedded.orders import BUNDLED_BYTES
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.states import FileState
from gridlane_transfer.store.tables import FILE, FILE_ATTEMPT

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

SOURCE = "LFN:/local/a"
OFF = channel_pb2.CHANNEL_STATE_INACTIVE
ON = channel_pb2.CHANNEL_STATE_ACTIVE
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


async def lies_on(sue: Any, name: str, channel: str, state: str = "READY") -> Any:
    """The only file of a job once it waits on a channel."""
    wanted = transfer_job_pb2.FileTransferState.Value(f"FILE_TRANSFER_STATE_{state}")
    async with asyncio.timeout(10):
        while True:
            (file,) = (await sue.get(name)).files
            if (file.channel, file.state) == (f"channels/{channel}", wanted):
                return file
            await asyncio.sleep(0.02)


async def queued(admin: Admin, *names: str) -> list[int]:
    return [int((await admin.get(name)).usage.queued_files) for name in names]


async def unregister(sue: Any, element: str) -> None:
    await sue.replicas.UnregisterReplica(
        replica_service_pb2.UnregisterReplicaRequest(
            lfn=SOURCE, replica=f"storageElements/{element}"
        )
    )


async def test_a_file_whose_name_has_got_a_copy_waits_on_its_channel(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await admin.update("default", "state", state=OFF)
    job = await sue.submit(("LFN:/local/late", "LFN:/local/b"))
    assert await queued(admin, "default", "out") == [1, 0]
    await sue.put("LFN:/local/late", b"at last")
    await admin.update("default", "state", state=ON)
    file = await lies_on(sue, job.name, "out")
    assert (file.source_storage_element, file.attempt) == ("storageElements/local", 0)
    assert await queued(admin, "default", "out") == [0, 1]
    await admin.update("out", "state", state=ON)
    assert words.job(await sue.ended(job.name)) == "FINISHED"


async def test_a_file_whose_copy_is_gone_is_read_on_the_channel_of_another_one(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local", state=OFF)
    job = await sue.submit((SOURCE, "LFN:/local/b"))
    await unregister(sue, "local")
    await admin.update("out", "state", state=ON)
    file = await lies_on(sue, job.name, "mirrored")
    assert (file.source_storage_element, file.attempt) == ("storageElements/mirror", 0)
    await admin.update("mirrored", "state", state=ON)
    ended = await sue.ended(job.name)
    (moved,) = ended.files
    assert (words.job(ended), moved.channel) == ("FINISHED", "channels/mirrored")


async def test_a_copy_that_no_channel_leads_from_is_passed_over(
    house: Any, sue: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local", state=OFF)
    await admin.delete("default")
    await admin.delete("out")
    job = await sue.submit((SOURCE, "LFN:/local/b"))
    assert [(one.channel, one.source_storage_element) for one in job.files] == [
        ("channels/mirrored", "storageElements/mirror")
    ]


async def test_a_file_ends_when_no_channel_leads_from_any_copy(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    job = await sue.submit((SOURCE, "LFN:/local/b"))
    await admin.delete("default")
    await unregister(sue, "local")
    await admin.update("out", "state", state=ON)
    ended = await sue.ended(job.name)
    assert (words.job(ended), words.failure(ended)) == ("FAILED", "BACKEND_REFUSED")
    assert "no channel leads from mirror to local" in ended.files[0].failure.message


async def test_a_copy_that_cannot_be_read_makes_room_for_one_on_another_channel(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local", state=OFF)
    job = await sue.submit((SOURCE, "LFN:/local/b"), max_retries=0)
    (house.storage / "local" / "a").unlink()
    await admin.update("out", "state", state=ON)
    file = await lies_on(sue, job.name, "mirrored", "RETRYING")
    assert (file.attempt, file.source_storage_element) == (1, "storageElements/mirror")
    assert (file.source, list(file.alternative_sources)) == (SOURCE, [])
    await admin.update("mirrored", "state", state=ON)
    ended = await sue.ended(job.name)
    (moved,) = ended.files
    assert (words.job(ended), moved.attempt, moved.channel) == (
        "FINISHED",
        2,
        "channels/mirrored",
    )
    attempts = await sue.jobs.ListFileAttempts(
        transfer_service_pb2.ListFileAttemptsRequest(parent=moved.name)
    )
    assert [one.source_storage_element for one in attempts.attempts] == [
        "storageElements/local",
        "storageElements/mirror",
    ]


async def test_copies_on_one_channel_are_tried_in_one_attempt(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.delete("out")
    (house.storage / "local" / "a").unlink()
    job = await sue.submit((SOURCE, "LFN:/local/b"), max_retries=0)
    ended = await sue.ended(job.name)
    (moved,) = ended.files
    assert (words.job(ended), moved.attempt) == ("FINISHED", 1)
    assert moved.source_storage_element == "storageElements/mirror"


async def test_each_copy_is_tried_once_a_round_and_never_when_it_is_gone(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local")
    job = await sue.submit((SOURCE, "LFN:/local/b"), max_retries=3)
    shutil.rmtree(house.mirror / "local")
    (house.storage / "local" / "a").unlink()
    await admin.update("out", "state", state=ON)
    ended = await sue.ended(job.name)
    assert (words.job(ended), words.failure(ended)) == ("FAILED", "SOURCE_MISSING")
    assert ended.files[0].attempt == 2


async def test_rounds_over_copies_spend_the_retries(
    house: Any, sue: Any, words: Any, admin: Admin
) -> None:
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local")
    failing_mover.fail(house.room._mover)
    job = await sue.submit((SOURCE, "LFN:/local/b"), max_retries=1)
    await admin.update("out", "state", state=ON)
    ended = await sue.ended(job.name)
    assert (words.failure(ended), ended.files[0].attempt) == ("BACKEND_LOST", 4)


async def test_a_file_whose_process_is_no_more_goes_where_its_copy_lies(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"poll_s": 0.1, "workers": 1})
    sue, admin = house.client("sue"), Admin(house, "admin")
    await sue.put(SOURCE, b"once")
    await admin.create("out", source="local", target="*")
    await copied(house, sue, admin)
    await admin.create("mirrored", source="mirror", target="local", state=OFF)
    for pid in house.room._mover.pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        job = await sue.submit((SOURCE, "LFN:/local/b"))
        await admin.update("out", "state", state=ON)
        await sue.in_state(job.name, "ACTIVE")
        await unregister(sue, "local")
        lost = update(FILE).where(FILE.c.state == int(FileState.ACTIVE)).values(lease_until_us=0)
        await house.room._started.db.write(lambda conn: conn.execute(lost))
        file = await lies_on(sue, job.name, "mirrored", "RETRYING")
        assert words.failure(await sue.get(job.name)) == "BACKEND_LOST"
        assert (file.attempt, file.source_storage_element) == (1, "storageElements/mirror")
        attempts = await sue.jobs.ListFileAttempts(
            transfer_service_pb2.ListFileAttemptsRequest(parent=file.name)
        )
        assert [one.source_storage_element for one in attempts.attempts] == [
            "storageElements/local"
        ]
    finally:
        for pid in house.room._mover.pids:
            os.kill(pid, signal.SIGCONT)


def most_out_of_mirror(conn: Connection) -> int:
    """How many attempts that read from there overlapped at most."""
    a = FILE_ATTEMPT.c
    of_mirror = a.source_element == "storageElements/mirror"
    moments: list[tuple[int, int]] = []
    for start_us, end_us in conn.execute(select(a.start_us, a.end_us).where(of_mirror)):
        # Of the same moment an end comes first: its place was free when the other was claimed.
        moments += [(start_us, 1), (end_us, -1)]
    return max(accumulate(step for _, step in sorted(moments)))


async def test_the_limit_of_a_copy_s_element_holds_for_files_that_come_to_it_late(
    start_house: Any, tmp_path: Path, words: Any
) -> None:
    """Files that waited for another copy, and files that could not read it."""
    elements = [
        StorageElementSettings(
            name=name,
            base_url=(tmp_path / folder).as_uri(),
            vo_paths={"local": "/local"},
            max_active_out=limit,
        )
        for name, folder, limit in (("local", "storage", 0), ("mirror", "mirror", 1))
    ]
    house = await start_house(elements=elements, given={"poll_s": 0.1})
    sue, admin = house.client("sue"), Admin(house, "admin")
    # Too large to share a place, which counts once.
    content = bytes(BUNDLED_BYTES + 1)
    await sue.put(SOURCE, content)
    await sue.put("LFN:/local/c", content)
    for name in (SOURCE, "LFN:/local/c"):
        mirrored = (house.mirror / name.removeprefix("LFN:/")).as_uri()
        await sue.ended((await sue.submit((name, mirrored), placement=True)).name)
    await admin.update("default", "state", state=OFF)
    late = await sue.submit(*[(SOURCE, f"LFN:/local/late/{n}") for n in range(8)])
    unread = await sue.submit(
        *[("LFN:/local/c", f"LFN:/local/unread/{n}") for n in range(8)], max_retries=0
    )
    assert {one.source_storage_element for job in (late, unread) for one in job.files} == {
        "storageElements/local"
    }
    await unregister(sue, "local")
    (house.storage / "local" / "c").unlink()
    await admin.update("default", "state", state=ON)
    for job in (late, unread):
        ended = await sue.ended(job.name, seconds=60)
        assert words.job(ended) == "FINISHED"
        assert {one.source_storage_element for one in ended.files} == {"storageElements/mirror"}
    assert await house.room._started.db.read(most_out_of_mirror) == 1
