"""The contract's messages, made from stored rows. Responsible for nothing else: no rules, no
I/O.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    content_pb2,
    event_pb2,
    replica_pb2,
    selection_strategy_pb2,
    target_report_pb2,
    transfer_job_pb2,
)
from gridlane.type.v1 import checksum_pb2, failure_pb2, principal_pb2
from gridlane_kit.clock import set_timestamp, to_duration, to_timestamp
from gridlane_kit.identity import Principal
from gridlane_kit.principal_messages import principal_message
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.channels.scheduling import DEFAULT_ACTIVITY
from gridlane_transfer.jobs.options import options_of
from gridlane_transfer.moving import alternatives, routes
from gridlane_transfer.moving.alternatives import Strategy
from gridlane_transfer.moving.failures import Failed, TargetFound
from gridlane_transfer.states import FILE_FINAL, JobState
from gridlane_transfer.store.tables import FileRow, JobRow

PREFIX = "transfers/"
MOVED = "moved"
"""The key, among the counts of a job's files, of those whose bytes are there but could not be
registered.
"""


def job_message(row: JobRow) -> transfer_job_pb2.TransferJob:
    """A job without its files."""
    counts = state_counts(row.counts)
    file_count = sum(count for _, count in counts)
    message = transfer_job_pb2.TransferJob(
        name=PREFIX + row.uuid,
        number=row.number,
        vo=row.vo,
        placement=row.placement,
        overwrite=transfer_job_pb2.OverwriteMode.ValueType(row.overwrite),
        verify=transfer_job_pb2.VerifyMode.ValueType(row.verify),
        max_retries=row.max_retries if row.max_retries >= 0 else None,
        priority=row.priority,
        tags=json.loads(row.tags) if row.tags else None,
        state=transfer_job_pb2.TransferJobState.ValueType(row.state),
        owner=owner_message(row.principal),
        create_time=to_timestamp(row.create_us),
        update_time=to_timestamp(row.update_us),
        trace_id=row.traceparent[3:35],
        summary=[
            transfer_job_pb2.FileStateCount(
                state=transfer_job_pb2.FileTransferState.ValueType(state), count=count
            )
            for state, count in counts
        ],
        kind=transfer_job_pb2.TransferJobKind.ValueType(row.kind),
        completeness_percent=_completeness(counts, file_count),
        file_count=file_count,
        total_bytes=row.total_bytes,
        transferred_bytes=row.moved_bytes,
        revision=row.revision,
        retry_of="" if row.retry_of is None else PREFIX + row.retry_of,
    )
    if row.activity is not None:
        message.activity = row.activity
    if row.metadata is not None:
        message.metadata = row.metadata
    if row.expire_us is not None:
        message.expire_time.CopyFrom(to_timestamp(row.expire_us))
    if row.options is not None:
        options_of(row.options).tell(message)
    if row.end_us is not None:
        _tell_end(message, row, row.end_us)
    return message


def _tell_end(message: transfer_job_pb2.TransferJob, row: JobRow, end_us: int) -> None:
    """When a job ended, how fast it was, and why it failed, if it did."""
    message.end_time.CopyFrom(to_timestamp(end_us))
    message.throughput_bytes_per_second = bytes_per_second(row.moved_bytes, row.start_us, end_us)
    if row.failure is not None and row.state != JobState.FINISHED:
        message.failure.ParseFromString(row.failure)


def accepted_event(row: JobRow) -> event_pb2.TransferEvent:
    """What is told of a job that was accepted: its first event."""
    message = job_message(row)
    return event_pb2.TransferEvent(
        event_id=uuid7(),
        time=to_timestamp(row.create_us),
        transfer_job=message.name,
        job=message,
    )


def file_message(
    row: FileRow, job: JobRow, channels: Channels, moved: int | None = None
) -> transfer_job_pb2.FileTransfer:
    """A file.

    Parameters:
        moved: bytes moved by the attempt that runs; None when none runs.
    """
    message = transfer_job_pb2.FileTransfer()
    tell_file(message, row, job, channels)
    if moved is not None:
        message.transferred_bytes = moved
    return message


def tell_file(
    message: transfer_job_pb2.FileTransfer, row: FileRow, job: JobRow, channels: Channels
) -> None:
    """Make an empty message a file's; to make one where it is needed costs less than to copy it."""
    message.name = f"{PREFIX}{job.uuid}/files/{row.n}"
    message.number = row.number
    message.source = row.source
    message.target = row.target
    message.state = transfer_job_pb2.FileTransferState.ValueType(row.state)
    message.channel = channels.name_of(row.channel_uid)
    message.attempt = row.attempt
    message.transferred_bytes = row.transferred_bytes
    message.source_url = row.source_url or ""
    message.target_url = row.target_url
    message.protocol = row.target_url.partition(":")[0]
    message.source_storage_element = row.source_element
    message.target_storage_element = row.target_element
    message.overwrite = transfer_job_pb2.OverwriteMode.ValueType(row.overwrite)
    if row.size_bytes is not None:
        message.size_bytes = row.size_bytes
    if row.checksum is not None:
        message.checksum.CopyFrom(checksum_message(row.checksum))
    if row.actual_checksum is not None:
        message.actual_checksum.CopyFrom(checksum_message(row.actual_checksum))
    if row.start_us is not None:
        set_timestamp(message.start_time, row.start_us)
    if row.end_us is not None:
        set_timestamp(message.end_time, row.end_us)
    if row.failure is not None:
        message.failure.ParseFromString(row.failure)
    if row.registration_us is not None:
        message.registration_time.CopyFrom(to_duration(row.registration_us))
    _tell_asked(message, row, job)


