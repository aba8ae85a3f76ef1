"""What is accepted, what is refused with every violation named, and who may."""

import asyncio
from typing import Any

import grpc
import pytest

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane.type.v1 import checksum_pb2


async def refused(client: Any, *files: Any, **fields: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        await client.submit(*files, **fields)
    return raised.value


async def stored(client: Any) -> int:
    answer = await client.jobs.ListTransferJobs(transfer_service_pb2.ListTransferJobsRequest())
    return len(answer.transfer_jobs)


async def test_an_end_that_nothing_serves_is_named_and_nothing_is_stored(
    house: Any, sue: Any, words: Any
) -> None:
    good = house.file("local/a")
    for source, target, field in (
        ("srm://elsewhere/a", "LFN:/local/b", "source"),
        ("file:///etc/passwd", "LFN:/local/b", "source"),
        (good, "LFN:/nowhere/b", "target"),
        (good, (house.jobs / "x").as_uri(), "target"),
        (f"{house.storage.as_uri()}/local/../../transfer.sqlite", "LFN:/local/b", "source"),
        (f"{house.storage.as_uri()}/local/%2e%2e/%2e%2e/transfer.sqlite", "LFN:/local/b", "source"),
        (good, "LFN:/local/../b", "target"),
        (good, "LFN:/local/b/", "target"),
        (f"{house.storage.as_uri()}/elsewhere/a", "LFN:/local/b", "source"),
    ):
        error = await refused(sue, (good, "LFN:/local/fine"), (source, target))
        assert words.reason(error) == "NO_STORAGE_ELEMENT", (source, target)
        assert set(words.violations(error)) == {f"transfer_job.files[1].{field}"}
    assert await stored(sue) == 0


async def test_each_violation_is_named(house: Any, sue: Any, words: Any) -> None:
    a, e = house.file("local/a"), house.file("local/e")
    file = transfer_job_pb2.FileTransfer
    crc = checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_CRC32C, value="0" * 8)
    error = await refused(
        sue,
        (a, a),
        (e, "LFN:/local/e"),
        ("LFN:/local/x", "LFN:/local/x"),
        (a, "LFN:/local/b"),
        (a, (house.storage / "local/b").as_uri()),
        file(source=a, target="LFN:/local/c", checksum=crc),
    )
    assert words.violations(error) == {
        "transfer_job.files[0].target": "is the source",
        "transfer_job.files[1].target": "is the source",
        "transfer_job.files[2].target": "is the source",
        "transfer_job.files[4].target": "is the target of another file of the job",
        "transfer_job.files[5].checksum.type": (
            "CRC32C is not computed here: ADLER32, MD5, SHA1, SHA256 are"
        ),
    }
    error = await refused(
        sue,
        file(source=a, target="LFN:/local/c", checksum=words.adler32(b"")),
        verify=transfer_job_pb2.VERIFY_MODE_NONE,
    )
    assert set(words.violations(error)) == {"transfer_job.files[0].checksum"}
    assert await stored(sue) == 0


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_the_same_request_id_answers_the_same_job(house: Any, sue: Any, words: Any) -> None:
    file = (house.file("local/a"), "LFN:/local/b")
    request_id = uuid7()
    answers = await asyncio.gather(*(sue.submit(file, request_id=request_id) for _ in range(5)))
    assert len({job.name for job in answers}) == 1
    assert await stored(sue) == 1
    error = await refused(sue, (file[0], "LFN:/local/c"), request_id=request_id)
    assert words.reason(error) == "REQUEST_ID_REUSED"
    error = await refused(sue, file, request_id="01800000-0000-7000-8000-000000000000")
    assert words.reason(error) == "REQUEST_ID_TOO_OLD"
    other = await house.client("admin").submit(file, request_id=request_id)
    assert other.name != answers[0].name


async def test_validate_only_stores_nothing(house: Any, sue: Any) -> None:
    job = transfer_job_pb2.TransferJob(
        files=[transfer_job_pb2.FileTransfer(source=house.file("local/a"), target="LFN:/local/b")]
    )
    await sue.jobs.SubmitTransferJob(
        transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job, validate_only=True)
    )
    assert await stored(sue) == 0


async def test_output_fields_of_a_description_are_ignored(house: Any, sue: Any) -> None:
    file = transfer_job_pb2.FileTransfer(
        source=house.file("local/a"),
        target="LFN:/local/b",
        state=transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED,
        attempt=7,
        channel="channels/mine",
    )
    job = await sue.submit(file, number=5, trace_id="x" * 32)
    assert (job.files[0].state, job.files[0].attempt, job.files[0].channel) == (
        transfer_job_pb2.FILE_TRANSFER_STATE_READY,
        0,
        "channels/default",
    )
    assert job.number == 1
    assert not job.HasField("max_retries")  # the channel says
    assert job.priority == 3
    assert job.owner.subject == "sue"
    assert len(job.trace_id) == 32
    assert job.trace_id != "x" * 32


async def test_only_submitters_of_the_vo_submit(house: Any, words: Any) -> None:
    file = (house.file("local/a"), "LFN:/local/b")
    for user, reason in (("bob", "PERMISSION_DENIED"), ("eve", "PERMISSION_DENIED")):
        assert words.reason(await refused(house.client(user), file)) == reason
    assert words.reason(await refused(house.client("sue"), file, vo="other")) == "PERMISSION_DENIED"


async def test_a_token_s_paths_narrow_what_may_be_moved(house: Any, words: Any) -> None:
    a, b = house.file("local/in/a"), house.file("local/private/b")
    narrow = house.client("sue", scopes=["storage.read:/local/in", "storage.create:/local/out"])
    job = await narrow.submit((a, "LFN:/local/out/a"))
    assert words.job(await house.client("sue").ended(job.name)) == "FINISHED"
    for file, fields in (
        ((b, "LFN:/local/out/b"), {}),
        ((a, "LFN:/local/outer/b"), {}),
        ((a, "LFN:/local/out/c"), {"overwrite": transfer_job_pb2.OVERWRITE_MODE_ALWAYS}),
    ):
        error = await refused(narrow, file, **fields)
        assert words.reason(error) == "SCOPE_TOO_NARROW"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_thousand_files_are_one_job(house: Any, sue: Any) -> None:
    source = house.file("local/a")
    job = await sue.submit(
        *((source, f"LFN:/local/o/{n}") for n in range(1000)), priority=5, vo="local"
    )
    assert [file.name for file in job.files] == [f"{job.name}/files/{n}" for n in range(1, 1001)]
    assert len({file.number for file in job.files}) == 1000
    await sue.jobs.CancelTransferJob(transfer_service_pb2.CancelTransferJobRequest(name=job.name))
    await sue.ended(job.name)


async def test_only_the_workload_service_ties_a_transfer_to_a_job(
    house: Any, sue: Any, words: Any
) -> None:
    file = (house.file("local/a"), "LFN:/local/b")
    for user in ("sue", "admin"):
        tags = {"gridlane.job": "somebody's", "gridlane.x": "", "gridlane": "", "run": "7"}
        error = await refused(house.client(user), file, tags=tags)
        assert words.reason(error) == "INVALID_FIELDS"
        assert set(words.violations(error)) == {
            "transfer_job.tags[gridlane.job]",
            "transfer_job.tags[gridlane.x]",
        }
    assert await stored(sue) == 0
    job = await house.submit_for("sue", file, tags={"gridlane.job": "hers"})
    assert (await sue.get(job.name)).tags["gridlane.job"] == "hers"
