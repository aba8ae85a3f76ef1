"""What a veto, or a role that was lost, does to files that were submitted before.

Responsible for the rules: which of the owner's work a file belongs to, what becomes of it, and what
is said of that. A file on its way is running work, one that waits is queued. The files that
Workload has moved for a job go with that job: inputs belong to work that has not begun, outputs to
work that has. When is looked, and what is written, is `standing`'s and the claim's (`moving`).
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from gridlane_kit import standing_work
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Policy, WorkAction
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.states import UNSTARTED, FileState, JobKind
from gridlane_transfer.store.tables import JobRow

_SUBMIT: Final = "transfer.jobs.submit"
_REMOVE: Final = "transfer.content.delete"

# The states that a file may have to leave, and for which actions.
_MAY_CHANGE: Final[Mapping[FileState, Collection[WorkAction]]] = {
    FileState.HELD: (WorkAction.KEEP, WorkAction.CANCEL),
    FileState.ACTIVE: (WorkAction.CANCEL,),
    **dict.fromkeys(UNSTARTED - {FileState.HELD}, (WorkAction.HOLD, WorkAction.CANCEL)),
}


@dataclass(frozen=True, slots=True)
class Stopped:
    """What becomes of a file that is stopped, and why."""

    state: FileState
    failure: Failed


def permission(job: JobRow) -> str:
    """What the owner of a job must be allowed for its files to go on."""
    return _REMOVE if job.kind == JobKind.DELETION else _SUBMIT


def action(job: JobRow, policy: Policy, state: FileState) -> WorkAction:
    """What becomes of a file in a state, by what its owner may do now.

    Raises:
        GridlaneError: POLICY_STALE.
    """
    running = job.placement if job.job_tag else state is FileState.ACTIVE
    principal = Principal.from_json(job.principal)
    own = job.kind == JobKind.DELETION
    return standing_work.work_action(
        principal, permission(job), job.vo, policy, running=running, own=own
    )


def concerns(job: JobRow, policy: Policy) -> bool:
    """Whether a job has files that may not stand as they do; seen without reading them.

    Raises:
        GridlaneError: POLICY_STALE.
    """
    counts = json.loads(job.counts)
    return any(
        counts.get(str(int(state))) and action(job, policy, state) in stopping
        for state, stopping in _MAY_CHANGE.items()
    )


def stopped(job: JobRow, policy: Policy, action: WorkAction) -> Stopped:
    """What an action other than KEEP makes of a file."""
    principal = Principal.from_json(job.principal)
    message, cure = standing_work.why_stopped(principal, job.vo, policy, "transfers")
    if action is WorkAction.HOLD:
        failed = Failed(
            FailureClass.PERMISSION,
            f"{message}: it goes on by itself when that ends",
            cure,
            recoverable=True,
        )
        return Stopped(FileState.HELD, failed)
    failed = Failed(FailureClass.PERMISSION, f"cancelled: {message}", f"{cure}, then submit again")
    return Stopped(FileState.CANCELED, failed)
