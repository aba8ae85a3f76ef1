"""Bad descriptions: each violation is named with its field, and nothing is stored."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane.type.v1 import checksum_pb2

File, Job = transfer_job_pb2.FileTransfer, transfer_job_pb2.TransferJob
BOTH = transfer_job_pb2.VERIFY_MODE_BOTH
WHEN_DIFFERENT = transfer_job_pb2.OVERWRITE_MODE_WHEN_DIFFERENT
A, B = "LFN:/local/a", "LFN:/local/b"
ADLER = checksum_pb2.CHECKSUM_TYPE_ADLER32
GUID = "0192aaaa-0000-7000-8000-00000000000a"


def at(path: str) -> str:
    """A URL below the storage of the server, which is known when the test runs."""
    return f"<storage>{path}"


URLS = [
    # What is no URL.
    ("", "INVALID_FIELDS"),
    ("local/a", "INVALID_FIELDS"),
    ("/local/a", "INVALID_FIELDS"),
    ("://local/a", "INVALID_FIELDS"),
    ("1ile:///local/a", "INVALID_FIELDS"),
    ("file:", "INVALID_FIELDS"),
    ("file:///a\nb", "INVALID_FIELDS"),
    ("file:///a\x00b", "INVALID_FIELDS"),
    ("LFN:/local/a\x1f", "INVALID_FIELDS"),
    ("file:///" + "a" * 1024, "INVALID_FIELDS"),
    # What no storage element serves.
    ("srm://elsewhere/a", "NO_STORAGE_ELEMENT"),
    ("gsiftp://elsewhere/a", "NO_STORAGE_ELEMENT"),
    ("https://user:password@elsewhere/a", "NO_STORAGE_ELEMENT"),
    ("https://elsewhere/a?x=1#y", "NO_STORAGE_ELEMENT"),
    ("javascript:alert(1)", "NO_STORAGE_ELEMENT"),
    ("file:///etc/passwd", "NO_STORAGE_ELEMENT"),
    ("file://host/local/a", "NO_STORAGE_ELEMENT"),
    ("LFN:local/a", "NO_STORAGE_ELEMENT"),
    ("LFN:/nowhere/a", "NO_STORAGE_ELEMENT"),
    ("lfn:/local/a", "NO_STORAGE_ELEMENT"),
    # What leaves its place.
    ("LFN:/local/../a", "NO_STORAGE_ELEMENT"),
    ("LFN:/local/./a", "NO_STORAGE_ELEMENT"),
    ("LFN:/local//a", "NO_STORAGE_ELEMENT"),
    ("LFN:/local/a/", "NO_STORAGE_ELEMENT"),
    ("LFN:/local", "NO_STORAGE_ELEMENT"),
    ("LFN:/localother/a", "NO_STORAGE_ELEMENT"),
    (at("/local/../../transfer.sqlite"), "NO_STORAGE_ELEMENT"),
    (at("/local/%2e%2e/%2e%2e/transfer.sqlite"), "NO_STORAGE_ELEMENT"),
    (at("/local/%2E%2E%2F%2E%2E%2Fa"), "NO_STORAGE_ELEMENT"),
    (at("/local/a%00b"), "NO_STORAGE_ELEMENT"),
    (at("/local/a%0ab"), "NO_STORAGE_ELEMENT"),
    (at("/local/%ff"), "NO_STORAGE_ELEMENT"),
    (at(""), "NO_STORAGE_ELEMENT"),
    (at("other/local/a"), "NO_STORAGE_ELEMENT"),
]
ENDS = ("source", "target", "alternative_sources[0]", "via[0]")


def with_end(end: str, name: str) -> transfer_job_pb2.FileTransfer:
    file = File(source=A, target=B)
    if end.endswith("]"):
        getattr(file, end.partition("[")[0]).append(name)
    else:
        setattr(file, end, name)
    return file


async def refused(client: Any, job: transfer_job_pb2.TransferJob) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        await client.jobs.SubmitTransferJob(
            transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
        )
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return raised.value


async def nothing_stored(client: Any) -> bool:
    answer = await client.jobs.ListTransferJobs(transfer_service_pb2.ListTransferJobsRequest())
    return len(answer.transfer_jobs) == 0


async def test_a_name_that_cannot_be_used_is_named_wherever_it_stands(
    house: Any, sue: Any, words: Any
) -> None:
    for name, reason in URLS:
        text = name.replace("<storage>", house.storage.as_uri())
        for end in ENDS:
            if end == "via[0]" and text.startswith("LFN:/local") and reason == "INVALID_FIELDS":
                continue
            job = Job(files=[File(source=A, target="LFN:/local/fine"), with_end(end, text)])
            error = await refused(sue, job)
            field = f"transfer_job.files[1].{end}"
            assert words.reason(error) == reason, (end, text)
            assert set(words.violations(error)) == {field}, (end, text)
    assert await nothing_stored(sue)


STATED = [
    (Job(), {"transfer_job.files"}),
    (Job(files=[File(source=A, target=f"{B}{n}") for n in range(1001)]), {"transfer_job.files"}),
    (Job(files=[File(source=A, target=A)]), {"transfer_job.files[0].target"}),
    (
        Job(files=[File(source=A, target=B), File(source=A, target=B)]),
        {"transfer_job.files[1].target"},
    ),
    (Job(files=[File(source=A, target=B, size_bytes=-1)]), {"transfer_job.files[0].size_bytes"}),
    (Job(files=[File(source=A, target=B, scitag=64)]), {"transfer_job.files[0].scitag"}),
    (Job(files=[File(source=A, target=B, scitag=65536)]), {"transfer_job.files[0].scitag"}),
    (Job(files=[File(source=A, target=B, guid="x")]), {"transfer_job.files[0].guid"}),
    (Job(files=[File(source=A, target=B, guid=GUID)]), {"transfer_job.files[0].guid"}),
    (Job(files=[File(source=A, target=B, metadata="{")]), {"transfer_job.files[0].metadata"}),
    (
        Job(files=[File(source=A, target=B, metadata=f'"{"x" * 4096}"')]),
        {"transfer_job.files[0].metadata"},
    ),
    (Job(files=[File(source=A, target=B, activity="a\n")]), {"transfer_job.files[0].activity"}),
    (
        Job(
            files=[
                File(
                    source=A,
                    target=B,
                    checksum=checksum_pb2.Checksum(type=ADLER, value="0" * 7),
                )
            ]
        ),
        {"transfer_job.files[0].checksum", "transfer_job.files[0].checksum.value"},
    ),
    (
        Job(files=[File(source=A, target=B, alternative_sources=[A])]),
        {"transfer_job.files[0].alternative_sources[0]"},
    ),
    (
        Job(files=[File(source=A, target=B, alternative_sources=["LFN:/local/c"] * 2)]),
        {"transfer_job.files[0].alternative_sources[1]"},
    ),
    (
        Job(files=[File(source=A, target=B, alternative_sources=[f"{A}{n}" for n in range(33)])]),
        {"transfer_job.files[0].alternative_sources"},
    ),
    (
        Job(
            files=[
                File(
                    source=A,
                    target=B,
                    alternative_sources=["LFN:/local/c"],
                    via=["storageElements/mirror"],
                )
            ]
        ),
        {"transfer_job.files[0].via"},
    ),
    (Job(files=[File(source=A, target=B, via=["LFN:/local/c"])]), {"transfer_job.files[0].via[0]"}),
    (
        Job(files=[File(source=A, target=B, via=["storageElements/none"])]),
        {"transfer_job.files[0].via[0]"},
    ),
    (
        Job(files=[File(source=A, target=B, via=["storageElements/jobs"])]),
        {"transfer_job.files[0].via[0]"},
    ),
    (
        Job(files=[File(source=A, target=B, via=["storageElements/mirror"] * 9)]),
        {"transfer_job.files[0].via"},
    ),
    (Job(metadata="no json"), {"transfer_job.metadata"}),
    (Job(activity="\x07"), {"transfer_job.activity"}),
    (Job(retry_delay=Duration(seconds=-1)), {"transfer_job.retry_delay"}),
    (Job(retry_delay=Duration(seconds=86401)), {"transfer_job.retry_delay"}),
    (Job(max_time_in_queue=Duration()), {"transfer_job.max_time_in_queue"}),
    (Job(timeout=Duration()), {"transfer_job.timeout"}),
    (Job(expire_time=Timestamp(seconds=1)), {"transfer_job.expire_time"}),
    (Job(streams=-1), {"transfer_job.streams"}),
    (Job(streams=65), {"transfer_job.streams"}),
    (Job(max_retries=257), {"transfer_job.max_retries"}),
    (Job(priority=6), {"transfer_job.priority"}),
    (Job(backend="embedded"), {"transfer_job.backend"}),
    (Job(backend="transferBackends/fts"), {"transfer_job.backend"}),
    (Job(protocols=["HTTPS"]), {"transfer_job.protocols[0]"}),
    (Job(protocols=["root"]), {"transfer_job.protocols"}),
    (Job(strict_copy=True, verify=BOTH), {"transfer_job.verify"}),
    (Job(strict_copy=True, overwrite=WHEN_DIFFERENT), {"transfer_job.overwrite"}),
    (Job(overwrite=6), {"transfer_job.overwrite"}),  # type: ignore[arg-type]
    (Job(selection_strategy=99), {"transfer_job.selection_strategy"}),  # type: ignore[arg-type]
    (Job(tags={"1": "x"}), {"transfer_job.tags[1]"}),
    (Job(tags={"gridlane.job": "x"}), {"transfer_job.tags[gridlane.job]"}),
]


async def test_what_is_wrong_or_contradicts_itself_is_named(
    house: Any, sue: Any, words: Any
) -> None:
    for stated, fields in STATED:
        job = Job()
        job.CopyFrom(stated)
        if not job.files and "transfer_job.files" not in fields:
            job.files.add(source=A, target=B)
        error = await refused(sue, job)
        found = {field.replace('"', "") for field in words.violations(error)}
        assert found == fields, stated
    assert await nothing_stored(sue)


async def test_all_that_is_wrong_is_named_at_once(house: Any, sue: Any, words: Any) -> None:
    job = Job(
        metadata="{",
        strict_copy=True,
        verify=BOTH,
        files=[
            File(source=A, target=A),
            File(source="srm://elsewhere/a", target=B, metadata="{"),
            File(source=A, target="LFN:/local/c", via=["storageElements/none", "srm://x/y"]),
        ],
    )
    error = await refused(sue, job)
    assert words.reason(error) == "NO_STORAGE_ELEMENT"
    assert set(words.violations(error)) == {
        "transfer_job.metadata",
        "transfer_job.verify",
        "transfer_job.files[0].target",
        "transfer_job.files[1].metadata",
        "transfer_job.files[1].source",
        "transfer_job.files[2].via[0]",
        "transfer_job.files[2].via[1]",
    }
    assert await nothing_stored(sue)
