"""Promises of transfer jobs: overwriting, verifying, placement, cancelling, files one by one."""

from pathlib import Path
from typing import Any

import pytest
from integration.contract_promises.stranger import NOBODYS, Stranger, adler32

from gridlane.transfer.v1 import (
    channel_pb2,
    channel_service_pb2,
    replica_service_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.type.v1 import checksum_pb2, failure_pb2

TEXT = b"one two three\n" * 100
STATES = transfer_job_pb2.TransferJobState
FILES = transfer_job_pb2.FileTransferState


def words(job: transfer_job_pb2.TransferJob) -> tuple[str, list[str]]:
    state = STATES.Name(job.state).removeprefix("TRANSFER_JOB_STATE_")
    return state, [FILES.Name(f.state).removeprefix("FILE_TRANSFER_STATE_") for f in job.files]


def failure(job: transfer_job_pb2.TransferJob) -> str:
    """The class of the first file's failure, which is the job's too."""
    assert job.failure.failure_class == job.files[0].failure.failure_class
    assert job.failure.message
    name = failure_pb2.FailureClass.Name(job.failure.failure_class)
    return name.removeprefix("FAILURE_CLASS_")


def path_of(me: Stranger, lfn: str) -> Path:
    return me.server.data_dir / "storage" / lfn.removeprefix("LFN:/")


def registered(me: Stranger, lfn: str) -> bool:
    request = replica_service_pb2.ResolveReplicasRequest(lfns=[lfn])
    (result,) = me.call(me.replicas.ResolveReplicas, request).results
    return bool(result.HasField("file"))


@pytest.fixture
def source(me: Stranger, folder: str) -> str:
    me.put(f"{folder}/source", TEXT)
    return f"{folder}/source"


def test_a_finished_file_says_what_was_found(me: Stranger, folder: str, source: str) -> None:
    job = me.moved(source, f"{folder}/target")
    assert words(job) == ("FINISHED", ["FINISHED"])
    (file,) = job.files
    assert file.actual_checksum == adler32(TEXT)
    assert file.transferred_bytes == len(TEXT)
    assert (file.attempt, file.protocol, file.channel) == (1, "file", "channels/default")
    assert file.source_url
    assert file.target_url
    assert job.end_time.ToMicroseconds() >= job.create_time.ToMicroseconds()
    assert [(one.state, one.count) for one in job.summary] == [(file.state, 1)]
    assert path_of(me, f"{folder}/target").read_bytes() == TEXT


@pytest.mark.parametrize("mode", ["UNSPECIFIED", "NEVER"])
def test_a_target_that_exists_fails_the_file(
    me: Stranger, folder: str, source: str, mode: str
) -> None:
    me.put(f"{folder}/target", b"other")
    overwrite = transfer_job_pb2.OverwriteMode.Value(f"OVERWRITE_MODE_{mode}")
    job = me.moved(source, f"{folder}/target", overwrite=overwrite)
    assert words(job) == ("FAILED", ["FAILED"])
    assert failure(job) == "TARGET_EXISTS"
    assert me.read(f"{folder}/target") == b"other"


def test_always_replaces_it(me: Stranger, folder: str, source: str) -> None:
    me.put(f"{folder}/target", b"other")
    always = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
    job = me.moved(source, f"{folder}/target", overwrite=always, placement=True)
    assert words(job) == ("FINISHED", ["FINISHED"])
    assert me.read(f"{folder}/target") == TEXT


def test_a_file_may_say_for_itself_whether_it_replaces(
    me: Stranger, folder: str, source: str
) -> None:
    unsaid, never, always = (
        transfer_job_pb2.OverwriteMode.Value(f"OVERWRITE_MODE_{mode}")
        for mode in ("UNSPECIFIED", "NEVER", "ALWAYS")
    )
    for name in "abc":
        me.put(f"{folder}/{name}", b"other")
    files = [
        transfer_job_pb2.FileTransfer(source=source, target=f"{folder}/{name}", overwrite=mode)
        for name, mode in (("a", never), ("b", always), ("c", unsaid))
    ]
    job = transfer_job_pb2.TransferJob(files=files, overwrite=always)
    request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
    ended = me.arrived(me.call(me.transfers.SubmitTransferJob, request).name)
    assert [file.overwrite for file in ended.files] == [never, always, 0]
    assert words(ended) == ("PARTIALLY_FINISHED", ["FAILED", "FINISHED", "FINISHED"])
    assert [me.read(f"{folder}/{name}") for name in "abc"] == [b"other", TEXT, TEXT]


def test_placement_alone_registers_the_target(me: Stranger, folder: str, source: str) -> None:
    job = me.moved(source, f"{folder}/placed", placement=True)
    assert registered(me, f"{folder}/placed")
    assert job.files[0].HasField("registration_time")
    me.moved(source, f"{folder}/plain")
    assert not registered(me, f"{folder}/plain")


def test_a_wrong_checksum_or_size_fails_the_file_and_leaves_no_target(
    me: Stranger, folder: str, source: str
) -> None:
    for fields in ({"checksum": adler32(b"x")}, {"size_bytes": len(TEXT) + 1}):
        job = me.moved(source, f"{folder}/target", **fields)
        assert words(job) == ("FAILED", ["FAILED"])
        assert failure(job) == "CHECKSUM_MISMATCH"
        assert not path_of(me, f"{folder}/target").exists()


@pytest.mark.parametrize("mode", ["UNSPECIFIED", "BOTH", "SOURCE", "TARGET"])
def test_an_expected_checksum_is_held_by_every_mode_but_none(
    me: Stranger, folder: str, source: str, mode: str
) -> None:
    verify = transfer_job_pb2.VerifyMode.Value(f"VERIFY_MODE_{mode}")
    md5 = checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_MD5, value="0" * 32)
    job = me.moved(source, f"{folder}/{mode}", verify=verify, checksum=md5)
    assert failure(job) == "CHECKSUM_MISMATCH"
    job = me.moved(source, f"{folder}/{mode}", verify=verify, checksum=adler32(TEXT))
    assert words(job)[0] == "FINISHED"


