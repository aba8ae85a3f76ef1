"""What must hold of everything that moved in a life, read behind the services' backs.

Responsible for the invariants of Transfer that hold whatever a life was about: a job's counts are
the states of its files, each change is told once and each end once, attempts of a file follow one
another, work that was noted is done, and Reporting has accounted each file once. What a life is
about, it checks itself.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from faults import checks
from support import Deployment

from gridlane.reporting.v1.accounting_record_pb2 import AccountingRecord
from gridlane.transfer.v1.event_pb2 import TransferEvent
from gridlane_transfer import messages
from gridlane_transfer.states import (
    FILE_FINAL,
    FILE_TRANSITIONS,
    JOB_FINAL,
    FileState,
    JobState,
)

# Files come to be in these: of a small job, of one that comes as a stream.
_FIRST: Final = frozenset({FileState.READY, FileState.SUBMITTED})

_COUNTS = """
    SELECT j.uuid, j.counts, j.state, j.kind, j.moved_bytes, f.state, count(f.number),
           sum(f.transferred_bytes)
    FROM transfer_job j JOIN file_transfer f ON f.job_number = j.number
    WHERE j.create_us >= {since}
    GROUP BY j.number, j.uuid, j.counts, j.state, j.kind, j.moved_bytes, f.state
"""
_FILES = """
    SELECT j.uuid, f.n, f.state, f.attempt, f.hop, f.transferred_bytes, a.attempt, a.hop,
           a.start_us, a.end_us, a.outcome
    FROM transfer_job j JOIN file_transfer f ON f.job_number = j.number
    LEFT JOIN file_attempt a ON a.file_number = f.number
    WHERE j.create_us >= {since} ORDER BY f.number, a.attempt
"""
_EVENTS = "SELECT payload FROM event WHERE time_us >= {since} ORDER BY position"
_RECORDS = """
    SELECT message FROM accounting_record WHERE kind = 'data_operation' AND end_us >= {since}
"""
_ORPHANS = """
    SELECT count(*) FROM file_transfer WHERE job_number NOT IN (SELECT number FROM transfer_job)
