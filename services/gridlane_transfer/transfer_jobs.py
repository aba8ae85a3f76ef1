"""Transfer jobs: submitted, read, listed, watched, cancelled.

Responsible for what each call does, between the gRPC shell and the store. What a description must
be is `submission`, how files move is `reconciler`.
"""

from collections.abc import AsyncIterator, Callable, Sequence

from sqlalchemy import select

from gridlane.transfer.v1 import event_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import decide
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed, Position
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.pages import Keyset, fetch_page, page_request
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.resume_tokens import ResumeTokens
from gridlane_transfer import capabilities, messages
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.channels import Channels
from gridlane_transfer.failures import canceled
from gridlane_transfer.states import FileState, JobState
from gridlane_transfer.store import jobs
from gridlane_transfer.store.jobs import Cancel, Canceled, NewTransferJob, Resubmitted, Submitted
from gridlane_transfer.store.tables import FEED, FileRow, JobRow
from gridlane_transfer.submission import JOB_TAG, Submissions

_SUBMITTED = failpoint("transfer.submit.committed")
_CANCELED = failpoint("transfer.cancel.committed")
_HISTORY = Keyset(FEED.event.c.position)


def _state(word: str) -> int:
    try:
        return int(JobState[word])
    except KeyError:
        raise ValueError(f"one of {', '.join(state.name for state in JobState)}") from None


FILTER = FilterRules(
    {"state": Field(_state), "vo": Field(str), "tags.gridlane.job": Field(str)},
    combinations=[{"state"}, {"vo"}, {"tags.gridlane.job"}],
)
"""What listings can be filtered by; each has its index."""


