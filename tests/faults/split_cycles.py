"""Cycles with one process a service, on PostgreSQL: one of five dies at a failpoint and comes back.

Responsible for which services meet which failpoints, for the deployments that lives are told one
after the other, and for the death and the start of one process while the others go on and the life
does, too. Lives, and what must hold after them, are those of one process.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import grpc
from faults import cycles, lives
from faults.cycles import DEATH_SECONDS, KILLED, Cycle, Cycles, Outcome
from split import SplitServer

import gridlane

WHERE: Final = "one process a service on PostgreSQL"

# What the life of a process that died had taken is taken up when its lease is over: 2 s, or the
# least that Transfer lets one set. What nobody tells of is asked for as often as that.
ENVIRONMENT: Final[Mapping[str, str]] = {
    "GRIDLANE_REPORTING_LEASE_S": "2",
    "GRIDLANE_REPORTING_RETRY_S": "0.2",
    "GRIDLANE_TRANSFER_LEASE_S": "5",
    "GRIDLANE_TRANSFER_POLL_S": "0.5",
    "GRIDLANE_TRANSFER_RETRY_DELAY_S": "0.1",
    "GRIDLANE_TRANSFER_WORKERS": "1",
    "GRIDLANE_WORKLOAD_LEASE_S": "2",
    "GRIDLANE_WORKLOAD_MAX_RETRY_DELAY_S": "1",
    "GRIDLANE_WORKLOAD_POLL_S": "0.5",
    "GRIDLANE_WORKLOAD_STEP_TIMEOUT_S": "1.8",
}

# Failpoints that are never reached in this shape.
UNREACHABLE: Final[Mapping[str, str]] = {
    "authorization.key.written": "`gridlane-server init` writes the key; no service does",
}

# The kit's are met wherever its code runs.
_SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "kit.group_commit.before_commit": ("transfer", "workload"),
    "kit.group_commit.committed": ("transfer", "workload"),
    "kit.postgresql.before_commit": ("authorization", "transfer", "workload", "reporting"),
}

# At which hits a process is killed besides the first: commits along the whole way, the second of
# two files, the outputs after the inputs.
_LATER_HITS: Final[Mapping[tuple[str, str], tuple[int, ...]]] = {
    ("kit.group_commit.before_commit", "transfer"): (3,),
    ("kit.group_commit.before_commit", "workload"): (4,),
    ("kit.postgresql.before_commit", "reporting"): (6,),
    ("kit.postgresql.before_commit", "transfer"): (8, 14),
    ("kit.postgresql.before_commit", "workload"): (6, 12, 18),
    ("transfer.copy.published", "transfer"): (3,),
    ("transfer.report.committed", "transfer"): (2,),
    ("transfer.submit.committed", "transfer"): (2,),
}

_AWAY_SECONDS: Final = 10


def reachable() -> list[str]:
    """The failpoints that one of the processes comes by."""
    names = cycles.every_failpoint()
    assert names >= UNREACHABLE.keys() | _SERVICES.keys()
    return sorted(names - UNREACHABLE.keys())


def all_cycles() -> list[Cycle]:
    """Every cycle of this shape."""
    first = [
        Cycle(name, life, service=service)
        for name in reachable()
        for service in services_of(name)
        for life in cycles.lives_of(name)
    ]
    later = [
        Cycle(name, lives.TaskLife, hit, service)
        for (name, service), hits in _LATER_HITS.items()
        for hit in hits
    ]
    return sorted([*first, *later], key=str)


def services_of(failpoint: str) -> tuple[str, ...]:
    """The services whose processes meet a failpoint; by its name, unless it is the kit's."""
    return _SERVICES.get(failpoint, (failpoint.partition(".")[0],))


class SplitCycles(Cycles):
    """Runs cycles, some at once, those after each other on the same running deployment.

    Parameters:
        folder: for the deployments.
        new_databases: makes a deployment's databases; gives the template of their URLs.
        at_once: how many deployments.
    """

    def __init__(self, folder: Path, new_databases: Callable[[], str], at_once: int) -> None:
        super().__init__(folder, at_once)
        self._new_databases = new_databases
        self._making = threading.Lock()
        self._made: list[SplitServer] = []
        self._idle: SimpleQueue[SplitServer] = SimpleQueue()

    def close(self) -> None:
        super().close()
        for server in self._made:
            server.close()

    def _run(self, cycle: Cycle) -> Outcome:
        server = self._deployment()
        try:
            outcome = run(cycle, server, self._folder / f"own-{cycle}")
        except BaseException:
            # Nobody else's life is to begin with what is left of this one.
            server.close()
            raise
        self._idle.put(server)
        return outcome

    def _deployment(self) -> SplitServer:
        """One that is idle, else a new one."""
        if not self._idle.empty():
            return self._idle.get()
        with self._making:
            root = self._folder / f"deployment-{len(self._made)}"
            server = SplitServer(root, self._new_databases(), ENVIRONMENT)
            self._made.append(server)
            return server.start()


def run(cycle: Cycle, server: SplitServer, folder: Path) -> Outcome:
    """One cycle: a process dies at the failpoint and comes back; the life goes on and ends once."""
    begun = time.monotonic()
    written = len(server.output)
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier try left
    folder.mkdir()
    life = cycle.life(server, folder)
    part = server.part(cycle.service)
    usual = dict(part.environment)
    try:
        part.environment.update(life.environment)
        life.prepare()
        _dies_and_comes_back(life, server, cycle)
        goes_on(life)
        life.end_well()
    except BaseException:
        print(server.output[written:])
        raise
    finally:
        life.close()
    if part.environment != usual:
        part.environment = usual
        part.stop()
        part.start()
    shutil.rmtree(folder)
    return Outcome({cycle.name: 1}, time.monotonic() - begun, WHERE)


def _dies_and_comes_back(life: lives.Life, server: SplitServer, cycle: Cycle) -> None:
    """Arms one process; it dies while the life goes on, and is started again meanwhile."""
    part = server.part(cycle.service)
    log = server.root / "failpoints.log"
    before = cycles.written(log)
    if part.alive:
        assert part.stop() == 0
    armed = f"{cycle.failpoint}=kill@{cycle.hit}"
    part.launch({"GRIDLANE_FAILPOINTS": armed, "GRIDLANE_FAILPOINT_LOG": str(log)})
    with ThreadPoolExecutor(1, thread_name_prefix="life") as others:
        going = others.submit(cycles.go_on, life) if cycles.serves(part) else None
        # However long the life takes to come by, on a machine that is busy.
        while part.alive and going is not None and not going.done():
            time.sleep(0.02)
        assert cycles.dies(part, DEATH_SECONDS), f"{armed} was not hit: {going}"
        assert part.wait_dead() == KILLED
        part.start()
        if going is not None:
            going.result()
    assert cycles.written(log) == [*before, cycle.failpoint]


def goes_on(life: lives.Life) -> None:
    """Goes on with a life to its end; called again while a process that came back is not found."""
    deadline = time.monotonic() + _AWAY_SECONDS
    while (error := cycles.go_on(life)) is not None:
        assert time.monotonic() < deadline, error
        assert _is_away(error), error
        time.sleep(0.1)


def _is_away(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return isinstance(error, gridlane.Unavailable)


def hit(outcomes: Iterable[Outcome]) -> set[str]:
    """The failpoints, each with its service, that killed a process."""
    return {name for outcome in outcomes for name, count in outcome.restarts.items() if count}
