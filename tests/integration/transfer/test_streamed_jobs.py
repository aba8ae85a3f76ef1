"""Jobs that come in as streams or many at once: all or nothing, each by itself, and once."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import func, select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2 as pb
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane_transfer.channels.channels import ChannelState
from gridlane_transfer.retention import Retention
from gridlane_transfer.states import FileState
from gridlane_transfer.store.tables import CHANNEL, FILE, FILE_ATTEMPT, JOB, STAGED_JOB, SWEEP

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
Files = Sequence[pb.FileTransfer]


def files(count: int, first: int = 0) -> list[pb.FileTransfer]:
    return [
        pb.FileTransfer(source=f"LFN:/local/none{n}", target=f"LFN:/local/o{n}")
        for n in range(first, first + count)
    ]


def digest(some: Files) -> str:
    return hashlib.sha256(
        "".join(f"{one.source}\n{one.target}\n" for one in some).encode()
    ).hexdigest()


def streamed(client: Any, *parts: Files, job: Any = None, **header: Any) -> Any:
    async def requests() -> AsyncIterator[rpc.SubmitTransferJobStreamRequest]:
        description = job or pb.TransferJob(tags={"campaign": "one"})
        yield rpc.SubmitTransferJobStreamRequest(
            header=rpc.SubmitTransferJobHeader(transfer_job=description, **header)
        )
        for part in parts:
            for start in range(0, len(part), 1000):
                chunk = rpc.FileTransferChunk(files=part[start : start + 1000])
                yield rpc.SubmitTransferJobStreamRequest(files=chunk)

    return client.jobs.SubmitTransferJobStream(requests())


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def rows(house: Any) -> dict[str, int]:
    """How many rows there are of what a stream makes."""

    def count(conn: Any) -> dict[str, int]:
        return {
            table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (FILE, FILE_ATTEMPT, JOB, STAGED_JOB, SWEEP)
        }

    found: dict[str, int] = await house.room._started.db.read(count)
    return found


async def nothing_left(house: Any, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while any((await rows(house)).values()):
            await asyncio.sleep(0.05)


async def test_a_streamed_job_is_there_as_a_whole(house: Any, sue: Any, words: Any) -> None:
    every = files(2500)
    job = await streamed(
        sue,
        every[:1000],
        every[1000:1001],
        every[1001:2000],
        every[2000:],
        file_count=2500,
        digest_sha256=digest(every),
    )
    assert (job.file_count, job.tags["campaign"]) == (2500, "one")
    assert not job.files
    assert words.job(job) == "SUBMITTED"
    got = await sue.get(job.name)
    assert [file.target for file in got.files] == [one.target for one in every[:1000]]
    last = rpc.GetFileTransferRequest(name=f"{job.name}/files/2500")
    assert (await sue.jobs.GetFileTransfer(last)).target == every[-1].target
    waits = pb.FILE_TRANSFER_STATE_SUBMITTED
    async with asyncio.timeout(60):
        while any(one.state == waits for one in (await sue.get(job.name)).summary):
            await asyncio.sleep(0.05)  # they are let onto their channels
    await sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=job.name))
    ended = await sue.ended(job.name, 60)
    assert (words.job(ended), ended.completeness_percent) == ("CANCELED", 100)
    assert sum(one.count for one in ended.summary) == 2500
    history = await sue.history(job.name)
    assert history[0] == "job SUBMITTED"


async def test_a_stream_that_is_repeated_is_one_job(house: Any, sue: Any, words: Any) -> None:
    every, request_id = files(30), uuid7()
    first = await streamed(sue, every, request_id=request_id)
    again = await streamed(sue, every[:7], every[7:], request_id=request_id)
    assert again.name == first.name
    error = await refused(streamed(sue, every[:29], request_id=request_id))
    assert words.reason(error) == "REQUEST_ID_REUSED"
    assert (await rows(house))["transfer_job"] == 1


@pytest.mark.parametrize(
    ("parts", "header", "field"),
    [
        ([], {}, "files"),
        ([files(3)], {"file_count": 4}, "header.file_count"),
        ([files(3)], {"digest_sha256": "0" * 64}, "header.digest_sha256"),
        ([files(1200), files(1)], {}, "files[1200].target"),
        (
            [files(1100), [pb.FileTransfer(source="a", target="LFN:/local/x")]],
            {},
            "files[1100].source",
        ),
        ([files(2)], {"job": pb.TransferJob(files=files(1))}, "header.transfer_job.files"),
        ([files(2)], {"job": pb.TransferJob(priority=9)}, "header.transfer_job.priority"),
    ],
)
async def test_what_is_wrong_with_a_stream_is_named_and_nothing_is_stored(
    house: Any, sue: Any, words: Any, parts: Any, header: Any, field: str
) -> None:
    error = await refused(streamed(sue, *parts, **header))
    assert (error.code(), words.reason(error)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
    )
    assert field in words.violations(error)
    await nothing_left(house)


async def test_an_end_that_nothing_serves_is_named_by_its_place_in_the_whole_job(
    house: Any, sue: Any, words: Any
) -> None:
    lost = pb.FileTransfer(source="srm://nowhere/a", target="LFN:/local/x")
    error = await refused(streamed(sue, files(1300), [lost]))
    assert words.reason(error) == "NO_STORAGE_ELEMENT"
    assert list(words.violations(error)) == ["files[1300].source"]
    await nothing_left(house)


async def test_a_stream_begins_with_its_header_and_has_one(
    house: Any, sue: Any, words: Any
) -> None:
    async def without() -> AsyncIterator[rpc.SubmitTransferJobStreamRequest]:
        yield rpc.SubmitTransferJobStreamRequest(files=rpc.FileTransferChunk(files=files(1)))

    async def twice() -> AsyncIterator[rpc.SubmitTransferJobStreamRequest]:
        for _ in range(2):
            header = rpc.SubmitTransferJobHeader(transfer_job=pb.TransferJob(vo="local"))
            yield rpc.SubmitTransferJobStreamRequest(header=header)

    for requests in (without, twice):
        error = await refused(sue.jobs.SubmitTransferJobStream(requests()))
        assert list(words.violations(error)) == ["header"]


async def test_a_stream_that_is_only_checked_stores_nothing(house: Any, sue: Any) -> None:
    job = await streamed(sue, files(1500), validate_only=True)
    assert (job.name, job.file_count) == ("", 1500)
    assert not any((await rows(house)).values())


async def test_a_caller_who_leaves_in_the_middle_leaves_nothing(house: Any, sue: Any) -> None:
    staged = asyncio.Event()

    async def requests() -> AsyncIterator[rpc.SubmitTransferJobStreamRequest]:
        header = rpc.SubmitTransferJobHeader(transfer_job=pb.TransferJob(vo="local"))
        yield rpc.SubmitTransferJobStreamRequest(header=header)
        for part in range(2):
            chunk = rpc.FileTransferChunk(files=files(1000, part * 1000))
            yield rpc.SubmitTransferJobStreamRequest(files=chunk)
        async with asyncio.timeout(20):
            while not (await rows(house))["staged_job"]:
                await asyncio.sleep(0.02)
        staged.set()
        await asyncio.sleep(60)

    call = sue.jobs.SubmitTransferJobStream(requests())
    await staged.wait()
    listed = await sue.jobs.ListTransferJobs(rpc.ListTransferJobsRequest())
    assert not listed.transfer_jobs  # nothing is visible before
    call.cancel()
    await nothing_left(house)


async def test_a_large_job_is_cancelled_as_a_whole(house: Any, sue: Any, words: Any) -> None:
    job = await streamed(sue, files(1700))
    cancel = rpc.CancelTransferJobRequest(name=job.name, reason="wrong dataset")
    canceled = await sue.jobs.CancelTransferJob(cancel)
    assert len(canceled.files) == 1000
    later = rpc.CancelTransferJobRequest(name=job.name, reason="something else")
    await sue.jobs.CancelTransferJob(later)
    ended = await sue.ended(job.name, 60)
    counts = {one.state: one.count for one in ended.summary}
    assert sum(counts.values()) == 1700
    assert words.job(ended) == "CANCELED"
    rest = rpc.ListFileTransfersRequest(parent=job.name, filter="state = CANCELED", page_size=1000)
    told: list[str] = []
    while not told or rest.page_token:
        page = await sue.jobs.ListFileTransfers(rest)
        told += [file.failure.message for file in page.files]
        rest.page_token = page.next_page_token
    # The others were started before, and have failed: their sources are not there.
    assert len(told) == counts[pb.FILE_TRANSFER_STATE_CANCELED]
    assert set(told) == {"cancelled by sue: wrong dataset"}


async def test_a_large_job_that_is_old_goes_with_all_its_files(
    house: Any, sue: Any, words: Any
) -> None:
    moved = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    await sue.ended(moved.name)
    job = await streamed(sue, files(1200))
    await sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=job.name))
    await sue.ended(job.name, 60)
    parts = house.room._started
    retention = Retention(
        parts.db, parts.feed, every_s=3600, job_age=timedelta(0), event_age=timedelta(0)
    )
    assert await retention.prune() == 2
    parts.verbs.sweeps.noted()
    await nothing_left(house)


async def test_many_jobs_are_submitted_each_with_its_own_answer(
    house: Any, sue: Any, words: Any
) -> None:
    good = house.file("local/a")
    request_id = uuid7()

    def one(target: str, source: str = good, **fields: Any) -> rpc.SubmitTransferJobRequest:
        job = pb.TransferJob(files=[pb.FileTransfer(source=source, target=target)])
        return rpc.SubmitTransferJobRequest(transfer_job=job, **fields)

    requests = [
        one("LFN:/local/b", request_id=request_id),
        one("no name"),
        one("LFN:/local/b", source="srm://nowhere/a"),
        one("LFN:/other/b"),
        one("LFN:/local/c", validate_only=True),
        one("LFN:/local/d"),
    ]

    async def batch() -> Any:
        request = rpc.BatchSubmitTransferJobsRequest(requests=requests)
        return (await sue.jobs.BatchSubmitTransferJobs(request)).results

    results = await batch()
    codes = [one.status.code for one in results]
    invalid, denied = (
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        grpc.StatusCode.PERMISSION_DENIED.value[0],
    )
    assert codes[1:3] == [invalid, invalid]
    assert codes[3] in (invalid, denied)
    jobs = [one.transfer_job for one in results]
    assert [bool(job.name) for job in jobs] == [True, False, False, False, False, True]
    assert jobs[4].file_count == 1
    assert not jobs[0].files
    assert jobs[0].number
    await sue.ended(jobs[0].name)
    again = await batch()
    assert again[0].transfer_job.name == jobs[0].name
    assert again[0].transfer_job.state == pb.TRANSFER_JOB_STATE_FINISHED


async def test_a_batch_has_ten_thousand_files_at_most(house: Any, sue: Any, words: Any) -> None:
    job = pb.TransferJob(files=files(1000))
    requests = [rpc.SubmitTransferJobRequest(transfer_job=job)] * 11
    request = rpc.BatchSubmitTransferJobsRequest(requests=requests)
    error = await refused(sue.jobs.BatchSubmitTransferJobs(request))
    assert list(words.violations(error)) == ["requests"]
    assert not any((await rows(house)).values())


async def test_the_time_in_the_queue_is_counted_from_when_the_whole_job_is_there(
    house: Any, sue: Any
) -> None:
    given = pb.TransferJob(max_time_in_queue=Duration(seconds=1000))
    source = house.file("local/a")
    await set_idle(house)
    sue = house.client("sue")
    named = [pb.FileTransfer(source=source, target=f"LFN:/local/o{n}") for n in range(1100)]
    job = await streamed(sue, named, job=given)
    until = select(FILE.c.queue_until_us).where(FILE.c.state == int(FileState.READY))
    db = house.room._started.db
    async with asyncio.timeout(60):
        while len(found := await db.read(lambda conn: conn.execute(until).scalars().all())) < 1100:
            await asyncio.sleep(0.05)
    assert set(found) == {job.create_time.ToMicroseconds() + 1_000_000_000}


async def set_idle(house: Any) -> None:
    """Has nothing started from the next start on."""
    idle = update(CHANNEL).values(state=int(ChannelState.INACTIVE))
    await house.room._started.db.write(lambda conn: conn.execute(idle))
    await house.restart()
