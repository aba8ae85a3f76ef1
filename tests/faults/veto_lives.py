"""Lives of work whose owner is vetoed for a while: it is held, and goes on to its end by itself.

Responsible for what an administrator and the owner do; lives of the policy itself are
`policy_lives`'.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import grpc
from faults.lives import PATIENCE_S, Life, until
from google.protobuf.duration_pb2 import Duration
from support import Deployment

from gridlane.authorization.v1 import policy_pb2, role_service_pb2, role_service_pb2_grpc
from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    transfer_job_pb2,
    transfer_service_pb2,
    transfer_service_pb2_grpc,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

# More than a mover has places for, which hangs until the veto has come: some wait then.
_COPIES, _SIZE = 4, 1 << 20


class _VetoedWork(Life):
    """Work that is submitted, held by a veto of its owner, and let go.

    Every call is sent again after a start, with the same request id or for the same name.
    """

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.subject = f"owner-{uuid7()}"
        self._ids = {step: uuid7() for step in ("role", "veto", "work")}
        self._names: dict[str, str] = {}
        self._veto_ended = False

    def go_on(self) -> None:
        self._bind("role", policy_pb2.ROLE_SUBMITTER, vo="local")
        self.submit()
        if not self._veto_ended:
            hold = policy_pb2.WORK_ACTION_HOLD
            self._bind("veto", policy_pb2.ROLE_VETOED_USER, running_work=hold)
            until(self.is_held, "the work to be held")
            self.resume_movers()
            self._end_veto()
        until(self.has_ended, "the end of the work")

    @abstractmethod
    def submit(self) -> None:
        """Submits the work, and waits until it stands where the veto is to find it."""

    @abstractmethod
    def is_held(self) -> bool:
        """Whether it is held."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether it has ended well."""

    def _bind(self, step: str, role: policy_pb2.Role.ValueType, **more: Any) -> None:
        binding = policy_pb2.RoleBinding(
            issuer=AuthorizationSettings().issuer, subject=self.subject, role=role, **more
        )
        request = role_service_pb2.CreateRoleBindingRequest(
            role_binding=binding, request_id=self._ids[step]
        )
        made = self.server.call(self._roles.CreateRoleBinding, request)
        self._names[step] = made.name

    def _end_veto(self) -> None:
        request = role_service_pb2.DeleteRoleBindingRequest(name=self._names["veto"])
        self.server.call(self._roles.DeleteRoleBinding, request)
        self._veto_ended = True

    def _submit(self, method: Any, request: Any) -> None:
        """Submits as the owner, unless that was answered before."""
        settings = AuthorizationSettings()
        signer = read_signer(self.server.token_key, settings.issuer, settings.audience)
        token = signer.sign_user(self.subject, vos=["local"], lifetime_s=600)

        def submitted() -> str:
            try:
                return str(self.server.call(method, request, token=token).name)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                    return ""  # its role is not known everywhere yet
                raise

        if "work" not in self._names:
            self._names["work"] = until(submitted, "the right to submit")

    def _lfn(self, name: str) -> str:
        return f"{self.place}/{name}"

    def _stored(self, name: str) -> Path:
        return self.server.data_dir / "storage" / self._lfn(name).removeprefix("LFN:/")

    @property
    def _roles(self) -> role_service_pb2_grpc.RoleServiceStub:
        return role_service_pb2_grpc.RoleServiceStub(self.server.channel)


class VetoedTransfer(_VetoedWork):
    """A transfer job of which some files wait when the veto comes."""

    environment: ClassVar[dict[str, str]] = {
        "GRIDLANE_TRANSFER_MAX_FILES": "1",
        "GRIDLANE_TRANSFER_WORKERS": "1",
    }

    def submit(self) -> None:
        if "veto" not in self._names:
            self.suspend_movers()
        big = self._stored("big")
        big.parent.mkdir(parents=True, exist_ok=True)
        with big.open("ab") as file:
            file.truncate(_SIZE)
        files = [
            transfer_job_pb2.FileTransfer(
                source=big.as_uri(), target=self._stored(f"copy-{n}").as_uri()
            )
            for n in range(_COPIES)
        ]
        request = transfer_service_pb2.SubmitTransferJobRequest(
            transfer_job=transfer_job_pb2.TransferJob(files=files), request_id=self._ids["work"]
        )
        self._submit(self._transfers.SubmitTransferJob, request)

    def is_held(self) -> bool:
        held = transfer_job_pb2.FILE_TRANSFER_STATE_HELD
        return any(file.state == held for file in self._job().files)

    def has_ended(self) -> bool:
        return self._job().state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED

    def check(self) -> None:
        assert not any(file.HasField("failure") for file in self._job().files)
        copies = [self._stored(f"copy-{n}") for n in range(_COPIES)]
        assert [copy.stat().st_size for copy in copies] == [_SIZE] * _COPIES
        # They are in no catalogue, in which the next life looks for what the store has.
        for file in (self._stored("big"), *copies):
            file.unlink()
        self._stored("big").parent.rmdir()

    def _job(self) -> transfer_job_pb2.TransferJob:
        request = transfer_service_pb2.GetTransferJobRequest(name=self._names["work"])
        found: transfer_job_pb2.TransferJob = self.server.call(
            self._transfers.GetTransferJob, request
        )
        return found

    @property
    def _transfers(self) -> transfer_service_pb2_grpc.TransferServiceStub:
        return transfer_service_pb2_grpc.TransferServiceStub(self.server.channel)


class VetoedJob(_VetoedWork):
    """A job whose payload runs when the veto comes, and whose output waits."""

    def submit(self) -> None:
        program = f"while [ ! -e {self._go} ]; do sleep 0.05; done; echo out > out"
        description = job_pb2.JobDescription(
            executors=[job_pb2.Executor(command=["sh", "-c", program])],
            outputs=[job_pb2.JobOutput(path="out", target=self._lfn("out"))],
            resources=job_pb2.Resources(walltime=Duration(seconds=PATIENCE_S * 2)),
        )
        request = job_service_pb2.SubmitJobRequest(
            job=job_pb2.Job(description=description), request_id=self._ids["work"]
        )
        self._submit(self._jobs.SubmitJob, request)
        until(lambda: self._job().state >= job_pb2.JOB_STATE_RUNNING, "the payload")

    def is_held(self) -> bool:
        self._go.touch()
        return self._job().HasField("hold")

    def has_ended(self) -> bool:
        return self._job().state == job_pb2.JOB_STATE_DONE

    def check(self) -> None:
        assert (self._job().attempt, self._job().HasField("hold")) == (1, False)
        assert self._stored("out").read_text() == "out\n"

    @property
    def _go(self) -> Path:
        return self.folder / "go"

    def _job(self) -> job_pb2.Job:
        request = job_service_pb2.GetJobRequest(name=self._names["work"])
        found: job_pb2.Job = self.server.call(self._jobs.GetJob, request)
        return found

    @property
    def _jobs(self) -> job_service_pb2_grpc.JobServiceStub:
        return job_service_pb2_grpc.JobServiceStub(self.server.channel)
