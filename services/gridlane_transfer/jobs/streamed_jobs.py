"""Transfer jobs that come in part by part: up to 100 000 files, all or none of them.

Responsible for the order of the stream, for the rules that hold over all parts, and for what
becomes of a job that does not come in whole. The rules of a file are `submission`'s, each part
being checked as a small job; the rows are `store.staging`'s. Memory is bounded: of what came in,
only a digest of each target is kept.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors, logs, request_ids
from gridlane_kit.audit import AuditEntry
from gridlane_kit.background import Background
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.leases import new_holder
from gridlane_kit.request_ids import Conflict, New, RequestKey
from gridlane_kit.validation import validate
from gridlane_transfer import messages
from gridlane_transfer.jobs import stream_fields
from gridlane_transfer.jobs.submission import Submissions
from gridlane_transfer.states import FileState, JobState
from gridlane_transfer.store import staging
from gridlane_transfer.store.jobs import NewFile, Resubmitted, Submitted
from gridlane_transfer.store.staging import LostStagingError, Part, Publication, Staged
from gridlane_transfer.store.tables import REQUEST_ID, JobRow

MOST_FILES: Final = 100_000
_PART: Final = 1000
"""Files that are checked, and inserted, at once."""
_TARGET_BYTES: Final = 16

_STAGED = failpoint("transfer.stage.committed")
_PUBLISHED = failpoint("transfer.publish.committed")
_ABANDONED = failpoint("transfer.stage.abandoned")
_log = logs.logger("transfer.streamed")

Request = transfer_service_pb2.SubmitTransferJobStreamRequest
Header = transfer_service_pb2.SubmitTransferJobHeader
Files = Sequence[transfer_job_pb2.FileTransfer]


class StreamedJobs:
    """Takes jobs in.

    Parameters:
        stage, publish: the writes, through the group commit.
        reread: a job that came before, without its files, as its caller may see it now.
        noted: says that there are files to be let onto their channels, or to be deleted.
        exclusive: no other process has this database: what is staged at the start is nobody's.
        lease_s: for how long a job that comes in is leased; renewed at a third of it.
    """

    def __init__(
        self,
        db: Database,
        submissions: Submissions,
        *,
        stage: WriteKind[Part, None],
        publish: WriteKind[Publication, Submitted | Resubmitted],
        reread: Callable[[str, Call], Awaitable[transfer_job_pb2.TransferJob]],
        noted: Callable[[], None],
        exclusive: bool,
        lease_s: float,
    ) -> None:
        self.db = db
        self.submissions = submissions
        self.stage = stage
        self.publish = publish
        self.reread = reread
        self.noted = noted
        self.holder = new_holder()
        self.ttl = timedelta(seconds=lease_s)
        self._exclusive = exclusive
        self.open: dict[str, Staged] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._background = Background(
            self._keep,
            name="transfer-staging",
            log=_log,
            trouble="jobs that come in could not be kept",
            first_s=lease_s / 3,
        )

    async def start(self) -> None:
        """Have deleted what processes that died left, and go on doing so."""
        if self._exclusive:
            await self.db.write(staging.void_leases)
            await self._abandon_lost()
        self._background.start()

    async def stop(self) -> None:
        """Wait for what is being given up."""
        await self._background.stop()
        if self._endings:
            await asyncio.wait(self._endings)

    async def submit(
        self, requests: AsyncIterator[Request], call: Call
    ) -> transfer_job_pb2.TransferJob:
        """Accept a job that is streamed; the answer, without files, means that all is durable.

        Raises:
            GridlaneError: as `Submissions.accept`; INVALID_FIELDS for another order of messages, no
                files or too many, or a count or digest that is not that of what came;
                REQUEST_ID_REUSED, REQUEST_ID_TOO_OLD.
        """
        header = await _header(requests)
        call.request_id = header.request_id
        content = _Content(header)
        job = IncomingJob(self, header.transfer_job, call, checked_only=header.validate_only)
        if header.request_id:
            request_ids.check(header.request_id, now_us())
            await job.look_for(_key(header.request_id, call, digest=""))
        try:
            async for files in _files(requests):
                content.add(files)
                await job.add(files)
            content.require_promised()
            key = _key(header.request_id, call, content.digest()) if header.request_id else None
            return await job.finish(key)
        except BaseException:
            job.abandon()
            raise

    def give_up(self, staged: Staged) -> None:
        """Have what is staged of a job deleted, whatever becomes of its caller."""
        self.open.pop(staged.uuid, None)
        ending = asyncio.create_task(self._give_up(staged), name="transfer-staging-end")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _give_up(self, staged: Staged) -> None:
        try:
            await self.db.write(lambda conn: staging.abandon(conn, staged))
        except GridlaneError as error:
            # Its lease runs out, and whoever finds it then gives it up.
            _log.warning("a job that did not come in whole stays for a while", reason=error.reason)
            return
        _ABANDONED()
        self.noted()

    async def _keep(self) -> float:
        """Renew the leases of what comes in, and give up what nobody keeps."""
        if self.open:
            staged = list(self.open.values())
            await self.db.write(partial(staging.keep, staged=staged, ttl=self.ttl))
        await self._abandon_lost()
        return self.ttl.total_seconds() / 3

    async def _abandon_lost(self) -> None:
        while await self.db.write(lambda conn: staging.abandon_lost(conn, self.holder, self.ttl)):
            self.noted()


class IncomingJob:
    """A job that comes in: `add` its files, then `finish` it, or `abandon` it.

    Parameters:
        jobs: who takes it in.
        description: the job without its files.
        call: of whom; what it may do is asked with each part.
        checked_only: everything is checked, and nothing stored.
        retry_of: the uuid of the job whose failed files it tries again.
    """

    def __init__(
        self,
        jobs: StreamedJobs,
        description: transfer_job_pb2.TransferJob,
        call: Call,
        *,
        checked_only: bool = False,
        retry_of: str | None = None,
    ) -> None:
        self._jobs = jobs
        self._description = description
        self._call = call
        self._checked_only = checked_only
        self._retry_of = retry_of
        self._came_before = False
        self._row: JobRow | None = None
        self._staged: Staged | None = None
        self._targets: set[bytes] = set()
        self._count = 0
        self._bytes = 0

    async def look_for(self, key: RequestKey) -> None:
        """See whether the request came before: then nothing is staged, only compared."""
        (claim,) = await self._jobs.db.read(lambda conn: request_ids.claim(conn, REQUEST_ID, [key]))
        self._came_before = not isinstance(claim, New)

    async def add(self, files: Files) -> None:
        """Take in more files, in order.

        Raises:
            GridlaneError: as `Submissions.accept`, with the fields of the files named by their
                place in the whole job.
        """
        if self._came_before:
            return
        for start in range(0, len(files), _PART):
            new = await self._accepted(files[start : start + _PART])
            if not self._checked_only:
                await self._stage(new)

    async def _accepted(self, files: Files) -> list[NewFile]:
        if self._count + len(files) > MOST_FILES:
            raise errors.invalid([("files", f"at most {MOST_FILES} files")])
        request = transfer_service_pb2.SubmitTransferJobRequest()
        request.transfer_job.CopyFrom(self._description)
        request.transfer_job.files.extend(files)
        try:
            new = await self._jobs.submissions.accept(request, self._call)
        except GridlaneError as error:
            raise stream_fields.in_whole_job(error, self._count) from error
        if self._row is None:
            self._row = new.row
        self._require_new_targets(new.files)
        # What is to wait for the end of a ban is stopped when it would start.
        due_us = new.row.create_us
        numbered = [file._replace(n=file.n + self._count, due_us=due_us) for file in new.files]
        self._count += len(numbered)
        self._bytes += sum(file.size_bytes or 0 for file in numbered)
        return numbered

    def _require_new_targets(self, files: Sequence[NewFile]) -> None:
        """Refuse a target that a file of an earlier part has."""
        repeated = []
        for file in files:
            goes_on = file.more is not None and file.more.route is not None
            target = file.target if goes_on else file.target_url
            key = hashlib.blake2b(target.encode(), digest_size=_TARGET_BYTES).digest()
            if key in self._targets:
                field = f"files[{self._count + file.n - 1}].target"
                repeated.append((field, "is the target of another file of the job"))
            self._targets.add(key)
        if repeated:
            raise errors.invalid(repeated)

    async def _stage(self, files: Sequence[NewFile]) -> None:
        jobs, row = self._jobs, self._row
        if self._staged is None and row is not None:
            self._staged = await jobs.db.write(
                lambda conn: staging.begin(conn, row.uuid, jobs.holder, jobs.ttl)
            )
            jobs.open[row.uuid] = self._staged
        if self._staged is None:
            raise RuntimeError("files are staged before their job is known")
        try:
            await jobs.stage(Part(self._staged, files, jobs.ttl))
        except LostStagingError as error:
            raise errors.store_unavailable() from error
        _STAGED()

    async def finish(
        self, key: RequestKey | None, entry: AuditEntry | None = None
    ) -> transfer_job_pb2.TransferJob:
        """Let everybody see the job, all of it.

        Parameters:
            key: of the request, with the digest of all that came.
            entry: goes into the audit with it.

        Returns:
            The job without its files.

        Raises:
            GridlaneError: INVALID_FIELDS when no file came; REQUEST_ID_REUSED.
        """
        if self._came_before and key is not None:
            return await self._as_before(key)
        if self._row is None:
            raise errors.invalid([("files", "at least one file")])
        row = self._finished(self._row)
        if self._checked_only:
            answer = messages.job_message(row)
            answer.ClearField("name")
            return answer
        return await self._publish(row, key, entry)

    def abandon(self) -> None:
        """Leave nothing behind; nobody has seen anything of it."""
        if self._staged is not None:
            self._jobs.give_up(self._staged)
            self._staged = None

    async def _publish(
        self, row: JobRow, key: RequestKey | None, entry: AuditEntry | None
    ) -> transfer_job_pb2.TransferJob:
        if self._staged is None:
            raise RuntimeError("a job is published of which nothing is staged")
        publication = Publication(self._staged, key, row, messages.accepted_event(row), entry)
        try:
            outcome = await self._jobs.publish(publication, deadline=self._call.deadline)
        except LostStagingError as error:
            raise errors.store_unavailable() from error
        if isinstance(outcome, Resubmitted):
            self.abandon()
            return await self._jobs.reread(outcome.name, self._call)
        _PUBLISHED()
        self._jobs.open.pop(row.uuid, None)
        self._staged = None
        self._jobs.noted()
        return messages.job_message(row)

    async def _as_before(self, key: RequestKey) -> transfer_job_pb2.TransferJob:
        (claim,) = await self._jobs.db.read(lambda conn: request_ids.claim(conn, REQUEST_ID, [key]))
        if isinstance(claim, request_ids.Replay):
            return await self._jobs.reread(claim.resource, self._call)
        if isinstance(claim, Conflict):
            raise errors.request_id_reused()
        raise errors.request_id_too_old(request_ids.RETENTION_DAYS)

    def _finished(self, row: JobRow) -> JobRow:
        now = now_us()
        return row._replace(
            number=0 if self._staged is None else self._staged.job_number,
            state=int(JobState.SUBMITTED),
            counts=f'{{"{int(FileState.SUBMITTED)}":{self._count}}}',
            total_bytes=self._bytes,
            create_us=now,
            update_us=now,
            retry_of=self._retry_of,
        )


class _Content:
    """What came, as the header promises it and as a request id is compared by."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._tag, _, own = request_ids.digest(header).rpartition(":")
        self._all = hashlib.sha256(own.encode())
        self._names = hashlib.sha256()
        self._count = 0

    def add(self, files: Files) -> None:
        self._count += len(files)
        if self._count > MOST_FILES:
            raise errors.invalid([("files", f"at most {MOST_FILES} files")])
        for file in files:
            content = file.SerializeToString(deterministic=True)
            self._all.update(len(content).to_bytes(4))
            self._all.update(content)
            self._names.update(f"{file.source}\n{file.target}\n".encode())

    def require_promised(self) -> None:
        """Refuse what is not what the header promises."""
        if not self._count:
            raise errors.invalid([("files", "at least one file")])
        promised, digest = self._header.file_count, self._names.hexdigest()
        if promised and promised != self._count:
            raise errors.invalid([("header.file_count", f"{self._count} files came")])
        if self._header.digest_sha256 and self._header.digest_sha256 != digest:
            raise errors.invalid([("header.digest_sha256", f"what came has {digest}")])

    def digest(self) -> str:
        """The digest of the whole content, however it was parted."""
        return f"{self._tag}:{self._all.hexdigest()}"


