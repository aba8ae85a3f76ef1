"""Failed files tried again: as a new job of the same owner, since what is final never changes.

Responsible for which files, for whose rights count, and for the new job's description, which is the
old one's. The new job comes in as a streamed one does (`streamed_jobs`), so that any number of
files can be tried again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.audit import AuditEntry
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import decide
from gridlane_kit.identity import Principal
from gridlane_kit.pages import MAX_PAGE_SIZE, Page
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.request_ids import RequestKey
from gridlane_transfer import messages
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.earlier_calls import key_of
from gridlane_transfer.jobs.reach import Reach, if_anothers, place_of, require_its_files
from gridlane_transfer.jobs.streamed_jobs import IncomingJob, StreamedJobs
from gridlane_transfer.moving import rights
from gridlane_transfer.moving.file_transfers import VERIFY_BOTH
from gridlane_transfer.states import JOB_FINAL, FileState, JobKind, JobState
from gridlane_transfer.store import jobs
from gridlane_transfer.store.tables import FileRow, JobRow

_WORKLOAD: Final = "workload"
_FAILED: Final = frozenset({FileState.FAILED, FileState.CATALOG_FAILED})
_TRIED_WHEN_NAMED: Final = _FAILED | {FileState.CANCELED}

RemoveAgain = Callable[
    [JobRow, Sequence[FileRow], RequestKey | None, Call, AuditEntry | None],
    Awaitable[transfer_job_pb2.TransferJob],
]


class Retries:
    """The call.

    Parameters:
        policy: what the owners may do now.
        remove_again: the same for a job that removes files.
        reread: a job as its caller may see it now, with its first files.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        streamed: StreamedJobs,
        reach: Reach,
        policy: PolicyHolder,
        *,
        remove_again: RemoveAgain,
        reread: Callable[[str, Call], Awaitable[transfer_job_pb2.TransferJob]],
    ) -> None:
        self._db = db
        self._channels = channels
        self._streamed = streamed
        self._reach = reach
        self._policy = policy
        self._remove_again = remove_again
        self._reread = reread

    async def retry(
        self, request: transfer_service_pb2.RetryTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        """Try failed files again; the answer, the new job, means that it is durable.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED; INVALID_FIELDS for a file of another job;
                ILLEGAL_TRANSITION: the job has not ended, or there is no such failed file;
                REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD; as `Submissions.accept`.
        """
        require_its_files(request.name, "files", request.files)
        key = key_of(request, call)
        job = await self._reach.one(request.name, call)
        whole = await self._db.read(lambda conn: jobs.may_act_on_all(conn, job, call.visibility))
        if not whole:
            raise errors.permission_denied(call.decision.permission, request.name)
        if job.state not in JOB_FINAL:
            raise _not_from(request.name, JobState(job.state).name)
        owner = self._owners_call(job, call)
        entry = if_anothers(call, request.reason)(job)
        if job.kind == JobKind.DELETION:
            files = [row async for rows in self._files(request, job) for row in rows]
            return await self._remove_again(job, files, key, owner, entry)
        incoming = IncomingJob(self._streamed, _described(job), owner, retry_of=job.uuid)
        if key is not None:
            await incoming.look_for(key)
        try:
            async for rows in self._files(request, job):
                await incoming.add(
                    [messages.file_message(row, job, self._channels) for row in rows]
                )
            made = await incoming.finish(key, entry)
        except BaseException:
            incoming.abandon()
            raise
        return await self._reread(made.name, owner)

    async def _files(
        self, request: transfer_service_pb2.RetryTransferJobRequest, job: JobRow
    ) -> AsyncIterator[Sequence[FileRow]]:
        """The files to try again, some at a time, in order."""
        if request.files:
            yield await self._named(request.files, job)
            return
        page = Page(MAX_PAGE_SIZE, None, b"")
        states = [int(state) for state in _FAILED]
        found = False
        while True:
            read = partial(jobs.files_in, job=job, states=states, page_=page)
            rows, _ = await self._db.read(read)
            if rows:
                found = True
                yield rows
            if len(rows) < page.size:
                break
            page = Page(page.size, [rows[-1].n], b"")
        if not found:
            raise _not_from(request.name, JobState(job.state).name)

    async def _named(self, names: Sequence[str], job: JobRow) -> Sequence[FileRow]:
        ns = [place_of(name) for name in names]
        rows = await self._db.read(lambda conn: jobs.files_by_n(conn, job.number, ns))
        for name, n in zip(names, ns, strict=True):
            if n not in rows:
                raise errors.not_found(name)
            if rows[n].state not in _TRIED_WHEN_NAMED:
                raise _not_from(name, FileState(rows[n].state).name)
        return [rows[n] for n in sorted(rows)]

    def _owners_call(self, job: JobRow, call: Call) -> Call:
        """The call as its owner would make it: the new job is the owner's, by the owner's rights.

        Raises:
            GridlaneError: PERMISSION_DENIED: the owner has them no more.
        """
        principal = Principal.from_json(job.principal)
        if job.job_tag is not None:
            principal = principal.on_behalf(_WORKLOAD)
        permission = rights.permission(job)
        decision = decide(principal, permission, self._policy.current, now_us())
        if not decision.allowed:
            raise errors.permission_denied(
                permission,
                messages.PREFIX + job.uuid,
                f"its owner, {principal.subject}, may not submit it again",
            )
        return Call(
            principal,
            call.deadline,
            call.trace,
            method=call.method,
            decision=decision,
            peer=call.peer,
        )


def _described(job: JobRow) -> transfer_job_pb2.TransferJob:
    """A job's description, without files, as it could be submitted again now."""
    described = messages.job_message(job)
    if job.expire_us is not None and job.expire_us <= now_us():
        described.ClearField("expire_time")
    if not described.HasField("strict_copy") and described.verify == VERIFY_BOTH:
        # What holds where nothing is said, which a storage element's own strict_copy goes before.
        described.ClearField("verify")
    return described


def _not_from(name: str, state: str) -> errors.GridlaneError:
    return errors.illegal_transition(name, state, FileState.READY.name)
