"""Lives of transfers that ask for more: a stop on the way, an end at a time.

Responsible for what a client does with them; plain transfers are `file_lives`'.
"""

import time
from pathlib import Path

from faults import checks
from faults.lives import CANCELED, PATIENCE_S, Life, mover_processes, until
from support import Deployment

import gridlane
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob, TransferJobState
from gridlane.type.v1 import failure_pb2

_CANCELING = TransferJobState.TRANSFER_JOB_STATE_CANCELING


class HoppedTransfer(Life):
    """A file that stops on the way; its copy there is gone in the end."""

    content = b"hop\n" * 5000

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.request_id = gridlane.uuid7()
        self.name = ""

    def go_on(self) -> None:
        with self.client() as client:
            client.storage.put(self.content, f"{self.place}/x")
            job = TransferJob(placement=True)
            job.files.add(
                source=f"{self.place}/x",
                target=f"{self.place}/copy/x",
                via=["storageElements/local"],
            )
            self.name = client.transfers.submit(job, request_id=self.request_id).name
            client.transfers.wait(self.name, timeout=PATIENCE_S)
            until(lambda: not self._copies(), "the removal of the copy on the way")

    def _copies(self) -> list[Path]:
        return list((self.server.data_dir / "storage").rglob(".gridlane-hop-*"))

    def check(self) -> None:
        with self.client() as client:
            transfer = client.transfers.get(self.name)
            checks.all_finished([transfer], [1])
            assert transfer.files[0].hop == 2
            there = {f"{self.place}/{path}": self.content for path in ("x", "copy/x")}
            self.check_stored(client, there)


class DatedTransfer(Life):
    """A transfer whose end comes while its file is on the way."""

    content = b"late\n" * 5000

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.request_id = gridlane.uuid7()
        self.name = ""
        self._job = TransferJob()

    def go_on(self) -> None:
        with self.client() as client:
            client.storage.put(self.content, f"{self.place}/x")
            if not self.name:
                self._submit(client)
            until(
                lambda: client.transfers.get(self.name).state in (_CANCELING, CANCELED), "its end"
            )
            self.resume_movers()
            until(lambda: client.transfers.get(self.name).state == CANCELED, "the end of its file")

    def _submit(self, client: gridlane.Client) -> None:
        for mover in mover_processes(self.server):
            mover.suspend()
        self._job.files.add(source=f"{self.place}/x", target=f"{self.place}/copy/x")
        self._job.expire_time.FromMicroseconds(int((time.time() + 3) * 1_000_000))
        self.name = client.transfers.submit(self._job, request_id=self.request_id).name

    def check(self) -> None:
        with self.client() as client:
            transfer = client.transfers.get(self.name)
            assert transfer.state == CANCELED
            (file,) = transfer.files
            assert file.failure.failure_class == failure_pb2.FAILURE_CLASS_TIMED_OUT
            checks.transfer_history(list(client.transfers.events(self.name)), transfer)
            self.check_stored(client, {f"{self.place}/x": self.content})
