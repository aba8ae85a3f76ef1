"""Files move through a real server and real worker processes: what arrives, and what is told of
it.
"""

import hashlib
from itertools import pairwise
from typing import Any

import pytest

from gridlane.ids import uuid7
from gridlane.transfer.v1 import replica_service_pb2, transfer_job_pb2
from gridlane.type.v1 import checksum_pb2

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


@pytest.fixture
def mover() -> dict[str, int]:
    """The mover as it is by default: two processes."""
    return {}


CONTENT = b"co2,temperature\n" * 5000


async def test_a_file_arrives_whole_and_every_step_is_told(
    house: Any, sue: Any, words: Any
) -> None:
    source = house.file("local/in/co2.csv", CONTENT)
    target = "LFN:/local/out/co2.csv"
    submitted = await house.submit_for("sue", (source, target), tags={"gridlane.job": "j1"})
    assert (words.job(submitted), words.files(submitted)) == ("READY", ["READY"])
    job = await sue.ended(submitted.name)
    assert words.job(job) == "FINISHED"
    assert (house.storage / "local/out/co2.csv").read_bytes() == CONTENT
    file = job.files[0]
    assert file.actual_checksum == words.adler32(CONTENT)
    assert (file.transferred_bytes, file.attempt) == (len(CONTENT), 1)
    assert (file.source_url, file.target_url) == (
        source,
        (house.storage / "local/out/co2.csv").as_uri(),
    )
    assert (file.channel, file.protocol) == ("channels/default", "file")
    assert file.source_storage_element == file.target_storage_element == "storageElements/local"
    assert file.number > 0
    assert file.end_time.ToMicroseconds() >= file.start_time.ToMicroseconds() > 0
    assert [(one.state, one.count) for one in job.summary] == [
        (transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED, 1)
    ]
    assert await sue.history(job.name) == [
        "job READY",
        "file ACTIVE",
        "job ACTIVE",
        "file FINISHED",
        "job FINISHED",
    ]
    assert house.leftovers() == []


async def test_placement_registers_the_replica_when_the_bytes_are_there(
    house: Any, sue: Any
) -> None:
    source = house.file("local/a", CONTENT)
    job = await sue.submit((source, "LFN:/local/placed"), placement=True)
    await sue.ended(job.name)
    answer = await sue.replicas.ResolveReplicas(
        replica_service_pb2.ResolveReplicasRequest(lfns=["LFN:/local/placed"])
    )
    (replica,) = answer.results[0].file.replicas
    assert replica.url == (house.storage / "local/placed").as_uri()
    assert answer.results[0].file.size_bytes == len(CONTENT)
    history = await sue.history(job.name)
    assert history[-3:] == ["file REGISTERING", "file FINISHED", "job FINISHED"]


async def test_a_logical_source_is_verified_against_the_catalogue(
    house: Any, sue: Any, words: Any
) -> None:
    await sue.put("LFN:/local/data", CONTENT)
    good = await sue.ended((await sue.submit(("LFN:/local/data", "LFN:/local/copy"))).name)
    assert words.job(good) == "FINISHED"
    (house.storage / "local/data").write_bytes(CONTENT[:-1] + b"!")
    bad = await sue.ended((await sue.submit(("LFN:/local/data", "LFN:/local/copy2"))).name)
    assert (words.job(bad), words.failure(bad)) == ("FAILED", "CHECKSUM_MISMATCH")
    assert not (house.storage / "local/copy2").exists()


async def test_the_next_replica_is_taken_when_one_is_missing(
    house: Any, sue: Any, words: Any
) -> None:
    await sue.put("LFN:/local/data", CONTENT)
    mirrored = (house.mirror / "local/data").as_uri()
    first = await sue.submit(("LFN:/local/data", mirrored), placement=True)
    assert words.job(await sue.ended(first.name)) == "FINISHED"
    (house.storage / "local/data").unlink()
    job = await sue.ended((await sue.submit(("LFN:/local/data", "LFN:/local/again"))).name)
    assert words.job(job) == "FINISHED"
    assert job.files[0].source_url == mirrored
    assert job.files[0].attempt == 1


