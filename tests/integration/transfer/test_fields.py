"""What submissions ask for beside source and target: kept, answered, and done."""

import asyncio
import json
import time
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from integration.transfer import failing_mover
from integration.transfer.failing_mover import LOST

from gridlane.transfer.v1 import (
    storage_admin_service_pb2,
    storage_ban_pb2,
    transfer_job_pb2,
)
from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.settings import StorageElementSettings

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

CONTENT = b"gridlane\n" * 5000
File = transfer_job_pb2.FileTransfer
ALWAYS = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
ON_RETRY = transfer_job_pb2.OVERWRITE_MODE_ON_RETRY
WHEN_DIFFERENT = transfer_job_pb2.OVERWRITE_MODE_WHEN_DIFFERENT


class Moves:
    """Stands between the room and its mover: the first orders are answered as told, all are kept.

    Parameters:
        answers: for the first orders; None: carried out.
    """

    def __init__(self, house: Any, *answers: Failed | None) -> None:
        self.orders: list[MoveOrder] = []
        self.times: list[float] = []
        self._answers = list(answers)
        failing_mover.fail(house.room.mover, self._answer)

    def _answer(self, order: MoveOrder) -> Failed | None:
        self.orders.append(order)
        self.times.append(time.monotonic())
        return self._answers.pop(0) if self._answers else None


async def test_what_was_asked_for_is_answered_as_it_came(house: Any, sue: Any) -> None:
    expires = Timestamp()
    expires.FromSeconds(int(time.time()) + 3600)
    asked: dict[str, Any] = {
        "metadata": '{"campaign":  7}',
        "activity": "Data Challenge",
        "retry_delay": Duration(seconds=3),
        "max_time_in_queue": Duration(seconds=90),
        "timeout": Duration(seconds=60),
        "expire_time": expires,
        "streams": 2,
        "report_target_file": True,
        "disable_cleanup": True,
        "backend": "transferBackends/embedded",
        "max_retries": 5,
    }
    files = [
        File(
            source=house.file("local/a"),
            target="LFN:/local/b",
            metadata="[1, 2]",
            activity="Production",
            scitag=66,
            overwrite=WHEN_DIFFERENT,
        ),
        File(source=house.file("local/c"), target="LFN:/local/d"),
    ]
    submitted = await sue.submit(*files, **asked)
    read = await sue.ended(submitted.name)
    for job in (submitted, read):
        for field, value in asked.items():
            assert getattr(job, field) == value, field
        first, second = job.files
        assert (first.metadata, first.activity, first.scitag) == ("[1, 2]", "Production", 66)
        assert (second.metadata, second.activity, second.scitag) == ("", "", 0)
        assert first.overwrite == WHEN_DIFFERENT
    assert json.loads(read.metadata) == {"campaign": 7}


async def test_a_job_s_retry_delay_holds_for_each_retry(house: Any, sue: Any, words: Any) -> None:
    moves = Moves(house, LOST, LOST)
    job = await sue.submit(
        (house.file("local/a"), "LFN:/local/b"),
        retry_delay=Duration(nanos=700_000_000),
        timeout=Duration(seconds=9),
        streams=3,
    )
    assert words.job(await sue.ended(job.name)) == "FINISHED"
    waits = [after - before for before, after in zip(moves.times, moves.times[1:], strict=False)]
    assert len(waits) == 2
    assert all(wait >= 0.69 for wait in waits)
    assert {(order.timeout_s, order.streams) for order in moves.orders} == {(9.0, 3)}


async def stopped(house: Any) -> None:
    """Has no file start on any channel of this process any more."""

    async def nothing(*, abandoned: bool) -> None:
        return None

    house.room._started.reconciler._step = nothing


async def test_a_file_that_waits_too_long_for_its_start_fails(
    house: Any, sue: Any, words: Any
) -> None:
    await stopped(house)
    begun = time.monotonic()
    files = [(house.file(f"local/{n}"), f"LFN:/local/o{n}") for n in range(2)]
    late = await sue.submit(*files, max_time_in_queue=Duration(seconds=1))
    waits = await sue.submit((house.file("local/x"), "LFN:/local/y"))
    job = await sue.ended(late.name)
    assert time.monotonic() - begun >= 1
    assert (words.job(job), words.files(job)) == ("FAILED", ["FAILED", "FAILED"])
    assert words.failure(job) == words.failure(job, 1) == "TIMED_OUT"
    assert not job.files[0].failure.recoverable
    assert job.files[0].attempt == 0
    waited_us = job.files[0].end_time.ToMicroseconds() - job.create_time.ToMicroseconds()
    assert waited_us >= 1_000_000
    assert words.files(await sue.get(waits.name)) == ["READY"]


