"""What a running job may do with its own token, and what not."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from gridlane.authorization.v1 import authorization_service_pb2
from gridlane.gateway.v1 import task_service_pb2
from gridlane.type.v1 import principal_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2

OTHER = "jobs/01939f5e-0000-7000-8000-000000000001"


@pytest.fixture
def running(user: Any) -> Iterator[Any]:
    """A running task and its job's token; cancelled at the end."""
    task = user.submit("import time; time.sleep(60)")
    user.wait_for_state(task, job_pb2.JOB_STATE_RUNNING)
    yield task, user.job_token(task)
    request = task_service_pb2.CancelTaskRequest(name=task.name)
    user.server.call(user.tasks.CancelTask, request)


def export(user: Any, token: str, job: str) -> trace_service_pb2.ExportTraceServiceResponse:
    value = common_pb2.AnyValue(string_value=job)
    span = trace_pb2.Span(
        trace_id=bytes(15) + b"\x01",
        span_id=bytes(7) + b"\x01",
        name=f"analysis of {job}",
        start_time_unix_nano=1,
        end_time_unix_nano=2,
        attributes=[common_pb2.KeyValue(key="gridlane.job.id", value=value)],
    )
    spans = trace_pb2.ResourceSpans(scope_spans=[trace_pb2.ScopeSpans(spans=[span])])
    request = trace_service_pb2.ExportTraceServiceRequest(resource_spans=[spans])
    stub = trace_service_pb2_grpc.TraceServiceStub(user.server.channel)  # type: ignore[no-untyped-call]
    return user.server.call(stub.Export, request, token=token)


def test_a_job_s_token_says_whose_job_it_is(user: Any, running: Any) -> None:
    _, token = running
    answer = user.server.call(
        user.authorization.WhoAmI, authorization_service_pb2.WhoAmIRequest(), token=token
    )
    assert answer.principal.kind == principal_pb2.PRINCIPAL_KIND_JOB


def test_a_job_s_token_is_refused_for_every_other_verb(user: Any, running: Any) -> None:
    task, token = running
    name = task.job.name
    description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["true"])])
    job = job_pb2.Job(description=description)
    attempts = [
        (user.tasks.SubmitTask, task_service_pb2.SubmitTaskRequest(job=job)),
        (user.tasks.DescribeTask, task_service_pb2.DescribeTaskRequest(name=name)),
        (user.tasks.CancelTask, task_service_pb2.CancelTaskRequest(name=name)),
        (user.jobs.GetJob, job_service_pb2.GetJobRequest(name=name)),
        (user.jobs.KillJob, job_service_pb2.KillJobRequest(name=name)),
        (user.jobs.SubmitJob, job_service_pb2.SubmitJobRequest(job=job)),
    ]
    for method, request in attempts:
        with pytest.raises(grpc.RpcError) as refused:
            user.server.call(method, request, token=token)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, request


def test_a_job_writes_spans_of_its_own(user: Any, running: Any) -> None:
    task, token = running
    assert not export(user, token, task.job.name).HasField("partial_success")
    assert f"analysis of {task.job.name}" in {s.name for s in user.spans(task.job.name)}


def test_a_job_cannot_write_spans_of_another_job(user: Any, running: Any) -> None:
    task, token = running
    other = user.submit("pass")
    user.wait(other)
    answer = export(user, token, other.job.name)
    assert answer.partial_success.rejected_spans == 1
    for job in (task.job.name, other.job.name):
        assert f"analysis of {other.job.name}" not in {s.name for s in user.spans(job)}


def test_a_user_writes_no_spans(user: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        export(user, user.server.token, OTHER)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
