"""A life of a storage element: made, used, banned while files wait for it, unbanned, removed.

Responsible for what an administrator does, and for the files that wait meanwhile.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from faults import checks
from faults.lives import PATIENCE_S, Life, until
from support import Deployment

import gridlane
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transfer.v1.transfer_job_pb2 import FileTransferState, TransferJob, TransferJobState

# More than a mover has places for, which hangs until the ban has come: some wait then.
_COPIES, _SIZE = 4, 1 << 20
_BLOCKED = FileTransferState.FILE_TRANSFER_STATE_BLOCKED
_READY = FileTransferState.FILE_TRANSFER_STATE_READY
_FINISHED = TransferJobState.TRANSFER_JOB_STATE_FINISHED


class BannedElement(Life):
    """A storage element to which files go, and which is banned for a while.

    Every call is sent again after a start, with the same request id or for the same name.
    """

    environment: ClassVar[dict[str, str]] = {
        "GRIDLANE_TRANSFER_MAX_FILES": "1",
        "GRIDLANE_TRANSFER_STORAGE_FILE_ROOTS": '["/"]',
        "GRIDLANE_TRANSFER_WORKERS": "1",
    }

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.element = f"e{gridlane.uuid7()}"
        self.transfer = ""
        self._ids = {step: gridlane.uuid7() for step in ("create", "submit", "ban")}
        self._ban = ""
        self._stood = self._lifted = False

    def go_on(self) -> None:
        with self.client() as client:
            if not self._ban:
                self._create(client)
                self.suspend_movers()
                self._submit(client)
                settings = client.storage_settings
                request_id = self._ids["ban"]
                self._ban = settings.ban(self.element, "repair", request_id=request_id).name
            if not self._stood:
                until(lambda: self._stands(client), "the files to wait")
                self._stood = True
            self.resume_movers()
            if not self._lifted:
                self._unban(client)
            until(lambda: self._job(client).state == _FINISHED, "the end of the files")
            self._remove(client)

    def check(self) -> None:
        with self.client() as client:
            job = self._job(client)
            checks.all_finished([job], [_COPIES])
            assert not any(file.HasField("failure") for file in job.files)
            checks.transfer_history(list(client.transfers.events(self.transfer)), job)
            assert list(client.storage_settings.bans()) == []
            assert self.element not in [one.name for one in client.storage.elements()]
        copies = [self._place / f"copy-{n}" for n in range(_COPIES)]
        assert [copy.stat().st_size for copy in copies] == [_SIZE] * _COPIES
        assert not [path for path in self._place.rglob("*") if path not in copies]
        # It is in no catalogue, in which the next life looks for what the store has.
        self._source.unlink()
        self._source.parent.rmdir()

    @property
    def _place(self) -> Path:
        return self.folder / self.element / "local"

    @property
    def _source(self) -> Path:
        return self.server.data_dir / "storage" / f"{self.place}/big".removeprefix("LFN:/")

    def _create(self, client: gridlane.Client) -> None:
        settings = StorageElement(vo_paths={"local": "/local"})
        settings.endpoints.add(base_url=self._place.parent.as_uri())
        self._place.parent.mkdir(parents=True, exist_ok=True)
        client.storage_settings.create(self.element, settings, request_id=self._ids["create"])

    def _submit(self, client: gridlane.Client) -> None:
        self._source.parent.mkdir(parents=True, exist_ok=True)
        with self._source.open("ab") as file:
            file.truncate(_SIZE)
        files: list[Any] = [
            gridlane.new_file(self._source.as_uri(), (self._place / f"copy-{n}").as_uri())
            for n in range(_COPIES)
        ]
        job = TransferJob(files=files)
        self.transfer = client.transfers.submit(job, request_id=self._ids["submit"]).name

    def _stands(self, client: gridlane.Client) -> bool:
        """Whether something is blocked, and nothing waits that should be."""
        states = {file.state for file in self._job(client).files}
        return _BLOCKED in states and _READY not in states

    def _unban(self, client: gridlane.Client) -> None:
        with suppress(gridlane.NotFound):  # by an attempt whose answer was lost
            client.storage_settings.unban(self._ban)
        self._lifted = True

    def _remove(self, client: gridlane.Client) -> None:
        with suppress(gridlane.NotFound):  # by an attempt whose answer was lost
            client.storage_settings.update(self.element, StorageElement(draining=True))
            client.storage_settings.delete(self.element)

    def _job(self, client: gridlane.Client) -> TransferJob:
        return client.transfers.get(self.transfer, timeout=PATIENCE_S)