async def _header(requests: AsyncIterator[Request]) -> Header:
    """The header, checked as far as it can be without files."""
    async for request in requests:
        if request.WhichOneof("part") == "header":
            _check_header(request.header)
            return request.header
        break
    raise errors.invalid([("header", "the first message of the stream, and only it")])


def _check_header(header: Header) -> None:
    if header.transfer_job.files:
        raise errors.invalid(
            [("header.transfer_job.files", "empty: files come in messages of their own")]
        )
    # The rules of a job want a file.
    job = transfer_job_pb2.TransferJob()
    job.CopyFrom(header.transfer_job)
    job.files.add(source="file:///a", target="file:///b")
    try:
        validate(job)
    except GridlaneError as error:
        raise stream_fields.below(error, "header.transfer_job.") from error


async def _files(requests: AsyncIterator[Request]) -> AsyncIterator[Files]:
    """The files of the messages that follow the header, several messages' together."""
    files: list[transfer_job_pb2.FileTransfer] = []
    count = 0
    while True:
        try:
            request = await anext(requests)
        except StopAsyncIteration:
            break
        except GridlaneError as error:
            if error.reason is not ErrorReason.INVALID_FIELDS:
                raise
            raise stream_fields.in_whole_job(error, count, "files.files[") from error
        if request.WhichOneof("part") != "files":
            raise errors.invalid([("header", "the first message of the stream, and only it")])
        files += request.files.files
        count += len(request.files.files)
        if len(files) >= _PART:
            yield files
            files = []
    if files:
        yield files


def _key(request_id: str, call: Call, digest: str) -> RequestKey:
    return RequestKey(call.principal.owner, call.method, request_id, digest)