def _tell_asked(message: transfer_job_pb2.FileTransfer, row: FileRow, job: JobRow) -> None:
    """What a file has of its own, beside its job's."""
    if row.activity != job.activity:
        message.activity = row.activity or DEFAULT_ACTIVITY
    if row.metadata is not None:
        message.metadata = row.metadata
    if row.scitag is not None:
        message.scitag = row.scitag
    if row.guid is not None:
        message.guid = row.guid
    if row.alternatives is not None:
        _tell_alternatives(message, alternatives.read(row.alternatives), job)
    if row.route is not None:
        _tell_route(message, row, routes.read(row.route))
    if row.target_report is not None:
        message.target_report.ParseFromString(row.target_report)


def _tell_alternatives(
    message: transfer_job_pb2.FileTransfer, several: alternatives.Alternatives, job: JobRow
) -> None:
    # A logical name may stand there once for each of its copies.
    _, *others = dict.fromkeys(source.name for source in several.sources)
    message.alternative_sources.extend(others)
    if several.strategy != (options_of(job.options).selection_strategy or Strategy.ORDERLY):
        message.selection_strategy = selection_strategy_pb2.SelectionStrategy.ValueType(
            several.strategy
        )


def _tell_route(message: transfer_job_pb2.FileTransfer, row: FileRow, route: routes.Route) -> None:
    """A file that stops on the way is told from its first end to its last."""
    *on_the_way, last = route.stops
    message.via.extend(stop.url if stop.stays else stop.element for stop in on_the_way)
    message.hop = row.hop
    message.target_url = last.url
    message.target_storage_element = last.element
    message.protocol = last.url.partition(":")[0]
    if row.hop > 1:
        message.source_url, message.source_storage_element = route.origin


def target_report(found: TargetFound) -> target_report_pb2.TargetReport:
    """What lies at a target: on disk, since nothing here writes to tape."""
    return target_report_pb2.TargetReport(
        size_bytes=found.size_bytes,
        checksum=checksum_message(found.checksum) if found.checksum else None,
        locality=content_pb2.CONTENT_LOCALITY_DISK,
    )


def lacks_permission(row: FileRow) -> bool:
    """Whether a file waits, or has ended, since its owner may not have it moved any more."""
    return failure_class(row.failure) == failure_pb2.FAILURE_CLASS_PERMISSION


def failure_class(failure: bytes | None) -> int | None:
    """The class of a stored failure; None when there is none."""
    return None if failure is None else failure_pb2.Failure.FromString(failure).failure_class


def logical_file_message(file: LogicalFile) -> replica_pb2.LogicalFile:
    """A logical file with its replicas."""
    issuer, _, subject = file.owner.partition("|")
    return replica_pb2.LogicalFile(
        lfn=file.lfn,
        size_bytes=file.size_bytes,
        checksum=checksum_message(file.checksum),
        create_time=to_timestamp(file.create_us),
        replicas=[
            replica_pb2.Replica(
                storage_element=replica.storage_element,
                url=replica.url,
                create_time=to_timestamp(replica.create_us),
            )
            for replica in file.replicas
        ],
        guid=file.guid,
        owner=principal_pb2.Principal(issuer=issuer, subject=subject),
        vo=file.vo,
    )


def bytes_per_second(moved_bytes: int, start_us: int | None, end_us: int) -> int:
    """The mean speed from a start to an end; 0 of what has not started."""
    if start_us is None:
        return 0
    return moved_bytes * 1_000_000 // max(end_us - start_us, 1)


def checksum_text(message: checksum_pb2.Checksum) -> str:
    """A checksum as it is stored: `ALGORITHM:hex`."""
    return f"{algorithm_of(message)}:{message.value}"


def algorithm_of(message: checksum_pb2.Checksum) -> str:
    """The name of a checksum's algorithm, "ADLER32"."""
    return _ALGORITHMS[message.type]


def checksum_message(text: str) -> checksum_pb2.Checksum:
    """A stored checksum as a message."""
    algorithm, _, value = text.partition(":")
    return checksum_pb2.Checksum(type=_TYPES[algorithm], value=value)


def failure_message(failed: Failed) -> failure_pb2.Failure:
    """A failure."""
    return failure_pb2.Failure(
        failure_class=failure_pb2.FailureClass.Value(f"FAILURE_CLASS_{failed.failure_class.value}"),
        message=failed.message,
        cure=failed.cure,
        recoverable=failed.recoverable,
    )


@lru_cache(maxsize=4096)
def owner_message(principal_json: str) -> principal_pb2.Principal:
    """A stored principal; shared between callers, who copy it into their messages."""
    return principal_message(Principal.from_json(principal_json))


@lru_cache(maxsize=4096)
def state_counts(text: str) -> tuple[tuple[int, int], ...]:
    """How many files are in each state, by the states' numbers. Remembered, for most jobs are of
    few files, in one of few states.
    """
    counts = json.loads(text).items()
    return tuple(sorted((int(state), count) for state, count in counts if state != MOVED))


def file_count(text: str) -> int:
    """How many files a job has, by its stored counts."""
    return sum(count for _, count in state_counts(text))


def _completeness(counts: Sequence[tuple[int, int]], files: int) -> int:
    """How many of the files have ended, in percent, rounded down."""
    return sum(count for state, count in counts if state in FILE_FINAL) * 100 // files


_ALGORITHMS: Mapping[int, str] = {
    number: name.removeprefix("CHECKSUM_TYPE_")
    for name, number in checksum_pb2.ChecksumType.items()
}
_TYPES: Mapping[str, checksum_pb2.ChecksumType.ValueType] = {
    name.removeprefix("CHECKSUM_TYPE_"): number
    for name, number in checksum_pb2.ChecksumType.items()
}
