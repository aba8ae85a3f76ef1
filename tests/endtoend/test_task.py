"""A task from its submission to the end of its story, on a real server."""

import uuid
from typing import Any

import grpc
import pytest

from gridlane.authorization.v1 import authorization_service_pb2, policy_pb2
from gridlane.gateway.v1 import task_service_pb2
from gridlane.ids import uuid7
from gridlane.transfer.v1 import storage_service_pb2, transfer_job_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2

SERVICES = {"authorization", "transfer", "workload", "reporting"}
COPY = "open('out.txt', 'w').write(open('in.txt').read().upper()); print('copied')"


def fresh(name: str) -> str:
    """A logical file name that nobody used."""
    return f"LFN:/local/{uuid.uuid4()}/{name}"


def event_ids(events: Any) -> list[str]:
    return [(e.job if e.HasField("job") else e.transfer).event_id for e in events]


@pytest.fixture
def moved(user: Any) -> Any:
    """A finished task with an input and an output, and where its output is."""
    source, target = fresh("in.txt"), fresh("out.txt")
    user.put(source, b"hello")
    task = user.submit(COPY, inputs={"in.txt": source}, outputs={"out.txt": target})
    return task, user.wait(task), target


def test_the_local_user_is_admin_and_submitter(user: Any) -> None:
    answer = user.server.call(user.authorization.WhoAmI, authorization_service_pb2.WhoAmIRequest())
    roles = {(binding.role, binding.vo) for binding in answer.roles}
    assert roles == {
        (policy_pb2.ROLE_ADMIN, ""),
        (policy_pb2.ROLE_SUBMITTER, "local"),
        (policy_pb2.ROLE_REGULAR_USER, ""),
    }
    assert list(answer.principal.vos) == ["local"]
    assert answer.HasField("expire_time")


def test_every_service_and_its_backends_answer(user: Any) -> None:
    def silent() -> set[str]:
        """Who does not answer in the moment that Ping gives them, as processes that just began."""
        answer = user.server.call(user.tasks.Ping, task_service_pb2.PingRequest())
        there = {s.service for s in answer.services if s.reachable and s.authenticated}
        away = {b.name for s in answer.services for b in s.backends if not b.reachable}
        return (SERVICES - there) | away

    user.eventually(lambda: not silent())


def test_a_task_moves_its_files_runs_and_is_done(user: Any, moved: Any) -> None:
    task, job, target = moved
    assert job.state == job_pb2.JOB_STATE_DONE
    assert job.exit_code == 0
    assert user.get(target) == b"HELLO"
    request = job_service_pb2.ReadJobLogRequest(name=task.job.name)
    log = b"".join(part.chunk for part in user.server.call(user.jobs.ReadJobLog, request))
    assert log == b"copied\n"


def test_the_story_of_a_task_is_whole(user: Any, moved: Any) -> None:
    task, job, _ = moved
    user.eventually(lambda: len(user.records(job.name)) == 3)
    story = user.describe(task)
    assert not story.missing
    assert story.job == job
    assert story.trace_id == job.trace_id
    assert [t.state for t in story.transfer_jobs] == [
        transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED,
    ]
    assert all(len(t.files) == 1 for t in story.transfer_jobs)
    kinds = sorted(r.WhichOneof("record") for r in story.accounting_records)
    assert kinds == ["data_operation", "data_operation", "job_usage"]
    times = [
        (e.job if e.HasField("job") else e.transfer).time.ToNanoseconds() for e in story.events
    ]
    assert times == sorted(times)
    states = [e.job.state for e in story.events if e.HasField("job")]
    assert states[0] == job_pb2.JOB_STATE_RECEIVED
    assert states[-1] == job_pb2.JOB_STATE_DONE


