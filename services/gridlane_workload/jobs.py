"""A job's rules: what is accepted, what a change does to it, what a kill means.

Responsible for the message `Job` as it goes through its states. Pure: no database, no backend, no
clock; `store` keeps what is made here, `steps` decides when.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple

from gridlane.ids import uuid7
from gridlane.type.v1.failure_pb2 import Failure, FailureClass
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job, JobDescription, JobHold, JobInput, JobPhase
from gridlane_kit import errors
from gridlane_kit.clock import to_timestamp
from gridlane_kit.feed import NewEvent
from gridlane_kit.identity import Principal
from gridlane_kit.principal_messages import principal_message
from gridlane_kit.request_ids import RequestKey
from gridlane_workload import encoding, states
from gridlane_workload.backends.interface import Capabilities
from gridlane_workload.states import Minor
from gridlane_workload.store import Submission

DEFAULT_PRIORITY: Final = 1
"""Of a job that does not say: DIRAC's UserPriority."""

MAX_CONTENT_BYTES: Final = 1024 * 1024
"""Of all inputs of a job that come with its description: they are stored with it and answered."""

_CONTENT: Final = attrgetter("content")

RESERVED_TAGS: Final = "gridlane."
"""What keys of tags begin with that no user sets."""


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who submits, as jobs keep it.

    Parameters:
        owner, owner_group: as in the columns.
        encoded: a Job's field `owner`, encoded.
        stored: the form that acts later.
    """

    owner: str
    owner_group: str | None
    encoded: bytes
    stored: str


class Acceptance(NamedTuple):
    """What all jobs of one call have in common; made once a call by `accepting`.

    Parameters:
        submitter: whose they are.
        traceparent: of the call.
        now_us: when they are accepted.
        job: what the jobs' unchanging parts have in common, encoded.
        status: with which a job begins, encoded.
        event: what their first events have in common, encoded.
    """

    submitter: Submitter
    traceparent: str
    now_us: int
    job: bytes
    status: bytes
    event: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a job.

    Parameters:
        to: the state after; the one before for a change of phase or words alone.
        minor: the minor status after.
        message: what happened, for people.
        source: who says so: "workload", "user", a backend's name.
        phase: after it.
        sets: further fields of the status, merged into it.
        hold: holds the job from here on.
        released: the job is not held any more. What has ended is not either.
    """

    to: states.State
    minor: str
    message: str
    source: str = "workload"
    phase: JobPhase.ValueType = JobPhase.JOB_PHASE_UNSPECIFIED
    sets: Job | None = None
    hold: JobHold | None = None
    released: bool = False


def submitter(principal: Principal) -> Submitter:
    """What jobs keep of a principal."""
    group = principal.active_group or None
    return Submitter(principal.owner, group, _encoded_owner(principal), principal.to_json())


@lru_cache(maxsize=1024)
def _encoded_owner(principal: Principal) -> bytes:
    return Job(owner=principal_message(principal)).SerializeToString()


def check(description: JobDescription, capabilities: Capabilities) -> None:
    """Refuse what the contract's rules on single fields cannot see.

    Raises:
        GridlaneError: INVALID_FIELDS, naming every violation.
    """
    violations = list(_violations(description, capabilities))
    if violations:
        raise errors.invalid(violations)


def _violations(
    description: JobDescription, capabilities: Capabilities
) -> Iterator[tuple[str, str]]:
    if len(description.inputs) > 1:
        paths = [item.path for item in description.inputs]
        yield from _twice("job.description.inputs", paths)
        folders = {parent for path in paths for parent in _parents(path)}
        for path in paths:
            if path in folders:
                yield "job.description.inputs", f"{path} is a file and the folder of another input"
    if len(description.outputs) > 1:
        yield from _twice("job.description.outputs", [item.path for item in description.outputs])
        yield from _twice("job.description.outputs", [item.target for item in description.outputs])
    for tag in sorted(description.tags):
        if tag.startswith(RESERVED_TAGS):
            yield (
                f"job.description.tags[{tag}]",
                f"keys beginning with {RESERVED_TAGS!r} are Gridlane's own",
            )
    yield from _too_much(description, capabilities)


