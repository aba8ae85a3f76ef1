"""Short lives of tasks, told to a server that may die at any point of them.

Responsible for what a client does: the same calls again after each start, with the same request
ids, as far as they were not answered; and for what must hold once the life is over. Killing and
starting the server is `cycles`'; what holds of every life is `checks`.
"""

import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar

import psutil
from faults import checks, transfer_checks
from support import CALL_SECONDS, Deployment

import gridlane
from gridlane.transfer.v1.transfer_job_pb2 import (
    FileTransferState,
    TransferJob,
    TransferJobState,
)
from gridlane.workload.v1 import job_service_pb2, job_service_pb2_grpc
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job, JobState
from gridlane_workload import states

T = TypeVar("T")
Created: TypeAlias = Job | TransferJob

ACTIVE = TransferJobState.TRANSFER_JOB_STATE_ACTIVE
CANCELED = TransferJobState.TRANSFER_JOB_STATE_CANCELED
FINISHED = TransferJobState.TRANSFER_JOB_STATE_FINISHED

PATIENCE_S = 30
"""How long anything that must come is waited for."""

_NO_RETRY = gridlane.RetryPolicy(max_attempts=1)
_POLL_S = 0.03


def adler32(content: bytes) -> str:
    """The checksum as the client writes it."""
    return f"ADLER32:{zlib.adler32(content):08x}"


def until(look: Callable[[], T | None], what: str) -> T:
    """Asks until there is an answer; for what nobody tells of."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"in vain waited for: {what}"
        time.sleep(_POLL_S)


@contextmanager
def client_of(
    server: Deployment, retry: gridlane.RetryPolicy = _NO_RETRY
) -> Iterator[gridlane.Client]:
    """A client; unless told, one that never calls again by itself and so shows every failure."""
    environment = server.client_environment
    with gridlane.Client(
        environment["GRIDLANE_ADDRESS"],
        token_file=server.token_file,
        ca=environment.get("GRIDLANE_CA"),
        retry=retry,
        timeout=CALL_SECONDS,
    ) as client:
        yield client


def mover_processes(server: Deployment) -> list[psutil.Process]:
    """The worker processes of the server's file mover."""
    try:
        children = psutil.Process(server.part("transfer").pid).children()
    except psutil.NoSuchProcess:
        return []
    return [c for c in children if any("embedded.worker" in a for a in checks.arguments(c))]


