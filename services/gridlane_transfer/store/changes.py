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
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import event_pb2, transfer_job_pb2
from gridlane_kit.clock import to_timestamp
from gridlane_kit.feed import Feed, NewEvent
from gridlane_transfer import messages
from gridlane_transfer.channels import Channels
from gridlane_transfer.failures import Failed, canceled
from gridlane_transfer.states import FILE_FINAL, JOB_FINAL, FileState, JobState, job_state, legal
from gridlane_transfer.store.tables import FILE, JOB, JOB_COLUMNS, FileRow, JobRow

_FAILED = frozenset({FileState.FAILED, FileState.CATALOG_FAILED})
_FILE_CHANGING = (
    "state",
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
    "lease_until_us",
)
_JOB_CHANGING = ("state", "counts", "failure", "cancel_us", "update_us", "end_us")
_LOAD = (
    select(*JOB_COLUMNS)
    .where(JOB.c.number.in_(bindparam("numbers", expanding=True)))
    .with_for_update()
)
_UPDATE_FILE = (
    update(FILE)
    .where(FILE.c.number == bindparam("key"))
    .values({name: bindparam(name) for name in _FILE_CHANGING})
)
_UPDATE_JOB = (
    update(JOB)
    .where(JOB.c.number == bindparam("key"))
    .values({name: bindparam(name) for name in _JOB_CHANGING})
)


class IllegalTransitionError(Exception):
    """A file cannot go from its state to the one asked for: a defect of the caller."""


@dataclass(slots=True)
class _JobChanges:
    """One job and what happens to its files."""

    row: JobRow
    counts: Counter[str]
    failure: bytes | None
    cancel_us: int | None
    files: dict[int, FileRow] = field(default_factory=dict)
    steps: list[tuple[FileRow, int]] = field(default_factory=list)
    """Each change of a file's state: the file after it, and the state before."""


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

    def load(self, job_numbers: Collection[int]) -> None:
        """Read the jobs whose files will change."""
        missing = set(job_numbers) - self._jobs.keys()
        if not missing:
            return
        for row in map(JobRow._make, self._conn.execute(_LOAD, {"numbers": sorted(missing)})):
            counts = Counter(json.loads(row.counts))
            self._jobs[row.number] = _JobChanges(row, counts, row.failure, row.cancel_us)

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
        **columns: Any,
    ) -> FileRow:
        """Change a file.

        Parameters:
            row: the file as it is.
            state: what it becomes; the present state for an attempt that is taken up again.
            failure: why, when it fails, waits, or is cancelled for a reason; otherwise it has none
                any more, but for what a cancel that ends was asked for.
            moved: for CATALOG_FAILED: its bytes are at the target.
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
        if state in FILE_FINAL:
            columns.setdefault("end_us", self._time_us)
        reason = None if failure is None else messages.failure_message(failure).SerializeToString()
        if state is FileState.CANCELED and reason is None:
            asked = row.failure if before is FileState.CANCELING else None
            reason = asked or messages.failure_message(canceled()).SerializeToString()
        changed = row._replace(state=int(state), failure=reason, **columns)
        job = self._jobs[row.job_number]
        job.files[row.number] = changed
        if state is not before:
            job.counts[str(int(before))] -= 1
            job.counts[str(int(state))] += 1
            job.counts[messages.MOVED] += moved
            job.steps.append((changed, int(before)))
            if job.failure is None and (state in _FAILED or _is_refused(changed)):
                job.failure = changed.failure
        return changed

    def cancel(self, job_number: int) -> None:
        """Note that a job's end was asked for."""
        self._jobs[job_number].cancel_us = self._time_us

    def save(self) -> None:
        """Write everything, with its events."""
        touched = [job for job in self._jobs.values() if _is_changed(job)]
        events: list[NewEvent] = []
        job_values: list[dict[str, Any]] = []
        for job in touched:
            after = self._job_after(job)
            job_values.append({"key": after.number, **_picked(after, _JOB_CHANGING)})
            events += self._events(job, after)
        files = [row for job in touched for row in job.files.values()]
        if job_values:
            self._conn.execute(_UPDATE_JOB, job_values)
        if files:
            self._conn.execute(
                _UPDATE_FILE, [{"key": row.number, **_picked(row, _FILE_CHANGING)} for row in files]
            )
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
        )
        ended = state in JOB_FINAL
        failure = job.failure
        if state is JobState.CANCELED and failure is None:
            ends = (row.failure for row in job.files.values() if row.state == FileState.CANCELED)
            plain = messages.failure_message(canceled()).SerializeToString()
            failure = next(ends, plain)
        return job.row._replace(
            state=int(state),
            counts=json.dumps({key: count for key, count in job.counts.items() if count}),
            failure=failure,
            cancel_us=job.cancel_us,
            update_us=self._time_us,
            end_us=self._time_us if ended and job.row.end_us is None else job.row.end_us,
        )

    def _events(self, job: _JobChanges, after: JobRow) -> Iterable[NewEvent]:
        message = messages.job_message(after)
        for row, before in job.steps:
            event = event_pb2.TransferEvent(
                file=messages.file_message(row, after, self._channels),
                previous_state=FileState(before).name,
            )
            yield new_event(
                event, message, after, f"file.{FileState(row.state).name}", self._time_us
            )
        if after.state != job.row.state:
            event = event_pb2.TransferEvent(previous_state=JobState(job.row.state).name)
            yield new_event(
                event, message, after, f"job.{JobState(after.state).name}", self._time_us
            )


def new_event(
    event: event_pb2.TransferEvent,
    job: transfer_job_pb2.TransferJob,
    row: JobRow,
    kind: str,
    time_us: int,
) -> NewEvent:
    """An event for the feed.

    Parameters:
        event: what is particular to it; completed here.
        job: the job after the event, without files.
        row: the same as a row.
        kind: "file.ACTIVE", "job.FINISHED".
    """
    event_id = uuid7()
    event.event_id = event_id
    event.time.CopyFrom(to_timestamp(time_us))
    event.transfer_job = job.name
    event.job.CopyFrom(job)
    return NewEvent(event_id, job.name, kind, time_us, event.SerializeToString(), row.owner, row.vo)


def _is_refused(row: FileRow) -> bool:
    """Whether a file was cancelled since its owner may not have it moved."""
    return row.state == FileState.CANCELED and messages.lacks_permission(row)


def _is_changed(job: _JobChanges) -> bool:
    return bool(job.files) or job.cancel_us != job.row.cancel_us


def _picked(row: FileRow | JobRow, names: Collection[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