def test_with_none_nothing_is_compared(me: Stranger, folder: str, source: str) -> None:
    path_of(me, source).write_bytes(TEXT[::-1])
    none = transfer_job_pb2.VERIFY_MODE_NONE
    assert failure(me.moved(source, f"{folder}/both")) == "CHECKSUM_MISMATCH"
    assert words(me.moved(source, f"{folder}/none", verify=none))[0] == "FINISHED"
    file = transfer_job_pb2.FileTransfer(
        source=source, target=f"{folder}/c", checksum=adler32(TEXT)
    )
    request = transfer_service_pb2.SubmitTransferJobRequest(
        transfer_job=transfer_job_pb2.TransferJob(files=[file], verify=none)
    )
    refusal = me.refused(me.transfers.SubmitTransferJob, request)
    assert refusal.fields == ("transfer_job.files[0].checksum",)


def test_a_missing_source_fails_at_once_and_is_not_tried_again(me: Stranger, folder: str) -> None:
    job = me.moved(f"{folder}/none", f"{folder}/target")
    assert words(job) == ("FAILED", ["CATALOG_FAILED"])
    assert failure(job) == "CATALOGUE"
    gone = path_of(me, f"{folder}/gone").as_uri()
    job = me.moved(gone, f"{folder}/target")
    assert failure(job) == "SOURCE_MISSING"
    assert (job.files[0].attempt, job.files[0].failure.recoverable) == (1, False)


def test_some_failed_files_make_the_job_partially_finished(
    me: Stranger, folder: str, source: str
) -> None:
    file = transfer_job_pb2.FileTransfer
    files = [
        file(source=source, target=f"{folder}/a"),
        file(source=f"{folder}/none", target=f"{folder}/b"),
    ]
    request = transfer_service_pb2.SubmitTransferJobRequest(
        transfer_job=transfer_job_pb2.TransferJob(files=files)
    )
    job = me.arrived(me.call(me.transfers.SubmitTransferJob, request).name)
    assert words(job)[0] == "PARTIALLY_FINISHED"
    assert words(job)[1] == ["FINISHED", "CATALOG_FAILED"]
    assert sum(one.count for one in job.summary) == 2


def test_files_that_cannot_be_moved_hold_up_none_behind_them(
    me: Stranger, folder: str, source: str
) -> None:
    files = [
        transfer_job_pb2.FileTransfer(source=f"{folder}/none-{n}", target=f"{folder}/{n}")
        for n in range(300)
    ]
    request = transfer_service_pb2.SubmitTransferJobRequest(
        transfer_job=transfer_job_pb2.TransferJob(files=files)
    )
    me.call(me.transfers.SubmitTransferJob, request)
    job = me.moved(source, f"{folder}/behind")
    taken_s = (job.end_time.ToMicroseconds() - job.create_time.ToMicroseconds()) / 1e6
    assert words(job)[0] == "FINISHED"
    assert taken_s < 10


