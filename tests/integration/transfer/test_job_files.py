"""Single files of jobs: got, listed by state, their attempts, cancelled; on both engines."""

from functools import partial
from itertools import pairwise
from typing import Any

import grpc
import pytest
from integration.transfer.failing_mover import fail
from sqlalchemy import func, select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2 as pb
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane.type.v1 import failure_pb2
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_transfer.channels.channels import ChannelState
from gridlane_transfer.states import FileState
from gridlane_transfer.store import sweeps
from gridlane_transfer.store.stranded import reroute
from gridlane_transfer.store.tables import CHANNEL, FILE

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
ISSUER = "https://issuer.test/"


def missing(house: Any, name: str = "none") -> str:
    url: str = (house.storage / "local" / name).as_uri()
    return url


async def attempts(client: Any, name: str, **page: Any) -> Any:
    return await client.jobs.ListFileAttempts(rpc.ListFileAttemptsRequest(parent=name, **page))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_file_is_got_by_its_name(house: Any, sue: Any, words: Any) -> None:
    job = await sue.submit(
        (house.file("local/a"), "LFN:/local/b"), (house.file("local/c"), "LFN:/local/d")
    )
    await sue.ended(job.name)
    name = f"{job.name}/files/2"
    found = await sue.jobs.GetFileTransfer(rpc.GetFileTransferRequest(name=name))
    assert (found.name, found.target) == (name, "LFN:/local/d")
    assert found.state == pb.FILE_TRANSFER_STATE_FINISHED
    assert found.backend == "transferBackends/embedded"
    assert found.throughput_bytes_per_second > 0
    for absent in (f"{job.name}/files/3", f"transfers/{uuid7()}/files/1"):
        error = await refused(sue.jobs.GetFileTransfer(rpc.GetFileTransferRequest(name=absent)))
        assert (error.code(), words.reason(error)) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    stranger = house.client("eve")
    error = await refused(stranger.jobs.GetFileTransfer(rpc.GetFileTransferRequest(name=name)))
    assert words.reason(error) == "NOT_FOUND"


async def test_each_start_of_a_file_is_told(house: Any, sue: Any) -> None:
    source = house.file("local/a")
    house.file("local", b"a file where a directory is to be", below=house.mirror)
    url = (house.mirror / "local" / "b").as_uri()
    job = await sue.submit((source, url), max_retries=1)
    ended = await sue.ended(job.name)
    name = f"{job.name}/files/1"
    told = list((await attempts(sue, name)).attempts)
    assert [one.attempt for one in told] == list(range(1, ended.files[0].attempt + 1))
    last = told[-1]
    assert last.name == f"{name}/attempts/{last.attempt}"
    assert last.outcome == ended.files[0].state == pb.FILE_TRANSFER_STATE_FAILED
    assert last.failure.failure_class == failure_pb2.FAILURE_CLASS_TARGET_UNWRITABLE
    assert last.channel == "channels/default"
    assert (last.source_url, last.target_url) == (source, url)
    assert last.source_storage_element == "storageElements/local"
    assert last.target_storage_element == "storageElements/mirror"
    assert (last.protocol, last.backend) == ("file", "transferBackends/embedded")
    assert last.start_time.ToMicroseconds() <= last.end_time.ToMicroseconds()


async def test_the_attempts_of_a_file_that_is_tried_again_come_in_pages_oldest_first(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"workers": 1, "stall_s": 3600.0})
    sue = house.client("sue")
    source = house.file("local/a", b"x" * 1000)
    job = await sue.submit((source, "LFN:/local/b"))
    await sue.ended(job.name)
    name = f"{job.name}/files/1"
    (only,) = (await attempts(sue, name)).attempts
    assert only.outcome == pb.FILE_TRANSFER_STATE_FINISHED
    assert only.transferred_bytes == 1000
    assert only.throughput_bytes_per_second > 0
    assert only.actual_checksum == words.adler32(b"x" * 1000)
    assert not only.HasField("failure")
    error = await refused(attempts(sue, name, page_token="AAAA"))
    assert words.reason(error) == "TOKEN_NOT_OURS"
    error = await refused(attempts(house.client("eve"), name))
    assert words.reason(error) == "NOT_FOUND"


