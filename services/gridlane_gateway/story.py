"""A task put together: job, transfers, accounting, events, as one story.

Responsible for asking for the parts at once, for naming those that could not be had, and for
keeping the answer below the size of a message. Whether the caller may see the job is Workload's
answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import grpc

from gridlane.gateway.v1 import task_pb2
from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_gateway.peers import GatewayPeers, task_name, within
from gridlane_kit.call import Caller
from gridlane_kit.clock import from_timestamp
from gridlane_kit.errors import GridlaneError

MAX_BYTES: Final = 3_500_000
"""What a task may take of the 4 MiB of a message."""

T = TypeVar("T")
_ToldTransfer = tuple[transfer_job_pb2.TransferJob, Sequence[transfer_event_pb2.TransferEvent]]
_CALLERS_OWN: Final = frozenset(
    {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
)


class Story:
    """One task as it is being put together for one caller.

    Parameters:
        caller: on whose behalf the parts are asked for.
        job: "jobs/{uuid}".
        part_timeout_s: seconds after which a part counts as missing.
    """

    def __init__(
        self, peers: GatewayPeers, caller: Caller, job: str, part_timeout_s: float
    ) -> None:
        self._peers = peers
        self._caller = caller
        self._job = job
        self._timeout_s = part_timeout_s
        self._missing: dict[str, str] = {}

    async def told(self) -> task_pb2.Task:
        """Returns the task, with the parts that could not be had in `missing`.

        Raises:
            GridlaneError: NOT_FOUND, PERMISSION_DENIED: the caller may not see the job.
        """
        peers, job_name = self._peers, self._job
        (job, transfers), events, records = await asyncio.gather(
            self._job_and_transfers(),
            self._part("workload", lambda caller: peers.job_events(caller, job_name)),
            self._part("reporting", lambda caller: peers.records_of(caller, job_name)),
        )
        task = task_pb2.Task(
            name=task_name(job_name),
            job=job,
            transfer_jobs=[transfer for transfer, _ in transfers],
            accounting_records=records or (),
            trace_id=job.trace_id if job is not None else "",
        )
        self._add_events(task, merged(events or (), [e for _, found in transfers for e in found]))
        task.missing.extend(
            task_pb2.MissingPart(service=service, reason=reason)
            for service, reason in self._missing.items()
        )
        return task

    async def _job_and_transfers(self) -> tuple[job_pb2.Job | None, Sequence[_ToldTransfer]]:
        request = job_service_pb2.GetJobRequest(name=self._job)
        job = await self._part(
            "workload",
            lambda caller: self._peers.jobs(caller).GetJob(request),
            raised=_CALLERS_OWN,
        )
        if job is None:
            return None, ()
        found = await self._part("transfer", lambda caller: self._peers.transfers_of(caller, job))
        return job, await asyncio.gather(*(self._transfer(t) for t in found or ()))

    async def _transfer(self, transfer: transfer_job_pb2.TransferJob) -> _ToldTransfer:
        peers = self._peers
        request = transfer_service_pb2.GetTransferJobRequest(name=transfer.name)
        whole, events = await asyncio.gather(
            self._part("transfer", lambda caller: peers.transfers(caller).GetTransferJob(request)),
            self._part("transfer", lambda caller: peers.transfer_events(caller, transfer.name)),
        )
        return whole or transfer, events or ()

    async def _part(
        self,
        service: str,
        ask: Callable[[Caller], Awaitable[T]],
        raised: frozenset[grpc.StatusCode] = frozenset(),
    ) -> T | None:
        """Returns a part, or None after noting why it is missing; errors in `raised` are raised."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask(within(self._caller, self._timeout_s))
        except TimeoutError:
            self._missing[service] = f"no answer within {self._timeout_s:g} s"
        except GridlaneError as error:
            if error.code in raised:
                raise
            self._missing[service] = error.message
        return None

    def _add_events(self, task: task_pb2.Task, events: Sequence[task_pb2.TaskEvent]) -> None:
        """Adds the events, oldest first, as far as a message holds them."""
        room = MAX_BYTES - task.ByteSize()
        for index, event in enumerate(events):
            room -= event.ByteSize() + 8
            if room < 0:
                self._missing["gateway"] = (
                    f"{len(events) - index} later events do not fit into one answer: list them with"
                    " ListJobEvents and ListTransferEvents"
                )
                return
            task.events.append(event)


def merged(
    job_events: Sequence[job_event_pb2.JobEvent],
    transfer_events: Sequence[transfer_event_pb2.TransferEvent],
) -> list[task_pb2.TaskEvent]:
    """Returns the events of a job and its transfers by time, each service's in its own order."""
    timed = [
        *((from_timestamp(event.time), task_pb2.TaskEvent(job=event)) for event in job_events),
        *(
            (from_timestamp(event.time), task_pb2.TaskEvent(transfer=event))
            for event in transfer_events
        ),
    ]
    return [event for _, event in sorted(timed, key=lambda pair: pair[0])]