def test_a_job_that_has_ended_is_not_canceled_any_more(
    me: Stranger, folder: str, source: str
) -> None:
    job = me.moved(source, f"{folder}/target")
    request = transfer_service_pb2.CancelTransferJobRequest(name=job.name)
    assert me.call(me.transfers.CancelTransferJob, request) == job
    assert me.transfer_job(job.name) == job


def test_a_canceled_job_ends_canceled_and_canceling_again_changes_nothing(
    me: Stranger, folder: str, source: str
) -> None:
    big = path_of(me, f"{folder}/big")
    with big.open("wb") as file:
        file.truncate(3 << 30)  # sparse: it takes a while to read and no room
    job = me.transfer(big.as_uri(), f"{folder}/copy", verify=transfer_job_pb2.VERIFY_MODE_BOTH)
    request = transfer_service_pb2.CancelTransferJobRequest(name=job.name)
    first = me.call(me.transfers.CancelTransferJob, request)
    assert words(first)[0] in ("CANCELING", "CANCELED")
    again = me.call(me.transfers.CancelTransferJob, request)
    assert words(again)[0] in ("CANCELING", "CANCELED")
    ended = me.arrived(job.name)
    assert words(ended) == ("CANCELED", ["CANCELED"])
    assert failure(ended) == "CANCELED"
    assert not path_of(me, f"{folder}/copy").exists()
    assert me.call(me.transfers.CancelTransferJob, request) == ended
    big.unlink()


def test_the_checksum_of_a_registered_copy_is_the_first_ones(
    me: Stranger, folder: str, source: str
) -> None:
    url = path_of(me, source).as_uri()

    def registration(**fields: Any) -> replica_service_pb2.RegisterReplicaRequest:
        known = {"lfn": source, "url": url, "size_bytes": len(TEXT), "checksum": adler32(TEXT)}
        return replica_service_pb2.RegisterReplicaRequest(**{**known, **fields})

    first = me.call(me.replicas.RegisterReplica, registration())
    assert me.call(me.replicas.RegisterReplica, registration()) == first
    for fields in ({"size_bytes": 1}, {"checksum": adler32(b"x")}):
        refusal = me.refused(me.replicas.RegisterReplica, registration(**fields))
        assert refusal.short == ("ALREADY_EXISTS", "ALREADY_EXISTS")
        assert refusal.metadata == {"name": source}
    refusal = me.refused(me.replicas.RegisterReplica, registration(url="srm://x/y"))
    assert refusal.reason == "NO_STORAGE_ELEMENT"
    refusal = me.refused(me.replicas.RegisterReplica, registration(lfn=f"{folder}/other"))
    assert refusal.fields == ("url",)


def test_channels_and_elements_are_answered_by_name(me: Stranger) -> None:
    name = channel_service_pb2.GetChannelRequest(name="channels/default")
    channel = me.call(me.channels.GetChannel, name)
    assert channel.uid
    assert channel.max_files > 0
    assert channel.state == channel_pb2.CHANNEL_STATE_ACTIVE
    name.name = "channels/none"
    assert me.refused(me.channels.GetChannel, name).short == ("NOT_FOUND", "NOT_FOUND")
    element = storage_service_pb2.GetStorageElementRequest(name="storageElements/local")
    found = me.call(me.storage.GetStorageElement, element)
    assert dict(found.vo_paths) == {"local": "/local"}
    assert found.readable
    assert found.writable
    assert not found.internal
    element.name = "storageElements/none"
    assert me.refused(me.storage.GetStorageElement, element).short == ("NOT_FOUND", "NOT_FOUND")


def test_a_transfer_that_nobody_made_is_not_found(me: Stranger) -> None:
    name = f"transfers/{NOBODYS}"
    messages = transfer_service_pb2
    for method, request in (
        (me.transfers.GetTransferJob, messages.GetTransferJobRequest(name=name)),
        (me.transfers.CancelTransferJob, messages.CancelTransferJobRequest(name=name)),
        (me.transfers.ListFileTransfers, messages.ListFileTransfersRequest(parent=name)),
        (me.transfers.ListTransferEvents, messages.ListTransferEventsRequest(parent=name)),
        (me.transfers.WatchTransferJobs, messages.WatchTransferJobsRequest(names=[name])),
    ):
        refusal = me.refused(method, request)
        assert refusal.short == ("NOT_FOUND", "NOT_FOUND")
        assert refusal.metadata == {"name": name}
