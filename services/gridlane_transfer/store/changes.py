"""Changes of files and their jobs in one transaction: the only place that writes a state after
submission.

Responsible for what belongs together: a file's new state, the counts and the state of its job that
follow from it, the first failure, and an event for each of them, all in the caller's transaction.
Which change is due is decided by those who call it.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from gridlane.ids import uuid7
from gridlane.transfer.v1 import event_pb2
from gridlane.type.v1 import failure_pb2
from gridlane_kit.clock import to_timestamp
from gridlane_kit.database import RowUpdate
from gridlane_kit.feed import Feed, NewEvent
from gridlane_transfer import messages
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.failures import Failed, canceled
from gridlane_transfer.states import (
    FILE_FINAL,
    JOB_FINAL,
    RUNNING,
    FileState,
    JobState,
    job_state,
    legal,
)
from gridlane_transfer.store import channel_jobs, leftovers, storage
from gridlane_transfer.store.attempts import Attempts
from gridlane_transfer.store.channel_jobs import OnChannel
from gridlane_transfer.store.leftovers import NewLeftover
from gridlane_transfer.store.tables import FILE, JOB, JOB_COLUMNS, FileRow, JobRow

_FAILED = frozenset({FileState.FAILED, FileState.CATALOG_FAILED})
_FILE_CHANGING = (
    "state",
    "place",
    "attempt",
    "retries",
    "due_us",
    "source_url",
    "source_element",
    "actual_checksum",
    "transferred_bytes",
    "start_us",
    "end_us",
    "registration_us",
    "failure",
    "lease_holder",
    "lease_epoch",
    "lease_until_us",
    "failure_class",
)
_JOB_CHANGING = (
    "state",
    "counts",
    "failure",
    "cancel_us",
    "cancel_failure",
    "update_us",
    "end_us",
    "total_bytes",
    "moved_bytes",
    "start_us",
)
# What hardly any change touches: it is written in a statement of its own.
_FILE_RARELY_CHANGING = (
    "channel_uid",
    "target_url",
    "target_element",
    "target_lfn",
    "queue_until_us",
    "alternatives",
    "route",
    "hop",
    "target_report",
    "held_us",
    "arrived",
)
# From a state of the first kind into one of the second, an attempt has brought its bytes.
_MOVING = frozenset({FileState.ACTIVE, FileState.CANCELING})
_BROUGHT = frozenset({FileState.FINISHED, FileState.REGISTERING, FileState.ARCHIVING})
_PLAIN_END = messages.failure_message(canceled()).SerializeToString()
_LOAD = (
    select(*JOB_COLUMNS)
    .where(JOB.c.number.in_(bindparam("numbers", expanding=True)))
    .with_for_update()
)
_UPDATE_FILES = RowUpdate(FILE, FileRow, key=["number"], columns=_FILE_CHANGING)
_UPDATE_FILES_RARELY = RowUpdate(FILE, FileRow, key=["number"], columns=_FILE_RARELY_CHANGING)
_UPDATE_JOBS = RowUpdate(JOB, JobRow, key=["number"], columns=_JOB_CHANGING)
# The keys of a job's counts.
_KEYS = {state: str(int(state)) for state in FileState}


class IllegalTransitionError(Exception):
    """A file cannot go from its state to the one asked for: a defect of the caller."""


class _Step(NamedTuple):
    """A change of a file's state: the file after it."""

    file: FileRow
    before: FileState
    after: FileState


@dataclass(slots=True)
class _JobChanges:
    """One job and what happens to its files."""

    row: JobRow
    counts: Counter[str]
    failure: bytes | None
    cancel_us: int | None
    cancel_failure: bytes | None
    total_bytes: int
    moved_bytes: int
    start_us: int | None
    files: dict[int, FileRow] = field(default_factory=dict)
    rarely: set[int] = field(default_factory=set)
    """The numbers of the files of which something changes that hardly any change touches."""
    steps: list[_Step] = field(default_factory=list)


