"""Lives of files that go over the network: put to a storage over HTTP, and copied on from there to
another storage, which fetches them itself (third-party copy).

Responsible for the storages and for what a client does; that a copy is cut off in the midst is
shown where one storage alone is wanted (`integration.transfer`).
"""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from faults import checks
from faults.lives import PATIENCE_S, Life
from support import Deployment
from webdav_server import Storage, serving

import gridlane
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob


class RemoteTransfer(Life):
    """A file that is put to a storage over HTTP, and from there copied to another one.

    Every call is sent again after a start, with the same request id or for the same name.
    """

    environment: ClassVar[dict[str, str]] = {
        "GRIDLANE_TRANSFER_HTTP__ALLOWED_NETWORKS": '["127.0.0.0/8"]'
    }
    content = bytes(range(256)) * 4000

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self._storages = ExitStack()
        self._seen: list[bytes] = []
        self.near, self.far = (self._served(folder / name) for name in ("near", "far"))
        steps = ("near", "far", "put", "copy")
        self._ids = {step: gridlane.uuid7() for step in steps}
        self._elements = {step: f"{step}-{self._ids[step]}" for step in ("near", "far")}
        self.names: dict[str, str] = {}
        self._ready = False

    def close(self) -> None:
        self._storages.close()

    def _served(self, root: Path) -> Storage:
        storage = self._storages.enter_context(serving(root))
        (root / "local").mkdir()

        def look(path: Path) -> None:
            """What a reader finds at the file's own name whenever something was put beside it."""
            if path != root / "local/x" and (root / "local/x").exists():
                self._seen.append((root / "local/x").read_bytes())

        storage.after_put = look
        return storage

    def go_on(self) -> None:
        with self.client() as client:
            client.storage.put(self.content, f"{self.place}/x")
            if not self._ready:
                self._create(client)
            near, far = (f"{storage.url}/local/x" for storage in (self.near, self.far))
            self._move(client, "put", f"{self.place}/x", near)
            self._move(client, "copy", near, far)
            self._remove(client)

    def check(self) -> None:
        with self.client() as client:
            for name in self.names.values():
                checks.all_finished([client.transfers.get(name)], [1])
            assert set(self.of_this_life(client.transfers.list())) == set(self.names.values())
            self.check_stored(client, {f"{self.place}/x": self.content})
        for storage in (self.near, self.far):
            assert storage.files() == ["local/x"]
            assert storage.path("local/x").read_bytes() == self.content
            # Whole at once, and once: an attempt that finds what is to come there leaves it.
            published = [one for one in storage.heard if (one.method, one.status) == ("MOVE", 201)]
            assert len(published) == 1, published
        assert all(found == self.content for found in self._seen)
        assert self.far.count("COPY") >= 1
        assert not self.far.count("PUT")

    def _create(self, client: gridlane.Client) -> None:
        for step, storage in (("near", self.near), ("far", self.far)):
            settings = StorageElement(vo_paths={"local": "/local"})
            settings.endpoints.add(base_url=storage.url)
            client.storage_settings.create(
                self._elements[step], settings, request_id=self._ids[step]
            )
        self._ready = True

    def _move(self, client: gridlane.Client, step: str, source: str, target: str) -> None:
        job = TransferJob(files=[gridlane.new_file(source, target)])
        name = client.transfers.submit(job, request_id=self._ids[step]).name
        assert self.names.setdefault(step, name) == name, "the same id made another job"
        client.transfers.wait(name, timeout=PATIENCE_S)

    def _remove(self, client: gridlane.Client) -> None:
        for name in self._elements.values():
            with suppress(gridlane.NotFound):  # by an attempt whose answer was lost
                client.storage_settings.update(name, StorageElement(draining=True))
                client.storage_settings.delete(name)