"""
_UNFINISHED = "SELECT count(*) FROM transfer_job WHERE end_us IS NULL"
_WORK: Final = ("upload", "staged_job", "sweep", "leftover")


@dataclass(frozen=True)
class _File:
    """A file as it is stored."""

    state: FileState
    attempt: int
    hop: int
    transferred_bytes: int
    attempts: "Sequence[_Attempt]"


class _Attempt(NamedTuple):
    """What is stored of an attempt."""

    number: int
    hop: int
    start_us: int
    end_us: int | None
    outcome: int


def work_is_done(server: Deployment) -> bool:
    """Whether every job has ended, and nothing is left of what is noted to be done besides."""
    url = server.database_url("transfer")
    tables = [f"SELECT count(*) FROM {table}" for table in _WORK]  # noqa: S608
    statements = [*tables, _ORPHANS, _UNFINISHED]
    return all(checks.rows(url, statement) == [(0,)] for statement in statements)


def all_is_told_once(server: Deployment, since_us: int) -> None:
    """The invariants, of all transfer jobs that were made since a time; each of them has ended, and
    Reporting has followed.
    """
    moved = moves_are_sound(server.database_url("transfer"), since_us)
    records = checks.rows(server.database_url("reporting"), _RECORDS.format(since=since_us))
    _each_file_is_accounted_once([AccountingRecord.FromString(one) for (one,) in records], moved)


def moves_are_sound(url: str, since_us: int) -> Mapping[str, int]:
    """The invariants of Transfer's own database.

    Parameters:
        url: the database's.

    Returns:
        How many bytes each file moved, by its name; none of those that were to be removed.
    """
    kinds = _counts_are_those_of_the_files(checks.rows(url, _COUNTS.format(since=since_us)))
    files = _read_files(checks.rows(url, _FILES.format(since=since_us)))
    for name, file in files.items():
        _attempts_follow_one_another(name, file)
    found = checks.rows(url, _EVENTS.format(since=since_us))
    events = [TransferEvent.FromString(payload) for (payload,) in found]
    _each_change_is_told_once(events, files, kinds)
    return {name: file.transferred_bytes for name, file in files.items()}


def _counts_are_those_of_the_files(rows: Sequence[tuple[Any, ...]]) -> Mapping[str, int]:
    """Returns the kinds of the jobs, by their names."""
    kinds: dict[str, int] = {}
    told: dict[str, tuple[str, int]] = {}
    counted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    brought: defaultdict[str, int] = defaultdict(int)
    for uuid, counts, state, kind, moved_bytes, file_state, count, transferred in rows:
        name = messages.PREFIX + uuid
        assert state in JOB_FINAL, f"{name} has not ended: {counts}"
        kinds[name] = kind
        told[name] = counts, moved_bytes
        counted[name][str(file_state)] = count
        if file_state == FileState.FINISHED:
            brought[name] += int(transferred)
    for name, (text, moved_bytes) in told.items():
        counts = {k: n for k, n in json.loads(text).items() if k != messages.MOVED and n}
        assert counts == counted[name], name
        if str(int(FileState.CATALOG_FAILED)) not in counts:
            assert moved_bytes == brought[name], name
    return kinds


def _read_files(rows: Sequence[tuple[Any, ...]]) -> Mapping[str, _File]:
    files: dict[str, _File] = {}
    attempts: defaultdict[str, list[_Attempt]] = defaultdict(list)
    for uuid, n, state, attempt, hop, transferred, *one in rows:
        name = f"{messages.PREFIX}{uuid}/files/{n}"
        if one[0] is not None:
            attempts[name].append(_Attempt._make(one))
        files[name] = _File(FileState(state), attempt, hop, transferred, attempts[name])
    return files


def _attempts_follow_one_another(name: str, file: _File) -> None:
    """None is missing, each has ended before the next began, and what brought the file to the end
    of a hop is the last one of it.
    """
    assert [one.number for one in file.attempts] == list(range(1, file.attempt + 1)), name
    for one in file.attempts:
        assert one.end_us is not None, f"{name}: {one}"
        assert one.start_us <= one.end_us, f"{name}: {one}"
    for one, following in pairwise(file.attempts):
        assert (one.end_us or 0) <= following.start_us, f"{name}: {file.attempts}"
        if one.outcome in FILE_FINAL:
            assert (one.outcome, one.hop < following.hop) == (FileState.FINISHED, True), name
    for last in file.attempts[-1:]:
        if last.outcome in FILE_FINAL and last.hop == file.hop:
            assert last.outcome == file.state, f"{name}: {file.attempts}"


def _each_change_is_told_once(
    events: Sequence[TransferEvent], files: Mapping[str, _File], kinds: Mapping[str, int]
) -> None:
    assert len({event.event_id for event in events}) == len(events)
    histories: defaultdict[str, list[TransferEvent]] = defaultdict(list)
    ends: defaultdict[str, int] = defaultdict(int)
    for event in events:
        if event.HasField("file"):
            histories[event.file.name].append(event)
        elif JobState(event.job.state) in JOB_FINAL:
            ends[event.transfer_job] += 1
    assert {name: ends[name] for name in kinds} == dict.fromkeys(kinds, 1)
    for name, file in files.items():
        _is_one_chain(name, histories[name], file)


def _is_one_chain(name: str, history: Sequence[TransferEvent], file: _File) -> None:
    """Every change follows from the one before and is legal; the last one is the only end."""
    states = [FileState(event.file.state) for event in history]
    assert states, f"nothing was told of {name}"
    assert FileState[history[0].previous_state] in _FIRST, f"{name}: {states}"
    before = FileState[history[0].previous_state]
    for event, state in zip(history, states, strict=True):
        assert event.previous_state == before.name, f"{name}: {states}"
        assert state in FILE_TRANSITIONS[before], f"{name}: {states}"
        before = state
    assert [state for state in states if state in FILE_FINAL] == [states[-1]], f"{name}: {states}"
    assert states[-1] is file.state, f"{name}: {states}"
    assert history[-1].file.transferred_bytes == file.transferred_bytes, name


def _each_file_is_accounted_once(
    records: Sequence[AccountingRecord], moved: Mapping[str, int]
) -> None:
    """With as many bytes as it moved.

    Parameters:
        moved: the bytes, by the file's name.
    """
    found: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        found[record.data_operation.file_transfer].append(record.data_operation.transfer_bytes)
    assert {name: found.get(name, []) for name in moved} == {
        name: [count] for name, count in moved.items()
    }
