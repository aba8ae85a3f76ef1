"""Two processes of Workload (each with Transfer) on one PostgreSQL and the same directories: one is
paused past its leases and woken, or killed; each job ends, and its payload has run once.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from grpc import aio
from postgresql import PostgresqlServer

from gridlane.workload.v1 import event_service_pb2_grpc, job_service_pb2_grpc
from gridlane.workload.v1.job_pb2 import Job, JobInput, JobOutput
from gridlane_kit.tokens import TokenSigner, dump_key, new_key
from gridlane_workload import states

from .conftest import ISSUER, User, words

PROGRAM = Path(__file__).with_name("replica_server.py")
LEASE_S = 2.0
PLACES = 2
SETTINGS = {
    "lease_s": LEASE_S,
    "step_timeout_s": 1.8,
    "poll_s": 0.5,
    "max_running": PLACES,
}
PATIENCE_S = 60
ROUTE = ["RECEIVED", "CHECKING", "STAGING", "WAITING", "MATCHED", "RUNNING", "COMPLETING", "DONE"]


class Site:
    """The directories, the databases, and the processes on them."""

    def __init__(self, root: Path, new_database: Callable[[], str]) -> None:
        self.root = root
        for folder in ("storage/local", "jobs", "ran"):
            (root / folder).mkdir(parents=True)
        key = new_key()
        (root / "key.pem").write_bytes(dump_key(key))
        signer = TokenSigner(key, ISSUER, "gridlane")
        token = signer.sign_user("ada", lifetime_s=600, vos=["local"])
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._urls = [new_database(), new_database()]
        self._channels: list[aio.Channel] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self, name: str, failpoints: str = "") -> tuple[User, subprocess.Popen[bytes]]:
        address = self.root / f"address-{name}"
        process = self._spawn(address, failpoints)
        async with asyncio.timeout(PATIENCE_S):
            while not address.exists():
                assert process.poll() is None, "the server did not start"
                await asyncio.sleep(0.02)
        channel = aio.insecure_channel(address.read_text())
        self._channels.append(channel)
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        events = event_service_pb2_grpc.JobEventServiceStub(channel)
        return User(jobs, events, self._metadata), process

    def _spawn(self, address: Path, failpoints: str) -> subprocess.Popen[bytes]:
        files: list[str | Path] = [self.root, self.root / "key.pem", *self._urls, address]
        process = subprocess.Popen(
            [sys.executable, PROGRAM, *files, json.dumps(SETTINGS)],
            env={**os.environ, "GRIDLANE_FAILPOINTS": failpoints},
        )
        self._processes.append(process)
        return process

    async def submit(self, user: User, name: str, seconds: float = 0) -> str:
        """A job with an input and an output whose payload notes each time it runs; its name."""
        source = self.root / f"storage/local/{name}"
        source.write_text(name)
        ran = self.root / "ran" / name
        job = await user.submit(
            "sh",
            "-c",
            f"echo ran >> {ran}; sleep {seconds}; cp in out",
            inputs=[JobInput(path="in", source=source.as_uri())],
            outputs=[JobOutput(path="out", target=f"LFN:/local/{name}-out")],
        )
        return job.name

    async def ended(self, user: User, names: Sequence[str]) -> list[Job]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                jobs = [await user.get(name) for name in names]
                if all(job.HasField("end_time") for job in jobs):
                    return jobs
                await asyncio.sleep(0.1)

    def runs(self, name: str) -> int:
        """How often the payload of a job has run."""
        return len((self.root / "ran" / name).read_text().splitlines())

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
async def site(tmp_path: Path, postgresql_server: PostgresqlServer) -> AsyncIterator[Site]:
    made = Site(tmp_path, postgresql_server.new_database)
    yield made
    await made.close()


def overlap(jobs: Sequence[Job]) -> int:
    """The most payloads that ran at once."""
    begun = [(job.start_time.ToMicroseconds(), 1) for job in jobs]
    ended = [
        (job.start_time.ToMicroseconds() + job.resource_use.wall_time.ToMicroseconds(), -1)
        for job in jobs
    ]
    running, most = 0, 0
    for _, change in sorted(begun + ended):
        running += change
        most = max(most, running)
    return most


POINTS = ["workload.stage_in.submitted", "workload.start.prepared", "workload.stage_out.submitted"]


async def test_a_step_of_a_process_paused_past_its_lease_changes_nothing(site: Site) -> None:
    """Each of the points is passed once with a pause, by a job of its own: jobs are submitted until
    three were held up for a lease. The other process is sometimes the first to take a step.
    """
    pauses = ",".join(f"{point}=sleep:{2 * LEASE_S}" for point in POINTS)
    paused, _ = await site.start("paused", pauses)
    other, _ = await site.start("other")
    names: list[str] = []
    held_up = 0
    while held_up < len(POINTS):
        assert len(names) < 30, "the points were not passed"
        names.append(await site.submit(paused, f"job-{len(names)}"))
        (job,) = await site.ended(other, names[-1:])
        assert job.state == states.DONE, job.failure
        took_us = job.end_time.ToMicroseconds() - job.create_time.ToMicroseconds()
        held_up += took_us >= (LEASE_S - 0.2) * 1e6
    # The woken one goes on.
    last = await site.submit(paused, "last")
    assert (await site.ended(paused, [last]))[0].state == states.DONE
    assert [site.runs(f"job-{n}") for n in range(len(names))] == [1] * len(names)
    for name in [*names, last]:
        assert words(await other.history(name)) == ROUTE


async def test_jobs_of_a_killed_and_of_a_paused_process_end_in_anothers_hands(site: Site) -> None:
    (killed, its), (paused, its_too) = await asyncio.gather(
        site.start("killed"), site.start("paused")
    )
    submitting = [site.submit((killed, paused)[n % 2], f"job-{n}", 0.4) for n in range(16)]
    names = await asyncio.gather(*submitting)
    async with asyncio.timeout(PATIENCE_S):
        while not any([(await killed.get(name)).HasField("end_time") for name in names]):
            await asyncio.sleep(0.05)
    its.send_signal(signal.SIGKILL)
    await asyncio.sleep(1)
    its_too.send_signal(signal.SIGSTOP)
    third, _ = await site.start("third")
    jobs = await site.ended(third, names)
    its_too.send_signal(signal.SIGCONT)
    await asyncio.sleep(1)
    assert {job.state for job in jobs} == {states.DONE}
    assert {job.attempt for job in jobs} == {1}
    assert [site.runs(f"job-{n}") for n in range(16)] == [1] * 16
    for name in names:
        assert words(await paused.history(name)) == ROUTE
    assert overlap(jobs) <= PLACES
    assert len({job.number for job in jobs}) == 16
