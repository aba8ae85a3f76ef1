"""Reading jobs: who sees what, pages, histories, watches, logs, the feed, the service's status."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from grpc import aio

from gridlane.ids import uuid7
from gridlane.type.v1.feed_pb2 import FeedPosition
from gridlane.workload.v1.event_pb2 import JobEvent
from gridlane.workload.v1.event_service_pb2 import AckJobEventsRequest, FollowJobEventsRequest
from gridlane.workload.v1.job_pb2 import Job
from gridlane.workload.v1.job_service_pb2 import (
    BatchGetJobsRequest,
    GetWorkloadStatusRequest,
    ListJobEventsRequest,
    ListJobsRequest,
    LogStream,
    ReadJobLogRequest,
    WatchJobsRequest,
)
from gridlane_kit.call import later
from gridlane_kit.identity import service_principal
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_kit.telemetry import Telemetry
from gridlane_workload import states

from .conftest import ISSUER, POLICY, Grid, MakeGrid, User, reason_of, refused, words


async def listed(user: User, **asked: Any) -> list[str]:
    """All pages' names."""
    names: list[str] = []
    request = ListJobsRequest(**asked)
    while True:
        answer = await user.jobs.ListJobs(request, timeout=10, metadata=user.metadata)
        names += [job.name for job in answer.jobs]
        if not answer.next_page_token:
            return names
        request.page_token = answer.next_page_token


async def test_a_foreign_job_and_an_absent_one_answer_alike(grid: Grid, ada: User) -> None:
    job = await ada.submit("true")
    eve = await grid.user("eve", vos=["other"])
    absent = f"jobs/{uuid7()}"
    for name in (job.name, absent):
        for asked in (eve.get(name), eve.kill(name), eve.log(name), eve.history(name)):
            assert await refused(asked) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        with pytest.raises(aio.AioRpcError) as raised:
            await anext(
                aiter(eve.jobs.WatchJobs(WatchJobsRequest(names=[name]), metadata=eve.metadata))
            )
        assert reason_of(raised.value) == "NOT_FOUND"
    answer = await eve.jobs.BatchGetJobs(
        BatchGetJobsRequest(names=[job.name, absent]), metadata=eve.metadata
    )
    assert [result.status.code for result in answer.results] == [code_pb2.NOT_FOUND] * 2
    messages = [
        result.status.message.replace(name, "NAME")
        for result, name in zip(answer.results, (job.name, absent), strict=True)
    ]
    assert messages[0] == messages[1]


async def test_a_member_of_the_vo_sees_the_job_and_may_not_touch_it(grid: Grid, ada: User) -> None:
    job = await ada.submit("sleep", "60")
    bob = await grid.user("bob")
    assert (await bob.get(job.name)).name == job.name
    assert (await bob.history(job.name))[0].job_name == job.name
    for asked in (bob.kill(job.name), bob.log(job.name)):
        assert await refused(asked) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    mia = await grid.user("mia")
    assert (await mia.log(job.name)) == b""
    await mia.kill(job.name)
    assert (await ada.ended(job.name)).state == states.KILLED


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_listings_hold_what_the_caller_may_see_newest_first(grid: Grid, ada: User) -> None:
    bob, mia, root = await grid.user("bob"), await grid.user("mia"), await grid.user("root")
    eve = await grid.user("eve", vos=["other"])
    own = [(await ada.submit("true")).name for _ in range(5)]
    bobs, eves = (await bob.submit("true")).name, (await eve.submit("true")).name
    assert await listed(ada, page_size=2) == own[::-1]
    assert await listed(bob) == [bobs]
    assert await listed(mia, page_size=3) == [bobs, *own[::-1]]
    assert await listed(root, page_size=3) == [eves, bobs, *own[::-1]]
    assert await listed(root, filter='vo = "other"') == [eves]
    for name in own:
        await ada.ended(name)
    assert await listed(ada, filter='state = "DONE"') == own[::-1]
    assert await listed(ada, filter='state = "FAILED"') == []
    assert await listed(ada, filter='vo = "local" AND state = "DONE"') == own[::-1]


