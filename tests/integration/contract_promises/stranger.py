"""A client written from the comments of the contract alone, over the generated stubs.

Responsible for short ways to say what tests of promises say again and again. Knows nothing of the
servers' code.
"""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from support import EmbeddedServer

from gridlane.authorization.v1 import (
    authorization_service_pb2_grpc,
    policy_service_pb2_grpc,
    token_service_pb2_grpc,
)
from gridlane.gateway.v1 import task_service_pb2, task_service_pb2_grpc
from gridlane.reporting.v1 import accounting_service_pb2_grpc, span_service_pb2_grpc
from gridlane.transfer.v1 import (
    channel_service_pb2_grpc,
    event_service_pb2_grpc,
    replica_service_pb2_grpc,
    storage_service_pb2,
    storage_service_pb2_grpc,
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.type.v1 import checksum_pb2
from gridlane.workload.v1 import event_service_pb2_grpc as job_event_service_pb2_grpc
from gridlane.workload.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

WAIT_SECONDS: Final = 40
NOBODYS: Final = "01939f5e-0000-7000-8000-000000000001"
"""A uuid of nothing."""
JOB_ENDS: Final = frozenset(
    {job_pb2.JOB_STATE_DONE, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_KILLED}
)
TRANSFER_ENDS: Final = frozenset(
    {
        transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_REGISTRATION_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_CANCELED,
    }
)


@dataclass(frozen=True)
class Refusal:
    """An error as its details tell it."""

    code: str
    reason: str
    metadata: Mapping[str, str]
    fields: tuple[str, ...]
    """Those that BadRequest names."""
    message: str

    @staticmethod
    def of(status: status_pb2.Status) -> "Refusal":
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        fields: list[str] = []
        for detail in status.details:
            detail.Unpack(info)
            if detail.Unpack(bad):
                fields += [violation.field for violation in bad.field_violations]
        assert info.domain == "gridlane"
        code = next(c.name for c in grpc.StatusCode if c.value[0] == status.code)
        return Refusal(code, info.reason, dict(info.metadata), tuple(fields), status.message)

    @property
    def short(self) -> tuple[str, str]:
        return self.code, self.reason


class Stranger:
    """A user of a server: the local one, or the one whose token is given."""

    def __init__(self, server: EmbeddedServer, token: str | None = None) -> None:
        self.server = server
        self._token = token
        channel = server.channel
        self.jobs: Any = job_service_pb2_grpc.JobServiceStub(channel)
        self.job_events: Any = job_event_service_pb2_grpc.JobEventServiceStub(channel)
        self.transfers: Any = transfer_service_pb2_grpc.TransferServiceStub(channel)
        self.transfer_events: Any = event_service_pb2_grpc.TransferEventServiceStub(channel)
        self.storage: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.replicas: Any = replica_service_pb2_grpc.ReplicaServiceStub(channel)
        self.channels: Any = channel_service_pb2_grpc.ChannelServiceStub(channel)
        self.accounting: Any = accounting_service_pb2_grpc.AccountingServiceStub(channel)
        self.spans: Any = span_service_pb2_grpc.SpanServiceStub(channel)
        self.tasks: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        self.authorization: Any = authorization_service_pb2_grpc.AuthorizationServiceStub(channel)
        self.policy: Any = policy_service_pb2_grpc.PolicyServiceStub(channel)
        self.tokens: Any = token_service_pb2_grpc.TokenServiceStub(channel)

    @cached_property
    def metadata(self) -> Sequence[tuple[str, str]]:
        return (("authorization", f"Bearer {self._token or self.server.token}"),)

    def call(self, method: Any, request: Any) -> Any:
        """The answer, or the stream of answers."""
        return method(request, metadata=self.metadata, timeout=WAIT_SECONDS)

    def refused(self, method: Any, request: Any) -> Refusal:
        """The error of a call that must not succeed; a stream is read to its end."""
        try:
            answer = self.call(method, request)
            found = list(answer) if isinstance(answer, Iterator) else answer
        except grpc.RpcError as error:
            return refusal(error)
        raise AssertionError(f"it was answered: {found}")

    def pages(self, method: Any, request: Any, field: str) -> list[Any]:
        """Everything of a listing, page by page."""
        found: list[Any] = []
        while True:
            page = self.call(method, request)
            found += getattr(page, field)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def put(
        self, file: str, content: bytes, *, chunks: Iterable[bytes] | None = None, **header: Any
    ) -> storage_service_pb2.PutContentResponse:
        """Puts bytes."""
        return self.call(self.storage.PutContent, parts(file, content, chunks=chunks, **header))

    def read(self, file: str, offset: int = 0) -> bytes:
        """Gets bytes."""
        request = storage_service_pb2.GetContentRequest(file=file, offset_bytes=offset)
        return b"".join(part.chunk for part in self.call(self.storage.GetContent, request))

    def submit(self, *command: str, request_id: str = "", **fields: Any) -> job_pb2.Job:
        """Submits a job of one command."""
        request = submission(*command, request_id=request_id, **fields)
        return self.call(self.jobs.SubmitJob, request)

    def job(self, name: str) -> job_pb2.Job:
        return self.call(self.jobs.GetJob, job_service_pb2.GetJobRequest(name=name))

    def ended(self, name: str) -> job_pb2.Job:
        """The job once it has ended, seen by its watch."""
        request = job_service_pb2.WatchJobsRequest(names=[name])
        stream = self.call(self.jobs.WatchJobs, request)
        for page in stream:
            if page.events[-1].state in JOB_ENDS:
                stream.cancel()
                break
        return self.job(name)

    def started(self, name: str) -> job_pb2.Job:
        """The job once it runs."""
        return self.eventually(lambda: self._if_running(self.job(name)))

    def _if_running(self, job: job_pb2.Job) -> job_pb2.Job | None:
        return job if job.state == job_pb2.JOB_STATE_RUNNING else None

    def transfer(self, source: str, target: str, **fields: Any) -> transfer_job_pb2.TransferJob:
        """Submits a transfer job of one file."""
        file_fields = {k: fields.pop(k) for k in ("checksum", "size_bytes") if k in fields}
        file = transfer_job_pb2.FileTransfer(source=source, target=target, **file_fields)
        job = transfer_job_pb2.TransferJob(files=[file], **fields)
        request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
        return self.call(self.transfers.SubmitTransferJob, request)

    def transfer_job(self, name: str) -> transfer_job_pb2.TransferJob:
        request = transfer_service_pb2.GetTransferJobRequest(name=name)
        return self.call(self.transfers.GetTransferJob, request)

    def moved(self, source: str, target: str, **fields: Any) -> transfer_job_pb2.TransferJob:
        """A transfer job of one file once it has ended."""
        return self.arrived(self.transfer(source, target, **fields).name)

    def arrived(self, name: str) -> transfer_job_pb2.TransferJob:
        """The transfer job once it has ended, seen by its watch."""
        request = transfer_service_pb2.WatchTransferJobsRequest(names=[name])
        stream = self.call(self.transfers.WatchTransferJobs, request)
        for page in stream:
            if page.events[-1].job.state in TRANSFER_ENDS:
                stream.cancel()
                break
        return self.transfer_job(name)

    def done(self, *command: str, **fields: Any) -> job_pb2.Job:
        """A job of one command once it has ended."""
        return self.ended(self.submit(*command, **fields).name)

    def eventually(self, holds: Callable[[], Any]) -> Any:
        """Waits until something holds that no event tells; returns it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := holds()):
            assert time.monotonic() < deadline, "it does not come true"
            time.sleep(0.05)
        return found


def refusal(error: Any) -> Refusal:
    """What an error tells."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            found = Refusal.of(status_pb2.Status.FromString(value))
            assert found.code == error.code().name
            return found
    raise AssertionError(f"no details: {error.code()} {error.details()}")


def submission(
    *command: str, request_id: str = "", validate_only: bool = False, vo: str = "", **fields: Any
) -> job_service_pb2.SubmitJobRequest:
    """A request to submit a job; fields are those of its description."""
    fields.setdefault("executors", [job_pb2.Executor(command=command or ("true",))])
    fields.setdefault("resources", job_pb2.Resources(walltime=Duration(seconds=60)))
    job = job_pb2.Job(vo=vo, description=job_pb2.JobDescription(**fields))
    return job_service_pb2.SubmitJobRequest(
        job=job, request_id=request_id, validate_only=validate_only
    )


def task_of(request: job_service_pb2.SubmitJobRequest) -> task_service_pb2.SubmitTaskRequest:
    """The same, of the gateway."""
    return task_service_pb2.SubmitTaskRequest(
        job=request.job, request_id=request.request_id, validate_only=request.validate_only
    )


def transfer_of(source: str, target: str, **fields: Any) -> Any:
    """A request to submit a transfer job of one file; fields are the request's and the job's."""
    of_request = {k: fields.pop(k) for k in ("request_id", "validate_only") if k in fields}
    file = transfer_job_pb2.FileTransfer(source=source, target=target)
    job = transfer_job_pb2.TransferJob(files=[file], **fields)
    return transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job, **of_request)


def parts(
    file: str, content: bytes, *, chunks: Iterable[bytes] | None = None, **header: Any
) -> Iterable[storage_service_pb2.PutContentRequest]:
    """The messages of a put."""
    header.setdefault("size_bytes", len(content))
    head = storage_service_pb2.PutContentHeader(file=file, **header)
    yield storage_service_pb2.PutContentRequest(header=head)
    for chunk in (content,) if chunks is None else chunks:
        yield storage_service_pb2.PutContentRequest(chunk=chunk)


def adler32(content: bytes) -> checksum_pb2.Checksum:
    """The field's default checksum."""
    value = f"{zlib.adler32(content):08x}"
    return checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_ADLER32, value=value)
