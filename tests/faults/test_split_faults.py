"""One process a service, on PostgreSQL, under load: replicas sleep and die, the database crashes,
services are away, the network between two of them breaks, all are restarted one after the other.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from faults import cycles, lives
from faults.crowd import OneOfMany, Plain, Producer, Waiter, crowd, end_well, live
from faults.split_cycles import ENVIRONMENT
from faults.transfer_load import TransferLoad
from postgresql import PostgresqlServer
from split import SERVICES, SplitServer
from support import ServerProcess
from tcp_proxy import TcpProxy, Trouble, half_close, reset

import gridlane
from gridlane.retry import passes_by_itself
from gridlane.workload.v1.job_pb2 import JobState

pytestmark = [pytest.mark.five_processes, pytest.mark.timeout(180)]

STREAM = 20
# Of each of those who submit, before the database's last crash is over.
SUBMITTED = 10
# Beyond the longest lease, so that others may take what a sleeper holds.
SLEEP_S = float(ENVIRONMENT["GRIDLANE_TRANSFER_LEASE_S"]) + 1
# Longer than a policy is good for without being confirmed.
AWAY_S = 62


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that tests may crash."""
    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture
def replica(server: SplitServer, tmp_path: Path) -> Iterator[dict[str, ServerProcess]]:
    """A second process of Transfer and of Workload, on ports of their own; not yet started."""
    folder = tmp_path / "replica"
    made = {service: server.another(service, folder) for service in ("transfer", "workload")}
    yield made
    for process in made.values():
        process.close()
        print(process.output)


@pytest.mark.parametrize(
    ("killed", "failpoint", "asleep"),
    [
        ("transfer", "transfer.copy.published", "workload"),
        ("workload", "workload.start.launched", "transfer"),
    ],
)
def test_tasks_end_once_while_one_replica_dies_in_a_step_and_another_sleeps_past_its_lease(
    server: SplitServer,
    replica: dict[str, ServerProcess],
    tmp_path: Path,
    killed: str,
    failpoint: str,
    asleep: str,
) -> None:
    replica[asleep].start()
    # It dies at a step of its own, which shows that it takes part.
    replica[killed].start({"GRIDLANE_FAILPOINTS": f"{failpoint}=kill@2"})
    many = crowd(OneOfMany, STREAM, server, tmp_path)
    sleeper = psutil.Process(replica[asleep].pid)
    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(live, many)
        time.sleep(1)
        sleeper.suspend()
        time.sleep(SLEEP_S)
        sleeper.resume()
        living.result()
    # Usually it has died by then; the other process of the service may have taken most of the work.
    while replica[killed].alive and len(many) < 5 * STREAM:
        more = crowd(OneOfMany, 4, server, tmp_path)
        live(more)
        many = [*many, *more]
    assert replica[killed].wait_dead() == cycles.KILLED
    assert replica[asleep].stop() == 0
    end_well(many)


def test_what_was_acknowledged_is_there_once_when_the_database_crashes(
    server: SplitServer, database: PostgresqlServer
) -> None:
    crashed = threading.Event()

    def submit() -> list[str]:
        """Submits tasks, each until it is acknowledged; returns their jobs."""
        names: list[str] = []
        with lives.client_of(server) as client:
            while not crashed.is_set() or len(names) < SUBMITTED:
                names.append(acknowledged(client))
                time.sleep(0.1)  # as many jobs as run to their ends in a short while
        return names

    with lives.client_of(server) as client:
        before = {job.name for job in client.jobs.list()}
    with ThreadPoolExecutor(3) as pool:
        submitting = [pool.submit(submit) for _ in range(3)]
        try:
            for away_s in (0.0, 1.5):
                time.sleep(1)
                database.restart(away_s)
        finally:
            crashed.set()
        names = [name for done in submitting for name in done.result()]
    with lives.client_of(server, gridlane.RetryPolicy()) as client:
        there = {job.name for job in client.jobs.list()} - before
        assert there == set(names)
        assert len(there) == len(names)
        for name in names:
            assert client.jobs.wait(name, timeout=60).state == JobState.JOB_STATE_DONE
    print(f"{len(names)} jobs acknowledged")


def acknowledged(client: gridlane.Client) -> str:
    """Submits a task until it is taken, without the client's own retries; returns the job.

    Whatever is refused must be what clients try again.
    """
    job, request_id = gridlane.new_job(["true"]), gridlane.uuid7()
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.tasks.submit(job, request_id=request_id).job.name
        except gridlane.GridlaneError as error:
            if time.monotonic() > deadline or not passes_by_itself(error):
                raise
        time.sleep(0.05)


class Begun(OneOfMany):
    """Sees Authorization away for longer than a policy is good for."""

    excused = "the policy is stale"