class Life(ABC):
    """One life.

    Parameters:
        server: told the life; started and killed by others. It may have seen lives before.
        folder: of the life's own, outside the server's data directory.
    """

    environment: ClassVar[dict[str, str]] = {}
    """What its servers are set to."""
    retry: ClassVar[gridlane.RetryPolicy] = _NO_RETRY
    excused: ClassVar[str] = ""
    """What its servers may complain of: words of the log."""

    def __init__(self, server: Deployment, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.place = f"LFN:/local/{gridlane.uuid7()}"
        """Where its files are in the store."""
        self.begun = datetime.now(UTC)
        """Jobs that were made since are its own."""
        self._stored_before = checks.stored(server.data_dir)
        self._written_before = len(server.output)

    def client(self) -> AbstractContextManager[gridlane.Client]:
        """A client of the life's own; it never calls again by itself unless `retry` says so."""
        return client_of(self.server, self.retry)

    def prepare(self) -> None:  # noqa: B027 - most lives leave it
        """What a server must have gone through before the life begins; most need nothing."""

    def close(self) -> None:  # noqa: B027 - most lives leave it
        """Ends what the life runs beside the server; most run nothing."""

    @abstractmethod
    def go_on(self) -> None:
        """Lives to the end; called again after each start, and takes up where it was.

        Raises:
            gridlane.GridlaneError, grpc.RpcError: the server died.
        """

    def check(self) -> None:  # noqa: B027 - some lives leave it
        """What must hold in the end, while the server serves."""

    def end_well(self) -> None:
        """Checks the whole."""
        # What a process began that died is taken up when its lease is over.
        until(lambda: transfer_checks.work_is_done(self.server), "the end of all that was begun")
        self.check()
        until(lambda: checks.followed(self.server), "Reporting's acknowledgements")
        self.check_moves()
        checks.databases(self.server)
        complaints = checks.complaints(self.server.output[self._written_before :])
        assert not [line for line in complaints if not (self.excused and self.excused in line)]

    def check_moves(self) -> None:
        """What must hold of every file that was moved or removed since the life began, and of the
        places where that was.
        """
        since_us = int(self.begun.timestamp() * 1_000_000)
        transfer_checks.all_is_told_once(self.server, since_us)
        assert not checks.leftovers(self.server.data_dir, self.folder)

    def of_this_life(self, items: Iterable[Created]) -> list[str]:
        """The names of those jobs or transfer jobs that were made since the life began."""
        return [i.name for i in items if i.create_time.ToDatetime(UTC) >= self.begun]

    def check_stored(self, client: gridlane.Client, there: Mapping[str, bytes]) -> None:
        """The store has these files, whole, beside those that were there, each registered once."""
        checks.storage(self.server.data_dir, client, {**self._stored_before, **there})

    def suspend_movers(self) -> None:
        """Has the movers hang until `resume_movers`, or until their server dies."""
        for mover in mover_processes(self.server):
            mover.suspend()

    def resume_movers(self) -> None:
        """Wakes movers that were suspended; the server's death has ended them."""
        for mover in mover_processes(self.server):
            with suppress(psutil.NoSuchProcess):
                mover.resume()

    def shim_processes(self) -> list[psutil.Process]:
        """Processes that work in one of the server's job directories: shims, by their argument."""
        return checks.processes_of(self.server.data_dir / "jobs")


class TaskLife(Life):
    """A task with two inputs and two outputs that ends well."""

    ends: ClassVar[frozenset[int]] = frozenset({JobState.JOB_STATE_DONE})
    runs: ClassVar[int] = 1
    """How often its payload is executed."""
    inputs: ClassVar[dict[str, bytes]] = {"a.txt": b"one\n" * 300, "b.txt": b"two\n" * 7}
    outputs: ClassVar[dict[str, bytes]] = {
        "sum.txt": b"one\n" * 300 + b"two\n" * 7,
        "b/n.txt": b"7",
    }
    program: ClassVar[str] = "cat a.txt b.txt > sum.txt; mkdir b; printf 7 > b/n.txt"

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.request_id = gridlane.uuid7()
        self.executions = folder / "executions"
        self.name = ""
        self.watched: list[JobEvent] = []
        self._resume_token = ""
        self._put: set[str] = set()

    def go_on(self) -> None:
        with self.client() as client:
            self.submit(client)
            self.meddle(client)
        self.watch()
        with self.client() as client:
            self.await_accounting(client)

    def meddle(self, client: gridlane.Client) -> None:
        """What is done to the task after its submission; nothing."""

    def submit(self, client: gridlane.Client) -> None:
        """Puts the inputs, and hands the task in; both as often as asked."""
        for path, content in self.inputs.items():
            if path not in self._put:
                client.storage.put(content, self.input_lfn(path), checksum=adler32(content))
                self._put.add(path)
        task = client.tasks.submit(self.job(), request_id=self.request_id)
        assert self.name in ("", task.job.name), "the same request id made another job"
        self.name = task.job.name

    def job(self) -> Job:
        """The job as it is handed in, the same each time."""
        return gridlane.new_job(
            ["sh", "-c", f'echo "$GRIDLANE_ATTEMPT" >> "$EXECUTIONS"; {self.program}'],
            inputs=[
                gridlane.new_input(path, self.input_lfn(path), adler32(content))
                for path, content in self.inputs.items()
            ],
            outputs={path: self.output_lfn(path) for path in self.outputs},
            environment={"EXECUTIONS": str(self.executions)},
            walltime=PATIENCE_S * 2,
        )

    def input_lfn(self, path: str) -> str:
        """Where an input is put."""
        return f"{self.place}/in/{path}"

    def output_lfn(self, path: str) -> str:
        """Where an output goes."""
        return f"{self.place}/out/{path}"

    def await_payload(self, client: gridlane.Client) -> None:
        """Waits until the payload runs."""
        # The server is asked, so that its death is noticed.
        until(
            lambda: client.jobs.get(self.name).name and self.executions.exists(),
            "the payload's start",
        )

    def watch(self) -> None:
        """Watches the job to its end; after a crash from where the watch was cut."""
        if self.watched and self.watched[-1].state in states.ENDED:
            return
        stub = job_service_pb2_grpc.JobServiceStub(self.server.channel)
        request = job_service_pb2.WatchJobsRequest(
            names=[self.name], resume_token=self._resume_token
        )
        stream = stub.WatchJobs(request, metadata=self.server.metadata, timeout=PATIENCE_S)
        for response in stream:
            self.watched += response.events
            self._resume_token = response.resume_token
            if any(event.state in states.ENDED for event in response.events):
                break
        stream.cancel()

    def await_accounting(self, client: gridlane.Client) -> None:
        """Waits until Reporting has followed: as many records as there must be."""
        wanted = self.expected_records(client)
        until(
            lambda: len(list(client.accounting.records(job=self.name))) >= wanted,
            f"{wanted} accounting records of {self.name}",
        )

    def expected_records(self, client: gridlane.Client) -> int:
        """One for the attempt, and one for each file of its transfers."""
        return 1 + sum(len(transfer.files) for transfer in self.transfers(client))

    def transfers(self, client: gridlane.Client) -> list[TransferJob]:
        """The transfer jobs of the job, with their files, the oldest first; all have ended."""
        names = [item.name for item in client.transfers.list(job=self.name)]
        return [client.transfers.wait(name, timeout=PATIENCE_S) for name in reversed(names)]

    def check(self) -> None:
        with self.client() as client:
            assert self.of_this_life(client.jobs.list()) == [self.name]
            job = client.jobs.get(self.name)
            assert job.state in self.ends, job
            events = list(client.jobs.events(self.name))
            checks.job_history(events, job)
            assert [e.event_id for e in self.watched] == [e.event_id for e in events]
            replayed = client.tasks.submit(self.job(), request_id=self.request_id)
            assert replayed.job.name == self.name
            transfers = self.transfers(client)
            for transfer in transfers:
                checks.transfer_history(list(client.transfers.events(transfer.name)), transfer)
            self.check_transfers(transfers)
            self.check_storage(client, transfers)
            records = list(client.accounting.records(job=self.name))
            checks.accounting(records, job, transfers)
            story = client.tasks.describe(self.name)
            assert not story.missing
            assert len(story.accounting_records) == len(records)
        self.check_executions()
        checks.nothing_runs(self.server.data_dir / "jobs")

    def check_executions(self) -> None:
        """The payload was executed as often as it should, always as the first attempt."""
        lines = self.executions.read_text().split() if self.executions.exists() else []
        assert lines == ["1"] * self.runs

    def check_transfers(self, transfers: Sequence[TransferJob]) -> None:
        """There are those that the job needs, and they went well."""
        wanted = [set(self.inputs), set(self.outputs)]
        checks.all_finished(transfers, [len(paths) for paths in wanted if paths])

    def check_storage(self, client: gridlane.Client, transfers: Sequence[TransferJob]) -> None:
        """The inputs are in the store, and those outputs that were moved; whole, registered once.

        Parameters:
            transfers: the job's.
        """
        there = {self.input_lfn(path): content for path, content in self.inputs.items()}
        outputs = {self.output_lfn(path): content for path, content in self.outputs.items()}
        finished = FileTransferState.FILE_TRANSFER_STATE_FINISHED
        there |= {
            file.target: outputs[file.target]
            for transfer in transfers
            for file in transfer.files
            if file.state == finished and file.target.startswith("LFN:")
        }
        self.check_stored(client, there)


class PlainTask(TaskLife):
    """A task without inputs and outputs."""

    inputs: ClassVar[dict[str, bytes]] = {}
    outputs: ClassVar[dict[str, bytes]] = {}
    program: ClassVar[str] = "true"


class FailingTask(TaskLife):
    """A task whose payload ends badly after it wrote its outputs."""

    ends: ClassVar[frozenset[int]] = frozenset({JobState.JOB_STATE_FAILED})
    program: ClassVar[str] = f"{TaskLife.program}; exit 3"

    def check_transfers(self, transfers: Sequence[TransferJob]) -> None:
        checks.all_finished(transfers, [len(self.inputs)])


class KilledTask(FailingTask):
    """A task that is cancelled while its payload runs."""

    ends: ClassVar[frozenset[int]] = frozenset({JobState.JOB_STATE_KILLED})
    program: ClassVar[str] = "exec sleep 300"

    def meddle(self, client: gridlane.Client) -> None:
        self.await_payload(client)
        client.tasks.cancel(self.name)


class KilledInStaging(FailingTask):
    """A task that is cancelled while its inputs are being brought, by a mover that hangs."""

    ends: ClassVar[frozenset[int]] = frozenset({JobState.JOB_STATE_KILLED})
    runs: ClassVar[int] = 0
    environment: ClassVar[dict[str, str]] = {"GRIDLANE_TRANSFER_WORKERS": "1"}
    _cancelled = False

    def submit(self, client: gridlane.Client) -> None:
        if not self._cancelled:
            self.suspend_movers()
        super().submit(client)

    def meddle(self, client: gridlane.Client) -> None:
        if not self._cancelled:
            until(lambda: self.moving(client), "files on their way")
        self._cancelled = True
        client.tasks.cancel(self.name)
        self.resume_movers()

    def moving(self, client: gridlane.Client) -> bool:
        """Whether the job has a transfer that moves."""
        return any(item.state == ACTIVE for item in client.transfers.list(job=self.name))

    def check_transfers(self, transfers: Sequence[TransferJob]) -> None:
        (bringing,) = transfers
        # A mover of the next start may have been quicker than the cancel that came again.
        assert bringing.state in (FINISHED, CANCELED)


class KilledInDelivery(KilledInStaging):
    """A task that is cancelled while its outputs are being moved, by a mover that hangs."""

    # It is done all the same when a mover of the next start is quicker than the cancel.
    ends: ClassVar[frozenset[int]] = KilledInStaging.ends | TaskLife.ends
    runs: ClassVar[int] = 1
    program: ClassVar[str] = (
        f'{TaskLife.program}; until test -e "$EXECUTIONS.go"; do sleep 0.05; done'
    )
    _hanging = False

    def submit(self, client: gridlane.Client) -> None:
        TaskLife.submit(self, client)

    def meddle(self, client: gridlane.Client) -> None:
        if not self._hanging:
            self.await_payload(client)
            self.suspend_movers()
            self._hanging = True
            self.executions.with_suffix(".go").touch()
        super().meddle(client)

    def moving(self, client: gridlane.Client) -> bool:
        job = client.jobs.get(self.name)
        if not job.stage_out_transfer:
            return False
        moving = client.transfers.get(job.stage_out_transfer)
        return moving.state == ACTIVE

    def check_transfers(self, transfers: Sequence[TransferJob]) -> None:
        bringing, delivering = transfers
        assert bringing.state == FINISHED
        done = self.watched[-1].state == JobState.JOB_STATE_DONE
        assert delivering.state == (FINISHED if done else CANCELED)


class PrunedTask(TaskLife):
    """A task that ended long ago, by the server's settings, and is forgotten."""

    _KEEP_NOTHING: ClassVar[dict[str, str]] = {
        "GRIDLANE_WORKLOAD_KEEP_FINISHED_DAYS": "0",
        "GRIDLANE_WORKLOAD_KEEP_DIRECTORIES_DAYS": "0",
        "GRIDLANE_WORKLOAD_PRUNE_INTERVAL_S": "0.2",
    }

    def prepare(self) -> None:
        part = self.server.part("workload")
        if not part.alive:
            part.start()
        super().go_on()
        super().check()
        part.stop()
        part.environment.update(self._KEEP_NOTHING)

    def go_on(self) -> None:
        directories = self.server.data_dir / "jobs"
        with self.client() as client:
            until(
                lambda: not [*client.jobs.list(), *directories.iterdir()],
                "the end of all jobs and their directories",
            )

    def check(self) -> None:
        with self.client() as client:
            records = list(client.accounting.records(job=self.name))
            assert len(records) == 1 + len(self.inputs) + len(self.outputs)
            self.check_storage(client, self.transfers(client))
        self.check_executions()
