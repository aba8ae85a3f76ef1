"""Cycles of the fault suite: a life, a server that kills itself at a failpoint of it, a new start.

Responsible for which failpoint is met in which life, for arming, for the proof that the server died
there and nowhere else, and for running cycles side by side. The lives are in `lives`,
`catalogue_lives`, `channel_lives`, `file_lives`, `key_lives`, `policy_lives`, `remote_lives`,
`storage_lives`, `transfer_lives`, `verb_lives` and `veto_lives`; five processes and the death of
one of them are `split_cycles`'.
"""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import grpc
from faults import (
    catalogue_lives,
    channel_lives,
    checks,
    file_lives,
    key_lives,
    lives,
    policy_lives,
    remote_lives,
    storage_lives,
    transfer_lives,
    verb_lives,
    veto_lives,
)
from support import COMMAND, EmbeddedServer, ServerProcess

import gridlane

KILLED: Final = -9
DEATH_SECONDS: Final = 15
_AFTERWARDS_SECONDS: Final = 1
_COMMAND_SECONDS: Final = 60
# As many cycles at once as the smallest machine has processors.
_AT_ONCE: Final = 2
# Only what shortens waits on purpose made; what is polled keeps its defaults, since a start must
# find everything by itself.
_ENVIRONMENT: Final = {"GRIDLANE_TRANSFER_RETRY_DELAY_S": "0.1", "GRIDLANE_TRANSFER_WORKERS": "1"}

# Failpoints that are never reached in this shape.
_UNREACHABLE: Final[Mapping[str, str]] = {
    "kit.postgresql.before_commit": "the databases are SQLite's",
}

# Where the life of an ordinary task does not come by.
_LIVES: Final[Mapping[str, tuple[type[lives.Life], ...]]] = {
    "authorization.change.committed": (key_lives.KeyLife, policy_lives.PolicyLife),
    "authorization.prune.committed": (policy_lives.PolicyLife,),
    "authorization.refusal.committed": (policy_lives.PolicyLife,),
    "authorization.signing_key.moved": (key_lives.KeyLife,),
    "authorization.signing_key.promoted": (key_lives.KeyLife,),
    "authorization.signing_key.published": (key_lives.KeyLife,),
    "authorization.signing_key.staged": (key_lives.KeyLife,),
    "authorization.signing_key.unstaged": (key_lives.KeyLife,),
    "transfer.activities.committed": (channel_lives.ManagedChannel,),
    "transfer.banned.committed": (storage_lives.BannedElement,),
    "transfer.channel.committed": (channel_lives.ManagedChannel,),
    "transfer.channel_files.committed": (channel_lives.ManagedChannel,),
    "transfer.optimizer.committed": (channel_lives.ManagedChannel,),
    "transfer.stranded.committed": (channel_lives.ManagedChannel,),
    "transfer.cancel.aborted": (lives.KilledInStaging, lives.KilledInDelivery),
    "transfer.cancel.committed": (lives.KilledInStaging, lives.KilledInDelivery),
    "transfer.content.removed": (file_lives.FilesLife,),
    "transfer.content.removing": (file_lives.FilesLife,),
    "transfer.content.unregistered": (file_lives.FilesLife,),
    "transfer.copy.ordered": (lives.TaskLife, remote_lives.RemoteTransfer),
    "transfer.copy.published": (
        lives.TaskLife,
        remote_lives.RemoteTransfer,
        transfer_lives.HoppedTransfer,
    ),
    "transfer.deadline.committed": (transfer_lives.DatedTransfer,),
    "transfer.hop.removed": (transfer_lives.HoppedTransfer,),
    "transfer.batch.committed": (verb_lives.VerbsLife,),
    "transfer.deletion.committed": (verb_lives.RemovalLife,),
    "transfer.files.canceled": (verb_lives.VerbsLife,),
    "transfer.held.committed": (verb_lives.VerbsLife,),
    "transfer.job.updated": (verb_lives.VerbsLife,),
    "transfer.publish.committed": (verb_lives.VerbsLife, transfer_lives.TriedAgain),
    "transfer.removal.claimed": (verb_lives.RemovalLife,),
    "transfer.removal.committed": (verb_lives.RemovalLife,),
    "transfer.removal.removed": (verb_lives.RemovalLife,),
    "transfer.stage.abandoned": (verb_lives.VerbsLife,),
    "transfer.stage.committed": (verb_lives.VerbsLife,),
    "transfer.sweep.committed": (verb_lives.VerbsLife,),
    "transfer.registration.claimed": (catalogue_lives.CatalogueLife,),
    "transfer.registration.committed": (catalogue_lives.CatalogueLife,),
    "transfer.registration.registered": (catalogue_lives.CatalogueLife,),
    "transfer.replica.registered": (file_lives.FilesLife, catalogue_lives.CatalogueLife),
    "transfer.replica.unregistered": (catalogue_lives.CatalogueLife,),
    "transfer.rights.committed": (veto_lives.VetoedTransfer,),
    "transfer.storage.committed": (storage_lives.BannedElement,),
    "transfer.report.committed": (
        lives.TaskLife,
        file_lives.RetriedTransfer,
        transfer_lives.HoppedTransfer,
        transfer_lives.SeveralSources,
    ),
    "workload.cancel.asked": (lives.KilledInStaging, lives.KilledInDelivery),
    "workload.end.noted": (lives.PlainTask, lives.FailingTask),
    "workload.end.seen": (lives.TaskLife, lives.FailingTask),
    "workload.kill.asked": (lives.KilledTask,),
    "workload.kill.committed": (lives.KilledTask, lives.KilledInStaging, lives.KilledInDelivery),
    "workload.kill.noted": (lives.KilledTask, lives.KilledInDelivery),
    "workload.prune.committed": (lives.PrunedTask,),
    "workload.queue.committed": (lives.PlainTask,),
    "workload.rights.noted": (veto_lives.VetoedJob,),
}

