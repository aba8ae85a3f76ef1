"""Jobs that remove files: what makes one acceptable.

Responsible for the rules of `SubmitDeletionJob`: whose files they must be, and what is stored.
Whose a file is, is asked again when it is removed (`removal_orders`): it may have been registered
anew meanwhile. When files are removed is `removals`'.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from gridlane.ids import uuid7
from gridlane.transfer.v1 import deletion_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.audit import AuditEntry
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer import access, capabilities, messages
from gridlane_transfer.backends.base import BACKENDS
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import NO_CHANNEL, Channels
from gridlane_transfer.jobs import descriptions
from gridlane_transfer.jobs.earlier_calls import EarlierCalls, key_of
from gridlane_transfer.moving.file_transfers import OVERWRITE_NEVER, VERIFY_NONE, is_logical
from gridlane_transfer.states import FileState, JobKind, JobState
from gridlane_transfer.storage import barred_ends
from gridlane_transfer.storage.bans import Barred, Operation
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store import catalogue
from gridlane_transfer.store.jobs import MoreOfFile, NewFile, NewTransferJob, Resubmitted, Submitted
from gridlane_transfer.store.sweeps import HIGHEST_PRIORITY
from gridlane_transfer.store.tables import FileRow, JobRow

_PERMISSION: Final = "transfer.content.delete"

_DEFAULT_PRIORITY: Final = 3
_DEFAULT_RETRIES: Final = 3
_SUBMITTED = failpoint("transfer.deletion.committed")

Request = transfer_service_pb2.SubmitDeletionJobRequest


class Deletions:
    """Accepts jobs that remove files.

    Parameters:
        backend: the name of the mover.
        submit: the write, through the group commit.
        reread: a job that came before, with its files, as its caller may see it now.
        wake: has files looked for that are to be removed.
    """

    def __init__(
        self,
        db: Database,
        elements: StorageElements,
        channels: Channels,
        *,
        backend: str,
        submit: WriteKind[NewTransferJob, Submitted | Resubmitted],
        reread: Callable[[str, Call], Awaitable[transfer_job_pb2.TransferJob]],
        wake: Callable[[], None],
    ) -> None:
        self._db = db
        self._earlier = EarlierCalls(db)
        self._elements = elements
        self._channels = channels
        self._backend = backend
        self._submit = submit
        self._reread = reread
        self._wake = wake

    async def submit(self, request: Request, call: Call) -> transfer_job_pb2.TransferJob:
        """Accept a job; the answer means that it is durable.

        Raises:
            GridlaneError: CAPABILITY_MISSING, INVALID_FIELDS, NO_STORAGE_ELEMENT, VO_AMBIGUOUS;
                PERMISSION_DENIED: one of the files is another's; SCOPE_TOO_NARROW; PRECONDITION: an
                element is banned; REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD.
        """
        capabilities.refuse_deletion(request)
        key = key_of(request, call)
        earlier = None if request.validate_only else await self._earlier.made(key)
        if earlier is not None:
            return await self._reread(earlier, call)
        return await self._accepted(request, key, call)

    async def again(
        self,
        job: JobRow,
        files: Sequence[FileRow],
        key: RequestKey | None,
        call: Call,
        entry: AuditEntry | None,
    ) -> transfer_job_pb2.TransferJob:
        """Try again what failed of a job, as a new one of the same owner.

        Parameters:
            call: as its owner would make it.
            entry: goes into the audit with it.

        Raises:
            GridlaneError: as `submit`.
        """
        request = Request(
            vo=job.vo,
            priority=job.priority,
            tags=json.loads(job.tags) if job.tags else None,
            activity=job.activity or "",
            metadata=job.metadata or "",
            max_retries=job.max_retries,
        )
        for file in files:
            request.files.add(file=file.source, metadata=file.metadata or "")
        return await self._accepted(request, key, call, retry_of=job.uuid, entry=entry)

    async def _accepted(
        self,
        request: Request,
        key: RequestKey | None,
        call: Call,
        *,
        retry_of: str | None = None,
        entry: AuditEntry | None = None,
    ) -> transfer_job_pb2.TransferJob:
        _require_free_tags(request, call)
        located = self._located(request)
        await self._require_theirs(located, call)
        vo = _vo(request.vo, located, call)
        row = _job_row(request, call, vo)._replace(retry_of=retry_of)
        files = [
            _file(file, row, n, one)
            for n, (file, one) in enumerate(zip(request.files, located, strict=True), 1)
        ]
        new = NewTransferJob(key, row, files, messages.accepted_event(row), entry=entry)
        new = barred_ends.blocked(new, self._waiting(new))
        if request.validate_only:
            return self._answer(new, None)
        outcome = await self._submit(new, deadline=call.deadline)
        if isinstance(outcome, Resubmitted):
            return await self._reread(outcome.name, call)
        _SUBMITTED()
        self._wake()
        return self._answer(new, outcome)

    def _located(self, request: Request) -> list[Located]:
        """What the names stand for."""
        violations: list[tuple[str, str]] = []
        unserved: list[tuple[str, str]] = []
        found: list[Located] = []
        seen: set[str] = set()
        if request.metadata and not descriptions.is_json(request.metadata):
            violations.append(("metadata", "is no JSON text"))
        if request.backend and request.backend != BACKENDS + self._backend:
            known = BACKENDS + self._backend
            violations.append(("backend", f"there is no such backend: {known} is"))
        for index, file in enumerate(request.files):
            field = f"files[{index}]"
            if file.metadata and not descriptions.is_json(file.metadata):
                violations.append((f"{field}.metadata", "is no JSON text"))
            located = self._elements.locate(file.file, operation=Operation.REMOVE)
            if located is None:
                unserved.append((file.file, f"{field}.file"))
                violations.append((f"{field}.file", f"no storage element serves {file.file}"))
                continue
            name = located.lfn if is_logical(file.file) else located.location.url
            if name in seen:
                violations.append((f"{field}.file", "is another file of the job"))
            seen.add(name)
            found.append(located)
        if unserved:
            raise errors.no_storage_element(*unserved[0], violations)
        if violations:
            raise errors.invalid(violations)
        return found

    async def _require_theirs(self, located: Sequence[Located], call: Call) -> None:
        """Refuse files of others, without a word about which ones."""
        lfns = sorted({one.lfn for one in located})
        known = await self._db.read(lambda conn: catalogue.files(conn, lfns))
        for one in located:
            file = known.get(one.lfn)
            if not _may_ask(call, one, file):
                raise errors.permission_denied(_PERMISSION)
            access.require_removal_scope(call, one)

    def _waiting(self, new: NewTransferJob) -> dict[int, Barred]:
        """The files, by their places, that wait for the end of bans of their elements.

        Raises:
            GridlaneError: PRECONDITION: a ban does not let them wait.
        """
        found: dict[int, Barred] = {}
        for index, file in enumerate(new.files):
            barred = self._elements.barred(file.source_element, Operation.REMOVE, new.row.vo)
            if barred is not None:
                found[index] = barred_ends.accepted([barred])
        return found

    def _answer(
        self, new: NewTransferJob, submitted: Submitted | None
    ) -> transfer_job_pb2.TransferJob:
        """The stored job with its files, as it was accepted; None: it was checked only."""
        answer = transfer_job_pb2.TransferJob()
        answer.CopyFrom(new.event.job)
        if submitted is None:
            answer.ClearField("name")
        numbers = [0] * len(new.files) if submitted is None else submitted.files
        for number, file in zip(numbers, new.files, strict=True):
            stored = messages.file_message(file.as_stored(), new.row, self._channels)
            stored.number = number
            if submitted is None:
                stored.ClearField("name")
            answer.files.append(stored)
        return answer


def _file(asked: deletion_pb2.DeletionFile, row: JobRow, n: int, located: Located) -> NewFile:
    """The row of a file, the n-th of its job."""
    more = None
    if asked.metadata or row.activity:
        more = MoreOfFile(activity=row.activity, metadata=asked.metadata or None)
    return NewFile(
        n=n,
        source=asked.file,
        target="",
        target_url="",
        target_lfn=located.lfn,
        source_element=located.location.storage_element,
        target_element="",
        checksum=None,
        size_bytes=None,
        overwrite=0,
        state=int(FileState.READY),
        channel_uid=NO_CHANNEL,
        rank=HIGHEST_PRIORITY - row.priority,
        due_us=row.create_us,
        queue=f"{row.vo}/{row.activity or ''}",
        more=more,
    )


def _may_ask(call: Call, located: Located, file: LogicalFile | None) -> bool:
    """Whether the caller may ask for a file's removal: managers of its VO for all, others for their
    own, and for what is not registered (any more), which counts as removed when it is not there.
    """
    if located.internal:
        return False
    if call.visibility.covers(vo=located.vo):
        return True
    if file is None:
        return call.visibility.owner is not None and located.vo in call.principal.vos
    return file.owner == call.visibility.owner


def _vo(requested: str, located: Sequence[Located], call: Call) -> str:
    """The VO that the job belongs to: one that the caller belongs to or manages, or that of files
    of its own.
    """
    principal, visibility = call.principal, call.visibility
    vo = requested
    if not vo:
        if len(principal.vos) > 1:
            raise errors.vo_ambiguous(principal.vos)
        vo = next(iter(principal.vos), "")
    theirs = visibility.everything or vo in visibility.vos
    if visibility.owner is not None:
        theirs = theirs or vo in principal.vos or any(vo == one.vo for one in located)
    if not theirs or vo not in call.decision.existing_vos:
        raise errors.permission_denied(_PERMISSION, vo)
    return vo


def _require_free_tags(request: Request, call: Call) -> None:
    try:
        access.require_free_tags(call, request.tags)
    except GridlaneError:
        reserved = sorted(tag for tag in request.tags if tag.startswith("gridlane."))
        why = "keys beginning with 'gridlane.' are Gridlane's own"
        raise errors.invalid([(f"tags[{tag}]", why) for tag in reserved]) from None


def _job_row(request: Request, call: Call, vo: str) -> JobRow:
    now = now_us()
    return JobRow(
        number=0,
        uuid=uuid7(),
        owner=call.principal.owner,
        vo=vo,
        principal=call.principal.to_json(),
        state=int(JobState.READY),
        counts=f'{{"{int(FileState.READY)}":{len(request.files)}}}',
        placement=False,
        overwrite=OVERWRITE_NEVER,
        verify=VERIFY_NONE,
        max_retries=request.max_retries if request.HasField("max_retries") else _DEFAULT_RETRIES,
        priority=request.priority or _DEFAULT_PRIORITY,
        tags=json.dumps(dict(request.tags)) if request.tags else "",
        job_tag=request.tags.get("gridlane.job"),
        traceparent=call.traceparent,
        failure=None,
        cancel_us=None,
        create_us=now,
        update_us=now,
        end_us=None,
        owner_group=call.principal.active_group or None,
        kind=int(JobKind.DELETION),
        activity=request.activity or None,
        metadata=request.metadata or None,
    )
