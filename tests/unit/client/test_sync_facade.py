"""The synchronous facade against grpcio-testing: what verbs send, and what they make of answers.

There is no socket: the test plays the server, request by request.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf import descriptor_pool

import gridlane
from gridlane.gateway.v1.task_pb2 import Task
from gridlane.ids import uuid7, uuid7_time_ms
from gridlane.nouns import accounting, backends, channels, jobs, replicas, service, spans, tasks
from gridlane.nouns import transfer_methods as transfers
from gridlane.transfer.v1 import backend_admin_service_pb2 as backend_rpc
from gridlane.transfer.v1 import replica_service_pb2 as rpc_pb2
from gridlane.transfer.v1.replica_pb2 import LogicalFile
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob
from gridlane.transport import Method
from gridlane.workload.v1.job_pb2 import Job

SECONDS = 10
ID = uuid7()
SERVICES = {
    module.SUBMIT.service if hasattr(module, "SUBMIT") else module.LIST.service
    for module in (accounting, backends, channels, jobs, replicas, tasks, transfers)
} | {
    service.WHO_AM_I.service,
    service.PING.service,
    spans.LIST_OF_JOB.service,
    backends.PUSH.service,
}


class Played:
    """A client whose server the test plays."""

    def __init__(self) -> None:
        pool = descriptor_pool.Default()
        described = [pool.FindServiceByName(name) for name in sorted(SERVICES)]
        self.channel = grpc_testing.channel(described, grpc_testing.strict_real_time())
        self.client = gridlane.Client(
            "127.0.0.1:1", token="t0ken", channel=self.channel, retry=gridlane.RetryPolicy()
        )
        self._threads = ThreadPoolExecutor(2)

    def begin(self, call: Callable[[], Any]) -> "Future[Any]":
        return self._threads.submit(call)

    def take(self, method: Method[Any, Any]) -> tuple[dict[str, Any], Any, Any]:
        described = descriptor_pool.Default().FindServiceByName(method.service)
        metadata, request, rpc = self.channel.take_unary_unary(
            described.methods_by_name[method.name]
        )
        return dict(metadata), request, rpc

    def answer(self, method: Method[Any, Any], response: Any) -> Any:
        _, request, rpc = self.take(method)
        rpc.terminate(response, (), grpc.StatusCode.OK, "")
        return request


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.client.close()


def test_a_task_is_submitted_with_a_fresh_uuid7_and_the_token(played: Played) -> None:
    job = gridlane.new_job(
        ["python3", "analyse.py"], name="co2", walltime=timedelta(minutes=5), vo="local"
    )
    future = played.begin(lambda: played.client.tasks.submit(job))
    metadata, request, rpc = played.take(tasks.SUBMIT)
    rpc.terminate(Task(name=f"tasks/{ID}"), (), grpc.StatusCode.OK, "")
    assert future.result(SECONDS).name == f"tasks/{ID}"
    assert request.job == job
    assert uuid7_time_ms(request.request_id) > 0
    assert metadata["authorization"] == "Bearer t0ken"
    assert metadata["traceparent"].startswith("00-")


def test_a_request_id_of_the_callers_is_kept(played: Played) -> None:
    mine = uuid7()
    job = gridlane.new_job("true")
    future = played.begin(
        lambda: played.client.jobs.submit(job, request_id=mine, validate_only=True)
    )
    request = played.answer(jobs.SUBMIT, Job(name=f"jobs/{ID}"))
    assert future.result(SECONDS).name == f"jobs/{ID}"
    assert (request.request_id, request.validate_only) == (mine, True)


@pytest.mark.parametrize(
    ("call", "method", "field", "sent"),
    [
        (lambda c: c.tasks.describe(ID), tasks.DESCRIBE, "name", f"jobs/{ID}"),
        (lambda c: c.tasks.cancel(f"tasks/{ID}"), tasks.CANCEL, "name", f"jobs/{ID}"),
        (lambda c: c.jobs.get(ID), jobs.GET, "name", f"jobs/{ID}"),
        (lambda c: c.jobs.kill(ID), jobs.KILL, "name", f"jobs/{ID}"),
        (lambda c: c.transfers.get(ID), transfers.GET, "name", f"transfers/{ID}"),
        (lambda c: c.transfers.cancel(ID), transfers.CANCEL, "name", f"transfers/{ID}"),
        (lambda c: c.channels.get("default"), channels.GET, "name", "channels/default"),
        (lambda c: c.backends.get("embedded"), backends.GET, "name", "transferBackends/embedded"),
        (
            lambda c: list(c.backends.drift("fts")),
            backends.LIST_DRIFT,
            "parent",
            "transferBackends/fts",
        ),
        (lambda c: c.spans.of_job(ID), spans.LIST_OF_JOB, "job", f"jobs/{ID}"),
        (lambda c: list(c.jobs.events(ID)), jobs.LIST_EVENTS, "parent", f"jobs/{ID}"),
        (lambda c: list(c.transfers.files(ID)), transfers.LIST_FILES, "parent", f"transfers/{ID}"),
        (
            lambda c: list(c.transfers.list(job=ID)),
            transfers.LIST,
            "filter",
            f'tags.gridlane.job = "{ID}"',
        ),
        (
            lambda c: list(c.accounting.records(job=ID)),
            accounting.LIST,
            "filter",
            f'job = "jobs/{ID}"',
        ),
        (
            lambda c: list(c.accounting.records(kind="data_operation")),
            accounting.LIST,
            "filter",
            'type = "data_operation"',
        ),
        (lambda c: list(c.replicas.list("LFN:/x/")), replicas.LIST, "prefix", "LFN:/x/"),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else "",
)
def test_verbs_name_their_resource_in_full(
    played: Played,
    call: Callable[[gridlane.Client], Any],
    method: Method[Any, Any],
    field: str,
    sent: str,
) -> None:
    future = played.begin(lambda: call(played.client))
    request = played.answer(method, method.response())
    assert getattr(request, field) == sent
    future.result(SECONDS)


def test_a_push_tells_of_each_difference_whether_it_is_gone(played: Played) -> None:
    future = played.begin(lambda: played.client.backends.push("fts", resources=["link"]))
    answer = backend_rpc.PushBackendConfigurationResponse()
    answer.results.add().drift.resource = "link"
    refused = answer.results.add()
    refused.drift.resource = "share"
    refused.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
    request = played.answer(backends.PUSH, answer)
    assert (request.name, list(request.resources)) == ("transferBackends/fts", ["link"])
    gone, stays = future.result(SECONDS)
    assert (gone[0].resource, gone[1]) == ("link", None)
    assert isinstance(stays[1], gridlane.PermissionDenied)


def test_a_replica_is_registered_with_its_checksum(played: Played) -> None:
    future = played.begin(
        lambda: played.client.replicas.register(
            "LFN:/local/a", "file:///srv/a", size_bytes=3, checksum="ADLER32:024d0127"
        )
    )
    request = played.answer(replicas.REGISTER, LogicalFile(lfn="LFN:/local/a"))
    assert future.result(SECONDS).lfn == "LFN:/local/a"
    assert (request.size_bytes, request.checksum.value) == (3, "024d0127")


def test_many_copies_go_a_thousand_a_call_and_are_answered_in_order(played: Played) -> None:
    copies = [
        gridlane.new_replica(f"LFN:/x/{n}", f"a:{n}", size_bytes=1, checksum="MD5:" + "0" * 32)
        for n in range(1001)
    ]
    future = played.begin(lambda: played.client.replicas.register_many(iter(copies)))
    for size in (1000, 1):
        _, request, rpc = played.take(replicas.BATCH_REGISTER)
        assert len(request.requests) == size
        answer = rpc_pb2.BatchRegisterReplicasResponse()
        for one in request.requests:
            answer.results.add().file.lfn = one.lfn
        answer.results[0].status.code = grpc.StatusCode.ALREADY_EXISTS.value[0]
        rpc.terminate(answer, (), grpc.StatusCode.OK, "")
    results = future.result(SECONDS)
    assert [n for n, one in enumerate(results) if isinstance(one, gridlane.AlreadyExists)] == [
        0,
        1000,
    ]
    assert isinstance(results[999], LogicalFile)
    assert results[999].lfn == "LFN:/x/999"


def test_copies_that_are_taken_out_are_answered_by_what_refused_them(played: Played) -> None:
    pairs = [("LFN:/x/a", "a:b"), ("LFN:/x/b", "storageElements/c")]
    future = played.begin(lambda: played.client.replicas.unregister_many(pairs))
    answer = rpc_pb2.BatchUnregisterReplicasResponse()
    answer.results.add().done.SetInParent()
    answer.results.add().status.code = grpc.StatusCode.NOT_FOUND.value[0]
    request = played.answer(replicas.BATCH_UNREGISTER, answer)
    assert [(one.lfn, one.replica) for one in request.requests] == pairs
    done, refused = future.result(SECONDS)
    assert done is None
    assert isinstance(refused, gridlane.NotFound)


@pytest.mark.parametrize("missing_ok", [True, False])
def test_a_copy_that_is_not_registered_is_well_when_that_is_said(
    played: Played, missing_ok: bool
) -> None:
    future = played.begin(
        lambda: played.client.replicas.unregister("LFN:/x/a", "a:b", missing_ok=missing_ok)
    )
    _, _, rpc = played.take(replicas.UNREGISTER)
    rpc.terminate(None, (), grpc.StatusCode.NOT_FOUND, "there is none")
    if missing_ok:
        future.result(SECONDS)
    else:
        with pytest.raises(gridlane.NotFound):
            future.result(SECONDS)


def test_who_am_i_and_ping(played: Played) -> None:
    future = played.begin(played.client.whoami)
    played.answer(service.WHO_AM_I, service.WHO_AM_I.response(policy_revision=3))
    assert future.result(SECONDS).policy_revision == 3
    future = played.begin(played.client.ping)
    played.answer(service.PING, service.PING.response())
    assert not future.result(SECONDS).services


def test_an_error_is_raised_with_what_the_server_said(played: Played) -> None:
    from gridlane_kit import errors as kit

    said = kit.permission_denied("workload.jobs.view")
    future = played.begin(lambda: played.client.jobs.get(ID))
    _, _, rpc = played.take(jobs.GET)
    details = (("grpc-status-details-bin", said.to_status().SerializeToString()),)
    rpc.terminate(None, details, grpc.StatusCode.PERMISSION_DENIED, said.message)
    with pytest.raises(gridlane.PermissionDenied) as caught:
        future.result(SECONDS)
    assert caught.value.metadata == {
        "permission": "workload.jobs.view",
        "roles": "ADMIN VO_MANAGER JOB_SHARER JOB_MONITOR",
    }


def test_a_call_that_was_not_answered_is_made_again_with_the_same_request(
    played: Played,
) -> None:
    future = played.begin(lambda: played.client.transfers.submit(gridlane.new_transfer({})))
    _, first, rpc = played.take(transfers.SUBMIT)
    rpc.terminate(None, (), grpc.StatusCode.UNAVAILABLE, "Socket closed")
    second = played.answer(transfers.SUBMIT, TransferJob(name=f"transfers/{ID}"))
    assert first == second
    assert future.result(SECONDS).name == f"transfers/{ID}"