# Those of a data directory's very first start; all other cycles begin on a copy of one that has had
# its first start, which takes several times as long as the second.
_OF_FIRST_START: Final = frozenset({"authorization.key.written"})

ALSO_AT_FIRST_START: Final = frozenset({"authorization.signing_key.moved"})
"""Those that other lives are killed at, and that a very first start comes by too."""

# Failpoints that a life comes by more than once, and at which hits it is killed besides the first:
# the second of two files, the outputs after the inputs, commits along the whole way.
_LATER_HITS: Final[Mapping[tuple[str, type[lives.Life]], tuple[int, ...]]] = {
    ("authorization.change.committed", key_lives.KeyLife): (2,),
    ("authorization.change.committed", policy_lives.PolicyLife): (2, 3, 4, 5, 6, 7),
    ("authorization.signing_key.promoted", key_lives.KeyLife): (2,),
    ("authorization.signing_key.published", key_lives.KeyLife): (2, 3),
    ("authorization.signing_key.staged", key_lives.KeyLife): (2,),
    ("authorization.signing_key.unstaged", key_lives.KeyLife): (2,),
    ("kit.group_commit.before_commit", lives.TaskLife): (2, 5, 13),
    ("kit.group_commit.committed", lives.TaskLife): (3, 8),
    ("reporting.job_events.acknowledged", lives.TaskLife): (3,),
    ("reporting.job_events.committed", lives.TaskLife): (3,),
    ("reporting.transfer_events.acknowledged", lives.TaskLife): (3,),
    ("reporting.transfer_events.committed", lives.TaskLife): (3,),
    ("transfer.banned.committed", storage_lives.BannedElement): (2,),
    ("transfer.channel.committed", channel_lives.ManagedChannel): (2,),
    ("transfer.cancel.aborted", lives.KilledInDelivery): (2,),
    ("transfer.cancel.committed", lives.KilledInDelivery): (2,),
    ("transfer.claim.committed", lives.TaskLife): (3,),
    ("transfer.copy.ordered", lives.TaskLife): (3,),
    ("transfer.copy.ordered", remote_lives.RemoteTransfer): (2,),
    ("transfer.copy.published", remote_lives.RemoteTransfer): (2,),
    ("transfer.copy.published", lives.TaskLife): (2, 3),
    ("transfer.report.committed", lives.TaskLife): (2, 4),
    ("transfer.report.committed", transfer_lives.SeveralSources): (2,),
    ("transfer.rights.committed", veto_lives.VetoedTransfer): (2,),
    ("transfer.storage.committed", storage_lives.BannedElement): (2, 3, 4, 5),
    ("transfer.submit.committed", lives.TaskLife): (2,),
    ("transfer.stage.committed", verb_lives.VerbsLife): (2,),
    ("transfer.sweep.committed", verb_lives.VerbsLife): (2, 3),
    ("transfer.upload.published", file_lives.FilesLife): (2,),
    ("transfer.upload.registered", file_lives.FilesLife): (2,),
    ("workload.rights.noted", veto_lives.VetoedJob): (2,),
}


