"""What is accounted, when, and with which values."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import transfer_job_pb2
from gridlane.type.v1 import principal_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2
from gridlane_reporting.accounting import UnaccountableEventError, file_record, job_record

UUID = "01939f5e-0000-7000-8000-000000000001"
ADA = principal_pb2.Principal(issuer="https://issuer.test/", subject="ada")
ENDS = {
    job_pb2.JOB_STATE_DONE,
    job_pb2.JOB_STATE_FAILED,
    job_pb2.JOB_STATE_KILLED,
    job_pb2.JOB_STATE_RESCHEDULED,
}


def job_event(state: job_pb2.JobState.ValueType, attempt: int = 1) -> job_event_pb2.JobEvent:
    job = job_pb2.Job(
        name=f"jobs/{UUID}",
        vo="local",
        owner=ADA,
        backend="embedded",
        start_time=Timestamp(seconds=100),
        end_time=Timestamp(seconds=160),
        resource_use=job_pb2.ResourceUse(
            cpu_time=Duration(seconds=50),
            wall_time=Duration(seconds=60),
            processors=4,
            input_files=2,
            input_bytes=1000,
            output_files=1,
            output_bytes=10,
            disk_bytes=2000,
        ),
    )
    return job_event_pb2.JobEvent(
        event_id="e", job_name=job.name, attempt=attempt, state=state, job=job, minor_status="minor"
    )


def file_event(
    state: transfer_job_pb2.FileTransferState.ValueType, *, registering: bool = False
) -> transfer_event_pb2.TransferEvent:
    file = transfer_job_pb2.FileTransfer(
        name=f"transfers/{UUID}/files/1",
        state=state,
        transferred_bytes=4096,
        protocol="file",
        source_storage_element="storageElements/local",
        target_storage_element="storageElements/jobs",
        start_time=Timestamp(seconds=10),
        end_time=Timestamp(seconds=12),
        registration_time=Duration(nanos=1000) if registering else None,
    )
    job = transfer_job_pb2.TransferJob(
        name=f"transfers/{UUID}", vo="local", owner=ADA, tags={"gridlane.job": UUID}
    )
    return transfer_event_pb2.TransferEvent(event_id="e", transfer_job=job.name, job=job, file=file)


@pytest.mark.parametrize("state", job_pb2.JobState.values())
def test_an_attempt_is_accounted_where_it_ends_and_nowhere_else(
    state: job_pb2.JobState.ValueType,
) -> None:
    assert (job_record(job_event(state)) is not None) == (state in ENDS)


def test_a_job_that_ended_before_its_first_attempt_used_nothing() -> None:
    assert job_record(job_event(job_pb2.JOB_STATE_KILLED, attempt=0)) is None


def test_each_attempt_has_a_record_of_its_own_and_a_repeated_event_the_same() -> None:
    first, again, second = (
        job_record(job_event(job_pb2.JOB_STATE_FAILED, attempt)) for attempt in (1, 1, 2)
    )
    assert first is not None
    assert again is not None
    assert second is not None
    assert first.uid == again.uid != second.uid


def test_the_record_of_a_job_has_dirac_s_values() -> None:
    record = job_record(job_event(job_pb2.JOB_STATE_DONE))
    assert record is not None
    usage = record.message.job_usage
    assert (record.owner, record.vo, record.job) == (
        "https://issuer.test/|ada",
        "local",
        f"jobs/{UUID}",
    )
    assert usage.exec_time.seconds == 240  # wall time × processors
    assert usage.cpu_time.seconds == usage.norm_cpu_time.seconds == 50
    assert (usage.job_type, usage.job_class, usage.site) == ("User", "single", "embedded")
    assert (usage.final_major_status, usage.final_minor_status) == ("DONE", "minor")
    assert (usage.input_data_files, usage.input_data_bytes) == (2, 1000)
    assert (usage.output_data_files, usage.output_data_bytes) == (1, 10)
    assert record.message.start_time.seconds == 100
    assert record.end_us == 160_000_000


def test_an_event_that_ends_an_attempt_without_its_job_is_poison() -> None:
    event = job_event(job_pb2.JOB_STATE_DONE)
    event.ClearField("job")
    with pytest.raises(UnaccountableEventError):
        job_record(event)


@pytest.mark.parametrize("state", transfer_job_pb2.FileTransferState.values())
def test_a_file_is_accounted_when_its_state_is_final(
    state: transfer_job_pb2.FileTransferState.ValueType,
) -> None:
    word = transfer_job_pb2.FileTransferState.Name(state).removeprefix("FILE_TRANSFER_STATE_")
    final = word in {"FINISHED", "CATALOG_FAILED", "FAILED", "CANCELED"}
    assert (file_record(file_event(state)) is not None) == final


def test_an_event_of_the_transfer_job_itself_accounts_no_file() -> None:
    event = file_event(transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED)
    event.ClearField("file")
    assert file_record(event) is None


@pytest.mark.parametrize(("state", "done"), [("FINISHED", 1), ("FAILED", 0), ("CANCELED", 0)])
def test_a_file_that_is_removed_is_not_accounted_as_one_that_was_moved(
    state: str, done: int
) -> None:
    event = file_event(transfer_job_pb2.FileTransferState.Value(f"FILE_TRANSFER_STATE_{state}"))
    event.job.kind = transfer_job_pb2.TRANSFER_JOB_KIND_DELETION
    event.file.source_url = "davs://se.example/local/a"
    for name in ("transferred_bytes", "target_storage_element", "protocol"):
        event.file.ClearField(name)
    record = file_record(event)
    assert record is not None
    told = record.message.data_operation
    assert (told.operation_type, told.final_status, told.protocol) == ("removal", state, "davs")
    assert (told.source, told.target, told.transfer_bytes) == ("local", "", 0)
    assert (told.transfer_ok, told.transfer_total) == (done, 1)
    assert (told.registration_ok, told.registration_total) == (0, 0)
    assert told.file_transfer == event.file.name


def test_the_record_of_a_file_names_both_storage_elements_and_its_job() -> None:
    record = file_record(file_event(transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED))
    assert record is not None
    operation = record.message.data_operation
    assert (operation.source, operation.target, operation.protocol) == ("local", "jobs", "file")
    assert record.job == f"jobs/{UUID}"
    assert operation.transfer_time.seconds == 2
    assert (operation.transfer_ok, operation.transfer_total) == (1, 1)
    assert (operation.registration_ok, operation.registration_total) == (0, 0)


@pytest.mark.parametrize(
    ("state", "registering", "counts"),
    [
        ("FINISHED", True, (1, 1, 1)),
        ("FINISHED", False, (1, 0, 0)),
        ("CATALOG_FAILED", True, (1, 0, 1)),
        ("CATALOG_FAILED", False, (0, 0, 0)),
        ("FAILED", False, (0, 0, 0)),
        ("CANCELED", False, (0, 0, 0)),
    ],
)
def test_bytes_and_registration_are_counted_apart(
    state: str, registering: bool, counts: tuple[int, int, int]
) -> None:
    value = transfer_job_pb2.FileTransferState.Value(f"FILE_TRANSFER_STATE_{state}")
    record = file_record(file_event(value, registering=registering))
    assert record is not None
    operation = record.message.data_operation
    assert (
        operation.transfer_ok,
        operation.registration_ok,
        operation.registration_total,
    ) == counts


def test_the_time_of_a_registration_is_no_time_of_the_transfer() -> None:
    event = file_event(transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED)
    event.file.registration_time.FromMilliseconds(1500)
    record = file_record(event)
    assert record is not None
    operation = record.message.data_operation
    assert operation.transfer_time.ToMilliseconds() == 500
    assert operation.registration_time.ToMilliseconds() == 1500
