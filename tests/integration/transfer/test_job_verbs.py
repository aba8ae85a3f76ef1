"""Jobs tried again, summed up, explained, updated, and their held files; jobs that remove files."""

import asyncio
from typing import Any

import grpc
import pytest
from integration.transfer.failing_mover import fail, mend
from sqlalchemy import select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import deletion_pb2
from gridlane.transfer.v1 import staging_pb2 as staging
from gridlane.transfer.v1 import transfer_admin_service_pb2 as admin
from gridlane.transfer.v1 import transfer_job_pb2 as pb
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane.type.v1 import explanation_pb2, failure_pb2
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_transfer.channels.channels import ChannelState, ExhaustedAction
from gridlane_transfer.store.tables import AUDIT, CHANNEL

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
ISSUER = "https://issuer.test/"


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def set_channel(house: Any, **columns: Any) -> None:
    """Have the channel be another one from the next start on."""
    await house.room._started.db.write(lambda conn: conn.execute(update(CHANNEL).values(**columns)))
    await house.restart()


async def audited(house: Any) -> list[Any]:
    """The audit, oldest first."""
    rows = await house.room._started.db.read(
        lambda conn: conn.execute(select(AUDIT).order_by(AUDIT.c.uid)).all()
    )
    return list(rows)


def retry(client: Any, name: str, *files: str, **fields: Any) -> Any:
    return client.jobs.RetryTransferJob(
        rpc.RetryTransferJobRequest(name=name, files=files, **fields)
    )


async def partly_failed(house: Any, sue: Any) -> Any:
    """A job of four files of which the second and the fourth have no source."""
    lost = (house.storage / "local").as_uri()
    sources = [house.file(f"local/{n}") if n % 2 else f"{lost}/{n}" for n in range(1, 5)]
    files = [(source, f"LFN:/local/o{n}") for n, source in enumerate(sources, 1)]
    return await sue.ended((await sue.submit(*files, tags={"campaign": "one"}, priority=5)).name)


async def test_what_failed_is_tried_again_as_a_new_job(house: Any, sue: Any, words: Any) -> None:
    job = await partly_failed(house, sue)
    assert words.job(job) == "PARTIALLY_FINISHED"
    for n in (2, 4):
        house.file(f"local/{n}")
    request_id = uuid7()
    new = await retry(sue, job.name, request_id=request_id)
    assert new.retry_of == job.name
    assert (new.tags["campaign"], new.priority) == ("one", 5)
    assert [file.target for file in new.files] == ["LFN:/local/o2", "LFN:/local/o4"]
    assert words.job(await sue.ended(new.name)) == "FINISHED"
    assert (await retry(sue, job.name, request_id=request_id)).name == new.name
    assert words.job(await sue.get(job.name)) == "PARTIALLY_FINISHED"  # what is final stays


async def test_what_cannot_be_tried_again(house: Any, sue: Any, words: Any) -> None:
    job = await partly_failed(house, sue)
    error = await refused(retry(sue, job.name, f"{job.name}/files/1"))
    assert words.reason(error) == "ILLEGAL_TRANSITION"
    error = await refused(retry(sue, job.name, f"{job.name}/files/9"))
    assert words.reason(error) == "NOT_FOUND"
    error = await refused(retry(sue, job.name, f"transfers/{uuid7()}/files/1"))
    assert list(words.violations(error)) == ["files[0]"]
    error = await refused(retry(house.client("eve"), job.name))
    assert words.reason(error) == "NOT_FOUND"
    new = await retry(sue, job.name, f"{job.name}/files/4")
    assert [file.target for file in new.files] == ["LFN:/local/o4"]
    good = await sue.ended((await sue.submit((house.file("local/a"), "LFN:/local/b"))).name)
    error = await refused(retry(sue, good.name))
    assert (error.code(), words.reason(error)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ILLEGAL_TRANSITION",
    )


async def test_a_manager_tries_again_in_the_owners_name(house: Any, sue: Any) -> None:
    job = await partly_failed(house, sue)
    new = await retry(house.client("max"), job.name, reason="the disk is back")
    assert new.owner.subject == "sue"
    (entry,) = await audited(house)
    assert (entry.actor, entry.resource, entry.reason) == ("max", job.name, "the disk is back")
    veto = Binding(ISSUER, "sue", Role.VETOED)
    house.policy.replace(Policy(2, (*house.bindings, veto), vos=["local", "other"]))
    error = await refused(retry(house.client("max"), job.name))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def summary(client: Any, text: str = "", **fields: Any) -> Any:
    return client.jobs.SummarizeTransferJobs(
        rpc.SummarizeTransferJobsRequest(filter=text, **fields)
    )


