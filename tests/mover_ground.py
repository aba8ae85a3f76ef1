"""A directory, two WebDAV storages, and the mover's own code between them, in this process."""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from webdav_server import Storage

from gridlane_transfer.backends.embedded import copying
from gridlane_transfer.backends.embedded.copying import Copied
from gridlane_transfer.backends.embedded.ends import AnyPlace, CopyTask
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace
from gridlane_transfer.moving.failures import Failed, MoveError

LOOPBACK = HttpOptions(
    allowed_networks=["127.0.0.0/8", "::1/128"], connect_s=5, idle_s=2, max_redirects=3
)
CONTENT = bytes(range(256)) * 12_345 + b"the end"


def adler(content: bytes) -> str:
    return f"{zlib.adler32(content):08x}"


class Control:
    """A copy's control, of which nobody asks anything unless a test does."""

    def __init__(self, *, allows: bool = True) -> None:
        self.totals: list[int] = []
        self.asked = 0
        self.allows = allows
        self._stop = threading.Event()
        self._closers: list[Callable[[], None]] = []

    def stopped(self) -> bool:
        return self._stop.is_set()

    def may_publish(self) -> bool:
        self.asked += 1
        return self.allows

    def moved(self, total_bytes: int) -> None:
        self.totals.append(total_bytes)

    @contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        self._closers.append(close)
        try:
            yield
        finally:
            self._closers.remove(close)

    def stop(self) -> None:
        self._stop.set()
        for close in list(self._closers):
            close()


@dataclass
class Ground:
    """Where files are moved: `folder` is local, `a` and `b` are storages."""

    folder: Path
    a: Storage
    b: Storage
    options: HttpOptions = LOOPBACK
    control: Control = field(default_factory=Control)

    def local(self, name: str) -> Place:
        return Place(str(self.folder), name, f"LFN:/{name}")

    def remote(self, storage: Storage, name: str) -> RemotePlace:
        return RemotePlace(f"{storage.url}/{name}", storage.url, f"{storage.url}/{name}")

    def put(self, name: str = "source", content: bytes = CONTENT) -> Place:
        """A local source."""
        (self.folder / name).write_bytes(content)
        return self.local(name)

    def have(self, storage: Storage, name: str = "source", content: bytes = CONTENT) -> RemotePlace:
        """A remote source."""
        storage.path(name).parent.mkdir(parents=True, exist_ok=True)
        storage.path(name).write_bytes(content)
        return self.remote(storage, name)

    def task(self, source: AnyPlace, target: AnyPlace, **more: object) -> CopyTask:
        task = CopyTask(
            number=7,
            epoch=3,
            sources=[source],
            target=target,
            overwrite=False,
            verify_source=True,
            verify_target=True,
            size_bytes=None,
            expected={},
            checksums=["ADLER32"],
            resumed=False,
        )
        return task._replace(**more)  # type: ignore[arg-type]

    def copy(self, source: AnyPlace, target: AnyPlace, **more: object) -> Copied:
        return copying.copy(self.task(source, target, **more), self.control, Ends(self.options))

    def failure(self, source: AnyPlace, target: AnyPlace, **more: object) -> Failed:
        with pytest.raises(MoveError) as raised:
            self.copy(source, target, **more)
        return raised.value.failed