class Queued(Plain):
    """The same, for what needs no files."""

    excused = Begun.excused


def test_what_was_queued_goes_on_when_services_come_back_after_a_minute(
    server: SplitServer, tmp_path: Path
) -> None:
    away = [server.part(service) for service in ("authorization", "transfer", "reporting")]
    begun = crowd(Begun, 3, server, tmp_path)
    queued = crowd(Queued, 3, server, tmp_path)
    with lives.client_of(server) as client:
        for life in begun:
            life.submit(client)
        for part in away:
            part.kill()
        gone = time.monotonic()
        for life in queued:
            life.submit(client)
        time.sleep(max(0.0, AWAY_S - (time.monotonic() - gone)))
        with pytest.raises(gridlane.GridlaneError) as refused:
            next(iter(client.jobs.list()))
        assert refused.value.reason == "POLICY_STALE"
    for part in away:
        part.launch()
    for part in away:
        part.wait_until_ready()
    live([*begun, *queued])
    end_well([*begun, *queued])


@pytest.fixture
def proxy(server: SplitServer) -> Iterator[TcpProxy]:
    """Between the gateway and Workload."""
    proxy = TcpProxy(server.part("workload").address)
    gateway = server.part("gateway")
    gateway.stop()
    gateway.start({"GRIDLANE_PEERS__WORKLOAD": proxy.address})
    yield proxy
    proxy.close()
    gateway.stop()
    gateway.start()


@pytest.mark.parametrize("trouble", [reset, half_close])
@pytest.mark.parametrize("answers", [False, True], ids=["requests", "answers"])
def test_a_connection_that_breaks_between_two_services_makes_no_job_twice(
    server: SplitServer, proxy: TcpProxy, trouble: Trouble, answers: bool
) -> None:
    pieces = range(1, 6)
    proxy.delay_s = 0.01
    with lives.client_of(server, gridlane.RetryPolicy()) as client:
        before = {job.name for job in client.jobs.list()}
        names = []
        for piece in pieces:
            proxy.at(trouble, answers=answers, piece=piece)
            names.append(submitted_twice(client))
        there = [job.name for job in client.jobs.list() if job.name not in before]
    assert sorted(there) == sorted(names)
    assert proxy.troubles == len(pieces)


def test_a_slow_connection_between_two_services_makes_no_job_twice(
    server: SplitServer, proxy: TcpProxy
) -> None:
    with lives.client_of(server, gridlane.RetryPolicy()) as client:
        before = {job.name for job in client.jobs.list()}
        names = []
        for delay_s in (0.1, 0.4):
            proxy.delay_s = delay_s
            names.append(submitted_twice(client))
        there = [job.name for job in client.jobs.list() if job.name not in before]
    assert sorted(there) == sorted(names)


def submitted_twice(client: gridlane.Client) -> str:
    """Submits a task, and again with the same request id; returns the one job."""
    job, request_id = gridlane.new_job(["true"]), gridlane.uuid7()
    names = {client.tasks.submit(job, request_id=request_id).job.name for _ in range(2)}
    (name,) = names
    return name


def test_no_call_fails_and_no_watch_misses_an_event_while_each_service_is_restarted(
    server: SplitServer, tmp_path: Path
) -> None:
    rolled = threading.Event()

    def work() -> Sequence[OneOfMany]:
        """One task after the other, each watched."""
        done: list[OneOfMany] = []
        while not rolled.is_set():
            (life,) = crowd(Producer, 1, server, tmp_path)
            life.go_on()
            done.append(life)
        return done

    waiters = [life for life in crowd(Waiter, 2, server, tmp_path) if isinstance(life, Waiter)]
    with ThreadPoolExecutor(5) as pool:
        watching = [pool.submit(life.go_on) for life in waiters]
        working = [pool.submit(work) for _ in range(3)]
        try:
            for service in SERVICES:
                assert server.part(service).stop() == 0
                server.part(service).start()
        finally:
            rolled.set()
            for life in waiters:
                life.let_go()
        for watch in watching:
            watch.result()
        many = [life for worker in working for life in worker.result()]
    end_well([*many, *waiters])
    print(f"{len(many)} tasks while five services were restarted")


def test_no_transfer_is_lost_or_moved_twice_while_both_processes_of_transfer_are_restarted(
    server: SplitServer, replica: dict[str, ServerProcess]
) -> None:
    both = (server.part("transfer"), replica["transfer"].start())
    load = TransferLoad(server)
    with load.going_on():
        for process in both:
            load.await_more(6)
            assert process.stop() == 0
            process.start()
        load.await_more(3)
    load.end_well()
    assert replica["transfer"].stop() == 0
    print(f"{len(load.names)} transfer jobs while both processes of Transfer were restarted")
