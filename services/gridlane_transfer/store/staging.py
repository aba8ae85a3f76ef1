"""Jobs that come in as streams, staged: their files are inserted bit by bit, in transactions of
their own, and one short commit lets everybody see all of them.

Responsible for the statements. The files stand in their table, SUBMITTED, under a number that no
job has yet: nobody finds them, since files are found by their job. `publish` inserts the job; its
files are let onto their channels afterwards, bit by bit (`sweeps`). What is staged is leased by the
process that takes the stream in; when that is no more, its files are deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, true, update

from gridlane.transfer.v1 import event_pb2
from gridlane_kit import audit, errors, request_ids
from gridlane_kit.audit import AuditEntry
from gridlane_kit.clock import now_us
from gridlane_kit.database import insert_values
from gridlane_kit.feed import Feed, NewEvent
from gridlane_kit.leases import claim_due, database_now_us, held_by, renew
from gridlane_kit.request_ids import Conflict, Replay, RequestKey, SameAs
from gridlane_transfer.states import FileState
from gridlane_transfer.store import channel_jobs, sweeps
from gridlane_transfer.store.jobs import NewFile, Resubmitted, Submitted, insert_files
from gridlane_transfer.store.sweeps import SweepKind
from gridlane_transfer.store.tables import AUDIT, JOB, JOB_NUMBERS, REQUEST_ID, STAGED_JOB, JobRow

_ABANDONED_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A job that comes in: its uuid and number, and by whom it is taken in."""

    uuid: str
    job_number: int
    holder: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the files of a job that comes in; `ttl`: for how long it is leased from now."""

    staged: Staged
    files: Sequence[NewFile]
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Publication:
    """A job that has come in whole.

    Parameters:
        request: the request's key, when the caller gave an id.
        row: the job, with its number, in the state SUBMITTED.
        event: what is told of it.
        entry: what goes into the audit with it, if something does.
    """

    staged: Staged
    request: RequestKey | None
    row: JobRow
    event: event_pb2.TransferEvent
    entry: AuditEntry | None = None


class LostStagingError(Exception):
    """The lease ran out, and another process has deleted what was staged."""


def begin(conn: Connection, uuid: str, holder: str, ttl: timedelta) -> Staged:
    """Give a job its number, leased for so long."""
    (number,) = JOB_NUMBERS.take(conn, 1)
    staged = Staged(uuid, number, holder, 1)
    conn.execute(
        insert(STAGED_JOB).values(
            uuid=uuid,
            job_number=number,
            create_us=now_us(),
            lease_holder=holder,
            lease_epoch=staged.epoch,
            lease_until_us=database_now_us() + ttl // timedelta(microseconds=1),
        )
    )
    return staged


def add(conn: Connection, parts: Sequence[Part]) -> list[Exception | None]:
    """Insert files, in the order that they are to have."""
    return [_add(conn, part) for part in parts]


def _add(conn: Connection, part: Part) -> LostStagingError | None:
    if not keep(conn, [part.staged], part.ttl):
        return LostStagingError()
    waiting = int(FileState.SUBMITTED)
    number = part.staged.job_number
    insert_files(conn, [(number, file._replace(state=waiting)) for file in part.files])
    channel_jobs.note(conn, {(file.channel_uid, number) for file in part.files})
    return None


def keep(conn: Connection, staged: Sequence[Staged], ttl: timedelta) -> int:
    """Renew leases; how many are still their holder's."""
    return sum(
        renew(
            conn,
            STAGED_JOB,
            where=STAGED_JOB.c.uuid == one.uuid,
            holder=one.holder,
            epoch=one.epoch,
            ttl=ttl,
        )
        for one in staged
    )


def publish(
    conn: Connection, entries: Sequence[Publication], *, feed: Feed
) -> list[Submitted | Resubmitted | Exception]:
    """Insert jobs whose files are staged: from then on they are there for everybody."""
    claims = request_ids.claim(conn, REQUEST_ID, [entry.request for entry in entries])
    answers: list[Submitted | Resubmitted | Exception] = []
    for entry, claim in zip(entries, claims, strict=True):
        if isinstance(claim, Replay):
            answers.append(Resubmitted(claim.resource))
        elif isinstance(claim, SameAs):
            answers.append(Resubmitted(entries[claim.index].event.transfer_job))
        elif isinstance(claim, Conflict):
            answers.append(errors.request_id_reused())
        else:
            answers.append(_publish(conn, feed, entry))
    return answers


def _publish(conn: Connection, feed: Feed, entry: Publication) -> Submitted | LostStagingError:
    if not conn.execute(delete(STAGED_JOB).where(_is_its(entry.staged))).rowcount:
        return LostStagingError()
    row, event = entry.row, entry.event
    insert_values(conn, JOB, JobRow._fields, [row])
    sweeps.begin(conn, row.number, SweepKind.OPEN)
    if entry.request is not None:
        request_ids.remember(conn, REQUEST_ID, [(entry.request, event.transfer_job)])
    if entry.entry is not None:
        audit.append(conn, AUDIT, [entry.entry])
    new = NewEvent(
        event.event_id,
        event.transfer_job,
        "job.SUBMITTED",
        row.create_us,
        event.SerializeToString(),
        row.owner,
        row.vo,
    )
    feed.append(conn, [new])
    return Submitted(row.number, ())


def abandon(conn: Connection, staged: Staged) -> None:
    """Note that a job is not to be: what is there of it will be deleted."""
    if conn.execute(delete(STAGED_JOB).where(_is_its(staged))).rowcount:
        sweeps.begin(conn, staged.job_number, SweepKind.DELETE)


def void_leases(conn: Connection) -> None:
    """End every lease: no other process has this database, so their holders are no more."""
    conn.execute(update(STAGED_JOB).values(lease_until_us=0))


def abandon_lost(conn: Connection, holder: str, ttl: timedelta) -> int:
    """Note that jobs whose process is no more are not to be; how many."""
    rows = claim_due(
        conn,
        STAGED_JOB,
        where=true(),
        order_by=[STAGED_JOB.c.uuid],
        limit=_ABANDONED_AT_ONCE,
        holder=holder,
        ttl=ttl,
    )
    for row in rows:
        abandon(conn, Staged(row.uuid, row.job_number, row.lease_holder, row.lease_epoch))
    return len(rows)


def _is_its(staged: Staged) -> ColumnElement[bool]:
    held = held_by(STAGED_JOB, staged.holder, staged.epoch)
    return and_(STAGED_JOB.c.uuid == staged.uuid, held)
