"""Changes as they reach the store: from rules to a row's columns.

Responsible for one thing: whatever changes a job goes through here, so that status, columns,
revision and events never disagree. The rules are `jobs`', the statements `store`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from gridlane.ids import uuid7
from gridlane.workload.v1.job_pb2 import Job
from gridlane_kit import errors
from gridlane_kit.feed import Feed, NewEvent
from gridlane_kit.identity import Principal
from gridlane_workload import jobs, queue_store, states
from gridlane_workload.backends.interface import Attempt
from gridlane_workload.jobs import Change, Subject
from gridlane_workload.states import Minor
from gridlane_workload.store import JOB, Advance, StoredJob, advance


class JobAtHand:
    """A row that is being worked on, its parts decoded as they are needed."""

    def __init__(self, row: Row[Any]) -> None:
        self.row = row
        self.subject = Subject(row.uid, row.owner, row.vo, row.job)
        self.status = Job.FromString(row.status)

    @property
    def uid(self) -> str:
        """The job's uuid."""
        return self.subject.uid

    @cached_property
    def job(self) -> Job:
        """The part of the job that never changes."""
        return Job.FromString(self.subject.encoded)

    @cached_property
    def principal(self) -> Principal:
        """Whoever submitted it, with the scopes of then."""
        return Principal.from_json(self.row.principal)

    @property
    def attempt(self) -> Attempt:
        """The present attempt."""
        return Attempt(self.uid, self.status.attempt)


@dataclass(frozen=True, slots=True)
class Lease:
    """Under which lease a change is made."""

    holder: str
    epoch: int


def advance_for(
    at_hand: JobAtHand,
    changes: Sequence[Change],
    now_us: int,
    due_us: int | None,
    values: Mapping[str, Any] | None = None,
    lease: Lease | None = None,
) -> Advance:
    """What is to be written for some changes of a job.

    Parameters:
        due_us: when the reconciler is to look at the job again; None: when somebody moves it.
        values: further columns to set.

    Raises:
        GridlaneError: ILLEGAL_TRANSITION.
    """
    columns: dict[str, Any] = {"due_us": due_us, "failed_steps": 0}
    events: list[NewEvent] = []
    if changes:
        after, events = jobs.change(at_hand.subject, at_hand.status, changes, now_us)
        columns |= _columns(after, due_us, now_us)
    return Advance(
        number=at_hand.row.number,
        revision=at_hand.row.revision,
        holder=None if lease is None else lease.holder,
        epoch=0 if lease is None else lease.epoch,
        values={**columns, **(values or {})},
        events=events,
    )


@dataclass(frozen=True, slots=True)
class Admission:
    """A wish to admit jobs that were accepted.

    Parameters:
        backend: the name of the one that will run them.
        limit: at most so many.
        now_us: when.
    """

    backend: str
    limit: int
    now_us: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """How many jobs were admitted: those that wait for inputs, and those that wait for a place."""

    staging: int
    waiting: int


def admit(conn: Connection, feed: Feed, wishes: Sequence[Admission]) -> list[Admitted | Exception]:
    """Admit accepted jobs in bulk: nothing outside is touched, so no lease is needed.

    The ids under which their files will be moved are stored here, before they are used.
    """
    return [_admit(conn, feed, wish) for wish in wishes]


def _admit(conn: Connection, feed: Feed, wish: Admission) -> Admitted:
    accepted = select(JOB).where(JOB.c.state == states.RECEIVED).order_by(JOB.c.number)
    rows = conn.execute(accepted.limit(wish.limit).with_for_update(skip_locked=True)).all()
    values: list[dict[str, Any]] = []
    events: list[NewEvent] = []
    for row in rows:
        at_hand = JobAtHand(row)
        description = at_hand.job.description
        changes = jobs.admit(description, at_hand.status.attempt, wish.backend)
        after, told = jobs.change(at_hand.subject, at_hand.status, changes, wish.now_us)
        staging = after.state == states.STAGING
        values.append(
            {
                **_columns(after, wish.now_us if staging else None, wish.now_us),
                "its_number": row.number,
                "stage_in_request": uuid7() if staging else None,
                "stage_out_request": uuid7() if description.outputs else None,
            }
        )
        events += told
    if values:
        conn.execute(update(JOB).where(JOB.c.number == bindparam("its_number")), values)
        feed.append(conn, events)
    staged = sum(item["stage_in_request"] is not None for item in values)
    return Admitted(staging=staged, waiting=len(values) - staged)


@dataclass(frozen=True, slots=True)
class Matching:
    """A wish to give free places to waiting jobs.

    Parameters:
        places: how many jobs the backend takes at once, from all processes together.
        now_us: when.
    """

    places: int
    now_us: int


@dataclass(frozen=True, slots=True)
class Matched:
    """How many jobs got a place, and whether the backend is full with them."""

    count: int
    full: bool


def match(conn: Connection, feed: Feed, wishes: Sequence[Matching]) -> list[Matched | Exception]:
    """Give free places to waiting jobs, counted and given in one transaction: several processes do
    so.
    """
    return [_match(conn, feed, wish) for wish in wishes]


def _match(conn: Connection, feed: Feed, wish: Matching) -> Matched:
    rows, full = queue_store.startable(conn, wish.places)
    matched = Change(states.MATCHED, Minor.STARTING, "a place to run was found")
    entries = [
        advance_for(JobAtHand(row), [matched], wish.now_us, due_us=wish.now_us) for row in rows
    ]
    advance(conn, feed, entries)
    return Matched(len(rows), full)


@dataclass(frozen=True, slots=True)
class KillWish:
    """A caller's wish to kill a job.

    Parameters:
        uid: the job's.
        by: who asks, for the event.
        now_us: when.
        reason: why, by the caller's words.
    """

    uid: str
    by: str
    now_us: int
    reason: str = ""


def kill(conn: Connection, feed: Feed, wishes: Sequence[KillWish]) -> list[StoredJob | Exception]:
    """Carry out wishes to kill; each job as it is then.

    The same job twice in a batch is fine: the second wish finds what the first one made of it.
    """
    return [_kill(conn, feed, wish) for wish in wishes]


def _kill(conn: Connection, feed: Feed, wish: KillWish) -> StoredJob | Exception:
    row = conn.execute(select(JOB).where(JOB.c.uid == wish.uid)).one_or_none()
    if row is None:
        return errors.not_found(f"jobs/{wish.uid}")
    at_hand = JobAtHand(row)
    wanted = jobs.kill(at_hand.status, wish.by, wish.reason)
    if wanted is None:
        return _stored(row)
    # What was being staged leaves a transfer to be cancelled; what runs, a payload to be ended.
    at_rest = row.state in states.BEFORE_START - {states.STAGING}
    due_us = None if at_rest else wish.now_us
    advance(conn, feed, [advance_for(at_hand, [wanted], wish.now_us, due_us)])
    return _stored(conn.execute(select(JOB).where(JOB.c.uid == wish.uid)).one())


def _stored(row: Row[Any]) -> StoredJob:
    return StoredJob(row.number, row.uid, row.owner, row.vo, row.job, row.status, row.owner_group)


def _columns(status: Job, due_us: int | None, now_us: int) -> dict[str, Any]:
    """The columns that repeat what the status says, and those that every change sets."""
    return {
        "state": status.state,
        "revision": status.revision,
        "attempt": status.attempt,
        "status": status.SerializeToString(),
        "due_us": due_us,
        "end_us": now_us if status.state in states.ENDED else None,
        "held_us": now_us if status.HasField("hold") else None,
    }
