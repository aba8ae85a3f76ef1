"""What must hold when a life is over, however often its server died.

Responsible for the invariants of "nothing lost": every end told once, every transition legal, no
file half there, every file registered and accounted once, every follower caught up, nothing left
that runs or lies about.
"""

import asyncio
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from support import Deployment

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
from gridlane_kit.sqlite import sqlite_file
from gridlane_transfer.states import FILE_FINAL, FILE_TRANSITIONS, JOB_FINAL, FileState
from gridlane_workload import states

# A shim that has told how its payload ended still sends a span.
_SHIM_PATIENCE_S = 15
_JOB_ENDS = frozenset(map(int, JOB_FINAL))
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
    ends = [state for state in own if state in _JOB_ENDS]
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
    assert history[-1] == FileState(file.state)


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


def stored(data_dir: Path, below: str = "LFN:/") -> dict[str, bytes]:
    """Every file in the store below a logical name: its content by its logical name."""
    root = data_dir / "storage"
    files = [path for path in (root / below.removeprefix("LFN:/")).rglob("*") if path.is_file()]
    return {f"LFN:/{path.relative_to(root)}": path.read_bytes() for path in files}


def storage(
    data_dir: Path, client: gridlane.Client, there: Mapping[str, bytes], below: str = "LFN:/"
) -> None:
    """The store has exactly these files, whole, and the catalogue has each of them once.

    Parameters:
        there: the content by logical file name.
        below: what is looked at; everything, unless others use the store at the same time.
    """
    root = data_dir / "storage"
    paths = {lfn: root / lfn.removeprefix("LFN:/") for lfn in there}
    assert stored(data_dir, below) == there
    assert not leftovers(data_dir)
    registered = {file.lfn: file for file in client.replicas.list(below)}
    assert registered.keys() == there.keys()
    for lfn, file in registered.items():
        assert [replica.url for replica in file.replicas] == [paths[lfn].as_uri()]
        assert file.size_bytes == len(there[lfn])
        assert file.checksum.type == ChecksumType.CHECKSUM_TYPE_ADLER32
        assert file.checksum.value == f"{zlib.adler32(there[lfn]):08x}"


def leftovers(data_dir: Path, *others: Path) -> list[Path]:
    """Temporary files of the mover and of uploads, and copies on the way, wherever they may lie.

    Parameters:
        others: further folders in which files were moved.
    """
    folders = (data_dir / "storage", data_dir / "jobs", *others)
    return [path for folder in folders for path in folder.rglob(".gridlane-*")]


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


def databases(server: Deployment) -> None:
    """Every database is sound, nothing is in quarantine, and no upload is under way."""
    for service in SERVICES:
        if server.database_url(service).startswith("sqlite"):
            sound = rows(server.database_url(service), "PRAGMA integrity_check")
            assert sound == [("ok",)], service
    told = rows(server.database_url("reporting"), "SELECT source, reason FROM quarantine")
    assert told == []
    assert uploads(server) == []


def uploads(server: Deployment) -> list[str]:
    """Where content is being put."""
    return [url for (url,) in rows(server.database_url("transfer"), "SELECT url FROM upload")]


def followed(server: Deployment) -> bool:
    """Whether Reporting has taken everything, and has said so."""
    cursors = dict(
        rows(server.database_url("reporting"), "SELECT source, position FROM feed_cursor")
    )
    return all(
        _has_all(server.database_url(source), cursors.get(source, 0)) for source in _FOLLOWED
    )


def _has_all(url: str, cursor: int) -> bool:
    ((acked,),) = rows(
        url, "SELECT coalesce(max(position), 0) FROM event_ack WHERE consumer = 'reporting'"
    )
    return bool(cursor == acked == _last_position(url))


def _last_position(url: str) -> int | None:
    """The position that was given last; None while events wait for theirs."""
    if url.startswith("sqlite"):
        # AUTOINCREMENT remembers what was given, also of what was pruned.
        told = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'"
        ((last,),) = rows(url, told)
        return int(last)
    last_kept = "coalesce((SELECT max(position) FROM event), trimmed_to)"
    told = f"SELECT {last_kept}, (SELECT count(*) FROM event_pending) FROM feed_state"  # noqa: S608
    ((last, waiting),) = rows(url, told)
    return None if waiting else int(last)


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What a statement reads in a database, SQLite's or PostgreSQL's, behind its service's back."""
    file = sqlite_file(url)
    if file is None:
        return asyncio.run(_rows_of_postgresql(url, statement))
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchall()


async def _rows_of_postgresql(url: str, statement: str) -> list[tuple[Any, ...]]:
    database = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        return [tuple(row) for row in await database.fetch(statement)]
    finally:
        await database.close()


def complaints(output: str) -> list[str]:
    """Lines of a server's log that tell of a defect."""
    marks = ('"level": "error"', '"level": "critical"', "Traceback")
    return [line for line in output.splitlines() if any(mark in line for mark in marks)]
