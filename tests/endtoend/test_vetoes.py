"""A veto in a running Gridlane: work that was accepted waits and goes on, and watches are cut."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from gridlane.authorization.v1 import policy_pb2, role_service_pb2, role_service_pb2_grpc
from gridlane.gateway.v1 import task_service_pb2
from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

DENIED = grpc.StatusCode.PERMISSION_DENIED
BIG = 60 << 20
_COPIES = 14
IN_FORCE_S = 1.0


class Somebody:
    """A submitter of the VO `local`, whom the first user can veto.

    Parameters:
        user: the first user, an administrator.
    """

    def __init__(self, user: Any) -> None:
        self.server = user.server
        self.user = user
        self.subject = f"somebody-{uuid7()}"
        settings = AuthorizationSettings()
        signer = read_signer(self.server.token_key, settings.issuer, settings.audience)
        self.issuer = settings.issuer
        self.token = signer.sign_user(self.subject, vos=["local"], lifetime_s=3600)
        self.transfers = transfer_service_pb2_grpc.TransferServiceStub(self.server.channel)
        self._roles = role_service_pb2_grpc.RoleServiceStub(self.server.channel)
        self.bind(policy_pb2.ROLE_SUBMITTER, vo="local")

    def call(self, method: Any, request: Any) -> Any:
        return self.server.call(method, request, token=self.token)

    def bind(self, role: policy_pb2.Role.ValueType, **more: Any) -> policy_pb2.RoleBinding:
        binding = policy_pb2.RoleBinding(
            issuer=self.issuer, subject=self.subject, role=role, **more
        )
        request = role_service_pb2.CreateRoleBindingRequest(
            role_binding=binding, request_id=uuid7(), reason="a test"
        )
        answer: policy_pb2.RoleBinding = self.server.call(self._roles.CreateRoleBinding, request)
        return answer

    def veto(self, **work: Any) -> policy_pb2.RoleBinding:
        return self.bind(policy_pb2.ROLE_VETOED_USER, **work)

    def unbind(self, binding: policy_pb2.RoleBinding) -> None:
        request = role_service_pb2.DeleteRoleBindingRequest(name=binding.name, reason="a test")
        self.server.call(self._roles.DeleteRoleBinding, request)

    def submit_copies(self, file: str) -> transfer_job_pb2.TransferJob:
        """Submits more copies of a file than are made at once."""
        job = transfer_job_pb2.TransferJob(
            files=[
                transfer_job_pb2.FileTransfer(source=file, target=f"LFN:/local/{uuid7()}")
                for _ in range(_COPIES)
            ]
        )
        request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
        answer: transfer_job_pb2.TransferJob = self.call(self.transfers.SubmitTransferJob, request)
        return answer

    def allowed(self, method: Any, request: Any) -> bool:
        """Whether a call is let through; other ends of it are none of this test's business."""
        try:
            self.call(method, request)
        except grpc.RpcError as error:
            return error.code() is not DENIED
        return True

    def until_bound(self) -> None:
        """Waits until every service knows the submitter."""
        request = transfer_service_pb2.SubmitTransferJobRequest(
            transfer_job=transfer_job_pb2.TransferJob(
                files=[transfer_job_pb2.FileTransfer(source="LFN:/local/x", target="LFN:/local/y")]
            ),
            validate_only=True,
        )
        task = task_service_pb2.SubmitTaskRequest(job=job_of(), validate_only=True)
        self.user.eventually(lambda: self.allowed(self.transfers.SubmitTransferJob, request))
        self.user.eventually(lambda: self.allowed(self.user.tasks.SubmitTask, task))


def job_of(*inputs: str) -> job_pb2.Job:
    return job_pb2.Job(
        description=job_pb2.JobDescription(
            executors=[job_pb2.Executor(command=["true"])],
            inputs=[job_pb2.JobInput(path=f"in-{n}", source=s) for n, s in enumerate(inputs)],
        )
    )


