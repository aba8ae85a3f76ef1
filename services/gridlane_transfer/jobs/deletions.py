"""Jobs that remove files: what makes one acceptable, and what may be removed when its turn comes.

Responsible for the rules of `SubmitDeletionJob`: whose files they must be, and what is stored.
Whose a file is, is asked again when it is removed (`plan`): it may have been registered anew
meanwhile. When files are removed is `removals`'.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridlane.ids import uuid7
from gridlane.transfer.v1 import deletion_pb2, event_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.decision import Visibility
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer import access, capabilities, messages
from gridlane_transfer.backends.base import Location
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs import descriptions
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import OVERWRITE_NEVER, VERIFY_NONE, is_logical
from gridlane_transfer.states import FileState, JobState
from gridlane_transfer.storage.bans import Operation, banned_file
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store import catalogue
from gridlane_transfer.store.catalogue import LogicalFile
from gridlane_transfer.store.jobs import MoreOfFile, NewFile, NewTransferJob, Resubmitted, Submitted
from gridlane_transfer.store.tables import FileRow, JobRow

PERMISSION: Final = "transfer.content.delete"
KIND: Final = int(transfer_job_pb2.TRANSFER_JOB_KIND_DELETION)
NO_CHANNEL: Final = ""
"""The channel of files that are removed: they go nowhere."""

_DEFAULT_PRIORITY: Final = 3
_DEFAULT_RETRIES: Final = 3
_HIGHEST_PRIORITY: Final = 5
_SUBMITTED = failpoint("transfer.deletion.committed")

Request = transfer_service_pb2.SubmitDeletionJobRequest


@dataclass(frozen=True, slots=True)
class RemoveOrder:
    """One attempt to remove a file.

    Parameters:
        copies: where it lies.
        registered: the URLs of those that are in the catalogue under `lfn`.
        looked_at: nothing may be removed; it is looked whether anything is there.
    """

    number: int
    epoch: int
    lfn: str
    copies: Sequence[Location]
    registered: Sequence[str]
    looked_at: bool


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
        key = _key(request, call)
        return await self._accepted(request, key, call, retry_of=None)

    async def again(
        self, job: JobRow, files: Sequence[FileRow], key: RequestKey | None, call: Call
    ) -> transfer_job_pb2.TransferJob:
        """Try again what failed of a job, as a new one of the same owner.

        Parameters:
            call: as its owner would make it.

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
        return await self._accepted(request, key, call, retry_of=job.uuid)

    async def _accepted(
        self, request: Request, key: RequestKey | None, call: Call, retry_of: str | None
    ) -> transfer_job_pb2.TransferJob:
        _require_free_tags(request, call)
        located = self._located(request)
        await self._require_theirs(located, call)
        vo = _vo(request.vo, located, call)
        row = _job_row(request, call, vo)._replace(retry_of=retry_of)
        files = [self._file(request.files[n - 1], row, n, one) for n, one in enumerate(located, 1)]
        row = row._replace(counts=_counts(files))
        new = NewTransferJob(key, row, files, _event(row))
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
        unserved: list[str] = []
        found: list[Located] = []
        seen: set[str] = set()
        if request.metadata and not descriptions.is_json(request.metadata):
            violations.append(("metadata", "is no JSON text"))
        if request.backend and request.backend != descriptions.BACKENDS + self._backend:
            known = descriptions.BACKENDS + self._backend
            violations.append(("backend", f"there is no such backend: {known} is"))
        for index, file in enumerate(request.files):
            field = f"files[{index}]"
            if file.metadata and not descriptions.is_json(file.metadata):
                violations.append((f"{field}.metadata", "is no JSON text"))
            located = self._elements.locate(file.file, operation=Operation.REMOVE)
            if located is None:
                unserved.append(file.file)
                violations.append((f"{field}.file", f"no storage element serves {file.file}"))
                continue
            name = located.lfn if is_logical(file.file) else located.location.url
            if name in seen:
                violations.append((f"{field}.file", "is another file of the job"))
            seen.add(name)
            found.append(located)
        if unserved:
            every = errors.invalid(violations)
            raise GridlaneError(
                ErrorReason.NO_STORAGE_ELEMENT,
                every.message,
                {"url": unserved[0]},
                details=every.details,
            )
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
                raise errors.permission_denied(PERMISSION)
            access.require_removal_scope(call, one)

    def _file(
        self, asked: deletion_pb2.DeletionFile, row: JobRow, n: int, located: Located
    ) -> NewFile:
        element = located.location.storage_element
        activity = row.activity or ""
        more = None
        if asked.metadata or row.activity:
            more = MoreOfFile(
                failure=None,
                failure_class=None,
                activity=row.activity,
                metadata=asked.metadata or None,
                scitag=None,
                guid=None,
                queue_until_us=None,
                alternatives=None,
                route=None,
                hop=0,
            )
        file = NewFile(
            n=n,
            source=asked.file,
            target="",
            target_url="",
            target_lfn=located.lfn,
            source_element=element,
            target_element="",
            checksum=None,
            size_bytes=None,
            overwrite=0,
            state=int(FileState.READY),
            channel_uid=NO_CHANNEL,
            rank=_HIGHEST_PRIORITY - row.priority,
            due_us=row.create_us,
            queue=f"{row.vo}/{activity}",
            more=more,
        )
        return self._as_bans_say(file, row)

    def _as_bans_say(self, file: NewFile, row: JobRow) -> NewFile:
        """A file at a banned element waits, where the ban lets it, and is refused otherwise."""
        found = self._elements.barred(file.source_element, Operation.REMOVE, row.vo)
        if found is None:
            return file
        if not found.accepts:
            raise errors.precondition(
                file.source_element,
                f"{file.source_element} is banned: {found.ban.reason}: submit it when the ban ends",
            )
        stopped = banned_file(found, row.create_us, row.create_us)
        failure = messages.failure_message(stopped.failure)
        return file._replace(state=int(stopped.state), due_us=stopped.due_us).with_failure(
            failure.SerializeToString(), failure.failure_class
        )

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


