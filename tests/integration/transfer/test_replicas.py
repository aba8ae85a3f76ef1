"""Two processes of Transfer on one PostgreSQL and the same storages: no file is moved by both at a
time. One is paused past its leases and woken, or killed; what it had begun ends in the other's
hands, and ends once.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc import aio
from postgresql import PostgresqlServer
from sqlalchemy import Select, select
from webdav_server import Storage, serving

from gridlane.transfer.v1 import (
    deletion_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_kit.database import Database
from gridlane_kit.tokens import TokenSigner, dump_key, new_key
from gridlane_transfer.channels.channels import NO_CHANNEL
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.store.tables import FILE, METADATA, UPLOAD

PROGRAM = Path(__file__).with_name("killed_server.py")
CONTENT = b"a measured series\n" * 10_000
NEWER = b"what somebody wrote since"
LEASE_S = 5
# Both together: more than a lease, a poll, and a start on a busy machine.
PATIENCE_S = 60
# Files enough for both at once.
SETTINGS = {"lease_s": LEASE_S, "poll_s": 0.3, "retry_delay_s": 0.05, "max_files": 8}


class Replica:
    """One of the processes."""

    def __init__(self, site: "Site", name: str, failpoints: str) -> None:
        self._address = site.root / f"address-{name}"
        files: list[str | Path] = [site.root, site.root / "key.pem", site.url, self._address]
        settings = json.dumps(SETTINGS | site.settings)
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, *files, settings],
            env=os.environ | {"GRIDLANE_FAILPOINTS": failpoints},
        )
        self.client: Any = None

    async def serve(self, connect: Callable[[aio.Channel], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self._address.exists():
                assert self._process.poll() is None, "the server did not start"
                await asyncio.sleep(0.02)
        self._channel = aio.insecure_channel(self._address.read_text())
        self.client = connect(self._channel)

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children()

    def signal_workers(self, number: int) -> None:
        for worker in self.workers:
            worker.send_signal(number)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def close(self) -> None:
        if self.client is not None:
            await self._channel.close()
        self._process.kill()
        self._process.wait()


class Site:
    """A storage, a database, and the processes on them."""

    def __init__(self, root: Path, url: str, connect: Callable[[aio.Channel, str], Any]) -> None:
        self.root = root
        self.url = url
        self.settings: dict[str, Any] = {}
        """What its processes are set to besides."""
        self.local = root / "storage/local"
        self.local.mkdir(parents=True)
        (root / "jobs").mkdir()
        key = new_key()
        (root / "key.pem").write_bytes(dump_key(key))
        signer = TokenSigner(key, "https://issuer.test/", "https://gridlane.test")
        token = signer.sign_user("sue", lifetime_s=600, vos=["local"])
        self._connect: Callable[[aio.Channel], Any] = lambda channel: connect(channel, token)
        self._replicas: list[Replica] = []

    async def start(self, name: str, failpoints: str = "") -> Replica:
        replica = Replica(self, name, failpoints)
        self._replicas.append(replica)
        await replica.serve(self._connect)
        return replica

    async def submit(self, replica: Replica, name: str) -> str:
        """A job that copies a file of its own to `<name>-copy`; its name."""
        (self.local / name).write_bytes(CONTENT)
        files = (f"LFN:/local/{name}", f"LFN:/local/{name}-copy")
        url = (self.local / name).as_uri()
        overwrite = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
        job = await replica.client.submit((url, files[1]), overwrite=overwrite)
        return str(job.name)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.root.rglob(".gridlane-*")]

    async def uploads(self) -> int:
        """How many uploads have not ended."""
        return await self._count(select(UPLOAD.c.uuid))

    async def removing(self) -> int:
        """How many files are being removed."""
        active = int(transfer_job_pb2.FILE_TRANSFER_STATE_ACTIVE)
        on_no_channel = FILE.c.channel_uid == NO_CHANNEL
        return await self._count(select(FILE.c.number).where(on_no_channel, FILE.c.state == active))

    async def _count(self, statement: Select[Any]) -> int:
        db = await Database.open(self.url, metadata=METADATA, migrations=MIGRATIONS, migrate=False)
        try:
            return await db.read(lambda conn: len(conn.execute(statement).all()))
        finally:
            await db.close()

    async def close(self) -> None:
        for replica in self._replicas:
            await replica.close()


@pytest.fixture
async def site(
    tmp_path: Path,
    postgresql_server: PostgresqlServer,
    connect: Callable[[aio.Channel, str], Any],
) -> AsyncIterator[Site]:
    made = Site(tmp_path, postgresql_server.new_database(), connect)
    yield made
    await made.close()


@pytest.fixture
def remote(site: Site) -> Iterator[tuple[Storage, Storage]]:
    """Two storages over HTTP, known to the processes of the site: files are put to the first, which
    has a file, and the second one fetches from there.
    """
    with ExitStack() as stack:
        near, far = (stack.enter_context(serving(site.root / name)) for name in ("near", "far"))
        bases = {"local": (site.root / "storage").as_uri(), "near": near.url, "far": far.url}
        site.settings = {
            "http": {"allowed_networks": ["127.0.0.0/8"]},
            "storage_elements": [
                {"name": name, "base_url": base, "vo_paths": {"local": "/local"}}
                for name, base in bases.items()
            ],
        }
        for storage in (near, far):
            (storage.root / "local").mkdir()
        (near.root / "local/source").write_bytes(CONTENT)
        (site.local / "source").write_bytes(CONTENT)
        yield near, far


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await true():
            await asyncio.sleep(0.05)


async def all_ended(replica: Replica, names: list[str]) -> list[transfer_job_pb2.TransferJob]:
    async def ended() -> bool:
        return all([(await replica.client.get(name)).HasField("end_time") for name in names])

    await until(ended)
    return [await replica.client.get(name) for name in names]


class Upload:
    """A file that is being put, a part now and the rest when `go` is set."""

    def __init__(self, replica: Replica, file: str) -> None:
        self.go = asyncio.Event()
        self._file = file
        self.answer = asyncio.ensure_future(
            replica.client.storage.PutContent(self._parts(), timeout=PATIENCE_S)
        )

    async def _parts(self) -> AsyncIterator[storage_service_pb2.PutContentRequest]:
        header = storage_service_pb2.PutContentHeader(file=self._file, size_bytes=len(CONTENT))
        yield storage_service_pb2.PutContentRequest(header=header)
        yield storage_service_pb2.PutContentRequest(chunk=CONTENT[:1000])
        await self.go.wait()
        yield storage_service_pb2.PutContentRequest(chunk=CONTENT[1000:])


async def test_a_process_paused_past_its_leases_publishes_and_reports_nothing(
    site: Site, words: Any
) -> None:
    paused = await site.start("paused")
    # So its temporary files are made when the other has long cleaned up.
    paused.signal_workers(signal.SIGSTOP)
    names = [await site.submit(paused, f"file-{n}") for n in range(4)]
    for name in names:
        await paused.client.in_state(name, "ACTIVE")
    upload = Upload(paused, "LFN:/local/put")

    async def has_begun() -> bool:
        return len(site.leftovers()) == 1

    await until(has_begun)
    paused.signal(signal.SIGSTOP)

    other = await site.start("other")
    for job in await all_ended(other, names):
        assert words.job(job) == "FINISHED", job.failure
        assert job.files[0].attempt == 2
    copies = [site.local / f"file-{n}-copy" for n in range(4)]
    for copy in copies:
        assert copy.read_bytes() == CONTENT
        copy.write_bytes(NEWER)

    async def has_ended() -> bool:
        return not site.leftovers() and await site.uploads() == 0

    await until(has_ended)

    paused.signal_workers(signal.SIGCONT)
    paused.signal(signal.SIGCONT)
    upload.go.set()
    with pytest.raises(grpc.RpcError) as refused:
        await upload.answer
    assert words.reason(refused.value) == "REVISION_CONFLICT"
    # The woken process moves on: what it held before has gone through its workers by then.
    later = [await site.submit(paused, f"later-{n}") for n in range(4)]
    assert {words.job(job) for job in await all_ended(paused, later)} == {"FINISHED"}
    await until(has_ended)
    assert [copy.read_bytes() for copy in copies] == [NEWER] * 4
    assert not (site.local / "put").exists()
    for name in names:
        history = await other.client.history(name)
        assert history.count("file FINISHED") == history.count("job FINISHED") == 1


async def test_what_a_killed_process_had_begun_ends_once_in_the_others_hands(
    site: Site, words: Any
) -> None:
    killed, other = await asyncio.gather(site.start("killed"), site.start("other"))
    upload = Upload(killed, "LFN:/local/put")
    killed.signal_workers(signal.SIGSTOP)
    submitted = [site.submit((killed, other)[n % 2], f"file-{n}") for n in range(30)]
    names = await asyncio.gather(*submitted)

    async def both_work() -> bool:
        jobs = [await other.client.get(name) for name in names]
        at_work = [words.files(job)[0] == "ACTIVE" for job in jobs]
        return any(at_work) and any(job.HasField("end_time") for job in jobs)

    await until(both_work)
    killed.signal(signal.SIGKILL)
    with pytest.raises(grpc.RpcError):
        await upload.answer
    jobs = await all_ended(other, names)
    assert {words.job(job) for job in jobs} == {"FINISHED"}
    assert len({job.number for job in jobs}) == len({job.files[0].number for job in jobs}) == 30
    # A killed holder's files are begun a second time, all others once.
    assert sum(job.files[0].attempt for job in jobs) <= 30 + 4
    for name in names:
        assert (await other.client.history(name)).count("file FINISHED") == 1

    async def is_clean() -> bool:
        return not site.leftovers() and await site.uploads() == 0

    await until(is_clean)
    assert not (site.local / "put").exists()


async def test_a_cancel_that_one_process_accepts_ends_the_copy_of_another(
    site: Site, words: Any
) -> None:
    holder = await site.start("holder")
    holder.signal_workers(signal.SIGSTOP)
    name = await site.submit(holder, "file")
    await holder.client.in_state(name, "ACTIVE")
    other = await site.start("other")
    request = transfer_service_pb2.CancelTransferJobRequest(name=name)
    await other.client.jobs.CancelTransferJob(request)
    await asyncio.sleep(1.5)  # the holder looks each second
    holder.signal_workers(signal.SIGCONT)
    (job,) = await all_ended(other, [name])
    assert words.job(job) == "CANCELED"
    assert not (site.local / "file-copy").exists()
    assert not site.leftovers()


def published(storage: Storage) -> Counter[str]:
    """How often each file was given its name, by its path; in a way that had an effect."""
    moves = [one for one in storage.heard if (one.method, one.status) == ("MOVE", 201)]
    return Counter(one.headers["Destination"].removeprefix(f"{storage.url}/") for one in moves)


def brought(storage: Storage) -> Counter[str]:
    """How often the bytes of each file transfer were brought, by its number; `PUT` and `COPY` go to
    a name that has it.
    """
    asked = [one for one in storage.heard if one.method in ("PUT", "COPY")]
    found = [re.search(r"/\.gridlane-(\d+)-\d+\.part$", one.path) for one in asked]
    return Counter(match[1] for match in found if match is not None)


async def submit_remote(
    site: Site, replica: Replica, remote: tuple[Storage, Storage], name: str
) -> list[str]:
    """Two jobs: a file is put to the near storage, and one is copied from there to the far one."""
    near, far = remote
    always = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
    ends = [
        ((site.local / "source").as_uri(), f"{near.url}/local/{name}"),
        (f"{near.url}/local/source", f"{far.url}/local/{name}"),
    ]
    jobs = [await replica.client.submit(end, overwrite=always) for end in ends]
    return [str(job.name) for job in jobs]


async def submit_removal(replica: Replica, file: str) -> str:
    """A job that removes a file; its name."""
    request = transfer_service_pb2.SubmitDeletionJobRequest(
        files=[deletion_pb2.DeletionFile(file=file)]
    )
    return str((await replica.client.jobs.SubmitDeletionJob(request, timeout=PATIENCE_S)).name)


async def test_no_file_goes_over_the_network_twice_while_two_processes_move_them(
    site: Site, remote: tuple[Storage, Storage], words: Any
) -> None:
    replicas = await asyncio.gather(site.start("one"), site.start("two"))
    submitted = [submit_remote(site, replicas[n % 2], remote, f"file-{n}") for n in range(12)]
    names = [name for both in await asyncio.gather(*submitted) for name in both]
    jobs = await all_ended(replicas[0], names)
    assert {words.job(job) for job in jobs} == {"FINISHED"}
    assert {job.files[0].attempt for job in jobs} == {1}
    for storage in remote:
        assert published(storage) == {f"local/file-{n}": 1 for n in range(12)}
        assert sorted(brought(storage).values()) == [1] * 12


async def test_a_process_paused_past_its_leases_publishes_nothing_remote_and_removes_nothing(
    site: Site, remote: tuple[Storage, Storage], words: Any
) -> None:
    paused = await site.start("paused", failpoints="transfer.removal.claimed=sleep:5")
    await paused.client.put("LFN:/local/gone", CONTENT)
    paused.signal_workers(signal.SIGSTOP)
    names = await submit_remote(site, paused, remote, "file")
    for name in names:
        await paused.client.in_state(name, "ACTIVE")
    removal = asyncio.ensure_future(submit_removal(paused, "LFN:/local/gone"))

    async def is_removing() -> bool:
        return await site.removing() == 1

    await until(is_removing)
    paused.signal(signal.SIGSTOP)

    other = await site.start("other")
    for job in await all_ended(other, names):
        assert words.job(job) == "FINISHED", job.failure
        assert job.files[0].attempt == 2
    targets = [storage.path("local/file") for storage in remote]
    for target in targets:
        assert target.read_bytes() == CONTENT
        target.write_bytes(NEWER)

    async def is_gone() -> bool:
        return not (site.local / "gone").exists() and await site.removing() == 0

    await until(is_gone)
    await other.client.put("LFN:/local/gone", NEWER)

    # They do what they had been ordered, under names of their own, and ask for leave to publish it.
    paused.signal_workers(signal.SIGCONT)

    async def has_brought_again() -> bool:
        return all(sum(brought(storage).values()) == 2 for storage in remote)

    await until(has_brought_again)
    paused.signal(signal.SIGCONT)

    async def is_clean() -> bool:
        files = [name for storage in remote for name in storage.files()]
        return sorted(files) == ["local/file", "local/file", "local/source"]

    await until(is_clean)
    # What the woken process had claimed has passed by then: what it claims now has ended.
    (job,) = await all_ended(paused, [await submit_removal(paused, "LFN:/local/never")])
    assert words.job(job) == "FINISHED"
    (job,) = await all_ended(paused, [await removal])
    assert (words.job(job), job.files[0].attempt) == ("FINISHED", 2)
    assert [one.read_bytes() for one in (*targets, site.local / "gone")] == [NEWER] * 3
    for storage in remote:
        assert published(storage) == {"local/file": 1}
    for name in names:
        history = await other.client.history(name)
        assert history.count("file FINISHED") == history.count("job FINISHED") == 1
