"""Everything that serves the verbs on transfer jobs, put together.

Responsible for construction, and for the order in which its loops start and stop; a part of `room`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
from gridlane_transfer.store import cancels, job_updates, jobs, staging, sweeps
from gridlane_transfer.store.cancels import Cancel, Canceled, CanceledFiles, CancelFiles
from gridlane_transfer.store.held import HeldDone, HeldFiles
from gridlane_transfer.store.job_updates import JobUpdate, Updated
from gridlane_transfer.store.jobs import NewTransferJob, Resubmitted, Submitted
from gridlane_transfer.store.removals import Removal, RemovalReport, RemovalRequest, Removing
from gridlane_transfer.store.staging import Part, Publication
from gridlane_transfer.store.sweeps import Sweep, Swept
from gridlane_transfer.store.tables import FileRow


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


class JobWrites:
    """The writes, declared in the order in which a batch applies them: before the claim of files
    that move.
    """

    def __init__(
        self, group: GroupCommit, feed: Feed, channels: Channels, removing: Removing
    ) -> None:
        self.submit: WriteKind[NewTransferJob, Submitted | Resubmitted] = group.kind(
            "jobs.submit", partial(jobs.insert, feed=feed), key=lambda new: new.row.uuid
        )
        self.stage: WriteKind[Part, None] = group.kind(
            "jobs.stage", staging.add, key=lambda part: part.staged.uuid
        )
        self.publish: WriteKind[Publication, Submitted | Resubmitted] = group.kind(
            "jobs.publish", partial(staging.publish, feed=feed), key=lambda one: one.row.uuid
        )
        self.cancel: WriteKind[Cancel, Canceled] = group.kind(
            "jobs.cancel",
            partial(cancels.cancel, feed=feed, channels=channels),
            key=lambda one: one.uuid,
        )
        self.cancel_files: WriteKind[CancelFiles, CanceledFiles] = group.kind(
            "files.cancel",
            partial(cancels.cancel_files, feed=feed, channels=channels),
            key=lambda one: one.uuid,
        )
        self.update: WriteKind[JobUpdate, Updated] = group.kind(
            "jobs.update", job_updates.apply, key=lambda one: one.uuid
        )
        self.step: WriteKind[Sweep, Swept] = group.kind(
            "files.sweep",
            partial(sweeps.step, feed=feed, channels=channels),
            key=lambda one: (one.job_number, one.kind),
        )
        self.removed: WriteKind[RemovalReport, FileRow | None] = group.kind(
            "removals.report", removing.report, key=lambda one: one.number
        )
        self.remove: WriteKind[RemovalRequest, list[Removal]] = group.kind(
            "removals.claim", removing.claim, key=lambda one: one.holder
        )


class JobVerbs:
    """The nouns behind `TransferService` and `TransferAdminService`."""

    def __init__(
        self,
        around: Around,
        writes: JobWrites,
        removing: Removing,
        held: WriteKind[HeldFiles, HeldDone],
    ) -> None:
        db, backend, wake = around.db, around.backend, around.wake
        self.reach = reach = Reach(db, around.policy)
        self.progress = progress = Progress(db, backend)
        earlier = EarlierCalls(db)
        self.sweeps = Sweeps(db, step=writes.step, wake=wake, abort=around.abort)
        noted = self.sweeps.noted
        self.files = JobFiles(
            db,
            around.channels,
            backend,
            reach,
            cancel=writes.cancel_files,
            abort=around.abort,
        )
        self.jobs = TransferJobs(
            db,
            around.feed,
            around.submissions,
            earlier,
            reach,
            self.files,
            progress,
            submit=writes.submit,
            cancel=writes.cancel,
            wake=wake,
            noted=noted,
            abort=around.abort,
        )
        self.batch = BatchJobs(
            around.submissions, earlier, submit=writes.submit, reread=self.jobs.bare, wake=wake
        )
        self.streamed = StreamedJobs(
            db,
            around.submissions,
            stage=writes.stage,
            publish=writes.publish,
            reread=self.jobs.bare,
            noted=noted,
            exclusive=around.exclusive,
            lease_s=around.lease_s,
        )
        self.removals = Removals(
            db,
            removing,
            backend,
            around.policy,
            claim=writes.remove,
            report=writes.removed,
            exclusive=around.exclusive,
            lease_s=around.lease_s,
        )
        self.deletions = Deletions(
            db,
            around.elements,
            around.channels,
            backend=backend.name,
            submit=writes.submit,
            reread=self._removal_again,
            wake=self.removals.wake,
        )
        self.staging = StagingJobs(around.elements)
        self.retries = Retries(
            db,
            around.channels,
            self.streamed,
            reach,
            around.policy,
            remove_again=self.deletions.again,
            reread=self.jobs.get,
        )
        self.explanations = Explanations(
            db, around.channels, around.elements, backend, around.policy, reach
        )
        self.summaries = Summaries(db, backend)
        self.admin = TransferAdmin(
            db, reach, progress, update=writes.update, held=held, wake=self._wake, noted=noted
        )
        self._wake_moving = wake

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
        self._wake_moving()
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
