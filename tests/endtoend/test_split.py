"""One process a service: what still works while another service is away, and that its end is
followed by nothing lost; what the processes believe each other."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from split import SERVICES, SplitServer
from support import ServerProcess, bearer

from gridlane.authorization.v1 import authorization_service_pb2 as authorization_pb2
from gridlane.authorization.v1 import token_service_pb2, token_service_pb2_grpc
from gridlane.gateway.v1 import task_service_pb2
from gridlane.reporting.v1 import accounting_service_pb2, accounting_service_pb2_grpc
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_kit.assertions import AssertionSigner
from gridlane_kit.identity import Principal

COPY = "import time; time.sleep({s}); open('out.txt', 'w').write(open('in.txt').read())"
ALL_KINDS = ["data_operation", "data_operation", "job_usage"]
Away = Callable[[str], ServerProcess]


@pytest.fixture
def user(split_server: SplitServer, user_of: Any) -> Any:
    """The first user of the five processes."""
    return user_of(split_server)


@pytest.fixture
def away(split_server: SplitServer) -> Iterator[Away]:
    """Kills a service; started again at the end, unless the test does it."""
    killed: list[ServerProcess] = []

    def kill(service: str) -> ServerProcess:
        part = split_server.part(service)
        part.kill()
        killed.append(part)
        return part

    yield kill
    for part in killed:
        if not part.alive:
            part.start()


def submit(user: Any, seconds: float = 0) -> Any:
    """A task with one input and one output, which works for a while."""
    folder = f"LFN:/local/{uuid.uuid4()}"
    user.put(f"{folder}/in.txt", b"hello")
    return user.submit(
        COPY.format(s=seconds),
        inputs={"in.txt": f"{folder}/in.txt"},
        outputs={"out.txt": f"{folder}/out.txt"},
    )


def done_and_accounted(user: Any, task: Any) -> None:
    """Waits for the task's good end and for its records, each of them once."""
    user.eventually(lambda: user.job(task).state == job_pb2.JOB_STATE_DONE)

    def kinds() -> list[str]:
        return sorted(str(record.WhichOneof("record")) for record in user.records(task.job.name))

    user.eventually(lambda: len(kinds()) >= len(ALL_KINDS))
    assert kinds() == ALL_KINDS


def test_a_job_s_spans_come_from_every_process(user: Any) -> None:
    task = submit(user)
    user.wait(task)
    wanted = {"authorization", "transfer", "workload", "gateway", "payload"}
    user.eventually(lambda: wanted <= {span.service for span in user.spans(task.job.name)})


def test_without_reporting_a_job_goes_its_way_and_is_accounted_later(user: Any, away: Away) -> None:
    reporting = away("reporting")
    task = submit(user)
    assert user.wait(task).state == job_pb2.JOB_STATE_DONE
    assert user.describe(task).missing
    reporting.start()
    done_and_accounted(user, task)


def test_without_the_gateway_a_job_goes_its_way(user: Any, away: Away) -> None:
    task = submit(user, 1)
    away("gateway")
    done_and_accounted(user, task)


def test_without_authorization_calls_are_decided_and_a_job_waits_for_its_token(
    user: Any, away: Away
) -> None:
    authorization = away("authorization")
    task = submit(user)
    user.wait_for_state(task, job_pb2.JOB_STATE_MATCHED)
    time.sleep(0.5)
    assert user.job(task).state == job_pb2.JOB_STATE_MATCHED
    authorization.start()
    done_and_accounted(user, task)


def test_without_transfer_a_payload_runs_and_its_output_waits(user: Any, away: Away) -> None:
    task = submit(user, 1)
    user.wait_for_state(task, job_pb2.JOB_STATE_RUNNING)
    transfer = away("transfer")
    user.wait_for_state(task, job_pb2.JOB_STATE_COMPLETING)
    transfer.start()
    done_and_accounted(user, task)


def test_a_payload_outlives_workload_and_its_end_is_found(user: Any, away: Away) -> None:
    task = submit(user, 1)
    user.wait_for_state(task, job_pb2.JOB_STATE_RUNNING)
    workload = away("workload")
    time.sleep(1.5)
    workload.start()
    done_and_accounted(user, task)