async def test_jobs_are_summed_up_as_they_would_be_listed(house: Any, sue: Any) -> None:
    jobs = [await partly_failed(house, sue) for _ in range(2)]
    good = await sue.ended((await sue.submit((house.file("local/a"), "LFN:/local/b"))).name)
    told = await summary(sue)
    assert (told.job_count, told.file_count, told.completeness_percent) == (3, 9, 100)
    assert {one.state: one.count for one in told.jobs} == {
        pb.TRANSFER_JOB_STATE_FAILED: 1,  # of the second, all targets are there
        pb.TRANSFER_JOB_STATE_PARTIALLY_FINISHED: 1,
        pb.TRANSFER_JOB_STATE_FINISHED: 1,
    }
    assert {one.state: one.count for one in told.files} == {
        pb.FILE_TRANSFER_STATE_FINISHED: 3,
        pb.FILE_TRANSFER_STATE_FAILED: 6,
    }
    first = told.failures[0]
    assert first.failure_class == failure_pb2.FAILURE_CLASS_SOURCE_MISSING
    assert first.count == 4
    assert list(first.examples) == [
        f"{jobs[job].name}/files/{n}" for job, n in ((1, 4), (1, 2), (0, 4), (0, 2))
    ]
    assert told.transferred_bytes == told.total_bytes == 3 * len(b"gridlane\n")
    for asked, count in (
        ('state = "FINISHED"', 1),
        ('vo = "local"', 3),
        (f'name = "{good.name}"', 1),
        ('vo = "other"', 0),
    ):
        assert (await summary(sue, asked)).job_count == count, asked
    assert (await summary(house.client("max"))).job_count == 3
    assert (await summary(house.client("eve"))).job_count == 0
    assert (await summary(house.client("eve"), f'name = "{good.name}"')).job_count == 0


async def test_a_summary_of_a_time(house: Any, sue: Any) -> None:
    first = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    second = await sue.submit((house.file("local/a"), "LFN:/local/c"))
    window = {"start_time": first.create_time, "end_time": second.create_time}
    assert (await summary(sue, window=window)).job_count == 1
    assert (await summary(sue, window={"start_time": first.create_time})).job_count == 2
    assert (await summary(sue, window={"end_time": first.create_time})).job_count == 0


async def test_a_vetoed_callers_sums_are_nothing(house: Any, sue: Any, words: Any) -> None:
    await sue.ended((await sue.submit((house.file("local/a"), "LFN:/local/b"))).name)
    veto = Binding(ISSUER, "sue", Role.VETOED)
    house.policy.replace(Policy(2, (*house.bindings, veto), vos=["local", "other"]))
    assert (await summary(sue)).job_count == 0
    error = await refused(summary(sue, 'color = "red"'))
    assert words.reason(error) == "FILTER_UNSUPPORTED"


async def explained(client: Any, name: str, **page: Any) -> Any:
    return await client.jobs.ExplainTransferJob(rpc.ExplainTransferJobRequest(name=name, **page))


def reasons(file: Any) -> list[str]:
    return [
        explanation_pb2.WaitReason.Name(one.reason).removeprefix("WAIT_REASON_")
        for one in file.explanations
    ]


async def test_what_waits_for_a_channel_that_is_switched_off_says_so(house: Any) -> None:
    await set_channel(house, state=int(ChannelState.INACTIVE))
    sue = house.client("sue")
    files = [(house.file("local/a"), "LFN:/local/b"), ("LFN:/local/none", "LFN:/local/c")]
    job = await sue.submit(*files)
    first, second = (await explained(sue, job.name)).files
    assert (first.file, first.state) == (f"{job.name}/files/1", pb.FILE_TRANSFER_STATE_READY)
    assert reasons(first) == ["CHANNEL_INACTIVE"]
    assert first.explanations[0].resource == "channels/default"
    assert first.explanations[0].cure
    assert first.explanations[0].since_time == job.create_time
    assert reasons(second) == ["CHANNEL_INACTIVE", "NO_REPLICA"]
    page = await explained(sue, job.name, page_size=1)
    assert page.next_page_token
    rest = await explained(sue, job.name, page_size=1, page_token=page.next_page_token)
    assert [one.file for one in rest.files] == [second.file]


async def test_what_is_tried_again_later_says_when(start_house: Any, words: Any) -> None:
    house = await start_house(given={"retry_delay_s": 500.0})
    sue = house.client("sue")
    fail(house.room.mover)
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    await sue.in_state(job.name, "RETRYING")
    (told,) = (await explained(sue, job.name)).files
    assert reasons(told) == ["RETRY_DELAY"]
    assert "the worker went away" in told.explanations[0].message
    (file,) = (await sue.get(job.name)).files
    assert told.explanations[0].expected_time == file.next_attempt_time
    mend(house.room.mover)
    await sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=job.name))
    assert not (await explained(sue, job.name)).files  # nothing of it waits
    error = await refused(explained(house.client("eve"), job.name))
    assert words.reason(error) == "NOT_FOUND"