async def test_every_checksum_that_is_offered_is_computed(house: Any, sue: Any, words: Any) -> None:
    source = house.file("local/a", CONTENT)
    for name, make in (("MD5", hashlib.md5), ("SHA1", hashlib.sha1), ("SHA256", hashlib.sha256)):
        number = checksum_pb2.ChecksumType.Value(f"CHECKSUM_TYPE_{name}")
        checksum = checksum_pb2.Checksum(type=number, value=make(CONTENT).hexdigest())
        target = f"LFN:/local/{name}"
        file = transfer_job_pb2.FileTransfer(source=source, target=target, checksum=checksum)
        job = await sue.ended((await sue.submit(file)).name)
        assert words.job(job) == "FINISHED"
        assert job.files[0].actual_checksum == checksum


async def test_many_files_of_one_job_move_and_some_may_fail(
    house: Any, sue: Any, words: Any
) -> None:
    files = [
        (house.file(f"local/in/{n}", str(n).encode()), f"LFN:/local/out/{n}") for n in range(30)
    ]
    files[7] = ((house.storage / "local/in/none").as_uri(), "LFN:/local/out/7")
    job = await sue.ended((await sue.submit(*files)).name)
    assert words.job(job) == "PARTIALLY_FINISHED"
    assert words.files(job).count("FINISHED") == 29
    assert words.failure(job, 7) == "SOURCE_MISSING"
    assert job.failure == job.files[7].failure
    for n in set(range(30)) - {7}:
        assert (house.storage / f"local/out/{n}").read_bytes() == str(n).encode()


async def test_at_most_as_many_files_run_as_the_channel_allows(start_house: Any) -> None:
    house = await start_house(given={"max_files": 1, "workers": 2})
    sue = house.client("sue")
    files = [(house.file(f"local/{n}", CONTENT), f"LFN:/local/o{n}") for n in range(12)]
    job = await sue.ended((await sue.submit(*files)).name)
    spans = sorted(
        (file.start_time.ToMicroseconds(), file.end_time.ToMicroseconds()) for file in job.files
    )
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


async def test_a_workload_stages_into_a_job_directory_but_a_user_does_not(
    house: Any, sue: Any, words: Any
) -> None:
    from gridlane.transfer.v1 import transfer_service_pb2

    source = house.file("local/in", CONTENT)
    target = (house.jobs / "0192/1/in put.csv").as_uri()
    request = transfer_service_pb2.SubmitTransferJobRequest(
        transfer_job=transfer_job_pb2.TransferJob(
            vo="local",
            files=[transfer_job_pb2.FileTransfer(source=source, target=target)],
            overwrite=transfer_job_pb2.OVERWRITE_MODE_ALWAYS,
        ),
        request_id=uuid7(),
    )
    stub = house.peers.transfer_jobs(house.caller("sue"))
    job = await stub.SubmitTransferJob(request)
    again = await stub.SubmitTransferJob(request)
    assert again.name == job.name
    assert words.job(await sue.ended(job.name)) == "FINISHED"
    assert (house.jobs / "0192/1/in put.csv").read_bytes() == CONTENT


async def test_a_copy_is_a_span_linked_to_the_call_that_asked_for_it(house: Any, sue: Any) -> None:
    job = await house.submit_for(
        "sue", (house.file("local/a"), "LFN:/local/b"), tags={"gridlane.job": "0192-job"}
    )
    await sue.ended(job.name)
    (span,) = [span for span in house.spans if span.name == "transfer.copy"]
    assert span.attributes["gridlane.job.id"] == "0192-job"
    assert [f"{trace:032x}" for trace, _ in span.links] == [job.trace_id]