async def test_files_are_listed_by_their_state(house: Any, sue: Any, words: Any) -> None:
    good = house.file("local/a")
    files = [(good if n % 2 else missing(house), f"LFN:/local/o{n}") for n in range(10)]
    job = await sue.submit(*files)
    await sue.ended(job.name)

    async def listed(state: str, token: str = "") -> Any:
        request = rpc.ListFileTransfersRequest(
            parent=job.name, filter=f'state = "{state}"', page_size=3, page_token=token
        )
        return await sue.jobs.ListFileTransfers(request)

    first = await listed("FAILED")
    second = await listed("FAILED", first.next_page_token)
    assert not second.next_page_token
    found = [int(file.name.rpartition("/")[2]) for file in (*first.files, *second.files)]
    assert found == [1, 3, 5, 7, 9]
    assert not (await listed("HELD")).files
    error = await refused(listed("FINISHED", first.next_page_token))
    assert words.reason(error) == "TOKEN_NOT_OURS"
    error = await refused(listed("ENDED"))
    assert words.reason(error) == "FILTER_UNSUPPORTED"


async def quiet(house: Any) -> None:
    """Have no files start."""
    channels = house.room._started.channels
    for channel in channels.all():
        object.__setattr__(channel, "state", ChannelState.INACTIVE)


def cancel(client: Any, parent: str, *names: str) -> Any:
    return client.jobs.CancelFileTransfers(
        rpc.CancelFileTransfersRequest(parent=parent, names=names)
    )


async def test_files_are_cancelled_one_by_one_and_the_others_go_on(
    house: Any, sue: Any, words: Any
) -> None:
    await quiet(house)
    files = [(house.file(f"local/{n}"), f"LFN:/local/o{n}") for n in range(3)]
    job = await sue.submit(*files)
    asked = (f"{job.name}/files/2", f"{job.name}/files/9", f"{job.name}/files/2")
    results = (await cancel(sue, job.name, *asked)).results
    assert [one.WhichOneof("result") for one in results] == ["file", "status", "file"]
    assert results[0].file.state == pb.FILE_TRANSFER_STATE_CANCELED
    assert results[0].file.failure.failure_class == failure_pb2.FAILURE_CLASS_CANCELED
    assert results[1].status.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert words.files(await sue.get(job.name)) == ["READY", "CANCELED", "READY"]
    again = (await cancel(sue, job.name, asked[0])).results
    assert again[0].file.state == pb.FILE_TRANSFER_STATE_CANCELED
    await cancel(sue, job.name, f"{job.name}/files/1", f"{job.name}/files/3")
    assert words.job(await sue.get(job.name)) == "CANCELED"


async def test_who_may_cancel_files(house: Any, sue: Any, words: Any) -> None:
    """The owner and managers of the VO; a manager of a channel those that lie there."""
    await quiet(house)
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    name = f"{job.name}/files/1"
    error = await refused(cancel(house.client("eve"), job.name, name))
    assert words.reason(error) == "NOT_FOUND"
    foreign = f"transfers/{uuid7()}/files/1"
    error = await refused(cancel(sue, job.name, foreign))
    assert list(words.violations(error)) == ["names[0]"]
    (channel,) = house.room._started.channels.all()
    manager = Binding(ISSUER, "bob", Role.CHANNEL_MANAGER, channel_uid=channel.uid)
    house.policy.replace(Policy(2, (*house.bindings, manager), vos=["local", "other"]))
    results = (await cancel(house.client("bob"), job.name, name)).results
    assert results[0].file.state == pb.FILE_TRANSFER_STATE_CANCELED


