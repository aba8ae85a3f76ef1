"""What ends mean: each in a class of its own, with words that name the value and the cure."""

import signal

import pytest
from google.protobuf.duration_pb2 import Duration

from gridlane.type.v1.failure_pb2 import Failure, FailureClass
from gridlane.workload.v1.job_pb2 import Executor, Job, JobDescription, JobOutput, Resources
from gridlane_kit import errors
from gridlane_workload import outcomes, states
from gridlane_workload.backends.interface import End, EndKind, OutputFile
from gridlane_workload.transfers import Moved

DESCRIPTION = JobDescription(
    executors=[Executor(command=["first"]), Executor(command=["second", "x"])],
    outputs=[
        JobOutput(path="must", target="LFN:/l/must"),
        JobOutput(path="may", target="LFN:/l/may", optional=True),
    ],
    resources=Resources(disk_bytes=1000, walltime=Duration(seconds=90)),
)


def end(kind: EndKind, code: int | None = None, number: int | None = None) -> End:
    return End(
        kind=kind,
        exit_code=code,
        signal=number,
        executor=1,
        message="words of the backend",
        end_us=5,
        wall_us=2_000_000,
        cpu_us=1_500_000,
        peak_memory_bytes=4096,
        disk_bytes=10,
    )


@pytest.mark.parametrize(
    ("how", "failure_class", "minor", "said"),
    [
        (end(EndKind.EXITED, 3), "PAYLOAD_EXIT", "Application Finished With Errors", "code 3"),
        (end(EndKind.SIGNALED, number=11), "PAYLOAD_SIGNAL", "Application Finished", "second"),
        (
            end(EndKind.SIGNALED, number=signal.SIGXFSZ),
            "RESOURCE_LIMIT",
            "Application Finished With Errors",
            "1000 bytes",
        ),
        (end(EndKind.NOT_FOUND), "COMMAND_NOT_FOUND", "Application not found", "words"),
        (end(EndKind.WALLTIME), "WALLTIME_EXCEEDED", "wall clock", "90 s"),
        (end(EndKind.OUTPUT_LIMIT), "RESOURCE_LIMIT", "Errors", "standard output"),
        (end(EndKind.BROKEN), "BACKEND_LOST", "Exception", "words of the backend"),
    ],
)
def test_each_bad_end_has_its_class(how: End, failure_class: str, minor: str, said: str) -> None:
    change = outcomes.payload_failed(how, DESCRIPTION, "embedded")
    assert change is not None
    assert change.to == states.FAILED
    assert minor in change.minor
    assert change.sets is not None
    failure = change.sets.failure
    assert FailureClass.Name(failure.failure_class) == f"FAILURE_CLASS_{failure_class}"
    assert said in failure.message
    assert change.sets.resource_use.cpu_time.ToMicroseconds() == 1_500_000


def test_a_good_end_is_no_failure_and_keeps_its_exit_code() -> None:
    good = end(EndKind.EXITED, 0)
    assert outcomes.payload_failed(good, DESCRIPTION, "embedded") is None
    assert outcomes.use_of(good, DESCRIPTION).exit_code == 0


def test_a_signal_is_told_as_shells_tell_it() -> None:
    assert outcomes.use_of(end(EndKind.SIGNALED, number=9), DESCRIPTION).exit_code == 137


def test_what_could_not_be_executed_has_no_exit_code() -> None:
    assert not outcomes.use_of(end(EndKind.NOT_FOUND), DESCRIPTION).HasField("exit_code")


def test_a_promised_output_that_is_missing_fails_the_job_an_optional_one_does_not() -> None:
    there = [OutputFile("must", 0), OutputFile("may", None)]
    assert outcomes.missing_outputs(DESCRIPTION, there, "embedded") is None
    gone = [OutputFile("must", None), OutputFile("may", 5)]
    change = outcomes.missing_outputs(DESCRIPTION, gone, "embedded")
    assert change is not None
    assert change.sets is not None
    assert change.sets.failure.failure_class == FailureClass.FAILURE_CLASS_OUTPUT_MISSING
    assert "must" in change.sets.failure.message


def test_the_files_own_failure_is_told_with_its_cure() -> None:
    failure = Failure(message="LFN:/l/x has no replica", cure="put it first")
    how = Moved(final=True, well=False, files=0, size_bytes=0, failure=failure)
    for change in (outcomes.not_brought("transfers/1", how), outcomes.not_delivered("t/1", how)):
        assert change.sets is not None
        assert "LFN:/l/x has no replica" in change.sets.failure.message
        assert change.sets.failure.cure == "put it first"


@pytest.mark.parametrize(
    ("state", "error", "failure_class"),
    [
        (states.STAGING, errors.caller_vetoed(), "PERMISSION"),
        (states.MATCHED, errors.permission_denied("workload.jobs.submit"), "PERMISSION"),
        (states.STAGING, errors.no_storage_element("srm://x", "url"), "STAGE_IN"),
        (states.COMPLETING, errors.no_storage_element("srm://x", "url"), "STAGE_OUT"),
    ],
)
def test_a_refused_step_fails_in_the_class_of_its_state(
    state: states.State, error: errors.GridlaneError, failure_class: str
) -> None:
    change = outcomes.refused(Job(state=state), error)
    assert change.sets is not None
    told = change.sets.failure
    assert FailureClass.Name(told.failure_class) == f"FAILURE_CLASS_{failure_class}"
    assert told.message == error.message
