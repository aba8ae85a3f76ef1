"""What a user does, over the wire, with the generated stubs alone: no client facade in between.

Every test runs in both shapes: all services in one process, and one process a service. One that
says nothing new about the second shape, or means nothing in it, carries the marker `one_process`
with the reason, with which it is reported as skipped. All of the second shape is run by
`make test-peers`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from postgresql import PostgresqlServer
from split import SplitServer
from support import Deployment, EmbeddedServer, lent

from gridlane.authorization.v1 import authorization_service_pb2_grpc
from gridlane.gateway.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from gridlane.reporting.v1 import (
    accounting_record_pb2,
    accounting_service_pb2,
    accounting_service_pb2_grpc,
    span_service_pb2,
    span_service_pb2_grpc,
)
from gridlane.transfer.v1 import storage_service_pb2, storage_service_pb2_grpc
from gridlane.workload.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

WAIT_SECONDS = 60
FINAL = {
    job_pb2.JOB_STATE_DONE,
    job_pb2.JOB_STATE_FAILED,
    job_pb2.JOB_STATE_KILLED,
    job_pb2.JOB_STATE_DELETED,
}


class User:
    """The first user of a running Gridlane; survives the restarts of its processes."""

    def __init__(self, server: Deployment) -> None:
        self.server = server

    @property
    def authorization(self) -> Any:
        return authorization_service_pb2_grpc.AuthorizationServiceStub(self.server.channel)

    @property
    def tasks(self) -> Any:
        return task_service_pb2_grpc.TaskServiceStub(self.server.channel)

    @property
    def jobs(self) -> Any:
        return job_service_pb2_grpc.JobServiceStub(self.server.channel)

    @property
    def storage(self) -> Any:
        return storage_service_pb2_grpc.StorageServiceStub(self.server.channel)

    def put(self, lfn: str, content: bytes) -> None:
        """Puts bytes into the store."""
        header = storage_service_pb2.PutContentHeader(file=lfn, size_bytes=len(content))
        parts = [
            storage_service_pb2.PutContentRequest(header=header),
            storage_service_pb2.PutContentRequest(chunk=content),
        ]
        self.server.call(self.storage.PutContent, iter(parts))

    def get(self, lfn: str) -> bytes:
        """Reads bytes from the store."""
        request = storage_service_pb2.GetContentRequest(file=lfn)
        return b"".join(part.chunk for part in self.server.call(self.storage.GetContent, request))

    def submit(
        self,
        code: str,
        *,
        inputs: dict[str, str] | None = None,
        outputs: dict[str, str] | None = None,
        request_id: str = "",
    ) -> task_pb2.Task:
        """Submits a task that runs Python code; inputs and outputs by path."""
        return self.server.call(
            self.tasks.SubmitTask, submission(code, inputs, outputs, request_id)
        )

    def describe(self, task: task_pb2.Task) -> task_pb2.Task:
        """The task's story as it is."""
        request = task_service_pb2.DescribeTaskRequest(name=task.name)
        return self.server.call(self.tasks.DescribeTask, request)

    def watch(self, task: task_pb2.Task, token: str = "") -> Iterator[Any]:
        """The task's changes."""
        request = task_service_pb2.WatchTaskRequest(name=task.name, resume_token=token)
        metadata = self.server.metadata
        return self.tasks.WatchTask(request, metadata=metadata, timeout=WAIT_SECONDS)

    def wait(self, task: task_pb2.Task) -> job_pb2.Job:
        """Waits for the end of a task; returns its job."""
        for _ in self.watch(task):
            pass
        return self.job(task)

    def job(self, task: task_pb2.Task) -> job_pb2.Job:
        """The task's job as it is."""
        return self.server.call(self.jobs.GetJob, job_service_pb2.GetJobRequest(name=task.job.name))

    def wait_for_state(self, task: task_pb2.Task, state: job_pb2.JobState.ValueType) -> None:
        """Waits until the job is in a state."""
        self.eventually(lambda: self.job(task).state == state)

    def records(self, job: str) -> list[accounting_record_pb2.AccountingRecord]:
        """What is accounted for a job now."""
        stub = accounting_service_pb2_grpc.AccountingServiceStub(self.server.channel)
        request = accounting_service_pb2.ListAccountingRecordsRequest(
            page_size=1000, filter=f'job = "{job}"'
        )
        return list(self.server.call(stub.ListAccountingRecords, request).records)

    def spans(self, job: str) -> list[span_service_pb2.Span]:
        """The spans that are kept of a job."""
        stub = span_service_pb2_grpc.SpanServiceStub(self.server.channel)
        request = span_service_pb2.ListJobSpansRequest(job=job)
        return list(self.server.call(stub.ListJobSpans, request).spans)

    def job_token(self, task: task_pb2.Task) -> str:
        """The token of a running job, from its directory."""
        uuid = task.job.name.removeprefix("jobs/")
        file = self.server.data_dir / "jobs" / uuid / "1" / "token"
        self.eventually(file.exists)
        return file.read_text().strip()

    def eventually(self, holds: Callable[[], Any]) -> Any:
        """Waits until something holds that no event of the server tells; returns it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := holds()):
            assert time.monotonic() < deadline, f"it does not come true:\n{self.server.output}"
            time.sleep(0.05)
        return found


def submission(
    code: str,
    inputs: dict[str, str] | None = None,
    outputs: dict[str, str] | None = None,
    request_id: str = "",
) -> task_service_pb2.SubmitTaskRequest:
    """A task that runs Python code."""
    description = job_pb2.JobDescription(
        inputs=[job_pb2.JobInput(path=p, source=s) for p, s in (inputs or {}).items()],
        outputs=[job_pb2.JobOutput(path=p, target=t) for p, t in (outputs or {}).items()],
        executors=[job_pb2.Executor(command=[sys.executable, "-c", code])],
        resources=job_pb2.Resources(walltime=Duration(seconds=60)),
    )
    job = job_pb2.Job(description=description)
    return task_service_pb2.SubmitTaskRequest(job=job, request_id=request_id)


def event_ids(events: Sequence[Any]) -> list[str]:
    """The ids of task events."""
    return [(e.job if e.HasField("job") else e.transfer).event_id for e in events]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _needs_five(item):
            item.add_marker(pytest.mark.five_processes)


def _needs_five(item: pytest.Item) -> bool:
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    spec = getattr(item, "callspec", None)
    split = spec is not None and spec.params.get("shape") == "split"
    return split or "split_server" in fixtures


@pytest.fixture(scope="package")
def _shared_split_server(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgresqlServer
) -> Iterator[SplitServer]:
    databases = postgresql_server.new_databases()
    server = SplitServer(tmp_path_factory.mktemp("split-server"), databases)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def split_server(_shared_split_server: SplitServer) -> Iterator[SplitServer]:
    """Five processes on PostgreSQL, shared by the tests here; what one ended is started again."""
    with lent(_shared_split_server):
        yield _shared_split_server


@pytest.fixture(params=["all", "split"])
def shape(request: pytest.FixtureRequest) -> str:
    """Each of the shapes in which Gridlane runs."""
    marker = request.node.get_closest_marker("one_process")
    if request.param == "split" and marker is not None:
        pytest.skip(f"one process: {marker.kwargs['reason']}")
    return str(request.param)


@pytest.fixture
def server(shape: str, request: pytest.FixtureRequest) -> Deployment:
    """The run's shared server of the shape; left as it is found, but for jobs and files."""
    fixture = {"all": "embedded_server", "split": "split_server"}[shape]
    found: Deployment = request.getfixturevalue(fixture)
    return found


@pytest.fixture(scope="package")
def _shared_mortal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("mortal-server"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def mortal_server(shape: str, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A server whose parts a test may end; it starts them again itself. Those who end parts share
    it, and leave jobs and files there.
    """
    if shape == "split":
        yield request.getfixturevalue("split_server")
        return
    server: EmbeddedServer = request.getfixturevalue("_shared_mortal_server")
    with lent(server):
        yield server


@pytest.fixture
def user(server: Deployment) -> User:
    """The first user of the shape's shared server."""
    return User(server)


@pytest.fixture
def user_of() -> type[User]:
    """Makes the first user of a server."""
    return User
