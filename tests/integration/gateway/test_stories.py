"""Ping and stories when services are slow or away, and what does not belong into a story."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from gridlane.gateway.v1 import task_service_pb2
from gridlane.reporting.v1 import accounting_record_pb2
from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import transfer_job_pb2
from gridlane.type.v1 import principal_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2

UUID = "01939f5e-0000-7000-8000-000000000001"
JOB, TASK = f"jobs/{UUID}", f"tasks/{UUID}"
ADA = principal_pb2.Principal(issuer="https://issuer.test/", subject="ada")
EVE = principal_pb2.Principal(issuer="https://issuer.test/", subject="eve")
STAGE_IN = "transfers/01939f5e-0000-7000-8000-0000000000aa"
STAGE_OUT = "transfers/01939f5e-0000-7000-8000-0000000000bb"
SERVICES = ["authorization", "transfer", "workload", "reporting"]


def job_event(number: int, state: job_pb2.JobState.ValueType) -> job_event_pb2.JobEvent:
    return job_event_pb2.JobEvent(
        event_id=f"j{number}", time=Timestamp(seconds=number * 10), job_name=JOB, state=state
    )


def transfer_event(
    name: str, second: int, state: transfer_job_pb2.TransferJobState.ValueType
) -> transfer_event_pb2.TransferEvent:
    return transfer_event_pb2.TransferEvent(
        event_id=f"{name}-{second}",
        time=Timestamp(seconds=second),
        transfer_job=name,
        job=transfer_job_pb2.TransferJob(name=name, state=state),
    )


@pytest.fixture
def grid(gateway: Any) -> Any:
    """A finished job of ada's with two transfers, and one that eve tied to it."""
    grid = gateway.grid
    grid.jobs[JOB] = job_pb2.Job(
        name=JOB, owner=ADA, state=job_pb2.JOB_STATE_DONE, trace_id="a" * 32
    )
    states = (
        job_pb2.JOB_STATE_RECEIVED,
        job_pb2.JOB_STATE_STAGING,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_DONE,
    )
    grid.job_events = [job_event(n, state) for n, state in enumerate(states)]
    grid.transfers = [
        transfer_job_pb2.TransferJob(name=STAGE_IN, owner=ADA),
        transfer_job_pb2.TransferJob(name="transfers/of-eve", owner=EVE),
        transfer_job_pb2.TransferJob(name=STAGE_OUT, owner=ADA),
    ]
    active = transfer_job_pb2.TRANSFER_JOB_STATE_ACTIVE
    finished = transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED
    grid.transfer_events = [
        transfer_event(STAGE_IN, 11, active),
        transfer_event(STAGE_IN, 12, finished),
        transfer_event(STAGE_OUT, 21, active),
        transfer_event(STAGE_OUT, 22, finished),
    ]
    grid.records = [accounting_record_pb2.AccountingRecord(name="accountingRecords/1")]
    return grid


async def described(gateway: Any, name: str = TASK) -> Any:
    request = task_service_pb2.DescribeTaskRequest(name=name)
    return await gateway.tasks.DescribeTask(request, metadata=gateway.metadata, timeout=10)


async def watched(gateway: Any, token: str = "") -> list[Any]:
    request = task_service_pb2.WatchTaskRequest(name=TASK, resume_token=token)
    call = gateway.tasks.WatchTask(request, metadata=gateway.metadata, timeout=10)
    return [response async for response in call]


def event_ids(events: Any) -> list[str]:
    return [(e.job if e.HasField("job") else e.transfer).event_id for e in events]


@pytest.mark.parametrize("slow", SERVICES)
async def test_a_service_that_hangs_is_not_reachable_and_the_others_are(
    gateway: Any, slow: str
) -> None:
    gateway.grid.hanging.add(slow)
    answer = await gateway.tasks.Ping(
        task_service_pb2.PingRequest(), metadata=gateway.metadata, timeout=5
    )
    assert [status.service for status in answer.services] == SERVICES
    assert {s.service for s in answer.services if s.reachable} == set(SERVICES) - {slow}
    assert all(status.latency.ToSeconds() < 2 for status in answer.services)


async def test_a_story_has_every_part_in_the_order_of_time(gateway: Any, grid: Any) -> None:
    task = await described(gateway)
    assert (task.name, task.job.name, task.trace_id) == (TASK, JOB, "a" * 32)
    assert [t.name for t in task.transfer_jobs] == [STAGE_IN, STAGE_OUT]
    assert len(task.accounting_records) == 1
    assert event_ids(task.events) == [
        "j0",
        "j1",
        f"{STAGE_IN}-11",
        f"{STAGE_IN}-12",
        "j2",
        f"{STAGE_OUT}-21",
        f"{STAGE_OUT}-22",
        "j3",
    ]
    assert not task.missing