async def test_a_job_sharer_has_the_owners_rights_on_jobs_of_its_active_group_alone(
    grid: Grid,
) -> None:
    sharing = [Binding(ISSUER, name, Role.JOB_SHARER) for name in ("bob", "eve")]
    grid.policy.replace(
        Policy(2, [*POLICY.bindings, *sharing], jobs_vo_readable=False, vos=POLICY.vos)
    )
    ada = await grid.user("ada", groups=["/local/team", "/local"])
    job = await ada.submit("sleep", "60")
    bob = await grid.user("bob", groups=["/local/team"])
    assert await listed(bob) == [job.name]
    assert await listed(bob, filter='vo = "local"') == [job.name]
    assert (await bob.get(job.name)).owner.active_group == "/local/team"
    for outside in (
        await grid.user("bob", groups=["/local", "/local/team"]),
        await grid.user("bob"),
        await grid.user("eve", vos=["other"], groups=["/local/team"]),
        await grid.user("root2", groups=["/local/team"]),
    ):
        assert await listed(outside) == []
        assert (await refused(outside.get(job.name)))[1] == "NOT_FOUND"
        assert (await refused(outside.kill(job.name)))[1] == "NOT_FOUND"
    await bob.kill(job.name)
    await ada.ended(job.name)


async def test_a_vetoed_callers_list_is_empty_and_all_else_is_denied(grid: Grid, ada: User) -> None:
    job = await ada.submit("true")
    await ada.ended(job.name)
    grid.policy.replace(Policy(2, [*POLICY.bindings, Binding(ISSUER, "ada", Role.VETOED)]))
    assert await listed(ada) == []
    assert (await refused(ada.get(job.name)))[1] == "CALLER_VETOED"


async def test_filters_and_tokens_that_are_not_ours_are_refused(ada: User) -> None:
    for _ in range(2):
        await ada.submit("true")
    assert (await refused(listed(ada, filter='owner = "bob"')))[1] == "FILTER_UNSUPPORTED"
    assert (await refused(listed(ada, filter='state = "Running"')))[1] == "FILTER_UNSUPPORTED"
    answer = await ada.jobs.ListJobs(ListJobsRequest(page_size=1), metadata=ada.metadata)
    token = answer.next_page_token
    assert (await refused(listed(ada, page_token=token + "x")))[1] == "TOKEN_NOT_OURS"
    other = listed(ada, page_token=token, filter='state = "DONE"')
    assert (await refused(other))[1] == "TOKEN_NOT_OURS"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_history_is_paged_oldest_first(ada: User) -> None:
    job = await ada.submit("true")
    await ada.ended(job.name)
    whole = await ada.history(job.name)
    paged: list[JobEvent] = []
    request = ListJobEventsRequest(parent=job.name, page_size=2)
    while True:
        answer = await ada.jobs.ListJobEvents(request, metadata=ada.metadata)
        assert len(answer.events) <= 2
        paged += answer.events
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert paged == whole
    assert words(paged)[0] == "RECEIVED"


async def watched(
    user: User, names: list[str], token: str = ""
) -> AsyncIterator[tuple[list[JobEvent], str]]:
    request = WatchJobsRequest(names=names, resume_token=token)
    async for page in user.jobs.WatchJobs(request, metadata=user.metadata, timeout=30):
        yield list(page.events), page.resume_token


async def test_a_watch_that_is_resumed_again_and_again_misses_and_repeats_nothing(
    ada: User,
) -> None:
    names = [(await ada.submit("true")).name for _ in range(3)]
    await ada.submit("true")
    seen: list[JobEvent] = []
    token = ""
    while sum(event.state == states.DONE for event in seen) < 3:
        events, token = await anext(watched(ada, names, token))
        seen += events
    ids = [event.event_id for event in seen]
    assert len(ids) == len(set(ids))
    expected = {event.event_id for name in names for event in await ada.history(name)}
    assert set(ids) == expected


