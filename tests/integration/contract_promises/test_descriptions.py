"""What a job's description asks of its payload is done as promised, or refused by name."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from integration.contract_promises.stranger import Refusal, Stranger, submission, task_of

from gridlane.ids import uuid7
from gridlane.type.v1 import failure_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane.workload.v1.job_pb2 import Executor, JobInput, JobOutput


def shell(script: str, **fields: Any) -> Executor:
    return Executor(command=["sh", "-c", script], **fields)


def log(me: Stranger, job: job_pb2.Job, error: bool = False) -> bytes:
    stream = job_service_pb2.LOG_STREAM_STDERR if error else job_service_pb2.LOG_STREAM_STDOUT
    request = job_service_pb2.ReadJobLogRequest(name=job.name, stream=stream)
    return b"".join(part.chunk for part in me.call(me.jobs.ReadJobLog, request))


def test_a_content_is_there_without_a_transfer(me: Stranger) -> None:
    inputs = [
        JobInput(path="etc/a.cfg", content=b"a \x00\n"),
        JobInput(path="empty", content=b""),
    ]
    job = me.done("sh", "-c", "od -An -tx1 etc/a.cfg; wc -c < empty", inputs=inputs)
    assert (job.state, job.stage_in_transfer) == (job_pb2.JOB_STATE_DONE, "")
    assert log(me, job).split() == b"61 20 00 0a 0".split()
    assert job.description.inputs == inputs
    assert job.resource_use.input_sandbox_bytes == 4


def test_contents_and_transfers_go_together(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/in", b"far ")
    inputs = [JobInput(path="d/a", source=f"{folder}/in"), JobInput(path="d/b", content=b"near")]
    job = me.done("cat", "d/a", "d/b", inputs=inputs)
    assert log(me, job) == b"far near"
    assert job.resource_use.input_files == 1


def test_an_executable_input_can_be_executed_and_another_one_not(me: Stranger, folder: str) -> None:
    program = b"#!/bin/sh\necho ran\n"
    me.put(f"{folder}/program", program)
    for origin in ({"source": f"{folder}/program"}, {"content": program}):
        inputs: Any = [JobInput(path="bin/it", executable=True, **origin)]
        job = me.done("./bin/it", inputs=inputs)
        assert (job.state, log(me, job)) == (job_pb2.JOB_STATE_DONE, b"ran\n")
        job = me.done("./bin/it", inputs=[JobInput(path="bin/it", **origin)])
        assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_COMMAND_NOT_FOUND


@pytest.mark.parametrize(
    "inputs",
    [
        [JobInput(path="a")],
        [JobInput(path="a", source="LFN:/local/a", content=b"a")],
        [JobInput(path="a", content=b"a" * 131073)],
        [JobInput(path=f"{n}", content=b"a" * 131072) for n in range(9)],
    ],
    ids=["neither", "both", "too large", "too large together"],
)
def test_an_input_has_a_source_or_a_small_content(me: Stranger, inputs: list[JobInput]) -> None:
    refusal = me.refused(me.jobs.SubmitJob, submission("true", inputs=inputs))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")


def test_a_command_reads_and_writes_the_files_it_names(me: Stranger, folder: str) -> None:
    job = me.done(
        executors=[
            shell("tr a b; echo no >&2", stdin="in", stdout="out/o", stderr="out/e"),
            shell("cat; echo more", stdin="out/o", stdout="both", stderr="both"),
            shell("echo log; cat both out/e"),
        ],
        inputs=[JobInput(path="in", content=b"banana\n")],
        outputs=[JobOutput(path="both", target=f"{folder}/both")],
    )
    assert job.state == job_pb2.JOB_STATE_DONE
    assert log(me, job) == b"log\nbbnbnb\nmore\nno\n"
    assert log(me, job, error=True) == b""
    assert me.read(f"{folder}/both") == b"bbnbnb\nmore\n"


def test_a_command_s_file_replaces_what_is_there(me: Stranger) -> None:
    executors = [shell("echo long text", stdout="f"), shell("echo x", stdout="f")]
    job = me.done(executors=[*executors, Executor(command=["cat", "f"])])
    assert log(me, job) == b"x\n"


@pytest.mark.parametrize("pipe", [False, True], ids=["not there", "a pipe"])
def test_a_standard_input_that_is_no_file_ends_the_command(me: Stranger, pipe: bool) -> None:
    before = shell("mkfifo in" if pipe else "true")
    job = me.done(executors=[before, shell("echo ran", stdin="in")])
    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_FAILED, 1)
    assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_PAYLOAD_EXIT
    assert log(me, job) == b""
    assert b"in: " in log(me, job, error=True)


def test_a_command_runs_in_its_folder_and_its_files_stay_below_the_working_directory(
    me: Stranger,
) -> None:
    executors = [shell("echo a > here", workdir="x/y", stdout="out"), shell("ls x/y out")]
    job = me.done(executors=executors)
    assert log(me, job).split() == [b"out", b"x/y:", b"here"]


@pytest.mark.parametrize("field", ["workdir", "stdin", "stdout", "stderr"])
@pytest.mark.parametrize("path", ["..", "a/../b", "a//b", "a/", "a\n", "x" * 256])
def test_a_command_s_paths_stay_below_the_working_directory(
    me: Stranger, field: str, path: str
) -> None:
    executors = [Executor(**{"command": ["true"], field: path})]  # type: ignore[arg-type]
    refusal = me.refused(me.jobs.SubmitJob, submission(executors=executors))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refusal.fields == (f"job.description.executors[0].{field}",)


@pytest.mark.parametrize(
    "failing", [["sh", "-c", "exit 3"], ["sh", "-c", "kill -9 $$"], ["no-such-command"]]
)
def test_an_error_that_is_to_be_ignored_ends_nothing(me: Stranger, failing: list[str]) -> None:
    ignored = Executor(command=failing, ignore_error=True)
    job = me.done(executors=[ignored, shell("echo on")])
    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_DONE, 0)
    assert log(me, job) == b"on\n"
    job = me.done(executors=[shell("echo on"), ignored])
    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_DONE, 0)


def test_what_always_runs_cleans_up_and_makes_nothing_good(me: Stranger) -> None:
    executors = [
        shell("exit 4"),
        shell("echo skipped"),
        shell("echo cleaned; exit 5", run_always=True),
        shell("echo last", run_always=True),
    ]
    job = me.done(executors=executors)
    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_FAILED, 4)
    assert log(me, job) == b"cleaned\nlast\n"
    job = me.done(executors=executors[1:])
    assert (job.exit_code, log(me, job)) == (5, b"skipped\ncleaned\nlast\n")


def test_after_the_wall_time_nothing_runs(me: Stranger) -> None:
    job = me.done(
        executors=[
            Executor(command=["sleep", "60"], ignore_error=True),
            shell("echo no", run_always=True),
        ],
        resources=job_pb2.Resources(walltime=Duration(seconds=1)),
    )
    assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_WALLTIME_EXCEEDED
    assert log(me, job) == b""


def test_what_means_nothing_to_gridlane_is_kept_and_given_back(me: Stranger) -> None:
    given: dict[str, Any] = {
        "description": "what it is for",
        "annotations": {"bps.quanta": "isr:3;calibrate:3"},
        "inputs": [JobInput(path="a", content=b"", display_name="A", description="an a")],
        "backend_options": job_pb2.BackendOptions(
            parameters={"condor.x": "1"}, ignore_unknown_parameters=True
        ),
        "resources": job_pb2.Resources(preemptible=True, max_cpu_cores=8),
    }
    job = me.done("true", **given)
    assert job.state == job_pb2.JOB_STATE_DONE
    for name, value in given.items():
        assert getattr(job.description, name) == value


def test_fewer_processors_at_most_than_at_least_are_refused(me: Stranger) -> None:
    asked = submission("true", resources=job_pb2.Resources(cpu_cores=2, max_cpu_cores=1))
    refusal = me.refused(me.jobs.SubmitJob, asked)
    assert refusal.fields == ("job.description.resources.max_cpu_cores",)


# What no backend of this version does: sources elsewhere would fail a check of the gateway's.
BEYOND: dict[str, Any] = {
    "executors": [Executor(command=["true"], image="python:3")],
    "inputs": [
        JobInput(path="a", source="https://x.test/a", access=job_pb2.INPUT_ACCESS_REMOTE),
    ],
    "destination": job_pb2.JobDestination(queue="long"),
}
BEYOND_FIELDS = {
    "job.description.executors[0].image",
    "job.description.inputs[0].access",
    "job.description.destination.queue",
}


def assert_beyond(refusal: Refusal) -> None:
    assert refusal.short == ("INVALID_ARGUMENT", "CAPABILITY_MISSING")
    assert set(refusal.fields) == BEYOND_FIELDS
    assert refusal.metadata["backend"] == "embedded"
    assert refusal.metadata["field"] in BEYOND_FIELDS
    assert refusal.metadata["capability"]


@pytest.mark.parametrize("validate_only", [False, True])
def test_what_the_backend_does_not_do_is_refused_and_nothing_is_stored(
    me: Stranger, validate_only: bool
) -> None:
    request_id = uuid7()
    asked = submission(request_id=request_id, validate_only=validate_only, **BEYOND)
    assert_beyond(me.refused(me.jobs.SubmitJob, asked))
    assert_beyond(me.refused(me.tasks.SubmitTask, task_of(asked)))
    # The id was not used up: there is nothing under it.
    assert me.submit("true", request_id=request_id).name


def test_in_a_batch_it_is_refused_alone(me: Stranger) -> None:
    requests = [submission("true"), submission(**BEYOND), submission("true")]
    answer = me.call(
        me.jobs.BatchSubmitJobs, job_service_pb2.BatchSubmitJobsRequest(requests=requests)
    )
    first, second, third = answer.results
    assert first.job.name
    assert third.job.name
    assert_beyond(Refusal.of(second.status))
