"""Calls that are repeated with their request id after what they were judged by has changed: each is
answered with what it made, as that is now.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from gridlane.ids import uuid7
from gridlane.transfer.v1 import deletion_pb2, storage_admin_service_pb2, storage_ban_pb2
from gridlane.transfer.v1 import transfer_job_pb2 as pb
from gridlane.transfer.v1 import transfer_service_pb2 as rpc

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


async def ban(house: Any, element: str) -> None:
    """From now on nothing is taken in for an element."""
    given = storage_ban_pb2.StorageBan(action=storage_ban_pb2.BAN_ACTION_CANCEL, reason="broken")
    await house.client("admin").storage_admin.BanStorage(
        storage_admin_service_pb2.BanStorageRequest(
            parent=f"storageElements/{element}", storage_ban=given, request_id=uuid7()
        )
    )


def submission(source: str, target: str, request_id: str) -> rpc.SubmitTransferJobRequest:
    job = pb.TransferJob(files=[pb.FileTransfer(source=source, target=target)])
    return rpc.SubmitTransferJobRequest(transfer_job=job, request_id=request_id)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_job_whose_time_has_come_is_answered_again(house: Any, sue: Any) -> None:
    request = submission(house.file("local/a"), "LFN:/local/b", uuid7())
    ends = datetime.now(UTC) + timedelta(seconds=2)
    request.transfer_job.expire_time.FromDatetime(ends)
    first = await sue.jobs.SubmitTransferJob(request)
    async with asyncio.timeout(20):
        while datetime.now(UTC) <= ends:
            await asyncio.sleep(0.05)
    assert (await sue.jobs.SubmitTransferJob(request)).name == first.name
    request.request_id = uuid7()
    assert (await refused(sue.jobs.SubmitTransferJob(request))).code() is (
        grpc.StatusCode.INVALID_ARGUMENT
    )


async def test_jobs_of_a_batch_are_answered_again_though_their_target_is_banned(
    house: Any, sue: Any, words: Any
) -> None:
    target = (house.mirror / "local/a").as_uri()
    batch = rpc.BatchSubmitTransferJobsRequest(
        requests=[submission(house.file("local/a"), target, uuid7())]
    )
    (first,) = (await sue.jobs.BatchSubmitTransferJobs(batch)).results
    await ban(house, "mirror")
    other = submission(house.file("local/a"), f"{target}2", uuid7())
    again = await sue.jobs.BatchSubmitTransferJobs(
        rpc.BatchSubmitTransferJobsRequest(requests=[*batch.requests, other])
    )
    assert again.results[0].transfer_job.name == first.transfer_job.name
    assert again.results[1].status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


async def test_a_removal_is_answered_again_though_its_file_is_banned_or_anothers_by_now(
    house: Any, sue: Any, words: Any
) -> None:
    await sue.put("LFN:/local/a", b"one")
    request = rpc.SubmitDeletionJobRequest(
        files=[deletion_pb2.DeletionFile(file="LFN:/local/a")], request_id=uuid7()
    )
    job = await sue.ended((await sue.jobs.SubmitDeletionJob(request)).name)
    assert words.job(job) == "FINISHED"
    await house.client("admin").put("LFN:/local/a", b"two")
    assert (await sue.jobs.SubmitDeletionJob(request)).name == job.name
    await ban(house, "local")
    assert (await sue.jobs.SubmitDeletionJob(request)).name == job.name
    request.files.add(file="LFN:/local/b")
    error = await refused(sue.jobs.SubmitDeletionJob(request))
    assert words.reason(error) == "REQUEST_ID_REUSED"
