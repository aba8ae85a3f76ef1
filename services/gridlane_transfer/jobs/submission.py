"""What makes a submitted transfer job acceptable, and what of it is stored.

Responsible for the order of the checks on a description and for the rows made of it. Stores
nothing, and reads nothing but where the copies of logical sources lie, once all else holds. What
the names stand for is `named_ends`', what contradicts itself `descriptions`', what is not carried
out `capabilities`'. The rules of single fields stand in the contract.
"""

import json
from collections.abc import Sequence

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import given_us, now_us
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer import access, capabilities, messages
from gridlane_transfer.catalogue.base import Catalogue
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs import descriptions, options
from gridlane_transfer.jobs.named_ends import Ends, NamedEnds
from gridlane_transfer.jobs.new_files import NewFiles, rarely_asked
from gridlane_transfer.moving.copies import Copies
from gridlane_transfer.moving.file_transfers import (
    OVERWRITE_NEVER,
    VERIFY_BOTH,
    VERIFY_NONE,
    VERIFY_SOURCE,
    VERIFY_TARGET,
    is_logical,
    may_replace,
)
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.states import FileState, JobState
from gridlane_transfer.storage import barred_ends
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.jobs import NewTransferJob, Submitted
from gridlane_transfer.store.tables import JobRow

DEFAULT_PRIORITY = 3
CHANNELS_RETRIES = -1
"""Stands for the retries of a job that leaves their number to its files' channels."""
JOB_TAG = "gridlane.job"
"""The tag that ties a transfer to the job it works for."""

_PERMISSION = "transfer.jobs.submit"


class Submissions:
    """Accepts descriptions.

    Parameters:
        order: which source of several is tried first.
        catalogue: asked where the copies of logical sources lie.
        backend: the name of the mover, and `checksums` the algorithms that it computes.
    """

    def __init__(
        self,
        elements: StorageElements,
        channels: Channels,
        order: SourceOrder,
        catalogue: Catalogue,
        *,
        backend: str,
        checksums: frozenset[str],
    ) -> None:
        self._elements = elements
        self._channels = channels
        self._order = order
        self._catalogue = catalogue
        self._backend = backend
        self._checksums = checksums

    async def accept(
        self, request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
    ) -> NewTransferJob:
        """Check a description and make what is to be stored.

        Raises:
            GridlaneError: CAPABILITY_MISSING for fields that are not carried out; INVALID_FIELDS
                that names each violation; NO_STORAGE_ELEMENT with them; VO_AMBIGUOUS;
                PERMISSION_DENIED or SCOPE_TOO_NARROW for a path; PRECONDITION when a storage
                element is banned or drains, or no channel leads there; UNAVAILABLE when the
                catalogue does not answer, which is asked for logical sources alone.
        """
        job = request.transfer_job
        described = list(job.files)
        asks = [any(rarely_asked(file)) for file in described]
        capabilities.refuse_job(job)
        key = request_key(request, call)
        vo = call.choose_vo(job.vo)
        access.require_free_tags(call, job.tags)
        row = _job_row(job, call, vo)
        wrong = descriptions.violations(job, row.create_us, self._backend, self._checksums)
        named = NamedEnds(
            self._elements, internal=access.may_name_internal(call), vo=vo, uuid=row.uuid
        )
        ends = named.of(job, asks, wrong)
        _refuse_contradicting(self._elements, job, ends)
        _refuse_uncomputed(self._elements, job, ends)
        _require_rights(call, job, ends)
        copies = await self._copies(_logical_sources(described, asks), job.protocols, vo)
        waiting = barred_ends.waiting(self._elements, job, vo, ends)
        new = NewFiles(job, row, self._channels, self._order, copies)
        files = [
            new.of(file, n, end, asks=rare)
            for n, (file, end, rare) in enumerate(zip(described, ends, asks, strict=True), 1)
        ]
        return barred_ends.blocked(
            NewTransferJob(key, row, files, messages.accepted_event(row)), waiting
        )

    async def _copies(
        self, lfns: Sequence[str], protocols: Sequence[str], vo: str
    ) -> Copies | None:
        """The copies of a job's logical sources, asked for together; None when it has none."""
        if not lfns:
            return None
        found = zip(lfns, await self._catalogue.resolve(lfns), strict=True)
        known = {lfn: logical for lfn, logical in found if logical is not None}
        return Copies(
            known,
            self._elements,
            self._channels,
            self._order,
            vo=vo,
            protocols=tuple(protocols),
        )

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
            name = "" if submitted is None else f"{answer.name}/files/{index + 1}"
            number = numbers[index]
            if row.more is not None:
                stored = answer.files.add()
                stored.CopyFrom(messages.file_message(row.as_stored(), new.row, self._channels))
                stored.name, stored.number = name, number
                continue
            # As `messages.file_message` would say it, made without the row; fields given to `add`
            # take twice as long.
            stored = answer.files.add()
            stored.name = name
            stored.number = number
            stored.source = row.source
            stored.target = row.target
            stored.state = transfer_job_pb2.FileTransferState.ValueType(row.state)
            stored.channel = self._channels.name_of(row.channel_uid)
            stored.target_url = row.target_url
            stored.protocol = row.target_url.partition(":")[0]
            stored.source_storage_element = row.source_element
            stored.target_storage_element = row.target_element
            stored.overwrite = file.overwrite
            if row.checksum is not None:
                stored.checksum.CopyFrom(file.checksum)
            if row.size_bytes is not None:
                stored.size_bytes = row.size_bytes
        return answer


