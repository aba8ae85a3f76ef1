"""The policy in a process that is not Authorization's: in force in time, closed in time."""

import asyncio
import os
import signal
import stat
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import raw_calls
from grpc import aio
from integration.kit_server.policy_world import (
    ADA,
    VETO,
    AuthorizationProcess,
    Feed,
    OtherReplica,
    Seen,
    Things,
    bound,
    followed,
    other_replica,
    vetoed,
)
from integration.kit_server.served import FailureOf, Serve
from sqlalchemy import delete, insert

from gridlane.authorization.v1 import policy_service_pb2
from gridlane.ids import uuid7
from gridlane_authorization import store
from gridlane_kit.assertions import AssertionSigner, service_jwks
from gridlane_kit.call import Caller
from gridlane_kit.clock import now_us
from gridlane_kit.identity import service_principal
from gridlane_kit.peers import EDGES, reading
from gridlane_kit.policy import Policy, PolicyHolder, Role
from gridlane_kit.policy_file import PolicyFile
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import new_key

SERVICE_KEYS = {service: new_key() for service in EDGES}
SIGNER = AssertionSigner("transfer", SERVICE_KEYS["transfer"])
FOLLOW = "/gridlane.authorization.v1.PolicyService/FollowPolicy"
IN_FORCE_S = 1.0
MEBIBYTE = 1024 * 1024

Begin = Callable[..., Awaitable[tuple[AuthorizationProcess, OtherReplica]]]