def plan(
    file: FileRow,
    job: JobRow,
    elements: StorageElements,
    known: Mapping[str, LogicalFile],
    right: Visibility,
) -> RemoveOrder | Failed:
    """The order for an attempt.

    Parameters:
        known: the catalogue's answer to the file's logical name.
        right: how far its owner's right to remove reaches now.

    Returns:
        The order, or why there cannot be one: class BACKEND_REFUSED when no element serves the file
        any more, PERMISSION when it is another's now.
    """
    located = elements.locate(file.source, internal=True, operation=Operation.REMOVE)
    if located is None:
        return Failed(
            FailureClass.BACKEND_REFUSED,
            f"no storage element serves {file.source} any more",
            "have the storage element configured again",
        )
    logical = known.get(located.lfn)
    manages = right.covers(vo=located.vo)
    if logical is not None and not manages and not right.covers(owner=logical.owner):
        return Failed(
            FailureClass.PERMISSION,
            f"{file.source} is another's",
            "have its owner or a manager of the VO remove it",
        )
    copies = [located]
    if logical is not None and is_logical(file.source):
        found = [elements.locate(r.url, operation=Operation.REMOVE) for r in logical.replicas]
        copies = [one for one in found if one is not None] or copies
    urls = [copy.location.url for copy in copies]
    registered = [] if logical is None else [u for u in urls if logical.replica(u) is not None]
    if logical is not None and is_logical(file.source):
        registered = [replica.url for replica in logical.replicas]
    return RemoveOrder(
        number=file.number,
        epoch=file.lease_epoch,
        lfn=located.lfn,
        copies=[copy.location for copy in copies],
        registered=registered,
        looked_at=not manages and not registered,
    )


def not_yours(file: FileRow) -> Failed:
    """A file that is there, and registered to nobody, is its VO's managers' to remove."""
    return Failed(
        FailureClass.PERMISSION,
        f"{file.source} is in nobody's name: only managers of its VO remove it",
        "have a manager of the VO remove it, or register it",
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
        raise errors.permission_denied(PERMISSION, vo)
    return vo


def _require_free_tags(request: Request, call: Call) -> None:
    try:
        access.require_free_tags(call, request.tags)
    except GridlaneError:
        reserved = sorted(tag for tag in request.tags if tag.startswith("gridlane."))
        why = "keys beginning with 'gridlane.' are Gridlane's own"
        raise errors.invalid([(f"tags[{tag}]", why) for tag in reserved]) from None


def _key(request: Request, call: Call) -> RequestKey | None:
    if not request.request_id:
        return None
    request_ids.check(request.request_id, now_us())
    digest = request_ids.digest(request)
    return RequestKey(call.principal.owner, call.method, request.request_id, digest)


def _counts(files: Sequence[NewFile]) -> str:
    counts: dict[str, int] = {}
    for file in files:
        counts[str(file.state)] = counts.get(str(file.state), 0) + 1
    return json.dumps(counts)


def _job_row(request: Request, call: Call, vo: str) -> JobRow:
    now = now_us()
    return JobRow(
        number=0,
        uuid=uuid7(),
        owner=call.principal.owner,
        vo=vo,
        principal=call.principal.to_json(),
        state=int(JobState.READY),
        counts="{}",
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
        kind=KIND,
        activity=request.activity or None,
        metadata=request.metadata or None,
    )


def _event(row: JobRow) -> event_pb2.TransferEvent:
    message = messages.job_message(row)
    return event_pb2.TransferEvent(
        event_id=uuid7(),
        time=to_timestamp(row.create_us),
        transfer_job=message.name,
        job=message,
    )
