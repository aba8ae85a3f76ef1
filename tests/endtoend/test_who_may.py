"""Who may do what, over the wire: services' verbs, strangers, members of the VO, vetoed users."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gridlane.authorization.v1 import (
    authorization_service_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)
from gridlane.gateway.v1 import task_service_pb2
from gridlane.reporting.v1 import (
    accounting_service_pb2,
    accounting_service_pb2_grpc,
    span_service_pb2,
    span_service_pb2_grpc,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

DENIED, NOT_FOUND = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
TokenOf = Callable[..., str]


@pytest.fixture
def token_of(user: Any) -> TokenOf:
    """Signs a user's token with the server's own key."""

    def sign(subject: str, *vos: str) -> str:
        return sign_for(user.server, subject, *vos)

    return sign


def sign_for(server: Any, subject: str, *vos: str) -> str:
    settings = AuthorizationSettings()
    signer = read_signer(server.token_key, settings.issuer, settings.audience)
    return signer.sign_user(subject, vos=vos, lifetime_s=600)


@pytest.fixture
def task(user: Any) -> Any:
    """A finished task of the local user's."""
    finished = user.submit("print('secret')")
    user.wait(finished)
    user.eventually(lambda: user.records(finished.job.name))
    return finished


def code_of(user: Any, method: Any, request: Any, token: str) -> grpc.StatusCode:
    """How a call ends; a stream is read to its first message."""
    try:
        answer = user.server.call(method, request, token=token)
        if isinstance(answer, Iterator):
            next(answer)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def verbs(user: Any, task: Any) -> dict[str, tuple[Any, Any]]:
    name = task.job.name
    spans = span_service_pb2_grpc.SpanServiceStub(user.server.channel)
    return {
        "describe": (user.tasks.DescribeTask, task_service_pb2.DescribeTaskRequest(name=name)),
        "watch": (user.tasks.WatchTask, task_service_pb2.WatchTaskRequest(name=name)),
        "cancel": (user.tasks.CancelTask, task_service_pb2.CancelTaskRequest(name=name)),
        "spans": (spans.ListJobSpans, span_service_pb2.ListJobSpansRequest(job=name)),
        "log": (user.jobs.ReadJobLog, job_service_pb2.ReadJobLogRequest(name=name)),
    }


def test_services_verbs_are_closed_to_users_even_to_an_admin(user: Any) -> None:
    token = user.server.token
    policy = authorization_service_pb2.GetPolicyRequest()
    assert code_of(user, user.authorization.GetPolicy, policy, token) is DENIED
    mint = token_service_pb2.MintJobTokenRequest(
        job="jobs/01939f5e-0000-7000-8000-000000000001", attempt=1, lifetime=Duration(seconds=60)
    )
    stub = token_service_pb2_grpc.TokenServiceStub(user.server.channel)
    assert code_of(user, stub.MintJobToken, mint, token) is DENIED


@pytest.mark.parametrize("token", ["", "x", "a.b.c"])
def test_without_a_good_token_nothing_is_answered(user: Any, token: str) -> None:
    request = authorization_service_pb2.WhoAmIRequest()
    code = code_of(user, user.authorization.WhoAmI, request, token)
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_a_stranger_does_not_learn_that_a_job_exists(
    user: Any, task: Any, token_of: TokenOf
) -> None:
    eve = token_of("eve", "elsewhere")
    found = {
        verb: code_of(user, method, request, eve)
        for verb, (method, request) in verbs(user, task).items()
    }
    assert found == dict.fromkeys(found, NOT_FOUND)
    stub = accounting_service_pb2_grpc.AccountingServiceStub(user.server.channel)
    request = accounting_service_pb2.ListAccountingRecordsRequest()
    assert not user.server.call(stub.ListAccountingRecords, request, token=eve).records


def test_a_member_of_the_vo_reads_the_story_and_touches_nothing(
    user: Any, task: Any, token_of: TokenOf
) -> None:
    bob = token_of("bob", "local")
    found = {
        verb: code_of(user, method, request, bob)
        for verb, (method, request) in verbs(user, task).items()
    }
    assert found == {
        "describe": grpc.StatusCode.OK,
        "watch": grpc.StatusCode.OK,
        "spans": grpc.StatusCode.OK,
        "cancel": DENIED,
        "log": DENIED,
    }


def test_who_is_no_submitter_submits_nothing(user: Any, token_of: TokenOf) -> None:
    description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["true"])])
    request = task_service_pb2.SubmitTaskRequest(job=job_pb2.Job(description=description))
    assert code_of(user, user.tasks.SubmitTask, request, token_of("bob", "local")) is DENIED


@pytest.mark.one_process(reason="it vetoes the first user for good, in the database's file")
def test_a_veto_overrides_every_role_and_leaves_listings_empty(
    shape: str, start_server: Any, user_of: Any
) -> None:
    server = start_server()
    user = user_of(server)
    user.wait(user.submit("pass"))
    server.stop()
    with sqlite3.connect(server.data_dir / "db/authorization.sqlite") as db:
        db.execute(
            "INSERT INTO role_binding (issuer, subject, role, vo, channel_uid, create_time_us)"
            " SELECT issuer, subject, 'vetoed', '', '', 0 FROM local_user"
        )
    db.close()
    server.start()
    token = server.token
    who = authorization_service_pb2.WhoAmIRequest()
    assert code_of(user, user.authorization.WhoAmI, who, token) is DENIED
    ping = task_service_pb2.PingRequest()
    assert code_of(user, user.tasks.Ping, ping, token) is DENIED
    assert not server.call(user.jobs.ListJobs, job_service_pb2.ListJobsRequest()).jobs