def _logical_sources(
    files: Sequence[transfer_job_pb2.FileTransfer], asks: Sequence[bool]
) -> list[str]:
    """The logical names that files may be read by, each once.

    Parameters:
        asks: of each file, whether it may have further sources.
    """
    names = [name for file in files if is_logical(name := file.source)]
    if any(asks):
        for file in files:
            names += filter(is_logical, file.alternative_sources)
    return list(dict.fromkeys(names))


def _refuse_contradicting(
    elements: StorageElements, job: transfer_job_pb2.TransferJob, ends: Sequence[Ends]
) -> None:
    """Refuse what a storage element says of its files when the job does not, and the job
    contradicts.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    if job.HasField("strict_copy") or job.verify in (0, VERIFY_NONE):
        return
    for name in sorted({end.target.location.storage_element for end in ends}):
        element = elements.get(name)
        if element is not None and element.settings.transfer_defaults.strict_copy:
            why = f"contradicts strict_copy, which {name} has: set strict_copy to false"
            raise errors.invalid([("transfer_job.verify", why)])


def _refuse_uncomputed(
    elements: StorageElements, job: transfer_job_pb2.TransferJob, ends: Sequence[Ends]
) -> None:
    """Refuse a checksum that an end is to verify and is known not to compute.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    verify = VERIFY_NONE if job.strict_copy else job.verify or VERIFY_BOTH
    violations = []
    for index, (file, end) in enumerate(zip(job.files, ends, strict=True)):
        if not file.HasField("checksum"):
            continue
        asked = [end.target] if verify in (VERIFY_BOTH, VERIFY_TARGET) else []
        if verify in (VERIFY_BOTH, VERIFY_SOURCE) and not is_logical(file.source):
            asked.append(end.source)
        for located in asked:
            element = elements.get(located.location.storage_element)
            computed = [] if element is None else element.settings.checksum_types
            if computed and file.checksum.type not in computed:
                why = f"{located.location.storage_element} does not compute it"
                violations.append((f"transfer_job.files[{index}].checksum.type", why))
    if violations:
        raise errors.invalid(violations)


def _require_rights(call: Call, job: transfer_job_pb2.TransferJob, ends: Sequence[Ends]) -> None:
    """Refuse a caller who may not read the sources, or write where the bytes go."""
    by_vo = access.vo_decides(call)
    held: set[tuple[str, str]] = set()
    for file, end in zip(job.files, ends, strict=True):
        straight = not end.alternatives and not end.stops
        vos = end.source.vo, end.target.vo
        if by_vo and straight and vos in held:
            continue
        access.require_read(call, end.source, _PERMISSION)
        replace = may_replace(file.overwrite, job.overwrite)
        access.require_write(call, end.target, _PERMISSION, replace=replace)
        held.add(vos)
        if not straight:
            _require_rights_beside(call, job, end)


def _require_rights_beside(call: Call, job: transfer_job_pb2.TransferJob, ends: Ends) -> None:
    """The same for a file's other sources, and where it stops on the way."""
    for source in ends.alternatives:
        access.require_read(call, source, _PERMISSION)
    for stop in ends.stops:
        access.require_write(
            call, stop.located, _PERMISSION, replace=stop.stays and job.overwrite_intermediate
        )
        if stop.stays:
            access.require_read(call, stop.located, _PERMISSION)


def request_key(
    request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
) -> RequestKey | None:
    """What a submission with an id is known by; None for one without.

    Raises:
        GridlaneError: INVALID_FIELDS, REQUEST_ID_TOO_OLD.
    """
    if not request.request_id:
        return None
    request_ids.check(request.request_id, now_us())
    return RequestKey(
        call.principal.owner, call.method, request.request_id, request_ids.digest(request)
    )


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
        verify=VERIFY_NONE if job.strict_copy else job.verify or VERIFY_BOTH,
        max_retries=job.max_retries if job.HasField("max_retries") else CHANNELS_RETRIES,
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
        total_bytes=sum(file.size_bytes for file in job.files),
        activity=job.activity or None,
        metadata=job.metadata or None,
        expire_us=given_us(job, "expire_time"),
        options=options.asked_of(job).to_json(),
    )