class TransferJobs:
    """The calls.

    Parameters:
        policy: who may see what a call may not touch.
        submit, cancel: the writes, through the group commit.
        wake: has due files looked for.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        channels: Channels,
        submissions: Submissions,
        backend: TransferBackend,
        policy: PolicyHolder,
        *,
        submit: WriteKind[NewTransferJob, Submitted | Resubmitted],
        cancel: WriteKind[Cancel, Canceled],
        wake: Callable[[], None],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._feed = feed
        self._channels = channels
        self._submissions = submissions
        self._backend = backend
        self._policy = policy
        self._submit = submit
        self._cancel = cancel
        self._wake = wake
        self._abort = abort
        # A job may have a thousand files: few of them are read at once.
        self._whole = GroupedRead(db, jobs.read_within, max_batch=50)
        self._bare = GroupedRead(db, jobs.read)

    async def submit(
        self, request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        """Accept a job; the answer means that it is durable.

        Raises:
            GridlaneError: as `Submissions.accept`; REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD.
        """
        new = self._submissions.accept(request, call)
        if new.row.job_tag is not None:
            call.about_job(request.transfer_job.tags[JOB_TAG])
        if request.validate_only:
            return self._submissions.answer(request.transfer_job, new, None)
        outcome = await self._submit(new, deadline=call.deadline)
        if isinstance(outcome, Resubmitted):
            return await self.get(outcome.name, call)
        _SUBMITTED()
        self._wake()
        return self._submissions.answer(request.transfer_job, new, outcome)

    async def get(self, name: str, call: Call) -> transfer_job_pb2.TransferJob:
        """A job with its files.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        found = await self._whole.get(jobs.Asked(_uuid(name), call.visibility))
        if found is None:
            raise errors.not_found(name)
        return self._message(*found)

    async def batch_get(
        self, names: Sequence[str], call: Call
    ) -> list[transfer_job_pb2.TransferJob | GridlaneError]:
        """Jobs without their files, each or why there is none, in the order asked."""
        uuids = [_uuid(name) for name in names]
        if call.visibility.channels:
            # What lies on a channel is known by the files alone.
            reached = await self._db.read(lambda conn: jobs.visible(conn, uuids, call.visibility))
            rows = [reached.get(uuid) for uuid in uuids]
        else:
            found = await self._bare.get_many(uuids)
            rows = [
                row if row is not None and jobs.covers(call.visibility, row) else None
                for row in found
            ]
        return [
            errors.not_found(name) if row is None else messages.job_message(row)
            for name, row in zip(names, rows, strict=True)
        ]

    async def list_jobs(
        self, request: transfer_service_pb2.ListTransferJobsRequest, call: Call
    ) -> tuple[list[transfer_job_pb2.TransferJob], str]:
        """A page of jobs without files, newest first, and the next page's token."""
        asked = FILTER.parse(request.filter)
        page = page_request(
            jobs.NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListTransferJobs", asked.canonical, call.principal.owner),
        )
        visibility = call.visibility
        rows, token = await self._db.read(lambda conn: jobs.page(conn, visibility, asked, page))
        return [messages.job_message(row) for row in rows], token

    async def list_files(
        self, request: transfer_service_pb2.ListFileTransfersRequest, call: Call
    ) -> tuple[list[transfer_job_pb2.FileTransfer], str]:
        """A page of a job's files in order, and the next page's token.

        Raises:
            GridlaneError: CAPABILITY_MISSING, NOT_FOUND.
        """
        capabilities.refuse_file_listing(request)
        job = (await self._visible([request.parent], call))[0]
        page = page_request(
            jobs.IN_ORDER,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListFileTransfers", request.parent, call.principal.owner),
        )
        rows, token = await self._db.read(lambda conn: jobs.files_page(conn, job, page))
        return [self._file(row, job) for row in rows], token

    async def list_events(
        self, request: transfer_service_pb2.ListTransferEventsRequest, call: Call
    ) -> tuple[list[event_pb2.TransferEvent], str]:
        """A page of a job's history, oldest first, and the next page's token."""
        await self._visible([request.parent], call)
        page = page_request(
            _HISTORY,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListTransferEvents", request.parent, call.principal.owner),
        )
        event = FEED.event.c
        history = select(event.position, event.payload).where(event.subject == request.parent)
        rows, token = await self._db.read(lambda conn: fetch_page(conn, history, _HISTORY, page))
        return [event_pb2.TransferEvent.FromString(row.payload) for row in rows], token

    async def cancel(self, name: str, call: Call, reason: str = "") -> transfer_job_pb2.TransferJob:
        """Ask for a job's end; one that has ended is answered as it is.

        Parameters:
            reason: why, by the caller's words; empty for none told.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED (the caller may only see it, or manages a
                channel on which not all of it is).
        """
        by = call.principal.display_name or call.principal.subject
        why = canceled(f"cancelled by {by}: {reason}") if reason else None
        wish = Cancel(_uuid(name), call.visibility, why)
        try:
            ended = await self._cancel(wish, deadline=call.deadline)
        except GridlaneError as error:
            if error.reason is ErrorReason.NOT_FOUND and await self._sees(name, call):
                raise errors.permission_denied("transfer.jobs.cancel", name) from error
            raise
        _CANCELED()
        self._abort(ended.running)
        return self._message(ended.job, ended.files)

    async def watch(
        self, names: Sequence[str], resume_token: str, call: Call
    ) -> AsyncIterator[tuple[list[event_pb2.TransferEvent], str]]:
        """The changes of jobs, in order and each once, with the token to resume by.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS, POSITION_TRIMMED, WATCHER_TOO_SLOW, DRAINING.
        """
        await self._visible(names, call)
        tokens = ResumeTokens("WatchTransferJobs", names)
        after = tokens.decode(resume_token)
        epoch = (await self._feed.position()).epoch
        async for events in self._feed.follow(after, subjects=frozenset(names)):
            call.resume_token = tokens.encode(Position(epoch, events[-1].position))
            yield (
                [event_pb2.TransferEvent.FromString(event.payload) for event in events],
                call.resume_token,
            )

    async def _sees(self, name: str, call: Call) -> bool:
        """Whether the caller may see a job, whatever else it asked for."""
        viewing = decide(call.principal, "transfer.jobs.view", self._policy.current, now_us())
        if not viewing.allowed:
            return False
        found = await self._db.read(
            lambda conn: jobs.visible(conn, [_uuid(name)], viewing.visibility)
        )
        return bool(found)

    async def _visible(self, names: Sequence[str], call: Call) -> Sequence[JobRow]:
        """The jobs of the names, in order; NOT_FOUND when one is not within reach."""
        uuids = [_uuid(name) for name in names]
        found = await self._db.read(lambda conn: jobs.visible(conn, uuids, call.visibility))
        for name, uuid in zip(names, uuids, strict=True):
            if uuid not in found:
                raise errors.not_found(name)
        return [found[uuid] for uuid in uuids]

    def _message(self, job: JobRow, files: Sequence[FileRow]) -> transfer_job_pb2.TransferJob:
        message = messages.job_message(job)
        message.files.extend(self._file(row, job) for row in files)
        return message

    def _file(self, row: FileRow, job: JobRow) -> transfer_job_pb2.FileTransfer:
        moved = self._backend.progress(row.number) if row.state == FileState.ACTIVE else None
        return messages.file_message(row, job, self._channels, moved)


def _uuid(name: str) -> str:
    return name.removeprefix(messages.PREFIX)
