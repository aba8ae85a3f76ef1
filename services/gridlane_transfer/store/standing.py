"""Files that stand in the store while the rights of their owners change.

Responsible for finding the unfinished jobs of some owners, along the index on owner and state, and
for the transaction that holds, cancels and lets go their files. What is to become of a file is
`rights`'; a file that is missed here is stopped when it is claimed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, bindparam, select

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_kit.policy import Policy, WorkAction
from gridlane_transfer import messages
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving import rights
from gridlane_transfer.states import JOB_FINAL, UNSTARTED, FileState, JobState
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FILE, FILE_COLUMNS, JOB, JOB_COLUMNS, FileRow, JobRow

PAGE: Final = 200
"""So many jobs are looked at at once."""
FILES: Final = 500
"""So many files of a job change in one transaction; the others follow."""

_UNFINISHED: Final = sorted(int(state) for state in JobState if state not in JOB_FINAL)
_STOPPABLE: Final = UNSTARTED | {FileState.ACTIVE}
_FILES = (
    select(*FILE_COLUMNS)
    .where(
        FILE.c.job_number == bindparam("job_number"),
        FILE.c.n > bindparam("after"),
        FILE.c.state.in_(sorted(int(state) for state in _STOPPABLE)),
    )
    .order_by(FILE.c.n)
    .limit(FILES)
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A job whose files are to be looked at, under a policy.

    Parameters:
        after: those behind this one, by its number in the job.
    """

    number: int
    policy: Policy
    after: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What was done to a job: files whose copies are to be ended, and whether some may start.

    Parameters:
        after: where to go on; None: there are no more files.
    """

    aborted: Sequence[int] = ()
    started: bool = False
    after: int | None = None


def unfinished(conn: Connection, owners: Collection[str] | None, after: int) -> list[JobRow]:
    """The next unfinished jobs of some owners (None: of everybody), by number.

    Parameters:
        after: the number of the last one seen.
    """
    statement = select(*JOB_COLUMNS).where(JOB.c.state.in_(_UNFINISHED), JOB.c.number > after)
    if owners is not None:
        statement = statement.where(JOB.c.owner.in_(owners))
    rows = conn.execute(statement.order_by(JOB.c.number).limit(PAGE))
    return [JobRow._make(row) for row in rows]


def settle(
    conn: Connection, entries: Sequence[Standing], *, feed: Feed, channels: Channels
) -> list[Settled | Exception]:
    """Have the files of jobs stand as their owners' rights say."""
    changes = Changes(conn, feed, channels, now_us())
    changes.load({entry.number for entry in entries})
    settled: list[Settled | Exception] = []
    for entry in entries:
        asked = {"job_number": entry.number, "after": entry.after}
        rows = [FileRow._make(row) for row in conn.execute(_FILES, asked)]
        done = _settle(changes, changes.job(entry.number), rows, entry.policy)
        settled.append(done if len(rows) < FILES else replace(done, after=rows[-1].n))
    changes.save()
    return settled


def _settle(changes: Changes, job: JobRow, rows: Sequence[FileRow], policy: Policy) -> Settled:
    actions = {
        state: rights.action(job, policy, state) for state in {FileState(r.state) for r in rows}
    }
    aborted: list[int] = []
    started = False
    for row in rows:
        action = actions[FileState(row.state)]
        if action is WorkAction.KEEP:
            if row.state == FileState.HELD and messages.lacks_permission(row):
                changes.file(row, FileState.READY, due_us=now_us())
                started = True
            continue
        stopped = rights.stopped(job, policy, action)
        if stopped.state is FileState.CANCELED:
            moves = row.state == FileState.ACTIVE
            ending = FileState.CANCELING if moves else FileState.CANCELED
            changes.file(row, ending, failure=stopped.failure)
            aborted += [row.number] if moves else []
        elif row.state not in (FileState.ACTIVE, FileState.HELD):
            changes.file(row, FileState.HELD, failure=stopped.failure)
    return Settled(aborted, started)
