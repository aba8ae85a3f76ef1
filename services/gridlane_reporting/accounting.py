"""From an event to an accounting record.

Responsible for what is accounted, when, and under which name; pure functions, no I/O. Keys and
values are those of DIRAC's accounting types Job and DataOperation (DIRAC 9.1,
`AccountingSystem/Client/Types`). A record's name follows from what it is about, so that an event
which comes twice is accounted once.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from gridlane.reporting.v1 import accounting_record_pb2
from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import transfer_job_pb2
from gridlane.type.v1 import principal_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2
from gridlane_kit.clock import from_timestamp, to_duration
from gridlane_kit.identity import owner_key

JOB: Final = "job"
DATA_OPERATION: Final = "data_operation"
JOB_TAG: Final = "gridlane.job"
"""The tag by which Workload ties a transfer job to a job; its value is the job's uuid."""

_NAMESPACE: Final = UUID("8d2f5a0e-6c3b-5c11-9f0a-3b1d6a7c9e42")
# The embedded mover is the only transfer backend there is; files do not name theirs yet.
_TRANSFER_SITE: Final = "embedded"

# An attempt ends here: in a final state, or in the one from which the next attempt starts. Not in
# COMPLETED: outputs are still owed, and what becomes of them belongs into the record.
_ATTEMPT_ENDS: Final = frozenset(
    {
        job_pb2.JOB_STATE_DONE,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_KILLED,
        job_pb2.JOB_STATE_RESCHEDULED,
    }
)
_FILE_ENDS: Final = frozenset(
    {
        transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED,
        transfer_job_pb2.FILE_TRANSFER_STATE_CATALOG_FAILED,
        transfer_job_pb2.FILE_TRANSFER_STATE_FAILED,
        transfer_job_pb2.FILE_TRANSFER_STATE_CANCELED,
    }
)


class UnaccountableEventError(Exception):
    """An event that should be accounted and cannot be; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to be stored: what is listed and filtered by, the message, the event of it."""

    event_id: str
    uid: str
    kind: str
    end_us: int
    owner: str
    owner_group: str | None
    vo: str
    job: str
    message: accounting_record_pb2.AccountingRecord


def job_record(event: job_event_pb2.JobEvent) -> NewRecord | None:
    """Returns the record of the attempt that ends with this event, None when none ends.

    A job that ended before its first attempt used nothing and has no record.

    Raises:
        UnaccountableEventError: the event ends an attempt and does not carry the job.
    """
    if event.state not in _ATTEMPT_ENDS or event.attempt < 1:
        return None
    if not event.HasField("job"):
        raise UnaccountableEventError(f"the event {event.event_id} ends an attempt without its job")
    job = event.job
    end = job.end_time if job.HasField("end_time") else event.time
    return _stored(
        event.event_id,
        JOB,
        job.owner,
        accounting_record_pb2.AccountingRecord(
            name=_name(event.job_name, str(event.attempt), JOB),
            start_time=job.start_time if job.HasField("start_time") else end,
            end_time=end,
            vo=job.vo,
            job=event.job_name,
            job_usage=_job_usage(event),
        ),
    )


def file_record(event: transfer_event_pb2.TransferEvent) -> NewRecord | None:
    """Returns the record of the file whose transfer or removal ends with this event, None when none
    ends.

    Raises:
        UnaccountableEventError: the event does not carry the transfer job.
    """
    if not event.HasField("file") or event.file.state not in _FILE_ENDS:
        return None
    if not event.HasField("job"):
        raise UnaccountableEventError(f"the event {event.event_id} ends a file without its job")
    job, file = event.job, event.file
    end = file.end_time if file.HasField("end_time") else event.time
    tag = job.tags.get(JOB_TAG, "")
    record = accounting_record_pb2.AccountingRecord(
        name=_name(file.name, DATA_OPERATION), vo=job.vo, job=f"jobs/{tag}" if tag else ""
    )
    record.start_time.CopyFrom(file.start_time if file.HasField("start_time") else end)
    record.end_time.CopyFrom(end)
    _tell_data_operation(record.data_operation, file)
    if job.kind == transfer_job_pb2.TRANSFER_JOB_KIND_DELETION:
        record.data_operation.operation_type = "removal"
        record.data_operation.protocol = file.source_url.partition(":")[0]
    return _stored(event.event_id, DATA_OPERATION, job.owner, record)


def _job_usage(event: job_event_pb2.JobEvent) -> accounting_record_pb2.JobUsage:
    job = event.job
    use = job.resource_use
    wall_us = use.wall_time.ToMicroseconds()
    return accounting_record_pb2.JobUsage(
        attempt=event.attempt,
        user_group=job.owner.active_group or next(iter(job.owner.groups), ""),
        job_group=job.description.job_group,
        job_type=job.description.job_type or "User",
        job_class="single",
        site=job.backend,
        final_major_status=job_pb2.JobState.Name(event.state).removeprefix("JOB_STATE_"),
        final_minor_status=event.minor_status,
        cpu_time=use.cpu_time,
        norm_cpu_time=use.cpu_time,
        exec_time=to_duration(wall_us * max(1, use.processors)),
        input_data_files=use.input_files,
        output_data_files=use.output_files,
        input_data_bytes=use.input_bytes,
        output_data_bytes=use.output_bytes,
        disk_space_bytes=use.disk_bytes,
    )


def _tell_data_operation(
    told: accounting_record_pb2.DataOperation, file: transfer_job_pb2.FileTransfer
) -> None:
    finished = file.state == transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED
    # A refusal of the catalogue comes after the bytes when a registration was tried, else before.
    registering = file.HasField("registration_time")
    moved = finished or (
        registering and file.state == transfer_job_pb2.FILE_TRANSFER_STATE_CATALOG_FAILED
    )
    elapsed_us = 0
    if file.HasField("start_time") and file.HasField("end_time"):
        elapsed_us = from_timestamp(file.end_time) - from_timestamp(file.start_time)
        # It ended when it was registered.
        elapsed_us -= file.registration_time.ToMicroseconds()
    word = transfer_job_pb2.FileTransferState.Name(file.state)
    told.operation_type = "transfer"
    told.execution_site = _TRANSFER_SITE
    told.source = file.source_storage_element.removeprefix("storageElements/")
    told.target = file.target_storage_element.removeprefix("storageElements/")
    told.protocol = file.protocol
    told.final_status = word.removeprefix("FILE_TRANSFER_STATE_")
    told.transfer_bytes = file.transferred_bytes
    told.transfer_time.FromMicroseconds(max(0, elapsed_us))
    if registering:
        told.registration_time.CopyFrom(file.registration_time)
    told.transfer_ok = int(moved)
    told.transfer_total = 1
    told.registration_ok = int(registering and finished)
    told.registration_total = int(registering)
    told.file_transfer = file.name


def _name(*parts: str) -> str:
    return f"accountingRecords/{uuid5(_NAMESPACE, '/'.join(parts))}"


def _stored(
    event_id: str,
    kind: str,
    owner: principal_pb2.Principal,
    message: accounting_record_pb2.AccountingRecord,
) -> NewRecord:
    message.user = owner.subject
    return NewRecord(
        event_id=event_id,
        uid=message.name.removeprefix("accountingRecords/"),
        kind=kind,
        end_us=from_timestamp(message.end_time),
        owner=owner_key(owner.issuer, owner.subject),
        owner_group=owner.active_group or None,
        vo=message.vo,
        job=message.job,
        message=message,
    )
