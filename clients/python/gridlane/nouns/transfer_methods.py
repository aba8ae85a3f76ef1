"""The methods behind `client.transfers`, as the contracts have them."""

from __future__ import annotations

from gridlane.transfer.v1 import transfer_admin_service_pb2 as admin
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, TransferJob
from gridlane.transfer.v1.transfer_summary_pb2 import TransferSummary
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.TransferService"
_ADMIN = "gridlane.transfer.v1.TransferAdminService"

SUBMIT = Method(_SERVICE, "SubmitTransferJob", rpc.SubmitTransferJobRequest, TransferJob)
BATCH_SUBMIT = Method(
    _SERVICE,
    "BatchSubmitTransferJobs",
    rpc.BatchSubmitTransferJobsRequest,
    rpc.BatchSubmitTransferJobsResponse,
)
SUBMIT_STREAM = Method(
    _SERVICE, "SubmitTransferJobStream", rpc.SubmitTransferJobStreamRequest, TransferJob
)
SUBMIT_STAGING = Method(_SERVICE, "SubmitStagingJob", rpc.SubmitStagingJobRequest, TransferJob)
SUBMIT_DELETION = Method(_SERVICE, "SubmitDeletionJob", rpc.SubmitDeletionJobRequest, TransferJob)
GET = Method(_SERVICE, "GetTransferJob", rpc.GetTransferJobRequest, TransferJob)
BATCH_GET = Method(
    _SERVICE,
    "BatchGetTransferJobs",
    rpc.BatchGetTransferJobsRequest,
    rpc.BatchGetTransferJobsResponse,
)
LIST = Method(
    _SERVICE, "ListTransferJobs", rpc.ListTransferJobsRequest, rpc.ListTransferJobsResponse
)
SUMMARIZE = Method(
    _SERVICE, "SummarizeTransferJobs", rpc.SummarizeTransferJobsRequest, TransferSummary
)
GET_FILE = Method(_SERVICE, "GetFileTransfer", rpc.GetFileTransferRequest, FileTransfer)
LIST_FILES = Method(
    _SERVICE, "ListFileTransfers", rpc.ListFileTransfersRequest, rpc.ListFileTransfersResponse
)
LIST_ATTEMPTS = Method(
    _SERVICE, "ListFileAttempts", rpc.ListFileAttemptsRequest, rpc.ListFileAttemptsResponse
)
LIST_EVENTS = Method(
    _SERVICE, "ListTransferEvents", rpc.ListTransferEventsRequest, rpc.ListTransferEventsResponse
)
EXPLAIN = Method(
    _SERVICE, "ExplainTransferJob", rpc.ExplainTransferJobRequest, rpc.ExplainTransferJobResponse
)
CANCEL = Method(_SERVICE, "CancelTransferJob", rpc.CancelTransferJobRequest, TransferJob)
BATCH_CANCEL = Method(
    _SERVICE,
    "BatchCancelTransferJobs",
    rpc.BatchCancelTransferJobsRequest,
    rpc.BatchCancelTransferJobsResponse,
)
CANCEL_FILES = Method(
    _SERVICE,
    "CancelFileTransfers",
    rpc.CancelFileTransfersRequest,
    rpc.CancelFileTransfersResponse,
)
RETRY = Method(_SERVICE, "RetryTransferJob", rpc.RetryTransferJobRequest, TransferJob)
WATCH = Method(
    _SERVICE, "WatchTransferJobs", rpc.WatchTransferJobsRequest, rpc.WatchTransferJobsResponse
)
UPDATE = Method(_ADMIN, "UpdateTransferJob", admin.UpdateTransferJobRequest, TransferJob)
RELEASE = Method(
    _ADMIN, "ReleaseHeldFiles", admin.ReleaseHeldFilesRequest, admin.ReleaseHeldFilesResponse
)
FAIL_HELD = Method(_ADMIN, "FailHeldFiles", admin.FailHeldFilesRequest, admin.FailHeldFilesResponse)