async def test_a_full_channel_and_a_lost_right(house: Any) -> None:
    await set_channel(house, max_files=1)
    sue = house.client("sue")
    big = house.file("local/big", b"x" * (300 << 20))
    files = [(big, f"LFN:/local/o{n}") for n in range(3)]
    job = await sue.submit(*files)
    async with asyncio.timeout(20):
        while True:
            told = (await explained(sue, job.name)).files
            if len(told) == 2:
                break
            await asyncio.sleep(0.01)
    assert reasons(told[-1])[0] == "CHANNEL_FULL"
    assert "1 of 1 files are active" in told[-1].explanations[0].message
    veto = Binding(ISSUER, "sue", Role.VETOED)
    house.policy.replace(Policy(2, (*house.bindings, veto), vos=["local", "other"]))
    manager = house.client("max")
    async with asyncio.timeout(20):
        while True:
            told = (await explained(manager, job.name)).files
            if not told or reasons(told[-1])[0] == "PERMISSION_LOST":
                break
            await asyncio.sleep(0.01)


async def held_job(house: Any) -> Any:
    """A job with a held file and one that is finished."""
    await set_channel(house, on_exhausted=int(ExhaustedAction.HOLD))
    sue = house.client("sue")
    source = house.file("local/a", b"x")
    fail(house.room.mover)
    job = await sue.submit((source, "LFN:/local/b"), max_retries=0)
    await sue.in_state(job.name, "HELD")
    return job


async def test_held_files_are_let_go_with_all_their_retries(house: Any, words: Any) -> None:
    job = await held_job(house)
    sue = house.client("sue")
    (told,) = (await explained(sue, job.name)).files
    assert reasons(told) == ["HELD"]
    error = await refused(release(sue, job.name))
    assert words.reason(error) == "PERMISSION_DENIED"  # an owner who manages nothing
    error = await refused(release(house.client("eve"), job.name))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    mend(house.room.mover)
    manager = house.client("max")
    done = await release(manager, job.name, reason="mended")
    assert done.released_files == 1
    assert words.job(await sue.ended(job.name)) == "FINISHED"
    again = await release(manager, job.name)
    assert (again.released_files, words.job(again.transfer_job)) == (0, "FINISHED")
    first, *_ = await audited(house)
    assert (first.actor, first.resource, first.vo, first.reason) == (
        "max",
        job.name,
        "local",
        "mended",
    )


def release(client: Any, name: str, *files: str, **fields: Any) -> Any:
    return client.admin.ReleaseHeldFiles(
        admin.ReleaseHeldFilesRequest(name=name, files=files, **fields)
    )


async def test_held_files_are_given_up(house: Any, words: Any) -> None:
    job = await held_job(house)
    manager = house.client("max")
    wrong = admin.FailHeldFilesRequest(name=job.name, files=[f"transfers/{uuid7()}/files/1"])
    error = await refused(manager.admin.FailHeldFiles(wrong))
    assert list(words.violations(error)) == ["files[0]"]
    request = admin.FailHeldFilesRequest(name=job.name, files=[f"{job.name}/files/1"])
    done = await manager.admin.FailHeldFiles(request)
    assert (done.failed_files, words.job(done.transfer_job)) == (1, "FAILED")
    ended = await house.client("sue").get(job.name)
    assert words.failure(ended) == "BACKEND_LOST"  # what it was held for


def changed(client: Any, name: str, paths: Any = (), revision: int = 0, **fields: Any) -> Any:
    request = admin.UpdateTransferJobRequest(
        transfer_job=pb.TransferJob(name=name, **fields), revision=revision, reason="urgent"
    )
    request.update_mask.paths.extend(paths)
    return client.admin.UpdateTransferJob(request)


async def test_a_manager_changes_the_priority_of_what_has_not_started(
    house: Any, words: Any
) -> None:
    await set_channel(house, state=int(ChannelState.INACTIVE))
    sue, manager = house.client("sue"), house.client("max")
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    after = await changed(manager, job.name, priority=5)
    assert (after.priority, after.revision, len(after.files)) == (5, 1, 0)
    error = await refused(changed(manager, job.name, revision=7, priority=1))
    assert words.reason(error) == "REVISION_CONFLICT"
    again = await changed(manager, job.name, ["priority"], revision=1)
    assert (again.priority, again.revision) == (3, 2)  # named and not set: its default
    error = await refused(changed(manager, job.name, ["tags"]))
    assert list(words.violations(error)) == ["update_mask"]
    error = await refused(changed(sue, job.name, priority=1))
    assert words.reason(error) == "PERMISSION_DENIED"
    entries = await audited(house)
    assert [entry.reason for entry in entries] == ["urgent", "urgent"]
    await sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=job.name))
    error = await refused(changed(manager, job.name, priority=1))
    assert words.reason(error) == "ILLEGAL_TRANSITION"


