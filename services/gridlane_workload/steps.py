"""The steps of a job's life: for each state, what is done next.

Responsible for taking ONE step of one job that the reconciler holds: look at what exists, do the
one outside act that is due, say what changed. Every act was announced in the row before (attempt,
request ids), so each step may be taken again after a crash and finds what it did before. Not for
when, nor for writing the result (`reconciler`); not for what an end means (`outcomes`).

Acts are done in the name of the job's owner, decided again under the policy of the day: a veto that
came after the submission stops the next step, unless it lets such work go on (`rights`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from gridlane.authorization.v1.token_service_pb2 import MintJobTokenRequest
from gridlane.workload.v1.job_pb2 import Executor, Job, JobOutput, JobPhase, ResourceUse
from gridlane_kit.call import Caller, later
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.failpoints import failpoint
from gridlane_kit.peers import Peers
from gridlane_kit.policy import PolicyHolder, WorkAction
from gridlane_kit.telemetry import Telemetry
from gridlane_workload import jobs, outcomes, rights, states, transfers
from gridlane_workload.backends.interface import (
    Backend,
    BackendUnavailableError,
    Command,
    End,
    Observation,
    Standing,
    Work,
)
from gridlane_workload.changes import JobAtHand
from gridlane_workload.jobs import Change
from gridlane_workload.settings import WorkloadSettings
from gridlane_workload.states import Minor
from gridlane_workload.transfers import Moved, Transfers

# A job's token outlives its payload by this, for what is still to be told.
_TOKEN_MARGIN_S: Final = 3600
_TOKEN_LIMIT_S: Final = 30 * 86_400
_SOON_US: Final = 200_000

_STAGE_IN_PREPARED: Final = failpoint("workload.stage_in.prepared")
_STAGE_IN_SUBMITTED: Final = failpoint("workload.stage_in.submitted")
_STAGE_IN_NOTED: Final = failpoint("workload.stage_in.noted")
_STAGE_IN_ENDED: Final = failpoint("workload.stage_in.ended")
_TOKEN_MINTED: Final = failpoint("workload.token.minted")
_START_NOTED: Final = failpoint("workload.start.noted")
_END_SEEN: Final = failpoint("workload.end.seen")
_END_NOTED: Final = failpoint("workload.end.noted")
_STAGE_OUT_INTENT: Final = failpoint("workload.stage_out.intent")
_STAGE_OUT_SUBMITTED: Final = failpoint("workload.stage_out.submitted")
_STAGE_OUT_NOTED: Final = failpoint("workload.stage_out.noted")
_STAGE_OUT_ENDED: Final = failpoint("workload.stage_out.ended")
_CANCEL_ASKED: Final = failpoint("workload.cancel.asked")
_KILL_NOTED: Final = failpoint("workload.kill.noted")
_RIGHTS_NOTED: Final = failpoint("workload.rights.noted")


def _nothing() -> None:
    """The failpoint of a result that has none."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a step found or did.

    Parameters:
        changes: of the job; none when it goes on waiting.
        due_us: when to look at the job again; None: when somebody moves it.
        values: further columns to set.
        committed: the failpoint behind the commit of this result.
    """

    changes: Sequence[Change] = ()
    due_us: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    committed: Callable[[], None] = _nothing


_Step = Callable[[JobAtHand], Awaitable[Result]]


class Steps:
    """The steps, bound to what they act upon.

    Parameters:
        backend: that runs payloads.
        peers: Transfer and Authorization.
        policy: in force; each step is decided under it.
    """

    def __init__(
        self,
        settings: WorkloadSettings,
        backend: Backend,
        peers: Peers,
        movers: Transfers,
        telemetry: Telemetry,
        policy: PolicyHolder,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._tokens = peers.authorization_tokens
        self._transfers = movers
        self._telemetry = telemetry
        self._policy = policy
        self._by_state: Mapping[states.State, _Step] = {
            states.STAGING: self._stage_in,
            states.MATCHED: self._start,
            states.RUNNING: self._look,
            states.COMPLETING: self._stage_out,
            states.KILLED: self._clean_up,
        }

    async def take(self, at_hand: JobAtHand) -> Result:
        """Take the step that is due.

        Raises:
            GridlaneError: a peer could not, or would not, do its part.
            BackendUnavailableError, BackendRefusedError: the same of the backend.
        """
        if at_hand.status.phase == JobPhase.JOB_PHASE_KILLING:
            return await self._kill(at_hand)
        stopped = self._stopped(at_hand)
        if stopped is not None:
            return stopped
        step = self._by_state.get(at_hand.status.state)
        # A job in any other state was woken for nothing.
        return await step(at_hand) if step is not None else Result(due_us=at_hand.row.due_us)

    async def _stage_in(self, at_hand: JobAtHand) -> Result:
        """STAGING: have the inputs brought, then wait for them."""
        name = at_hand.status.stage_in_transfer
        with self._later("workload.stage_in", at_hand) as caller:
            if not name:
                name = await self._submit_stage_in(at_hand, caller)
                _STAGE_IN_SUBMITTED()
                noted = Change(
                    states.STAGING,
                    Minor.BRINGING,
                    f"{name} brings the inputs",
                    sets=Job(stage_in_transfer=name),
                )
                return Result([noted], due_us=self._poll_us(), committed=_STAGE_IN_NOTED)
            how = await self._transfers.look(caller, name)
        if not how.final:
            return Result(due_us=self._poll_us())
        if not how.well:
            return Result([outcomes.not_brought(name, how)], committed=_STAGE_IN_ENDED)
        brought = ResourceUse(input_files=how.files, input_bytes=how.size_bytes)
        queued = Change(
            states.WAITING,
            Minor.QUEUED,
            f"{jobs.files(how.files)} brought; waits for a place to run",
            sets=Job(resource_use=brought),
        )
        return Result([queued], committed=_STAGE_IN_ENDED)

    async def _submit_stage_in(self, at_hand: JobAtHand, caller: Caller) -> str:
        inputs = jobs.to_be_brought(at_hand.job.description)
        await self._backend.prepare(at_hand.attempt, [item.path for item in inputs])
        _STAGE_IN_PREPARED()
        job = transfers.stage_in(at_hand.job.vo, inputs, at_hand.attempt, self._backend)
        return await self._transfers.submit(caller, job, at_hand.row.stage_in_request)

    async def _start(self, at_hand: JobAtHand) -> Result:
        """MATCHED: start the payload, or find that it was started before."""
        seen = await self._backend.observe(at_hand.attempt)
        if seen.standing is Standing.ABSENT:
            may = self._action(at_hand)
            if may is not WorkAction.KEEP:
                return self._not_started(at_hand, may)
            with self._later("workload.run", at_hand) as caller:
                work = await self._work(at_hand, caller)
                _TOKEN_MINTED()
                seen = await self._backend.start(at_hand.attempt, work)
        if seen.standing is Standing.LOST:
            return Result([outcomes.lost(self._backend.name)], committed=_END_NOTED)
        if seen.standing is Standing.STARTING:
            return Result(due_us=now_us() + _SOON_US)
        if seen.standing is Standing.ABSENT:
            raise BackendUnavailableError("the payload was not started")
        sets = Job(backend_id=f"{at_hand.uid}/{at_hand.status.attempt}")
        if seen.start_us is not None:
            sets.start_time.CopyFrom(to_timestamp(seen.start_us))
        running = Change(
            states.RUNNING, Minor.EXECUTING, "the payload runs", self._backend.name, sets=sets
        )
        ended = seen.standing is Standing.ENDED
        due_us = now_us() if ended else self._poll_us()
        return Result([running], due_us=due_us, committed=_START_NOTED)

    async def _look(self, at_hand: JobAtHand) -> Result:
        """RUNNING: has the payload ended, and how?"""
        seen = await self._backend.observe(at_hand.attempt)
        if seen.standing in (Standing.LOST, Standing.ABSENT):
            return Result([outcomes.lost(self._backend.name)], committed=_END_NOTED)
        if seen.end is None:
            return Result(due_us=self._poll_us())
        _END_SEEN()
        return await self._ended(at_hand, seen.end)

    async def _ended(self, at_hand: JobAtHand, end: End) -> Result:
        description, source = at_hand.job.description, self._backend.name
        failed = outcomes.payload_failed(end, description, source)
        if failed is not None:
            return Result([failed], committed=_END_NOTED)
        found = await self._outputs(at_hand)
        used = outcomes.use_of(end, description)
        missing = outcomes.missing_outputs(description, found, source)
        if missing is not None:
            delivering = Change(
                states.COMPLETING, Minor.FINISHED, "the payload ended well", source, sets=used
            )
            return Result([delivering, missing], committed=_END_NOTED)
        if not any(item.size_bytes is not None for item in found):
            finished = Change(
                states.COMPLETING, Minor.FINISHED, "the payload ended well", source, sets=used
            )
            return Result([finished, _done("all done")], committed=_END_NOTED)
        delivering = Change(
            states.COMPLETING, Minor.DELIVERING, "the payload ended well", source, sets=used
        )
        return Result([delivering], due_us=now_us(), committed=_STAGE_OUT_INTENT)

    async def _stage_out(self, at_hand: JobAtHand) -> Result:
        """COMPLETING: have the outputs moved, then wait for them."""
        name = at_hand.status.stage_out_transfer
        with self._later("workload.stage_out", at_hand) as caller:
            if not name:
                name = await self._submit_stage_out(at_hand, caller)
                _STAGE_OUT_SUBMITTED()
                noted = Change(
                    states.COMPLETING,
                    Minor.DELIVERING,
                    f"{name} moves the outputs",
                    sets=Job(stage_out_transfer=name),
                )
                return Result([noted], due_us=self._poll_us(), committed=_STAGE_OUT_NOTED)
            how = await self._transfers.look(caller, name)
        if not how.final:
            return Result(due_us=self._poll_us())
        if not how.well:
            return Result([outcomes.not_delivered(name, how)], committed=_STAGE_OUT_ENDED)
        return Result([_delivered(how)], committed=_STAGE_OUT_ENDED)

    async def _submit_stage_out(self, at_hand: JobAtHand, caller: Caller) -> str:
        there = {item.path for item in await self._outputs(at_hand) if item.size_bytes is not None}
        outputs: list[JobOutput] = [
            item for item in at_hand.job.description.outputs if item.path in there
        ]
        job = transfers.stage_out(at_hand.job.vo, outputs, at_hand.attempt, self._backend)
        return await self._transfers.submit(caller, job, at_hand.row.stage_out_request)

    async def _kill(self, at_hand: JobAtHand) -> Result:
        """Phase KILLING: end what is under way, and say KILLED when it has ended."""
        if at_hand.status.state == states.COMPLETING:
            return await self._cancel_stage_out(at_hand)
        seen = await self._backend.kill(at_hand.attempt)
        if seen.standing in (Standing.STARTING, Standing.RUNNING):
            return Result(due_us=self._poll_us())
        return Result([self._killed(at_hand, seen)], committed=_KILL_NOTED)

    def _killed(self, at_hand: JobAtHand, seen: Observation) -> Change:
        if seen.end is None:
            return jobs.killed("killed before its payload ended", self._backend.name)
        used = outcomes.use_of(seen.end, at_hand.job.description)
        return jobs.killed("the payload was ended", self._backend.name, used)

    async def _cancel_stage_out(self, at_hand: JobAtHand) -> Result:
        name = at_hand.status.stage_out_transfer
        with self._later("workload.cancel", at_hand) as caller:
            if not name:
                # It may have been asked for just before a crash: the same id finds it.
                name = await self._submit_stage_out(at_hand, caller)
            how = await self._transfers.cancel(caller, name)
            _CANCEL_ASKED()
            if not how.final:
                return Result(due_us=self._poll_us())
            how = await self._transfers.look(caller, name)
        if how.well:
            # The kill came too late: all outputs had been moved.
            return Result([_delivered(how)], committed=_KILL_NOTED)
        return Result(
            [jobs.killed("the outputs were not moved", "workload")], committed=_KILL_NOTED
        )

    async def _clean_up(self, at_hand: JobAtHand) -> Result:
        """KILLED while its inputs were being brought: nobody needs them any more."""
        if at_hand.row.stage_in_request is not None:
            with self._later("workload.cancel", at_hand) as caller:
                name = at_hand.status.stage_in_transfer
                if not name:
                    name = await self._submit_stage_in(at_hand, caller)
                await self._transfers.cancel(caller, name)
                _CANCEL_ASKED()
        return Result()

    def _action(self, at_hand: JobAtHand) -> WorkAction:
        state, vo = at_hand.status.state, at_hand.subject.vo
        return rights.action(at_hand.principal, vo, state, self._policy.current)

    def _stopped(self, at_hand: JobAtHand) -> Result | None:
        """What the rights of its owner make of a job instead of its next step, if anything."""
        status, policy = at_hand.status, self._policy.current
        runs = status.state == states.RUNNING
        if status.state not in rights.STOPPABLE or (runs and policy.closed):
            return None
        change = rights.change(at_hand, policy, self._action(at_hand))
        if change is not None:
            waits = change.hold is not None or change.to == states.WAITING
            due_us = None if waits else now_us()
            return Result([change], due_us=due_us, committed=_RIGHTS_NOTED)
        return Result() if rights.is_held(status) else None

    def _not_started(self, at_hand: JobAtHand, action: WorkAction) -> Result:
        """A job whose payload may not be started, and whose place is free again."""
        policy = self._policy.current
        if action is WorkAction.HOLD:
            return Result(rights.put_back(at_hand, policy), committed=_RIGHTS_NOTED)
        ended = rights.change(at_hand, policy, action)
        return Result([] if ended is None else [ended], committed=_RIGHTS_NOTED)

    async def _work(self, at_hand: JobAtHand, caller: Caller) -> Work:
        description = at_hand.job.description
        walltime_s = float(self._settings.default_walltime_s)
        if description.resources.HasField("walltime"):
            walltime_s = description.resources.walltime.ToTimedelta().total_seconds()
        lifetime_s = min(int(walltime_s) + _TOKEN_MARGIN_S, _TOKEN_LIMIT_S)
        minted = await self._tokens(caller).MintJobToken(
            MintJobTokenRequest(
                job=at_hand.subject.name,
                attempt=at_hand.status.attempt,
                lifetime=Duration(seconds=lifetime_s),
            )
        )
        return Work(
            commands=[_command(executor) for executor in description.executors],
            walltime_s=walltime_s,
            memory_bytes=description.resources.memory_bytes,
            disk_bytes=description.resources.disk_bytes,
            token=minted.token,
            traceparent=caller.traceparent,
            contents={i.path: i.content for i in description.inputs if i.HasField("content")},
            executables=[item.path for item in description.inputs if item.executable],
        )

    async def _outputs(self, at_hand: JobAtHand) -> list[Any]:
        paths = [item.path for item in at_hand.job.description.outputs]
        return await self._backend.outputs(at_hand.attempt, paths) if paths else []

    def _later(self, name: str, at_hand: JobAtHand) -> AbstractContextManager[Caller]:
        return later(
            self._telemetry,
            name,
            at_hand.principal,
            timeout_s=self._settings.step_timeout_s,
            submitted=at_hand.row.traceparent,
            job_id=at_hand.uid,
        )

    def _poll_us(self) -> int:
        return now_us() + round(self._settings.poll_s * 1e6)


def _command(executor: Executor) -> Command:
    return Command(
        arguments=list(executor.command),
        environment=dict(executor.environment),
        workdir=executor.workdir,
        stdin=executor.stdin,
        stdout=executor.stdout,
        stderr=executor.stderr,
        ignore_error=executor.ignore_error,
        run_always=executor.run_always,
    )


def _done(message: str, sets: Job | None = None) -> Change:
    return Change(states.DONE, Minor.COMPLETE, message, sets=sets)


def _delivered(how: Moved) -> Change:
    moved = ResourceUse(output_files=how.files, output_bytes=how.size_bytes)
    return _done(f"{jobs.files(how.files)} moved; all done", Job(resource_use=moved))
