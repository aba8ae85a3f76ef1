"""The gRPC shells of transfer jobs: messages in, messages out, no rules.

Each class has the methods of the service of its name in `protos/gridlane/transfer/v1`, where they
are documented. What they do is in the module of each noun.
"""

from collections.abc import AsyncIterator, Sequence

from gridlane.transfer.v1 import (
    transfer_admin_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_summary_pb2,
)
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_transfer.jobs.job_verbs import JobVerbs
from gridlane_transfer.jobs.transfer_admin import TransferAdmin


class TransferShell:
    """gridlane.transfer.v1.TransferService."""

    def __init__(self, verbs: JobVerbs) -> None:
        self._verbs = verbs
        self._jobs = verbs.jobs
        self._files = verbs.files

    async def SubmitTransferJob(  # noqa: N802 - the method's name in the contract
        self, request: transfer_service_pb2.SubmitTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._jobs.submit(request, call)

    async def BatchSubmitTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.BatchSubmitTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.BatchSubmitTransferJobsResponse:
        found = await self._verbs.batch.submit(request.requests, call)
        return transfer_service_pb2.BatchSubmitTransferJobsResponse(results=_results(found))

    async def SubmitTransferJobStream(  # noqa: N802
        self,
        requests: AsyncIterator[transfer_service_pb2.SubmitTransferJobStreamRequest],
        call: Call,
    ) -> transfer_job_pb2.TransferJob:
        return await self._verbs.streamed.submit(requests, call)

    async def SubmitStagingJob(  # noqa: N802
        self, request: transfer_service_pb2.SubmitStagingJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return self._verbs.staging.submit(request, call)

    async def SubmitDeletionJob(  # noqa: N802
        self, request: transfer_service_pb2.SubmitDeletionJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._verbs.deletions.submit(request, call)

    async def GetTransferJob(  # noqa: N802
        self, request: transfer_service_pb2.GetTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._jobs.get(request.name, call)

    async def BatchGetTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.BatchGetTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.BatchGetTransferJobsResponse:
        found = await self._jobs.batch_get(request.names, call)
        return transfer_service_pb2.BatchGetTransferJobsResponse(results=_results(found))

    async def ListTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.ListTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.ListTransferJobsResponse:
        jobs, token = await self._jobs.list_jobs(request, call)
        return transfer_service_pb2.ListTransferJobsResponse(
            transfer_jobs=jobs, next_page_token=token
        )

    async def SummarizeTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.SummarizeTransferJobsRequest, call: Call
    ) -> transfer_summary_pb2.TransferSummary:
        return await self._verbs.summaries.summarize(request, call)

    async def GetFileTransfer(  # noqa: N802
        self, request: transfer_service_pb2.GetFileTransferRequest, call: Call
    ) -> transfer_job_pb2.FileTransfer:
        return await self._files.get(request.name, call)

    async def ListFileTransfers(  # noqa: N802
        self, request: transfer_service_pb2.ListFileTransfersRequest, call: Call
    ) -> transfer_service_pb2.ListFileTransfersResponse:
        files, token = await self._files.list_files(request, call)
        return transfer_service_pb2.ListFileTransfersResponse(files=files, next_page_token=token)

    async def ListFileAttempts(  # noqa: N802
        self, request: transfer_service_pb2.ListFileAttemptsRequest, call: Call
    ) -> transfer_service_pb2.ListFileAttemptsResponse:
        attempts, token = await self._files.list_attempts(request, call)
        return transfer_service_pb2.ListFileAttemptsResponse(
            attempts=attempts, next_page_token=token
        )

    async def ListTransferEvents(  # noqa: N802
        self, request: transfer_service_pb2.ListTransferEventsRequest, call: Call
    ) -> transfer_service_pb2.ListTransferEventsResponse:
        events, token = await self._jobs.list_events(request, call)
        return transfer_service_pb2.ListTransferEventsResponse(events=events, next_page_token=token)

    async def ExplainTransferJob(  # noqa: N802
        self, request: transfer_service_pb2.ExplainTransferJobRequest, call: Call
    ) -> transfer_service_pb2.ExplainTransferJobResponse:
        files, token = await self._verbs.explanations.explain(request, call)
        return transfer_service_pb2.ExplainTransferJobResponse(files=files, next_page_token=token)

    async def CancelTransferJob(  # noqa: N802
        self, request: transfer_service_pb2.CancelTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._jobs.cancel(request.name, call, request.reason)

    async def BatchCancelTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.BatchCancelTransferJobsRequest, call: Call
    ) -> transfer_service_pb2.BatchCancelTransferJobsResponse:
        found = await self._jobs.batch_cancel(request.names, call)
        return transfer_service_pb2.BatchCancelTransferJobsResponse(results=_results(found))

    async def CancelFileTransfers(  # noqa: N802
        self, request: transfer_service_pb2.CancelFileTransfersRequest, call: Call
    ) -> transfer_service_pb2.CancelFileTransfersResponse:
        found = await self._files.cancel(request, call)
        results = [
            transfer_service_pb2.FileTransferResult(status=one.to_status())
            if isinstance(one, GridlaneError)
            else transfer_service_pb2.FileTransferResult(file=one)
            for one in found
        ]
        return transfer_service_pb2.CancelFileTransfersResponse(results=results)

    async def RetryTransferJob(  # noqa: N802
        self, request: transfer_service_pb2.RetryTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._verbs.retries.retry(request, call)

    async def WatchTransferJobs(  # noqa: N802
        self, request: transfer_service_pb2.WatchTransferJobsRequest, call: Call
    ) -> AsyncIterator[transfer_service_pb2.WatchTransferJobsResponse]:
        async for events, token in self._jobs.watch(request.names, request.resume_token, call):
            yield transfer_service_pb2.WatchTransferJobsResponse(events=events, resume_token=token)


class TransferAdminShell:
    """gridlane.transfer.v1.TransferAdminService."""

    def __init__(self, admin: TransferAdmin) -> None:
        self._admin = admin

    async def UpdateTransferJob(  # noqa: N802
        self, request: transfer_admin_service_pb2.UpdateTransferJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        return await self._admin.update(request, call)

    async def ReleaseHeldFiles(  # noqa: N802
        self, request: transfer_admin_service_pb2.ReleaseHeldFilesRequest, call: Call
    ) -> transfer_admin_service_pb2.ReleaseHeldFilesResponse:
        return await self._admin.release(request, call)

    async def FailHeldFiles(  # noqa: N802
        self, request: transfer_admin_service_pb2.FailHeldFilesRequest, call: Call
    ) -> transfer_admin_service_pb2.FailHeldFilesResponse:
        return await self._admin.fail(request, call)


def _results(
    found: Sequence[transfer_job_pb2.TransferJob | GridlaneError],
) -> list[transfer_service_pb2.TransferJobResult]:
    """Jobs, each or why there is none."""
    return [
        transfer_service_pb2.TransferJobResult(status=one.to_status())
        if isinstance(one, GridlaneError)
        else transfer_service_pb2.TransferJobResult(transfer_job=one)
        for one in found
    ]
