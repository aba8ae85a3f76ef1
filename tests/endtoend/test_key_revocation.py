"""How soon what a revoked key signed is refused in every service: five processes on PostgreSQL, and
one process. Streams of those whom it proved end; those of others go on."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest
from endtoend.every_service import (
    IN_FORCE_S,
    METHODS,
    OK,
    PATIENCE_S,
    REFUSED,
    Longest,
    codes_of,
    until_all,
)
from split import SplitServer
from support import Deployment, EmbeddedServer, bearer, eventually
from workers import Told

from gridlane.authorization.v1 import signing_key_service_pb2, signing_key_service_pb2_grpc
from gridlane.ids import uuid7
from gridlane.workload.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

ROUNDS: Final = 3


def rotate(server: Deployment, **fields: Any) -> str:
    """Has a new key made, as the first user; returns its id."""
    stub = signing_key_service_pb2_grpc.SigningKeyServiceStub(server.channel)
    request = signing_key_service_pb2.RotateSigningKeyRequest(request_id=uuid7(), **fields)
    return str(server.call(stub.RotateSigningKey, request).name.partition("/")[2])


def signed_by(token: str) -> str:
    """The id of the key that a token says it was signed with."""
    return str(json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"])


def tokens(server: Deployment) -> tuple[str, str]:
    """A user's and a job's token that the present key signs."""
    settings = AuthorizationSettings()
    signer = read_signer(server.token_key, settings.issuer, settings.audience)
    job, issuer = f"jobs/{uuid7()}", settings.issuer
    return (
        signer.sign_user("eve", vos=["local"], lifetime_s=3600),
        signer.sign_job(issuer, "eve", job=job, attempt=1, vos=["local"], lifetime_s=3600),
    )


def measured(server: Deployment, pool: ThreadPoolExecutor) -> list[float]:
    """How long each service took a revoked key's tokens, seconds."""
    user, job = tokens(server)
    everybody = [OK] * len(METHODS)
    assert codes_of(server, user) == everybody
    # A job may do little, and is known all the same.
    assert REFUSED not in codes_of(server, job)
    new = rotate(server, revoke_present=True, reason="measured")
    of_user, of_job = [until_all(pool, server, token, REFUSED) for token in (user, job)]
    took_s = list(map(max, of_user, of_job))
    # The first user goes on, with a token that the new key signed.
    eventually(lambda: signed_by(server.token) == new)
    eventually(lambda: codes_of(server, server.token) == everybody)
    return took_s


@pytest.mark.timeout(180)
@pytest.mark.five_processes
def test_what_a_revoked_key_signed_is_refused_in_five_processes_within_a_second(
    split_server: SplitServer, tell: Told
) -> None:
    _within_a_second(split_server, tell, "five processes on PostgreSQL")


@pytest.mark.timeout(120)
def test_what_a_revoked_key_signed_is_refused_in_one_process_within_a_second(
    start_server: Callable[..., EmbeddedServer], tell: Told
) -> None:
    _within_a_second(start_server(), tell, "one process on SQLite")


def _within_a_second(server: Deployment, tell: Told, where: str) -> None:
    longest = Longest()
    with ThreadPoolExecutor(2 * len(METHODS)) as pool:
        for _ in range(ROUNDS):
            longest.add(measured(server, pool))
    tell(f"signing key revoked, {where}, until its tokens are refused", longest.lines)
    assert longest.of_all_s < IN_FORCE_S


class Watcher:
    """Somebody who watches a job that does not end, and how that ends."""

    def __init__(self, server: Deployment, job: str, token: str) -> None:
        stub = job_service_pb2_grpc.JobServiceStub(server.channel)
        self.stream: Any = stub.WatchJobs(
            job_service_pb2.WatchJobsRequest(names=[job]),
            metadata=bearer(token),
            timeout=PATIENCE_S * 2,
        )
        next(iter(self.stream))
        self.ended = threading.Event()
        self.code = ""
        threading.Thread(target=self._read, args=(iter(self.stream),), daemon=True).start()

    def _read(self, answers: Iterator[Any]) -> None:
        try:
            for _ in answers:
                pass
        except grpc.RpcError as error:
            self.code = str(error.code().name)
        self.ended.set()


@pytest.mark.timeout(120)
def test_streams_of_those_whom_a_revoked_key_proved_end_and_others_go_on(
    start_server: Callable[..., EmbeddedServer],
) -> None:
    server = start_server()
    of_the_first = server.token
    submit = job_service_pb2_grpc.JobServiceStub(server.channel).SubmitJob
    description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["sleep", "300"])])
    job = server.call(
        submit, job_service_pb2.SubmitJobRequest(job=job_pb2.Job(description=description))
    ).name
    second = rotate(server)
    eventually(lambda: signed_by(server.token) == second)
    stays, ends = (Watcher(server, job, token) for token in (of_the_first, server.token))
    rotate(server, revoke_present=True, reason="lost")
    assert ends.ended.wait(IN_FORCE_S)
    assert ends.code == "UNAUTHENTICATED"
    assert not stays.ended.wait(1.0)
    stays.stream.cancel()
