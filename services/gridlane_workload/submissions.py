"""Submissions: from a request to a durable job.

Responsible for the order of things: the VO, the rules, the request id, one entry of the group
commit for job, first event and request id, and the answer to a repetition. The rules are `jobs`',
the statements `store`'s.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gridlane.workload.v1.job_pb2 import Job
from gridlane.workload.v1.job_service_pb2 import (
    BatchSubmitJobsResponse,
    JobResult,
    SubmitJobRequest,
)
from gridlane_kit import errors, request_ids
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.request_ids import RequestKey
from gridlane_kit.validation import validate
from gridlane_workload import jobs, store
from gridlane_workload.backends.interface import Backend
from gridlane_workload.capabilities import Requirements
from gridlane_workload.jobs import Acceptance
from gridlane_workload.store import Accepted, Repeated, StoredJob, Submission

_COMMITTED: Final = failpoint("workload.submit.committed")
# The batch form is the same act: an id may be sent by either.
_METHOD: Final = "gridlane.workload.v1.JobService/SubmitJob"


class Submissions:
    """Takes jobs in; made before the group commit is started, whose kind of write it declares.

    Parameters:
        backend: that runs jobs.
        reads: of jobs by uuid, to answer repetitions.
        accepted: called after jobs were stored.
    """

    def __init__(
        self,
        db: Database,
        group: GroupCommit,
        feed: Feed,
        reads: GroupedRead[str, StoredJob],
        backend: Backend,
        accepted: Callable[[], None],
    ) -> None:
        self._db = db
        self._reads = reads
        self._capabilities = backend.capabilities
        self._requirements = Requirements(backend.capabilities, backend.name)
        self._accepted = accepted
        self._submit: WriteKind[Submission, Accepted | Repeated] = group.kind(
            "jobs.submit",
            lambda conn, entries: store.submit(conn, feed, entries),
            key=lambda entry: entry.uid,
        )

    async def one(self, request: SubmitJobRequest, call: Call) -> Job:
        """Accept a job; it is durable when this returns.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, VO_AMBIGUOUS, PERMISSION_DENIED,
                REQUEST_ID_TOO_OLD, REQUEST_ID_REUSED, and those of the store.
        """
        acceptance = _acceptance(call)
        submission = self._prepared(request, call, acceptance)
        if request.validate_only:
            return Job.FromString(await self._validated(submission))
        outcome = await self._submit(submission, deadline=call.deadline)
        _COMMITTED()
        self._accepted()
        answer = Job.FromString(await self._answer(outcome))
        call.about_job(answer.name.removeprefix("jobs/"))
        return answer

    async def many(
        self, requests: Sequence[SubmitJobRequest], call: Call
    ) -> BatchSubmitJobsResponse:
        """Accept jobs, each with its own outcome in the order given."""
        acceptance = _acceptance(call)
        answers: list[bytes | GridlaneError] = []
        submissions: list[Submission] = []
        places: list[int] = []
        for request in requests:
            try:
                # The contract leaves the items of a batch to us, so that one cannot refuse all.
                validate(request)
                submission = self._prepared(request, call, acceptance)
                if request.validate_only:
                    answers.append(await self._validated(submission))
                    continue
            except GridlaneError as error:
                answers.append(error)
                continue
            places.append(len(answers))
            answers.append(b"")
            submissions.append(submission)
        outcomes = await self._submit.many(submissions, deadline=call.deadline)
        _COMMITTED()
        self._accepted()
        for place, outcome in zip(places, outcomes, strict=True):
            answers[place] = await self._answered(outcome)
        response = BatchSubmitJobsResponse()
        for answer in answers:
            put(response.results.add(), answer)
        return response

    def _prepared(
        self, request: SubmitJobRequest, call: Call, acceptance: Acceptance
    ) -> Submission:
        vo = call.choose_vo(request.job.vo)
        jobs.check(request.job.description, self._capabilities)
        self._requirements.check(request.job.description)
        key = None
        if request.request_id:
            request_ids.check(request.request_id, acceptance.now_us)
            key = RequestKey(
                acceptance.submitter.owner, _METHOD, request.request_id, _digest(request)
            )
        return jobs.accept(request.job.description, vo, acceptance, key)

    async def _validated(self, submission: Submission) -> bytes:
        """What would be stored, without a name; the job that the request made before, if it did.

        Raises:
            GridlaneError: REQUEST_ID_REUSED.
        """
        key = submission.request
        if key is not None:
            (claim,) = await self._db.read(
                lambda conn: request_ids.claim(conn, store.REQUEST_ID, [key])
            )
            if isinstance(claim, request_ids.Conflict):
                raise errors.request_id_reused()
            if isinstance(claim, request_ids.Replay):
                return await self._answer(Repeated(claim.resource))
        job = Job.FromString(submission.job + submission.status)
        job.ClearField("name")
        return job.SerializeToString()

    async def _answered(self, outcome: Accepted | Repeated | Exception) -> bytes | GridlaneError:
        """The answer for an item of a batch; what is not for the caller to know fails the call."""
        if isinstance(outcome, GridlaneError):
            return outcome
        if isinstance(outcome, Exception):
            raise outcome
        try:
            return await self._answer(outcome)
        except GridlaneError as error:
            return error

    async def _answer(self, outcome: Accepted | Repeated) -> bytes:
        """The encoded job that a request made, now or before."""
        if isinstance(outcome, Accepted):
            return outcome.job
        # The job as it is now, not as it was when it was accepted.
        stored = await self._reads.get(outcome.name.removeprefix("jobs/"))
        if stored is None:
            raise errors.not_found(outcome.name)
        return stored.encoded


def put(result: JobResult, answer: bytes | GridlaneError) -> None:
    """Fill in a batch verb's result: an encoded job, or why there is none."""
    if isinstance(answer, GridlaneError):
        result.status.CopyFrom(answer.to_status())
    else:
        result.job.MergeFromString(answer)


def _acceptance(call: Call) -> Acceptance:
    trace = call.trace
    trace_id = trace.trace_id_hex if trace.sampled else ""
    return jobs.accepting(call.principal, trace.traceparent, trace_id, now_us())


def _digest(request: SubmitJobRequest) -> str:
    """The digest of what is asked for, whether it is to be done or only to be checked."""
    if not request.validate_only:
        return request_ids.digest(request)
    asked = SubmitJobRequest()
    asked.CopyFrom(request)
    asked.validate_only = False
    return request_ids.digest(asked)
