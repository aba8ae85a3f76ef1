"""What managers do with transfer jobs: other priorities, held files let go or given up.

Responsible for the rules of `TransferAdminService`: who may act on the whole job, who on the files
that lie on a channel alone, and that each call is in the audit. Held files of a whole channel are
`channel_admin`'s; both share `store.held`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from gridlane.transfer.v1 import transfer_admin_service_pb2 as admin_pb2
from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit import audit, errors
from gridlane_kit.call import Call
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_transfer.jobs.progress import Progress
from gridlane_transfer.jobs.reach import Reach, place_of, require_its_files, uuid_of
from gridlane_transfer.jobs.submission import DEFAULT_PRIORITY
from gridlane_transfer.store import jobs
from gridlane_transfer.store.held import HeldAction, HeldDone, HeldFiles
from gridlane_transfer.store.job_updates import JobUpdate, Updated
from gridlane_transfer.store.tables import JobRow

UPDATABLE: Final = ("priority", "activity")
_UPDATED = failpoint("transfer.job.updated")
_HELD = failpoint("transfer.held.committed")


class TransferAdmin:
    """The calls.

    Parameters:
        update, held: the writes, through the group commit.
        wake: has due files looked for.
        noted: says that there are files of a large job that are still to be changed.
    """

    def __init__(
        self,
        db: Database,
        reach: Reach,
        progress: Progress,
        *,
        update: WriteKind[JobUpdate, Updated],
        held: WriteKind[HeldFiles, HeldDone],
        wake: Callable[[], None],
        noted: Callable[[], None],
    ) -> None:
        self._db = db
        self._reach = reach
        self._progress = progress
        self._update = update
        self._held = held
        self._wake = wake
        self._noted = noted

    async def update(
        self, request: admin_pb2.UpdateTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        """Change the priority or the activity of a job and of what has not started of it.

        Raises:
            GridlaneError: INVALID_FIELDS for another field; NOT_FOUND, PERMISSION_DENIED,
                ILLEGAL_TRANSITION, REVISION_CONFLICT.
        """
        given = request.transfer_job
        fields = _changed(given, request.update_mask.paths)
        job, channels = await self._acted_on(given.name, call)
        update = JobUpdate(
            uuid=uuid_of(given.name),
            priority=(given.priority or DEFAULT_PRIORITY) if "priority" in fields else None,
            activity=given.activity if "activity" in fields else None,
            revision=request.revision,
            channels=channels,
            entry=audit.entry(call, resource=given.name, vo=job.vo, reason=request.reason),
        )
        updated = await self._update(update, deadline=call.deadline)
        _UPDATED()
        while updated.after is not None:
            following = replace(update, entry=None, after=updated.after)
            updated = await self._update(following, deadline=call.deadline)
            _UPDATED()
        self._noted()
        self._wake()
        return (await self._progress.messages([updated.job]))[0]

    async def release(
        self, request: admin_pb2.ReleaseHeldFilesRequest, call: Call
    ) -> admin_pb2.ReleaseHeldFilesResponse:
        """Let held files start again, with all their retries.

        Raises:
            GridlaneError: INVALID_FIELDS for a file of another job; NOT_FOUND, PERMISSION_DENIED.
        """
        count = await self._settle(
            request.name, request.files, request.reason, HeldAction.RELEASE, call
        )
        self._wake()
        return admin_pb2.ReleaseHeldFilesResponse(
            transfer_job=await self._told(request.name, call), released_files=count
        )

    async def fail(
        self, request: admin_pb2.FailHeldFilesRequest, call: Call
    ) -> admin_pb2.FailHeldFilesResponse:
        """Give held files up.

        Raises:
            GridlaneError: INVALID_FIELDS for a file of another job; NOT_FOUND, PERMISSION_DENIED.
        """
        count = await self._settle(
            request.name, request.files, request.reason, HeldAction.FAIL, call
        )
        return admin_pb2.FailHeldFilesResponse(
            transfer_job=await self._told(request.name, call), failed_files=count
        )

    async def _settle(
        self, name: str, files: Sequence[str], reason: str, action: HeldAction, call: Call
    ) -> int:
        """Settle held files, some at a time; how many."""
        require_its_files(name, "files", files)
        job, channels = await self._acted_on(name, call)
        entry = audit.entry(call, resource=name, vo=job.vo, reason=reason)
        ns = [place_of(file) for file in files] or None
        count, after = 0, 0
        while True:
            wish = HeldFiles(action, job.number, ns, channels, after, entry)
            done = await self._held(wish, deadline=call.deadline)
            _HELD()
            count += done.files
            if done.after is None:
                return count
            after = done.after

    async def _acted_on(self, name: str, call: Call) -> tuple[JobRow, frozenset[str] | None]:
        """The job, and the channels on which the caller may act on its files; None: on all."""
        job = await self._reach.one(name, call)
        whole = await self._db.read(lambda conn: jobs.may_act_on_all(conn, job, call.visibility))
        return job, None if whole else call.visibility.channels

    async def _told(self, name: str, call: Call) -> transfer_job_pb2.TransferJob:
        rows = await self._reach.all_of([name], call)
        return (await self._progress.messages(rows))[0]


def _changed(given: transfer_job_pb2.TransferJob, mask: Sequence[str]) -> Collection[str]:
    """The fields that an update changes (AIP-134).

    Raises:
        GridlaneError: INVALID_FIELDS for one that it cannot change.
    """
    unknown = [path for path in mask if path not in UPDATABLE]
    if unknown:
        raise _not_updatable(unknown)
    return mask or [name for name in UPDATABLE if getattr(given, name)]


def _not_updatable(paths: Sequence[str]) -> GridlaneError:
    can = f"only {' and '.join(UPDATABLE)} can be changed"
    return errors.invalid([("update_mask", f"{path}: {can}") for path in paths])
