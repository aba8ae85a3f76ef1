"""Files of transfer jobs: got, listed, cancelled one by one, and each time that one was started.

Responsible for what each call does, between the gRPC shell and the store. Why a file waits is
`waiting`'s.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from gridlane.transfer.v1 import file_attempt_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.pages import page_request
from gridlane_transfer import messages
from gridlane_transfer.backends.base import BACKENDS, TransferBackend
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.reach import Reach, if_anothers, place_of, require_its_files, uuid_of
from gridlane_transfer.states import FileState
from gridlane_transfer.store import attempts, jobs
from gridlane_transfer.store.attempts import AttemptRow
from gridlane_transfer.store.cancels import CanceledFiles, CancelFiles
from gridlane_transfer.store.tables import FileRow, JobRow

_CANCELED = failpoint("transfer.files.canceled")


def _state(word: str) -> int:
    try:
        return int(FileState[word])
    except KeyError:
        raise ValueError(f"one of {', '.join(state.name for state in FileState)}") from None


FILTER: Final = FilterRules({"state": Field(_state)}, combinations=[{"state"}])
"""What the files of a job can be filtered by; along the index of those in a state."""


class JobFiles:
    """The calls.

    Parameters:
        cancel: the write, through the group commit.
        abort: ends the copies of these files.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        backend: TransferBackend,
        reach: Reach,
        *,
        cancel: WriteKind[CancelFiles, CanceledFiles],
        abort: Callable[[Sequence[int]], None],
    ) -> None:
        self._db = db
        self._channels = channels
        self._backend = backend
        self._reach = reach
        self._cancel = cancel
        self._abort = abort

    async def get(self, name: str, call: Call) -> transfer_job_pb2.FileTransfer:
        """One file.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        job, row = await self._file(name, call)
        return self.message(row, job)

    async def list_files(
        self, request: transfer_service_pb2.ListFileTransfersRequest, call: Call
    ) -> tuple[list[transfer_job_pb2.FileTransfer], str]:
        """A page of a job's files in order, and the next page's token.

        Raises:
            GridlaneError: NOT_FOUND, FILTER_UNSUPPORTED, TOKEN_NOT_OURS.
        """
        asked = FILTER.parse(request.filter)
        (job,) = await self._reach.all_of([request.parent], call)
        page = page_request(
            jobs.IN_ORDER,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(
                "ListFileTransfers",
                request.parent,
                asked.canonical if request.filter else "",
                call.principal.owner,
            ),
        )
        state = asked.value("state")
        rows, token = await self._db.read(lambda conn: jobs.files_page(conn, job, page, state))
        return [self.message(row, job) for row in rows], token

    async def list_attempts(
        self, request: transfer_service_pb2.ListFileAttemptsRequest, call: Call
    ) -> tuple[list[file_attempt_pb2.FileAttempt], str]:
        """A page of a file's attempts, oldest first, and the next page's token.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS.
        """
        _, file = await self._file(request.parent, call)
        page = page_request(
            attempts.OLDEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListFileAttempts", request.parent, call.principal.owner),
        )
        rows, token = await self._db.read(lambda conn: attempts.page(conn, file.number, page))
        return [self._attempt(request.parent, file, row) for row in rows], token

    async def cancel(
        self, request: transfer_service_pb2.CancelFileTransfersRequest, call: Call
    ) -> list[transfer_job_pb2.FileTransfer | GridlaneError]:
        """Ask for the end of files; each as it is then, or why it is not, in the order given.

        Raises:
            GridlaneError: INVALID_FIELDS for a file of another job; NOT_FOUND, PERMISSION_DENIED
                for the job.
        """
        require_its_files(request.parent, "names", request.names)
        ns = [place_of(name) for name in request.names]
        wish = CancelFiles(uuid_of(request.parent), ns, call.visibility, if_anothers(call))
        try:
            canceled = await self._cancel(wish, deadline=call.deadline)
        except GridlaneError as error:
            raise await self._reach.refusal(error, request.parent, call) from error
        _CANCELED()
        self._abort(canceled.running)
        return [
            self._canceled(canceled, name, n, call)
            for name, n in zip(request.names, ns, strict=True)
        ]

    def _canceled(
        self, canceled: CanceledFiles, name: str, n: int, call: Call
    ) -> transfer_job_pb2.FileTransfer | GridlaneError:
        row = canceled.files.get(n)
        if row is None:
            return errors.not_found(name)
        if n in canceled.denied:
            return errors.permission_denied(call.decision.permission, name)
        return self.message(row, canceled.job)

    async def _file(self, name: str, call: Call) -> tuple[JobRow, FileRow]:
        uuid, n = uuid_of(name), place_of(name)

        def read(conn: Connection) -> tuple[JobRow, FileRow] | None:
            job = jobs.visible(conn, [uuid], call.visibility).get(uuid)
            row = None if job is None else jobs.files_by_n(conn, job.number, [n]).get(n)
            return None if job is None or row is None else (job, row)

        found = await self._db.read(read)
        if found is None:
            raise errors.not_found(name)
        return found

    def message(self, row: FileRow, job: JobRow) -> transfer_job_pb2.FileTransfer:
        """A file as it is now: of one that moves, what its backend says of it too."""
        moved = self._backend.progress(row.number) if row.state == FileState.ACTIVE else None
        message = messages.file_message(row, job, self._channels, moved)
        if row.attempt:
            message.backend = BACKENDS + self._backend.name
        message.throughput_bytes_per_second = messages.bytes_per_second(
            message.transferred_bytes, row.start_us, row.end_us or now_us()
        )
        if row.state == FileState.RETRYING:
            message.next_attempt_time.CopyFrom(to_timestamp(row.due_us))
        return message

    def _attempt(self, parent: str, file: FileRow, row: AttemptRow) -> file_attempt_pb2.FileAttempt:
        moved = row.transferred_bytes
        if row.end_us is None and row.attempt == file.attempt:
            moved = self._backend.progress(file.number) or moved
        message = file_attempt_pb2.FileAttempt(
            name=f"{parent}/attempts/{row.attempt}",
            attempt=row.attempt,
            hop=row.hop,
            channel=self._channels.name_of(row.channel_uid),
            source_url=row.source_url,
            target_url=row.target_url,
            source_storage_element=row.source_element,
            target_storage_element=row.target_element,
            protocol=row.target_url.partition(":")[0],
            start_time=to_timestamp(row.start_us),
            transferred_bytes=moved,
            throughput_bytes_per_second=messages.bytes_per_second(
                moved, row.start_us, row.end_us or now_us()
            ),
            outcome=transfer_job_pb2.FileTransferState.ValueType(row.outcome),
            backend=BACKENDS + self._backend.name,
        )
        if row.end_us is not None:
            message.end_time.CopyFrom(to_timestamp(row.end_us))
        if row.failure is not None:
            message.failure.ParseFromString(row.failure)
        if row.actual_checksum is not None:
            message.actual_checksum.CopyFrom(messages.checksum_message(row.actual_checksum))
        return message
