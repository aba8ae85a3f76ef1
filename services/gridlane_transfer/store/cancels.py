"""Transfer jobs and their files as rows, cancelled.

Responsible for what one transaction does of it: unstarted files end, running ones become CANCELING;
of a large job the first files, and the others bit by bit (`sweeps`). How a file changes is
`changes`'.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from gridlane_kit import audit, errors
from gridlane_kit.audit import AuditEntry
from gridlane_kit.clock import now_us
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed
from gridlane_transfer import messages
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.states import JOB_FINAL, UNSTARTED, FileState
from gridlane_transfer.store import sweeps
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.jobs import (
    covers,
    files_by_n,
    may_act_on_all,
    read,
    read_with_files,
    visible,
)
from gridlane_transfer.store.sweeps import SweepKind
from gridlane_transfer.store.tables import AUDIT, FILE, FileRow, JobRow

_CANCELING = select(FILE.c.number).where(
    FILE.c.job_number == bindparam("number"), FILE.c.state == int(FileState.CANCELING)
)


EntryOf = Callable[[JobRow], AuditEntry | None]
"""The entry in the audit for a job whose end is asked for; None: there is to be none."""


def _no_entry(_: JobRow) -> AuditEntry | None:
    return None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Asks for a job's end, with the reach of who asks.

    Parameters:
        bare: to be answered without files.
        why: what its files keep of it.
        entry: what goes into the audit with it.
    """

    uuid: str
    visibility: Visibility
    bare: bool = False
    why: Failed | None = None
    entry: EntryOf = _no_entry


@dataclass(frozen=True, slots=True)
class Canceled:
    """A job whose end was asked for, with its files; `running` are those to abort."""

    job: JobRow
    files: Sequence[FileRow]
    running: Sequence[int]


def cancel(
    conn: Connection, entries: Sequence[Cancel], *, feed: Feed, channels: Channels
) -> list[Canceled | Exception]:
    """Cancel jobs: unstarted files end here, running ones become CANCELING."""
    return [_cancel(conn, feed, channels, entry) for entry in entries]


def _cancel(
    conn: Connection, feed: Feed, channels: Channels, entry: Cancel
) -> Canceled | Exception:
    name = messages.PREFIX + entry.uuid
    found = visible(conn, [entry.uuid], entry.visibility).get(entry.uuid)
    if found is None:
        return errors.not_found(name)
    if not may_act_on_all(conn, found, entry.visibility):
        # A channel's manager acts on a whole job only when all of it lies on the channels managed.
        return errors.permission_denied("transfer.jobs.cancel", name)
    if found.cancel_us is None and found.state not in JOB_FINAL:
        swept = sweeps.cancel_files(conn, feed, channels, found.number, entry.why)
        if not swept.done:
            sweeps.begin(conn, found.number, SweepKind.CANCEL)
        if (told := entry.entry(found)) is not None:
            audit.append(conn, AUDIT, [told])
    running = conn.execute(_CANCELING, {"number": found.number}).scalars().all()
    if entry.bare:
        return Canceled(read(conn, [entry.uuid])[entry.uuid], (), running)
    job, files = read_with_files(conn, [entry.uuid])[entry.uuid]
    return Canceled(job, files, running)


@dataclass(frozen=True, slots=True)
class CancelFiles:
    """Asks for the end of single files of a job, with the reach of who asks.

    Parameters:
        ns: their numbers in the job.
        entry: what goes into the audit with those that are changed, and names them.
    """

    uuid: str
    ns: Sequence[int]
    visibility: Visibility
    entry: EntryOf = _no_entry


@dataclass(frozen=True, slots=True)
class CanceledFiles:
    """What became of files, by their numbers in the job; `running` are those to abort.

    Parameters:
        denied: those that lie on a channel which the caller does not manage.
    """

    job: JobRow
    files: Mapping[int, FileRow]
    denied: Collection[int]
    running: Sequence[int]


def cancel_files(
    conn: Connection, entries: Sequence[CancelFiles], *, feed: Feed, channels: Channels
) -> list[CanceledFiles | Exception]:
    """Cancel single files: unstarted ones end here, running ones become CANCELING."""
    return [_cancel_files(conn, feed, channels, entry) for entry in entries]


def _cancel_files(
    conn: Connection, feed: Feed, channels: Channels, entry: CancelFiles
) -> CanceledFiles | Exception:
    found = visible(conn, [entry.uuid], entry.visibility).get(entry.uuid)
    if found is None:
        return errors.not_found(messages.PREFIX + entry.uuid)
    files = files_by_n(conn, found.number, entry.ns)
    whole = covers(entry.visibility, found)
    denied = {
        n
        for n, row in files.items()
        if not whole and row.channel_uid not in entry.visibility.channels
    }
    changes = Changes(conn, feed, channels, now_us())
    changes.load([found.number])
    ended: list[str] = []
    for n, row in files.items():
        if n in denied or (row.state not in UNSTARTED and row.state != FileState.ACTIVE):
            continue
        unstarted = row.state in UNSTARTED
        files[n] = changes.file(row, FileState.CANCELED if unstarted else FileState.CANCELING)
        ended.append(f"{messages.PREFIX}{entry.uuid}/files/{n}")
    changes.save()
    if ended and (told := entry.entry(found)) is not None:
        audit.append(conn, AUDIT, [audit.about_files(told, ended)])
    running = [row.number for row in files.values() if row.state == FileState.CANCELING]
    return CanceledFiles(changes.job(found.number), files, denied, running)
