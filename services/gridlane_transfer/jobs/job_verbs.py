"""Everything that serves the verbs on transfer jobs, put together.

Responsible for construction, and for the order in which its loops start and stop; a part of `room`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.policy import PolicyHolder
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.batch_jobs import BatchJobs
from gridlane_transfer.jobs.deletions import Deletions
from gridlane_transfer.jobs.earlier_calls import EarlierCalls
from gridlane_transfer.jobs.explanations import Explanations
from gridlane_transfer.jobs.job_files import JobFiles
from gridlane_transfer.jobs.progress import Progress
from gridlane_transfer.jobs.reach import Reach
from gridlane_transfer.jobs.retries import Retries
from gridlane_transfer.jobs.staging_jobs import StagingJobs
from gridlane_transfer.jobs.streamed_jobs import StreamedJobs
from gridlane_transfer.jobs.submission import Submissions
from gridlane_transfer.jobs.summaries import Summaries
from gridlane_transfer.jobs.transfer_admin import TransferAdmin
from gridlane_transfer.jobs.transfer_jobs import TransferJobs
from gridlane_transfer.moving.removals import Removals
from gridlane_transfer.moving.sweeps import Sweeps
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.held import HeldDone, HeldFiles
from gridlane_transfer.store.removals import Removing
from gridlane_transfer.writes import JobWrites


@dataclass(frozen=True, slots=True)
class Around:
    """What of the room the verbs need.

    Parameters:
        wake: has due files looked for.
        abort: ends the copies of these files.
        exclusive: no other process has the database.
        lease_s: for how long work is leased.
    """

    db: Database
    feed: Feed
    group: GroupCommit
    channels: Channels
    elements: StorageElements
    backend: TransferBackend
    policy: PolicyHolder
    submissions: Submissions
    wake: Callable[[], None]
    abort: Callable[[Sequence[int]], None]
    exclusive: bool
    lease_s: float


class JobVerbs:
    """The nouns behind `TransferService` and `TransferAdminService`."""

    def __init__(
        self,
        around: Around,
        writes: JobWrites,
        removing: Removing,
        held: WriteKind[HeldFiles, HeldDone],
    ) -> None:
        self._around = around
        self._writes = writes
        self.reach = Reach(around.db, around.policy)
        self.progress = Progress(around.db, around.backend)
        self.sweeps = Sweeps(around.db, step=writes.step, wake=around.wake, abort=around.abort)
        self.removals = Removals(
            around.db,
            removing,
            around.backend,
            around.policy,
            claim=writes.remove,
            report=writes.removed,
            exclusive=around.exclusive,
            lease_s=around.lease_s,
        )
        self._make_submissions()
        self._make_removals()
        self._make_views()
        self.admin = TransferAdmin(
            around.db,
            self.reach,
            self.progress,
            update=writes.update,
            held=held,
            wake=self._wake,
            noted=self.sweeps.noted,
        )

    def _make_submissions(self) -> None:
        """The ways by which jobs come in, and what is done with those that are there."""
        around, writes = self._around, self._writes
        earlier = EarlierCalls(around.db)
        self.files = JobFiles(
            around.db,
            around.channels,
            around.backend,
            self.reach,
            cancel=writes.cancel_files,
            abort=around.abort,
        )
        self.jobs = TransferJobs(
            around.db,
            around.feed,
            around.submissions,
            earlier,
            self.reach,
            self.files,
            self.progress,
            submit=writes.submit,
            cancel=writes.cancel,
            wake=around.wake,
            noted=self.sweeps.noted,
            abort=around.abort,
        )
        self.batch = BatchJobs(
            around.submissions,
            earlier,
            submit=writes.submit,
            reread=self.jobs.bare,
            wake=around.wake,
        )
        self.streamed = StreamedJobs(
            around.db,
            around.submissions,
            stage=writes.stage,
            publish=writes.publish,
            reread=self.jobs.bare,
            noted=self.sweeps.noted,
            exclusive=around.exclusive,
            lease_s=around.lease_s,
        )

    def _make_removals(self) -> None:
        """Deletion jobs, and what is submitted again."""
        around = self._around
        self.deletions = Deletions(
            around.db,
            around.elements,
            around.channels,
            backend=around.backend.name,
            submit=self._writes.submit,
            reread=self._removal_again,
            wake=self.removals.wake,
        )
        self.retries = Retries(
            around.db,
            around.channels,
            self.streamed,
            self.reach,
            around.policy,
            remove_again=self.deletions.again,
            reread=self.jobs.get,
        )

    def _make_views(self) -> None:
        """What is told of jobs and of their files."""
        around = self._around
        self.staging = StagingJobs(around.elements)
        self.explanations = Explanations(
            around.db,
            around.channels,
            around.elements,
            around.backend,
            around.policy,
            self.reach,
        )
        self.summaries = Summaries(around.db, around.backend)

    async def start(self) -> None:
        """Begin, with what was left."""
        await self.streamed.start()
        self.sweeps.start()
        self.removals.start()

    async def drain(self) -> None:
        """End; what is left is taken up by whoever starts next."""
        await self.streamed.stop()
        await self.removals.drain()
        await self.sweeps.stop()

    def _wake(self) -> None:
        self._around.wake()
        self.removals.wake()

    async def _removal_again(self, name: str, call: Call) -> transfer_job_pb2.TransferJob:
        """A deletion job that was submitted before: its submitter's own."""
        own = call.decision._replace(visibility=Visibility(owner=call.principal.owner))
        as_owner = Call(
            call.principal,
            call.deadline,
            call.trace,
            method=call.method,
            decision=own,
            peer=call.peer,
        )
        return await self.jobs.get(name, as_owner)
