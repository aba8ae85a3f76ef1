"""Transfer jobs in numbers, single files, and managers' verbs: a part of `client.transfers`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.calls import Timeout, in_seconds
from gridlane.errors import GridlaneError, error_from_status
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import file_transfer_name, job_name, transfer_name
from gridlane.nouns import transfer_methods as methods
from gridlane.nouns.noun import ClientNoun, equals, timestamp
from gridlane.transfer.v1 import transfer_admin_service_pb2 as admin
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane.transfer.v1.deletion_pb2 import DeletionFile
from gridlane.transfer.v1.file_attempt_pb2 import FileAttempt
from gridlane.transfer.v1.file_explanation_pb2 import FileExplanation
from gridlane.transfer.v1.staging_pb2 import StagingFile
from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob
from gridlane.transfer.v1.transfer_summary_pb2 import TransferSummary
from gridlane.type.v1.time_window_pb2 import TimeWindow

#: For each transfer job, in order: the job, or why there is none.
TransferResults = list[TransferJob | GridlaneError]
#: For each file, in order: the file, or why there is none.
FileResults = list[FileTransfer | GridlaneError]

#: Files of one job that go in one message; larger jobs are streamed.
LARGEST_MESSAGE = 1000

_BATCH = 1000
_BATCH_FILES = 10_000
# The slowest stream that is waited for, unless a timeout is given.
_BASE_S = 60.0
_SLOWEST_FILES_PER_S = 200


class TransferVerbs(ClientNoun[Mode]):
    """Verbs on many jobs, on single files, and for managers."""

    async def _submit(
        self, transfer_job: TransferJob, request_id: str, validate_only: bool, timeout: Timeout
    ) -> TransferJob:
        """Hand in one job, as a stream when it has more files than a message takes."""
        if len(transfer_job.files) <= LARGEST_MESSAGE:
            request = rpc.SubmitTransferJobRequest(
                transfer_job=transfer_job, request_id=request_id, validate_only=validate_only
            )
            return await self._calls.unary(methods.SUBMIT, request, timeout)
        default = _BASE_S + len(transfer_job.files) / _SLOWEST_FILES_PER_S
        return await self._calls.upload(
            methods.SUBMIT_STREAM,
            lambda: _parts(transfer_job, request_id, validate_only),
            in_seconds(timeout, default),
            repeat=True,
        )

    @verb
    async def submit_many(
        self, transfer_jobs: Iterable[TransferJob], *, timeout: Timeout = None
    ) -> TransferResults:
        """Hand in many transfer jobs, as many a call as it takes; those that are good are durable
        even when others are refused. Jobs of more than 1000 files are streamed, each by itself.

        Parameters:
            transfer_jobs: any number; each gets a request id of its own.
            timeout: for each call.

        Returns:
            One for each job, in order: the job without its files, or the error that refused it
            (returned, not raised).

        Raises:
            GridlaneError: a call failed as a whole. Calls before it stand.
        """
        results: TransferResults = []
        for batch in _batches(transfer_jobs):
            if len(batch[0].files) > LARGEST_MESSAGE:
                try:
                    results.append(await self._submit(batch[0], uuid7(), False, timeout))
                except GridlaneError as error:
                    results.append(error)
                continue
            requests = [
                rpc.SubmitTransferJobRequest(transfer_job=job, request_id=uuid7()) for job in batch
            ]
            request = rpc.BatchSubmitTransferJobsRequest(requests=requests)
            answer = await self._calls.unary(methods.BATCH_SUBMIT, request, timeout)
            results += map(job_or_error, answer.results)
        return results

    @verb
    async def remove(
        self,
        files: Iterable[str],
        *,
        vo: str = "",
        tags: Mapping[str, str] | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        timeout: Timeout = None,
    ) -> TransferJob:
        """Have files and their registrations removed in the background.

        Parameters:
            files: logical file names (all their copies) or URLs (that copy), 1 to 1000.
            vo: the virtual organisation; may be empty when the caller has one alone.
            tags: free pairs, at most 32.
            max_retries: how often a file is tried again, 0 to 256; None means 3.
            request_id: a UUIDv7; the same id with the same files answers the same job. None: a new
                one.
            timeout: see the package.

        Returns:
            The job, of the kind DELETION.

        Raises:
            PermissionDenied: one of the files is another's.
            InvalidArgument: reason NO_STORAGE_ELEMENT: nothing serves a file.
        """
        request = rpc.SubmitDeletionJobRequest(
            vo=vo,
            files=[DeletionFile(file=name) for name in files],
            tags=tags or {},
            request_id=request_id or uuid7(),
        )
        if max_retries is not None:
            request.max_retries = max_retries
        return await self._calls.unary(methods.SUBMIT_DELETION, request, timeout)

    @verb
    async def stage(
        self,
        files: Iterable[str],
        *,
        vo: str = "",
        request_id: str | None = None,
        timeout: Timeout = None,
    ) -> TransferJob:
        """Have files brought from tape to disk where they are.

        Parameters:
            files: logical file names or URLs, 1 to 1000.
            vo: the virtual organisation; may be empty when the caller has one alone.
            request_id: as for `remove`.
            timeout: see the package.

        Raises:
            InvalidArgument: reason CAPABILITY_MISSING: no backend stages files of that storage.
        """
        request = rpc.SubmitStagingJobRequest(
            vo=vo,
            files=[StagingFile(source=name) for name in files],
            request_id=request_id or uuid7(),
        )
        return await self._calls.unary(methods.SUBMIT_STAGING, request, timeout)

    @verb
    async def summary(
        self,
        *,
        name: str | None = None,
        state: str | None = None,
        vo: str | None = None,
        job: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
        timeout: Timeout = None,
    ) -> TransferSummary:
        """Transfer jobs and their files counted by state, with bytes, speed and what failed.

        Parameters:
            state, vo: only those in this state, of this VO, or both.
            name, job: only this transfer job, or those that belong to this job; each alone.
            after, before: only those that were accepted in this time (aware); None: no bound.
            timeout: see the package.
        """
        filtered = equals(
            name=transfer_name(name) if name else None,
            state=state.upper() if state else None,
            vo=vo,
            **{"tags.gridlane.job": job_name(job).rpartition("/")[2] if job else None},
        )
        window = TimeWindow(start_time=timestamp(after), end_time=timestamp(before))
        request = rpc.SummarizeTransferJobsRequest(filter=filtered, window=window)
        return await self._calls.unary(methods.SUMMARIZE, request, timeout)

    @verb
    async def file(self, name: str, *, timeout: Timeout = None) -> FileTransfer:
        """One file of a transfer job.

        Parameters:
            name: "transfers/<uuid>/files/<n>" or "<uuid>/files/<n>".
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = rpc.GetFileTransferRequest(name=file_transfer_name(name))
        return await self._calls.unary(methods.GET_FILE, request, timeout)

    @stream
    def attempts(
        self, name: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[FileAttempt]:
        """Each time that a file was started, oldest first.

        Parameters:
            name: as for `file`.
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListFileAttemptsRequest(parent=file_transfer_name(name))
        return self._listed(
            methods.LIST_ATTEMPTS, request, lambda page: page.attempts, limit, timeout
        )

    @stream
    def explain(
        self, name: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[FileExplanation]:
        """What each file of a transfer job that waits is waiting for, in the order of submission.

        Parameters:
            name: "transfers/<uuid>" or the bare id.
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ExplainTransferJobRequest(name=transfer_name(name))
        return self._listed(methods.EXPLAIN, request, lambda page: page.files, limit, timeout)

    @verb
    async def cancel_many(
        self, names: Iterable[str], *, timeout: Timeout = None
    ) -> TransferResults:
        """Ask for the end of many transfer jobs, 1000 a call.

        Returns:
            One for each name, in order: the job without its files, or why not (returned, not
            raised).
        """
        asked = [transfer_name(name) for name in names]
        results: TransferResults = []
        for start in range(0, len(asked), _BATCH):
            request = rpc.BatchCancelTransferJobsRequest(names=asked[start : start + _BATCH])
            answer = await self._calls.unary(methods.BATCH_CANCEL, request, timeout)
            results += map(job_or_error, answer.results)
        return results

    @verb
    async def cancel_files(
        self, name: str, files: Iterable[int], *, timeout: Timeout = None
    ) -> FileResults:
        """Ask for the end of single files of a transfer job; the others go on.

        Parameters:
            name: the job.
            files: their numbers in it, from 1.
            timeout: for each call of 1000.

        Returns:
            One for each file, in order: the file, or why not (returned, not raised).
        """
        parent = transfer_name(name)
        asked = _files_of(parent, files)
        results: FileResults = []
        for start in range(0, len(asked), _BATCH):
            some = asked[start : start + _BATCH]
            request = rpc.CancelFileTransfersRequest(parent=parent, names=some)
            answer = await self._calls.unary(methods.CANCEL_FILES, request, timeout)
            results += map(_file_or_error, answer.results)
        return results

    @verb
    async def retry(
        self,
        name: str,
        *,
        files: Iterable[int] = (),
        reason: str = "",
        request_id: str | None = None,
        timeout: Timeout = None,
    ) -> TransferJob:
        """Try failed files of a transfer job that has ended again, as a new job.

        Parameters:
            name: the job.
            files: the numbers of failed or cancelled files; empty: all that failed.
            reason: why, for managers; kept in the audit.
            request_id: a UUIDv7; the same id answers the same new job. None: a new one.
            timeout: see the package.

        Raises:
            FailedPrecondition: it has not ended, or nothing of it failed.
        """
        asked = transfer_name(name)
        request = rpc.RetryTransferJobRequest(
            name=asked,
            files=_files_of(asked, files),
            request_id=request_id or uuid7(),
            reason=reason,
        )
        return await self._calls.unary(methods.RETRY, request, timeout)

    @verb
    async def release(
        self, name: str, *, files: Iterable[int] = (), reason: str = "", timeout: Timeout = None
    ) -> int:
        """Let held files of a transfer job start again, with all their retries. For managers.

        Parameters:
            name: the job.
            files: their numbers in it; empty: all that are held.
            reason: why; kept in the audit.
            timeout: see the package.

        Returns:
            How many were held and are not any more.
        """
        asked = transfer_name(name)
        request = admin.ReleaseHeldFilesRequest(
            name=asked, files=_files_of(asked, files), reason=reason
        )
        return (await self._calls.unary(methods.RELEASE, request, timeout)).released_files

    @verb
    async def fail_held(
        self, name: str, *, files: Iterable[int] = (), reason: str = "", timeout: Timeout = None
    ) -> int:
        """Give held files of a transfer job up. For managers; parameters as for `release`.

        Returns:
            How many were held and are FAILED now.
        """
        asked = transfer_name(name)
        request = admin.FailHeldFilesRequest(
            name=asked, files=_files_of(asked, files), reason=reason
        )
        return (await self._calls.unary(methods.FAIL_HELD, request, timeout)).failed_files

    @verb
    async def update(
        self,
        name: str,
        *,
        priority: int | None = None,
        activity: str | None = None,
        revision: int = 0,
        reason: str = "",
        timeout: Timeout = None,
    ) -> TransferJob:
        """Change the priority or the activity of a transfer job and of its files that have not
        started. For managers.

        Parameters:
            name: the job.
            priority: from 1 (last) to 5 (first); None: as it is.
            activity: empty for "default"; None: as it is.
            revision: the one that was read; 0: whichever it has.
            reason: why; kept in the audit.
            timeout: see the package.

        Raises:
            Aborted: it was updated since `revision`.
            FailedPrecondition: it has ended.
            ValueError: nothing is to be changed.
        """
        given = {"priority": priority, "activity": activity}
        paths = [field for field, value in given.items() if value is not None]
        if not paths:
            raise ValueError("nothing is to be changed: give a priority or an activity")
        job = TransferJob(name=transfer_name(name), priority=priority or 0, activity=activity or "")
        request = admin.UpdateTransferJobRequest(
            transfer_job=job, update_mask=FieldMask(paths=paths), revision=revision, reason=reason
        )
        return await self._calls.unary(methods.UPDATE, request, timeout)


def job_or_error(result: rpc.TransferJobResult) -> TransferJob | GridlaneError:
    """A result's job, or why there is none."""
    if result.WhichOneof("result") == "status":
        return error_from_status(result.status)
    return result.transfer_job


def _file_or_error(result: rpc.FileTransferResult) -> FileTransfer | GridlaneError:
    if result.WhichOneof("result") == "status":
        return error_from_status(result.status)
    return result.file


def _files_of(parent: str, files: Iterable[int]) -> list[str]:
    return [f"{parent}/files/{n}" for n in files]


def _batches(jobs: Iterable[TransferJob]) -> Iterator[Sequence[TransferJob]]:
    """The jobs, as many at a time as one call takes; one that is streamed comes alone."""
    batch: list[TransferJob] = []
    files = 0
    for job in jobs:
        large = len(job.files) > LARGEST_MESSAGE
        full = len(batch) == _BATCH or files + len(job.files) > _BATCH_FILES
        if batch and (large or full):
            yield batch
            batch, files = [], 0
        if large:
            yield [job]
            continue
        batch.append(job)
        files += len(job.files)
    if batch:
        yield batch


def _parts(
    job: TransferJob, request_id: str, validate_only: bool
) -> Iterator[rpc.SubmitTransferJobStreamRequest]:
    """A large job as it is streamed: its header, then its files."""
    description = TransferJob()
    description.CopyFrom(job)
    description.ClearField("files")
    names = hashlib.sha256()
    for file in job.files:
        names.update(f"{file.source}\n{file.target}\n".encode())
    header = rpc.SubmitTransferJobHeader(
        transfer_job=description,
        request_id=request_id,
        validate_only=validate_only,
        file_count=len(job.files),
        digest_sha256=names.hexdigest(),
    )
    yield rpc.SubmitTransferJobStreamRequest(header=header)
    for start in range(0, len(job.files), LARGEST_MESSAGE):
        chunk = rpc.FileTransferChunk(files=job.files[start : start + LARGEST_MESSAGE])
        yield rpc.SubmitTransferJobStreamRequest(files=chunk)