def _too_much(description: JobDescription, capabilities: Capabilities) -> Iterator[tuple[str, str]]:
    resources = description.resources
    if resources.cpu_cores > capabilities.max_cpu_cores:
        yield (
            "job.description.resources.cpu_cores",
            f"at most {capabilities.max_cpu_cores}, which is what the backend has",
        )
    if 0 < resources.max_cpu_cores < (resources.cpu_cores or 1):
        yield "job.description.resources.max_cpu_cores", "not less than cpu_cores"
    if sum(map(len, map(_CONTENT, description.inputs))) > MAX_CONTENT_BYTES:
        yield (
            "job.description.inputs",
            f"contents of {MAX_CONTENT_BYTES} bytes together at most; larger files need a source",
        )


def _twice(field: str, values: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(set(values)) < len(values):
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield field, f"{value} is named more than once"


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))


_FIRST_STATUS: Final = Job(
    state=states.RECEIVED, minor_status=Minor.ACCEPTED, revision=1
).SerializeToString()
_FIRST_EVENT: Final = JobEvent(
    state=states.RECEIVED, minor_status=Minor.ACCEPTED, message="accepted", source="user"
).SerializeToString()


def accepting(principal: Principal, traceparent: str, trace_id: str, now_us: int) -> Acceptance:
    """What all jobs that a call submits have in common.

    Parameters:
        traceparent: of the call.
        trace_id: of the call; empty when it is not traced.
        now_us: when they are accepted.
    """
    who = submitter(principal)
    time = to_timestamp(now_us).SerializeToString()
    created = encoding.field(Job.CREATE_TIME_FIELD_NUMBER, time)
    traced = Job(trace_id=trace_id).SerializeToString() if trace_id else b""
    return Acceptance(
        submitter=who,
        traceparent=traceparent,
        now_us=now_us,
        job=who.encoded + created + traced,
        status=_FIRST_STATUS + encoding.field(Job.UPDATE_TIME_FIELD_NUMBER, time),
        event=_FIRST_EVENT + encoding.field(JobEvent.TIME_FIELD_NUMBER, time),
    )


def accept(
    description: JobDescription, vo: str, acceptance: Acceptance, key: RequestKey | None
) -> Submission:
    """Make what is to be stored of the job that a request asks for.

    Parameters:
        vo: the VO it is for.
        key: the request's, None when it has no id.
    """
    uid = uuid7()
    name = f"jobs/{uid}"
    event_id = uuid7()
    described = encoding.field(Job.DESCRIPTION_FIELD_NUMBER, description.SerializeToString())
    event = JobEvent(event_id=event_id, job_name=name).SerializeToString()
    return Submission(
        uid=uid,
        owner=acceptance.submitter.owner,
        owner_group=acceptance.submitter.owner_group,
        vo=vo,
        priority=description.priority if description.HasField("priority") else DEFAULT_PRIORITY,
        job=Job(name=name, vo=vo).SerializeToString() + described + acceptance.job,
        status=acceptance.status,
        event_id=event_id,
        event=event + acceptance.event,
        principal=acceptance.submitter.stored,
        traceparent=acceptance.traceparent,
        due_us=acceptance.now_us,
        request=key,
    )


def admit(description: JobDescription, attempt: int, backend: str) -> list[Change]:
    """What an accepted job goes through at once: its attempt is numbered, and it waits.

    It waits for its inputs when any are to be brought, else for a place to run.

    Parameters:
        attempt: the number of the one before, 0 at first.
        backend: the name of the one that will run it.
    """
    numbered = Job(attempt=attempt + 1, backend=backend)
    checking = Change(states.CHECKING, Minor.RESOLVING, "being checked", sets=numbered)
    inputs = to_be_brought(description)
    if not inputs:
        return [checking, Change(states.WAITING, Minor.QUEUED, "waits for a place to run")]
    count = files(len(inputs))
    return [checking, Change(states.STAGING, Minor.BRINGING, f"{count} to be brought")]


def to_be_brought(description: JobDescription) -> list[JobInput]:
    """The inputs that a transfer brings: all whose content is not in the description."""
    return [item for item in description.inputs if not item.HasField("content")]


def files(count: int) -> str:
    """A number of files in words."""
    return "1 file" if count == 1 else f"{count} files"


@dataclass(frozen=True, slots=True)
class Subject:
    """The job that changes, as far as its events need it.

    Parameters:
        encoded: the part of the job that never changes.
    """

    uid: str
    owner: str
    vo: str
    encoded: bytes

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.uid}"


