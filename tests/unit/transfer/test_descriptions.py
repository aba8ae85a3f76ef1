"""What contradicts itself in a description: each violation with its field, and nothing else."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane.type.v1 import checksum_pb2
from gridlane_transfer.jobs import descriptions

NOW_US = 1_800_000_000_000_000
ADLER = checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_ADLER32, value="0" * 8)
CRC = checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_CRC32C, value="0" * 8)
GUID = "0192aaaa-0000-7000-8000-00000000000A"
File, Job = transfer_job_pb2.FileTransfer, transfer_job_pb2.TransferJob
DIFFERENT = transfer_job_pb2.OVERWRITE_MODE_WHEN_DIFFERENT
BOTH, NONE = transfer_job_pb2.VERIFY_MODE_BOTH, transfer_job_pb2.VERIFY_MODE_NONE


def fields(job: transfer_job_pb2.TransferJob) -> list[str]:
    found = descriptions.violations(job, NOW_US, "embedded", frozenset({"ADLER32", "MD5"}))
    assert all(why for _, why in found)
    return [field.removeprefix("transfer_job.") for field, _ in found]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (Job(metadata="{"), ["metadata"]),
        (Job(metadata="[" * 16_000), ["metadata"]),
        (Job(files=[File(), File(metadata="nothing")]), ["files[1].metadata"]),
        (Job(expire_time=Timestamp(seconds=NOW_US // 1_000_000)), ["expire_time"]),
        (Job(expire_time=Timestamp(seconds=-1)), ["expire_time"]),
        (Job(expire_time=Timestamp(seconds=2**62)), ["expire_time"]),
        (Job(strict_copy=True, verify=BOTH), ["verify"]),
        (Job(strict_copy=True, overwrite=DIFFERENT), ["overwrite"]),
        (Job(strict_copy=True, files=[File(overwrite=DIFFERENT)]), ["files[0].overwrite"]),
        (Job(strict_copy=True, files=[File(checksum=ADLER)]), ["files[0].checksum"]),
        (Job(verify=NONE, files=[File(checksum=ADLER)]), ["files[0].checksum"]),
        (Job(files=[File(checksum=CRC)]), ["files[0].checksum.type"]),
        (
            Job(verify=NONE, files=[File(checksum=CRC)]),
            [
                "files[0].checksum.type",
                "files[0].checksum",
            ],
        ),
        (Job(backend="transferBackends/fts"), ["backend"]),
        (Job(protocols=["file", "https", "file"]), ["protocols"]),
        (Job(files=[File(guid=GUID)]), ["files[0].guid"]),
        (
            Job(placement=True, files=[File(guid=GUID), File(guid=GUID.lower())]),
            ["files[1].guid"],
        ),
    ],
)
def test_a_violation_is_named_with_its_field(job: Any, expected: list[str]) -> None:
    assert fields(job) == expected


@pytest.mark.parametrize(
    "job",
    [
        Job(),
        Job(metadata='{"id": 7}', files=[File(metadata="7"), File(metadata='"x"')]),
        Job(expire_time=Timestamp(seconds=NOW_US // 1_000_000 + 1)),
        Job(strict_copy=True, verify=NONE),
        Job(strict_copy=True),
        Job(strict_copy=False, verify=BOTH, files=[File(checksum=ADLER)]),
        Job(overwrite=DIFFERENT),
        Job(backend="transferBackends/embedded", protocols=["https", "file"]),
        Job(placement=True, files=[File(guid=GUID)]),
    ],
)
def test_what_fits_together_is_accepted(job: Any) -> None:
    assert fields(job) == []


def test_of_several_violations_each_is_named() -> None:
    job = Job(
        metadata="{", strict_copy=True, verify=BOTH, files=[File(metadata="{"), File(guid=GUID)]
    )
    assert fields(job) == ["metadata", "verify", "files[0].metadata", "files[1].guid"]
