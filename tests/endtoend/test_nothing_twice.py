"""Ends of the server around accounting and watching, feeds that repeat themselves, lost spans."""

import os
import signal
import sqlite3
import uuid
from typing import Any

import grpc
import pytest

from gridlane.workload.v1 import job_pb2

COPY = "open('out.txt', 'w').write(open('in.txt').read())"


def run_task(user: Any) -> Any:
    """Submits a task with one input and one output."""
    folder = f"LFN:/local/{uuid.uuid4()}"
    user.put(f"{folder}/in.txt", b"hello")
    return user.submit(
        COPY, inputs={"in.txt": f"{folder}/in.txt"}, outputs={"out.txt": f"{folder}/out.txt"}
    )


def kinds(user: Any, job: str) -> list[str]:
    """The kinds of a job's records."""
    return sorted(str(record.WhichOneof("record")) for record in user.records(job))


ALL_KINDS = ["data_operation", "data_operation", "job_usage"]


@pytest.mark.parametrize("hit", [1, 3])
@pytest.mark.parametrize("moment", ["committed", "acknowledged"])
@pytest.mark.parametrize("feed", ["job_events", "transfer_events"])
def test_a_kill_around_the_acknowledgement_accounts_everything_once(
    mortal_server: Any, user_of: Any, feed: str, moment: str, hit: int
) -> None:
    user, reporting = user_of(mortal_server), mortal_server.part("reporting")
    reporting.stop()
    reporting.start({"GRIDLANE_FAILPOINTS": f"reporting.{feed}.{moment}=kill@{hit}"})
    task = run_task(user)
    assert reporting.wait_dead() == -9
    reporting.start()
    assert user.wait(task).state == job_pb2.JOB_STATE_DONE
    user.eventually(lambda: kinds(user, task.job.name) == ALL_KINDS)


@pytest.mark.one_process(reason="it forgets the feeds' cursors in the database's file")
def test_a_feed_that_comes_again_from_its_beginning_is_accounted_once(
    shape: str, start_server: Any, user_of: Any
) -> None:
    server = start_server()
    user = user_of(server)
    task = run_task(user)
    user.wait(task)
    user.eventually(lambda: kinds(user, task.job.name) == ALL_KINDS)
    server.stop()
    with sqlite3.connect(server.data_dir / "db/reporting.sqlite") as db:
        assert db.execute("DELETE FROM feed_cursor").rowcount == 2
    db.close()
    server.start()
    second = run_task(user)
    user.wait(second)
    user.eventually(lambda: kinds(user, second.job.name) == ALL_KINDS)
    assert kinds(user, task.job.name) == ALL_KINDS


@pytest.mark.one_process(reason="a setting of Reporting's own, which knows no shape")
def test_a_span_store_without_input_loses_the_payload_s_span_and_no_event(
    shape: str, start_server: Any, user_of: Any
) -> None:
    deaf = user_of(start_server({"GRIDLANE_REPORTING_ACCEPT_JOB_SPANS": "false"}))
    hearing = user_of(start_server())
    stories = []
    for user in (deaf, hearing):
        task = run_task(user)
        assert user.wait(task).state == job_pb2.JOB_STATE_DONE
        user.eventually(lambda user=user, task=task: kinds(user, task.job.name) == ALL_KINDS)
        stories.append(user.describe(task))
    names = [
        {span.name for span in user.spans(story.job.name)}
        for user, story in zip((deaf, hearing), stories, strict=True)
    ]
    assert "payload" not in names[0]
    assert "payload" in names[1]
    assert [list(story.missing) for story in stories] == [[], []]
    told = [
        [(e.job.state, e.job.minor_status) for e in story.events if e.HasField("job")]
        for story in stories
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_watch_cut_by_the_server_s_end_goes_on_where_it_was(
    mortal_server: Any, user_of: Any, end: str
) -> None:
    user, gateway = user_of(mortal_server), mortal_server.part("gateway")
    task = user.submit("import time; time.sleep(4)")
    user.wait_for_state(task, job_pb2.JOB_STATE_RUNNING)
    ids: list[str] = []
    token = ""
    watch = user.watch(task)
    for page in watch:
        ids += [event.job.event_id for event in page.events]
        token = page.resume_token
        if page.events[-1].job.state == job_pb2.JOB_STATE_RUNNING:
            break
    if end == "stop":
        os.kill(gateway.pid, signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as cut:
            next(watch)
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
        trailing: Any = cut.value.trailing_metadata()
        assert token.encode() in dict(trailing)["grpc-status-details-bin"]
        assert gateway.wait_dead() == 0
    else:
        gateway.kill()
    gateway.start()
    for page in user.watch(task, token):
        ids += [event.job.event_id for event in page.events]
    assert len(ids) == len(set(ids))
    assert set(ids) == {event.job.event_id for event in user.describe(task).events}
    assert user.job(task).state == job_pb2.JOB_STATE_DONE