def change(
    subject: Subject, status: Job, changes: Sequence[Change], now_us: int
) -> tuple[Job, list[NewEvent]]:
    """Carry out changes one after the other.

    Parameters:
        status: as it is; it is not touched.
        now_us: when they happen.

    Returns:
        The status after them, and one event for each.

    Raises:
        GridlaneError: ILLEGAL_TRANSITION.
    """
    after = Job()
    after.CopyFrom(status)
    events: list[NewEvent] = []
    for item in changes:
        before = after.state
        if item.to != before:
            states.require(subject.name, before, item.to)
        _set_fields(after, item)
        after.state = item.to
        after.phase = item.phase
        after.minor_status = item.minor
        after.revision += 1
        after.update_time.CopyFrom(to_timestamp(now_us))
        if item.to in states.ENDED:
            after.end_time.CopyFrom(after.update_time)
        events.append(_event(subject, before, after, item, now_us))
    return after, events


def _set_fields(after: Job, item: Change) -> None:
    """Merge what a change sets; who is killed for a reason that was noted keeps it, and who ends
    well all the same has none."""
    noted = Job(failure=after.failure) if after.HasField("failure") else None
    if item.sets is not None:
        if item.sets.HasField("failure"):
            after.ClearField("failure")
        after.MergeFrom(item.sets)
    if item.to == states.KILLED and noted is not None:
        after.failure.CopyFrom(noted.failure)
    elif item.to == states.DONE:
        after.ClearField("failure")
    if item.released or item.to in states.ENDED:
        after.ClearField("hold")
    elif item.hold is not None:
        after.hold.CopyFrom(item.hold)


def _event(
    subject: Subject, before: states.State, after: Job, item: Change, now_us: int
) -> NewEvent:
    event = JobEvent(
        event_id=uuid7(),
        time=after.update_time,
        job_name=subject.name,
        attempt=after.attempt,
        previous_state=before,
        state=after.state,
        phase=after.phase,
        minor_status=after.minor_status,
        message=item.message,
        source=item.source,
        hold=after.hold if after.HasField("hold") else None,
    )
    payload = event.SerializeToString()
    if after.state in states.ENDED:
        payload = encoding.with_job(payload, subject.encoded, after.SerializeToString())
    return NewEvent(
        event_id=event.event_id,
        subject=subject.name,
        kind=states.word(after.state),
        time_us=now_us,
        payload=payload,
        owner=subject.owner,
        vo=subject.vo,
    )


def failed(
    failure_class: FailureClass.ValueType,
    minor: str,
    message: str,
    cure: str = "",
    *,
    source: str = "workload",
    sets: Job | None = None,
    recoverable: bool = False,
) -> Change:
    """A change to FAILED with its failure."""
    result = Job()
    if sets is not None:
        result.CopyFrom(sets)
    result.failure.CopyFrom(
        Failure(failure_class=failure_class, message=message, cure=cure, recoverable=recoverable)
    )
    return Change(states.FAILED, minor, message, source, sets=result)


def kill(status: Job, by: str, reason: str = "") -> Change | None:
    """What a wish to kill does to a job at once; None when it is being killed or has ended.

    What no backend has is KILLED now. What runs, or whose outputs move, enters the phase KILLING
    and is KILLED when that has been stopped (DIRAC: "Marked for termination").

    Parameters:
        by: who asks, for the event.
        reason: why, by its words; empty for none told.
    """
    if status.state in states.FINAL or status.phase == JobPhase.JOB_PHASE_KILLING:
        return None
    message = f"a kill was asked for by {by}" + (f": {reason}" if reason else "")
    if status.state in states.BEFORE_START:
        return killed(message, "user")
    noted = Job(failure=_canceled(message)) if reason else None
    return Change(
        status.state, Minor.KILLED, message, "user", phase=JobPhase.JOB_PHASE_KILLING, sets=noted
    )


def killed(
    message: str, source: str, sets: Job | None = None, failure: Failure | None = None
) -> Change:
    """A change to KILLED with its failure: of the class CANCELED unless another is given."""
    result = Job()
    if sets is not None:
        result.CopyFrom(sets)
    result.failure.CopyFrom(failure or _canceled(message))
    return Change(states.KILLED, Minor.KILLED, message, source, sets=result)


def _canceled(message: str) -> Failure:
    return Failure(failure_class=FailureClass.FAILURE_CLASS_CANCELED, message=message)
