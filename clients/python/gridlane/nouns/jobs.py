"""Jobs: `client.jobs`. Submission with all its checks is the gateway's: `client.tasks`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Literal

from gridlane.calls import Timeout, in_seconds
from gridlane.errors import GridlaneError, error_from_status
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import job_name
from gridlane.nouns.noun import ClientNoun, equals
from gridlane.states import FINAL_JOB_STATES
from gridlane.transport import Method
from gridlane.watch import resumed
from gridlane.workload.v1 import job_service_pb2 as rpc
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job

_SERVICE = "gridlane.workload.v1.JobService"
SUBMIT = Method(_SERVICE, "SubmitJob", rpc.SubmitJobRequest, Job)
BATCH_SUBMIT = Method(
    _SERVICE, "BatchSubmitJobs", rpc.BatchSubmitJobsRequest, rpc.BatchSubmitJobsResponse
)
GET = Method(_SERVICE, "GetJob", rpc.GetJobRequest, Job)
BATCH_GET = Method(_SERVICE, "BatchGetJobs", rpc.BatchGetJobsRequest, rpc.BatchGetJobsResponse)
LIST = Method(_SERVICE, "ListJobs", rpc.ListJobsRequest, rpc.ListJobsResponse)
LIST_EVENTS = Method(_SERVICE, "ListJobEvents", rpc.ListJobEventsRequest, rpc.ListJobEventsResponse)
KILL = Method(_SERVICE, "KillJob", rpc.KillJobRequest, Job)
WATCH = Method(_SERVICE, "WatchJobs", rpc.WatchJobsRequest, rpc.WatchJobsResponse)
READ_LOG = Method(_SERVICE, "ReadJobLog", rpc.ReadJobLogRequest, rpc.ReadJobLogResponse)

#: For each job, in order: the job, or why there is none.
JobResults = list[Job | GridlaneError]

_BATCH = 1000
_STREAMS = {
    "stdout": rpc.LogStream.LOG_STREAM_STDOUT,
    "stderr": rpc.LogStream.LOG_STREAM_STDERR,
}


class Jobs(ClientNoun[Mode]):
    """The workload service's jobs."""

    @verb
    async def submit(
        self,
        job: Job,
        *,
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> Job:
        """Hand in a job; the answer means that it is durable.

        Parameters:
            job: what `gridlane.new_job` makes.
            request_id: a UUIDv7; the same id with the same job answers the same job, for 30 days.
                None: a new one.
            validate_only: check, store nothing.
            timeout: see the package.

        Raises:
            InvalidArgument: `violations` names each field that is wrong.
            AlreadyExists: the request id came with another job before.
            PermissionDenied: the caller may not submit to the VO.
        """
        request = rpc.SubmitJobRequest(
            job=job, request_id=request_id or uuid7(), validate_only=validate_only
        )
        return await self._calls.unary(SUBMIT, request, timeout)

    @verb
    async def submit_many(self, jobs: Iterable[Job], *, timeout: Timeout = None) -> JobResults:
        """Hand in many jobs, 1000 a call; those that are good are durable even when others are
        refused.

        Parameters:
            jobs: any number; each gets a request id of its own.
            timeout: for each call of 1000.

        Returns:
            One for each job, in order: the job, or the error that refused it (returned, not
                raised).

        Raises:
            GridlaneError: a call failed as a whole. Calls before it stand.
        """
        requests = [rpc.SubmitJobRequest(job=job, request_id=uuid7()) for job in jobs]
        results: JobResults = []
        for start in range(0, len(requests), _BATCH):
            batch = rpc.BatchSubmitJobsRequest(requests=requests[start : start + _BATCH])
            answer = await self._calls.unary(BATCH_SUBMIT, batch, timeout)
            results += map(_job_or_error, answer.results)
        return results

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> Job:
        """One job.

        Parameters:
            name: "jobs/<uuid>" or the bare id.
            timeout: see the package.

        Raises:
            NotFound: there is none that the caller may see.
        """
        return await self._calls.unary(GET, rpc.GetJobRequest(name=job_name(name)), timeout)

    @verb
    async def get_many(self, names: Iterable[str], *, timeout: Timeout = None) -> JobResults:
        """Many jobs, 1000 a call.

        Returns:
            One for each name, in order: the job, or NotFound (returned, not raised).
        """
        asked = [job_name(name) for name in names]
        results: JobResults = []
        for start in range(0, len(asked), _BATCH):
            batch = rpc.BatchGetJobsRequest(names=asked[start : start + _BATCH])
            answer = await self._calls.unary(BATCH_GET, batch, timeout)
            results += map(_job_or_error, answer.results)
        return results

    @stream
    def list(
        self,
        *,
        state: str | None = None,
        vo: str | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[Job]:
        """The jobs that the caller may see, newest first.

        Parameters:
            state: only those in this state, as a word ("RUNNING").
            vo: only those of this VO.
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        filtered = equals(vo=vo, state=state.upper() if state else None)
        request = rpc.ListJobsRequest(filter=filtered)
        return self._listed(LIST, request, lambda page: page.jobs, limit, timeout)

    @stream
    def events(
        self, name: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[JobEvent]:
        """What happened to a job, oldest first, for as long as events are kept.

        Parameters:
            name: "jobs/<uuid>" or the bare id.
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            NotFound: there is no such job that the caller may see.
        """
        request = rpc.ListJobEventsRequest(parent=job_name(name))
        return self._listed(LIST_EVENTS, request, lambda page: page.events, limit, timeout)

    @verb
    async def kill(self, name: str, *, reason: str = "", timeout: Timeout = None) -> Job:
        """Ask for the end of a job; one that has ended is answered as it is.

        Its transfers go on: `client.tasks.cancel` ends those too.

        Parameters:
            reason: why; kept in the job's history and its failure.

        Raises:
            NotFound: there is no such job that the caller may see.
            PermissionDenied: the caller may see it, not kill it.
        """
        request = rpc.KillJobRequest(name=job_name(name), reason=reason)
        return await self._calls.unary(KILL, request, timeout)

    @stream
    def watch(
        self, names: str | Sequence[str], *, resume_token: str = "", timeout: Timeout = None
    ) -> AsyncGenerator[JobEvent]:
        """The changes of jobs as they happen, each once and in order, over interruptions.

        Parameters:
            names: one job or up to 1000.
            resume_token: where an earlier watch stopped; empty: from each job's first event.
            timeout: how long to watch; None for as long as the caller takes events.

        Raises:
            NotFound: a job is not there or may not be seen.
            OutOfRange: the events behind the token are no longer kept.
            DeadlineExceeded: the timeout passed.
        """
        return self._watch(names, resume_token, timeout)

    def _watch(
        self, names: str | Sequence[str], resume_token: str, timeout: Timeout
    ) -> AsyncGenerator[JobEvent]:
        asked = [job_name(name) for name in ([names] if isinstance(names, str) else names)]
        return resumed(
            self._calls,
            WATCH,
            lambda token: rpc.WatchJobsRequest(names=asked, resume_token=token),
            lambda response, token: (response.resume_token or token, response.events),
            resume_token,
            None if timeout is None else in_seconds(timeout, 0),
        )

    @verb
    async def wait(self, name: str, *, timeout: Timeout = None) -> Job:
        """Wait until a job has ended, well or not.

        Parameters:
            name: "jobs/<uuid>" or the bare id.
            timeout: how long to wait; None for ever.

        Returns:
            The job in a final state; `failure` says why it ended badly.

        Raises:
            DeadlineExceeded: it has not ended in time.
            NotFound: there is no such job that the caller may see.
        """
        events = self._watch(name, "", timeout)
        try:
            async for event in events:
                if event.state in FINAL_JOB_STATES:
                    break
        finally:
            await events.aclose()
        return await self._calls.unary(GET, rpc.GetJobRequest(name=job_name(name)))

    @stream
    def log(
        self,
        name: str,
        stream: Literal["stdout", "stderr"] = "stdout",
        *,
        follow: bool = False,
        attempt: int = 0,
        offset_bytes: int = 0,
        timeout: Timeout = None,
    ) -> AsyncGenerator[bytes]:
        """What the payload wrote, in parts as they come.

        Parameters:
            name: "jobs/<uuid>" or the bare id.
            stream: "stdout" or "stderr".
            follow: stay until the payload has ended.
            attempt: of which attempt; 0 for the present one.
            offset_bytes: where to begin.
            timeout: how long in all; None for as long as it takes.

        Raises:
            NotFound: there is no such job that the caller may see.
        """
        request = rpc.ReadJobLogRequest(
            name=job_name(name), stream=_STREAMS[stream], attempt=attempt, follow=follow
        )

        def open_at(offset: int) -> rpc.ReadJobLogRequest:
            request.offset_bytes = offset
            return request

        def take(part: rpc.ReadJobLogResponse, offset: int) -> tuple[int, Sequence[bytes]]:
            return part.next_offset_bytes or offset + len(part.chunk), (part.chunk,)

        limit = None if timeout is None else in_seconds(timeout, 0)
        return resumed(self._calls, READ_LOG, open_at, take, offset_bytes, limit)


def _job_or_error(result: rpc.JobResult) -> Job | GridlaneError:
    if result.WhichOneof("result") == "status":
        return error_from_status(result.status)
    return result.job