async def test_an_activity_is_changed_with_the_files_that_have_one(house: Any) -> None:
    await set_channel(house, state=int(ChannelState.INACTIVE))
    sue = house.client("sue")
    file = pb.FileTransfer(
        source=house.file("local/a"), target="LFN:/local/b", activity="production"
    )
    job = await sue.submit(file, activity="tests")
    after = await changed(house.client("max"), job.name, activity="urgent")
    assert after.activity == "urgent"
    (file,) = (await sue.get(job.name)).files
    assert file.activity in ("", "urgent")


def removal(client: Any, *names: str, **fields: Any) -> Any:
    files = [deletion_pb2.DeletionFile(file=name) for name in names]
    return client.jobs.SubmitDeletionJob(rpc.SubmitDeletionJobRequest(files=files, **fields))


async def test_files_are_removed_with_their_registrations(house: Any, sue: Any, words: Any) -> None:
    for name in ("a", "b"):
        await sue.put(f"LFN:/local/{name}", b"content")
    names = ["LFN:/local/a", "LFN:/local/b", "LFN:/local/gone"]
    job = await removal(sue, *names, tags={"x": "y"})
    assert job.kind == pb.TRANSFER_JOB_KIND_DELETION
    assert [file.source for file in job.files] == names
    assert not any(file.target for file in job.files)
    ended = await sue.ended(job.name)
    assert words.job(ended) == "FINISHED"
    assert not (house.storage / "local" / "a").exists()
    with pytest.raises(grpc.aio.AioRpcError):
        await sue.read("LFN:/local/a")
    attempts = await sue.jobs.ListFileAttempts(
        rpc.ListFileAttemptsRequest(parent=f"{job.name}/files/1")
    )
    assert [one.outcome for one in attempts.attempts] == [pb.FILE_TRANSFER_STATE_FINISHED]


async def test_whose_files_may_be_removed(house: Any, sue: Any, words: Any) -> None:
    await sue.put("LFN:/local/a", b"content")
    for foreign in (
        removal(house.client("eve"), "LFN:/local/a", vo="other"),
        removal(house.client("eve"), "LFN:/local/absent", vo="other"),
    ):
        error = await refused(foreign)
        assert words.reason(error) == "PERMISSION_DENIED"
        assert "a" not in words.info(error).metadata.get("resource", "")
    error = await refused(removal(sue, "LFN:/local/a", "LFN:/local/a"))
    assert list(words.violations(error)) == ["files[1].file"]
    error = await refused(removal(sue, "srm://nowhere/a"))
    assert words.reason(error) == "NO_STORAGE_ELEMENT"
    error = await refused(removal(sue, "LFN:/local/a", spacetoken="tape"))
    assert words.reason(error) == "CAPABILITY_MISSING"
    request_id = uuid7()
    job = await removal(house.client("max"), "LFN:/local/a", request_id=request_id)
    assert words.job(await sue_sees(house, job.name)) == "FINISHED"
    again = await removal(house.client("max"), "LFN:/local/a", request_id=request_id)
    assert again.name == job.name


async def sue_sees(house: Any, name: str) -> Any:
    return await house.client("max").ended(name)


async def test_what_is_there_in_nobodys_name_is_the_managers_to_remove(
    house: Any, sue: Any, words: Any
) -> None:
    house.file("local/loose")
    job = await sue.ended((await removal(sue, "LFN:/local/loose")).name)
    assert words.failure(job) == "PERMISSION"
    assert (house.storage / "local" / "loose").exists()
    manager = house.client("max")
    done = await manager.ended((await removal(manager, "LFN:/local/loose")).name)
    assert words.job(done) == "FINISHED"
    assert not (house.storage / "local" / "loose").exists()


async def test_nothing_stages(house: Any, sue: Any, words: Any) -> None:
    request = rpc.SubmitStagingJobRequest(files=[staging.StagingFile(source="LFN:/local/a")])
    error = await refused(sue.jobs.SubmitStagingJob(request))
    assert words.reason(error) == "CAPABILITY_MISSING"
    assert words.info(error).metadata["capability"] == "STAGING"
    assert list(words.violations(error)) == ["files[0].source"]
