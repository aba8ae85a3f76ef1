"""Lives of files alone: put, removed, registered, moved without a task.

Responsible for what a client does with the store and the catalogue; lives of tasks are `lives`'.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from faults import checks
from faults.lives import ACTIVE, PATIENCE_S, Life, adler32, mover_processes, until
from support import Deployment

import gridlane


class FilesLife(Life):
    """Files that are put, put again, and removed; one is registered where it lay."""

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.kept = (f"{self.place}/kept.txt", b"kept\n" * 1000)
        self.removed = (f"{self.place}/folder/removed.txt", b"removed\n" * 10)
        self.found = (f"{self.place}/found.txt", b"found\n")
        self._step = 0

    def go_on(self) -> None:
        with self.client() as client:
            for step in self._steps()[self._step :]:
                step(client)
                self._step += 1

    def _steps(self) -> Sequence[Callable[[gridlane.Client], object]]:
        kept, removed = self.kept, self.removed
        return (
            lambda client: client.storage.put(kept[1], kept[0]),
            lambda client: client.storage.put(kept[1], kept[0]),
            lambda client: client.storage.put(removed[1], removed[0]),
            # What was removed by a call whose answer was lost is gone.
            lambda client: client.storage.delete(removed[0], missing_ok=True),
            self._register,
        )

    def _register(self, client: gridlane.Client) -> None:
        lfn, content = self.found
        path = self.server.data_dir / "storage" / lfn.removeprefix("LFN:/")
        path.write_bytes(content)
        client.replicas.register(
            lfn, path.as_uri(), size_bytes=len(content), checksum=adler32(content)
        )

    def check(self) -> None:
        with self.client() as client:
            self.check_stored(client, dict([self.kept, self.found]))
            (gone,) = client.replicas.resolve([self.removed[0]])
            assert isinstance(gone, gridlane.NotFound)


class RetriedTransfer(Life):
    """A transfer of two files whose mover dies once while it copies them."""

    environment: ClassVar[dict[str, str]] = {"GRIDLANE_TRANSFER_WORKERS": "1"}
    files: ClassVar[dict[str, bytes]] = {"x": b"x" * 5000, "y": b"y" * 100}

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.request_id = gridlane.uuid7()
        self.name = ""
        self._lamed = False

    def go_on(self) -> None:
        with self.client() as client:
            for path, content in self.files.items():
                client.storage.put(content, f"{self.place}/{path}")
            if not self._lamed:
                self._lame(client)
            self.name = self._submit(client)
            client.transfers.wait(self.name, timeout=PATIENCE_S)

    def _lame(self, client: gridlane.Client) -> None:
        (mover,) = mover_processes(self.server)
        mover.suspend()
        self._lamed = True
        name = self._submit(client)
        until(lambda: client.transfers.get(name).state == ACTIVE, "files on their way")
        mover.kill()

    def _submit(self, client: gridlane.Client) -> str:
        job = gridlane.new_transfer(
            {f"{self.place}/{path}": f"{self.place}/copy/{path}" for path in self.files}
        )
        return client.transfers.submit(job, request_id=self.request_id).name

    def check(self) -> None:
        with self.client() as client:
            assert self.of_this_life(client.transfers.list()) == [self.name]
            transfer = client.transfers.get(self.name)
            checks.all_finished([transfer], [len(self.files)])
            assert {file.attempt for file in transfer.files} == {2}
            events = list(client.transfers.events(self.name))
            checks.transfer_history(events, transfer)
            there = {f"{self.place}/{path}": content for path, content in self.files.items()}
            there |= {f"{self.place}/copy/{path}": content for path, content in self.files.items()}
            self.check_stored(client, there)
            moved = len(self.files)
            until(lambda: len(self._records(client)) >= moved, "accounting records")
            assert len(self._records(client)) == moved

    def _records(self, client: gridlane.Client) -> list[str]:
        """The files of this transfer that are accounted."""
        every = client.accounting.records(kind="data_operation")
        files = [record.data_operation.file_transfer for record in every]
        return [file for file in files if file.startswith(f"{self.name}/")]
