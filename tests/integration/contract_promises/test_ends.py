"""Promises of kills, of batches and of what cannot be found: jobs and tasks."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from integration.contract_promises.stranger import (
    NOBODYS,
    Refusal,
    Stranger,
    adler32,
    submission,
    task_of,
)

from gridlane.gateway.v1 import task_service_pb2
from gridlane.ids import uuid7
from gridlane.reporting.v1 import span_service_pb2
from gridlane.transfer.v1 import replica_service_pb2, transfer_service_pb2
from gridlane.type.v1 import failure_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2


def kill_of(job: str) -> job_service_pb2.KillJobRequest:
    return job_service_pb2.KillJobRequest(name=job)


def cancel_of(job: str) -> task_service_pb2.CancelTaskRequest:
    return task_service_pb2.CancelTaskRequest(name=job)


def test_a_running_job_is_killed_and_killing_it_again_changes_nothing(me: Stranger) -> None:
    job = me.submit("sleep", "60").name
    me.started(job)
    first = me.call(me.jobs.KillJob, kill_of(job))
    assert first.state == job_pb2.JOB_STATE_KILLED or first.phase == job_pb2.JOB_PHASE_KILLING
    me.call(me.jobs.KillJob, kill_of(job))
    ended = me.ended(job)
    assert ended.state == job_pb2.JOB_STATE_KILLED
    assert ended.failure.failure_class == failure_pb2.FAILURE_CLASS_CANCELED
    assert ended.failure.message
    assert me.call(me.jobs.KillJob, kill_of(job)) == ended
    assert me.job(job) == ended


@pytest.mark.parametrize("command", ["true", "false"])
def test_a_job_that_has_ended_is_answered_as_it_is(me: Stranger, command: str) -> None:
    ended = me.done(command)
    assert me.call(me.jobs.KillJob, kill_of(ended.name)) == ended
    task = me.call(me.tasks.CancelTask, cancel_of(ended.name))
    assert task.job == ended
    assert task.name == "tasks/" + ended.name.removeprefix("jobs/")
    assert me.job(ended.name) == ended


def test_a_canceled_task_is_killed_with_its_transfers(me: Stranger) -> None:
    task = me.call(me.tasks.SubmitTask, task_of(submission("sleep", "60")))
    me.started(task.job.name)
    for _ in range(2):
        me.call(me.tasks.CancelTask, cancel_of(task.name))
    assert me.ended(task.job.name).state == job_pb2.JOB_STATE_KILLED


@pytest.mark.parametrize(
    ("command", "failure_class", "exit_code"),
    [
        (["sh", "-c", "exit 7"], "PAYLOAD_EXIT", 7),
        (["no-such-command"], "COMMAND_NOT_FOUND", None),
        (["sh", "-c", "kill -9 $$"], "PAYLOAD_SIGNAL", None),
    ],
)
def test_a_job_that_ends_badly_says_why(
    me: Stranger, command: list[str], failure_class: str, exit_code: int | None
) -> None:
    job = me.done(*command)
    assert job.state == job_pb2.JOB_STATE_FAILED
    name = failure_pb2.FailureClass.Name(job.failure.failure_class)
    assert name == f"FAILURE_CLASS_{failure_class}"
    assert job.failure.message
    if exit_code is not None:
        assert job.exit_code == exit_code


def test_a_payload_that_outlives_its_wall_time_is_ended(me: Stranger) -> None:
    job = me.done("sleep", "60", resources=job_pb2.Resources(walltime=Duration(seconds=1)))
    assert job.state == job_pb2.JOB_STATE_FAILED
    assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_WALLTIME_EXCEEDED
    assert job.resource_use.wall_time.seconds < 30


def test_an_input_that_is_not_as_promised_fails_the_job(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/in", b"in")
    for source, checksum in ((f"{folder}/in", adler32(b"other")), (f"{folder}/none", None)):
        inputs = [job_pb2.JobInput(path="in", source=source, checksum=checksum)]
        job = me.done("true", inputs=inputs)
        assert job.state == job_pb2.JOB_STATE_FAILED
        assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_STAGE_IN
        assert source in job.failure.message
        assert not job.HasField("start_time")
        assert not job.HasField("exit_code")


def test_a_payload_has_the_variables_it_was_given(me: Stranger) -> None:
    command = ["sh", "-c", 'printf "$A" > "a b"; test "$(cat "a b")" = "x y" && pwd']
    executor = job_pb2.Executor(command=command, environment={"A": "x y"})
    job = me.done(executors=[executor])
    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_DONE, 0)


def test_the_first_executor_that_fails_ends_the_payload(me: Stranger) -> None:
    commands = (["echo", "1"], ["sh", "-c", "echo 2; exit 3"], ["echo", "4"])
    job = me.done(executors=[job_pb2.Executor(command=command) for command in commands])
    assert job.exit_code == 3
    request = job_service_pb2.ReadJobLogRequest(name=job.name)
    assert b"".join(p.chunk for p in me.call(me.jobs.ReadJobLog, request)) == b"1\n2\n"


def test_an_output_that_was_promised_and_not_made_fails_the_job(me: Stranger, folder: str) -> None:
    output = job_pb2.JobOutput(path="x", target=f"{folder}/x")
    job = me.done(outputs=[output])
    assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_OUTPUT_MISSING
    output.optional = True
    assert me.done(outputs=[output]).state == job_pb2.JOB_STATE_DONE


def test_an_output_s_target_is_replaced_only_when_it_may_be(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/x", b"old")
    output = job_pb2.JobOutput(path="x", target=f"{folder}/x")
    job = me.done("sh", "-c", "printf new > x", outputs=[output])
    assert job.state == job_pb2.JOB_STATE_FAILED
    assert me.read(f"{folder}/x") == b"old"
    output.overwrite = True
    assert me.done("sh", "-c", "printf new > x", outputs=[output]).state == job_pb2.JOB_STATE_DONE
    assert me.read(f"{folder}/x") == b"new"


def test_each_output_says_for_itself_whether_it_replaces(me: Stranger, folder: str) -> None:
    for name in ("x", "y"):
        me.put(f"{folder}/{name}", b"old")
    outputs = [
        job_pb2.JobOutput(path=name, target=f"{folder}/{name}", overwrite=name == "x")
        for name in ("x", "y", "z")
    ]
    job = me.done("sh", "-c", "printf new > x; printf new > y; printf new > z", outputs=outputs)
    assert job.failure.failure_class == failure_pb2.FAILURE_CLASS_STAGE_OUT
    assert f"{folder}/y" in job.failure.message
    assert [me.read(f"{folder}/{name}") for name in ("x", "y", "z")] == [b"new", b"old", b"new"]
    outputs[1].overwrite = True
    outputs[2].target = f"{folder}/w"
    job = me.done("sh", "-c", "printf 2 > x; printf 2 > y; printf 2 > z", outputs=outputs)
    assert job.state == job_pb2.JOB_STATE_DONE
    assert [me.read(f"{folder}/{name}") for name in ("x", "y", "w")] == [b"2", b"2", b"2"]


def results(answer: Any) -> list[Any]:
    """Of each result the item, or the refusal."""
    found = [(result, result.WhichOneof("result")) for result in answer.results]
    return [
        Refusal.of(result.status) if which == "status" else getattr(result, which)
        for result, which in found
    ]


def test_a_batch_of_submissions_answers_each_in_its_place(me: Stranger, folder: str) -> None:
    request_id = uuid7()
    twice = [job_pb2.JobOutput(path="x", target=f"{folder}/x")] * 2
    requests = [
        submission("true", "a", request_id=request_id),
        submission("true", outputs=twice),
        submission("true", "b", request_id=request_id),
        submission("true", "a", request_id=request_id),
        submission("true", "c", validate_only=True),
        submission("true", priority=99),
        submission("true", request_id="no UUIDv7"),
        job_service_pb2.SubmitJobRequest(),
        submission("true", "d"),
    ]
    batch = job_service_pb2.BatchSubmitJobsRequest(requests=requests)
    answer = me.call(me.jobs.BatchSubmitJobs, batch)
    first, refused, reused, again, checked, *broken, last = results(answer)
    assert first.name
    assert first.name == again.name
    assert refused.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert reused.short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert checked.name == ""
    wrong = [one.fields for one in broken]
    assert wrong == [("job.description.priority",), ("request_id",), ("job",)]
    assert last.description.executors[0].command == ["true", "d"]
    assert me.job(last.name).name == last.name
    single = me.call(me.jobs.SubmitJob, submission("true", "a", request_id=request_id))
    assert single.name == first.name


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_has_1_to_1000(me: Stranger, count: int) -> None:
    requests = [submission("true")] * count
    batch = job_service_pb2.BatchSubmitJobsRequest(requests=requests)
    assert me.refused(me.jobs.BatchSubmitJobs, batch).fields == ("requests",)
    asked = job_service_pb2.BatchGetJobsRequest(names=[f"jobs/{NOBODYS}"] * count)
    assert me.refused(me.jobs.BatchGetJobs, asked).fields == ("names",)
    transfers = [f"transfers/{NOBODYS}"] * count
    names = transfer_service_pb2.BatchGetTransferJobsRequest(names=transfers)
    assert me.refused(me.transfers.BatchGetTransferJobs, names).fields == ("names",)
    lfns = replica_service_pb2.ResolveReplicasRequest(lfns=["LFN:/local/x"] * count)
    assert me.refused(me.replicas.ResolveReplicas, lfns).fields == ("lfns",)


def test_every_violation_is_named_and_of_a_large_request_the_first(me: Stranger) -> None:
    few = job_service_pb2.BatchGetJobsRequest(names=["x", f"jobs/{NOBODYS}", "y"])
    assert me.refused(me.jobs.BatchGetJobs, few).fields == ("names[0]", "names[2]")
    many = job_service_pb2.BatchGetJobsRequest(names=[f"job/{NOBODYS}"] * 1000)
    assert me.refused(me.jobs.BatchGetJobs, many).fields == ("names[0]",)


def test_batches_of_names_answer_in_the_order_asked(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/a", b"a")
    jobs = [me.done().name for _ in range(2)]
    transfers = [me.moved(f"{folder}/a", f"{folder}/{n}").name for n in range(2)]
    batch = job_service_pb2.BatchGetJobsRequest(
        names=[jobs[1], f"jobs/{NOBODYS}", jobs[0], jobs[1]]
    )
    b, absent, a, again = results(me.call(me.jobs.BatchGetJobs, batch))
    assert (b, a, again) == (me.job(jobs[1]), me.job(jobs[0]), me.job(jobs[1]))
    assert absent.short == ("NOT_FOUND", "NOT_FOUND")
    assert absent.metadata == {"name": f"jobs/{NOBODYS}"}
    names = [transfers[1], f"transfers/{NOBODYS}", transfers[0]]
    request = transfer_service_pb2.BatchGetTransferJobsRequest(names=names)
    b, absent, a = results(me.call(me.transfers.BatchGetTransferJobs, request))
    assert [b.name, a.name] == [transfers[1], transfers[0]]
    assert not b.files
    assert absent.metadata == {"name": f"transfers/{NOBODYS}"}
    lfns = [f"{folder}/none", f"{folder}/a", f"{folder}/../a"]
    resolve = replica_service_pb2.ResolveReplicasRequest(lfns=lfns)
    none, file, dots = results(me.call(me.replicas.ResolveReplicas, resolve))
    assert file.lfn == f"{folder}/a"
    assert (none.metadata, dots.metadata) == ({"name": lfns[0]}, {"name": lfns[2]})
    assert none.short == dots.short == ("NOT_FOUND", "NOT_FOUND")


def test_what_nobody_made_is_not_found(me: Stranger) -> None:
    job, task = f"jobs/{NOBODYS}", f"tasks/{NOBODYS}"
    messages = job_service_pb2
    for method, request, name in (
        (me.jobs.GetJob, messages.GetJobRequest(name=job), job),
        (me.jobs.KillJob, kill_of(job), job),
        (me.jobs.ListJobEvents, messages.ListJobEventsRequest(parent=job), job),
        (me.jobs.ReadJobLog, messages.ReadJobLogRequest(name=job), job),
        (me.spans.ListJobSpans, span_service_pb2.ListJobSpansRequest(job=job), job),
        (me.tasks.DescribeTask, task_service_pb2.DescribeTaskRequest(name=task), job),
        (me.tasks.WatchTask, task_service_pb2.WatchTaskRequest(name=task), job),
        (me.tasks.CancelTask, cancel_of(task), job),
    ):
        refusal = me.refused(method, request)
        assert refusal.short == ("NOT_FOUND", "NOT_FOUND")
        assert refusal.metadata == {"name": name}


@pytest.mark.parametrize(
    "name",
    ["", "jobs/", "jobs/x", f"job/{NOBODYS}", f"jobs/{NOBODYS}\n", f"jobs/{NOBODYS.upper()}"],
)
def test_what_is_no_name_is_refused(me: Stranger, name: str) -> None:
    refusal = me.refused(me.jobs.GetJob, job_service_pb2.GetJobRequest(name=name))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refusal.fields == ("name",)
