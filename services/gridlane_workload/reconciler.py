"""The reconciler: moves every job that is due.

Responsible for picking jobs (under leases), for taking their steps side by side, for writing what
came of them, and for trying again what could not be done now. Event-driven: submissions, kills,
ends of payloads and of transfers wake it; a slow poll stands behind. The steps themselves are
`steps`'.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import grpc
from sqlalchemy import Row

from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobPhase
from gridlane_kit.call import later
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.identity import Principal
from gridlane_kit.leases import new_holder
from gridlane_kit.logs import logger
from gridlane_kit.telemetry import Telemetry
from gridlane_workload import changes, jobs, outcomes, queue_store, states, store
from gridlane_workload.backends.interface import (
    Backend,
    BackendRefusedError,
    BackendUnavailableError,
)
from gridlane_workload.changes import (
    Admission,
    Admitted,
    JobAtHand,
    Lease,
    Matched,
    Matching,
    advance_for,
)
from gridlane_workload.jobs import Change
from gridlane_workload.queue_store import Claim, Claimed
from gridlane_workload.settings import WorkloadSettings
from gridlane_workload.steps import Result, Steps
from gridlane_workload.store import Advance
from gridlane_workload.transfers import Transfers

_STAGE_IN_INTENT: Final = failpoint("workload.stage_in.intent")
_QUEUED: Final = failpoint("workload.queue.committed")
_MATCHED: Final = failpoint("workload.match.committed")

# What goes by itself, sooner or later: the step is tried again for as long as it takes.
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
    }
)
# A defect does not: after so many times the job fails, unless a payload of it may be running.
_DEFECT_LIMIT: Final = 10
_FIRST_RETRY_S: Final = 0.5
_MAX_WOKEN: Final = 500
_MAX_ADMITTED: Final = 500
# What steps under way get at a stop; they can be taken again in any case.
_DRAIN_S: Final = 5.0


class Reconciler:
    """Moves jobs; made before the group commit is started, whose kinds of write it declares.

    Parameters:
        exclusive: no other process has this database, and so none moves its jobs.
    """

    def __init__(
        self,
        settings: WorkloadSettings,
        db: Database,
        group: GroupCommit,
        feed: Feed,
        steps: Steps,
        backend: Backend,
        movers: Transfers,
        telemetry: Telemetry,
        *,
        exclusive: bool,
    ) -> None:
        self._settings = settings
        self._exclusive = exclusive
        self._db = db
        self._steps = steps
        self._backend = backend
        self._transfers = movers
        self._telemetry = telemetry
        self._holder = new_holder()
        self._admit: WriteKind[Admission, Admitted] = group.kind(
            "jobs.admit",
            lambda conn, wishes: changes.admit(conn, feed, wishes),
            key=lambda wish: wish.now_us,
        )
        self._match_waiting: WriteKind[Matching, Matched] = group.kind(
            "jobs.match",
            lambda conn, wishes: changes.match(conn, feed, wishes),
            key=lambda wish: wish.now_us,
        )
        self._claim: WriteKind[Claim, Claimed] = group.kind(
            "jobs.claim",
            queue_store.claim_all,
            key=lambda wish: wish.holder,
        )
        self._advance: WriteKind[Advance, bool] = group.kind(
            "jobs.advance",
            lambda conn, entries: store.advance(conn, feed, entries),
            key=lambda entry: entry.number,
        )
        self._woken: set[str] = set()
        self._in_hand: dict[str, asyncio.Task[None]] = {}
        self._again = asyncio.Event()
        # What the next round has to look for; at first everything.
        self._may_admit = True
        self._may_start = True
        self._full = False
        self._due_us = 0
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None
        self._log = logger("workload")

    async def start(self) -> None:
        """Begin to move jobs."""
        self._loop = asyncio.create_task(self._run(), name="workload-reconciler")

    async def drain(self) -> None:
        """Take no further step; give those under way a moment."""
        self._stopping = True
        self._again.set()
        if self._loop is not None:
            await self._loop
        under_way = list(self._in_hand.values())
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=_DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def accepted(self) -> None:
        """Say that jobs were accepted."""
        self._may_admit = True
        self._again.set()

    def due(self) -> None:
        """Say that a row has become due."""
        self._due_us = 0
        self._again.set()

    def wake(self, job: str) -> None:
        """Say that a job (uuid) is due whatever its row says."""
        self._woken.add(job)
        self._again.set()

    def _look_everywhere(self) -> None:
        """The slow poll: whatever was missed is found by it."""
        self._may_admit = self._may_start = True
        self._full = False
        self._due_us = 0

    async def _run(self) -> None:
        while not self._stopping:
            self._again.clear()
            try:
                pause_s = await self._round()
            except GridlaneError as error:
                # The store: what is due stays due.
                self._log.warning("no work could be picked", reason=error.reason)
                pause_s = _FIRST_RETRY_S
            except Exception as error:
                self._log.error("a round failed", exc_info=error)
                pause_s = _FIRST_RETRY_S
            if pause_s > 0 and not self._stopping:
                try:
                    async with asyncio.timeout(pause_s):
                        await self._again.wait()
                except TimeoutError:
                    self._look_everywhere()

    async def _round(self) -> float:
        """Pick what is due and begin its steps.

        Returns:
            Seconds until something is due by itself.
        """
        if self._may_admit:
            await self._admit_accepted()
        if self._may_start and not self._full:
            await self._match()
        free = self._settings.max_steps - len(self._in_hand)
        if free > 0 and (self._woken - self._in_hand.keys() or self._due_us <= now_us()):
            await self._pick(free)
        if free <= 0 or self._may_admit:
            return self._settings.poll_s if free <= 0 else 0
        return min(self._settings.poll_s, max(0.0, (self._due_us - now_us()) / 1e6))

    async def _admit_accepted(self) -> None:
        self._may_admit = False
        admitted = await self._admit(Admission(self._backend.name, _MAX_ADMITTED, now_us()))
        if admitted.staging:
            _STAGE_IN_INTENT()
            self._due_us = 0
        if admitted.waiting:
            _QUEUED()
            self._may_start = True
        self._may_admit |= admitted.staging + admitted.waiting == _MAX_ADMITTED

    async def _pick(self, free: int) -> None:
        """Lease what is due and begin its steps."""
        # One whose step is under way stays woken: that step may have looked just too early.
        woken = frozenset(list(self._woken - self._in_hand.keys())[:_MAX_WOKEN])
        self._woken -= woken
        # What steps find to be due meanwhile only brings it nearer.
        self._due_us = now_us() + round(self._settings.poll_s * 1e6)
        claimed = await self._claim(
            Claim(
                holder=self._holder,
                ttl=timedelta(seconds=self._settings.lease_s),
                limit=free,
                woken=woken,
                now_us=now_us(),
            )
        )
        if len(claimed.rows) == free:
            self._woken |= woken - {row.uid for row in claimed.rows}
        for at_hand in await self._without_those_still_moving(claimed.rows, woken):
            task = asyncio.create_task(self._step(at_hand), name=f"step-{at_hand.uid}")
            self._in_hand[at_hand.uid] = task
        if claimed.next_due_us is not None:
            self._due_us = min(self._due_us, claimed.next_due_us)

    async def _match(self) -> None:
        """Give free places to waiting jobs."""
        self._may_start = False
        places = self._backend.places
        waiting, full = await self._db.read(lambda conn: queue_store.any_startable(conn, places))
        if waiting:
            matched = await self._match_waiting(Matching(places, now_us()))
            _MATCHED()
            full = matched.full
            self._due_us = 0
        # Set again meanwhile: a job left its place after the read. And where other processes end
        # jobs, only the store knows.
        self._full = full and self._exclusive and not self._may_start

    async def _without_those_still_moving(
        self, rows: Sequence[Row[Any]], woken: frozenset[str]
    ) -> list[JobAtHand]:
        """Ask in bulk about transfers that are polled; go on only with jobs whose transfer ended.

        A job about which an event came is gone on with at once.
        """
        at_hand = [JobAtHand(row) for row in rows]
        polled: defaultdict[str, list[JobAtHand]] = defaultdict(list)
        for job in at_hand:
            if job.uid not in woken and _awaited(job.status):
                polled[job.row.principal].append(job)
        moving: set[str] = set()
        for waiting in polled.values():
            if len(waiting) > 1:
                moving |= await self._still_moving(waiting[0].principal, waiting)
        if moving:
            again_us = now_us() + round(self._settings.poll_s * 1e6)
            await self._write_all(
                [(job, Result(due_us=again_us)) for job in at_hand if job.uid in moving]
            )
        return [job for job in at_hand if job.uid not in moving]

    async def _still_moving(self, owner: Principal, waiting: Sequence[JobAtHand]) -> set[str]:
        names = {_awaited(job.status): job.uid for job in waiting}
        try:
            with later(
                self._telemetry,
                "workload.poll",
                owner,
                timeout_s=self._settings.step_timeout_s,
            ) as caller:
                return {
                    names[name] for name in await self._transfers.still_moving(caller, list(names))
                }
        except GridlaneError:
            # Each job's own step asks again, and knows what a refusal means for it.
            return set()

    async def _step(self, at_hand: JobAtHand) -> None:
        try:
            result = await self._take(at_hand)
            if await self._write_all([(at_hand, result)]):
                result.committed()
                self._take_note(at_hand, result)
            else:
                # Somebody else changed it meanwhile, and left it due.
                self._due_us = 0
        except GridlaneError as error:
            self._log.warning(
                "a step could not be written", job=at_hand.subject.name, reason=error.reason
            )
        finally:
            self._in_hand.pop(at_hand.uid, None)
            self._again.set()

    def _take_note(self, at_hand: JobAtHand, result: Result) -> None:
        """Remember what a result means for the next round."""
        if result.due_us is not None:
            self._due_us = min(self._due_us, result.due_us)
        if any(c.released or c.to != at_hand.status.state for c in result.changes):
            # It may wait for a place now, or have left one.
            self._may_start = True
            self._full &= at_hand.status.state not in states.AT_BACKEND

    async def _take(self, at_hand: JobAtHand) -> Result:
        """Take the step; what kept it from being taken is a result as well."""
        try:
            return await self._steps.take(at_hand)
        except GridlaneError as error:
            if error.code in _PASSING:
                return self._retry(at_hand, error.reason)
            if error.code is grpc.StatusCode.INTERNAL:
                return self._defect(at_hand, error)
            if _may_not_be_final(at_hand, error):
                return self._retry(at_hand, error.reason)
            return self._refused(at_hand, outcomes.refused(at_hand.status, error))
        except BackendUnavailableError as error:
            return self._retry(at_hand, str(error))
        except BackendRefusedError as error:
            failure = jobs.failed(
                FailureClass.FAILURE_CLASS_BACKEND_REFUSED,
                at_hand.status.minor_status,
                str(error),
                source=self._backend.name,
            )
            return self._refused(at_hand, failure)
        except Exception as error:
            return self._defect(at_hand, error)

    def _refused(self, at_hand: JobAtHand, failure: Change) -> Result:
        """A step that will never be taken: the job ends, badly or as it was to end."""
        if at_hand.status.state == states.KILLED:
            return Result()
        if at_hand.status.phase == JobPhase.JOB_PHASE_KILLING:
            return Result(
                [jobs.killed("killed; its outputs may be moved all the same", "workload")]
            )
        return Result([failure])

    def _defect(self, at_hand: JobAtHand, error: Exception) -> Result:
        self._log.error("a step failed", job=at_hand.subject.name, exc_info=error)
        spent = at_hand.row.failed_steps + 1 >= _DEFECT_LIMIT
        if not spent or at_hand.status.state in states.AT_BACKEND:
            return self._retry(at_hand, type(error).__name__)
        failure = jobs.failed(
            FailureClass.FAILURE_CLASS_INTERNAL,
            at_hand.status.minor_status,
            f"a step failed {_DEFECT_LIMIT} times for a defect of the server; its log tells more",
            "tell the operator the job's name",
        )
        return self._refused(at_hand, failure)

    def _retry(self, at_hand: JobAtHand, why: str) -> Result:
        failed = at_hand.row.failed_steps + 1
        delay_s = min(_FIRST_RETRY_S * 2 ** min(failed, 20), self._settings.max_retry_delay_s)
        self._log.info(
            "a step is tried again", job=at_hand.subject.name, why=why, seconds=round(delay_s, 1)
        )
        return Result(due_us=now_us() + round(delay_s * 1e6), values={"failed_steps": failed})

    async def _write_all(self, results: Sequence[tuple[JobAtHand, Result]]) -> bool:
        """Write results; False when one of them came too late to be made."""
        now = now_us()
        made = await self._advance.many(
            [
                advance_for(
                    at_hand,
                    result.changes,
                    now,
                    result.due_us,
                    result.values,
                    Lease(self._holder, at_hand.row.lease_epoch),
                )
                for at_hand, result in results
            ]
        )
        return all(item is True for item in made)


def _may_not_be_final(at_hand: JobAtHand, error: GridlaneError) -> bool:
    """Whether a refusal may come of a policy that is in force there and not yet here, or the other
    way round: what a veto or a lost role means for a job is said by `rights`.
    """
    ends = at_hand.status.state == states.KILLED
    if ends or at_hand.status.phase == JobPhase.JOB_PHASE_KILLING:
        return False
    first = error.reason is ErrorReason.PERMISSION_DENIED and not at_hand.row.failed_steps
    return first or error.reason is ErrorReason.CALLER_VETOED


def _awaited(status: Job) -> str:
    """The transfer that a job waits for; empty when it waits for none."""
    if status.phase == JobPhase.JOB_PHASE_KILLING:
        return ""
    if status.state == states.STAGING:
        return status.stage_in_transfer
    return status.stage_out_transfer if status.state == states.COMPLETING else ""
