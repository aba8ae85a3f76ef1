"""Priority and activity of jobs, changed by managers.

Responsible for the transaction: the job and, of its files that have not started, as many as one
transaction takes. The others follow (`sweeps`), or, where the files of some channels alone are
meant, with the calls that go on. Who may is decided before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from gridlane.transfer.v1.transfer_job_pb2 import TransferJob
from gridlane_kit import audit, errors
from gridlane_kit.audit import AuditEntry
from gridlane_kit.clock import now_us
from gridlane_transfer import messages
from gridlane_transfer.states import JOB_FINAL, FileState, JobState
from gridlane_transfer.store import sweeps
from gridlane_transfer.store.sweeps import NewRank, SweepKind
from gridlane_transfer.store.tables import AUDIT, JOB, JOB_COLUMNS, JobRow


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What to change of a job.

    Parameters:
        priority: from 1 (last) to 5 (first); None: as it is.
        activity: empty for "default"; None: as it is.
        revision: the one that the caller read; 0: whichever it has.
        channels: only of the files on channels with these uids, the job keeping its own; None: of
            the job and all its files.
        entry: what goes into the audit with it; None with the calls that go on with its files.
        after: the last file, by its number in the job, that such calls have passed.
    """

    uuid: str
    priority: int | None
    activity: str | None
    revision: int
    channels: frozenset[str] | None
    entry: AuditEntry | None
    after: int = 0


@dataclass(frozen=True, slots=True)
class Updated:
    """The job as it is then.

    Parameters:
        after: files are left on the channels that were given: the caller goes on after this one;
            None: none are.
    """

    job: JobRow
    after: int | None = None


def apply(conn: Connection, entries: Sequence[JobUpdate]) -> list[Updated | Exception]:
    """Change jobs."""
    return [_apply(conn, entry) for entry in entries]


def _apply(conn: Connection, wish: JobUpdate) -> Updated | Exception:
    name = messages.PREFIX + wish.uuid
    found = select(*JOB_COLUMNS).where(JOB.c.uuid == wish.uuid).with_for_update()
    row = conn.execute(found).first()
    if row is None:
        return errors.not_found(name)
    job = JobRow._make(row)
    if wish.entry is not None:
        if wish.revision and wish.revision != job.revision:
            return errors.revision_conflict(name)
        if job.state in JOB_FINAL:
            return errors.illegal_transition(name, JobState(job.state).name, FileState.READY.name)
        changed = _change(conn, job, wish)
        audit.append(conn, AUDIT, [_told(wish.entry, job, changed, wish)])
        job = changed
    rank = NewRank.of(job.vo, wish.priority, wish.activity)
    swept = sweeps.rank_files(conn, job, rank, wish.after, wish.channels)
    if swept.done:
        return Updated(job)
    if wish.channels is not None:
        return Updated(job, swept.after)
    for kind, asked in ((SweepKind.RANK, wish.priority), (SweepKind.ACTIVITY, wish.activity)):
        if asked is not None:
            sweeps.begin(conn, job.number, kind, swept.after)
    return Updated(job)


def _told(entry: AuditEntry, before: JobRow, after: JobRow, wish: JobUpdate) -> AuditEntry:
    """The entry with what may change of a job; of the files on some channels alone, with what was
    asked for them.
    """
    if wish.channels is not None:
        asked = TransferJob(priority=wish.priority or 0, activity=wish.activity or "")
        return entry._replace(after_json=audit.as_json(asked))
    was, is_now = (
        TransferJob(priority=row.priority, activity=row.activity or "", revision=row.revision)
        for row in (before, after)
    )
    return entry._replace(before_json=audit.as_json(was), after_json=audit.as_json(is_now))


def _change(conn: Connection, job: JobRow, wish: JobUpdate) -> JobRow:
    """Change the job itself, of which the manager of some of its channels changes no field."""
    changed = job._replace(revision=job.revision + 1, update_us=now_us())
    if wish.channels is None and wish.priority is not None:
        changed = changed._replace(priority=wish.priority)
    if wish.channels is None and wish.activity is not None:
        changed = changed._replace(activity=wish.activity or None)
    names = ("priority", "activity", "revision", "update_us")
    values = {name: getattr(changed, name) for name in names}
    conn.execute(update(JOB).where(JOB.c.number == job.number).values(values))
    return changed