async def test_the_job_s_name_and_the_task_s_mean_the_same(gateway: Any, grid: Any) -> None:
    assert await described(gateway, JOB) == await described(gateway, TASK)


@pytest.mark.parametrize(("failing", "trouble"), [("transfer", "away"), ("reporting", "hanging")])
async def test_a_part_that_cannot_be_had_is_named_and_the_rest_told(
    gateway: Any, grid: Any, failing: str, trouble: str
) -> None:
    getattr(grid, trouble).add(failing)
    task = await described(gateway)
    assert [part.service for part in task.missing] == [failing]
    assert task.missing[0].reason
    assert "j3" in event_ids(task.events)


async def test_a_job_that_one_may_not_see_has_no_story(gateway: Any) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await described(gateway)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_story_longer_than_a_message_says_what_it_leaves_out(
    gateway: Any, grid: Any
) -> None:
    for number in range(100):
        event = job_event(number, job_pb2.JOB_STATE_RUNNING)
        event.message = "x" * 50_000
        grid.job_events.append(event)
    task = await described(gateway)
    assert task.ByteSize() < 4 * 1024 * 1024
    assert [part.service for part in task.missing] == ["gateway"]


async def test_a_watch_tells_every_change_once_and_ends(gateway: Any, grid: Any) -> None:
    responses = await watched(gateway)
    ids = event_ids([event for response in responses for event in response.events])
    assert sorted(ids) == sorted(event_ids((await described(gateway)).events))
    assert [i for i in ids if i.startswith("j")] == ["j0", "j1", "j2", "j3"]


async def test_a_watch_resumed_at_any_place_tells_exactly_the_rest(gateway: Any, grid: Any) -> None:
    responses = await watched(gateway)
    everything = set(event_ids([e for response in responses for e in response.events]))
    seen: set[str] = set()
    for response in responses:
        seen |= set(event_ids(response.events))
        rest = event_ids(
            [e for again in await watched(gateway, response.resume_token) for e in again.events]
        )
        assert set(rest) == everything - seen
        assert len(rest) == len(set(rest))


async def test_a_watch_finds_a_transfer_that_appears_after_the_event(
    gateway: Any, grid: Any
) -> None:
    grid.jobs[JOB].state = job_pb2.JOB_STATE_STAGING
    events, grid.job_events = grid.job_events, grid.job_events[:2]
    transfers, grid.transfers = grid.transfers, []
    request = task_service_pb2.WatchTaskRequest(name=TASK)
    call = gateway.tasks.WatchTask(request, metadata=gateway.metadata, timeout=10)
    ids: list[str] = []
    while "j1" not in ids:
        ids += event_ids((await call.read()).events)
    grid.transfers = transfers[:1]
    while f"{STAGE_IN}-12" not in ids:
        ids += event_ids((await call.read()).events)
    assert ids == ["j0", "j1", f"{STAGE_IN}-11", f"{STAGE_IN}-12"]
    call.cancel()
    grid.job_events, grid.transfers = events, transfers


async def test_a_watch_that_breaks_says_where_to_go_on(gateway: Any, grid: Any) -> None:
    grid.hanging.add("reporting")
    grid.job_events = grid.job_events[:2]
    grid.transfers, grid.transfer_events = [], []
    request = task_service_pb2.WatchTaskRequest(name=TASK)
    call = gateway.tasks.WatchTask(request, metadata=gateway.metadata, timeout=10)
    ids: list[str] = []
    token = ""
    while "j1" not in ids:
        response = await call.read()
        token = response.resume_token
        ids += event_ids(response.events)
    grid.away.add("transfer")  # looking for transfers fails from now on
    with pytest.raises(aio.AioRpcError) as broken:
        await call.read()
    assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(broken.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert token.encode() in bytes(details)


@pytest.mark.parametrize("how", ["to its end", "until it is left"])
async def test_a_watch_leaves_no_stream_open_behind_it(gateway: Any, grid: Any, how: str) -> None:
    if how == "to its end":
        await watched(gateway)
    else:
        grid.job_events = grid.job_events[:2]
        request = task_service_pb2.WatchTaskRequest(name=TASK)
        call = gateway.tasks.WatchTask(request, metadata=gateway.metadata, timeout=10)
        await call.read()
        assert grid.watches > 0
        call.cancel()
    async with asyncio.timeout(5):
        while grid.watches:
            await asyncio.sleep(0.01)


async def test_a_transfer_that_the_job_names_is_told_even_when_it_is_not_listed(
    gateway: Any, grid: Any
) -> None:
    grid.jobs[JOB].stage_out_transfer = STAGE_OUT
    grid.unlisted.add(STAGE_OUT)
    assert [t.name for t in (await described(gateway)).transfer_jobs] == [STAGE_IN, STAGE_OUT]


async def test_watching_a_job_that_one_may_not_see_is_not_found(gateway: Any) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await watched(gateway)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