@pytest.fixture
def somebody(user: Any) -> Somebody:
    found = Somebody(user)
    found.until_bound()
    return found


def big_file(server: Any) -> str:
    """A file whose copy takes a moment."""
    path = server.data_dir / "storage" / "local" / f"big-{uuid7()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(BIG)
    return str(path.as_uri())


def test_a_veto_stops_a_queued_transfer_and_a_staging_job_until_it_ends(
    somebody: Somebody, user: Any
) -> None:
    big = big_file(user.server)
    transfer = somebody.submit_copies(big)
    job = somebody.call(user.jobs.SubmitJob, job_service_pb2.SubmitJobRequest(job=job_of(big)))

    def moved() -> transfer_job_pb2.TransferJob:
        request = transfer_service_pb2.GetTransferJobRequest(name=transfer.name)
        found: transfer_job_pb2.TransferJob = user.server.call(
            somebody.transfers.GetTransferJob, request
        )
        return found

    def run() -> job_pb2.Job:
        found: job_pb2.Job = user.server.call(
            user.jobs.GetJob, job_service_pb2.GetJobRequest(name=job.name)
        )
        return found

    user.eventually(lambda: run().state == job_pb2.JOB_STATE_STAGING)
    veto = somebody.veto()
    user.eventually(lambda: moved().state == transfer_job_pb2.TRANSFER_JOB_STATE_HELD)
    user.eventually(lambda: run().HasField("hold"))
    held = [
        file.failure.message
        for file in moved().files
        if file.state == transfer_job_pb2.FILE_TRANSFER_STATE_HELD
    ]
    assert held
    assert all(f"{somebody.subject} is vetoed" in message for message in held)
    assert (run().state, run().hold.by) == (job_pb2.JOB_STATE_STAGING, "authorization")
    somebody.unbind(veto)
    user.eventually(lambda: moved().state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED)
    user.eventually(lambda: run().state == job_pb2.JOB_STATE_DONE)


def test_a_veto_cuts_the_watches_that_are_open(somebody: Somebody, user: Any) -> None:
    task = somebody.call(user.tasks.SubmitTask, task_service_pb2.SubmitTaskRequest(job=long_job()))
    name = task.job.name
    user.eventually(lambda: user.job(task).state == job_pb2.JOB_STATE_RUNNING)
    transfer = somebody.submit_copies(big_file(user.server))
    watches = {
        "gateway": (user.tasks.WatchTask, task_service_pb2.WatchTaskRequest(name=task.name)),
        "workload": (user.jobs.WatchJobs, job_service_pb2.WatchJobsRequest(names=[name])),
        "log": (user.jobs.ReadJobLog, job_service_pb2.ReadJobLogRequest(name=name, follow=True)),
        "transfer": (
            somebody.transfers.WatchTransferJobs,
            transfer_service_pb2.WatchTransferJobsRequest(names=[transfer.name]),
        ),
    }
    with ThreadPoolExecutor(len(watches)) as pool:
        ends = {
            service: pool.submit(end_of, somebody.call(method, request))
            for service, (method, request) in watches.items()
        }
        time.sleep(0.5)  # each has got what there is so far, and waits for more
        open_still = {service for service, end in ends.items() if not end.done()}
        somebody.veto()
        vetoed = time.monotonic()
        cut = {service: ends[service].result(20) for service in open_still}
    user.server.call(user.jobs.KillJob, job_service_pb2.KillJobRequest(name=name))
    assert open_still >= {"gateway", "workload"}
    assert {service: code for service, (code, _) in cut.items()} == dict.fromkeys(cut, DENIED)
    assert all(at - vetoed < IN_FORCE_S for _, at in cut.values())


def long_job() -> job_pb2.Job:
    job = job_of()
    job.description.executors[0].command[:] = ["sleep", "60"]
    return job


def end_of(stream: Any) -> tuple[grpc.StatusCode, float]:
    """How and when a stream ends."""
    code = grpc.StatusCode.OK
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        code = error.code()
    return code, time.monotonic()
