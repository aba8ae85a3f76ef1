"""What requests ask for and this version does not do is refused at once, by name."""

from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2

from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_transfer.capabilities import FILE_FIELDS, JOB_FIELDS

HOUR = duration_pb2.Duration(seconds=3600)
UUID = "0192f0c1-2345-7abc-8def-0123456789ab"
JOB: dict[str, Any] = {
    "session_reuse": True,
    "buffer_size_bytes": 1 << 20,
    "bring_online_timeout": HOUR,
    "copy_pin_lifetime": HOUR,
    "archive_timeout": HOUR,
    "s3_alternate": True,
    "ip_version": transfer_job_pb2.IP_VERSION_6,
    "target_qos": "disk+tape",
    "source_spacetoken": "A",
    "target_spacetoken": "B",
    "credential": f"credentials/{UUID}",
}
FILE: dict[str, Any] = {
    "staging_metadata": "{}",
    "archive_metadata": "{}",
}
"""Values that the rules beside the fields admit."""


def test_every_refused_field_is_tried() -> None:
    assert JOB.keys() == JOB_FIELDS.keys()
    assert FILE.keys() == FILE_FIELDS.keys()


async def test_fields_that_are_not_carried_out_are_refused_and_nothing_is_stored(
    house: Any, sue: Any, words: Any
) -> None:
    ends = {"source": house.file("local/a"), "target": "LFN:/local/b"}
    for given in [*({k: v} for k, v in JOB.items()), JOB]:
        with pytest.raises(grpc.RpcError) as raised:
            await sue.submit((ends["source"], ends["target"]), **given)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words.reason(raised.value) == "CAPABILITY_MISSING", given
        assert set(words.violations(raised.value)) - {"…"} <= {f"transfer_job.{k}" for k in given}
    for name, value in FILE.items():
        file = transfer_job_pb2.FileTransfer(**ends, **{name: value})
        with pytest.raises(grpc.RpcError) as raised:
            await sue.submit((ends["source"], "LFN:/local/good"), file)
        assert words.reason(raised.value) == "CAPABILITY_MISSING", name
        assert set(words.violations(raised.value)) == {f"transfer_job.files[1].{name}"}
    answer = await sue.jobs.ListTransferJobs(transfer_service_pb2.ListTransferJobsRequest())
    assert not answer.transfer_jobs
    assert not (house.storage / "local/b").exists()


async def test_a_rule_beside_a_field_is_said_before_that_nothing_carries_it_out(
    house: Any, sue: Any, words: Any
) -> None:
    file = transfer_job_pb2.FileTransfer(
        source=house.file("local/a"), target="LFN:/local/b", scitag=3
    )
    with pytest.raises(grpc.RpcError) as raised:
        await sue.submit(file, streams=65)
    assert words.reason(raised.value) == "INVALID_FIELDS"
    assert set(words.violations(raised.value)) == {
        "transfer_job.streams",
        "transfer_job.files[0].scitag",
    }


async def test_an_answer_can_be_submitted_again(house: Any, sue: Any, words: Any) -> None:
    """What is output only is not looked at."""
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    job = await sue.ended(job.name)
    assert job.kind == transfer_job_pb2.TRANSFER_JOB_KIND_TRANSFER
    assert (job.completeness_percent, job.file_count) == (100, 1)
    job.overwrite = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
    again = await sue.jobs.SubmitTransferJob(
        transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
    )
    assert again.name != job.name
    assert (again.completeness_percent, again.file_count) == (0, 1)
    assert words.job(await sue.ended(again.name)) == "FINISHED"
