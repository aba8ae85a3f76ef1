"""Movers, shims and payloads die; the server sleeps past its leases, or is restarted under load."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from faults import checks, lives
from faults.transfer_load import TransferLoad
from support import EmbeddedServer

import gridlane
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobState

SIZE_BYTES = 96 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server with one mover process, of the test's own."""
    environment = {"GRIDLANE_TRANSFER_WORKERS": "1", "GRIDLANE_TRANSFER_RETRY_DELAY_S": "0.1"}
    server = EmbeddedServer(tmp_path / "server", environment)
    try:
        yield server.start()
    finally:
        server.close()
        print(server.output)


@pytest.fixture
def task(server: EmbeddedServer, tmp_path: Path) -> lives.TaskLife:
    """A task whose payload would run for long."""
    return lives.KilledTask(server, tmp_path)


@pytest.mark.parametrize("victims", [("mover",), ("server",), ("mover", "server")], ids="+".join)
def test_a_copy_that_is_cut_off_is_made_again_and_leaves_nothing_half(
    server: EmbeddedServer, victims: tuple[str, ...]
) -> None:
    content = os.urandom(1 << 20) * (SIZE_BYTES >> 20)
    source, target = "LFN:/local/large", "LFN:/local/copy/large"
    job = gridlane.new_transfer({source: target})
    request_id = gridlane.uuid7()
    with lives.client_of(server) as client:
        client.storage.put(content, source)
        name = client.transfers.submit(job, request_id=request_id).name
        mover = lives.mover_processes(server)[0]
        cut = lives.until(lambda: _half_there(server), "the half of a file")
        mover.suspend()
        assert cut.exists(), "the copy was made before it could be cut off"
        assert not (server.data_dir / "storage/local/copy/large").exists()
        for victim in victims:
            mover.kill() if victim == "mover" else server.kill()
    if "server" in victims:
        server.start()
    with lives.client_of(server) as client:
        assert client.transfers.submit(job, request_id=request_id).name == name
        transfer = client.transfers.wait(name, timeout=lives.PATIENCE_S)
        checks.all_finished([transfer], [1])
        assert transfer.files[0].attempt == 2
        checks.transfer_history(list(client.transfers.events(name)), transfer)
        checks.storage(server.data_dir, client, {source: content, target: content})


def test_a_stop_that_reaches_the_movers_too_is_the_server_s_to_carry_out(
    server: EmbeddedServer,
) -> None:
    content = os.urandom(1 << 20) * (SIZE_BYTES >> 20)
    with lives.client_of(server) as client:
        client.storage.put(content, "LFN:/local/large")
        job = gridlane.new_transfer({"LFN:/local/large": "LFN:/local/copy/large"})
        name = client.transfers.submit(job).name
        lives.until(lambda: _half_there(server), "the half of a file")
        lives.mover_processes(server)[0].terminate()
    assert server.stop() == 0
    assert not checks.leftovers(server.data_dir)
    assert "ended" not in server.output
    server.start()
    with lives.client_of(server) as client:
        transfer = client.transfers.wait(name, timeout=lives.PATIENCE_S)
        checks.all_finished([transfer], [1])


@pytest.mark.timeout(240)
def test_what_was_acknowledged_ends_once_when_the_server_is_restarted_under_load(
    server: EmbeddedServer,
) -> None:
    server.port = int(server.address.rpartition(":")[2])
    load = TransferLoad(server)
    with load.going_on():
        for ends_well in (True, False):
            load.await_more(6)
            if ends_well:
                assert server.stop() == 0
            else:
                server.kill()
            server.start()
        load.await_more(3)
    load.end_well()
    print(f"{len(load.names)} transfer jobs while the server was stopped and killed")


def _half_there(server: EmbeddedServer) -> Path | None:
    folder = server.data_dir / "storage" / "local" / "copy"
    return next((path for path in folder.glob("*.part") if path.stat().st_size), None)


