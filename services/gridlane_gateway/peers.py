"""Whom the gateway calls, and the names by which it knows a task.

Responsible for the accessors, taken once, and for paging through what peers list.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from gridlane.reporting.v1 import accounting_record_pb2, accounting_service_pb2
from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane.type.v1 import principal_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_kit.call import Caller
from gridlane_kit.peers import Peers

_PAGE = 1000
T = TypeVar("T")


class GatewayPeers:
    """The services that the gateway composes, each as an accessor to be bound to a caller."""

    def __init__(self, peers: Peers) -> None:
        self.authorization = peers.authorization
        self.jobs = peers.workload_jobs
        self.transfers = peers.transfer_jobs
        self.storage = peers.transfer_storage
        self.channels = peers.transfer_channels
        self.replicas = peers.transfer_replicas
        self.accounting = peers.reporting_accounting

    async def job_events(self, caller: Caller, job: str) -> list[job_event_pb2.JobEvent]:
        """Returns everything that happened to a job, oldest first."""
        found: list[job_event_pb2.JobEvent] = []
        request = job_service_pb2.ListJobEventsRequest(parent=job, page_size=_PAGE)
        while True:
            page = await self.jobs(caller).ListJobEvents(request)
            found.extend(page.events)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def transfers_of(
        self, caller: Caller, job: job_pb2.Job
    ) -> list[transfer_job_pb2.TransferJob]:
        """Returns the transfer jobs that belong to a job, oldest first, some without their files.

        They carry the job's id in a tag, which anybody may write: those of other owners are left
        out. A caller who may see the job may not always list its owner's transfers: those that the
        job names are asked for by name.
        """
        found = await self._tagged(caller, job)
        listed = {transfer.name for transfer in found}
        for name in (job.stage_in_transfer, job.stage_out_transfer):
            if name and name not in listed:
                request = transfer_service_pb2.GetTransferJobRequest(name=name)
                found.append(await self.transfers(caller).GetTransferJob(request))
        return found

    async def _tagged(self, caller: Caller, job: job_pb2.Job) -> list[transfer_job_pb2.TransferJob]:
        found: list[transfer_job_pb2.TransferJob] = []
        uuid = job.name.removeprefix("jobs/")
        request = transfer_service_pb2.ListTransferJobsRequest(
            page_size=_PAGE, filter=f'tags.gridlane.job = "{uuid}"'
        )
        while True:
            page = await self.transfers(caller).ListTransferJobs(request)
            found.extend(t for t in page.transfer_jobs if _same(t.owner, job.owner))
            if not page.next_page_token:
                return found[::-1]
            request.page_token = page.next_page_token

    async def transfer_events(
        self, caller: Caller, transfer: str
    ) -> list[transfer_event_pb2.TransferEvent]:
        """Returns everything that happened to a transfer job, oldest first."""
        found: list[transfer_event_pb2.TransferEvent] = []
        request = transfer_service_pb2.ListTransferEventsRequest(parent=transfer, page_size=_PAGE)
        while True:
            page = await self.transfers(caller).ListTransferEvents(request)
            found.extend(page.events)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def records_of(
        self, caller: Caller, job: str
    ) -> list[accounting_record_pb2.AccountingRecord]:
        """Returns what was accounted for a job, newest end first."""
        found: list[accounting_record_pb2.AccountingRecord] = []
        request = accounting_service_pb2.ListAccountingRecordsRequest(
            page_size=_PAGE, filter=f'job = "{job}"'
        )
        while True:
            page = await self.accounting(caller).ListAccountingRecords(request)
            found.extend(page.records)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


def within(caller: Caller, seconds: float) -> Caller:
    """Returns the caller with at most so many seconds left."""
    limit = asyncio.get_running_loop().time() + seconds
    deadline = limit if caller.deadline is None else min(limit, caller.deadline)
    return Caller(caller.principal, deadline, caller.trace)


async def together(*calls: Awaitable[T]) -> Sequence[T]:
    """Awaits all at once; when some fail, raises the first failure after all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        answers.append(result)
    return answers


def job_name(task: str) -> str:
    """Returns the name of a task's job: "tasks/{uuid}" and "jobs/{uuid}" mean the same."""
    return f"jobs/{task.partition('/')[2]}"


def task_name(job: str) -> str:
    """Returns the name of the task of a job."""
    return f"tasks/{job.partition('/')[2]}"


def _same(one: principal_pb2.Principal, other: principal_pb2.Principal) -> bool:
    return one.issuer == other.issuer and one.subject == other.subject
