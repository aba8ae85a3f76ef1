"""A full disk under a whole server: refused cleanly, alive, and with room again on it goes."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from faults import checks, lives
from support import EmbeddedServer

import gridlane
from gridlane.reporting.v1.accounting_record_pb2 import AccountingRecord
from gridlane.workload.v1.job_pb2 import Job, JobState

# What a file system hands out at last.
BLOCK_BYTES = 4096
MANY = 500
FULL_SECONDS = 3
OUTPUT = b"made before the disk was full\n"

Mount = Callable[[str], EmbeddedServer]


@pytest.fixture
def server_on(tmp_path: Path) -> Iterator[Mount]:
    """Starts a server whose data directory is a small file system; takes tmpfs' options."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    # Waits between attempts grow while the disk is full; the tests do not sit them out.
    server = EmbeddedServer(tmp_path, {"GRIDLANE_WORKLOAD_MAX_RETRY_DELAY_S": "0.5"})
    server.data_dir.mkdir()
    mounted: list[Path] = []

    def start(options: str) -> EmbeddedServer:
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(server.data_dir)]
        ran = subprocess.run(mount, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            pytest.skip(f"no tmpfs can be mounted here: {ran.stderr.strip()}")
        mounted.append(server.data_dir)
        return server.start()

    try:
        yield start
    finally:
        server.close()
        print(server.output)
        for folder in mounted:
            checks.nothing_runs(folder / "jobs")
            subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_cleanly_and_all_that_was_accepted_ends(
    server_on: Mount, tmp_path: Path
) -> None:
    server = server_on("size=16m")
    ballast, started, go = server.data_dir / "ballast", tmp_path / "started", tmp_path / "go"
    with lives.client_of(server) as client:
        client.storage.put(b"before", "LFN:/local/before")
        running = client.tasks.submit(_waiting(started, go)).job.name
        lives.until(started.exists, "the payload's start")
        _take_all_blocks(ballast)
        accepted, refused = _submit_until_refused(client)
        _is_no_space(refused)
        with pytest.raises(gridlane.GridlaneError) as caught:
            client.storage.put(bytes(BLOCK_BYTES * 64), "LFN:/local/large")
        _is_no_space(caught.value)
        # The payload ends while nobody can write that down.
        go.touch()
        time.sleep(FULL_SECONDS)
        assert server.alive
        assert b"".join(client.storage.read("LFN:/local/before")) == b"before"

        ballast.unlink()
        client.storage.put(bytes(BLOCK_BYTES), "LFN:/local/after")
        accepted |= {running, client.tasks.submit(_plain()).job.name}
        _all_end(client, accepted)
        there = {
            "LFN:/local/before": b"before",
            "LFN:/local/after": bytes(BLOCK_BYTES),
            "LFN:/local/made": OUTPUT,
        }
        checks.storage(server.data_dir, client, there)
    assert server.stop() == 0
    checks.databases(server)


def test_a_disk_that_takes_no_more_files_holds_jobs_up_and_fails_none(server_on: Mount) -> None:
    server = server_on("size=64m,nr_inodes=200")
    with lives.client_of(server) as client:
        client.storage.put(b"input", "LFN:/local/input")
        ballast = _take_all_files(server.data_dir / "ballast")
        plain = client.tasks.submit(_plain()).job.name
        staging = gridlane.new_job("true", inputs={"input": "LFN:/local/input"})
        staging_name = client.tasks.submit(staging).job.name
        time.sleep(FULL_SECONDS)
        held_up = [job.state for job in client.jobs.list()]
        assert held_up == [JobState.JOB_STATE_STAGING, JobState.JOB_STATE_MATCHED]
        for file in ballast:
            file.unlink()
        _all_end(client, {plain, staging_name})
    assert server.stop() == 0
    checks.databases(server)
    assert not checks.complaints(server.output)


def _all_end(client: gridlane.Client, names: set[str]) -> None:
    """These jobs, and no others, are there; each ends well, is told of and accounted once."""
    for name in names:
        job = client.tasks.wait(name, timeout=lives.PATIENCE_S).job
        assert job.state == JobState.JOB_STATE_DONE, job
        checks.job_history(list(client.jobs.events(name)), job)
        lives.until(partial(_accounted, client, name), "the accounting")
    assert {job.name for job in client.jobs.list()} == names


def _accounted(client: gridlane.Client, name: str) -> list[AccountingRecord]:
    return list(client.accounting.records(job=name, kind=None))


def _plain() -> Job:
    return gridlane.new_job("true", environment={"PADDING": "x" * 20_000})


def _waiting(started: Path, go: Path) -> Job:
    """A job that makes its output, says so, and ends when it may."""
    text = OUTPUT.decode().strip()
    program = f"echo '{text}' > made; touch {started}; until test -e {go}; do sleep 0.05; done"
    return gridlane.new_job(["sh", "-c", program], outputs={"made": "LFN:/local/made"})


def _submit_until_refused(client: gridlane.Client) -> tuple[set[str], gridlane.GridlaneError]:
    """Submits until there is no room; what was accepted, and the refusal."""
    accepted: set[str] = set()
    for _ in range(MANY):
        try:
            accepted.add(client.tasks.submit(_plain()).job.name)
        except gridlane.GridlaneError as error:
            return accepted, error
    raise AssertionError(f"{MANY} jobs were accepted on a full disk")


def _is_no_space(error: gridlane.GridlaneError) -> None:
    assert isinstance(error, (gridlane.ResourceExhausted, gridlane.Unavailable)), error
    assert error.reason in ("NO_SPACE", "STORE_UNAVAILABLE"), error


def _take_all_blocks(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, BLOCK_BYTES):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def _take_all_files(folder: Path) -> list[Path]:
    folder.mkdir()
    made: list[Path] = []
    try:
        while True:
            file = folder / str(len(made))
            file.touch()
            made.append(file)
    except OSError:
        return made
