"""Workload on the wire: the shells of its two services.

Responsible for messages in and messages out, and for nothing else: rules are in `jobs`, flows in
`submissions`, `reading`, `logs`. Before a method here runs, the kit has decided the coarse
permission and validated the request.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

from gridlane.type.v1.feed_pb2 import FeedPosition
from gridlane.type.v1.status_pb2 import ServiceStatus
from gridlane.workload.v1.event_service_pb2 import (
    AckJobEventsRequest,
    AckJobEventsResponse,
    FollowJobEventsRequest,
    FollowJobEventsResponse,
)
from gridlane.workload.v1.job_pb2 import Job
from gridlane.workload.v1.job_service_pb2 import (
    BatchGetJobsRequest,
    BatchGetJobsResponse,
    BatchSubmitJobsRequest,
    BatchSubmitJobsResponse,
    GetJobRequest,
    GetWorkloadStatusRequest,
    KillJobRequest,
    ListJobEventsRequest,
    ListJobEventsResponse,
    ListJobsRequest,
    ListJobsResponse,
    ReadJobLogRequest,
    ReadJobLogResponse,
    SubmitJobRequest,
    WatchJobsRequest,
    WatchJobsResponse,
)
from gridlane_kit.call import Call
from gridlane_kit.clock import now_us
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed, Position, put_events
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.resume_tokens import ResumeTokens
from gridlane_workload.changes import KillWish
from gridlane_workload.logs import Logs
from gridlane_workload.reading import Reading
from gridlane_workload.status import Status
from gridlane_workload.store import StoredJob
from gridlane_workload.submissions import Submissions, put

_KILL_COMMITTED: Final = failpoint("workload.kill.committed")


class JobShell:
    """`gridlane.workload.v1.JobService`.

    Parameters:
        kill: the kind of write that carries out wishes to kill.
        due: called after such a wish was committed.
    """

    def __init__(
        self,
        submissions: Submissions,
        reading: Reading,
        logs: Logs,
        feed: Feed,
        status: Status,
        kill: WriteKind[KillWish, StoredJob],
        due: Callable[[], None],
    ) -> None:
        self._submissions = submissions
        self._reading = reading
        self._logs = logs
        self._feed = feed
        self._status = status
        self._kill = kill
        self._due = due

    async def SubmitJob(self, request: SubmitJobRequest, call: Call) -> Job:  # noqa: N802
        """Accept a job."""
        return await self._submissions.one(request, call)

    async def BatchSubmitJobs(  # noqa: N802
        self, request: BatchSubmitJobsRequest, call: Call
    ) -> BatchSubmitJobsResponse:
        """Accept jobs."""
        return await self._submissions.many(request.requests, call)

    async def GetJob(self, request: GetJobRequest, call: Call) -> Job:  # noqa: N802
        """Answer a job."""
        stored = await self._reading.one(request.name, call)
        call.about_job(stored.uid)
        return stored.message()

    async def BatchGetJobs(  # noqa: N802
        self, request: BatchGetJobsRequest, call: Call
    ) -> BatchGetJobsResponse:
        """Answer jobs."""
        response = BatchGetJobsResponse()
        for item in await self._reading.some(request.names, call):
            put(response.results.add(), item if isinstance(item, GridlaneError) else item.encoded)
        return response

    async def ListJobs(self, request: ListJobsRequest, call: Call) -> ListJobsResponse:  # noqa: N802
        """List jobs."""
        return await self._reading.page(request, call)

    async def ListJobEvents(  # noqa: N802
        self, request: ListJobEventsRequest, call: Call
    ) -> ListJobEventsResponse:
        """List what happened to a job."""
        stored = await self._reading.one(request.parent, call)
        call.about_job(stored.uid)
        return await self._reading.history(request)

    async def KillJob(self, request: KillJobRequest, call: Call) -> Job:  # noqa: N802
        """Ask for the end of a job."""
        stored = await self._reading.one(request.name, call)
        call.about_job(stored.uid)
        by = call.principal.display_name or call.principal.subject
        wish = KillWish(stored.uid, by, now_us(), request.reason)
        killed = await self._kill(wish, deadline=call.deadline)
        _KILL_COMMITTED()
        self._due()
        return killed.message()

    async def WatchJobs(  # noqa: N802
        self, request: WatchJobsRequest, call: Call
    ) -> AsyncIterator[WatchJobsResponse]:
        """Stream the changes of jobs."""
        for item in await self._reading.some(request.names, call):
            if isinstance(item, GridlaneError):
                raise item
        tokens = ResumeTokens("WatchJobs", request.names)
        after = tokens.decode(request.resume_token)
        call.resume_token = request.resume_token
        epoch = (await self._feed.position()).epoch
        async for events in self._feed.follow(after, subjects=frozenset(request.names)):
            token = tokens.encode(Position(epoch, events[-1].position))
            call.resume_token = token
            page = WatchJobsResponse(resume_token=token)
            put_events(page.events, events)
            yield page

    async def ReadJobLog(  # noqa: N802
        self, request: ReadJobLogRequest, call: Call
    ) -> AsyncIterator[ReadJobLogResponse]:
        """Stream what the payload wrote."""
        stored = await self._reading.one(request.name, call)
        call.about_job(stored.uid)
        async for part in self._logs.read(stored, request):
            yield part

    async def GetWorkloadStatus(  # noqa: N802
        self, request: GetWorkloadStatusRequest, call: Call
    ) -> ServiceStatus:
        """Answer how the service is."""
        return await self._status.service()


class JobEventShell:
    """`gridlane.workload.v1.JobEventService`."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def FollowJobEvents(  # noqa: N802
        self, request: FollowJobEventsRequest, call: Call
    ) -> AsyncIterator[FollowJobEventsResponse]:
        """Stream all events."""
        after = None
        if request.after.epoch:
            after = Position(request.after.epoch, request.after.position)
        epoch = (await self._feed.position()).epoch
        async for events in self._feed.follow(after):
            page = FollowJobEventsResponse(
                position=FeedPosition(epoch=epoch, position=events[-1].position)
            )
            put_events(page.events, events)
            yield page

    async def AckJobEvents(  # noqa: N802
        self, request: AckJobEventsRequest, call: Call
    ) -> AckJobEventsResponse:
        """Keep how far a consumer has come."""
        position = Position(request.position.epoch, request.position.position)
        await self._feed.ack(request.consumer, position)
        return AckJobEventsResponse()
