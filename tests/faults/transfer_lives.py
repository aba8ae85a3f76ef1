"""Lives of transfers that ask for more: a stop on the way, an end at a time, several sources, files
that are tried again as a new job.

Responsible for what a client does with them; plain transfers are `file_lives`'.
"""

import time
from pathlib import Path

from faults import checks
from faults.lives import CANCELED, FINISHED, PATIENCE_S, Life, until
from support import Deployment

import gridlane
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob, TransferJobState
from gridlane.type.v1 import failure_pb2

_CANCELING = TransferJobState.TRANSFER_JOB_STATE_CANCELING
_PARTIALLY = TransferJobState.TRANSFER_JOB_STATE_PARTIALLY_FINISHED


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
        self.suspend_movers()
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


class SeveralSources(Life):
    """A file of which the first of two sources is not there; it is not tried twice, and costs none
    of the retries, of which there are none.
    """

    content = b"kept\n" * 5000

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.request_id = gridlane.uuid7()
        self.name = ""

    def go_on(self) -> None:
        with self.client() as client:
            client.storage.put(self.content, f"{self.place}/kept")
            job = TransferJob(max_retries=0, placement=True)
            absent = self.server.data_dir / f"storage/{self.place}/absent".replace("LFN:/", "")
            job.files.add(
                source=absent.as_uri(),
                alternative_sources=[f"{self.place}/kept"],
                target=f"{self.place}/copy",
            )
            self.name = client.transfers.submit(job, request_id=self.request_id).name
            client.transfers.wait(self.name, timeout=PATIENCE_S)

    def check(self) -> None:
        with self.client() as client:
            transfer = client.transfers.get(self.name)
            checks.all_finished([transfer], [1])
            tried = [one.source_url for one in client.transfers.attempts(transfer.files[0].name)]
            assert tried[0].endswith("/absent")
            # The second one is begun again when its server dies; nobody goes back to the first.
            assert len(tried) > 1
            assert not [source for source in tried[1:] if source.endswith("/absent")]
            there = {f"{self.place}/{name}": self.content for name in ("kept", "copy")}
            self.check_stored(client, there)


class TriedAgain(Life):
    """A job of two files, one of which comes too late, and is tried again as a new job."""

    content = b"late\n" * 5000

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self._ids = {step: gridlane.uuid7() for step in ("first", "again")}
        self.names: dict[str, str] = {}

    def go_on(self) -> None:
        with self.client() as client:
            client.storage.put(self.content, f"{self.place}/kept")
            pairs = {f"{self.place}/{n}": f"{self.place}/copy/{n}" for n in ("kept", "late")}
            job = gridlane.new_transfer(pairs)
            self._named("first", client.transfers.submit(job, request_id=self._ids["first"]))
            ended = client.transfers.wait(self.names["first"], timeout=PATIENCE_S)
            assert ended.state == _PARTIALLY
            client.storage.put(self.content, f"{self.place}/late")
            again = client.transfers.retry(self.names["first"], request_id=self._ids["again"])
            self._named("again", again)
            assert client.transfers.wait(again.name, timeout=PATIENCE_S).state == FINISHED

    def _named(self, step: str, job: TransferJob) -> None:
        assert self.names.setdefault(step, job.name) == job.name, "the same id made another job"

    def check(self) -> None:
        with self.client() as client:
            assert set(self.of_this_life(client.transfers.list())) == set(self.names.values())
            again = client.transfers.get(self.names["again"])
            assert again.retry_of == self.names["first"]
            assert [file.source for file in again.files] == [f"{self.place}/late"]
            # What is final never changes: the file that failed has still failed.
            assert client.transfers.get(self.names["first"]).state == _PARTIALLY
            there = {f"{self.place}/{n}": self.content for n in ("kept", "late")}
            there |= {f"{self.place}/copy/{n}": self.content for n in ("kept", "late")}
            self.check_stored(client, there)
