"""What a task is refused for, field by field, and what is not even asked."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gridlane.gateway.v1 import task_service_pb2
from gridlane.transfer.v1 import channel_pb2, storage_element_pb2
from gridlane.workload.v1 import job_pb2

REQUEST_ID = "01939f5e-0000-7000-8000-0000000000ff"


def local_element(**given: Any) -> storage_element_pb2.StorageElement:
    fields = {"readable": True, "writable": True, **given}
    endpoint = storage_element_pb2.StorageEndpoint(base_url="file:///store", protocol="file")
    return storage_element_pb2.StorageElement(
        name="storageElements/local", endpoints=[endpoint], vo_paths={"local": "/local"}, **fields
    )


def submission(
    *, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = (), **given: Any
) -> task_service_pb2.SubmitTaskRequest:
    description = job_pb2.JobDescription(
        inputs=[job_pb2.JobInput(path=f"in{n}", source=s) for n, s in enumerate(inputs)],
        outputs=[job_pb2.JobOutput(path=f"out{n}", target=t) for n, t in enumerate(outputs)],
        executors=[job_pb2.Executor(command=["true"])],
    )
    return task_service_pb2.SubmitTaskRequest(job=job_pb2.Job(description=description), **given)


async def submit(gateway: Any, request: task_service_pb2.SubmitTaskRequest) -> Any:
    return await gateway.tasks.SubmitTask(request, metadata=gateway.metadata, timeout=10)


async def refused_fields(gateway: Any, request: task_service_pb2.SubmitTaskRequest) -> set[str]:
    with pytest.raises(aio.AioRpcError) as refused:
        await submit(gateway, request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailing = dict(refused.value.trailing_metadata() or ())
    bad = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details:
        detail.Unpack(bad)
    assert gateway.grid.submitted == []
    return {violation.field for violation in bad.field_violations}


async def test_every_failed_check_is_one_violation_of_its_field(gateway: Any) -> None:
    gateway.grid.elements = [local_element(writable=False)]
    gateway.grid.channel_states = [channel_pb2.CHANNEL_STATE_STOPPED]
    gateway.grid.backend_reachable = False
    gateway.grid.known_lfns = {"LFN:/local/there"}
    request = submission(
        inputs=("LFN:/local/there", "LFN:/local/gone", "file:///elsewhere/x", "file:///store/ok"),
        outputs=("LFN:/local/out", "LFN:/other/out"),
    )
    assert await refused_fields(gateway, request) == {
        "job.description.inputs[1].source",
        "job.description.inputs[2].source",
        "job.description.outputs[0].target",
        "job.description.outputs[1].target",
        "job.description.inputs",
        "job.description.executors",
    }


async def test_a_storage_element_s_neighbour_is_not_its_own(gateway: Any) -> None:
    gateway.grid.elements = [local_element()]
    request = submission(outputs=("LFN:/localhost/out", "file:///storehouse/out"))
    assert len(await refused_fields(gateway, request)) == 2


async def test_an_internal_storage_element_serves_nobody(gateway: Any) -> None:
    gateway.grid.elements = [local_element(internal=True)]
    assert await refused_fields(gateway, submission(outputs=("LFN:/local/out",)))


async def test_a_task_without_files_asks_only_for_the_backend(gateway: Any) -> None:
    task = await submit(gateway, submission())
    assert task.name == "tasks/01939f5e-0000-7000-8000-00000000000a"
    assert gateway.grid.asked == ["GetWorkloadStatus", "SubmitJob"]


async def test_the_request_id_is_workload_s_to_remember(gateway: Any) -> None:
    await submit(gateway, submission(request_id=REQUEST_ID))
    assert [request.request_id for request in gateway.grid.submitted] == [REQUEST_ID]


async def test_a_repeated_request_is_answered_even_when_its_checks_fail_today(
    gateway: Any,
) -> None:
    gateway.grid.replayed = job_pb2.Job(name="jobs/01939f5e-0000-7000-8000-00000000000b")
    request = submission(inputs=("LFN:/local/gone",), request_id=REQUEST_ID)
    task = await submit(gateway, request)
    assert task.job.name == gateway.grid.replayed.name
    assert gateway.grid.submitted == []


async def test_validating_only_checks_and_submits_nothing(gateway: Any) -> None:
    task = await submit(gateway, submission(validate_only=True))
    assert task.name == ""
    assert gateway.grid.submitted == []


async def test_a_service_that_cannot_be_asked_is_no_violation_but_unavailable(
    gateway: Any,
) -> None:
    gateway.grid.away.add("transfer")
    with pytest.raises(aio.AioRpcError) as refused:
        await submit(gateway, submission(inputs=("LFN:/local/x",)))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
