"""A call over several attempts: what it carries, when it is repeated, how it ends. Both facades."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import gridlane
from gridlane.ids import uuid7
from gridlane.nouns import jobs
from gridlane.workload.v1 import job_service_pb2 as rpc
from gridlane.workload.v1.job_pb2 import Job

NAME = f"jobs/{uuid7()}"
Server = Any
Refuse = Callable[..., None]


def failing(times: int, refusal: Callable[[grpc.ServicerContext], None]) -> Any:
    """An answer that is refused so many times, then given; and the requests that came."""
    came: list[Any] = []

    def answer(request: Any, context: grpc.ServicerContext) -> Job:
        came.append(type(request).FromString(request.SerializeToString()))
        if len(came) <= times:
            refusal(context)
        return Job(name=NAME)

    answer.came = came  # type: ignore[attr-defined]
    return answer


def test_a_server_that_is_away_for_a_moment_is_asked_again(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    answer = failing(3, lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE, reason="DRAINING"))
    scripted.unary(jobs.GET, answer)
    assert client.jobs.get(NAME).name == NAME
    assert len(answer.came) == 4


def test_a_submission_is_repeated_under_one_request_id(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    answer = failing(2, lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE))
    scripted.unary(jobs.SUBMIT, answer)
    client.jobs.submit(gridlane.new_job("true"))
    client.jobs.submit(gridlane.new_job("true"))
    ids = [request.request_id for request in answer.came]
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


def test_what_cannot_pass_is_raised_at_once(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    answer = failing(9, lambda c: refuse(c, grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND"))
    scripted.unary(jobs.GET, answer)
    with pytest.raises(gridlane.NotFound) as caught:
        client.jobs.get(NAME)
    assert len(answer.came) == 1
    assert caught.value.method == "gridlane.workload.v1.JobService/GetJob"
    assert len(caught.value.trace_id) == 32


def test_the_time_a_full_server_asks_for_is_waited(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    def full(context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.2)

    scripted.unary(jobs.GET, failing(1, full))
    began = time.monotonic()
    client.jobs.get(NAME)
    assert time.monotonic() - began >= 0.2


def test_attempts_end_before_the_deadline_with_the_last_failure(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    def full(context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.2)

    scripted.unary(jobs.GET, failing(99, full))
    began = time.monotonic()
    with pytest.raises(gridlane.ResourceExhausted):
        client.jobs.get(NAME, timeout=0.5)
    assert time.monotonic() - began < 0.5


def test_every_call_has_a_deadline_and_says_how_long_it_waited(
    scripted: Server, client: gridlane.Client
) -> None:
    left: list[float] = []

    def slow(_: Any, context: grpc.ServicerContext) -> Job:
        left.append(context.time_remaining() or 0)
        time.sleep(0.3)
        return Job()

    scripted.unary(jobs.GET, slow)
    with pytest.raises(gridlane.DeadlineExceeded, match=r"0\.1 s"):
        client.jobs.get(NAME, timeout=0.1)
    client.jobs.get(NAME)
    assert 0 < left[0] < 0.2
    assert 25 < left[1] < 31


def test_a_timeout_that_is_none_is_refused_by_name(client: gridlane.Client) -> None:
    with pytest.raises(ValueError, match="timeout 0"):
        client.jobs.get(NAME, timeout=0)


def test_calls_carry_token_and_trace(scripted: Server, client: gridlane.Client) -> None:
    scripted.unary(jobs.GET, lambda *_: Job())
    client.jobs.get(NAME)
    client.jobs.get(NAME)
    first, second = scripted.metadata
    assert first["authorization"] == "Bearer t0ken"
    assert first["traceparent"] != second["traceparent"]


def test_the_attempts_of_a_call_are_one_trace(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    scripted.unary(jobs.GET, failing(2, lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE)))
    client.jobs.get(NAME)
    assert len({metadata["traceparent"] for metadata in scripted.metadata}) == 1


def test_the_environments_trace_is_joined(
    scripted: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ambient = f"00-{'ab' * 16}-{'cd' * 8}-01"
    monkeypatch.setenv("TRACEPARENT", ambient)
    scripted.unary(jobs.GET, lambda *_: Job())
    with gridlane.Client(scripted.address, token="t") as client:
        client.jobs.get(NAME)
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    with gridlane.Client(scripted.address, token="t") as client:
        client.jobs.get(NAME)
    assert scripted.metadata[0]["traceparent"] == ambient
    assert scripted.metadata[1]["traceparent"] != ambient


def test_a_token_that_was_renewed_meanwhile_is_used(
    scripted: Server, tmp_path: Path, refuse: Refuse
) -> None:
    path = tmp_path / "token"
    path.write_text("old")

    def answer(_: Any, context: grpc.ServicerContext) -> Job:
        sent = dict(context.invocation_metadata())["authorization"]
        if sent != "Bearer new":
            path.write_text("new")
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, reason="TOKEN_EXPIRED")
        return Job(name=NAME)

    scripted.unary(jobs.GET, answer)
    with gridlane.Client(scripted.address, token_file=path) as client:
        assert client.jobs.get(NAME).name == NAME


def test_a_token_that_was_not_renewed_is_tried_once(
    scripted: Server, client: gridlane.Client, refuse: Refuse
) -> None:
    answer = failing(9, lambda c: refuse(c, grpc.StatusCode.UNAUTHENTICATED))
    scripted.unary(jobs.GET, answer)
    with pytest.raises(gridlane.Unauthenticated):
        client.jobs.get(NAME)
    assert len(answer.came) == 1


async def test_the_asynchronous_facade_repeats_the_same_way(
    scripted: Server, refuse: Refuse
) -> None:
    answer = failing(2, lambda c: refuse(c, grpc.StatusCode.UNAVAILABLE))
    scripted.unary(jobs.GET, answer)
    retry = gridlane.RetryPolicy(first_delay_s=0.001)
    async with gridlane.AsyncClient(scripted.address, token="t", retry=retry) as client:
        assert (await client.jobs.get(NAME)).name == NAME
        answer.came.clear()
        scripted.unary(jobs.GET, failing(1, lambda c: refuse(c, grpc.StatusCode.NOT_FOUND, "no")))
        with pytest.raises(gridlane.NotFound):
            await client.jobs.get(NAME)


def test_a_batch_answers_each_item_by_itself(scripted: Server, client: gridlane.Client) -> None:
    from gridlane_kit import errors as kit

    def answer(request: Any, _: grpc.ServicerContext) -> Any:
        return rpc.BatchGetJobsResponse(
            results=[
                rpc.JobResult(job=Job(name=name))
                if name == NAME
                else rpc.JobResult(status=kit.not_found(name).to_status())
                for name in request.names
            ]
        )

    scripted.unary(jobs.BATCH_GET, answer)
    other = f"jobs/{uuid7()}"
    good, bad = client.jobs.get_many([NAME, other])
    assert isinstance(good, Job)
    assert isinstance(bad, gridlane.NotFound)


def test_large_batches_are_split_and_stay_in_order(
    scripted: Server, client: gridlane.Client
) -> None:
    sizes: list[int] = []

    def answer(request: Any, _: grpc.ServicerContext) -> Any:
        sizes.append(len(request.requests))
        made: Iterator[Any] = (rpc.JobResult(job=r.job) for r in request.requests)
        return rpc.BatchSubmitJobsResponse(results=made)

    scripted.unary(jobs.BATCH_SUBMIT, answer)
    given = [gridlane.new_job("true", name=str(n)) for n in range(2_001)]
    results = client.jobs.submit_many(given)
    assert sizes == [1000, 1000, 1]
    names = [r.description.display_name for r in results if isinstance(r, Job)]
    assert names == [str(n) for n in range(2_001)]
