"""The server is killed at each of Transfer's failpoints and started again: the work ends, and ends
once.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc import aio
from schemas import Schemas

import gridlane_transfer.room
from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    replica_service_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_kit import failpoints
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.tokens import TokenSigner, dump_key, new_key

assert gridlane_transfer.room.__name__  # registers the failpoints
CONTENT = b"a measured series\n" * 60_000
PROGRAM = Path(__file__).with_name("killed_server.py")
DATABASE = "transfer.sqlite"
CANCEL = frozenset({"transfer.cancel.committed", "transfer.cancel.aborted"})
# Met where the policy, a channel or a storage element changes, and by the verbs on jobs that are
# more than a plain transfer: the fault suite's lives do that.
ELSEWHERE = frozenset(
    {
        "transfer.activities.committed",
        "transfer.banned.committed",
        "transfer.batch.committed",
        "transfer.channel.committed",
        "transfer.channel_files.committed",
        "transfer.deadline.committed",
        "transfer.deletion.committed",
        "transfer.files.canceled",
        "transfer.held.committed",
        "transfer.hop.removed",
        "transfer.job.updated",
        "transfer.optimizer.committed",
        "transfer.publish.committed",
        "transfer.registration.claimed",
        "transfer.registration.committed",
        "transfer.registration.registered",
        "transfer.removal.claimed",
        "transfer.removal.committed",
        "transfer.removal.removed",
        "transfer.replica.unregistered",
        "transfer.rights.committed",
        "transfer.stage.abandoned",
        "transfer.stage.committed",
        "transfer.storage.committed",
        "transfer.stranded.committed",
        "transfer.sweep.committed",
    }
)
POINTS = [
    name
    for name in failpoints.registered()
    if name.startswith("transfer.") and name not in ELSEWHERE
]


class Killed:
    """A server process that is started anew whenever it died."""

    def __init__(self, root: Path, connect: Callable[[aio.Channel, str], Any]) -> None:
        self.root = root
        self.log = root / "failpoints.log"
        self._connect = connect
        key = new_key()
        (root / "key.pem").write_bytes(dump_key(key))
        signer = TokenSigner(key, "https://issuer.test/", "https://gridlane.test")
        self._token = signer.sign_user("sue", lifetime_s=600, vos=["local"])
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    async def start(self, point: str = "") -> None:
        """Starts it, armed with a failpoint."""
        (self.root / "address").unlink(missing_ok=True)
        environment = os.environ | {
            "GRIDLANE_FAILPOINTS": point,
            "GRIDLANE_FAILPOINT_LOG": str(self.log),
        }
        self._process = self._spawn(environment)
        self.starts += 1
        async with asyncio.timeout(20):
            while not (self.root / "address").exists():
                assert self._process.poll() is None, "the server did not start"
                await asyncio.sleep(0.02)
        self._channel = aio.insecure_channel((self.root / "address").read_text())
        self.client = self._connect(self._channel, self._token)

    def _spawn(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        url = sqlite_url(self.root / DATABASE)
        files: list[str | Path] = [self.root, self.root / "key.pem", url, self.root / "address"]
        command = [sys.executable, PROGRAM, *files, "{}"]
        return subprocess.Popen(command, env=environment)

    @property
    def dead(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def children(self) -> list[int]:
        assert self._process is not None
        return [child.pid for child in psutil.Process(self._process.pid).children()]

    async def insist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Calls until it is answered, starting the server again when it died."""
        for _ in range(5):
            try:
                return await call()
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise
                async with asyncio.timeout(10):
                    while not self.dead:
                        await asyncio.sleep(0.01)
                await self._channel.close()
                await self.start()
        raise AssertionError("the server died again and again")

    async def close(self) -> None:
        await self._channel.close()
        if self._process is not None and not self.dead:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def killed(
    tmp_path: Path, connect: Callable[[aio.Channel, str], Any], schemas: Schemas
) -> Any:
    (tmp_path / "storage/local").mkdir(parents=True)
    (tmp_path / "jobs").mkdir()
    schemas.copy_file("transfer", tmp_path / DATABASE)
    server = Killed(tmp_path, connect)
    yield server
    await server.close()


