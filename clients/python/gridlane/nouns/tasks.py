"""Tasks: `client.tasks`. A task is a job with all that belongs to it, under the job's id."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from gridlane.calls import Timeout, in_seconds
from gridlane.errors import DeadlineExceeded
from gridlane.gateway.v1 import task_service_pb2 as rpc
from gridlane.gateway.v1.task_pb2 import Task, TaskEvent
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.names import job_name
from gridlane.nouns.noun import ClientNoun
from gridlane.states import FINAL_JOB_STATES
from gridlane.transport import Method
from gridlane.watch import resumed
from gridlane.workload.v1.job_pb2 import Job

_SERVICE = "gridlane.gateway.v1.TaskService"
SUBMIT = Method(_SERVICE, "SubmitTask", rpc.SubmitTaskRequest, Task)
DESCRIBE = Method(_SERVICE, "DescribeTask", rpc.DescribeTaskRequest, Task)
WATCH = Method(_SERVICE, "WatchTask", rpc.WatchTaskRequest, rpc.WatchTaskResponse)
CANCEL = Method(_SERVICE, "CancelTask", rpc.CancelTaskRequest, Task)

_AGAIN_S = 0.5


class Tasks(ClientNoun[Mode]):
    """The gateway's tasks."""

    @verb
    async def submit(
        self,
        job: Job,
        *,
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> Task:
        """Check all that a job needs, then hand it in. A refused one leaves nothing.

        Parameters:
            job: what `gridlane.new_job` makes.
            request_id: a UUIDv7; the same id with the same job answers the same task, for 30 days.
                None: a new one.
            validate_only: check everything, submit nothing.
            timeout: see the package.

        Raises:
            InvalidArgument: `violations` names each field that is wrong; an input that the
                catalogue does not know is one.
            AlreadyExists: the request id came with another job before.
            PermissionDenied: the caller may not submit to the VO.
        """
        request = rpc.SubmitTaskRequest(
            job=job, request_id=request_id or uuid7(), validate_only=validate_only
        )
        return await self._calls.unary(SUBMIT, request, timeout)

    @verb
    async def describe(self, name: str, *, timeout: Timeout = None) -> Task:
        """A job with its transfers, accounting records and events; what is missing is named in
        `missing`.

        Parameters:
            name: "tasks/<uuid>", "jobs/<uuid>" or the bare id.
            timeout: see the package.

        Raises:
            NotFound: there is no such job that the caller may see.
        """
        return await self._describe(name, timeout)

    async def _describe(self, name: str, timeout: Timeout) -> Task:
        request = rpc.DescribeTaskRequest(name=job_name(name))
        return await self._calls.unary(DESCRIBE, request, timeout)

    @stream
    def watch(
        self, name: str, *, resume_token: str = "", timeout: Timeout = None
    ) -> AsyncGenerator[TaskEvent]:
        """The changes of a job and of its transfers as they happen, each once; ends when the job
        has ended.

        Parameters:
            name: "tasks/<uuid>", "jobs/<uuid>" or the bare id.
            resume_token: where an earlier watch stopped; empty: from the first event.
            timeout: how long to watch; None until the end.

        Raises:
            NotFound: there is no such job that the caller may see.
            OutOfRange: the events behind the token are no longer kept.
            DeadlineExceeded: the timeout passed.
        """
        limit = None if timeout is None else in_seconds(timeout, 0)
        return self._watch(name, resume_token, limit)

    def _watch(
        self, name: str, resume_token: str, timeout_s: float | None
    ) -> AsyncGenerator[TaskEvent]:
        asked = job_name(name)
        return resumed(
            self._calls,
            WATCH,
            lambda token: rpc.WatchTaskRequest(name=asked, resume_token=token),
            lambda response, token: (response.resume_token or token, response.events),
            resume_token,
            timeout_s,
        )

    @verb
    async def cancel(self, name: str, *, reason: str = "", timeout: Timeout = None) -> Task:
        """Kill the job and cancel the transfers it still has; what has ended is answered as it is.

        The answer comes before the payload has stopped: `wait` waits for that.

        Parameters:
            reason: why; the job and its transfers keep it.

        Raises:
            NotFound: there is no such job that the caller may see.
            PermissionDenied: the caller may see it, not cancel it.
        """
        request = rpc.CancelTaskRequest(name=job_name(name), reason=reason)
        return await self._calls.unary(CANCEL, request, timeout)

    @verb
    async def wait(self, name: str, *, timeout: Timeout = None) -> Task:
        """Wait until the job has ended, well or not.

        Parameters:
            name: "tasks/<uuid>", "jobs/<uuid>" or the bare id.
            timeout: how long to wait; None for ever.

        Returns:
            The task, its job in a final state; `job.failure` says why it ended badly.

        Raises:
            DeadlineExceeded: it has not ended in time.
            NotFound: there is no such job that the caller may see.
        """
        end = float("inf") if timeout is None else time.monotonic() + in_seconds(timeout, 0)
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"{name} has not ended within {timeout}")
            async for _ in self._watch(name, "", None if timeout is None else left):
                pass
            task = await self._describe(name, None)
            if task.job.state in FINAL_JOB_STATES:
                return task
            await self._calls.transport.sleep(_AGAIN_S)
