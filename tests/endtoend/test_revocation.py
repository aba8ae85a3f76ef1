"""How soon a veto is in force in every service: five processes on PostgreSQL, under load.

Measured from the moment at which the veto is asked for, and from its answer, to the first call that
a service refuses; probes are sent one after the other. `REVOCATIONS` in the environment says how
many vetoes; the figures are told when the run is over.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from gridlane.authorization.v1 import policy_pb2, role_service_pb2, role_service_pb2_grpc
from gridlane.gateway.v1 import task_service_pb2
from gridlane.ids import uuid7
from gridlane.reporting.v1 import span_service_pb2, span_service_pb2_grpc
from gridlane.transfer.v1 import transfer_service_pb2, transfer_service_pb2_grpc
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

ROUNDS = int(os.environ.get("REVOCATIONS", "15"))
LOADS = 4
IN_FORCE_S = 1.0
GIVE_UP_S = 10.0
DENIED = grpc.StatusCode.PERMISSION_DENIED
Probe = Callable[[], bool]


class Victim:
    """A user of the VO `local` who is vetoed again and again."""

    def __init__(self, server: Any, user: Any) -> None:
        self.server = server
        settings = AuthorizationSettings()
        signer = read_signer(server.token_key, settings.issuer, settings.audience)
        self._binding = policy_pb2.RoleBinding(
            issuer=settings.issuer,
            subject=f"victim-{uuid7()}",
            role=policy_pb2.ROLE_VETOED_USER,
        )
        subject = self._binding.subject
        self._token = signer.sign_user(subject, vos=["local"], lifetime_s=3600)
        self._roles = role_service_pb2_grpc.RoleServiceStub(server.channel)
        absent = uuid7()
        transfers = transfer_service_pb2_grpc.TransferServiceStub(server.channel)
        spans = span_service_pb2_grpc.SpanServiceStub(server.channel)
        # None of them is there: the answer is NOT_FOUND for whoever may ask.
        self.probes: Mapping[str, Probe] = {
            "gateway": self._probe(user.tasks.Ping, task_service_pb2.PingRequest()),
            "reporting": self._probe(
                spans.ListJobSpans, span_service_pb2.ListJobSpansRequest(job=f"jobs/{absent}")
            ),
            "transfer": self._probe(
                transfers.GetTransferJob,
                transfer_service_pb2.GetTransferJobRequest(name=f"transfers/{absent}"),
            ),
            "workload": self._probe(
                user.jobs.GetJob, job_service_pb2.GetJobRequest(name=f"jobs/{absent}")
            ),
        }

    def veto(self) -> policy_pb2.RoleBinding:
        request = role_service_pb2.CreateRoleBindingRequest(
            role_binding=self._binding, request_id=uuid7(), reason="a measurement"
        )
        made: policy_pb2.RoleBinding = self.server.call(self._roles.CreateRoleBinding, request)
        return made

    def end(self, veto: policy_pb2.RoleBinding) -> None:
        request = role_service_pb2.DeleteRoleBindingRequest(name=veto.name)
        self.server.call(self._roles.DeleteRoleBinding, request)

    def _probe(self, method: Any, request: Any) -> Probe:
        def allowed() -> bool:
            try:
                self.server.call(method, request, token=self._token)
            except grpc.RpcError as error:
                return error.code() is not DENIED
            return True

        return allowed


def until(probe: Probe, *, allowed: bool) -> float:
    """When a service answered so for the first time."""
    deadline = time.monotonic() + GIVE_UP_S
    while probe() is not allowed:
        assert time.monotonic() < deadline, "the policy does not come"
    return time.monotonic()


@contextmanager
def load(server: Any, user: Any) -> Iterator[list[int]]:
    """Jobs of the first user, submitted, killed and listed without a pause, so that none are left;
    how many calls each of the callers has made.
    """
    calls = [0] * LOADS
    over = threading.Event()
    description = job_pb2.JobDescription(executors=[job_pb2.Executor(command=["true"])])
    submit = job_service_pb2.SubmitJobRequest(job=job_pb2.Job(description=description))
    transfers = transfer_service_pb2_grpc.TransferServiceStub(server.channel)
    list_jobs = job_service_pb2.ListJobsRequest(page_size=20)
    list_transfers = transfer_service_pb2.ListTransferJobsRequest()

    def run(number: int) -> None:
        while not over.is_set():
            job = server.call(user.jobs.SubmitJob, submit)
            server.call(user.jobs.KillJob, job_service_pb2.KillJobRequest(name=job.name))
            server.call(user.jobs.ListJobs, list_jobs)
            server.call(transfers.ListTransferJobs, list_transfers)
            calls[number] += 4

    threads = [threading.Thread(target=run, args=[number]) for number in range(LOADS)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        over.set()
        for thread in threads:
            thread.join()


def figures(what: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    parts = (statistics.median(ordered), p99, ordered[-1])
    median, most_of_all, most = (f"{part * 1000:.0f} ms" for part in parts)
    return f"{what}: n {len(ordered)}, median {median}, p99 {most_of_all}, max {most}"


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_veto_is_in_force_everywhere_within_a_second_under_load(
    split_server: Any, user_of: Any, tell: Any
) -> None:
    user = user_of(split_server)
    victim = Victim(split_server, user)
    asked: dict[str, list[float]] = {service: [] for service in (*victim.probes, "all of them")}
    answered: list[float] = []
    with (
        load(split_server, user) as calls,
        ThreadPoolExecutor(len(victim.probes)) as pool,
    ):
        for probe in victim.probes.values():
            until(probe, allowed=True)
        begun, before = time.monotonic(), sum(calls)
        for _ in range(ROUNDS):
            denied = {
                service: pool.submit(until, probe, allowed=False)
                for service, probe in victim.probes.items()
            }
            sent = time.monotonic()
            veto = victim.veto()
            answer = time.monotonic()
            for service, seen in denied.items():
                asked[service].append(seen.result() - sent)
            last = max(seen.result() for seen in denied.values())
            asked["all of them"].append(last - sent)
            answered.append(max(0.0, last - answer))
            victim.end(veto)
            list(pool.map(lambda probe: until(probe, allowed=True), victim.probes.values()))
        rate = (sum(calls) - before) / (time.monotonic() - begun)
    lines = [figures(f"from the call, {service}", found) for service, found in asked.items()]
    lines.append(figures("from the answer, all of them", answered))
    lines.append(f"load: {LOADS} callers, {rate:.0f} calls a second, half of them writes")
    assert min(calls) > 0
    tell("revocation, five processes on PostgreSQL", lines)
    assert max(answered) < IN_FORCE_S
