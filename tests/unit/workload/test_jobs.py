"""A job's rules: what is accepted, what a change does, what a kill means."""

from collections.abc import Sequence

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from gridlane.type.v1 import principal_pb2
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import (
    Executor,
    Job,
    JobDescription,
    JobInput,
    JobOutput,
    JobPhase,
    Resources,
)
from gridlane_kit.clock import to_timestamp
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import Principal
from gridlane_workload import encoding, jobs, states
from gridlane_workload.backends.interface import Capabilities, DataOwner
from gridlane_workload.jobs import Change, Subject
from gridlane_workload.states import Minor

CAPABILITIES = Capabilities(DataOwner.GRIDLANE, max_cpu_cores=4, logs_while_running=True)
ADA = Principal("https://i/", "ada", display_name="Ada", vos=frozenset({"local"}))
KILLING = JobPhase.JOB_PHASE_KILLING


def description(
    inputs: Sequence[str] = (), outputs: Sequence[JobOutput] = (), cores: int = 0
) -> JobDescription:
    return JobDescription(
        executors=[Executor(command=["true"])],
        inputs=[JobInput(path=path, source=f"LFN:/local/{path}") for path in inputs],
        outputs=outputs,
        resources=Resources(cpu_cores=cores),
    )


def violations(asked: JobDescription) -> list[str]:
    with pytest.raises(GridlaneError) as refused:
        jobs.check(asked, CAPABILITIES)
    assert refused.value.reason is ErrorReason.INVALID_FIELDS
    (bad_request,) = refused.value.details
    assert isinstance(bad_request, error_details_pb2.BadRequest)
    return [violation.description for violation in bad_request.field_violations]


def test_what_is_well_is_accepted() -> None:
    outputs = [JobOutput(path="a", target="LFN:/local/a"), JobOutput(path="b", target="LFN:/l/b")]
    jobs.check(description(["x/1", "x/2", "y"], outputs, cores=4), CAPABILITIES)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (description(["a", "b", "a"]), "a is named more than once"),
        (description(["data", "data/x"]), "data is a file and the folder of another input"),
        (description(cores=5), "at most 4"),
        (
            description(
                outputs=[JobOutput(path="a", target="LFN:/l/1"), JobOutput(path="a", target="x:2")]
            ),
            "a is named more than once",
        ),
        (
            description(
                outputs=[JobOutput(path="a", target="x:1"), JobOutput(path="b", target="x:1")]
            ),
            "x:1 is named more than once",
        ),
    ],
)
def test_what_single_fields_cannot_tell_is_refused(asked: JobDescription, named: str) -> None:
    assert any(named in text for text in violations(asked))


def test_all_violations_are_named_at_once() -> None:
    assert len(violations(description(["a", "a"], cores=9))) == 2


def accepted(asked: JobDescription) -> tuple[Job, Subject, Job]:
    acceptance = jobs.accepting(ADA, "00-a-b-01", "a" * 32, 1_000_000)
    submission = jobs.accept(asked, "local", acceptance, None)
    stored = encoding.with_number(submission.job, 7)
    subject = Subject(submission.uid, submission.owner, submission.vo, stored)
    return Job.FromString(stored + submission.status), subject, Job.FromString(submission.status)


def test_what_is_stored_reads_back_as_the_job_that_was_asked_for() -> None:
    asked = description(["a"])
    answer, subject, _ = accepted(asked)
    time = to_timestamp(1_000_000)
    assert answer == Job(
        name=subject.name,
        number=7,
        vo="local",
        description=asked,
        state=states.RECEIVED,
        minor_status=Minor.ACCEPTED,
        owner=principal_pb2.Principal(
            issuer=ADA.issuer,
            subject="ada",
            display_name="Ada",
            vos=sorted(ADA.vos),
            groups=sorted(ADA.groups),
            kind=principal_pb2.PRINCIPAL_KIND_USER,
        ),
        create_time=time,
        update_time=time,
        trace_id="a" * 32,
        revision=1,
    )


def test_the_first_event_carries_the_job() -> None:
    acceptance = jobs.accepting(ADA, "", "", 1_000_000)
    submission = jobs.accept(description(), "local", acceptance, None)
    job = encoding.with_number(submission.job, 300)
    event = JobEvent.FromString(encoding.with_job(submission.event, job, submission.status))
    assert event.job == Job.FromString(job + submission.status)
    assert (event.job_name, event.event_id) == (f"jobs/{submission.uid}", submission.event_id)
    assert (event.previous_state, event.state) == (0, states.RECEIVED)
    assert (event.time, event.message, event.source) == (event.job.create_time, "accepted", "user")


@given(st.integers(0, 2**63 - 1), st.binary(max_size=300))
def test_added_fields_read_as_if_encoded_with_the_rest(number: int, tail: bytes) -> None:
    job = Job(name="jobs/x", vo=tail.hex())
    encoded = encoding.with_number(job.SerializeToString(), number)
    event = JobEvent(event_id="e", message=tail.hex())
    read = JobEvent.FromString(encoding.with_job(event.SerializeToString(), encoded, b""))
    job.number = number
    event.job.CopyFrom(job)
    assert read == event


@given(st.lists(st.sampled_from(sorted(states.TRANSITIONS)), min_size=1, max_size=8))
def test_a_job_takes_legal_ways_only_and_tells_each_step(ways: list[states.State]) -> None:
    _, subject, status = accepted(description())
    state, made = status.state, 0
    for target in ways:
        change = Change(target, "minor", "told")
        if target != state and target not in states.TRANSITIONS[state]:
            with pytest.raises(GridlaneError):
                jobs.change(subject, status, [change], 2)
            continue
        before = Job.FromString(status.SerializeToString())
        after, (event,) = jobs.change(subject, status, [change], 2)
        assert status == before, "the status given is not touched"
        told = JobEvent.FromString(event.payload)
        assert (told.previous_state, told.state) == (state, target)
        assert told.HasField("job") == (target in states.ENDED)
        assert after.revision == status.revision + 1
        assert after.HasField("end_time") or target not in states.ENDED
        status, state, made = after, target, made + 1
    assert status.revision == 1 + made


def test_admission_numbers_the_attempt_and_waits_for_inputs_only_when_there_are_any() -> None:
    with_inputs = jobs.admit(description(["a"]), 0, "embedded")
    without = jobs.admit(description(), 0, "embedded")
    assert [change.to for change in with_inputs] == [states.CHECKING, states.STAGING]
    assert [change.to for change in without] == [states.CHECKING, states.WAITING]
    assert without[0].sets is not None
    assert without[0].sets.attempt == 1


@pytest.mark.parametrize("state", sorted(states.BEFORE_START))
def test_what_waits_is_killed_at_once(state: states.State) -> None:
    change = jobs.kill(Job(state=state), "ada")
    assert change is not None
    assert change.to == states.KILLED
    assert change.minor == "Marked for termination"
    assert change.sets is not None
    assert change.sets.failure.failure_class == FailureClass.FAILURE_CLASS_CANCELED


@pytest.mark.parametrize("state", [states.MATCHED, states.RUNNING, states.COMPLETING])
def test_what_is_under_way_is_marked_and_goes_on_until_it_was_stopped(state: states.State) -> None:
    change = jobs.kill(Job(state=state), "ada")
    assert change is not None
    assert (change.to, change.phase) == (state, KILLING)
    assert jobs.kill(Job(state=state, phase=KILLING), "ada") is None


@pytest.mark.parametrize("state", sorted(states.FINAL))
def test_what_has_ended_is_left_as_it_is(state: states.State) -> None:
    assert jobs.kill(Job(state=state), "ada") is None