@dataclass(frozen=True)
class Cycle:
    """A life whose server dies at the given hit of a failpoint.

    Parameters:
        service: where there is a process for each, the one whose process dies.
    """

    failpoint: str
    life: type[lives.Life]
    hit: int = 1
    service: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.hit}-{self.life.__name__}"

    @property
    def name(self) -> str:
        """The failpoint, and the service that it is met in unless its name says that."""
        said = not self.service or self.failpoint.startswith(f"{self.service}.")
        return self.failpoint if said else f"{self.failpoint}:{self.service}"


@dataclass(frozen=True)
class Outcome:
    """What a cycle came to: how often each failpoint killed a server, and how long it took."""

    restarts: Mapping[str, int]
    seconds: float
    where: str = "one process on SQLite"


def registered() -> list[str]:
    """The failpoints that one process on SQLite comes by."""
    names = every_failpoint()
    assert names >= _UNREACHABLE.keys()
    return sorted(names - _UNREACHABLE.keys())


@cache
def every_failpoint() -> frozenset[str]:
    """All failpoints, as the command knows them."""
    ran = subprocess.run(
        [COMMAND, "failpoints"],
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=True,
    )
    return frozenset(ran.stdout.split())


def first_cycles(names: Iterable[str]) -> list[Cycle]:
    """A cycle for each of these failpoints; one that nobody knows is looked for in any task."""
    return [Cycle(name, life) for name in names for life in lives_of(name)]


def all_cycles(names: Iterable[str]) -> list[Cycle]:
    """Every cycle for these failpoints: at their first hits, and at later ones."""
    first = first_cycles(names)
    later = [Cycle(name, life, hit) for (name, life), hits in _LATER_HITS.items() for hit in hits]
    return sorted([*first, *later], key=str)


def lives_of(failpoint: str) -> tuple[type[lives.Life], ...]:
    """The lives that come by a failpoint."""
    return _LIVES.get(failpoint, (lives.TaskLife,))


class Cycles:
    """Runs cycles, some at once, each one time, and anew when it failed and is asked for again.

    Parameters:
        folder: for their data directories.
        at_once: how many.
    """

    def __init__(self, folder: Path, at_once: int = _AT_ONCE) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="cycle")
        self._begun: dict[Cycle, Future[Outcome]] = {}
        self._in_turn: Future[Outcome] | None = None

    def begin(self, cycles: Iterable[Cycle]) -> None:
        """Begins those that were not begun before."""
        for cycle in cycles:
            if cycle not in self._begun:
                self._begun[cycle] = self._pool.submit(self._run, cycle)

    def in_turn(self) -> Outcome:
        """Waits for the life of a task whose server dies at one failpoint after the other."""
        self.begin_in_turn()
        assert self._in_turn is not None
        try:
            return self._in_turn.result()
        except BaseException:
            self._in_turn = None
            raise

    def begin_in_turn(self) -> None:
        """Begins that life; the first thing to begin, since it takes longest."""
        if self._in_turn is None:
            folder = _emptied(self._folder / "in-turn")
            self._in_turn = self._pool.submit(run_in_turn, registered(), lives.TaskLife, folder)

    def outcome(self, cycle: Cycle) -> Outcome:
        """Waits for a cycle; raises what it failed with."""
        self.begin([cycle])
        try:
            return self._begun[cycle].result()
        except BaseException:
            del self._begun[cycle]
            raise

    def outcomes(self) -> list[Outcome]:
        """Of all that was run and went well."""
        futures = [*self._begun.values(), *filter(None, [self._in_turn])]
        ended = [future for future in futures if future.done() and not future.cancelled()]
        return [future.result() for future in ended if future.exception() is None]

    def close(self) -> None:
        """Begins no more, and waits for those under way."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, cycle: Cycle) -> Outcome:
        folder = _emptied(self._folder / str(cycle))
        if cycle.failpoint not in _OF_FIRST_START:
            shutil.copytree(self._had_first_start(), folder / "data")
        return run(cycle, folder)

    def _had_first_start(self) -> Path:
        """A data directory of a server that was started once, and stopped."""
        with self._lock:
            root = self._folder / "first-start"
            if not root.exists():
                server = EmbeddedServer(root)
                try:
                    assert server.start().stop() == 0
                finally:
                    server.close()
            return root / "data"


def _emptied(folder: Path) -> Path:
    """A folder, without what an earlier try left there."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def run(cycle: Cycle, folder: Path) -> Outcome:
    """One cycle: dies at the failpoint, starts again, goes on, ends once."""
    begun = time.monotonic()
    server, life = _new(cycle.life, folder)
    try:
        life.prepare()
        died = _lives_until_it_dies(server, life, f"{cycle.failpoint}=kill@{cycle.hit}")
        assert died == [cycle.failpoint], died
        server.start()
        life.go_on()
        life.end_well()
        _stop_well(server)
    except BaseException:
        print(server.output)
        raise
    finally:
        life.close()
        server.close()
    return Outcome({cycle.failpoint: 1}, time.monotonic() - begun)