class Changes:
    """Changes to be saved together.

    Parameters:
        time_us: when they happen.
    """

    def __init__(self, conn: Connection, feed: Feed, channels: Channels, time_us: int) -> None:
        self._conn = conn
        self._feed = feed
        self._channels = channels
        self._time_us = time_us
        self._jobs: dict[int, _JobChanges] = {}
        self._attempts = Attempts(time_us)
        self._left_behind: list[NewLeftover] = []
        self._by_bans: Counter[str] = Counter()
        self._on_channels: set[OnChannel] = set()

    def load(self, job_numbers: Collection[int]) -> None:
        """Read the jobs whose files will change."""
        missing = set(job_numbers) - self._jobs.keys()
        if not missing:
            return
        for row in map(JobRow._make, self._conn.execute(_LOAD, {"numbers": sorted(missing)})):
            counts = Counter(json.loads(row.counts))
            self._jobs[row.number] = _JobChanges(
                row,
                counts,
                row.failure,
                row.cancel_us,
                row.cancel_failure,
                row.total_bytes,
                row.moved_bytes,
                row.start_us,
            )

    def job(self, number: int) -> JobRow:
        """A job that was loaded."""
        return self._jobs[number].row

    def file(
        self,
        row: FileRow,
        state: FileState,
        *,
        failure: Failed | None = None,
        moved: bool = False,
        told: bool = True,
        **columns: Any,
    ) -> FileRow:
        """Change a file.

        Parameters:
            row: the file as it is.
            state: what it becomes; the present state for an attempt that is taken up again.
            failure: why, when it fails, waits, or is cancelled for a reason of its own; otherwise
                it has none any more, but for what a cancel of it or of its job was asked for, for
                that for which a file was held that is given up, and while its state stays.
            moved: for CATALOG_FAILED: its bytes are at the target.
            told: whether an event tells of it; the job's own event tells of all files that are let
                onto their channels together.
            columns: what else changes.

        Returns:
            The file as it will be.

        Raises:
            IllegalTransitionError: there is no such transition.
        """
        before = FileState(row.state)
        if state is not before and not legal(before, state):
            raise IllegalTransitionError(
                f"file transfer {row.number}: {before.name} → {state.name}"
            )
        job = self._jobs[row.job_number]
        reason = _reason(row, before, state, failure, job.cancel_failure)
        columns["failure_class"] = messages.failure_class(reason)
        self._imply(row, before, state, columns)
        if failure is not None and before in _MOVING:
            columns.setdefault("transferred_bytes", failure.moved_bytes)
        changed = row._replace(state=int(state), failure=reason, **columns)
        self._attempts.note(row, changed)
        job.files[row.number] = changed
        if not columns.keys().isdisjoint(_FILE_RARELY_CHANGING):
            job.rarely.add(row.number)
        if changed.channel_uid != row.channel_uid:
            self._on_channels.add((changed.channel_uid, row.job_number))
        if state in FILE_FINAL and row.route is not None:
            self._left_behind += leftovers.of_file(changed, self._time_us)
        step = _Step(changed, before, state)
        _count(job, step, moved=moved)
        if state is not before and told:
            job.steps.append(step)
        return changed

    def _imply(
        self, row: FileRow, before: FileState, state: FileState, columns: dict[str, Any]
    ) -> None:
        """Add what changes with a file's state."""
        ends, starts = state in FILE_FINAL, state is FileState.ACTIVE
        if ends:
            columns.setdefault("end_us", self._time_us)
        elif starts:
            columns.setdefault("end_us", None)
        if state not in RUNNING:
            columns["place"] = None
        if row.queue_until_us is not None and (ends or starts):
            columns["queue_until_us"] = None
        if FileState.HELD in (before, state) and state is not before:
            columns["held_us"] = self._held_us(state, columns["failure_class"])

    def by_bans(self, uids: Collection[str]) -> None:
        """Note that a file was cancelled or blocked by bans.

        Parameters:
            uids: the bans'.
        """
        self._by_bans.update(uids)

    def _held_us(self, state: FileState, failure_class: int | None) -> int | None:
        """Since when a file is held for its channel's manager: not one that waits for a right."""
        for_a_right = failure_class == failure_pb2.FAILURE_CLASS_PERMISSION
        return None if state is not FileState.HELD or for_a_right else self._time_us

    def cancel(self, job_number: int, why: Failed | None = None) -> None:
        """Note that a job's end was asked for.

        Parameters:
            why: what the files that it ends keep of it, now and later; None: no more than that.
        """
        job = self._jobs[job_number]
        job.cancel_us = self._time_us
        if why is not None:
            job.cancel_failure = messages.failure_message(why).SerializeToString()

    def save(self) -> None:
        """Write everything, with its events."""
        touched = [job for job in self._jobs.values() if _is_changed(job)]
        events: list[NewEvent] = []
        jobs: list[JobRow] = []
        for job in touched:
            after = self._job_after(job)
            jobs.append(after)
            events += self._events(job, after)
        _UPDATE_JOBS(self._conn, jobs)
        _UPDATE_FILES(self._conn, [row for job in touched for row in job.files.values()])
        rarely = [job.files[number] for job in touched for number in sorted(job.rarely)]
        _UPDATE_FILES_RARELY(self._conn, rarely)
        channel_jobs.note(self._conn, self._on_channels)
        leftovers.insert(self._conn, self._left_behind)
        storage.count_affected(self._conn, self._by_bans)
        self._attempts.save(self._conn)
        self._feed.append(self._conn, events)

    def _job_after(self, job: _JobChanges) -> JobRow:
        state = job_state(
            {
                FileState(int(number)): count
                for number, count in job.counts.items()
                if number != messages.MOVED
            },
            moved_uncatalogued=job.counts[messages.MOVED],
            cancel_asked=job.cancel_us is not None,
            started=job.start_us is not None,
        )
        ended = state in JOB_FINAL
        failure = job.failure
        if state is JobState.CANCELED:
            failure = job.cancel_failure or failure or _PLAIN_END
        return job.row._replace(
            state=int(state),
            counts=json.dumps({key: count for key, count in job.counts.items() if count}),
            failure=failure,
            cancel_us=job.cancel_us,
            cancel_failure=job.cancel_failure,
            update_us=self._time_us,
            end_us=self._time_us if ended and job.row.end_us is None else job.row.end_us,
            total_bytes=job.total_bytes,
            moved_bytes=job.moved_bytes,
            start_us=job.start_us,
        )

    def _events(self, job: _JobChanges, after: JobRow) -> Iterable[NewEvent]:
        message = messages.job_message(after)
        # What all of them say of the job. A message may be encoded in parts, one behind the other.
        told = event_pb2.TransferEvent(
            time=to_timestamp(self._time_us), transfer_job=message.name, job=message
        ).SerializeToString()

        def event(own: event_pb2.TransferEvent, kind: str) -> NewEvent:
            payload = own.SerializeToString() + told
            return NewEvent(
                own.event_id, message.name, kind, self._time_us, payload, after.owner, after.vo
            )

        for step in job.steps:
            own = event_pb2.TransferEvent(event_id=uuid7(), previous_state=step.before.name)
            messages.tell_file(own.file, step.file, after, self._channels)
            yield event(own, f"file.{step.after.name}")
        if after.state != job.row.state:
            before = JobState(job.row.state).name
            own = event_pb2.TransferEvent(event_id=uuid7(), previous_state=before)
            yield event(own, f"job.{JobState(after.state).name}")