async def test_many_jobs_are_cancelled_each_with_its_own_answer(
    house: Any, sue: Any, words: Any
) -> None:
    await quiet(house)
    jobs = [await sue.submit((house.file("local/a"), f"LFN:/local/o{n}")) for n in range(3)]
    absent = f"transfers/{uuid7()}"
    names = [jobs[0].name, absent, jobs[2].name]
    request = rpc.BatchCancelTransferJobsRequest(names=names)
    results = (await sue.jobs.BatchCancelTransferJobs(request)).results
    assert [one.WhichOneof("result") for one in results] == [
        "transfer_job",
        "status",
        "transfer_job",
    ]
    assert results[0].transfer_job.state == pb.TRANSFER_JOB_STATE_CANCELED
    assert not results[0].transfer_job.files
    assert words.job(await sue.get(jobs[1].name)) == "READY"
    foreign = (await house.client("eve").jobs.BatchCancelTransferJobs(request)).results
    assert [one.status.code for one in foreign] == [grpc.StatusCode.NOT_FOUND.value[0]] * 3


async def test_what_a_job_has_moved_is_told_with_it(house: Any, sue: Any) -> None:
    content = b"x" * 5000
    files = [(house.file(f"local/{n}", content), f"LFN:/local/o{n}") for n in range(3)]
    known = pb.FileTransfer(source=files[0][0], target=files[0][1], size_bytes=5000)
    job = await sue.submit(known, *files[1:])
    assert (job.total_bytes, job.file_count) == (5000, 3)
    ended = await sue.ended(job.name)
    assert (ended.total_bytes, ended.transferred_bytes) == (15000, 15000)
    assert (ended.completeness_percent, ended.file_count) == (100, 3)
    assert ended.throughput_bytes_per_second > 0


async def test_a_job_whose_attempt_lost_its_process_tells_of_both(
    start_house: Any,
) -> None:
    house = await start_house(given={"workers": 1})
    sue = house.client("sue")
    content = b"x" * (256 << 20)
    job = await sue.submit((house.file("local/a", content), "LFN:/local/b"))
    await sue.in_state(job.name, "ACTIVE")
    await house.restart()
    sue = house.client("sue")
    await sue.ended(job.name, 60)
    told = list((await attempts(sue, f"{job.name}/files/1")).attempts)
    outcomes = [pb.FileTransferState.Name(one.outcome) for one in told]
    assert outcomes[-1] == "FILE_TRANSFER_STATE_FINISHED"
    if len(told) > 1:  # a quick machine is done before it is stopped
        assert told[0].failure.failure_class == failure_pb2.FAILURE_CLASS_BACKEND_LOST


async def test_no_transaction_cancels_more_files_than_a_large_job_has_in_one(
    house: Any, sue: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quiet(house)
    names = []
    for job in range(4):
        files = [("LFN:/local/none", f"LFN:/local/{job}-{n}") for n in range(sweeps.PAGE)]
        names.append((await sue.submit(*files)).name)
    db = house.room._started.db
    write, steps = db.write, [0]
    canceled = FILE.c.state == int(FileState.CANCELED)
    statement = select(func.count()).select_from(FILE).where(canceled)

    async def counted(fn: Any, **given: Any) -> Any:
        done = await write(fn, **given)
        steps.append(await db.read(lambda conn: conn.execute(statement).scalar()))
        return done

    monkeypatch.setattr(db, "write", counted)
    request = rpc.BatchCancelTransferJobsRequest(names=names)
    results = (await sue.jobs.BatchCancelTransferJobs(request)).results
    assert [words.job(one.transfer_job) for one in results] == ["CANCELED"] * 4
    assert steps[-1] == 4 * sweeps.PAGE
    assert max(after - before for before, after in pairwise(steps)) <= 2 * sweeps.PAGE


async def test_what_a_file_failed_of_is_told_wherever_it_waits(start_house: Any) -> None:
    """A file that is tried again is put on another channel when its own is removed."""
    house = await start_house(given={"retry_delay_s": 500.0})
    sue = house.client("sue")

    fail(house.room.mover)
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    await sue.in_state(job.name, "RETRYING")
    parts = house.room._started
    gone = update(CHANNEL).values(delete_us=1)
    await parts.db.write(lambda conn: conn.execute(gone))
    step = partial(reroute, feed=parts.feed, channels=parts.channels, elements=house.room._elements)
    assert await parts.db.write(step) == 1
    (file,) = (await sue.get(job.name)).files
    assert file.failure.message == "the worker went away"
