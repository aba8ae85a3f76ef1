"""Several sources of one file: the next one has its turn when one fails, all within one budget."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from integration.transfer import failing_mover

from gridlane.transfer.v1 import (
    selection_strategy_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.settings import StorageElementSettings

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

CONTENT = b"gridlane\n" * 5000
File = transfer_job_pb2.FileTransfer
NAMES = ("near", "mid", "far")


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


def at(house: Any, name: str, path: str, content: bytes | None = CONTENT) -> str:
    """The URL of a file on an element; made when there is content."""
    place = house.root / name / "local" / path
    if content is None:
        return place.as_uri()
    return house.file(f"local/{path}", content, below=house.root / name)


def with_alternatives(house: Any, *urls: str, **fields: Any) -> transfer_job_pb2.FileTransfer:
    target = at(house, "far", "target", None)
    return File(source=urls[0], target=target, alternative_sources=urls[1:], **fields)


async def test_the_next_source_has_its_turn_when_one_is_missing(
    house: Any, sue: Any, words: Any
) -> None:
    missing, there = at(house, "near", "x", None), at(house, "mid", "x")
    file = with_alternatives(house, missing, there)
    submitted = await sue.submit(file, max_retries=0)
    assert submitted.files[0].alternative_sources == [there]
    assert submitted.files[0].source_storage_element == "storageElements/near"
    job = await sue.ended(submitted.name)
    assert words.job(job) == "FINISHED"
    (moved,) = job.files
    assert (moved.source_url, moved.attempt) == (there, 2)
    assert moved.source_storage_element == "storageElements/mid"
    assert (moved.source, list(moved.alternative_sources)) == (missing, [there])
    assert (house.root / "far/local/target").read_bytes() == CONTENT
    answer = await sue.jobs.ListFileAttempts(
        transfer_service_pb2.ListFileAttemptsRequest(parent=moved.name)
    )
    assert [(one.source_url, one.source_storage_element) for one in answer.attempts] == [
        (missing, "storageElements/near"),
        (there, "storageElements/mid"),
    ]
    history = await sue.history(job.name)
    assert history.count("file RETRYING") == 1
    assert history[-2:] == ["file FINISHED", "job FINISHED"]


async def test_when_no_source_can_help_the_file_fails_with_the_last_one_s_failure(
    house: Any, sue: Any, words: Any
) -> None:
    urls = [at(house, name, "none", None) for name in ("near", "mid")]
    job = await sue.ended((await sue.submit(with_alternatives(house, *urls), max_retries=9)).name)
    assert (words.job(job), words.failure(job)) == ("FAILED", "SOURCE_MISSING")
    assert job.files[0].attempt == 2
    assert "mid" in job.files[0].failure.message


async def test_a_round_over_all_sources_is_one_retry(house: Any, sue: Any, words: Any) -> None:
    tried: list[str] = []

    def lost(order: MoveOrder) -> Failed:
        tried.extend(source.storage_element for source in order.sources)
        return failing_mover.LOST

    failing_mover.fail(house.room.mover, lost)
    urls = [at(house, name, "x") for name in ("near", "mid")]
    job = await sue.ended((await sue.submit(with_alternatives(house, *urls), max_retries=1)).name)
    assert (words.job(job), words.failure(job)) == ("FAILED", "BACKEND_LOST")
    assert [one.removeprefix("storageElements/") for one in tried] == ["near", "mid"] * 2
    assert job.files[0].attempt == 4


async def test_a_round_that_ends_with_a_source_that_cannot_be_asked_is_one_retry_too(
    house: Any, sue: Any, words: Any
) -> None:
    failing_mover.fail(house.room.mover)
    for retries in (0, 1):
        file = with_alternatives(house, at(house, "near", "x"), "LFN:/local/nowhere")
        job = await sue.ended((await sue.submit(file, max_retries=retries)).name)
        assert words.files(job) == ["CATALOG_FAILED" if retries == 0 else "FAILED"]
        assert job.files[0].attempt == 1 + retries


async def test_a_failure_of_the_target_is_no_reason_to_change_the_source(
    house: Any, sue: Any, words: Any
) -> None:
    at(house, "far", "target", b"precious")
    urls = [at(house, name, "x") for name in ("near", "mid")]
    job = await sue.ended((await sue.submit(with_alternatives(house, *urls))).name)
    assert (words.failure(job), job.files[0].attempt) == ("TARGET_EXISTS", 1)


async def test_a_name_that_nobody_registered_makes_room_for_the_next_source(
    house: Any, sue: Any, words: Any
) -> None:
    there = at(house, "mid", "x")
    file = with_alternatives(house, "LFN:/local/nowhere", there)
    job = await sue.ended((await sue.submit(file, max_retries=0)).name)
    assert words.job(job) == "FINISHED"
    assert (job.files[0].source_url, job.files[0].attempt) == (there, 1)
    nothing = with_alternatives(house, "LFN:/local/nowhere", "LFN:/local/neither")
    job = await sue.ended((await sue.submit(nothing)).name)
    assert words.files(job) == ["CATALOG_FAILED"]


async def test_the_backend_s_choice_begins_on_the_target_s_element(
    house: Any, sue: Any, words: Any
) -> None:
    near, beside = at(house, "near", "x"), at(house, "far", "x")
    auto = selection_strategy_pb2.SELECTION_STRATEGY_AUTO
    file = with_alternatives(house, near, beside)
    submitted = await sue.submit(file, selection_strategy=auto)
    assert submitted.selection_strategy == auto
    assert submitted.files[0].source_storage_element == "storageElements/far"
    job = await sue.ended(submitted.name)
    assert (words.job(job), job.files[0].source_url) == ("FINISHED", beside)


async def test_the_best_rate_of_success_is_tried_first(house: Any, sue: Any, words: Any) -> None:
    none, there = at(house, "near", "none", None), at(house, "mid", "x")
    target = at(house, "far", "other", None)
    await sue.ended((await sue.submit((none, target))).name)
    await sue.ended((await sue.submit((there, target))).name)
    success = selection_strategy_pb2.SELECTION_STRATEGY_SUCCESS
    file = with_alternatives(house, at(house, "near", "x"), there, selection_strategy=success)
    job = await sue.ended((await sue.submit(file)).name)
    assert (words.job(job), job.files[0].source_url) == ("FINISHED", there)
    assert job.files[0].selection_strategy == success


async def test_a_restart_goes_on_with_the_source_whose_turn_it_was(
    house: Any, sue: Any, words: Any
) -> None:
    failing_mover.fail(house.room.mover)
    urls = [at(house, name, "x") for name in ("near", "mid")]
    file = with_alternatives(house, *urls)
    job = await sue.submit(file, max_retries=1, retry_delay=Duration(seconds=2))
    await sue.in_state(job.name, "RETRYING")
    await house.restart()
    ended = await house.client("sue").ended(job.name)
    assert words.job(ended) == "FINISHED"
    assert ended.files[0].source_url in urls
    assert 2 <= ended.files[0].attempt <= 4