def _reason(
    row: FileRow,
    before: FileState,
    state: FileState,
    failure: Failed | None,
    of_job: bytes | None,
) -> bytes | None:
    """Why a file is in its new state, as it is stored; `of_job` is why its job was cancelled."""
    if failure is not None:
        return messages.failure_message(failure).SerializeToString()
    if state is FileState.CANCELING:
        return of_job
    if state is FileState.CANCELED:
        asked = row.failure if before is FileState.CANCELING else None
        return asked or of_job or _PLAIN_END
    kept = state is before or (before, state) == (FileState.HELD, FileState.FAILED)
    return row.failure if kept else None


def _count(job: _JobChanges, step: _Step, *, moved: bool) -> None:
    """Take a file's change into the sums of its job."""
    file, before, after = step
    job.start_us = job.start_us or file.start_us
    if before in _MOVING and after in _BROUGHT:
        job.moved_bytes += file.transferred_bytes
        job.total_bytes += 0 if file.size_bytes is not None else file.transferred_bytes
    if after is before:
        return
    job.counts[_KEYS[before]] -= 1
    job.counts[_KEYS[after]] += 1
    job.counts[messages.MOVED] += moved
    if job.failure is None and (after in _FAILED or _is_cut_short(file)):
        job.failure = file.failure


def _is_cut_short(row: FileRow) -> bool:
    """Whether a file was cancelled for another reason than that somebody asked for it."""
    return row.state == FileState.CANCELED and row.failure_class not in (
        None,
        failure_pb2.FAILURE_CLASS_CANCELED,
    )


def _is_changed(job: _JobChanges) -> bool:
    return bool(job.files) or job.cancel_us != job.row.cancel_us