def run_in_turn(names: Iterable[str], life_type: type[lives.Life], folder: Path) -> Outcome:
    """One life whose server dies at one failpoint after the other, wherever it comes by first."""
    begun = time.monotonic()
    server, life = _new(life_type, folder)
    left, restarts = set(names), dict.fromkeys(names, 0)
    try:
        life.prepare()
        while left:
            armed = ",".join(sorted(left))
            died = _lives_until_it_dies(server, life, armed, may_live=True)
            if not died:
                break
            for name in died[-1:]:
                restarts[name] += 1
                left.remove(name)
        else:
            server.start()
            life.go_on()
        life.end_well()
        _stop_well(server)
    except BaseException:
        print(server.output)
        raise
    finally:
        life.close()
        server.close()
    return Outcome(restarts, time.monotonic() - begun)


def _stop_well(server: EmbeddedServer) -> None:
    """Stops a server, which goes without complaint and leaves its databases sound."""
    assert server.stop() == 0
    checks.databases(server)
    assert not checks.complaints(server.output)


def _new(life: type[lives.Life], folder: Path) -> tuple[EmbeddedServer, lives.Life]:
    own = folder / "own"
    own.mkdir(parents=True)
    server = EmbeddedServer(folder, {**_ENVIRONMENT, **life.environment})
    return server, life(server, own)


def _lives_until_it_dies(
    server: EmbeddedServer, life: lives.Life, armed: str, *, may_live: bool = False
) -> list[str]:
    """Starts an armed server, and goes on with the life until the server is dead.

    Parameters:
        may_live: whether the life may come to its end without a death.

    Returns:
        The failpoints that killed servers of this life so far, as they wrote themselves down.
    """
    log = server.root / "failpoints.log"
    before = written(log)
    server.launch({"GRIDLANE_FAILPOINTS": armed, "GRIDLANE_FAILPOINT_LOG": str(log)})
    if serves(server):
        answered = go_on(life)
        # What comes after the last answer is still under way.
        dead = dies(server, _AFTERWARDS_SECONDS if may_live else DEATH_SECONDS)
        assert dead or (may_live and answered is None), f"{armed} was not hit: {answered!r}"
    if server.alive:
        return []
    assert server.wait_dead() == KILLED
    died = written(log)
    assert len(died) == len(before) + 1, f"the server died by something else: {died}"
    return died


def go_on(life: lives.Life) -> Exception | None:
    """Goes on with a life; what cut it short, if anything did."""
    try:
        life.go_on()
    except (gridlane.GridlaneError, grpc.RpcError) as error:
        return error
    return None


def serves(server: ServerProcess) -> bool:
    """Waits for a server that may die on its way; whether it did not."""
    try:
        server.wait_until_ready()
    except AssertionError:
        if server.alive:
            raise
        return False
    return True


def dies(server: ServerProcess, seconds: float = DEATH_SECONDS) -> bool:
    """Waits for a server's death; whether it came."""
    deadline = time.monotonic() + seconds
    while server.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def written(log: Path) -> list[str]:
    """The failpoints that killed a process, as it wrote them down."""
    return log.read_text().split() if log.exists() else []