async def drained(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def test_a_watch_is_cut_when_the_right_is_lost(grid: Grid, ada: User) -> None:
    job = await ada.submit("sleep", "60")
    stream = ada.jobs.WatchJobs(WatchJobsRequest(names=[job.name]), metadata=ada.metadata)
    await anext(aiter(stream))
    grid.policy.replace(Policy(2, [Binding(ISSUER, "ada", Role.VETOED)]))
    with pytest.raises(aio.AioRpcError) as raised:
        await asyncio.wait_for(drained(stream), 10)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_resume_token_that_is_not_ours_is_refused(ada: User) -> None:
    job = await ada.submit("true")
    request = WatchJobsRequest(names=[job.name], resume_token="not ours")
    with pytest.raises(aio.AioRpcError) as raised:
        await anext(aiter(ada.jobs.WatchJobs(request, metadata=ada.metadata)))
    assert reason_of(raised.value) == "TOKEN_NOT_OURS"


async def test_a_log_is_followed_to_the_payloads_end_and_no_further(ada: User) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; echo err >&2"
    job = await ada.submit("sh", "-c", script)
    request = ReadJobLogRequest(name=job.name, follow=True)
    parts = []
    async for part in ada.jobs.ReadJobLog(request, metadata=ada.metadata, timeout=30):
        parts.append(part)
        assert part.next_offset_bytes == sum(len(p.chunk) for p in parts)
    assert b"".join(part.chunk for part in parts) == b"line 1\nline 2\nline 3\n"
    assert len(parts) > 1, "it came while it was written"
    stderr = LogStream.LOG_STREAM_STDERR
    assert await ada.log(job.name, stream=stderr) == b"err\n"
    assert await ada.log(job.name, offset_bytes=7) == b"line 2\nline 3\n"
    assert await ada.log(job.name, offset_bytes=7, follow=True) == b"line 2\nline 3\n"
    assert (await refused(ada.log(job.name, attempt=2)))[1] == "NOT_FOUND"


async def test_a_log_is_followed_from_before_the_start(make_grid: MakeGrid) -> None:
    grid = await make_grid(max_running=1)
    ada = await grid.user("ada")
    await ada.submit("sleep", "0.5")
    job = await ada.submit("echo", "late")
    assert await ada.log(job.name, follow=True) == b"late\n"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_the_status_tells_how_many_places_are_taken(grid: Grid, ada: User) -> None:
    job = await ada.submit("sleep", "60")
    await ada.reached(job.name, states.RUNNING)
    status = await ada.jobs.GetWorkloadStatus(GetWorkloadStatusRequest(), metadata=ada.metadata)
    backend, database = status.backends
    assert (status.service, status.reachable, backend.name) == ("workload", True, "embedded")
    assert backend.message == "1 of 2 places taken"
    assert (database.name, database.reachable) == ("database", True)


async def test_users_do_not_follow_the_feed(ada: User) -> None:
    stream = ada.events.FollowJobEvents(FollowJobEventsRequest(), metadata=ada.metadata)
    with pytest.raises(aio.AioRpcError) as raised:
        await anext(aiter(stream))
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_reporting_follows_every_event_once_and_acknowledges(grid: Grid, ada: User) -> None:
    jobs: list[Job] = [await ada.ended((await ada.submit("true")).name) for _ in range(2)]
    with later(Telemetry("test"), "test", service_principal("reporting"), timeout_s=20) as caller:
        events_of = grid.reporting.workload_events
        events: list[JobEvent] = []
        position = FeedPosition()
        async for page in events_of(caller).FollowJobEvents(FollowJobEventsRequest()):
            events += page.events
            position = page.position
            if sum(event.state == states.DONE for event in events) == 2:
                break
        assert len({event.event_id for event in events}) == len(events)
        assert [event.job for event in events if event.state == states.DONE] == jobs
        ack = AckJobEventsRequest(consumer="reporting", position=position)
        await events_of(caller).AckJobEvents(ack)
        third = await ada.submit("true")
        resumed = FollowJobEventsRequest(after=position)
        async for page in events_of(caller).FollowJobEvents(resumed):
            assert page.events[0].job.name == third.name
            break
