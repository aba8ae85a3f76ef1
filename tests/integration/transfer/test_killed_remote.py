"""The server is killed while it moves files to a remote storage: nothing half is ever seen there
under its name, and after the next start the file is whole and alone.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from integration.transfer.test_killed import PROGRAM, Killed, ended
from webdav_server import Fault, Storage, serving

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit.sqlite import sqlite_url

CONTENT = bytes(range(256)) * 20_000
TARGET = "local/deep/out"
POINTS = [
    "transfer.claim.committed",
    "transfer.copy.ordered",
    "transfer.copy.published",
    "transfer.report.committed",
]


class KilledWithStorage(Killed):
    """A server with a directory and remote storages."""

    def __init__(
        self, root: Path, connect: Callable[[aio.Channel, str], Any], far: Storage, other: Storage
    ) -> None:
        super().__init__(root, connect)
        vo_paths = {"local": "/local"}
        here = (root / "storage").as_uri()
        self.given = {
            "retry_delay_s": 0.05,
            "http": {"allowed_networks": ["127.0.0.0/8"], "idle_s": 20},
            "storage_elements": [
                {"name": "local", "base_url": here, "vo_paths": vo_paths},
                {"name": "far", "base_url": far.url, "vo_paths": vo_paths},
                {"name": "other", "base_url": other.url, "vo_paths": vo_paths},
            ],
        }

    def _spawn(self, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        url = sqlite_url(self.root / "transfer.sqlite")
        files: list[str | Path] = [self.root, self.root / "key.pem", url, self.root / "address"]
        command = [sys.executable, PROGRAM, *files, json.dumps(self.given)]
        return subprocess.Popen(command, env=environment)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(20)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Storage]:
    with serving(tmp_path / "far") as storage:
        (storage.root / "local").mkdir()
        yield storage


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Storage]:
    with serving(tmp_path / "other") as storage:
        (storage.root / "local").mkdir()
        storage.path("local/in").write_bytes(CONTENT)
        yield storage


@pytest.fixture
async def killed(
    tmp_path: Path, connect: Callable[[aio.Channel, str], Any], far: Storage, other: Storage
) -> AsyncIterator[KilledWithStorage]:
    (tmp_path / "storage/local").mkdir(parents=True)
    (tmp_path / "storage/local/in").write_bytes(CONTENT)
    server = KilledWithStorage(tmp_path, connect, far, other)
    yield server
    await server.close()


async def submitted(killed: KilledWithStorage, far: Storage, source: str = "") -> str:
    source = source or (killed.root / "storage/local/in").as_uri()
    request_id = uuid7()
    job = await killed.insist(
        lambda: killed.client.submit(
            (source, f"{far.url}/{TARGET}"), vo="local", request_id=request_id
        )
    )
    name: str = job.name
    return name


def watch(far: Storage) -> list[bytes]:
    """What a reader finds at the target whenever something was put beside it."""
    seen: list[bytes] = []

    def look(path: Path) -> None:
        target = far.path(TARGET)
        if target.exists():
            seen.append(target.read_bytes())

    far.after_put = look
    return seen


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_a_failpoint(killed: KilledWithStorage, far: Storage, point: str) -> None:
    seen = watch(far)
    await killed.start(point)
    job = await ended(killed, await submitted(killed, far))
    assert killed.starts == 2
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job.failure
    assert far.files() == [TARGET]
    assert far.path(TARGET).read_bytes() == CONTENT
    assert all(found == CONTENT for found in seen)


async def test_killed_in_the_middle_of_a_put(killed: KilledWithStorage, far: Storage) -> None:
    far.faults = [Fault("PUT", "stall", after=1 << 20)]
    await killed.start()
    name = await submitted(killed, far)
    async with asyncio.timeout(30):
        while not far.files():
            await asyncio.sleep(0.01)
    assert far.files()[0].endswith(".part")
    killed.kill()
    far.released.set()
    assert not far.path(TARGET).exists()
    job = await ended(killed, name)
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job.failure
    assert far.files() == [TARGET]
    assert far.path(TARGET).read_bytes() == CONTENT


@pytest.mark.parametrize("goes_on", [False, True], ids=["ended", "goes on"])
async def test_killed_in_the_middle_of_a_third_party_copy(
    killed: KilledWithStorage, far: Storage, other: Storage, goes_on: bool
) -> None:
    """The storages may not notice that nobody hears them, and write on under their own name."""
    far.faults = [Fault("COPY", "stall")]
    await killed.start()
    name = await submitted(killed, far, f"{other.url}/local/in")
    async with asyncio.timeout(30):
        while not far.files():
            await asyncio.sleep(0.01)
    (half,) = far.files()
    assert half.endswith(".part")
    killed.kill()
    if not goes_on:
        far.released.set()
    job = await ended(killed, name)
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job.failure
    assert far.files() == [TARGET]
    assert (far.count("COPY"), other.count("COPY")) == (2, 0)
    far.released.set()
    async with asyncio.timeout(30):
        while goes_on and far.finished_copies < 2:
            await asyncio.sleep(0.01)
    assert far.path(TARGET).read_bytes() == CONTENT
