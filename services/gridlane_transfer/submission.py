"""What makes a submitted transfer job acceptable, and what of it is stored.

Responsible for the rules on a description that need more than its own fields: the ends that storage
elements serve, permissions on paths, capabilities, contradictions. Does no I/O: nothing is stored
unless all holds. The rules of single fields stand in the contract.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from gridlane.ids import uuid7
from gridlane.transfer.v1 import event_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer import access, capabilities, messages
from gridlane_transfer.channels import Channel, Channels
from gridlane_transfer.file_transfers import (
    OVERWRITE_NEVER,
    VERIFY_BOTH,
    VERIFY_NONE,
    is_logical,
    replaces,
)
from gridlane_transfer.states import FileState, JobState
from gridlane_transfer.storage_elements import PREFIX, Located, StorageElements
from gridlane_transfer.store.jobs import NewFile, NewTransferJob, Submitted
from gridlane_transfer.store.tables import JobRow

DEFAULT_RETRIES = 3
DEFAULT_PRIORITY = 3
JOB_TAG = "gridlane.job"
"""The tag that ties a transfer to the job it works for."""

_PERMISSION = "transfer.jobs.submit"
_HIGHEST_PRIORITY = 5
_READY = int(FileState.READY)


class _Ends(NamedTuple):
    """What the names of one file stand for."""

    source: Located
    target: Located


class Submissions:
    """Accepts descriptions.

    Parameters:
        checksums: the algorithms that the mover computes.
    """

    def __init__(
        self, elements: StorageElements, channels: Channels, checksums: frozenset[str]
    ) -> None:
        self._elements = elements
        self._channels = channels
        self._checksums = checksums

    def accept(
        self, request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
    ) -> NewTransferJob:
        """Check a description and make what is to be stored.

        Raises:
            GridlaneError: CAPABILITY_MISSING for fields that are not carried out; INVALID_FIELDS
                that names each violation; NO_STORAGE_ELEMENT with them; VO_AMBIGUOUS;
                PERMISSION_DENIED or SCOPE_TOO_NARROW for a path; PRECONDITION when no channel leads
                there.
        """
        job = request.transfer_job
        capabilities.refuse_job(job)
        key = _request_key(request, call)
        vo = call.choose_vo(job.vo)
        access.require_free_tags(call, job.tags)
        ends = self._checked_ends(job, call)
        for file, end in zip(job.files, ends, strict=True):
            access.require_read(call, end.source, _PERMISSION)
            replace = replaces(file.overwrite, job.overwrite)
            access.require_write(call, end.target, _PERMISSION, replace=replace)
        row = _job_row(job, call, vo)
        rank = _HIGHEST_PRIORITY - row.priority
        files = [
            _new_file(file, n, end, self._channel(file, end), rank, row.create_us)
            for n, (file, end) in enumerate(zip(job.files, ends, strict=True), 1)
        ]
        return NewTransferJob(key, row, files, _event(job, row))

    def answer(
        self,
        job: transfer_job_pb2.TransferJob,
        new: NewTransferJob,
        submitted: Submitted | None,
    ) -> transfer_job_pb2.TransferJob:
        """The stored job with its files, as it was accepted.

        Parameters:
            job: the description.
            submitted: its numbers; None when it was checked only: nothing has a name then.
        """
        answer = transfer_job_pb2.TransferJob()
        answer.CopyFrom(new.event.job)
        if submitted is None:
            answer.ClearField("name")
        numbers = [0] * len(new.files) if submitted is None else submitted.files
        for index, (file, row) in enumerate(zip(job.files, new.files, strict=True)):
            stored = answer.files.add(
                name="" if submitted is None else f"{answer.name}/files/{index + 1}",
                number=numbers[index],
                source=row.source,
                target=row.target,
                state=transfer_job_pb2.FILE_TRANSFER_STATE_READY,
                channel=self._channels.name_of(row.channel_uid),
                target_url=row.target_url,
                protocol="file",
                source_storage_element=row.source_element,
                target_storage_element=row.target_element,
                overwrite=file.overwrite,
            )
            if row.checksum is not None:
                stored.checksum.CopyFrom(file.checksum)
            if row.size_bytes is not None:
                stored.size_bytes = row.size_bytes
        return answer

    def _checked_ends(self, job: transfer_job_pb2.TransferJob, call: Call) -> list[_Ends]:
        internal = access.may_name_internal(call)
        violations: list[tuple[str, str]] = []
        unserved: list[str] = []
        ends: list[_Ends] = []
        targets: set[str] = set()
        for index, file in enumerate(job.files):
            source = self._elements.locate(file.source, internal=internal)
            target = self._elements.locate(file.target, internal=internal)
            if source is None or target is None:
                found = _unserved(file, source, target)
                unserved += [name for _, name in found]
                violations += [
                    (f"{_field(index)}.{end}", f"no storage element serves {name}")
                    for end, name in found
                ]
                continue
            ends.append(_Ends(source, target))
            url = target.location.url
            if url == source.location.url and _same_file(file):
                violations.append((f"{_field(index)}.target", "is the source"))
            if url in targets:
                violations.append(
                    (f"{_field(index)}.target", "is the target of another file of the job")
                )
            targets.add(url)
            if file.HasField("checksum"):
                violations += self._checksum_violations(job, file, _field(index))
        if unserved:
            raise _not_served(unserved[0], violations)
        if violations:
            raise errors.invalid(violations)
        return ends

    def _checksum_violations(
        self, job: transfer_job_pb2.TransferJob, file: transfer_job_pb2.FileTransfer, field: str
    ) -> list[tuple[str, str]]:
        violations = []
        algorithm = messages.algorithm_of(file.checksum)
        if algorithm not in self._checksums:
            known = ", ".join(sorted(self._checksums))
            violations.append(
                (f"{field}.checksum.type", f"{algorithm} is not computed here: {known} are")
            )
        if job.verify == VERIFY_NONE:
            violations.append(
                (f"{field}.checksum", "contradicts verify: nothing would be verified")
            )
        return violations

    def _channel(self, file: transfer_job_pb2.FileTransfer, ends: _Ends) -> Channel:
        source = "" if is_logical(file.source) else _element(ends.source)
        target = _element(ends.target)
        channel = self._channels.choose(source, target)
        if channel is None:
            raise errors.precondition(
                f"storageElements/{target}",
                f"no channel leads from {source or 'any storage element'} to {target}:"
                " have an administrator add one",
            )
        return channel


def _request_key(
    request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
) -> RequestKey | None:
    if not request.request_id:
        return None
    request_ids.check(request.request_id, now_us())
    return RequestKey(
        call.principal.owner, call.method, request.request_id, request_ids.digest(request)
    )


def _not_served(url: str, violations: Sequence[tuple[str, str]]) -> GridlaneError:
    """NO_STORAGE_ELEMENT for the first of the names, with all violations."""
    every = errors.invalid(violations)
    return GridlaneError(
        ErrorReason.NO_STORAGE_ELEMENT, every.message, {"url": url}, details=every.details
    )


def _field(index: int) -> str:
    return f"transfer_job.files[{index}]"


def _unserved(
    file: transfer_job_pb2.FileTransfer, source: Located | None, target: Located | None
) -> list[tuple[str, str]]:
    """The ends that nothing serves: their fields, and what they say."""
    ends = (("source", source, file.source), ("target", target, file.target))
    return [(field, name) for field, located, name in ends if located is None]


def _same_file(file: transfer_job_pb2.FileTransfer) -> bool:
    """Whether ends with one place are one file: a logical source may have another copy to take."""
    return is_logical(file.target) or not is_logical(file.source)


def _element(end: Located) -> str:
    return end.location.storage_element.removeprefix(PREFIX)


def _job_row(job: transfer_job_pb2.TransferJob, call: Call, vo: str) -> JobRow:
    now = now_us()
    return JobRow(
        number=0,
        uuid=uuid7(),
        owner=call.principal.owner,
        vo=vo,
        principal=call.principal.to_json(),
        state=int(JobState.READY),
        counts=f'{{"{int(FileState.READY)}":{len(job.files)}}}',
        placement=job.placement,
        overwrite=job.overwrite or OVERWRITE_NEVER,
        verify=job.verify or VERIFY_BOTH,
        max_retries=job.max_retries if job.HasField("max_retries") else DEFAULT_RETRIES,
        priority=job.priority or DEFAULT_PRIORITY,
        tags=json.dumps(dict(job.tags)) if job.tags else "",
        job_tag=job.tags.get(JOB_TAG),
        traceparent=call.traceparent,
        failure=None,
        cancel_us=None,
        create_us=now,
        update_us=now,
        end_us=None,
        owner_group=call.principal.active_group or None,
    )


def _event(job: transfer_job_pb2.TransferJob, row: JobRow) -> event_pb2.TransferEvent:
    """What is told of a new job: as `messages.job_message` would say it, made without reading
    back.
    """
    time = to_timestamp(row.create_us)
    name = messages.PREFIX + row.uuid
    return event_pb2.TransferEvent(
        event_id=uuid7(),
        time=time,
        transfer_job=name,
        job=transfer_job_pb2.TransferJob(
            name=name,
            vo=row.vo,
            placement=row.placement,
            overwrite=transfer_job_pb2.OverwriteMode.ValueType(row.overwrite),
            verify=transfer_job_pb2.VerifyMode.ValueType(row.verify),
            max_retries=row.max_retries,
            priority=row.priority,
            tags=job.tags,
            state=transfer_job_pb2.TRANSFER_JOB_STATE_READY,
            owner=messages.owner_message(row.principal),
            create_time=time,
            update_time=time,
            trace_id=row.traceparent[3:35],
            summary=[
                transfer_job_pb2.FileStateCount(
                    state=transfer_job_pb2.FILE_TRANSFER_STATE_READY, count=len(job.files)
                )
            ],
            kind=transfer_job_pb2.TRANSFER_JOB_KIND_TRANSFER,
            file_count=len(job.files),
        ),
    )


def _new_file(
    file: transfer_job_pb2.FileTransfer,
    n: int,
    ends: _Ends,
    channel: Channel,
    rank: int,
    time_us: int,
) -> NewFile:
    source, target = file.source, ends.target.location
    return NewFile(
        n=n,
        source=source,
        target=file.target,
        target_url=target.url,
        target_lfn=ends.target.lfn,
        source_element="" if is_logical(source) else ends.source.location.storage_element,
        target_element=target.storage_element,
        checksum=messages.checksum_text(file.checksum) if file.HasField("checksum") else None,
        size_bytes=file.size_bytes if file.HasField("size_bytes") else None,
        overwrite=int(file.overwrite),
        state=_READY,
        channel_uid=channel.uid,
        rank=rank,
        due_us=time_us,
    )