def test_accounting_tells_what_the_job_used_and_moved(user: Any, moved: Any) -> None:
    _, job, _ = moved
    records = user.eventually(lambda: r if len(r := user.records(job.name)) == 3 else None)
    (usage,) = (r.job_usage for r in records if r.HasField("job_usage"))
    assert (usage.attempt, usage.final_major_status, usage.site) == (1, "DONE", "embedded")
    assert (usage.input_data_files, usage.input_data_bytes) == (1, 5)
    assert (usage.output_data_files, usage.output_data_bytes) == (1, 5)
    assert usage.cpu_time.ToMicroseconds() > 0
    moves = {(o.source, o.target) for r in records if (o := r.data_operation).transfer_total}
    assert moves == {("local", "jobs"), ("jobs", "local")}
    assert {r.vo for r in records} == {"local"}


def test_the_trace_reaches_from_the_submission_to_the_payload(user: Any, moved: Any) -> None:
    _, job, _ = moved
    user.eventually(lambda: "payload" in {span.name for span in user.spans(job.name)})
    spans = user.spans(job.name)
    names = {span.name for span in spans}
    assert "gridlane.gateway.v1.TaskService/SubmitTask" in names
    assert "gridlane.workload.v1.JobService/SubmitJob" in names
    assert "gridlane.transfer.v1.TransferService/SubmitTransferJob" in names
    assert job.trace_id in {span.trace_id for span in spans}


def test_a_watch_tells_every_event_once_and_ends(user: Any, moved: Any) -> None:
    task, _, _ = moved
    ids = event_ids([event for page in user.watch(task) for event in page.events])
    assert len(ids) == len(set(ids))
    assert set(ids) == set(event_ids(user.describe(task).events))


def test_a_live_watch_resumed_at_every_place_repeats_and_misses_nothing(user: Any) -> None:
    source, target = fresh("in.txt"), fresh("out.txt")
    user.put(source, b"hello")
    task = user.submit(COPY, inputs={"in.txt": source}, outputs={"out.txt": target})
    ids: list[str] = []
    token = ""
    while True:
        page = next(user.watch(task, token), None)
        if page is None:
            break
        ids += event_ids(page.events)
        token = page.resume_token
    assert len(ids) == len(set(ids))
    assert set(ids) == set(event_ids(user.describe(task).events))


def test_a_cancelled_task_is_killed_and_its_watch_ends(user: Any) -> None:
    task = user.submit("import time; time.sleep(60)")
    user.wait_for_state(task, job_pb2.JOB_STATE_RUNNING)
    request = task_service_pb2.CancelTaskRequest(name=task.name)
    user.server.call(user.tasks.CancelTask, request)
    job = user.wait(task)
    assert job.state == job_pb2.JOB_STATE_KILLED
    assert user.eventually(lambda: user.records(job.name))


def test_a_task_whose_input_nobody_knows_leaves_nothing(user: Any) -> None:
    before = user.server.call(user.jobs.ListJobs, job_service_pb2.ListJobsRequest()).jobs
    with pytest.raises(grpc.RpcError) as refused:
        user.submit("pass", inputs={"in.txt": fresh("never.txt")})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    after = user.server.call(user.jobs.ListJobs, job_service_pb2.ListJobsRequest()).jobs
    assert [job.name for job in after] == [job.name for job in before]


def test_the_same_request_makes_one_task_and_another_content_is_refused(user: Any) -> None:
    request_id = uuid7()
    first = user.submit("pass", request_id=request_id)
    assert user.submit("pass", request_id=request_id).name == first.name
    with pytest.raises(grpc.RpcError) as refused:
        user.submit("raise SystemExit(1)", request_id=request_id)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_repeated_request_is_answered_when_its_input_is_gone_by_now(user: Any) -> None:
    source, request_id = fresh("in.txt"), uuid7()
    user.put(source, b"x")
    task = user.submit("pass", inputs={"in.txt": source}, request_id=request_id)
    user.wait(task)
    delete = storage_service_pb2.DeleteContentRequest(file=source)
    user.server.call(user.storage.DeleteContent, delete)
    again = user.submit("pass", inputs={"in.txt": source}, request_id=request_id)
    assert again.name == task.name
