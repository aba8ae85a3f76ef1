"""Recent spans: `client.spans`."""

from __future__ import annotations

from gridlane.calls import Timeout
from gridlane.modes import Mode, verb
from gridlane.names import job_name
from gridlane.nouns.noun import ClientNoun
from gridlane.reporting.v1 import span_service_pb2 as rpc
from gridlane.transport import Method

LIST_OF_JOB = Method(
    "gridlane.reporting.v1.SpanService",
    "ListJobSpans",
    rpc.ListJobSpansRequest,
    rpc.ListJobSpansResponse,
)


class Spans(ClientNoun[Mode]):
    """The spans that the embedded server keeps for a while.

    A job's events alone tell its whole story.
    """

    @verb
    async def of_job(self, name: str, *, timeout: Timeout = None) -> rpc.ListJobSpansResponse:
        """The spans of a job that are still kept, by start time, at most 1000.

        Parameters:
            name: "jobs/<uuid>" or the bare id.
            timeout: see the package.

        Returns:
            `spans`, and `incomplete`: whether older ones had to make room.

        Raises:
            NotFound: there is no such job that the caller may see.
            Unimplemented: this deployment keeps no spans.
        """
        request = rpc.ListJobSpansRequest(job=job_name(name))
        return await self._calls.unary(LIST_OF_JOB, request, timeout)
