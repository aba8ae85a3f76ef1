"""Promises of watches and logs: from the first event, each change once and in order, resumed."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from integration.contract_promises.stranger import JOB_ENDS, NOBODYS, Stranger, refusal

from gridlane.gateway.v1 import task_service_pb2
from gridlane.transfer.v1 import transfer_service_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2


def job_watch(*names: str, token: str = "") -> job_service_pb2.WatchJobsRequest:
    return job_service_pb2.WatchJobsRequest(names=names, resume_token=token)


def transfer_watch(*names: str, token: str = "") -> transfer_service_pb2.WatchTransferJobsRequest:
    return transfer_service_pb2.WatchTransferJobsRequest(names=names, resume_token=token)


def task_watch(name: str, token: str = "") -> task_service_pb2.WatchTaskRequest:
    return task_service_pb2.WatchTaskRequest(name=name, resume_token=token)


def log_of(job: str, **fields: Any) -> job_service_pb2.ReadJobLogRequest:
    return job_service_pb2.ReadJobLogRequest(name=job, **fields)


@pytest.fixture
def done(me: Stranger, folder: str) -> job_pb2.Job:
    """A job that has ended, with an input and an output."""
    me.put(f"{folder}/in", b"in\n")
    return me.done(
        "cp",
        "in",
        "out",
        inputs=[job_pb2.JobInput(path="in", source=f"{folder}/in")],
        outputs=[job_pb2.JobOutput(path="out", target=f"{folder}/out")],
    )


def history(me: Stranger, job: str) -> list[str]:
    request = job_service_pb2.ListJobEventsRequest(parent=job, page_size=1000)
    return [event.event_id for event in me.call(me.jobs.ListJobEvents, request).events]


def transfer_history(me: Stranger, transfer: str) -> list[str]:
    request = transfer_service_pb2.ListTransferEventsRequest(parent=transfer, page_size=1000)
    answer = me.call(me.transfers.ListTransferEvents, request)
    return [event.event_id for event in answer.events]


def seen(stream: Any, count: int) -> list[tuple[str, str]]:
    """The ids of so many events, each with the token of its message."""
    found: list[tuple[str, str]] = []
    for page in stream:
        assert page.events
        found += [(event.event_id, page.resume_token) for event in page.events]
        if len(found) >= count:
            break
    stream.cancel()
    return found


def test_a_job_is_watched_from_its_first_event(me: Stranger, done: job_pb2.Job) -> None:
    told = history(me, done.name)
    stream = me.call(me.jobs.WatchJobs, job_watch(done.name))
    assert [event for event, _ in seen(stream, len(told))] == told


def test_a_transfer_job_is_watched_from_its_first_event(me: Stranger, done: job_pb2.Job) -> None:
    told = transfer_history(me, done.stage_in_transfer)
    stream = me.call(me.transfers.WatchTransferJobs, transfer_watch(done.stage_in_transfer))
    assert [event for event, _ in seen(stream, len(told))] == told


def test_a_resumed_watch_repeats_and_misses_nothing(me: Stranger) -> None:
    job = me.submit("sleep", "0.3").name
    found: list[str] = []
    token = ""
    while True:
        # One message only, then begin anew with its token.
        stream = me.call(me.jobs.WatchJobs, job_watch(job, token=token))
        page = next(iter(stream))
        stream.cancel()
        found += [event.event_id for event in page.events]
        token = page.resume_token
        if page.events[-1].state in JOB_ENDS:
            break
    assert found == history(me, job)


def test_many_jobs_in_one_watch_come_each_in_order(me: Stranger) -> None:
    jobs = [me.submit("true").name for _ in range(4)]
    ended: set[str] = set()
    events: list[Any] = []
    stream = me.call(me.jobs.WatchJobs, job_watch(*jobs))
    for page in stream:
        events += page.events
        ended |= {event.job_name for event in page.events if event.state in JOB_ENDS}
        if ended == set(jobs):
            break
    stream.cancel()
    for job in jobs:
        assert [e.event_id for e in events if e.job_name == job] == history(me, job)


def test_a_job_that_is_named_twice_is_told_of_once(me: Stranger, done: job_pb2.Job) -> None:
    told = history(me, done.name)
    stream = me.call(me.jobs.WatchJobs, job_watch(done.name, done.name))
    assert [event for event, _ in seen(stream, len(told))] == told


def test_a_watch_with_a_name_of_nothing_is_refused(me: Stranger, done: job_pb2.Job) -> None:
    nobodys = f"jobs/{NOBODYS}"
    found = me.refused(me.jobs.WatchJobs, job_watch(done.name, nobodys))
    assert found.short == ("NOT_FOUND", "NOT_FOUND")
    assert found.metadata == {"name": nobodys}


@pytest.mark.parametrize("count", [0, 1001])
def test_a_watch_is_of_1_to_1000_names(me: Stranger, count: int) -> None:
    assert (
        me.refused(me.jobs.WatchJobs, job_watch(*[f"jobs/{NOBODYS}"] * count)).fields[0] == "names"
    )
    names = [f"transfers/{NOBODYS}"] * count
    assert me.refused(me.transfers.WatchTransferJobs, transfer_watch(*names)).fields[0] == "names"


@pytest.mark.parametrize("token", ["x", "eA==", "eDp4", "ä", "a" * 1024])
def test_a_token_of_nobody_is_refused(me: Stranger, done: job_pb2.Job, token: str) -> None:
    transfer = transfer_watch(done.stage_in_transfer, token=token)
    for method, request in (
        (me.jobs.WatchJobs, job_watch(done.name, token=token)),
        (me.transfers.WatchTransferJobs, transfer),
        (me.tasks.WatchTask, task_watch(done.name, token=token)),
    ):
        assert me.refused(method, request).short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS")


def test_a_token_of_another_feed_is_refused(me: Stranger, done: job_pb2.Job) -> None:
    stream = me.call(me.jobs.WatchJobs, job_watch(done.name))
    ((_, token),) = seen(stream, 1)[:1]
    wrong = transfer_watch(done.stage_in_transfer, token=token)
    found = me.refused(me.transfers.WatchTransferJobs, wrong)
    assert found.short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS")


def test_a_task_is_watched_to_its_end_each_change_once(me: Stranger, done: job_pb2.Job) -> None:
    task = "tasks/" + done.name.removeprefix("jobs/")
    for name in (task, done.name):
        pages = list(me.call(me.tasks.WatchTask, task_watch(name)))
        events = [event for page in pages for event in page.events]
        of_job = [event.job.event_id for event in events if event.HasField("job")]
        assert of_job == history(me, done.name)
        for transfer in (done.stage_in_transfer, done.stage_out_transfer):
            found = [
                event.transfer.event_id
                for event in events
                if event.HasField("transfer") and event.transfer.transfer_job == transfer
            ]
            assert found == transfer_history(me, transfer)


def test_a_resumed_task_goes_on_behind_its_token(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/in", b"in\n")
    inputs = [job_pb2.JobInput(path="in", source=f"{folder}/in")]
    job = me.submit("sleep", "0.3", inputs=inputs).name
    found: list[str] = []
    token = ""
    while True:
        stream = me.call(me.tasks.WatchTask, task_watch(job, token))
        page = next(iter(stream), None)
        stream.cancel()
        if page is None:
            break  # the task has ended and everything was told
        found += [(e.job if e.HasField("job") else e.transfer).event_id for e in page.events]
        token = page.resume_token
    transfer = me.job(job).stage_in_transfer
    assert sorted(found) == sorted(history(me, job) + transfer_history(me, transfer))


def test_a_token_is_good_for_the_names_it_was_made_for_alone(
    me: Stranger, done: job_pb2.Job
) -> None:
    other = me.done(inputs=done.description.inputs)
    jobs, transfers = me.jobs.WatchJobs, me.transfers.WatchTransferJobs
    for method, watch, first, second in (
        (jobs, job_watch, done.name, other.name),
        (transfers, transfer_watch, done.stage_in_transfer, other.stage_in_transfer),
    ):
        stream = me.call(method, watch(first))
        token = next(iter(stream)).resume_token
        stream.cancel()
        for names in ([second], [first, second]):
            found = me.refused(method, watch(*names, token=token))
            assert found.short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS"), names
            assert found.metadata == {"field": "resume_token"}


def test_a_token_of_several_names_is_good_in_any_order(me: Stranger, done: job_pb2.Job) -> None:
    other = me.submit("sleep", "0.5")
    stream = me.call(me.jobs.WatchJobs, job_watch(done.name, other.name))
    page = next(iter(stream))
    stream.cancel()
    seen = {event.event_id for event in page.events}
    again = me.call(me.jobs.WatchJobs, job_watch(other.name, done.name, token=page.resume_token))
    assert not seen & {event.event_id for event in next(iter(again)).events}
    again.cancel()


def test_a_token_of_another_task_is_refused(me: Stranger, done: job_pb2.Job) -> None:
    token = list(me.call(me.tasks.WatchTask, task_watch(done.name)))[-1].resume_token
    other = me.done()
    found = me.refused(me.tasks.WatchTask, task_watch(other.name, token))
    assert found.short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS")


def test_streams_of_a_server_that_stops_end_unavailable_with_a_token(start_server: Any) -> None:
    server = start_server()
    me = Stranger(server)
    job = me.submit("true").name
    me.ended(job)
    told = history(me, job)
    stream = me.call(me.jobs.WatchJobs, job_watch(job))
    pages: list[Any] = []

    def told_all() -> Iterator[Any]:
        for page in stream:
            pages.append(page)
            if sum(len(p.events) for p in pages) == len(told):
                yield page

    next(told_all())
    server._running.terminate()
    with pytest.raises(grpc.RpcError) as cut:
        next(iter(stream))
    found = refusal(cut.value)
    assert found.short == ("UNAVAILABLE", "DRAINING")
    assert found.metadata["resume_token"] == pages[-1].resume_token
    server.wait_dead()


def test_a_log_is_read_whole_or_from_an_offset(me: Stranger) -> None:
    code = "import sys; print('x' * 400000); print('err', file=sys.stderr)"
    job = me.done("python3", "-c", code).name
    parts = list(me.call(me.jobs.ReadJobLog, log_of(job)))
    whole = b"".join(part.chunk for part in parts)
    assert whole == b"x" * 400000 + b"\n"
    assert [part.next_offset_bytes for part in parts] == list(
        itertools.accumulate(len(part.chunk) for part in parts)
    )
    stdout = job_service_pb2.LOG_STREAM_STDOUT
    for fields in ({"offset_bytes": 399999}, {"offset_bytes": 399999, "stream": stdout}):
        rest = me.call(me.jobs.ReadJobLog, log_of(job, **fields))
        assert b"".join(part.chunk for part in rest) == b"x\n"
    error = log_of(job, stream=job_service_pb2.LOG_STREAM_STDERR, attempt=1)
    assert b"".join(part.chunk for part in me.call(me.jobs.ReadJobLog, error)) == b"err\n"
    for offset in (400001, 2**63 - 1):
        assert list(me.call(me.jobs.ReadJobLog, log_of(job, offset_bytes=offset))) == []
    assert me.refused(me.jobs.ReadJobLog, log_of(job, attempt=2)).code == "NOT_FOUND"
    assert me.refused(me.jobs.ReadJobLog, log_of(job, offset_bytes=-1)).fields == ("offset_bytes",)
    assert me.refused(me.jobs.ReadJobLog, log_of(job, stream=9)).fields == ("stream",)


def test_a_followed_log_stays_open_until_the_payload_has_ended(me: Stranger) -> None:
    code = "import time; print('one', flush=True); time.sleep(1); print('two', flush=True)"
    job = me.submit("python3", "-c", code).name
    parts = me.call(me.jobs.ReadJobLog, log_of(job, follow=True))
    first = next(iter(parts))
    assert first.chunk == b"one\n"
    assert me.job(job).state == job_pb2.JOB_STATE_RUNNING
    assert b"".join(part.chunk for part in parts) == b"two\n"


def test_without_follow_a_log_ends_where_it_is(me: Stranger) -> None:
    job = me.submit("sleep", "30").name
    me.started(job)
    assert list(me.call(me.jobs.ReadJobLog, log_of(job))) == []
    me.call(me.jobs.KillJob, job_service_pb2.KillJobRequest(name=job))