async def test_a_held_file_does_not_wait_longer_for_its_start(
    house: Any, sue: Any, words: Any
) -> None:
    from gridlane_kit.policy import Policy

    await stopped(house)
    late = await sue.submit(
        (house.file("local/a"), "LFN:/local/b"), max_time_in_queue=Duration(seconds=2)
    )
    without = [one for one in house.bindings if one.subject != "sue"]
    house.policy.replace(Policy(2, tuple(without), vos=["local", "other"]))
    admin = house.client("admin")
    async with asyncio.timeout(20):
        while words.files(await admin.get(late.name)) == ["READY"]:
            await asyncio.sleep(0.02)
    assert words.files(await admin.get(late.name)) in (["HELD"], ["FAILED"])
    job = await admin.ended(late.name)
    assert (words.files(job), words.failure(job)) == (["FAILED"], "TIMED_OUT")


async def test_a_file_that_a_ban_keeps_does_not_wait_longer_for_its_start(
    house: Any, sue: Any, words: Any
) -> None:
    ban = storage_ban_pb2.StorageBan(
        action=storage_ban_pb2.BAN_ACTION_WAIT, accept_submissions=True, reason="repair"
    )
    await house.client("admin").storage_admin.BanStorage(
        storage_admin_service_pb2.BanStorageRequest(
            parent="storageElements/mirror", storage_ban=ban
        )
    )
    target = (house.mirror / "local/b").as_uri()
    async with asyncio.timeout(10):
        while True:  # until this process knows of the ban
            late = await sue.submit(
                (house.file("local/a"), target),
                max_time_in_queue=Duration(seconds=1),
                overwrite=ALWAYS,
            )
            if words.files(late) == ["BLOCKED"]:
                break
            await sue.ended(late.name)
    job = await sue.ended(late.name)
    assert (words.files(job), words.failure(job)) == (["FAILED"], "TIMED_OUT")
    assert job.files[0].attempt == 0


async def test_a_file_that_was_started_in_time_is_left_alone(
    house: Any, sue: Any, words: Any
) -> None:
    moves = Moves(house, LOST)
    job = await sue.submit(
        (house.file("local/a"), "LFN:/local/b"),
        max_time_in_queue=Duration(seconds=1),
        retry_delay=Duration(seconds=2),
    )
    ended = await sue.ended(job.name)
    if (
        len(moves.orders) == 2
    ):  # it was started within a second, as on every machine that is not hung
        assert words.job(ended) == "FINISHED"


async def test_an_attempt_that_takes_too_long_has_failed(house: Any, sue: Any, words: Any) -> None:
    big = house.storage / "local/big"
    big.parent.mkdir(exist_ok=True)
    with big.open("wb") as file:
        file.truncate(400 << 30)
    job = await sue.submit(
        (big.as_uri(), "LFN:/local/copy"), timeout=Duration(seconds=1), max_retries=1
    )
    ended = await sue.ended(job.name, seconds=40)
    assert (words.job(ended), words.failure(ended)) == ("FAILED", "TIMED_OUT")
    assert ended.files[0].failure.recoverable
    assert ended.files[0].attempt == 2
    assert house.leftovers() == []


async def test_a_job_past_its_end_is_cancelled_with_all_that_moves(
    house: Any, sue: Any, words: Any
) -> None:
    big = house.storage / "local/big"
    big.parent.mkdir(exist_ok=True)
    with big.open("wb") as file:
        file.truncate(40 << 30)
    expires = Timestamp()
    expires.FromMicroseconds(int(time.time() * 1_000_000) + 2_000_000)
    job = await sue.submit(
        (big.as_uri(), "LFN:/local/copy"),
        (house.file("local/a"), "LFN:/local/b"),
        expire_time=expires,
    )
    ended = await sue.ended(job.name, seconds=40)
    assert words.job(ended) == "CANCELED"
    assert words.files(ended)[0] == "CANCELED"
    assert words.failure(ended) == "TIMED_OUT"
    assert ended.failure.failure_class == ended.files[0].failure.failure_class
    assert ended.end_time.ToMicroseconds() >= expires.ToMicroseconds()
    assert house.leftovers() == []


