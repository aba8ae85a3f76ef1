"""Jobs and files counted, along the indexes by which they are listed.

Responsible for the statements. A job's row has what is needed of its files, so that files are read
only of jobs in which some failed, and where they move. Jobs that lie in several parts of a caller's
reach are counted once: each part leaves out those before it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, not_, or_, select, true

from gridlane.ids import uuid7_floor
from gridlane_kit.decision import Visibility
from gridlane_kit.filters import Filter
from gridlane_transfer import messages
from gridlane_transfer.states import JOB_FINAL, RUNNING, FileState, JobState
from gridlane_transfer.store import channel_jobs
from gridlane_transfer.store.jobs import FILTER_COLUMNS
from gridlane_transfer.store.tables import FILE, JOB, file_in
from gridlane_transfer.store.visibility import by_channels, reaches, visible_jobs

EXAMPLES: Final = 5
"""So many failed files of a class are named."""

_FAILED: Final = [int(FileState.FAILED), int(FileState.CATALOG_FAILED)]
_RUNNING: Final = file_in(RUNNING)
_UNFINISHED: Final = JOB.c.state.in_(
    sorted(int(state) for state in JobState if state not in JOB_FINAL)
)
_BY_THEMSELVES: Final = ("name", "tags.gridlane.job")
"""Filters that find a few jobs by an index of their own."""
_BESIDE_MS: Final = 86_400_000
"""So long a job may have come in before it was accepted whole; its uuid is of its beginning."""
_AMONG: Final = 1000
"""Numbers of jobs that came in at the same time may be in another order."""
_COLUMNS: Final = {**FILTER_COLUMNS, "name": JOB.c.uuid}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which jobs are counted.

    Parameters:
        start_us, end_us: accepted from the one on and before the other, microseconds since
            1970-01-01 UTC; None: no bound.
    """

    visibility: Visibility
    filter: Filter
    start_us: int | None = None
    end_us: int | None = None


@dataclass(slots=True)
class Counted:
    """What was found.

    Parameters:
        jobs: how many jobs are in each state; `files` the same of files.
        moving: the numbers of the files that are ACTIVE, and when they were started.
        failures: how many files failed of each class, and `examples` the newest of each:
            (the job's uuid, the file's number in it).
    """

    jobs: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    total_bytes: int = 0
    moved_bytes: int = 0
    moving: list[tuple[int, int]] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    examples: dict[int, list[tuple[str, int]]] = field(default_factory=dict)


class _Window(NamedTuple):
    """Bounds of jobs' numbers; None: there is none."""

    first: int | None
    last: int | None


def count(conn: Connection, asked: Asked) -> Counted:
    """Count jobs and their files."""
    counted = Counted()
    window = _window(conn, asked)
    rest = and_(_filtered(asked.filter), *_in_window(asked, window))
    parts = [and_(part, rest) for part in _parts(asked, window)]
    with_failures: set[int] = set()
    for part in parts:
        # Those that have ended are counted in an index, the others are few.
        for half in (JOB.c.end_us.is_not(None), and_(JOB.c.end_us.is_(None), _UNFINISHED)):
            with_failures |= _count_jobs(conn, and_(part, half), counted)
    if with_failures:
        states = JOB.c.state.in_(sorted(with_failures))
        _count_failures(conn, [and_(part, states) for part in parts], counted)
    if counted.files[int(FileState.ACTIVE)]:
        _find_moving(conn, parts, counted)
    return counted


def _parts(asked: Asked, window: _Window) -> list[ColumnElement[bool]]:
    """The parts of the reach, no job in two of them."""
    if any(asked.filter.value(name) is not None for name in _BY_THEMSELVES):
        return [visible_jobs(asked.visibility)]
    vo = asked.filter.value("vo")
    reached = reaches(asked.visibility, vo)
    channels = by_channels(asked.visibility, vo)
    if channels:
        reached.append(channel_jobs.all_of(channels, window.first, window.last))
    return [and_(part, not_(or_(*reached[:i]))) if i else part for i, part in enumerate(reached)]