@pytest.mark.parametrize("with_server", [False, True], ids=["shim", "shim+server"])
def test_a_shim_that_is_killed_takes_its_payload_along_and_the_job_fails_clearly(
    server: EmbeddedServer, task: lives.TaskLife, with_server: bool
) -> None:
    _start_payload(server, task)
    if with_server:
        server.kill()
    (shim,) = task.shim_processes()
    payload = shim.children(recursive=True)
    assert payload
    shim.kill()
    if with_server:
        server.start()
    job = _ended(server, task)
    assert job.state == JobState.JOB_STATE_FAILED
    assert job.failure.failure_class == FailureClass.FAILURE_CLASS_BACKEND_LOST
    assert "gone" in job.failure.message
    assert job.failure.cure
    psutil.wait_procs(payload, timeout=lives.PATIENCE_S)
    assert not [process for process in payload if process.is_running()]


def test_a_payload_that_is_killed_fails_its_job_by_the_signal_s_name(
    server: EmbeddedServer, task: lives.TaskLife
) -> None:
    _start_payload(server, task)
    (shim,) = task.shim_processes()
    (payload,) = shim.children()
    payload.send_signal(signal.SIGKILL)
    job = _ended(server, task)
    assert job.state == JobState.JOB_STATE_FAILED
    assert job.failure.failure_class == FailureClass.FAILURE_CLASS_PAYLOAD_SIGNAL
    assert "SIGKILL" in job.failure.message


def test_a_payload_outlives_a_server_that_is_killed_and_one_that_is_stopped(
    server: EmbeddedServer, task: lives.TaskLife
) -> None:
    _start_payload(server, task)
    (shim,) = task.shim_processes()
    server.kill()
    server.start()
    assert server.stop() == 0
    assert shim.is_running()
    server.start()
    with lives.client_of(server) as client:
        client.tasks.cancel(task.name)
    assert _ended(server, task).state == JobState.JOB_STATE_KILLED


def _start_payload(server: EmbeddedServer, task: lives.TaskLife) -> None:
    with lives.client_of(server) as client:
        task.submit(client)
        task.await_payload(client)


def _ended(server: EmbeddedServer, task: lives.TaskLife) -> Job:
    """The job at its end, which was told once and accounted once."""
    task.watch()
    with lives.client_of(server) as client:
        task.await_accounting(client)
        job = client.jobs.get(task.name)
        checks.job_history(list(client.jobs.events(task.name)), job)
        transfers: list[TransferJob] = task.transfers(client)
        checks.accounting(list(client.accounting.records(job=task.name)), job, transfers)
        task.check_storage(client, transfers)
    task.check_executions()
    checks.nothing_runs(server.data_dir / "jobs")
    return job


class SleepingServer(lives.TaskLife):
    """A task whose server sleeps longer than its leases, as a machine that is suspended."""

    LEASE_S: ClassVar[float] = 5.0
    environment: ClassVar[dict[str, str]] = {
        "GRIDLANE_TRANSFER_LEASE_S": str(LEASE_S),
        "GRIDLANE_WORKLOAD_LEASE_S": str(LEASE_S),
        "GRIDLANE_WORKLOAD_STEP_TIMEOUT_S": "4",
        "GRIDLANE_TRANSFER_WORKERS": "1",
    }

    def meddle(self, client: gridlane.Client) -> None:
        """The server sleeps in the midst of bringing the inputs, and while the payload runs."""
        lives.until(lambda: list(client.transfers.list(job=self.name)), "the transfer of inputs")
        self._sleep()
        self.await_payload(client)
        self._sleep()

    def _sleep(self) -> None:
        process = psutil.Process(self.server.part("workload").pid)
        process.suspend()
        time.sleep(self.LEASE_S + 0.5)
        process.resume()


def test_a_server_that_slept_past_its_leases_goes_on_and_does_nothing_twice(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "server", SleepingServer.environment)
    life = SleepingServer(server, tmp_path)
    try:
        server.start()
        life.go_on()
        life.end_well()
        assert server.stop() == 0
    finally:
        server.close()
        print(server.output)
