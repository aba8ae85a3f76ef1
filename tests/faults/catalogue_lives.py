"""A life of the replica catalogue: copies registered and taken out in numbers, and a placed file
whose registration has to wait.

Responsible for what a client does with the catalogue, and for an administrator who takes the place
of a file away while it is on its way, and gives it back.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from faults import checks
from faults.lives import ACTIVE, PATIENCE_S, Life, adler32, mover_processes, until
from support import Deployment

import gridlane
from gridlane.transfer.v1.replica_service_pb2 import RegisterReplicaRequest
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob, TransferJobState

_REGISTERING = TransferJobState.TRANSFER_JOB_STATE_REGISTERING
_RETRY_DELAY_MS = 200


class CatalogueLife(Life):
    """Each step is done again after a start, as far as it was not answered."""

    environment: ClassVar[dict[str, str]] = {
        "GRIDLANE_TRANSFER_WORKERS": "1",
        "GRIDLANE_TRANSFER_STORAGE_FILE_ROOTS": '["/"]',
    }

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.element = f"e{gridlane.uuid7()}"
        self.guid = gridlane.uuid7()
        self.transfer = ""
        self._ids = {step: gridlane.uuid7() for step in ("create", "submit")}
        self._content = {f"{self.place}/{name}": name.encode() * 100 for name in ("a", "b", "c")}
        self._step = 0
        self._lamed = False

    def go_on(self) -> None:
        with self.client() as client:
            for step in self._steps()[self._step :]:
                step(client)
                self._step += 1

    def _steps(self) -> Sequence[Callable[[gridlane.Client], object]]:
        return (
            self._register,
            self._unregister,
            self._create,
            self._place_it,
            lambda client: self._give_path(client, self._path),
            lambda client: client.transfers.wait(self.transfer, timeout=PATIENCE_S),
            self._look,
            self._remove,
        )

    def check(self) -> None:
        with self.client() as client:
            job = client.transfers.get(self.transfer)
            checks.all_finished([job], [1])
            assert job.files[0].attempt == 1
            checks.transfer_history(list(client.transfers.events(self.transfer)), job)
            there = dict(self._content)
            gone = f"{self.place}/c"
            self._path_of(gone).unlink()
            del there[gone]
            self.check_stored(client, there)
            resolved = client.replicas.resolve([*there, gone, self._lfn])
            assert [isinstance(one, gridlane.NotFound) for one in resolved] == [
                False,
                False,
                True,
                True,
            ]
        assert not self._target.exists()

    @property
    def _path(self) -> str:
        return f"/local/{self.element}"

    @property
    def _lfn(self) -> str:
        return f"LFN:{self._path}/placed"

    @property
    def _target(self) -> Path:
        return self.folder / self.element / "local" / self.element / "placed"

    def _path_of(self, lfn: str) -> Path:
        return self.server.data_dir / "storage" / lfn.removeprefix("LFN:/")

    def _copies(self) -> list[RegisterReplicaRequest]:
        return [
            gridlane.new_replica(
                lfn,
                self._path_of(lfn).as_uri(),
                size_bytes=len(content),
                checksum=adler32(content),
            )
            for lfn, content in self._content.items()
        ]

    def _register(self, client: gridlane.Client) -> None:
        for lfn, content in self._content.items():
            self._path_of(lfn).parent.mkdir(parents=True, exist_ok=True)
            self._path_of(lfn).write_bytes(content)
        results = client.replicas.register_many(self._copies())
        assert not [result for result in results if isinstance(result, Exception)], results

    def _unregister(self, client: gridlane.Client) -> None:
        gone = f"{self.place}/c"
        # By an attempt whose answer was lost it is gone before.
        for refusal in client.replicas.unregister_many([(gone, "storageElements/local")]):
            assert refusal is None or isinstance(refusal, gridlane.NotFound), refusal

    def _create(self, client: gridlane.Client) -> None:
        root = self.folder / self.element
        root.mkdir(exist_ok=True)
        settings = StorageElement(vo_paths={"local": self._path})
        settings.endpoints.add(base_url=root.as_uri())
        client.storage_settings.create(self.element, settings, request_id=self._ids["create"])

    def _place_it(self, client: gridlane.Client) -> None:
        if not self._lamed:
            (mover,) = mover_processes(self.server)
            mover.suspend()
            self._lamed = True
            self._submit(client)
            until(lambda: client.transfers.get(self.transfer).state == ACTIVE, "a file on its way")
            self._give_path(client, "/elsewhere")
            mover.resume()
        until(lambda: client.transfers.get(self.transfer).state == _REGISTERING, "what is owed")

    def _submit(self, client: gridlane.Client) -> None:
        file = gridlane.new_file(f"{self.place}/a", self._target.as_uri())
        file.guid = self.guid
        job = TransferJob(files=[file], placement=True, max_retries=100)
        job.retry_delay.FromMilliseconds(_RETRY_DELAY_MS)
        self.transfer = client.transfers.submit(job, request_id=self._ids["submit"]).name

    def _give_path(self, client: gridlane.Client, path: str) -> None:
        client.storage_settings.update(self.element, StorageElement(vo_paths={"local": path}))

    def _look(self, client: gridlane.Client) -> None:
        (found,) = client.replicas.resolve([self._lfn])
        assert not isinstance(found, Exception), found
        assert found.guid == self.guid
        assert [replica.url for replica in found.replicas] == [self._target.as_uri()]

    def _remove(self, client: gridlane.Client) -> None:
        """Lets go of the placed file: in the next life's eyes it would lie nowhere."""
        client.storage.delete(self._lfn, missing_ok=True)
        with suppress(gridlane.NotFound):  # by an attempt whose answer was lost
            client.storage_settings.update(self.element, StorageElement(draining=True))
            client.storage_settings.delete(self.element)
