"""Transfer jobs: submitted, read, listed, watched, cancelled.

Responsible for what each call does, between the gRPC shell and the store. What a description must
be is `submission`, how files move is `reconciler`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from sqlalchemy import select

from gridlane.transfer.v1 import event_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed, Position
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.pages import Keyset, fetch_page, page_request
from gridlane_kit.resume_tokens import ResumeTokens
from gridlane_transfer import messages
from gridlane_transfer.jobs import transactions
from gridlane_transfer.jobs.earlier_calls import EarlierCalls
from gridlane_transfer.jobs.job_files import JobFiles
from gridlane_transfer.jobs.progress import Progress
from gridlane_transfer.jobs.reach import Reach, if_anothers, uuid_of
from gridlane_transfer.jobs.submission import JOB_TAG, Submissions
from gridlane_transfer.moving.failures import canceled
from gridlane_transfer.states import JobState
from gridlane_transfer.store import jobs, sweeps
from gridlane_transfer.store.cancels import Cancel, Canceled
from gridlane_transfer.store.jobs import NewTransferJob, Resubmitted, Submitted
from gridlane_transfer.store.tables import FEED, FileRow, JobRow

_CANCELED_AT_ONCE: Final = 50
"""Jobs whose end is asked for in one transaction."""
_SUBMITTED = failpoint("transfer.submit.committed")
_CANCELED = failpoint("transfer.cancel.committed")
_HISTORY = Keyset(FEED.event.c.position)


def _state(word: str) -> int:
    try:
        return int(JobState[word])
    except KeyError:
        raise ValueError(f"one of {', '.join(state.name for state in JobState)}") from None


FIELDS: Final = {"state": Field(_state), "vo": Field(str), "tags.gridlane.job": Field(str)}
COMBINATIONS: Final = [*({name} for name in FIELDS), {"vo", "state"}]
FILTER = FilterRules(FIELDS, combinations=COMBINATIONS)
"""What listings can be filtered by; each has its index."""


class TransferJobs:
    """The calls.

    Parameters:
        submit, cancel: the writes, through the group commit.
        wake: has due files looked for.
        noted: says that there may be files of large jobs that are still to be cancelled.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        submissions: Submissions,
        earlier: EarlierCalls,
        reach: Reach,
        files: JobFiles,
        progress: Progress,
        *,
        submit: WriteKind[NewTransferJob, Submitted | Resubmitted],
        cancel: WriteKind[Cancel, Canceled],
        wake: Callable[[], None],
        noted: Callable[[], None],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._feed = feed
        self._submissions = submissions
        self._earlier = earlier
        self._reach = reach
        self._files = files
        self._progress = progress
        self._submit = submit
        self._cancel = cancel
        self._wake = wake
        self._noted = noted
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
        try:
            new = await self._submissions.accept(request, call)
        except GridlaneError as error:
            (earlier,) = await self._earlier.made_by([(request, error)], call)
            if earlier is None:
                raise
            return await self.get(earlier, call)
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
        found = await self._whole.get(jobs.Asked(uuid_of(name), call.visibility))
        if found is None:
            raise errors.not_found(name)
        return await self._message(*found)

    async def batch_get(
        self, names: Sequence[str], call: Call
    ) -> list[transfer_job_pb2.TransferJob | GridlaneError]:
        """Jobs without their files, each or why there is none, in the order asked."""
        uuids = [uuid_of(name) for name in names]
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
        told = iter(await self._progress.messages([row for row in rows if row is not None]))
        return [
            errors.not_found(name) if row is None else next(told)
            for name, row in zip(names, rows, strict=True)
        ]

    async def bare(self, name: str, call: Call) -> transfer_job_pb2.TransferJob:
        """A job without its files.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        (found,) = await self.batch_get([name], call)
        if isinstance(found, GridlaneError):
            raise found
        return found

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
        return await self._progress.messages(rows), token

    async def list_events(
        self, request: transfer_service_pb2.ListTransferEventsRequest, call: Call
    ) -> tuple[list[event_pb2.TransferEvent], str]:
        """A page of a job's history, oldest first, and the next page's token."""
        await self._reach.all_of([request.parent], call)
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
        wish = Cancel(uuid_of(name), call.visibility, why=why, entry=if_anothers(call, reason))
        try:
            ended = await self._cancel(wish, deadline=call.deadline)
        except GridlaneError as error:
            raise await self._reach.refusal(error, name, call) from error
        _CANCELED()
        self._abort(ended.running)
        self._noted()
        return await self._message(ended.job, ended.files)

    async def batch_cancel(
        self, names: Sequence[str], call: Call
    ) -> list[transfer_job_pb2.TransferJob | GridlaneError]:
        """Ask for the end of jobs; each without its files, or why not, in the order asked."""
        rows = await self._bare.get_many([uuid_of(name) for name in names])
        sizes = {index: 0 if row is None else _changed(row) for index, row in enumerate(rows)}
        answers: list[transfer_job_pb2.TransferJob | GridlaneError] = []
        for some in transactions.parted(sizes, most_jobs=_CANCELED_AT_ONCE):
            answers += await self._cancel_some([names[index] for index in some], call)
        self._noted()
        return answers

    async def _cancel_some(
        self, names: Sequence[str], call: Call
    ) -> list[transfer_job_pb2.TransferJob | GridlaneError]:
        entry = if_anothers(call)
        wishes = [Cancel(uuid_of(name), call.visibility, bare=True, entry=entry) for name in names]
        outcomes = await self._cancel.many(wishes, deadline=call.deadline)
        _CANCELED()
        done = [outcome for outcome in outcomes if isinstance(outcome, Canceled)]
        self._abort([number for one in done for number in one.running])
        told = iter(await self._progress.messages([one.job for one in done]))
        answers: list[transfer_job_pb2.TransferJob | GridlaneError] = []
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, Canceled):
                answers.append(next(told))
            elif isinstance(outcome, GridlaneError):
                answers.append(await self._reach.refusal(outcome, name, call))
            else:
                raise outcome
        return answers

    async def watch(
        self, names: Sequence[str], resume_token: str, call: Call
    ) -> AsyncIterator[tuple[list[event_pb2.TransferEvent], str]]:
        """The changes of jobs, in order and each once, with the token to resume by.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS, POSITION_TRIMMED, WATCHER_TOO_SLOW, DRAINING.
        """
        await self._reach.all_of(names, call)
        tokens = ResumeTokens("WatchTransferJobs", names)
        after = tokens.decode(resume_token)
        epoch = (await self._feed.position()).epoch
        async for events in self._feed.follow(after, subjects=frozenset(names)):
            call.resume_token = tokens.encode(Position(epoch, events[-1].position))
            yield (
                [event_pb2.TransferEvent.FromString(event.payload) for event in events],
                call.resume_token,
            )

    async def _message(self, job: JobRow, files: Sequence[FileRow]) -> transfer_job_pb2.TransferJob:
        (message,) = await self._progress.messages([job])
        message.files.extend(self._files.message(row, job) for row in files)
        return message


def _changed(job: JobRow) -> int:
    """How many files change at most when a job is cancelled; the others follow bit by bit."""
    return min(messages.file_count(job.counts), sweeps.PAGE)
