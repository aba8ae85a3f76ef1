"""A job's files on their way: the transfer jobs that Workload asks Transfer for.

Responsible for what is asked, on behalf of the job's owner, under request ids that were committed
before; for reading how it went; and for following Transfer's feed to learn of it early. When to
ask, and what the answer means for the job, is decided in `steps`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gridlane.transfer.v1.event_service_pb2 import FollowTransferEventsRequest
from gridlane.transfer.v1.transfer_job_pb2 import (
    FileTransfer,
    FileTransferState,
    OverwriteMode,
    TransferJob,
    TransferJobState,
)
from gridlane.transfer.v1.transfer_service_pb2 import (
    BatchGetTransferJobsRequest,
    CancelTransferJobRequest,
    GetTransferJobRequest,
    SubmitTransferJobRequest,
)
from gridlane.type.v1.failure_pb2 import Failure
from gridlane.type.v1.feed_pb2 import FeedPosition
from gridlane.workload.v1.job_pb2 import JobInput, JobOutput
from gridlane_kit.call import Caller, later
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import service_principal
from gridlane_kit.logs import logger
from gridlane_kit.peers import Peers
from gridlane_kit.telemetry import Telemetry
from gridlane_workload.backends.interface import Attempt, Backend

JOB_TAG: Final = "gridlane.job"
"""The tag that ties a transfer job to its job (its uuid)."""

FINAL: Final = frozenset(
    {
        TransferJobState.TRANSFER_JOB_STATE_FINISHED,
        TransferJobState.TRANSFER_JOB_STATE_REGISTRATION_FAILED,
        TransferJobState.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        TransferJobState.TRANSFER_JOB_STATE_FAILED,
        TransferJobState.TRANSFER_JOB_STATE_CANCELED,
    }
)

_FINISHED: Final = TransferJobState.TRANSFER_JOB_STATE_FINISHED
_FILE_FINISHED: Final = FileTransferState.FILE_TRANSFER_STATE_FINISHED
# Between attempts to follow a feed that cannot be followed now.
_FOLLOW_AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Moved:
    """How a transfer job stands.

    Parameters:
        final: whether it has ended.
        well: whether every file is there, and registered where that was asked for.
        files, size_bytes: of what was moved.
        failure: why it did not end well; the first file's.
    """

    final: bool
    well: bool
    files: int
    size_bytes: int
    failure: Failure


class Transfers:
    """Workload's side of Transfer."""

    def __init__(self, peers: Peers, telemetry: Telemetry) -> None:
        self._jobs = peers.transfer_jobs
        self._events = peers.transfer_events
        self._telemetry = telemetry
        self._log = logger("workload")
        self._after: FeedPosition | None = None

    async def submit(self, caller: Caller, job: TransferJob, request_id: str) -> str:
        """Ask for a transfer job, or find the one that was asked for under this id.

        Returns:
            Its name.
        """
        request = SubmitTransferJobRequest(transfer_job=job, request_id=request_id)
        return (await self._jobs(caller).SubmitTransferJob(request)).name

    async def look(self, caller: Caller, name: str) -> Moved:
        """How a transfer job stands, with all its files."""
        return moved(await self._jobs(caller).GetTransferJob(GetTransferJobRequest(name=name)))

    async def still_moving(self, caller: Caller, names: Sequence[str]) -> frozenset[str]:
        """Those of some transfer jobs of one owner that have not ended; asked in bulk."""
        answer = await self._jobs(caller).BatchGetTransferJobs(
            BatchGetTransferJobsRequest(names=names)
        )
        return frozenset(
            result.transfer_job.name
            for result in answer.results
            if result.HasField("transfer_job") and result.transfer_job.state not in FINAL
        )

    async def cancel(self, caller: Caller, name: str) -> Moved:
        """Ask for the end of a transfer job; how it stands then."""
        request = CancelTransferJobRequest(name=name)
        return moved(await self._jobs(caller).CancelTransferJob(request))

    async def follow(
        self,
        after: FeedPosition | None,
        ended: Callable[[str], None],
        keep: Callable[[FeedPosition], None],
    ) -> None:
        """Tell of every transfer job of a job that ends; never returns.

        What is missed here is found by polling, so a position that is lost costs time and nothing
        else.

        Parameters:
            after: where to go on; None: from the oldest event kept.
            ended: called with the job's uuid.
            keep: called with each position taken.
        """
        self._after = after
        while True:
            try:
                await self._follow(ended, keep)
            except GridlaneError as error:
                self._log.info("the feed of transfers cannot be followed now", reason=error.reason)
                if error.reason is ErrorReason.POSITION_TRIMMED:
                    self._after = None
            await asyncio.sleep(_FOLLOW_AGAIN_S)

    async def _follow(
        self, ended: Callable[[str], None], keep: Callable[[FeedPosition], None]
    ) -> None:
        principal = service_principal("workload")
        with later(self._telemetry, "workload.follow", principal, timeout_s=None) as caller:
            request = FollowTransferEventsRequest(after=self._after)
            async for page in self._events(caller).FollowTransferEvents(request):
                for event in page.events:
                    job = event.job.tags.get(JOB_TAG)
                    if job and event.job.state in FINAL:
                        ended(job)
                self._after = page.position
                keep(page.position)


def stage_in(
    vo: str, inputs: Sequence[JobInput], attempt: Attempt, backend: Backend
) -> TransferJob:
    """The transfer job that brings an attempt's inputs into its working directory."""
    return TransferJob(
        vo=vo,
        files=[
            FileTransfer(
                source=item.source,
                target=backend.url(attempt, item.path),
                checksum=item.checksum if item.HasField("checksum") else None,
            )
            for item in inputs
        ],
        overwrite=OverwriteMode.OVERWRITE_MODE_ALWAYS,
        tags={JOB_TAG: attempt.job},
    )


def stage_out(
    vo: str, outputs: Sequence[JobOutput], attempt: Attempt, backend: Backend
) -> TransferJob:
    """The transfer job that moves an attempt's outputs away and registers them."""
    return TransferJob(
        vo=vo,
        files=[
            FileTransfer(
                source=backend.url(attempt, item.path),
                target=item.target,
                overwrite=OverwriteMode.OVERWRITE_MODE_ALWAYS
                if item.overwrite
                else OverwriteMode.OVERWRITE_MODE_NEVER,
            )
            for item in outputs
        ],
        placement=True,
        tags={JOB_TAG: attempt.job},
    )


def moved(job: TransferJob) -> Moved:
    """Read how a transfer job stands; one that came without its files counts none."""
    there = [file for file in job.files if file.state == _FILE_FINISHED]
    failure = job.failure
    if not job.HasField("failure"):
        failure = next((file.failure for file in job.files if file.HasField("failure")), failure)
    return Moved(
        final=job.state in FINAL,
        well=job.state == _FINISHED,
        files=len(there),
        size_bytes=sum(file.transferred_bytes or file.size_bytes for file in there),
        failure=failure,
    )
