"""Channels: made, changed and removed; who manages which; held files; states; shares in force."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from integration.transfer.channel_calls import Admin, let_manage, refused, settled
from integration.transfer.failing_mover import fail, mend

from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    activity_pb2,
    activity_service_pb2,
    channel_pb2,
    channel_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

ALL_FIELDS = {
    "state": channel_pb2.CHANNEL_STATE_DRAIN,
    "max_files": 7,
    "on_exhausted": channel_pb2.EXHAUSTED_ACTION_HOLD,
    "vo_shares": {"atlas": 70, "cms": 30, "*": 1},
    "max_bandwidth_bytes_per_second": 1 << 40,
    "nominal_throughput_bytes_per_second": 1 << 30,
    "contact": "ops@example.org",
    "description": "between the two of them",
    "default_max_retries": 0,
    "default_retry_delay": Duration(seconds=1, nanos=500_000_000),
    "optimizer": channel_pb2.ChannelOptimizer(
        mode=channel_pb2.OPTIMIZER_MODE_MODERATE, min_files=3, max_files=9
    ),
}


@pytest.fixture
def admin(house: Any) -> Admin:
    return Admin(house, "admin")


async def test_a_channel_is_made_with_all_its_settings_and_read_again(admin: Admin) -> None:
    made = await admin.create("wan", **ALL_FIELDS)
    for field, value in ALL_FIELDS.items():
        found = getattr(made, field)
        assert (dict(found) if field == "vo_shares" else found) == value, field
    assert (made.name, made.source, made.target) == ("channels/wan", "local", "mirror")
    assert made.uid
    assert made.revision > 0
    assert made.create_time == made.update_time
    read = await admin.get("wan")
    assert read.HasField("usage")
    assert read.usage.allowed_files == 7
    read.ClearField("usage")
    assert read == made


async def test_defaults_are_told_as_they_hold(admin: Admin) -> None:
    made = await admin.create("wan")
    assert made.state == channel_pb2.CHANNEL_STATE_ACTIVE
    assert made.on_exhausted == channel_pb2.EXHAUSTED_ACTION_FAIL
    assert made.max_files == 4
    assert not made.HasField("default_max_retries")
    assert not made.HasField("optimizer")
    mode = channel_pb2.OPTIMIZER_MODE_CONSERVATIVE
    changed = await admin.update("wan", optimizer=channel_pb2.ChannelOptimizer(mode=mode))
    assert (changed.optimizer.min_files, changed.optimizer.max_files) == (2, 100)


async def test_a_repeated_call_makes_one_channel_and_checking_makes_none(
    admin: Admin, words: Any
) -> None:
    request_id = uuid7()
    checked = await admin.create("wan", request_id=request_id, validate_only=True)
    assert (checked.name, checked.uid, checked.revision) == ("", "", 0)
    await refused(admin.get("wan"), grpc.StatusCode.NOT_FOUND)
    made = await admin.create("wan", request_id=request_id)
    assert await admin.create("wan", request_id=request_id) == made
    error = await refused(
        admin.create("wan", request_id=request_id, max_files=9), grpc.StatusCode.ALREADY_EXISTS
    )
    assert words.reason(error) == "REQUEST_ID_REUSED"
    error = await refused(admin.create("wan"), grpc.StatusCode.ALREADY_EXISTS)
    assert words.reason(error) == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"source": "nowhere"}, "FAILED_PRECONDITION", None),
        ({"name": "channels/wan"}, "INVALID_ARGUMENT", "channel.name"),
        ({"contact": "a\0b"}, "INVALID_ARGUMENT", "channel.contact"),
        (
            {"default_buffer_size_bytes": 4096},
            "INVALID_ARGUMENT",
            "channel.default_buffer_size_bytes",
        ),
        ({"max_files": 10_001}, "INVALID_ARGUMENT", "channel.max_files"),
    ],
)
async def test_what_a_channel_cannot_be_is_refused_and_nothing_is_stored(
    admin: Admin, words: Any, fields: dict[str, Any], code: str, field: str | None
) -> None:
    error = await refused(admin.create("wan", **fields), grpc.StatusCode[code])
    if field is not None:
        assert field in words.violations(error)
    await refused(admin.get("wan"), grpc.StatusCode.NOT_FOUND)


async def test_an_update_changes_what_its_mask_names_and_nothing_else(
    admin: Admin, words: Any
) -> None:
    made = await admin.create("wan", **ALL_FIELDS)
    changed = await admin.update("wan", "vo_shares", vo_shares={"a": 1}, max_files=99)
    assert dict(changed.vo_shares) == {"a": 1}
    assert changed.max_files == 7
    assert changed.revision > made.revision
    assert changed.uid == made.uid
    back = await admin.update("wan", "vo_shares", "default_max_retries", "optimizer", "max_files")
    assert not back.vo_shares
    assert back.max_files == 4
    assert not back.HasField("default_max_retries")
    assert not back.HasField("optimizer")
    same = await admin.update("wan", "contact", contact=back.contact)
    assert same == back
    error = await refused(
        admin.update("wan", "contact", contact="x", revision=made.revision),
        grpc.StatusCode.ABORTED,
    )
    assert words.reason(error) == "REVISION_CONFLICT"
    assert (await admin.update("wan", contact="x", revision=back.revision)).contact == "x"
    error = await refused(admin.update("wan", "target"), grpc.StatusCode.INVALID_ARGUMENT)
    assert "update_mask" in words.violations(error)
    await refused(admin.update("wan", source="jobs"), grpc.StatusCode.INVALID_ARGUMENT)
    await refused(admin.update("none", contact="x"), grpc.StatusCode.NOT_FOUND)


async def test_a_new_channel_of_an_old_name_is_another_one(admin: Admin) -> None:
    request_id = uuid7()
    first = await admin.create("wan", request_id=request_id)
    await admin.delete("wan")
    await refused(admin.delete("wan"), grpc.StatusCode.NOT_FOUND)
    second = await admin.create("wan")
    assert second.uid != first.uid
    assert second.revision > first.revision
    again = admin.create("wan", request_id=request_id)
    await refused(again, grpc.StatusCode.NOT_FOUND)  # what that call made is gone
    listed = await admin.client.channels.ListChannels(
        channel_service_pb2.ListChannelsRequest(page_size=1)
    )
    assert [one.name for one in listed.channels] == ["channels/default"]
    rest = await admin.client.channels.ListChannels(
        channel_service_pb2.ListChannelsRequest(page_size=1, page_token=listed.next_page_token)
    )
    assert [one.name for one in rest.channels] == ["channels/wan"]
    assert not rest.next_page_token


async def test_files_lie_on_the_most_particular_channel_from_then_on(
    house: Any, admin: Admin, sue: Any
) -> None:
    await admin.update("default", state=channel_pb2.CHANNEL_STATE_STOPPED)
    target = house.mirror / "local/x"
    before = await sue.submit((house.file("local/a"), target.as_uri()))
    await admin.create("to", source="*")
    between = await sue.submit((house.file("local/a"), (house.mirror / "local/y").as_uri()))
    await admin.create("exact")
    after = await sue.submit((house.file("local/a"), (house.mirror / "local/z").as_uri()))
    assert [job.files[0].channel for job in (before, between, after)] == [
        "channels/default",
        "channels/to",
        "channels/exact",
    ]
    for job in (between, after):
        await sue.ended(job.name)
    assert (await sue.get(before.name)).files[0].channel == "channels/default"
    error = await refused(admin.delete("default"), grpc.StatusCode.FAILED_PRECONDITION)
    assert "default" in str(error.details())
    await admin.update("default", state=channel_pb2.CHANNEL_STATE_ACTIVE)
    await sue.ended(before.name)
    await admin.delete("default")
    await house.restart()
    await refused(Admin(house, "admin").get("default"), grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("state", ["DRAIN", "INACTIVE", "STOPPED"])
async def test_nothing_starts_on_a_channel_that_is_not_active(
    house: Any, admin: Admin, sue: Any, state: str
) -> None:
    channel = await admin.update(
        "default", state=channel_pb2.ChannelState.Value(f"CHANNEL_STATE_{state}")
    )
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    await asyncio.sleep(0.3)
    assert (await sue.get(job.name)).files[0].attempt == 0
    assert (await admin.get("default")).usage.queued_files == 1
    assert channel.state == (await admin.get("default")).state
    await admin.update("default", "state")
    assert (await sue.ended(job.name)).files[0].attempt == 1


async def test_the_managers_of_a_channel_manage_that_one_alone(
    house: Any, admin: Admin, words: Any
) -> None:
    mine = await admin.create("mine")
    await admin.create("other", target="*")
    bob = Admin(house, "bob")
    calls: list[Callable[[str], Awaitable[Any]]] = [
        lambda name: bob.update(name, contact="bob"),
        bob.held,
        bob.release,
        bob.fail,
        bob.get,
    ]
    for call in calls:
        await refused(call("mine"), grpc.StatusCode.PERMISSION_DENIED)
    let_manage(house, "bob", mine)
    for call in calls:
        await call("mine")
        for foreign in ("other", "absent"):
            error = await refused(call(foreign), grpc.StatusCode.PERMISSION_DENIED)
            assert words.reason(error) == "PERMISSION_DENIED"
    await refused(bob.delete("mine"), grpc.StatusCode.PERMISSION_DENIED)
    await refused(bob.create("another"), grpc.StatusCode.PERMISSION_DENIED)
    assert (await admin.get("mine")).contact == "bob"


async def test_files_whose_retries_are_spent_are_held_listed_released_and_given_up(
    house: Any, admin: Admin, sue: Any, words: Any
) -> None:
    hold = channel_pb2.EXHAUSTED_ACTION_HOLD
    await admin.create("wan", on_exhausted=hold)
    await admin.update("default", on_exhausted=hold)
    fail(house.room.mover)
    jobs = []
    for name in ("one", "two", "three"):
        target = (house.mirror / f"local/{name}").as_uri()
        job = await sue.submit((house.file(f"local/{name}"), target), max_retries=0)
        await settled(sue, job.name, "HELD")
        jobs.append(job)
    elsewhere = await sue.submit((house.file("local/e"), "LFN:/local/f"), max_retries=0)
    await settled(sue, elsewhere.name, "HELD")
    held = await admin.held("wan")
    names = [file.name for file in held.files]
    assert [name.rpartition("/files/")[0] for name in names] == [job.name for job in jobs]
    first = await admin.held("wan", page_size=2)
    second = await admin.held("wan", page_size=2, page_token=first.next_page_token)
    assert [*first.files, *second.files] == list(held.files)
    assert not second.next_page_token
    assert (await admin.get("wan")).usage.held_files == 3
    assert await admin.release("default", names[0]) == 0, "it does not lie there"
    assert await admin.fail("wan", names[0]) == 1
    failed = await sue.get(jobs[0].name)
    assert words.files(failed) == ["FAILED"]
    assert failed.files[0].failure == held.files[0].failure
    mend(house.room.mover)
    error = await refused(admin.delete("wan"), grpc.StatusCode.FAILED_PRECONDITION)
    assert words.reason(error) == "IN_USE"
    assert await admin.release("wan", names[1]) == 1
    assert words.job(await sue.ended(jobs[1].name)) == "FINISHED"
    assert await admin.release("wan") == 1
    assert words.job(await sue.ended(jobs[2].name)) == "FINISHED"
    assert (await admin.release("wan"), await admin.fail("wan", *names)) == (0, 0)


async def test_a_channel_s_retries_hold_for_jobs_that_do_not_say_them(
    house: Any, admin: Admin, sue: Any, words: Any
) -> None:
    await admin.create("wan", default_max_retries=1, default_retry_delay=Duration(nanos=10_000_000))
    fail(house.room.mover)
    target = (house.mirror / "local/x").as_uri()
    ended = await sue.ended((await sue.submit((house.file("local/a"), target))).name)
    assert words.files(ended) == ["FAILED"]
    assert ended.files[0].attempt == 2
    own = await sue.submit((house.file("local/a"), target), max_retries=2)
    assert (await sue.ended(own.name)).files[0].attempt == 3
    await admin.update("wan", default_retry_delay=Duration(seconds=3600))
    waits = await sue.submit((house.file("local/a"), target))
    await settled(sue, waits.name, "RETRYING")
    mover_says = (await sue.get(waits.name)).files[0].failure.message
    assert mover_says == "the worker went away"


async def test_usage_tells_what_moves_and_waits_by_vo(house: Any, admin: Admin, sue: Any) -> None:
    await admin.update("default", max_files=1)
    files = [(house.file(f"local/{n}", b"x" * 100_000), f"LFN:/local/to/{n}") for n in range(20)]
    job = await sue.submit(*files)
    await sue.ended(job.name)
    usage = (await admin.get("default")).usage
    assert (usage.active_files, usage.queued_files, usage.held_files) == (0, 0, 0)
    assert usage.bytes_per_second >= 20 * 100_000 // 60 - 1
    assert usage.allowed_files == 1


async def test_activity_shares_are_set_by_managers_and_seen_by_members(
    house: Any, admin: Admin, words: Any
) -> None:
    name = "vos/local/activityShares"
    get = activity_service_pb2.GetActivitySharesRequest(name=name)
    max_, bob, eve = Admin(house, "max"), Admin(house, "bob"), Admin(house, "eve")
    empty = await bob.activities.GetActivityShares(get)
    assert (empty.name, list(empty.activities), empty.active, empty.revision) == (name, [], True, 0)

    def ask(*shares: tuple[str, int], **fields: Any) -> Any:
        mask = fields.pop("mask", ())
        revision = fields.pop("revision", 0)
        return activity_service_pb2.UpdateActivitySharesRequest(
            activity_shares=activity_pb2.ActivityShares(
                name=name,
                activities=[
                    activity_pb2.ActivityShare(activity=activity, weight=weight)
                    for activity, weight in shares
                ],
                **fields,
            ),
            update_mask=FieldMask(paths=mask),
            revision=revision,
        )

    given = await max_.activities.UpdateActivityShares(ask(("Data Challenge", 3), ("default", 1)))
    assert [(one.activity, one.weight) for one in given.activities] == [
        ("Data Challenge", 3),
        ("default", 1),
    ]
    assert given.activities[0].name == "vos/local/activities/Data%20Challenge"
    assert await bob.activities.GetActivityShares(get) == given
    off = await admin.activities.UpdateActivityShares(ask(active=False))
    assert not off.active
    assert len(off.activities) == 2
    error = await refused(
        max_.activities.UpdateActivityShares(ask(("a", 1), revision=given.revision)),
        grpc.StatusCode.ABORTED,
    )
    assert words.reason(error) == "REVISION_CONFLICT"
    cleared = await max_.activities.UpdateActivityShares(ask(mask=("activities", "active")))
    assert cleared.active
    assert not cleared.activities
    twice = max_.activities.UpdateActivityShares(ask(("a", 1), ("a", 2)))
    await refused(twice, grpc.StatusCode.INVALID_ARGUMENT)
    update = bob.activities.UpdateActivityShares(ask(("a", 1)))
    await refused(update, grpc.StatusCode.PERMISSION_DENIED)
    await refused(eve.activities.GetActivityShares(get), grpc.StatusCode.NOT_FOUND)
    absent = activity_service_pb2.GetActivitySharesRequest(name="vos/none/activityShares")
    await refused(admin.activities.GetActivityShares(absent), grpc.StatusCode.NOT_FOUND)


async def test_activities_share_a_vo_s_places_as_its_managers_say(
    house: Any, admin: Admin, sue: Any
) -> None:
    stopped = channel_pb2.CHANNEL_STATE_STOPPED
    await admin.update("default", state=stopped, max_files=1)
    shares = [("production", 3), ("default", 1)]
    await admin.activities.UpdateActivityShares(
        activity_service_pb2.UpdateActivitySharesRequest(
            activity_shares=activity_pb2.ActivityShares(
                name="vos/local/activityShares",
                activities=[
                    activity_pb2.ActivityShare(activity=activity, weight=weight)
                    for activity, weight in shares
                ],
            )
        )
    )
    jobs = []
    for activity in ("whatever", "production"):
        pairs = [
            (house.file(f"local/{activity}/{n}"), f"LFN:/local/out/{activity}/{n}")
            for n in range(24)
        ]
        jobs.append(await sue.submit(*pairs, activity=activity))
    get = activity_service_pb2.GetActivitySharesRequest(name="vos/local/activityShares")
    told = (await admin.activities.GetActivityShares(get)).activities
    assert {one.activity: one.queued_files for one in told} == {"production": 24, "default": 24}
    await admin.update("default", "state")
    ended = [await sue.ended(job.name, seconds=60) for job in jobs]
    starts = sorted(
        (file.start_time.ToMicroseconds(), index)
        for index, job in enumerate(ended)
        for file in job.files
    )
    first = [index for _, index in starts[:24]]
    # Three of four, whoever was submitted first; how long copies take is not the same for all.
    assert 14 <= sum(first) <= 21


async def test_usage_tells_what_running_files_have_moved_so_far(
    house: Any, admin: Admin, sue: Any
) -> None:
    await admin.update("default", max_files=1, max_bandwidth_bytes_per_second=2_000_000)
    job = await sue.submit((house.file("local/a", bytes(40_000_000)), "LFN:/local/b"))
    async with asyncio.timeout(15):
        while (usage := (await admin.get("default")).usage).bytes_per_second == 0:
            assert usage.active_files <= 1
            await asyncio.sleep(0.05)
    (file,) = (await sue.get(job.name)).files
    assert file.state == transfer_job_pb2.FILE_TRANSFER_STATE_ACTIVE
    assert usage.bytes_per_second <= file.transferred_bytes // 60 + 1
    await sue.jobs.CancelTransferJob(transfer_service_pb2.CancelTransferJobRequest(name=job.name))


async def test_an_optimizer_gives_places_while_all_goes_well_and_takes_them_at_failures(
    start_house: Any,
) -> None:
    house = await start_house(given={"optimizer_every_s": 0.4})
    admin, sue = Admin(house, "admin"), house.client("sue")
    conservative = channel_pb2.OPTIMIZER_MODE_CONSERVATIVE
    await admin.update(
        "default",
        max_files=1,
        optimizer=channel_pb2.ChannelOptimizer(mode=conservative, min_files=1, max_files=3),
    )
    assert (await admin.get("default")).usage.allowed_files == 1

    async def allowed(wanted: int) -> None:
        """Keeps files waiting until the optimizer has come to so many."""
        async with asyncio.timeout(60):
            number = 0
            while (usage := (await admin.get("default")).usage).allowed_files != wanted:
                if usage.queued_files < 20:
                    files = []
                    for _ in range(20):
                        number += 1
                        source = house.file(f"local/{wanted}/{number}", bytes(200_000))
                        files.append((source, f"LFN:/local/out/{wanted}/{number}"))
                    await sue.submit(*files, max_retries=0)
                await asyncio.sleep(0.05)

    await allowed(3)
    fail(house.room.mover)
    await allowed(1)
    changed = await admin.update("default", "optimizer", max_files=2)
    assert not changed.HasField("optimizer")


async def test_the_bandwidth_of_a_channel_is_not_exceeded(
    house: Any, admin: Admin, sue: Any
) -> None:
    await admin.update("default", max_files=2, max_bandwidth_bytes_per_second=2_000_000)
    source = house.file("local/a", bytes(1_500_000))
    ended = await sue.ended((await sue.submit((source, "LFN:/local/b"))).name)
    file = ended.files[0]
    seconds = (file.end_time.ToMicroseconds() - file.start_time.ToMicroseconds()) / 1e6
    assert seconds > 0.9, "half of the bandwidth is each place's"
