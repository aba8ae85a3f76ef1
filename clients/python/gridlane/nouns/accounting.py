"""Accounting records: `client.accounting`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal

from gridlane.calls import Timeout
from gridlane.modes import Mode, stream
from gridlane.names import job_name
from gridlane.nouns.noun import ClientNoun, equals
from gridlane.reporting.v1 import accounting_service_pb2 as rpc
from gridlane.reporting.v1.accounting_record_pb2 import AccountingRecord
from gridlane.transport import Method

_SERVICE = "gridlane.reporting.v1.AccountingService"
LIST = Method(
    _SERVICE,
    "ListAccountingRecords",
    rpc.ListAccountingRecordsRequest,
    rpc.ListAccountingRecordsResponse,
)


class Accounting(ClientNoun[Mode]):
    """What work has used, in the terms of DIRAC's accounting."""

    @stream
    def records(
        self,
        *,
        job: str | None = None,
        kind: Literal["job", "data_operation"] | None = None,
        vo: str | None = None,
        limit: int | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[AccountingRecord]:
        """The records that the caller may see, newest end first. They follow the work within about
        a second.

        Parameters:
            job, kind, vo: only those of this job ("jobs/<uuid>" or the bare id), of this kind, or
                of this VO. One of the three at most.
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            InvalidArgument: reason FILTER_UNSUPPORTED: more than one of the three was given.
        """
        filtered = equals(job=job_name(job) if job else None, type=kind, vo=vo)
        request = rpc.ListAccountingRecordsRequest(filter=filtered)
        return self._listed(LIST, request, lambda page: page.records, limit, timeout)
