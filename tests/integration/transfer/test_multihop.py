"""Files that stop on the way: hop by hop, as one file, with nothing left behind."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from integration.transfer.failing_mover import LOST, fail_in_turn

from gridlane.transfer.v1 import (
    replica_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_transfer.settings import StorageElementSettings

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

CONTENT = b"gridlane\n" * 5000
File = transfer_job_pb2.FileTransfer
NAMES = ("begin", "middle", "end")


@pytest.fixture
async def house(start_house: Callable[..., Awaitable[Any]], tmp_path: Path) -> Any:
    """A server with three storage elements."""
    for name in NAMES:
        (tmp_path / name).mkdir()
    return await start_house(
        elements=[
            StorageElementSettings(
                name=name, base_url=(tmp_path / name).as_uri(), vo_paths={"local": "/local"}
            )
            for name in NAMES
        ]
    )


def url(house: Any, element: str, path: str) -> str:
    return (house.root / element / "local" / path).as_uri()


def a_file(house: Any, *via: str, path: str = "x") -> transfer_job_pb2.FileTransfer:
    source = house.file(f"local/{path}", CONTENT, below=house.root / "begin")
    return File(source=source, target=url(house, "end", path), via=via)


async def tidy(house: Any, seconds: float = 15) -> list[str]:
    """What lies at the middle once no copy is to be removed any more."""
    async with asyncio.timeout(seconds):
        while list((house.root / "middle").rglob(".gridlane-hop-*")):
            await asyncio.sleep(0.02)
    return [path.name for path in (house.root / "middle").rglob("*") if path.is_file()]


async def test_a_file_goes_hop_by_hop_and_leaves_no_copy(house: Any, sue: Any, words: Any) -> None:
    kept = url(house, "middle", "kept")
    submitted = await sue.submit(a_file(house, "storageElements/middle", kept))
    (file,) = submitted.files
    assert list(file.via) == ["storageElements/middle", kept]
    assert (file.hop, file.target_url) == (1, url(house, "end", "x"))
    job = await sue.ended(submitted.name)
    assert words.job(job) == "FINISHED"
    (file,) = job.files
    assert (file.hop, file.attempt) == (3, 3)
    assert (file.source_url, file.target_url) == (file.source, file.target)
    assert file.source_storage_element == "storageElements/begin"
    assert file.target_storage_element == "storageElements/end"
    assert (house.root / "end/local/x").read_bytes() == CONTENT
    assert (house.root / "middle/local/kept").read_bytes() == CONTENT
    assert (job.file_count, [one.count for one in job.summary]) == (1, [1])
    assert await tidy(house) == ["kept"]
    history = await sue.history(job.name)
    assert history == [
        "job READY",
        "file ACTIVE",
        "job ACTIVE",
        "file READY",
        "file ACTIVE",
        "file READY",
        "file ACTIVE",
        "file FINISHED",
        "job FINISHED",
    ]
    answer = await sue.jobs.ListFileTransfers(
        transfer_service_pb2.ListFileTransfersRequest(parent=job.name)
    )
    assert len(answer.files) == 1
    attempts = await sue.jobs.ListFileAttempts(
        transfer_service_pb2.ListFileAttemptsRequest(parent=file.name)
    )
    ends = [
        (one.hop, one.source_storage_element, one.target_storage_element)
        for one in attempts.attempts
    ]
    assert [one[0] for one in ends] == [1, 2, 3]
    assert [one[1:] for one in ends] == [
        ("storageElements/begin", "storageElements/middle"),
        ("storageElements/middle", "storageElements/middle"),
        ("storageElements/middle", "storageElements/end"),
    ]
    finished = transfer_job_pb2.FILE_TRANSFER_STATE_FINISHED
    assert {one.outcome for one in attempts.attempts} == {finished}


async def test_only_the_last_copy_is_registered(house: Any, sue: Any, words: Any) -> None:
    file = a_file(house, "storageElements/middle")
    file.target = "LFN:/local/placed"
    job = await sue.ended((await sue.submit(file, placement=True)).name)
    assert words.job(job) == "FINISHED"
    answer = await sue.replicas.ResolveReplicas(
        replica_service_pb2.ResolveReplicasRequest(lfns=["LFN:/local/placed"])
    )
    assert [one.url for one in answer.results[0].file.replicas] == [job.files[0].target_url]


async def test_a_hop_that_fails_fails_the_file_and_its_copies_go(
    house: Any, sue: Any, words: Any
) -> None:
    house.file("local/x", b"precious", below=house.root / "end")
    job = await sue.ended((await sue.submit(a_file(house, "storageElements/middle"))).name)
    assert (words.job(job), words.failure(job)) == ("FAILED", "TARGET_EXISTS")
    assert job.files[0].hop == 2
    assert await tidy(house) == []
    assert (house.root / "end/local/x").read_bytes() == b"precious"


async def test_a_copy_on_the_way_is_replaced_only_when_told(
    house: Any, sue: Any, words: Any
) -> None:
    kept = url(house, "middle", "kept")
    house.file("local/kept", b"precious", below=house.root / "middle")
    job = await sue.ended((await sue.submit(a_file(house, kept))).name)
    assert (words.failure(job), job.files[0].hop) == ("TARGET_EXISTS", 1)
    job = await sue.ended((await sue.submit(a_file(house, kept), overwrite_intermediate=True)).name)
    assert words.job(job) == "FINISHED"
    assert (house.root / "middle/local/kept").read_bytes() == CONTENT


async def test_hops_share_one_budget(house: Any, sue: Any, words: Any) -> None:
    fail_in_turn(house.room.mover, [LOST, None, LOST, None])
    job = await sue.ended(
        (await sue.submit(a_file(house, "storageElements/middle"), max_retries=2)).name
    )
    assert words.job(job) == "FINISHED"
    fail_in_turn(house.room.mover, [LOST, None, LOST])
    job = await sue.ended(
        (await sue.submit(a_file(house, "storageElements/middle", path="y"), max_retries=1)).name
    )
    assert (words.job(job), job.files[0].attempt, job.files[0].hop) == ("FAILED", 3, 2)
    assert await tidy(house) == []


async def test_a_cancel_ends_a_file_between_its_hops_and_its_copies_go(
    house: Any, sue: Any, words: Any
) -> None:
    from google.protobuf.duration_pb2 import Duration

    fail_in_turn(house.room.mover, [None])
    job = await sue.submit(
        a_file(house, "storageElements/middle"), retry_delay=Duration(seconds=3600)
    )
    await sue.in_state(job.name, "RETRYING")
    assert list((house.root / "middle").rglob(".gridlane-hop-*"))
    cancel = transfer_service_pb2.CancelTransferJobRequest(name=job.name)
    assert words.job(await sue.jobs.CancelTransferJob(cancel)) == "CANCELED"
    assert await tidy(house) == []
    assert not (house.root / "end/local/x").exists()


async def test_a_restart_goes_on_with_the_hop_that_it_was_on(
    house: Any, sue: Any, words: Any
) -> None:
    from google.protobuf.duration_pb2 import Duration

    fail_in_turn(house.room.mover, [None])
    job = await sue.submit(a_file(house, "storageElements/middle"), retry_delay=Duration(seconds=2))
    await sue.in_state(job.name, "RETRYING")
    await house.restart()
    ended = await house.client("sue").ended(job.name)
    assert (words.job(ended), ended.files[0].hop, ended.files[0].attempt) == ("FINISHED", 2, 3)
    assert await tidy(house) == []


async def test_a_defect_at_a_copy_is_not_the_end_of_its_removal(
    house: Any, sue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = house.room.mover.remove
    defects = [RuntimeError("a defect")]

    async def remove(location: Any) -> Any:
        if defects:
            raise defects.pop()
        return await removed(location)

    monkeypatch.setattr(house.room.mover, "remove", remove)
    job = await sue.submit(a_file(house, "storageElements/middle"))
    await sue.ended(job.name)
    assert await tidy(house) == []
    assert not defects
