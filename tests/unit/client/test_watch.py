"""Watches and byte streams over interruptions: every item once, in order, both facades."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridlane
from gridlane import watch
from gridlane.gateway.v1.task_pb2 import Task
from gridlane.ids import uuid7
from gridlane.nouns import jobs, tasks
from gridlane.retry import RetryPolicy
from gridlane.workload.v1 import job_service_pb2 as rpc
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.job_pb2 import Job, JobState

NAME = f"jobs/{uuid7()}"
Server = Any
Refuse = Callable[..., None]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = RetryPolicy(first_delay_s=0.001, longest_delay_s=0.002, max_attempts=1_000)
    monkeypatch.setattr(watch, "RESUME", quick)


class Feed:
    """Events 0…count-1; each call hands out so many, then breaks; the token is the next number."""

    def __init__(self, count: int, breaks: Sequence[int], refusal: Callable[..., None]) -> None:
        self.count = count
        self.breaks = list(breaks)
        self.refusal = refusal
        self.tokens: list[str] = []

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.tokens.append(request.resume_token)
        at = int(request.resume_token or 0)
        batches = self.breaks.pop(0) if self.breaks else None
        while at < self.count and batches != 0:
            events = [JobEvent(event_id=str(n)) for n in range(at, min(at + 2, self.count))]
            at += len(events)
            yield rpc.WatchJobsResponse(events=events, resume_token=str(at))
            batches = None if batches is None else batches - 1
        if at < self.count:
            self.refusal(context)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(count=st.integers(0, 12), breaks=st.lists(st.integers(0, 3), max_size=6))
def test_every_event_comes_once_and_in_order_however_often_the_stream_breaks(
    scripted: Server, client: gridlane.Client, refuse: Refuse, count: int, breaks: list[int]
) -> None:
    feed = Feed(count, breaks, lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE, reason="DRAINING"))
    scripted.stream(jobs.WATCH, feed)
    seen = [int(event.event_id) for event in client.jobs.watch(NAME)]
    assert seen == list(range(count))


async def test_the_asynchronous_facade_resumes_the_same_way(
    scripted: Server, refuse: Refuse
) -> None:
    scripted.stream(
        jobs.WATCH, Feed(7, [1, 0, 2], lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE))
    )
    async with gridlane.AsyncClient(scripted.address, token="t") as client:
        seen = [int(event.event_id) async for event in client.jobs.watch(NAME)]
    assert seen == list(range(7))


def test_a_watch_goes_on_where_the_caller_says(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    feed = Feed(6, [], lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE))
    scripted.stream(jobs.WATCH, feed)
    seen = [int(event.event_id) for event in client.jobs.watch(NAME, resume_token="4")]
    assert seen == [4, 5]


def test_events_that_are_no_longer_kept_are_the_callers_to_know_of(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    def trimmed(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        refuse(context, grpc.StatusCode.OUT_OF_RANGE, reason="POSITION_TRIMMED")
        yield

    scripted.stream(jobs.WATCH, trimmed)
    with pytest.raises(gridlane.OutOfRange):
        list(client.jobs.watch(NAME))


def test_a_silent_stream_is_opened_anew_without_losing_its_place(
    scripted: Server, client: gridlane.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RENEWAL_S", 0.15)
    tokens: list[str] = []

    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        tokens.append(request.resume_token)
        if len(tokens) == 1:
            yield rpc.WatchJobsResponse(events=[JobEvent(event_id="1")], resume_token="one")
        while len(tokens) < 3 and context.is_active():
            time.sleep(0.01)  # says nothing, as a connection that died does

    scripted.stream(jobs.WATCH, answer)
    assert [event.event_id for event in client.jobs.watch(NAME)] == ["1"]
    assert tokens == ["", "one", "one"]


def test_a_watch_ends_with_its_timeout(scripted: Server, client: gridlane.Client) -> None:
    def silent(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        while context.is_active():
            time.sleep(0.01)
        yield from ()

    scripted.stream(jobs.WATCH, silent)
    began = time.monotonic()
    with pytest.raises(gridlane.DeadlineExceeded):
        list(client.jobs.watch(NAME, timeout=0.2))
    assert time.monotonic() - began < 2


def test_a_server_that_stays_away_is_given_up(
    scripted: Server, client: gridlane.Client, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE_S", 0.1)

    def away(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        refuse(context, grpc.StatusCode.UNAVAILABLE)
        yield

    scripted.stream(jobs.WATCH, away)
    with pytest.raises(gridlane.Unavailable):
        list(client.jobs.watch(NAME))


def test_leaving_a_watch_cancels_it_at_the_server(
    scripted: Server, client: gridlane.Client
) -> None:
    left: list[bool] = []

    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(lambda: left.append(True))
        for number in range(1_000):
            yield rpc.WatchJobsResponse(events=[JobEvent(event_id=str(number))])
            time.sleep(0.005)

    scripted.stream(jobs.WATCH, answer)
    events = client.jobs.watch(NAME)
    next(events)
    events.close()  # type: ignore[attr-defined]  # an iterator that is a generator
    end = time.monotonic() + 3
    while not left and time.monotonic() < end:
        time.sleep(0.01)
    assert left


def test_a_log_is_resumed_at_the_byte_where_it_broke(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    text = b"0123456789" * 3
    offsets: list[int] = []

    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        offsets.append(request.offset_bytes)
        assert request.follow
        at = request.offset_bytes
        while at < len(text):
            chunk = text[at : at + 4]
            at += len(chunk)
            yield rpc.ReadJobLogResponse(chunk=chunk, next_offset_bytes=at)
            if at in (8, 20) and len(offsets) < 3:
                refuse(context, grpc.StatusCode.UNAVAILABLE)

    scripted.stream(jobs.READ_LOG, answer)
    assert b"".join(client.jobs.log(NAME, follow=True)) == text
    assert offsets == [0, 8, 20]


def test_waiting_goes_on_until_the_job_has_really_ended(
    scripted: Server, client: gridlane.Client
) -> None:
    states = [JobState.JOB_STATE_RUNNING, JobState.JOB_STATE_DONE]
    scripted.stream(tasks.WATCH, lambda *_: iter(()))
    scripted.unary(tasks.DESCRIBE, lambda *_: Task(name=NAME, job=Job(state=states.pop(0))))
    assert client.tasks.wait(NAME).job.state == JobState.JOB_STATE_DONE
    assert states == []


def test_waiting_for_a_job_returns_it_as_it_ended(
    scripted: Server, client: gridlane.Client
) -> None:
    def answer(*_: Any) -> Iterator[Any]:
        for state in (JobState.JOB_STATE_RUNNING, JobState.JOB_STATE_FAILED):
            yield rpc.WatchJobsResponse(events=[JobEvent(state=state)])
        time.sleep(5)  # the stream of a job that has ended stays open

    scripted.stream(jobs.WATCH, answer)
    scripted.unary(jobs.GET, lambda *_: Job(state=JobState.JOB_STATE_FAILED))
    assert client.jobs.wait(NAME, timeout=4).state == JobState.JOB_STATE_FAILED
