"""Issuers of tokens that an administrator adds while servers run: how soon every service believes
them, and what ends when they are switched off. In both shapes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
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
    code_of,
    codes_of,
    until,
    until_all,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hostile_tokens import Forge
from split import SplitServer
from support import Deployment, EmbeddedServer, bearer, eventually
from workers import Told

from gridlane.authorization.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    group_service_pb2,
    group_service_pb2_grpc,
    issuer_service_pb2,
    issuer_service_pb2_grpc,
    policy_pb2,
    role_service_pb2,
    role_service_pb2_grpc,
    vo_service_pb2,
    vo_service_pb2_grpc,
)
from gridlane.authorization.v1.group_pb2 import Group
from gridlane.authorization.v1.issuer_pb2 import Issuer
from gridlane.authorization.v1.vo_pb2 import Vo
from gridlane.gateway.v1 import task_service_pb2, task_service_pb2_grpc
from gridlane.ids import uuid7
from gridlane.workload.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_kit.wire import read_error

ROUNDS: Final = 3
EVENTUALLY_S: Final = 60.0


class Added:
    """An issuer of a VO of its own, which a test may switch on and off; gone at the end.

    Its keys stand in the policy: no server fetches anything.
    """

    def __init__(self, server: Deployment) -> None:
        self.server = server
        self.id = f"issuer-{uuid7()}"
        self.vo = f"vo-{uuid7()}"
        self.forge = Forge(f"https://{self.id}.test/", AuthorizationSettings().audience, {})
        vos = vo_service_pb2_grpc.VoServiceStub(server.channel)
        server.call(vos.CreateVo, vo_service_pb2.CreateVoRequest(vo_id=self.vo, vo=Vo()))

    @property
    def name(self) -> str:
        return f"issuers/{self.id}"

    @property
    def request(self) -> issuer_service_pb2.CreateIssuerRequest:
        keys = {"keys": [self.forge.key.as_dict(private=False)]}
        issuer = Issuer(url=self.forge.issuer, vo=self.vo, jwks=json.dumps(keys), enabled=True)
        return issuer_service_pb2.CreateIssuerRequest(issuer_id=self.id, issuer=issuer)

    @property
    def stub(self) -> Any:
        return issuer_service_pb2_grpc.IssuerServiceStub(self.server.channel)

    def create(self, **terms: Any) -> None:
        request = self.request
        request.issuer.MergeFrom(Issuer(**terms))
        self.server.call(self.stub.CreateIssuer, request)

    def switch(self, *, enabled: bool) -> None:
        request = issuer_service_pb2.UpdateIssuerRequest(
            issuer=Issuer(name=self.name, enabled=enabled), update_mask=FieldMask(paths=["enabled"])
        )
        self.server.call(self.stub.UpdateIssuer, request)

    def delete(self) -> None:
        request = issuer_service_pb2.DeleteIssuerRequest(name=self.name)
        self.server.call(self.stub.DeleteIssuer, request)

    def token(self) -> str:
        return self.forge.token(jti=uuid7())

    def is_in(self, file: Path) -> bool:
        """Whether a kept policy has it."""
        return self.forge.issuer.encode() in file.read_bytes()

    def may_submit(self) -> None:
        """Gives its user "ada" the role of a submitter."""
        self._let_submit(issuer=self.forge.issuer, subject="ada")

    def team_may_submit(self) -> str:
        """Gives a group of the VO the role of a submitter; returns its path."""
        groups = group_service_pb2_grpc.GroupServiceStub(self.server.channel)
        request = group_service_pb2.CreateGroupRequest(
            parent=f"vos/{self.vo}", group_id="team", group=Group(path=f"/{self.vo}/team")
        )
        team: Group = self.server.call(groups.CreateGroup, request)
        self._let_submit(group=team.path)
        return team.path

    def _let_submit(self, **who: Any) -> None:
        roles = role_service_pb2_grpc.RoleServiceStub(self.server.channel)
        binding = policy_pb2.RoleBinding(role=policy_pb2.ROLE_SUBMITTER, vo=self.vo, **who)
        request = role_service_pb2.CreateRoleBindingRequest(role_binding=binding)
        self.server.call(roles.CreateRoleBinding, request)


@pytest.fixture
def added(server: Deployment) -> Iterator[Added]:
    issuer = Added(server)
    issuer.create()
    yield issuer
    issuer.delete()


@pytest.mark.timeout(180)
def test_every_service_believes_an_issuer_and_believes_it_no_more_within_a_second(
    server: Deployment, tell: Told
) -> None:
    issuer = Added(server)
    token = issuer.token()
    longest = {code: Longest() for code in (OK, REFUSED)}
    assert codes_of(server, token) == [REFUSED] * len(METHODS)
    with ThreadPoolExecutor(len(METHODS)) as pool:
        for _ in range(ROUNDS):
            for change, code in (
                (issuer.create, OK),
                (partial(issuer.switch, enabled=False), REFUSED),
                (partial(issuer.switch, enabled=True), OK),
                (issuer.delete, REFUSED),
            ):
                change()
                longest[code].add(until_all(pool, server, token, code))
    for code, found in longest.items():
        tell(f"issuer, {server.shape}: until its tokens are {code.name}", found.lines)
        assert found.of_all_s < IN_FORCE_S


@pytest.mark.timeout(120)
def test_what_its_users_watch_ends_when_an_issuer_is_switched_off(
    added: Added, server: Deployment, tell: Told
) -> None:
    added.may_submit()
    token = added.token()
    tasks = task_service_pb2_grpc.TaskServiceStub(server.channel)
    jobs = job_service_pb2_grpc.JobServiceStub(server.channel)
    executor = job_pb2.Executor(command=["sleep", "60"])
    job = job_pb2.Job(vo=added.vo, description=job_pb2.JobDescription(executors=[executor]))
    for path in METHODS.values():
        until(server, path, token, OK)
    submit = task_service_pb2.SubmitTaskRequest(job=job)
    task = may_come(lambda: server.call(tasks.SubmitTask, submit, token=token))
    ends: dict[str, Watched] = {
        "gateway": Watched(
            tasks.WatchTask(
                task_service_pb2.WatchTaskRequest(name=task.name), metadata=bearer(token)
            )
        ),
        "workload": Watched(
            jobs.WatchJobs(
                job_service_pb2.WatchJobsRequest(names=[task.job.name]), metadata=bearer(token)
            )
        ),
        "an administrator": Watched(
            tasks.WatchTask(
                task_service_pb2.WatchTaskRequest(name=task.name), metadata=server.metadata
            )
        ),
    }
    for watched in ends.values():
        assert watched.begun.wait(PATIENCE_S)
        assert watched.goes_on
    added.switch(enabled=False)
    off = time.monotonic()
    for service in ("gateway", "workload"):
        ended, error = ends[service].end()
        assert error is not None, "it ended well"
        assert error.code() is REFUSED
        trailing: Any = error.trailing_metadata()
        told = read_error(error.code(), trailing)
        assert told is not None
        assert told.reason == "TOKEN_INVALID"
        tell(
            f"issuer, {server.shape}: until a watch of its user is cut",
            [f"{service}: {(ended - off) * 1000:.0f} ms"],
        )
        assert ended - off < IN_FORCE_S
    assert ends["an administrator"].goes_on
    added.switch(enabled=True)
    again = may_come(
        lambda: server.call(
            tasks.DescribeTask, task_service_pb2.DescribeTaskRequest(name=task.name), token=token
        )
    )
    assert again.job.state not in (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_KILLED)
    server.call(tasks.CancelTask, task_service_pb2.CancelTaskRequest(name=task.name))
    assert ends["an administrator"].end()[1] is None


@pytest.mark.timeout(120)
def test_work_waits_when_the_groups_of_its_token_are_too_old(server: Deployment) -> None:
    added = Added(server)
    added.create(max_group_age=Duration(seconds=1))
    team = added.team_may_submit()
    token = added.forge.token(jti=uuid7(), **{"wlcg.groups": [team]})
    jobs = job_service_pb2_grpc.JobServiceStub(server.channel)
    description = job_pb2.JobDescription(
        executors=[job_pb2.Executor(command=["sh", "-c", "sleep 3; echo done > result"])],
        outputs=[job_pb2.JobOutput(path="result", target=f"LFN:/{added.vo}/{uuid7()}")],
    )
    job = job_pb2.Job(vo=added.vo, description=description)
    name = may_come(
        lambda: server.call(jobs.SubmitJob, job_service_pb2.SubmitJobRequest(job=job), token=token)
    ).name

    def found() -> job_pb2.Job:
        got: job_pb2.Job = server.call(jobs.GetJob, job_service_pb2.GetJobRequest(name=name))
        return got

    held = eventually(lambda: found().hold.reason, EVENTUALLY_S)
    assert "asserted too long ago" in held
    # The token itself is good, and asks with its groups.
    seen = server.call(jobs.GetJob, job_service_pb2.GetJobRequest(name=name), token=token)
    assert seen.state != job_pb2.JOB_STATE_DONE
    added.may_submit()
    eventually(lambda: not found().HasField("hold"), EVENTUALLY_S)
    added.delete()


@pytest.mark.one_process(reason="the same commit and the same repetition in the other shape")
def test_an_answer_that_was_lost_with_the_server_is_had_by_asking_again(
    start_server: Callable[..., EmbeddedServer],
) -> None:
    server = start_server({"GRIDLANE_FAILPOINTS": "authorization.change.committed=kill@2"})
    issuer = Added(server)
    request, token = issuer.request, issuer.token()
    request.request_id = uuid7()
    with pytest.raises(grpc.RpcError):
        server.call(issuer.stub.CreateIssuer, request)
    assert server.wait_dead() == -9
    server.environment.pop("GRIDLANE_FAILPOINTS")
    server.start()
    # It was committed, so it is believed from the start on.
    assert code_of(server, METHODS["workload"], token) is OK
    made = server.call(issuer.stub.CreateIssuer, request)
    assert (made.name, server.call(issuer.stub.CreateIssuer, request)) == (issuer.name, made)
    audit = audit_service_pb2_grpc.AuditServiceStub(server.channel)
    asked = audit_service_pb2.ListAuditEntriesRequest(filter=f'resource = "{issuer.name}"')
    assert len(server.call(audit.ListAuditEntries, asked).audit_entries) == 1


@pytest.mark.timeout(180)
def test_a_service_that_starts_without_authorization_believes_what_was_believed(
    split_server: SplitServer,
) -> None:
    issuer = Added(split_server)
    issuer.create()
    token = issuer.token()
    try:
        for path in METHODS.values():
            until(split_server, path, token, OK)
        kept = {
            service: next(split_server.root.rglob(f"{service}.policy"))
            for service in ("reporting", "workload")
        }
        for file in kept.values():
            eventually(partial(issuer.is_in, file), EVENTUALLY_S)
        split_server.part("authorization").kill()
        for service in kept:
            part = split_server.part(service)
            part.kill()
            part.start()
            assert code_of(split_server, METHODS[service], token) is OK
    finally:
        split_server.start()
    until(split_server, METHODS["authorization"], token, OK)
    issuer.delete()
    for service in ("reporting", "workload"):
        until(split_server, METHODS[service], token, REFUSED)


class Watched:
    """A stream that is read in a thread of its own, to its end."""

    def __init__(self, stream: Any) -> None:
        self.begun = threading.Event()
        self._stream = stream
        self._error: grpc.RpcError | None = None
        self._ended_s = 0.0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def end(self) -> tuple[float, grpc.RpcError | None]:
        """When it ended, and why; nothing when it ended well."""
        self._thread.join(PATIENCE_S)
        assert not self.goes_on
        return self._ended_s, self._error

    def _read(self) -> None:
        try:
            for _ in self._stream:
                self.begun.set()
        except grpc.RpcError as error:
            self._error = error
        self._ended_s = time.monotonic()


def may_come(call: Callable[[], Any]) -> Any:
    """Calls until the caller's rights are in force there."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            waits = error.code() in (REFUSED, grpc.StatusCode.PERMISSION_DENIED)
            if not waits or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
