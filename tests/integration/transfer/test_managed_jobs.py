"""What managers do with others' jobs: with a whole job, and with the files on one channel alone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from integration.transfer.channel_calls import Admin, let_manage
from sqlalchemy import func, select, update

from gridlane.transfer.v1 import channel_pb2, deletion_pb2
from gridlane.transfer.v1 import transfer_admin_service_pb2 as admin
from gridlane.transfer.v1 import transfer_job_pb2 as pb
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane_transfer.store import job_updates, sweeps
from gridlane_transfer.store.job_updates import JobUpdate
from gridlane_transfer.store.tables import AUDIT, CHANNEL, FILE, SWEEP

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

MANY = 2 * sweeps.PAGE + 100


async def lane(house: Any) -> channel_pb2.Channel:
    """A channel from `local` to `mirror` that starts nothing, with bob as its manager."""
    found = await Admin(house, "admin").create("lane", state=channel_pb2.CHANNEL_STATE_INACTIVE)
    let_manage(house, "bob", found)
    return found


async def submitted(house: Any, count: int) -> str:
    """A job of sue's with so many files on that channel, and one elsewhere."""
    source = house.file("local/a")
    mirror = (house.mirror / "local").as_uri()
    files = [pb.FileTransfer(source=source, target=f"{mirror}/o{n}") for n in range(count)]
    files.append(pb.FileTransfer(source="LFN:/local/none", target=source + "2"))

    async def requests() -> AsyncIterator[rpc.SubmitTransferJobStreamRequest]:
        header = rpc.SubmitTransferJobHeader(transfer_job=pb.TransferJob(max_retries=0))
        yield rpc.SubmitTransferJobStreamRequest(header=header)
        for start in range(0, len(files), 1000):
            chunk = rpc.FileTransferChunk(files=files[start : start + 1000])
            yield rpc.SubmitTransferJobStreamRequest(files=chunk)

    job = await house.client("sue").jobs.SubmitTransferJobStream(requests())
    return str(job.name)


async def ranked(house: Any, rank: int) -> int:
    """How many files have a rank."""
    statement = select(func.count()).select_from(FILE).where(FILE.c.rank == rank)
    found: int = await house.room._started.db.read(lambda conn: conn.execute(statement).scalar())
    return found


async def first(house: Any, name: str, revision: int = 0) -> Any:
    """Bob gives what he may of a job the highest priority."""
    job = pb.TransferJob(name=name, priority=5)
    request = admin.UpdateTransferJobRequest(transfer_job=job, revision=revision, reason="urgent")
    return await house.client("bob").admin.UpdateTransferJob(request)


async def test_the_manager_of_one_channel_changes_the_files_that_lie_there(
    house: Any, sue: Any, words: Any
) -> None:
    await lane(house)
    name = await submitted(house, MANY)
    after = await first(house, name)
    assert await ranked(house, 0) == MANY
    assert (after.priority, after.revision) == (3, 1)
    with pytest.raises(Exception, match="changed meanwhile") as caught:
        await first(house, name, revision=7)
    assert words.reason(caught.value) == "REVISION_CONFLICT"
    audited = select(func.count()).select_from(AUDIT).where(AUDIT.c.reason == "urgent")
    db = house.room._started.db
    assert await db.read(lambda conn: conn.execute(audited).scalar()) == 1


async def test_no_transaction_changes_more_files_of_a_channel_than_a_page(
    house: Any, sue: Any
) -> None:
    channel = await lane(house)
    name = await submitted(house, MANY)
    wish = JobUpdate(name.removeprefix("transfers/"), 5, None, 0, frozenset({channel.uid}), None)
    await house.room._started.db.write(lambda conn: job_updates.apply(conn, [wish]))
    assert await ranked(house, 0) == sweeps.PAGE


async def test_the_files_of_other_channels_are_not_gone_through(house: Any, sue: Any) -> None:
    channel = await lane(house)
    await Admin(house, "admin").update("default", "state", state=channel_pb2.CHANNEL_STATE_INACTIVE)
    name = await submitted(house, MANY)
    elsewhere = select(CHANNEL.c.uid).where(CHANNEL.c.name == "default").scalar_subquery()
    most = update(FILE).where(FILE.c.n.not_in([1, MANY])).values(channel_uid=elsewhere)
    await house.room._started.db.write(lambda conn: conn.execute(most))
    wish = JobUpdate(name.removeprefix("transfers/"), 5, None, 0, frozenset({channel.uid}), None)
    steps = 0
    after: int | None = 0
    while after is not None:
        on = replace(wish, after=after)
        (done,) = await house.room._started.db.write(
            lambda conn, on=on: job_updates.apply(conn, [on])
        )
        steps, after = steps + 1, done.after
    assert steps == 2
    assert await ranked(house, 0) == 2


