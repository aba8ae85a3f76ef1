"""The gRPC shell of the gateway: messages in, messages out.

Responsible for the order of a submission (checks, then one job, which alone is stored) and for what
a cancel reaches. The compositions stand in `checks`, `story`, `watch` and `ping`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gridlane.gateway.v1 import task_pb2, task_service_pb2
from gridlane.transfer.v1 import transfer_service_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_gateway.checks import violations
from gridlane_gateway.peers import GatewayPeers, job_name, task_name
from gridlane_gateway.ping import ping
from gridlane_gateway.settings import GatewaySettings
from gridlane_gateway.story import Story
from gridlane_gateway.watch import Place, TaskWatch
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError


class TaskShell:
    """`gridlane.gateway.v1.TaskService`."""

    def __init__(self, peers: GatewayPeers, settings: GatewaySettings) -> None:
        self._peers = peers
        self._settings = settings

    async def SubmitTask(  # noqa: N802 - the contract's name
        self, request: task_service_pb2.SubmitTaskRequest, call: Call
    ) -> task_pb2.Task:
        """Checks what the job needs, then submits it."""
        vo = call.choose_vo(request.job.vo)
        found = await violations(self._peers, call, request.job.description, vo)
        submit = job_service_pb2.SubmitJobRequest(
            job=request.job, request_id=request.request_id, validate_only=request.validate_only
        )
        if found:
            job = await self._submitted_before(submit, call)
            if job is None:
                raise errors.invalid(found)
        else:
            job = await self._peers.jobs(call).SubmitJob(submit)
        if job.name:
            call.about_job(job.name)
        return task_pb2.Task(
            name=task_name(job.name) if job.name else "", job=job, trace_id=job.trace_id
        )

    async def DescribeTask(  # noqa: N802
        self, request: task_service_pb2.DescribeTaskRequest, call: Call
    ) -> task_pb2.Task:
        """Answers a job with everything that belongs to it."""
        story = Story(self._peers, call, job_name(request.name), self._settings.part_timeout_s)
        return await story.told()

    async def WatchTask(  # noqa: N802
        self, request: task_service_pb2.WatchTaskRequest, call: Call
    ) -> AsyncGenerator[task_service_pb2.WatchTaskResponse, None]:
        """Streams the changes of a job and its transfers until they have ended."""
        place = Place.decoded(request.resume_token, job_name(request.name))
        watch = TaskWatch(
            self._peers, call, place, lookup_interval_s=self._settings.lookup_interval_s
        )
        async with aclosing(watch.changes()) as responses:
            async for response in responses:
                yield response

    async def CancelTask(  # noqa: N802
        self, request: task_service_pb2.CancelTaskRequest, call: Call
    ) -> task_pb2.Task:
        """Kills the job, then cancels every transfer that it still has."""
        name = job_name(request.name)
        call.about_job(name)
        kill = job_service_pb2.KillJobRequest(name=name, reason=request.reason)
        job = await self._peers.jobs(call).KillJob(kill)
        task = task_pb2.Task(name=task_name(name), job=job, trace_id=job.trace_id)
        try:
            for transfer in await self._peers.transfers_of(call, job):
                task.transfer_jobs.append(
                    await self._peers.transfers(call).CancelTransferJob(
                        transfer_service_pb2.CancelTransferJobRequest(
                            name=transfer.name, reason=request.reason
                        )
                    )
                )
        except GridlaneError as error:
            # The job is being killed; Workload cancels its transfers too, as far as it gets.
            task.missing.add(service="transfer", reason=error.message)
        return task

    async def Ping(  # noqa: N802
        self, request: task_service_pb2.PingRequest, call: Call
    ) -> task_service_pb2.PingResponse:
        """Asks every service and every backend behind it how it is."""
        services = await ping(self._peers, call, self._settings.ping_timeout_s)
        return task_service_pb2.PingResponse(services=services)

    async def _submitted_before(
        self, submit: job_service_pb2.SubmitJobRequest, call: Call
    ) -> job_pb2.Job | None:
        """Returns the job that this very request made before, None when it made none.

        What an earlier call was promised holds, even when its checks would fail today. And what
        Workload itself would refuse it refuses here, in its own words.

        Raises:
            GridlaneError: as `JobService.SubmitJob`.
        """
        asked = job_service_pb2.SubmitJobRequest()
        asked.CopyFrom(submit)
        asked.validate_only = True
        job = await self._peers.jobs(call).SubmitJob(asked)
        return job if job.name else None
