"""The gRPC shells of Reporting: messages in, messages out.

No rules here: records are made by `accounting`, chosen by `store`, spans are found by `spans`. Who
may see a job's spans is asked of Workload, on behalf of the caller.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.reporting.v1 import accounting_service_pb2, span_service_pb2
from gridlane.type.v1 import status_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_kit.call import Call
from gridlane_kit.clock import from_timestamp
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.pages import page_request
from gridlane_kit.telemetry import FinishedSpan
from gridlane_kit.version import VERSION
from gridlane_reporting.accounting import DATA_OPERATION, JOB
from gridlane_reporting.spans import SpanRing
from gridlane_reporting.store import NEWEST_FIRST, list_records, read_cursor


def _job_name(text: str) -> str:
    if not text.startswith("jobs/"):
        raise ValueError('a job is named "jobs/{uuid}"')
    return text


def _kind(text: str) -> str:
    if text not in (JOB, DATA_OPERATION):
        raise ValueError(f'one of "{JOB}", "{DATA_OPERATION}"')
    return text


FILTER: Final = FilterRules(
    {"job": Field(_job_name), "type": Field(_kind), "vo": Field(str)},
    combinations=[{"job"}, {"type"}, {"vo"}],
)


class AccountingShell:
    """`gridlane.reporting.v1.AccountingService`.

    Parameters:
        followers: answers how the followed feeds are.
    """

    def __init__(
        self, db: Database, followers: Callable[[], Sequence[status_pb2.BackendStatus]]
    ) -> None:
        self._db = db
        self._followers = followers

    async def ListAccountingRecords(  # noqa: N802 - the contract's name
        self, request: accounting_service_pb2.ListAccountingRecordsRequest, call: Call
    ) -> accounting_service_pb2.ListAccountingRecordsResponse:
        """Lists the records that the caller may see, newest end first."""
        chosen = FILTER.parse(request.filter)
        page = page_request(
            NEWEST_FIRST,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListAccountingRecords", chosen.canonical, call.principal.owner),
        )
        records, token = await self._db.read(
            partial(list_records, visibility=call.visibility, chosen=chosen, page=page)
        )
        return accounting_service_pb2.ListAccountingRecordsResponse(
            records=records, next_page_token=token
        )

    async def GetReportingStatus(  # noqa: N802
        self, request: accounting_service_pb2.GetReportingStatusRequest, call: Call
    ) -> status_pb2.ServiceStatus:
        """Answers how the service, its database and the followed feeds are."""
        return status_pb2.ServiceStatus(
            service="reporting",
            reachable=True,
            authenticated=True,
            version=VERSION,
            backends=[await self._database_status(), *self._followers()],
        )

    async def _database_status(self) -> status_pb2.BackendStatus:
        status = status_pb2.BackendStatus(name="database", reachable=True)
        started = time.monotonic()
        try:
            await self._db.read(partial(read_cursor, source="workload"))
        except GridlaneError as error:
            status.reachable = False
            status.message = error.message
        status.latency.FromNanoseconds(int((time.monotonic() - started) * 1e9))
        return status


class SpanShell:
    """`gridlane.reporting.v1.SpanService`.

    Parameters:
        job_for: asks Workload for a job on behalf of the caller; raises what Workload answers.
    """

    def __init__(
        self,
        ring: SpanRing,
        job_for: Callable[[job_service_pb2.GetJobRequest, Call], Awaitable[job_pb2.Job]],
    ) -> None:
        self._ring = ring
        self._job_for = job_for

    async def ListJobSpans(  # noqa: N802
        self, request: span_service_pb2.ListJobSpansRequest, call: Call
    ) -> span_service_pb2.ListJobSpansResponse:
        """Lists the spans of a job that are still kept, for a caller who may see the job."""
        job = await self._job_for(job_service_pb2.GetJobRequest(name=request.job), call)
        found = self._ring.of_job(job.name)
        accepted_ns = from_timestamp(job.create_time) * 1000
        return span_service_pb2.ListJobSpansResponse(
            spans=[span_message(span) for span in found.spans],
            incomplete=found.truncated or self._ring.forgotten_until_ns >= accepted_ns,
        )


def span_message(span: FinishedSpan) -> span_service_pb2.Span:
    """Returns the contract's form of a span."""
    return span_service_pb2.Span(
        trace_id=f"{span.trace_id:032x}",
        span_id=f"{span.span_id:016x}",
        parent_span_id=f"{span.parent_id:016x}" if span.parent_id else "",
        links=[f"{trace:032x}-{link:016x}" for trace, link in span.links],
        name=span.name,
        service=span.service,
        start_time=_timestamp(span.start_ns),
        end_time=_timestamp(span.end_ns),
        attributes={key: str(value) for key, value in span.attributes.items()},
        error=bool(span.error),
    )


def _timestamp(time_ns: int) -> Timestamp:
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