async def ended(killed: Killed, name: str) -> transfer_job_pb2.TransferJob:
    async with asyncio.timeout(30):
        while True:
            job = await killed.insist(lambda: killed.client.get(name))
            if job.HasField("end_time"):
                return job
            await asyncio.sleep(0.05)


async def delete(client: Any, file: str) -> None:
    """Deletes a file; that it is gone is as good, since a call that was cut off may have done
    it.
    """
    request = storage_service_pb2.DeleteContentRequest(file=file)
    try:
        await client.storage.DeleteContent(request)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise


async def life(killed: Killed) -> None:
    """A file is put, registered, moved, read and deleted."""
    storage = killed.root / "storage"
    await killed.insist(lambda: killed.client.put("LFN:/local/in", CONTENT, overwrite=True))
    url = (storage / "local/in").as_uri()
    resolved = await killed.insist(
        lambda: killed.client.replicas.ResolveReplicas(
            replica_service_pb2.ResolveReplicasRequest(lfns=["LFN:/local/in"])
        )
    )
    file = resolved.results[0].file
    await killed.insist(
        lambda: killed.client.replicas.RegisterReplica(
            replica_service_pb2.RegisterReplicaRequest(
                lfn=file.lfn, url=url, size_bytes=file.size_bytes, checksum=file.checksum
            )
        )
    )
    request_id = uuid7()
    job = await killed.insist(
        lambda: killed.client.submit(
            ("LFN:/local/in", "LFN:/local/out"),
            placement=True,
            max_retries=0,
            request_id=request_id,
        )
    )
    job = await ended(killed, job.name)
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job.failure
    assert (storage / "local/out").read_bytes() == CONTENT
    listed = await killed.insist(
        lambda: killed.client.jobs.ListTransferJobs(transfer_service_pb2.ListTransferJobsRequest())
    )
    assert len(listed.transfer_jobs) == 1
    history = await killed.insist(lambda: killed.client.history(job.name))
    assert history.count("job FINISHED") == history.count("file FINISHED") == 1
    await killed.insist(lambda: delete(killed.client, "LFN:/local/in"))
    gone = await killed.insist(
        lambda: killed.client.replicas.ResolveReplicas(
            replica_service_pb2.ResolveReplicasRequest(lfns=["LFN:/local/in", "LFN:/local/out"])
        )
    )
    assert [one.WhichOneof("result") for one in gone.results] == ["status", "file"]
    assert [path.name for path in (storage / "local").iterdir()] == ["out"]


def sparse(path: Path, size_bytes: int) -> None:
    """Makes a file of a size that takes no room."""
    with path.open("wb") as file:
        file.truncate(size_bytes)


async def canceled_life(killed: Killed) -> None:
    """A copy is cancelled while it runs."""
    big = killed.root / "storage/local/big"
    sparse(big, 20 << 30)
    job = await killed.client.submit((big.as_uri(), "LFN:/local/out"))
    async with asyncio.timeout(10):
        while not list(big.parent.glob(".gridlane-*")):
            await asyncio.sleep(0.01)
    await killed.insist(
        lambda: killed.client.jobs.CancelTransferJob(
            transfer_service_pb2.CancelTransferJobRequest(name=job.name)
        )
    )
    job = await ended(killed, job.name)
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_CANCELED
    assert [path.name for path in big.parent.iterdir()] == ["big"]
    assert (await killed.client.history(job.name)).count("job CANCELED") == 1


@pytest.mark.parametrize("point", POINTS)
async def test_what_was_begun_ends_once(killed: Killed, point: str) -> None:
    await killed.start(point)
    await (canceled_life(killed) if point in CANCEL else life(killed))
    assert killed.log.read_text().split() == [point]
    assert killed.starts == 2
    print(f"{point} × {killed.starts - 1}")


async def test_workers_do_not_outlive_a_killed_server(killed: Killed) -> None:
    await killed.start()
    workers = [psutil.Process(pid) for pid in killed.children]
    assert len(workers) == 2
    await killed.close()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    await killed.start()
