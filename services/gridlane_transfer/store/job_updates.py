"""Priority and activity of jobs, changed by managers.

Responsible for the transaction: the job and, of its files that have not started, as many as one
transaction takes; the others follow (`sweeps`). Who may is decided before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from gridlane_kit import errors
from gridlane_kit.clock import now_us
from gridlane_transfer import messages
from gridlane_transfer.states import JOB_FINAL, FileState, JobState
from gridlane_transfer.store import audit, sweeps
from gridlane_transfer.store.audit import AuditEntry
from gridlane_transfer.store.sweeps import NewRank, SweepKind
from gridlane_transfer.store.tables import JOB, JOB_COLUMNS, JobRow


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What to change of a job.

    Parameters:
        priority: from 1 (last) to 5 (first); None: as it is.
        activity: empty for "default"; None: as it is.
        revision: the one that the caller read; 0: whichever it has.
        channels: only of the files on channels with these uids, the job staying as it is; None: of
            the job and all its files.
    """

    uuid: str
    priority: int | None
    activity: str | None
    revision: int
    channels: frozenset[str] | None
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Updated:
    """The job as it is then."""

    job: JobRow


def apply(conn: Connection, entries: Sequence[JobUpdate]) -> list[Updated | Exception]:
    """Change jobs."""
    return [_apply(conn, entry) for entry in entries]


def _apply(conn: Connection, entry: JobUpdate) -> Updated | Exception:
    name = messages.PREFIX + entry.uuid
    found = select(*JOB_COLUMNS).where(JOB.c.uuid == entry.uuid).with_for_update()
    row = conn.execute(found).first()
    if row is None:
        return errors.not_found(name)
    job = JobRow._make(row)
    if entry.revision and entry.revision != job.revision:
        return errors.revision_conflict(name)
    if job.state in JOB_FINAL:
        return errors.illegal_transition(name, JobState(job.state).name, FileState.READY.name)
    audit.append(conn, [entry.entry])
    rank = NewRank.of(job.vo, entry.priority, entry.activity)
    if entry.channels is not None:
        while not sweeps.rank_files(conn, job.number, rank, entry.channels).done:
            pass
        return Updated(job)
    changed = job._replace(
        priority=job.priority if entry.priority is None else entry.priority,
        activity=job.activity if entry.activity is None else entry.activity or None,
        revision=job.revision + 1,
        update_us=now_us(),
    )
    values = {name: getattr(changed, name) for name in ("priority", "activity", "revision")}
    conn.execute(
        update(JOB).where(JOB.c.number == job.number).values(**values, update_us=changed.update_us)
    )
    if not sweeps.rank_files(conn, job.number, rank).done:
        for kind, asked in ((SweepKind.RANK, entry.priority), (SweepKind.ACTIVITY, entry.activity)):
            if asked is not None:
                sweeps.begin(conn, job.number, kind)
    return Updated(changed)