@pytest.mark.parametrize(
    "failpoint",
    [
        "workload.stage_in.submitted",
        "workload.start.launched",
        "transfer.copy.published",
        "authorization.users.committed",
    ],
)
def test_a_process_killed_in_the_midst_of_a_job_leaves_it_whole(
    split_server: SplitServer, user: Any, failpoint: str
) -> None:
    service = failpoint.partition(".")[0]
    part = split_server.part(service)
    part.stop()
    part.launch({"GRIDLANE_FAILPOINTS": f"{failpoint}=kill@1"})
    if service != "authorization":  # which dies at its start
        part.wait_until_ready()
    task = submit(user)
    assert part.wait_dead() == -9
    part.start()
    done_and_accounted(user, task)


def test_ping_names_the_service_that_is_away(user: Any, away: Away) -> None:
    away("transfer")
    answer = user.server.call(user.tasks.Ping, task_service_pb2.PingRequest())
    assert {s.service for s in answer.services if not s.reachable} == {"transfer"}


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_speaks_plain_text(split_server: SplitServer, service: str) -> None:
    with grpc.insecure_channel(split_server.part(service).address) as channel:
        call: Any = channel.unary_unary(f"/gridlane.{service}.v1.Any/Any")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def asserted(server: SplitServer, sender: str, receiver: str, principal: Principal) -> str:
    """The token with which a service that has its key would act for somebody."""
    signer = AssertionSigner.from_file(sender, server.data_dir / "keys" / f"{sender}.pem")
    return signer.header(principal, receiver).removeprefix("Bearer ")


def code_of(user: Any, method: Any, request: Any, token: str) -> grpc.StatusCode:
    try:
        method(request, metadata=bearer(token), timeout=10)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
def admin(split_server: SplitServer, user: Any) -> Principal:
    """The first user, as a service would know it."""
    request = authorization_pb2.WhoAmIRequest()
    answer = split_server.call(user.authorization.WhoAmI, request)
    principal = answer.principal
    return Principal(principal.issuer, principal.subject, vos=frozenset(principal.vos))


def test_a_service_acts_for_a_user_only_where_the_design_lets_it_call(
    split_server: SplitServer, user: Any, admin: Principal
) -> None:
    jobs = job_service_pb2.ListJobsRequest()
    allowed = asserted(split_server, "gateway", "workload", admin)
    assert code_of(user, user.jobs.ListJobs, jobs, allowed) is grpc.StatusCode.OK
    upward = asserted(split_server, "transfer", "workload", admin)
    assert code_of(user, user.jobs.ListJobs, jobs, upward) is grpc.StatusCode.UNAUTHENTICATED
    elsewhere = asserted(split_server, "gateway", "transfer", admin)
    assert code_of(user, user.jobs.ListJobs, jobs, elsewhere) is grpc.StatusCode.UNAUTHENTICATED


def test_a_service_that_sends_its_spans_gets_nothing_else_of_reporting(
    split_server: SplitServer, user: Any, admin: Principal
) -> None:
    stub = accounting_service_pb2_grpc.AccountingServiceStub(split_server.channel)
    request = accounting_service_pb2.ListAccountingRecordsRequest()
    token = asserted(split_server, "transfer", "reporting", admin)
    code = code_of(user, stub.ListAccountingRecords, request, token)
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_no_user_mints_a_job_s_token_and_no_other_service_does(
    split_server: SplitServer, user: Any, admin: Principal
) -> None:
    stub = token_service_pb2_grpc.TokenServiceStub(split_server.channel)
    request = token_service_pb2.MintJobTokenRequest(
        job="jobs/01939f5e-0000-7000-8000-000000000001", attempt=1, lifetime=Duration(seconds=60)
    )
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert code_of(user, stub.MintJobToken, request, split_server.token) is denied
    gateway = asserted(split_server, "gateway", "authorization", admin)
    assert code_of(user, stub.MintJobToken, request, gateway) is denied


def test_a_payload_is_told_where_every_service_is(split_server: SplitServer, user: Any) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    task = user.submit(code)
    user.wait(task)
    request = job_service_pb2.ReadJobLogRequest(name=task.job.name)
    log = b"".join(p.chunk for p in split_server.call(user.jobs.ReadJobLog, request))
    told = json.loads(log)
    expected = split_server.client_environment
    addresses = set(told["GRIDLANE_ADDRESS"].split(","))
    assert addresses == set(expected["GRIDLANE_ADDRESS"].split(","))
    assert Path(told["GRIDLANE_CA"]).read_text() == Path(expected["GRIDLANE_CA"]).read_text()
    secrets = ("GRIDLANE_PEERS", "GRIDLANE_CONFIG", "DATABASE_URL")
    assert not [name for name in told if any(secret in name for secret in secrets)]
