"""How fast the embedded mover fetches and puts one large file over HTTP, against curl.

The storage is nginx with WebDAV on loopback. The mover verifies: fetching, what it wrote is read
back and synced; putting, what the storage has is read back, since nginx tells no checksums. curl is
followed by the same checksum of its copy, and does neither of the last two.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.row import Measured, PeerMissingError, Row
from benchmarks.run import Run
from gridlane_transfer.backends.base import Location, Moved, MoveOrder
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions

_BLOCK: Final = 1 << 20
_MOST_PAIRS: Final = 3
_ALGORITHM: Final = "ADLER32"
_UP_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a measurement works: `local` is a directory, `served` is nginx's, at `url`."""

    local: Path
    served: Path
    url: str

    def here(self, name: str) -> Location:
        """A file of the directory."""
        path = self.local / name
        return Location(path.as_uri(), "local", str(self.local), name, name)

    def there(self, name: str) -> Location:
        """A file of the storage."""
        return Location(f"{self.url}/{name}", "far", self.url, name, name)


async def _fetching(run: Run) -> Measured:
    return await _measure(run, _fetch_with_curl, to_storage=False)


async def _putting(run: Run) -> Measured:
    return await _measure(run, _put_with_curl, to_storage=True)


async def _measure(run: Run, curl: Callable[[_Place], None], *, to_storage: bool) -> Measured:
    for program, package in (("nginx", "nginx-light"), ("curl", "curl")):
        if shutil.which(program) is None:
            raise PeerMissingError(f"{program} is not installed (Debian: {package})")
    options = HttpOptions(allowed_networks=["127.0.0.0/8"])
    mover = EmbeddedMover(workers=1, copies_per_worker=1, stall_s=60, http=options)
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as name, _nginx(name) as place:
        await mover.start()
        try:
            return await _compared(mover, place, run, curl, to_storage=to_storage)
        finally:
            await mover.stop()


async def _compared(
    mover: EmbeddedMover,
    place: _Place,
    run: Run,
    curl: Callable[[_Place], None],
    *,
    to_storage: bool,
) -> Measured:
    folder = place.local if to_storage else place.served
    await asyncio.to_thread(_fill, folder / "source", run.effort.file_bytes)
    checksum = await asyncio.to_thread(_adler32, folder / "source")
    pairs: list[tuple[float, float]] = []
    for number in range(1, min(run.effort.rounds, _MOST_PAIRS) + 1):
        plain_s = await asyncio.to_thread(_timed, partial(curl, place))
        source, target = place.there("source"), place.here("moved")
        if to_storage:
            source, target = place.here("source"), place.there("moved")
        begun = time.perf_counter()
        outcome = await mover.move(_order(source, target, number, checksum))
        pairs.append((plain_s, time.perf_counter() - begun))
        assert isinstance(outcome, Moved), outcome
        await asyncio.to_thread(_tidy, place)
    return Measured.of(
        [plain / moved for plain, moved in pairs],
        mib=run.effort.file_bytes / _BLOCK,
        curl_and_checksum_s=Measured.of([plain for plain, _ in pairs]).value,
        mover_s=Measured.of([moved for _, moved in pairs]).value,
    )


def _fetch_with_curl(place: _Place) -> None:
    target = place.local / "plain"
    _curl("-o", str(target), f"{place.url}/source")
    _adler32(target)


def _put_with_curl(place: _Place) -> None:
    _curl("-T", str(place.local / "source"), f"{place.url}/plain")
    _adler32(place.served / "plain")


def _curl(*arguments: str) -> None:
    subprocess.run(["curl", "-sSf", *arguments], check=True, stdout=subprocess.DEVNULL)


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _tidy(place: _Place) -> None:
    for folder in (place.local, place.served):
        for name in ("plain", "moved"):
            (folder / name).unlink(missing_ok=True)
    os.sync()


def _order(source: Location, target: Location, number: int, checksum: str) -> MoveOrder:
    return MoveOrder(
        number=number,
        epoch=1,
        sources=[source],
        target=target,
        overwrite=False,
        verify_source=True,
        verify_target=True,
        size_bytes=None,
        expected={_ALGORITHM: checksum},
        checksums=[_ALGORITHM],
        resumed=False,
    )


def _fill(source: Path, size: int) -> None:
    with source.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(os.urandom(_BLOCK))
        file.flush()
        os.fsync(file.fileno())


def _adler32(path: Path) -> str:
    value = 1
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            value = zlib.adler32(block[:count], value)
    return f"{value:08x}"


@contextlib.contextmanager
def _nginx(name: str) -> Iterator[_Place]:
    folder = Path(name)
    local, served = folder / "local", folder / "served"
    local.mkdir()
    served.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\nsendfile on;\nclient_max_body_size 0;\n{temporary}"
        f"server {{\nlisten 127.0.0.1:{port};\nroot {served};\n"
        "location / { dav_methods PUT DELETE MKCOL COPY MOVE; }\n}\n}\n"
    )
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(configuration)], stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + _UP_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise PeerMissingError("nginx does not start")
            time.sleep(0.05)
        yield _Place(local, served, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


_CONDITIONS: Final = (
    "nginx on loopback, ADLER32 of both ends, {what}; against curl and ADLER32 of its copy"
)
ROWS = (
    Row(
        name="mover-http-get",
        title="Embedded mover, one large file fetched over HTTP",
        unit="× the speed of curl",
        measure=_fetching,
        conditions=_CONDITIONS.format(what="synced"),
    ),
    Row(
        name="mover-http-put",
        title="Embedded mover, one large file put over HTTP",
        unit="× the speed of curl",
        measure=_putting,
        conditions=_CONDITIONS.format(what="read back from the storage"),
    ),
)