async def test_a_first_attempt_finds_the_target_taken_and_a_retry_replaces_it(
    house: Any, sue: Any, words: Any
) -> None:
    source = house.file("local/a", CONTENT)
    house.file("local/b", b"precious")
    job = await sue.ended((await sue.submit((source, "LFN:/local/b"), overwrite=ON_RETRY)).name)
    assert (words.job(job), words.failure(job)) == ("FAILED", "TARGET_EXISTS")
    moves = Moves(house, LOST)
    job = await sue.ended((await sue.submit((source, "LFN:/local/b"), overwrite=ON_RETRY)).name)
    assert words.job(job) == "FINISHED"
    assert [order.overwrite for order in moves.orders] == [False, True]
    assert (house.storage / "local/b").read_bytes() == CONTENT


async def test_a_target_that_is_right_already_is_not_moved_again(
    house: Any, sue: Any, words: Any
) -> None:
    source = house.file("local/a", CONTENT)
    files = [File(source=source, target=f"LFN:/local/{n}") for n in ("same", "other", "new")]
    for file in files:
        file.checksum.CopyFrom(words.adler32(CONTENT))
    house.file("local/same", CONTENT)
    house.file("local/other", CONTENT[:-1] + b"!")
    before = (house.storage / "local/same").stat()
    job = await sue.ended((await sue.submit(*files, overwrite=WHEN_DIFFERENT)).name)
    assert words.job(job) == "FINISHED"
    assert [file.transferred_bytes for file in job.files] == [0, len(CONTENT), len(CONTENT)]
    for name in ("same", "other", "new"):
        assert (house.storage / "local" / name).read_bytes() == CONTENT
    after = (house.storage / "local/same").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_what_lies_at_the_target_is_told_when_asked_for(
    house: Any, sue: Any, words: Any
) -> None:
    source = house.file("local/a", CONTENT)
    house.file("local/b", b"precious")
    silent = await sue.ended((await sue.submit((source, "LFN:/local/b"))).name)
    assert not silent.files[0].HasField("target_report")
    job = await sue.submit((source, "LFN:/local/b"), report_target_file=True)
    (file,) = (await sue.ended(job.name)).files
    assert file.failure.failure_class == silent.files[0].failure.failure_class
    assert file.target_report.size_bytes == len(b"precious")
    assert file.target_report.locality == 1


async def test_a_strict_copy_makes_no_directory_and_checks_nothing(
    house: Any, sue: Any, words: Any
) -> None:
    source = house.file("local/a", CONTENT)
    job = await sue.ended((await sue.submit((source, "LFN:/local/new/b"), strict_copy=True)).name)
    assert (words.job(job), words.failure(job)) == ("FAILED", "TARGET_UNWRITABLE")
    assert not (house.storage / "local/new").exists()
    job = await sue.ended((await sue.submit((source, "LFN:/local/b"), strict_copy=True)).name)
    assert words.job(job) == "FINISHED"
    assert job.strict_copy
    assert job.verify == transfer_job_pb2.VERIFY_MODE_NONE
    assert (house.storage / "local/b").read_bytes() == CONTENT


async def test_the_protocols_choose_the_endpoint_of_a_logical_name(
    start_house: Any, tmp_path: Any, words: Any
) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    house = await start_house(
        elements=[
            StorageElementSettings(
                name="only", base_url=folder.as_uri(), vo_paths={"local": "/local"}
            )
        ]
    )
    sue = house.client("sue")
    source = house.file("local/a", CONTENT, below=folder)
    job = await sue.ended(
        (await sue.submit((source, "LFN:/local/b"), protocols=["https", "file"])).name
    )
    assert (words.job(job), job.files[0].protocol) == ("FINISHED", "file")
    with pytest.raises(grpc.RpcError) as raised:
        await sue.submit((source, "LFN:/local/c"), protocols=["https"])
    assert set(words.violations(raised.value)) == {"transfer_job.protocols"}
