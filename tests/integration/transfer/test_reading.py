"""Jobs, files and events are read by those who may, in pages, and watched without a gap."""

import asyncio
from typing import Any

import grpc
import pytest

from gridlane.transfer.v1 import (
    channel_service_pb2,
    event_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.type.v1 import feed_pb2
from gridlane_kit.call import Caller
from gridlane_kit.identity import service_principal
from gridlane_kit.policy import Binding, Policy, Role

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


async def a_job(house: Any, client: Any, n: int = 1, **fields: Any) -> transfer_job_pb2.TransferJob:
    stem = f"local/{client.user if hasattr(client, 'user') else 'x'}"
    files = [
        (house.file(f"{stem}/{i}"), f"LFN:/local/out/{fields.get('tag', '')}{i}") for i in range(n)
    ]
    tag = fields.pop("tag", None)
    overwrite = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
    if tag is None:
        job = await client.submit(*files, overwrite=overwrite, **fields)
    else:
        tags = {"gridlane.job": tag}
        job = await house.submit_for("sue", *files, tags=tags, overwrite=overwrite, **fields)
    return await client.ended(job.name)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        await call
    return raised.value.code()


def batch(*names: str) -> transfer_service_pb2.BatchGetTransferJobsRequest:
    return transfer_service_pb2.BatchGetTransferJobsRequest(names=names)


def listing(**fields: Any) -> transfer_service_pb2.ListTransferJobsRequest:
    return transfer_service_pb2.ListTransferJobsRequest(**fields)


ABSENT = "transfers/01939f5e-0000-7000-8000-0000000000ff"


async def test_a_foreign_job_and_an_absent_one_are_answered_alike(house: Any, sue: Any) -> None:
    job = await a_job(house, sue)
    for user, sees in (("bob", True), ("max", True), ("admin", True), ("eve", False)):
        client = house.client(user)
        if sees:
            assert (await client.get(job.name)).name == job.name
            continue
        for name in (job.name, ABSENT):
            get = transfer_service_pb2.GetTransferJobRequest(name=name)
            assert await code_of(client.jobs.GetTransferJob(get)) == grpc.StatusCode.NOT_FOUND
            files = transfer_service_pb2.ListFileTransfersRequest(parent=name)
            assert await code_of(client.jobs.ListFileTransfers(files)) == grpc.StatusCode.NOT_FOUND
            events = transfer_service_pb2.ListTransferEventsRequest(parent=name)
            assert (
                await code_of(client.jobs.ListTransferEvents(events)) == grpc.StatusCode.NOT_FOUND
            )
            cancel = transfer_service_pb2.CancelTransferJobRequest(name=name)
            assert await code_of(client.jobs.CancelTransferJob(cancel)) == grpc.StatusCode.NOT_FOUND
        answer = await client.jobs.BatchGetTransferJobs(batch(job.name, ABSENT))
        assert [result.status.code for result in answer.results] == [5, 5]


async def test_a_batch_answers_each_name_in_its_place(house: Any, sue: Any) -> None:
    one, two = await a_job(house, sue), await a_job(house, sue)
    answer = await sue.jobs.BatchGetTransferJobs(batch(two.name, ABSENT, one.name))
    names = [result.transfer_job.name for result in answer.results]
    assert names == [two.name, "", one.name]
    assert answer.results[1].status.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert not answer.results[0].transfer_job.files


async def test_listings_page_newest_first_and_filter_by_what_is_documented(
    house: Any, sue: Any, words: Any
) -> None:
    jobs = [await a_job(house, sue, tag=f"t{n % 2}") for n in range(5)]
    newest_first = [job.name for job in reversed(jobs)]
    seen: list[str] = []
    token = ""
    while True:
        page = await sue.jobs.ListTransferJobs(listing(page_size=2, page_token=token))
        seen += [job.name for job in page.transfer_jobs]
        if not (token := page.next_page_token):
            break
    assert seen == newest_first
    tagged = await sue.jobs.ListTransferJobs(listing(filter='tags.gridlane.job = "t1"'))
    assert [job.name for job in tagged.transfer_jobs] == [jobs[3].name, jobs[1].name]
    found = transfer_service_pb2.ListTransferJobsResponse()
    for text, count in (
        ('state = "FINISHED"', 5),
        ('vo = "other" AND state = "FINISHED"', 0),
        ("state = ACTIVE AND vo = local", 0),
        ('vo = "local"', 5),
        ('vo = "local" AND state = "FINISHED"', 5),
    ):
        found = await sue.jobs.ListTransferJobs(listing(filter=text))
        assert len(found.transfer_jobs) == count, text
        summary = await sue.jobs.SummarizeTransferJobs(
            transfer_service_pb2.SummarizeTransferJobsRequest(filter=text)
        )
        assert summary.job_count == count, text
    assert not found.transfer_jobs[0].files
    with pytest.raises(grpc.RpcError) as raised:
        await sue.jobs.ListTransferJobs(listing(filter='state = "DONE"'))
    assert words.reason(raised.value) == "FILTER_UNSUPPORTED"


async def test_a_listing_shows_own_jobs_and_a_vetoed_caller_none(house: Any, sue: Any) -> None:
    await a_job(house, sue)
    for user, count in (("sue", 1), ("max", 1), ("admin", 1), ("bob", 0), ("eve", 0)):
        answer = await house.client(user).jobs.ListTransferJobs(listing())
        assert len(answer.transfer_jobs) == count, user
    veto = Binding("https://issuer.test/", "sue", Role.VETOED)
    house.policy.replace(Policy(2, (*house.bindings, veto)))
    assert not (await sue.jobs.ListTransferJobs(listing())).transfer_jobs


async def test_a_job_sharer_has_the_owners_rights_on_what_its_active_group_moves(
    house: Any,
) -> None:
    sharing = [Binding("https://issuer.test/", name, Role.JOB_SHARER) for name in ("bob", "eve")]
    policy = Policy(2, (*house.bindings, *sharing), jobs_vo_readable=False, vos=["local", "other"])
    house.policy.replace(policy)
    job = await a_job(house, house.client("sue", groups=["/local/team", "/local"]))
    bob = house.client("bob", groups=["/local/team"])
    assert [one.name for one in (await bob.jobs.ListTransferJobs(listing())).transfer_jobs] == [
        job.name
    ]
    cancel = transfer_service_pb2.CancelTransferJobRequest(name=job.name)
    assert (await bob.get(job.name)).name == job.name
    assert (await bob.jobs.CancelTransferJob(cancel)).name == job.name
    assert (await bob.jobs.BatchGetTransferJobs(batch(job.name))).results[0].status.code == 0
    for outside in (
        house.client("bob", groups=["/local", "/local/team"]),
        house.client("bob"),
        house.client("eve", groups=["/local/team"]),
    ):
        assert not (await outside.jobs.ListTransferJobs(listing())).transfer_jobs
        get = transfer_service_pb2.GetTransferJobRequest(name=job.name)
        assert await code_of(outside.jobs.GetTransferJob(get)) == grpc.StatusCode.NOT_FOUND
        answer = await outside.jobs.BatchGetTransferJobs(batch(job.name))
        assert [result.status.code for result in answer.results] == [5]
        assert await code_of(outside.jobs.CancelTransferJob(cancel)) == grpc.StatusCode.NOT_FOUND


async def test_a_channel_s_manager_sees_and_ends_what_lies_on_the_channel(
    house: Any, sue: Any
) -> None:
    admin, eve = house.client("admin"), house.client("eve")
    get = channel_service_pb2.GetChannelRequest(name="channels/default")
    channel = await admin.channels.GetChannel(get)
    assert (channel.source, channel.target, channel.max_files) == ("*", "*", 4)
    absent = channel_service_pb2.GetChannelRequest(name="channels/none")
    for request in (get, absent):
        assert await code_of(eve.channels.GetChannel(request)) == grpc.StatusCode.PERMISSION_DENIED
    assert await code_of(admin.channels.GetChannel(absent)) == grpc.StatusCode.NOT_FOUND
    listed = await eve.channels.ListChannels(channel_service_pb2.ListChannelsRequest())
    assert [(one.name, one.uid) for one in listed.channels] == [("channels/default", "")]
    job = await a_job(house, sue)
    manager = Binding("https://issuer.test/", "eve", Role.CHANNEL_MANAGER, channel_uid=channel.uid)
    house.policy.replace(Policy(2, (*house.bindings, manager)))
    assert (await eve.channels.GetChannel(get)).uid == channel.uid
    assert (await eve.get(job.name)).name == job.name
    assert [one.name for one in (await eve.jobs.ListTransferJobs(listing())).transfer_jobs] == [
        job.name
    ]
    answer = await eve.jobs.BatchGetTransferJobs(batch(job.name))
    assert answer.results[0].transfer_job.name == job.name
    cancel = transfer_service_pb2.CancelTransferJobRequest(name=job.name)
    assert (await eve.jobs.CancelTransferJob(cancel)).name == job.name


async def test_files_and_events_page_in_order(house: Any, sue: Any) -> None:
    job = await a_job(house, sue, n=5)
    first = await sue.jobs.ListFileTransfers(
        transfer_service_pb2.ListFileTransfersRequest(parent=job.name, page_size=3)
    )
    rest = await sue.jobs.ListFileTransfers(
        transfer_service_pb2.ListFileTransfersRequest(
            parent=job.name, page_size=3, page_token=first.next_page_token
        )
    )
    assert [*first.files, *rest.files] == list(job.files)
    assert rest.next_page_token == ""
    request = transfer_service_pb2.ListTransferEventsRequest
    some = await sue.jobs.ListTransferEvents(request(parent=job.name, page_size=4))
    more = await sue.jobs.ListTransferEvents(
        request(parent=job.name, page_token=some.next_page_token)
    )
    events = [*some.events, *more.events]
    assert len({event.event_id for event in events}) == len(events)
    assert events[0].previous_state == ""
    assert events[0].job.number == job.number
    assert events[-1].job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED
    assert all(event.transfer_job == event.job.name == job.name for event in events)
    assert not any(event.job.files for event in events)


async def test_a_watch_resumes_where_it_was_left_without_a_gap_or_a_repeat(
    house: Any, sue: Any
) -> None:
    job = await a_job(house, sue, n=3)
    big = house.storage / "local/big"
    with big.open("wb") as file:
        file.truncate(6 << 30)
    other = await sue.submit((big.as_uri(), "LFN:/local/copy"))
    names = [job.name, other.name]
    whole: list[str] = []
    tokens: list[str] = []
    request = transfer_service_pb2.WatchTransferJobsRequest(names=names)
    async with asyncio.timeout(5):
        async for page in sue.jobs.WatchTransferJobs(request):
            whole += [event.event_id for event in page.events]
            tokens.append(page.resume_token)
            break
    cancel = transfer_service_pb2.CancelTransferJobRequest(name=other.name)
    await sue.jobs.CancelTransferJob(cancel)
    request = transfer_service_pb2.WatchTransferJobsRequest(
        names=reversed(names), resume_token=tokens[-1]
    )
    async with asyncio.timeout(5):
        async for page in sue.jobs.WatchTransferJobs(request):
            assert not {event.event_id for event in page.events} & set(whole)
            assert {event.transfer_job for event in page.events} == {other.name}
            break
    bad = transfer_service_pb2.WatchTransferJobsRequest(names=[job.name], resume_token="what?")
    with pytest.raises(grpc.RpcError) as raised:
        async for _ in sue.jobs.WatchTransferJobs(bad):
            pass
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    eve = transfer_service_pb2.WatchTransferJobsRequest(names=[job.name])
    with pytest.raises(grpc.RpcError) as raised:
        async for _ in house.client("eve").jobs.WatchTransferJobs(eve):
            pass
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_service_follows_every_event_and_acknowledges(house: Any, sue: Any) -> None:
    job = await a_job(house, sue)
    follower = Caller(service_principal("workload"), None, house.telemetry.root())
    stub = house.peers.transfer_events(follower)
    events: list[Any] = []
    async with asyncio.timeout(5):
        position = feed_pb2.FeedPosition()
        async for page in stub.FollowTransferEvents(
            event_service_pb2.FollowTransferEventsRequest()
        ):
            events += page.events
            position = page.position
            if events[-1].job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED:
                break
    assert {event.transfer_job for event in events} == {job.name}
    await stub.AckTransferEvents(
        event_service_pb2.AckTransferEventsRequest(consumer="workload", position=position)
    )
    another = feed_pb2.FeedPosition(epoch="another", position=1)
    with pytest.raises(Exception, match="cannot be followed"):
        await stub.AckTransferEvents(
            event_service_pb2.AckTransferEventsRequest(consumer="workload", position=another)
        )
    ask = event_service_pb2.FollowTransferEventsRequest()
    with pytest.raises(grpc.RpcError) as raised:
        async for _ in sue.events.FollowTransferEvents(ask):
            pass
    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
