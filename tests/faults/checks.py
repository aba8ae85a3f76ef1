"""What must hold when a life is over, however often its server died.

Responsible for the invariants of "nothing lost": every end told once, every transition legal, no
file half there, every file registered and accounted once, every follower caught up, nothing left
that runs or lies about.
"""

import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import psutil

import gridlane
from gridlane.reporting.v1.accounting_record_pb2 import AccountingRecord
from gridlane.transfer.v1.event_pb2 import TransferEvent
from gridlane.transfer.v1.transfer_job_pb2 import (
    FileTransfer,
    FileTransferState,
    TransferJob,
    TransferJobState,
)
from gridlane.type.v1.checksum_pb2 import ChecksumType
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job, JobState
from gridlane_transfer.states import FILE_FINAL, FILE_TRANSITIONS, JOB_FINAL, FileState
from gridlane_workload import states

# A shim that has told how its payload ended still sends a span.
_SHIM_PATIENCE_S = 15
_FOLLOWED = ("workload", "transfer")
SERVICES = ("authorization", "transfer", "workload", "reporting")


def job_history(events: Sequence[JobEvent], job: Job) -> None:
    """Every change follows from the one before, each is legal, and the end is told once."""
    before = JobState.JOB_STATE_UNSPECIFIED
    for event in events:
        assert event.previous_state == before, f"{event}\ncame after\n{words(events)}"
        if event.previous_state and event.state != event.previous_state:
            assert event.state in states.TRANSITIONS[event.previous_state], words(events)
        before = event.state
    ends = [event for event in events if event.state in states.ENDED]
    assert len(ends) == 1, words(events)
    assert events[-1] is ends[0], words(events)
    assert ends[0].job == job
    assert len({event.event_id for event in events}) == len(events)


def words(events: Sequence[JobEvent]) -> str:
    """A history for people."""
    return " → ".join(JobState.Name(event.state).removeprefix("JOB_STATE_") for event in events)


def transfer_history(events: Sequence[TransferEvent], transfer: TransferJob) -> None:
    """As `job_history`, for each file of a transfer job and for the job."""
    assert len({event.event_id for event in events}) == len(events)
    for file in transfer.files:
        _file_history([event for event in events if event.file.name == file.name], file)
    own = [event.job.state for event in events if not event.HasField("file")]
    ends = [state for state in own if state in JOB_FINAL]
    assert ends == [transfer.state], [TransferJobState.Name(state) for state in own]


def _file_history(events: Sequence[TransferEvent], file: FileTransfer) -> None:
    history = [FileState(event.file.state) for event in events]
    before = FileState.READY
    for event, state in zip(events, history, strict=True):
        assert event.previous_state == before.name, f"{before.name} → {event}"
        # An attempt whose server died begins anew: ACTIVE follows ACTIVE.
        legal = FILE_TRANSITIONS[before] | ({before} & {FileState.ACTIVE})
        assert state in legal, f"{file.name}: {history}"
        before = state
    assert sum(state in FILE_FINAL for state in history) == 1, history
    assert history[-1] == file.state


def all_finished(transfers: Sequence[TransferJob], counts: Sequence[int]) -> None:
    """There are transfer jobs with so many files each, and all went well."""
    assert [len(transfer.files) for transfer in transfers] == list(counts)
    for transfer in transfers:
        assert transfer.state == TransferJobState.TRANSFER_JOB_STATE_FINISHED, transfer
        finished = FileTransferState.FILE_TRANSFER_STATE_FINISHED
        assert {file.state for file in transfer.files} == {finished}, transfer


def accounting(
    records: Sequence[AccountingRecord], job: Job, transfers: Sequence[TransferJob]
) -> None:
    """One record for the attempt, one for each file, and no others."""
    usage = [record.job_usage for record in records if record.HasField("job_usage")]
    state = JobState.Name(job.state).removeprefix("JOB_STATE_")
    assert [(use.attempt, use.final_major_status) for use in usage] == [(job.attempt, state)]
    moved = Counter(
        record.data_operation.file_transfer
        for record in records
        if record.HasField("data_operation")
    )
    assert moved == {file.name: 1 for transfer in transfers for file in transfer.files}


def storage(data_dir: Path, client: gridlane.Client, there: Mapping[str, bytes]) -> None:
    """The store has exactly these files, whole, and the catalogue has each of them once.

    Parameters:
        there: the content by logical file name.
    """
    root = data_dir / "storage"
    paths = {lfn: root / lfn.removeprefix("LFN:/") for lfn in there}
    assert {path for path in root.rglob("*") if not path.is_dir()} == set(paths.values())
    assert not leftovers(data_dir)
    for lfn, content in there.items():
        assert paths[lfn].read_bytes() == content, lfn
    registered = {file.lfn: file for file in client.replicas.list("LFN:/")}
    assert registered.keys() == there.keys()
    for lfn, file in registered.items():
        assert [replica.url for replica in file.replicas] == [paths[lfn].as_uri()]
        assert file.size_bytes == len(there[lfn])
        assert file.checksum.type == ChecksumType.CHECKSUM_TYPE_ADLER32
        assert file.checksum.value == f"{zlib.adler32(there[lfn]):08x}"


def leftovers(data_dir: Path) -> list[Path]:
    """Temporary files of the mover and of uploads, wherever they may lie."""
    return [path for folder in ("storage", "jobs") for path in (data_dir / folder).rglob("*.part")]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes that were given a path below a folder: shims, by their argument."""
    return [
        process
        for process in psutil.process_iter()
        if any(part.startswith(str(folder)) for part in arguments(process))
    ]


def arguments(process: psutil.Process) -> list[str]:
    """A process's command line; none when it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def nothing_runs(folder: Path) -> None:
    """No process of a job is left."""
    deadline = time.monotonic() + _SHIM_PATIENCE_S
    while left := processes_of(folder):
        assert time.monotonic() < deadline, f"still there: {[p.cmdline() for p in left]}"
        time.sleep(0.05)


def databases(data_dir: Path) -> None:
    """Every database is sound, nothing is in quarantine, and no upload is under way."""
    opened = {service: _opened(data_dir, service) for service in SERVICES}
    for service, database in opened.items():
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], service
    assert opened["reporting"].execute("SELECT source, reason FROM quarantine").fetchall() == []
    assert opened["transfer"].execute("SELECT url FROM upload").fetchall() == []
    for database in opened.values():
        database.close()


def followed(data_dir: Path) -> bool:
    """Whether Reporting has taken everything, and has said so."""
    with closing(_opened(data_dir, "reporting")) as database:
        cursors = dict(database.execute("SELECT source, position FROM feed_cursor").fetchall())
    return all(_has_all(data_dir, source, cursors.get(source, 0)) for source in _FOLLOWED)


def _has_all(data_dir: Path, source: str, cursor: int) -> bool:
    with closing(_opened(data_dir, source)) as database:
        # AUTOINCREMENT remembers the last position that was given, also of what was pruned.
        told = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'"
        acknowledged = (
            "SELECT coalesce(max(position), 0) FROM event_ack WHERE consumer = 'reporting'"
        )
        (last,) = database.execute(told).fetchone()
        (acked,) = database.execute(acknowledged).fetchone()
    return bool(cursor == acked == last)


def _opened(data_dir: Path, service: str) -> sqlite3.Connection:
    file = data_dir / "db" / f"{service}.sqlite"
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)


def complaints(output: str) -> list[str]:
    """Lines of a server's log that tell of a defect."""
    marks = ('"level": "error"', '"level": "critical"', "Traceback")
    return [line for line in output.splitlines() if any(mark in line for mark in marks)]