def _filtered(filter_: Filter) -> ColumnElement[bool]:
    return filter_.where(_COLUMNS) if filter_.clauses else true()


def _in_window(asked: Asked, window: _Window) -> Iterator[ColumnElement[bool]]:
    """The jobs of a time: exactly by their times, and by bounds of their numbers, along which the
    indexes lie.
    """
    if asked.start_us is not None:
        yield JOB.c.create_us >= asked.start_us
    if asked.end_us is not None:
        yield JOB.c.create_us < asked.end_us
    if window.first is not None:
        yield JOB.c.number >= window.first
    if window.last is not None:
        yield JOB.c.number <= window.last


def _window(conn: Connection, asked: Asked) -> _Window:
    first: int | None = None
    last: int | None = None
    if asked.start_us is not None:
        floor = uuid7_floor(max(0, asked.start_us // 1000 - _BESIDE_MS))
        lowest = select(JOB.c.number).where(JOB.c.uuid >= floor).order_by(JOB.c.uuid).limit(1)
        first = conn.execute(lowest).scalar()
    if asked.end_us is not None:
        ceiling = uuid7_floor(max(0, asked.end_us // 1000 + _BESIDE_MS))
        highest = select(JOB.c.number).where(JOB.c.uuid < ceiling).order_by(JOB.c.uuid.desc())
        last = conn.execute(highest.limit(1)).scalar()
    return _Window(
        None if first is None else first - _AMONG, None if last is None else last + _AMONG
    )


def _count_jobs(conn: Connection, where: ColumnElement[bool], counted: Counted) -> set[int]:
    """Count jobs; the states of those that have failed files."""
    with_failures: set[int] = set()
    statement = (
        select(
            JOB.c.state,
            JOB.c.counts,
            func.count(),
            func.sum(JOB.c.total_bytes),
            func.sum(JOB.c.moved_bytes),
        )
        .where(where)
        .group_by(JOB.c.state, JOB.c.counts)
    )
    for state, counts, jobs, total, moved in conn.execute(statement):
        counted.jobs[state] += jobs
        counted.total_bytes += int(total)
        counted.moved_bytes += int(moved)
        for file_state, files in messages.state_counts(counts):
            counted.files[file_state] += jobs * files
            if files and file_state in _FAILED:
                with_failures.add(state)
    return with_failures


def _count_failures(
    conn: Connection, parts: Sequence[ColumnElement[bool]], counted: Counted
) -> None:
    newest: dict[int, list[tuple[int, str, int]]] = {}
    for part in parts:
        ranked = _failed(part).subquery()
        statement = select(ranked).where(ranked.c.place <= EXAMPLES)
        for row in conn.execute(statement):
            newest.setdefault(row.failure_class, []).append((row.number, row.uuid, row.n))
            if row.place == 1:
                counted.failures[row.failure_class] += row.files
    for failure_class, found in newest.items():
        found.sort(reverse=True)
        counted.examples[failure_class] = [(uuid, n) for _, uuid, n in found[:EXAMPLES]]


def _failed(part: ColumnElement[bool]) -> Any:
    """The failed files of jobs that have some, with their places among those of their class."""
    failure_class = func.coalesce(FILE.c.failure_class, 0).label("failure_class")
    return (
        select(
            failure_class,
            FILE.c.number,
            FILE.c.n,
            JOB.c.uuid,
            func.row_number()
            .over(partition_by=failure_class, order_by=FILE.c.number.desc())
            .label("place"),
            func.count().over(partition_by=failure_class).label("files"),
        )
        .join(FILE, FILE.c.job_number == JOB.c.number)
        .where(part, FILE.c.state.in_(_FAILED))
    )


def _find_moving(conn: Connection, parts: Sequence[ColumnElement[bool]], counted: Counted) -> None:
    active = int(FileState.ACTIVE)
    for part in parts:
        statement = (
            select(FILE.c.number, FILE.c.start_us)
            .join(JOB, JOB.c.number == FILE.c.job_number)
            .where(_RUNNING, FILE.c.state == active, part)
        )
        counted.moving += [(row.number, row.start_us or 0) for row in conn.execute(statement)]