async def test_work_on_all_files_passes_each_once_and_anew_when_it_is_asked_for_again(
    house: Any, sue: Any
) -> None:
    await lane(house)
    name = await submitted(house, MANY)
    parts = house.room._started
    begun = select(SWEEP.c.kind, SWEEP.c.after_n)

    async def passed() -> list[tuple[int, int]]:
        return [tuple(row) for row in await parts.db.read(lambda conn: conn.execute(begun).all())]

    async with asyncio.timeout(20):
        while await passed():
            await asyncio.sleep(0.02)
    await parts.verbs.sweeps.stop()

    async def rank(priority: int) -> None:
        job = pb.TransferJob(name=name, priority=priority)
        request = admin.UpdateTransferJobRequest(transfer_job=job, reason="urgent")
        await house.client("max").admin.UpdateTransferJob(request)

    await rank(5)
    kind = int(sweeps.SweepKind.RANK)
    assert await passed() == [(kind, sweeps.PAGE)]
    (work,) = await parts.db.read(lambda conn: sweeps.pending(conn, 1))
    await parts.db.write(
        lambda conn: sweeps.step(conn, [work], feed=parts.feed, channels=parts.channels)
    )
    assert await passed() == [(kind, 2 * sweeps.PAGE)]
    assert await ranked(house, 0) == 2 * sweeps.PAGE
    await rank(4)
    assert await passed() == [(kind, sweeps.PAGE)]
    parts.verbs.sweeps.start()
    async with asyncio.timeout(20):
        while await passed():
            await asyncio.sleep(0.02)
    assert await ranked(house, 1) >= MANY
    assert await ranked(house, 0) == 0


async def test_why_a_job_is_cancelled_is_told_of_it_whatever_failed_before(
    house: Any, sue: Any, words: Any
) -> None:
    await lane(house)
    name = await submitted(house, 2)
    async with asyncio.timeout(20):
        while words.files(await sue.get(name))[-1] != "CATALOG_FAILED":
            await asyncio.sleep(0.02)
    await sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=name, reason="a mistake"))
    job = await sue.ended(name)
    assert words.job(job) == "CANCELED"
    assert "a mistake" in job.failure.message


async def test_a_removal_that_a_manager_tries_again_is_in_the_audit(
    house: Any, sue: Any, words: Any
) -> None:
    house.file("local/loose")
    request = rpc.SubmitDeletionJobRequest(
        files=[deletion_pb2.DeletionFile(file="LFN:/local/loose")]
    )
    job = await sue.ended((await sue.jobs.SubmitDeletionJob(request)).name)
    assert words.job(job) == "FAILED"
    again = rpc.RetryTransferJobRequest(name=job.name, reason="it is registered now")
    new = await house.client("max").jobs.RetryTransferJob(again)
    assert (new.owner.subject, new.retry_of) == ("sue", job.name)
    statement = select(AUDIT.c.actor, AUDIT.c.resource, AUDIT.c.reason)
    rows = await house.room._started.db.read(lambda conn: conn.execute(statement).all())
    assert [tuple(row) for row in rows] == [("max", job.name, "it is registered now")]
    await sue.jobs.RetryTransferJob(rpc.RetryTransferJobRequest(name=job.name))
    rows = await house.room._started.db.read(lambda conn: conn.execute(statement).all())
    assert len(rows) == 1  # an owner's own is not


async def test_a_job_of_which_nothing_has_started_is_not_active(
    house: Any, sue: Any, words: Any
) -> None:
    await lane(house)
    mirror = (house.mirror / "local").as_uri()
    files = [(house.file(f"local/{n}"), f"{mirror}/{n}") for n in range(3)]
    job = await sue.submit(*files)
    assert words.job(job) == "READY"
    await sue.jobs.CancelFileTransfers(
        rpc.CancelFileTransfersRequest(parent=job.name, names=[f"{job.name}/files/2"])
    )
    assert words.job(await sue.get(job.name)) == "READY"
    await Admin(house, "admin").update("lane", state=channel_pb2.CHANNEL_STATE_ACTIVE)
    ended = await sue.ended(job.name)
    assert words.files(ended) == ["FINISHED", "CANCELED", "FINISHED"]
    history = await sue.history(job.name)
    assert history.index("job ACTIVE") > history.index("file CANCELED")


async def test_a_file_that_had_started_keeps_the_activity_that_it_counted_for(
    house: Any, sue: Any
) -> None:
    await lane(house)
    source = house.file("local/a")
    job = await sue.submit((source, "LFN:/local/b"), (source, (house.mirror / "local/c").as_uri()))
    await sue.in_state(job.name, "FINISHED")
    request = admin.UpdateTransferJobRequest(
        transfer_job=pb.TransferJob(name=job.name, activity="urgent")
    )
    assert (await house.client("max").admin.UpdateTransferJob(request)).activity == "urgent"
    started, waits = (await sue.get(job.name)).files
    assert started.activity == "default"
    assert waits.activity == ""  # the job's
