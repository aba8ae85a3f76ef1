"""What a veto, or a role that was lost, does to jobs that were submitted before.

Responsible for the rules: from its payload's start on a job is running work, before it is queued;
what becomes of it, and what is said of that. Also for finding the jobs that do not stand as they
should, along the index on owner and state. What is to be done with one of them is a step like any
other (`steps`), which asks here first; when to look is the kit's (`standing_work`).
"""

from collections.abc import Callable, Collection
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from gridlane.type.v1.failure_pb2 import Failure, FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobHold, JobPhase
from gridlane_kit import standing_work
from gridlane_kit.database import Database
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Policy, WorkAction
from gridlane_workload import jobs, states
from gridlane_workload.changes import JobAtHand
from gridlane_workload.jobs import Change
from gridlane_workload.states import Minor
from gridlane_workload.store import JOB

HOLDER: Final = "authorization"
"""Who holds jobs whose owner lost the right to them."""

STOPPABLE: Final = frozenset({states.STAGING, states.WAITING, states.RUNNING, states.COMPLETING})
"""States in which a step asks first. What is only accepted asks when it is admitted, and what was
matched just before its payload is started."""

_PERMISSION: Final = "workload.jobs.submit"
_BEGUN: Final = frozenset({states.RUNNING, states.COMPLETING})
_PAGE: Final = 200
_LOOKED_AT: Final = ("number", "uid", "vo", "state", "principal", "held_us", "status")


def action(principal: Principal, vo: str, state: states.State, policy: Policy) -> WorkAction:
    """What becomes of a job in a state, by what its owner may do now.

    Raises:
        GridlaneError: POLICY_STALE.
    """
    running = state in _BEGUN
    return standing_work.work_action(principal, _PERMISSION, vo, policy, running=running)


def is_held(status: Job) -> bool:
    """Whether a job is held for what its owner may not do."""
    return status.HasField("hold") and status.hold.by == HOLDER


def change(at_hand: JobAtHand, policy: Policy, action: WorkAction) -> Change | None:
    """What an action makes of a job; None when it stands as it should.

    A payload that runs is not interrupted by a hold: what is held are the steps after it.
    """
    status = at_hand.status
    if not _is_changed_by(action, status):
        return None
    if action is WorkAction.KEEP:
        return _released(status)
    message, cure = standing_work.why_stopped(at_hand.principal, at_hand.subject.vo, policy, "jobs")
    if action is WorkAction.CANCEL:
        return _canceled(status, f"cancelled: {message}", f"{cure}, then submit the job again")
    return hold(status.state, status.minor_status, message, cure)


def _is_changed_by(action: WorkAction, status: Job) -> bool:
    if action is WorkAction.HOLD:
        return not is_held(status) and status.state != states.RUNNING
    return action is WorkAction.CANCEL or is_held(status)


def hold(state: states.State, minor: str, message: str, cure: str) -> Change:
    """A hold that ends by itself."""
    reason = f"{message}: it goes on by itself when that ends; {cure}"
    return Change(state, minor, f"held: {message}", HOLDER, hold=JobHold(by=HOLDER, reason=reason))


def put_back(at_hand: JobAtHand, policy: Policy) -> list[Change]:
    """A job that was given a place, and may not start now: it gives the place back, and is held."""
    principal, vo = at_hand.principal, at_hand.subject.vo
    message, cure = standing_work.why_stopped(principal, vo, policy, "jobs")
    given_back = Change(states.RESCHEDULED, Minor.RESCHEDULED, "its place is given back", HOLDER)
    return [given_back, hold(states.WAITING, Minor.QUEUED, message, cure)]


def _released(status: Job) -> Change:
    message = "goes on: its owner has the right again"
    return Change(status.state, status.minor_status, message, HOLDER, released=True)


def _canceled(status: Job, message: str, cure: str) -> Change:
    failure = Failure(
        failure_class=FailureClass.FAILURE_CLASS_PERMISSION, message=message, cure=cure
    )
    if status.state in _BEGUN:
        phase = JobPhase.JOB_PHASE_KILLING
        noted = Job(failure=failure)
        return Change(status.state, Minor.KILLED, message, HOLDER, phase=phase, sets=noted)
    return jobs.killed(message, HOLDER, failure=failure)


class StandingJobs:
    """Looks at what stands.

    Parameters:
        wake: has a job (uuid) looked at.
    """

    def __init__(self, db: Database, wake: Callable[[str], None]) -> None:
        self._db = db
        self._wake = wake

    async def look(self, policy: Policy, owners: Collection[str] | None) -> bool:
        """Wake the jobs of some owners (None: of everybody) that do not stand as they should.

        Returns:
            Whether there were none: those woken are to be looked at once more.

        Raises:
            GridlaneError: the store did not answer.
        """
        after, settled = 0, True
        while True:
            rows = await self._page(owners, after)
            for row in rows:
                if _concerns(row, policy):
                    self._wake(row.uid)
                    settled = False
            if len(rows) < _PAGE:
                return settled
            after = rows[-1].number

    async def _page(self, owners: Collection[str] | None, after: int) -> "list[Row[Any]]":
        return await self._db.read(lambda conn: unfinished(conn, owners, after))


def unfinished(conn: Connection, owners: Collection[str] | None, after: int) -> list[Row[Any]]:
    """The next jobs of some owners (None: of everybody) that can be stopped, by number.

    Parameters:
        after: the number of the last one seen.
    """
    # Without their descriptions, which are large and not asked for.
    columns = [JOB.c[name] for name in _LOOKED_AT]
    statement = select(*columns).where(JOB.c.state.in_(sorted(STOPPABLE)), JOB.c.number > after)
    if owners is not None:
        statement = statement.where(JOB.c.owner.in_(owners))
    return list(conn.execute(statement.order_by(JOB.c.number).limit(_PAGE)))


def _concerns(row: Row[Any], policy: Policy) -> bool:
    wanted = action(Principal.from_json(row.principal), row.vo, row.state, policy)
    if wanted is WorkAction.KEEP and row.held_us is None:
        return False
    status = Job.FromString(row.status)
    dying = status.phase == JobPhase.JOB_PHASE_KILLING
    return not dying and _is_changed_by(wanted, status)
