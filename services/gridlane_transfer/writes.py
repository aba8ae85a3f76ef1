"""The writes of the service, through the group commit.

Responsible for the order in which a batch applies them, which is that in which they are declared:
an answer makes room before the next files are claimed. What changes files that are there is done in
turn by the processes of the service. What each of them does is the store's.
"""

from functools import partial
from typing import Final

from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_transfer.catalogue.base import Catalogue, LogicalFile
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.file_transfers import RetryPolicy
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import (
    banned,
    cancels,
    contents,
    deadlines,
    held,
    job_updates,
    jobs,
    staging,
    standing,
    sweeps,
)
from gridlane_transfer.store.banned import Review, Reviewed
from gridlane_transfer.store.cancels import Cancel, Canceled, CanceledFiles, CancelFiles
from gridlane_transfer.store.contents import Finished, Unregistered
from gridlane_transfer.store.deadlines import Ended, Late
from gridlane_transfer.store.held import HeldDone, HeldFiles
from gridlane_transfer.store.job_updates import JobUpdate, Updated
from gridlane_transfer.store.jobs import NewTransferJob, Resubmitted, Submitted
from gridlane_transfer.store.keeping import Keep, keep
from gridlane_transfer.store.moving import Moving
from gridlane_transfer.store.registering import Registering
from gridlane_transfer.store.removals import Removal, RemovalReport, RemovalRequest, Removing
from gridlane_transfer.store.staging import Part, Publication
from gridlane_transfer.store.standing import Settled, Standing
from gridlane_transfer.store.sweeps import Sweep, Swept
from gridlane_transfer.store.tables import FileRow


class FileWork:
    """The transactions of what is done to files in the background.

    Parameters:
        checksums: the algorithms that the mover computes.
    """

    def __init__(
        self,
        feed: Feed,
        channels: Channels,
        elements: StorageElements,
        catalogue: Catalogue,
        retry: RetryPolicy,
        order: SourceOrder,
        checksums: frozenset[str],
    ) -> None:
        self.registering: Final = Registering(feed, channels, elements, retry, catalogue)
        self.removing: Final = Removing(feed, channels, elements, retry)
        self.moving: Final = Moving(
            feed, channels, elements, retry, checksums, order, catalogue, self.registering
        )


class JobWrites:
    """Those of the verbs on jobs."""

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
            in_turn=True,
        )
        self.cancel_files: WriteKind[CancelFiles, CanceledFiles] = group.kind(
            "files.cancel",
            partial(cancels.cancel_files, feed=feed, channels=channels),
            key=lambda one: one.uuid,
            in_turn=True,
        )
        self.update: WriteKind[JobUpdate, Updated] = group.kind(
            "jobs.update",
            job_updates.apply,
            key=lambda one: one.uuid,
            in_turn=True,
        )
        self.step: WriteKind[Sweep, Swept] = group.kind(
            "files.sweep",
            partial(sweeps.step, feed=feed, channels=channels),
            key=lambda one: (one.job_number, one.kind),
            in_turn=True,
        )
        self.removed: WriteKind[RemovalReport, FileRow | None] = group.kind(
            "removals.report",
            removing.report,
            key=lambda one: one.number,
            in_turn=True,
        )
        self.remove: WriteKind[RemovalRequest, list[Removal]] = group.kind(
            "removals.claim",
            removing.claim,
            key=lambda one: one.holder,
            in_turn=True,
        )


class Writes:
    """All of them but the catalogue's, which come before."""

    def __init__(
        self,
        group: GroupCommit,
        feed: Feed,
        channels: Channels,
        elements: StorageElements,
        work: FileWork,
    ) -> None:
        moving, registering = work.moving, work.registering
        self.jobs = JobWrites(group, feed, channels, work.removing)
        self.settle: WriteKind[Standing, Settled] = group.kind(
            "files.settle",
            partial(standing.settle, feed=feed, channels=channels),
            key=lambda one: one.number,
            in_turn=True,
        )
        self.review: WriteKind[Review, Reviewed] = group.kind(
            "files.review",
            partial(banned.review, feed=feed, channels=channels, elements=elements),
            key=lambda one: one.number,
            in_turn=True,
        )
        self.report = group.kind(
            "files.report", moving.report, key=lambda one: one.number, in_turn=True
        )
        self.keep: WriteKind[Keep, FileState | None] = group.kind(
            "files.keep",
            keep,
            key=lambda one: one.number,
            in_turn=True,
        )
        self.claim = group.kind(
            "files.claim", moving.claim, key=lambda one: one.holder, in_turn=True
        )
        self.claim_owed = group.kind(
            "files.owed", registering.claim, key=lambda one: one.holder, in_turn=True
        )
        self.registered = group.kind(
            "files.registered",
            registering.report,
            key=lambda one: one.number,
            in_turn=True,
        )
        self.finish_upload: WriteKind[Finished, LogicalFile | Unregistered] = group.kind(
            "uploads.finish",
            partial(contents.finish, elements=elements),
            key=lambda one: one.upload.uuid,
        )
        self.hold: WriteKind[HeldFiles, HeldDone] = group.kind(
            "files.held",
            partial(held.settle, feed=feed, channels=channels),
            key=lambda one: one.key,
            in_turn=True,
        )
        self.end_late: WriteKind[Late, Ended] = group.kind(
            "files.end_late",
            partial(deadlines.end, feed=feed, channels=channels),
            key=lambda one: one.number,
            in_turn=True,
        )