@pytest.fixture(autouse=True)
async def _limit() -> AsyncIterator[None]:
    async with asyncio.timeout(120):
        yield


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts Authorization on a database in which ada is a submitter."""
    async with AsyncExitStack() as stack:

        async def start(
            url: str | None = None, **options: Any
        ) -> tuple[AuthorizationProcess, OtherReplica]:
            url = url or sqlite_url(tmp_path / "authorization.sqlite")
            replica = await stack.enter_async_context(other_replica(url))
            await replica.begin([bound("ada", vo="local")])
            keys = service_jwks(SERVICE_KEYS)
            process = AuthorizationProcess(tmp_path, url, keys, **options)
            stack.callback(process.kill)
            await process.start()
            return process, replica

        yield start


# --- in force -------------------------------------------------------------------------------------


async def test_a_change_is_in_force_in_another_process_within_a_second_under_load(
    begin: Begin, database_url: str, serve: Serve, messages: SimpleNamespace, failure: FailureOf
) -> None:
    """Twenty vetoes, given and taken by another replica, while 100 calls a second come in."""
    authorization, replica = await begin(database_url)
    served = await serve(Things(messages))
    request = messages.CreateThingRequest(thing=messages.Thing(name="things/a"))
    latest: dict[str, str] = {}

    async def call() -> None:
        try:
            await served.unary("CreateThing", request)
            latest["answer"] = "OK"
        except aio.AioRpcError as error:
            latest["answer"] = failure(error).reason

    async def load() -> None:
        async with asyncio.TaskGroup() as calls:
            while True:
                calls.create_task(call())
                await asyncio.sleep(0.01)

    async def until_answered(answer: str) -> float:
        begun = time.perf_counter()
        while latest.get("answer") != answer:
            await asyncio.sleep(0.002)
        return time.perf_counter() - begun

    async with followed(authorization.address, SIGNER, served.policy):
        calling = asyncio.create_task(load())
        latencies = []
        for _ in range(10):
            await until_answered("OK")
            await replica.change(added=[VETO])
            latencies.append(await until_answered("CALLER_VETOED"))
            await replica.change(removed=[VETO])
            latencies.append(await until_answered("OK"))
        calling.cancel()
        await asyncio.wait([calling])
    print(f"in force: median {statistics.median(latencies):.3f} s, max {max(latencies):.3f} s")
    assert max(latencies) < IN_FORCE_S


async def test_a_veto_cuts_an_open_stream_in_another_process(
    begin: Begin, serve: Serve, messages: SimpleNamespace, failure: FailureOf
) -> None:
    authorization, replica = await begin()
    served = await serve(Things(messages))
    async with followed(authorization.address, SIGNER, served.policy):
        stream = raw_calls.stream_stream(served.channel, served.path("ChatThings"))
        chat = stream(metadata=served.headers())
        thing = messages.CreateThingRequest(thing=messages.Thing(name="things/a"))
        await chat.write(thing.SerializeToString())
        assert await chat.read()
        begun = time.perf_counter()
        await replica.change(added=[VETO])
        with pytest.raises(aio.AioRpcError) as cut:
            await chat.read()
        assert time.perf_counter() - begun < IN_FORCE_S
        assert failure(cut.value).reason == "CALLER_VETOED"


async def test_virtual_organisations_and_settings_come_with_the_feed(begin: Begin) -> None:
    authorization, replica = await begin()
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder):
        assert (holder.current.vos, holder.current.jobs_vo_readable) == (frozenset({"local"}), True)
        await replica.change(added_vos=["cms"], removed_vos=["local"], jobs_vo_readable=False)
        await Seen(holder).until(lambda policy: policy.vos == {"cms"}, IN_FORCE_S)
        assert not holder.current.jobs_vo_readable


async def test_only_services_may_follow(begin: Begin) -> None:
    authorization, _ = await begin()
    channel = aio.insecure_channel(authorization.address)
    follow = raw_calls.unary_stream(channel, FOLLOW)
    with pytest.raises(aio.AioRpcError) as refused:
        await follow(b"").read()
    assert refused.value.code().name == "UNAUTHENTICATED"
    await channel.close()


# --- what is sent ---------------------------------------------------------------------------------


FeedOf = Callable[[str], Feed]


@pytest.fixture
async def feed_of() -> AsyncIterator[FeedOf]:
    async with AsyncExitStack() as stack:

        def make(address: str) -> Feed:
            feed = Feed(address, SIGNER)
            stack.push_async_callback(feed.peers.close)
            return feed

        yield make


async def test_who_was_away_gets_the_changes_that_it_lacks_and_no_snapshot(
    begin: Begin, feed_of: FeedOf
) -> None:
    authorization, replica = await begin()
    feed = feed_of(authorization.address)
    snapshot = (await feed.until("snapshot"))[-1].snapshot
    await replica.change(added=[VETO])
    await replica.change(removed=[VETO])
    seen = await feed.until("heartbeat", snapshot.epoch, snapshot.revision)
    changes = [m.change.revision for m in seen if m.WhichOneof("news") == "change"]
    assert changes == [snapshot.revision + 1, snapshot.revision + 2]
    assert not [m for m in seen if m.WhichOneof("news") == "snapshot"]


@pytest.mark.parametrize(
    "place", ["another epoch", "a revision that is to come", "a change that is not kept"]
)
async def test_who_cannot_be_told_the_changes_gets_the_whole_policy(
    begin: Begin, feed_of: FeedOf, place: str
) -> None:
    authorization, replica = await begin()
    feed = feed_of(authorization.address)
    first = (await feed.until("snapshot"))[-1].snapshot
    epoch, revision = first.epoch, first.revision
    last = await replica.change(added=[VETO])
    await feed.until("heartbeat", epoch, last)
    if place == "another epoch":
        epoch = "0192f0c4-0000-7000-8000-000000000000"
    elif place == "a revision that is to come":
        revision = last + 1
    else:
        changes = store.METADATA.tables["policy_change"]
        await replica.db.write(lambda c: c.execute(delete(changes)))
    begins_with = (await feed.until("snapshot", epoch, revision))[0]
    assert begins_with.snapshot.revision == last
    assert [b.subject for b in begins_with.snapshot.bindings] == ["ada", "ada"]


async def test_a_follower_that_missed_a_change_asks_for_the_whole_policy(begin: Begin) -> None:
    authorization, replica = await begin()
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder) as follower:
        seen = Seen(holder)
        # As if a message had been lost: what is here is not what the next change changes.
        follower._policy = Policy(holder.current.revision - 1)
        await replica.change(added=[VETO])
        await seen.until(vetoed, IN_FORCE_S)
        assert Role.SUBMITTER in holder.current.grants(ADA, now_us()).in_vos


async def test_heartbeats_come_four_times_a_second(begin: Begin, feed_of: FeedOf) -> None:
    authorization, _ = await begin()
    feed = feed_of(authorization.address)
    snapshot = (await feed.until("snapshot"))[-1].snapshot
    request = policy_service_pb2.FollowPolicyRequest(
        epoch=snapshot.epoch, revision=snapshot.revision
    )
    caller = Caller(service_principal("transfer"), None, Telemetry("transfer").root())
    stub = feed.peers.authorization_policy(caller)
    count = 0
    async with reading(stub.FollowPolicy(request)) as messages:
        ends = time.perf_counter() + 2
        async for message in messages:
            if time.perf_counter() > ends:
                break
            assert message.heartbeat.revision == snapshot.revision
            count += 1
    assert 5 <= count <= 9


async def test_a_hundred_thousand_bindings_come_in_parts_below_the_limit_of_a_message(
    begin: Begin, feed_of: FeedOf
) -> None:
    authorization, replica = await begin()
    bindings = store.METADATA.tables["role_binding"]
    rows = [
        {
            "issuer": "https://issuer.test/",
            "subject": f"user-{n:06d}-0123456789abcdef",
            "role": "submitter",
            "vo": f"vo-{n % 50}",
            "channel_uid": "",
            "create_time_us": 1,
            "uid": uuid7(),
        }
        for n in range(100_000)
    ]
    await replica.db.write(lambda c: c.execute(insert(bindings), rows))
    authorization.kill()
    await authorization.start()
    begun = time.perf_counter()
    parts = await feed_of(authorization.address).until("snapshot")
    took_s = time.perf_counter() - begun
    sizes = [part.ByteSize() for part in parts]
    assert sum(len(part.snapshot.bindings) for part in parts) == 100_001
    assert max(sizes) < 4 * MEBIBYTE
    holder = PolicyHolder(Policy(0))
    begun = time.perf_counter()
    async with followed(authorization.address, SIGNER, holder):
        followed_s = time.perf_counter() - begun
        seen = Seen(holder)
        await replica.change(added=[VETO])
        veto_s = await seen.until(vetoed, IN_FORCE_S)
    print(
        f"{len(parts)} parts, {sum(sizes) / MEBIBYTE:.1f} MiB, the largest {max(sizes)} bytes,"
        f" read in {took_s:.2f} s, in force in {followed_s:.2f} s; a veto then {veto_s:.3f} s"
    )


# --- stale ----------------------------------------------------------------------------------------


async def test_followers_outlive_the_death_of_authorization(begin: Begin) -> None:
    authorization, replica = await begin()
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder):
        authorization.kill()
        await replica.change(added=[VETO])
        await asyncio.sleep(0.5)
        assert Role.SUBMITTER in holder.current.grants(ADA, now_us()).in_vos
        await authorization.start()
        await Seen(holder).until(vetoed, 5)


@pytest.mark.parametrize("silence", ["dead", "stopped"])
async def test_a_policy_that_nobody_confirmed_closes_and_opens_again(
    begin: Begin, serve: Serve, messages: SimpleNamespace, silence: str
) -> None:
    """Dead: the connection is refused. Stopped: it stands, and nothing comes."""
    authorization, _ = await begin()
    served = await serve(Things(messages))
    request = messages.CreateThingRequest(thing=messages.Thing(name="things/a"))
    async with followed(authorization.address, SIGNER, served.policy, stale_after_s=1.5):
        seen = Seen(served.policy)
        await served.unary("CreateThing", request)
        if silence == "dead":
            authorization.kill()
        else:
            authorization.send(signal.SIGSTOP)
        assert 0.7 < await seen.until(lambda policy: policy.closed, 3) < 2.0
        refused = await served.refused("CreateThing", request)
        assert (refused.code.name, refused.reason) == ("UNAVAILABLE", "POLICY_STALE")
        assert refused.retry_after_s == 1
        if silence == "dead":
            await authorization.start()
        else:
            authorization.send(signal.SIGCONT)
        await seen.until(lambda policy: not policy.closed, 8)
        await served.unary("CreateThing", request)


async def test_a_stale_policy_cuts_open_streams(
    begin: Begin, serve: Serve, messages: SimpleNamespace, failure: FailureOf
) -> None:
    authorization, _ = await begin()
    served = await serve(Things(messages))
    async with followed(authorization.address, SIGNER, served.policy, stale_after_s=1.0):
        stream = raw_calls.stream_stream(served.channel, served.path("ChatThings"))
        chat = stream(metadata=served.headers())
        thing = messages.CreateThingRequest(thing=messages.Thing(name="things/a"))
        await chat.write(thing.SerializeToString())
        assert await chat.read()
        authorization.kill()
        with pytest.raises(aio.AioRpcError) as cut:
            await chat.read()
        assert failure(cut.value).reason == "POLICY_STALE"


async def test_authorization_that_loses_its_database_confirms_nothing_and_closes_itself(
    begin: Begin, tmp_path: Path
) -> None:
    authorization, replica = await begin(stale_after_s=1.0)
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder, stale_after_s=1.0):
        seen = Seen(holder)
        state = store.METADATA.tables["policy_state"]
        rows = await replica.db.read(lambda c: c.execute(state.select()).mappings().all())
        await replica.db.write(lambda c: c.execute(delete(state)))
        await seen.until(lambda policy: policy.closed, 5)
        await replica.db.write(lambda c: c.execute(insert(state), [dict(row) for row in rows]))
        await seen.until(lambda policy: not policy.closed, 8)


# --- the kept policy ------------------------------------------------------------------------------


async def test_a_start_without_authorization_serves_by_the_kept_policy(
    begin: Begin, tmp_path: Path
) -> None:
    authorization, replica = await begin()
    file = tmp_path / "transfer.policy"
    async with followed(authorization.address, SIGNER, PolicyHolder(Policy(0)), file=file):
        await replica.change(added=[VETO])
        async with asyncio.timeout(10):
            while not file.exists():
                await asyncio.sleep(0.05)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    authorization.kill()
    holder = PolicyHolder(Policy(0))
    begun = time.perf_counter()
    async with followed(authorization.address, SIGNER, holder, file=file):
        assert time.perf_counter() - begun < 1
        assert vetoed(holder.current)
        await authorization.start()
        await replica.change(removed=[VETO])
        await Seen(holder).until(lambda policy: not vetoed(policy), 5)


@pytest.mark.parametrize("damage", ["too old", "from the future", "cut short", "another byte"])
async def test_a_kept_policy_that_is_old_or_damaged_is_not_used(
    begin: Begin, tmp_path: Path, damage: str
) -> None:
    authorization, _ = await begin()
    file = tmp_path / "transfer.policy"
    async with followed(authorization.address, SIGNER, PolicyHolder(Policy(0)), file=file):
        pass
    authorization.kill()
    if damage == "too old":
        PolicyFile(file).confirm(now_us() - 61_000_000)
    elif damage == "from the future":
        PolicyFile(file).confirm(now_us() + 61_000_000)
    elif damage == "cut short":
        os.truncate(file, file.stat().st_size - 5)
    else:
        raw = bytearray(file.read_bytes())
        raw[-3] ^= 1
        file.write_bytes(raw)
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder, file=file, wait=False) as follower:
        starting = asyncio.create_task(follower.start())
        done, _ = await asyncio.wait([starting], timeout=0.5)
        assert not done
        assert holder.current.closed
        await authorization.start()
        async with asyncio.timeout(10):
            await starting
        assert Role.SUBMITTER in holder.current.grants(ADA, now_us()).in_vos


async def test_the_kept_policy_ages_while_authorization_is_away(
    begin: Begin, tmp_path: Path
) -> None:
    """Starts do not make it younger."""
    authorization, _ = await begin()
    file = tmp_path / "transfer.policy"
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder, file=file):
        pass
    authorization.kill()
    kept = PolicyFile(file).read()
    assert kept is not None
    for _ in range(2):
        async with followed(authorization.address, SIGNER, PolicyHolder(Policy(0)), file=file):
            await asyncio.sleep(0.3)
    again = PolicyFile(file).read()
    assert again is not None
    assert again.confirmed_us - kept.confirmed_us < 100_000
    assert again.policy.revision == kept.policy.revision


async def test_a_start_that_waits_can_be_broken_off(begin: Begin, tmp_path: Path) -> None:
    authorization, _ = await begin()
    authorization.kill()
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder, wait=False) as follower:
        starting = asyncio.create_task(follower.start())
        await asyncio.sleep(0.3)
        starting.cancel()
        async with asyncio.timeout(2):
            await asyncio.wait([starting])
        assert starting.cancelled()


async def test_roles_of_everybody_are_the_same_on_both_sides(begin: Begin) -> None:
    authorization, replica = await begin()
    holder = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, holder):
        await replica.change(added=[bound("bob", role, "local") for role in Role])
        last = await replica.change(removed=[bound("bob", Role.ADMIN, "local")])
        await Seen(holder).until(lambda policy: policy.revision == last, IN_FORCE_S)
        stored = await replica.db.read(store.read_policy)
    assert set(holder.current.bindings) == set(stored.policy.bindings)
