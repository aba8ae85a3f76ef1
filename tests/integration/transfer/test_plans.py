"""Documented listings and the scans of the reconciler go by an index, whoever asks."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from query_plans import plans
from sqlalchemy import Connection, select

from gridlane_kit.database import Database, run_kept
from gridlane_kit.decision import EVERYTHING, Visibility
from gridlane_kit.feed import Feed
from gridlane_kit.filters import Filter
from gridlane_kit.pages import page_request
from gridlane_kit.sqlite import sqlite_url
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.summaries import FILTER as SUMMARY_FILTER
from gridlane_transfer.jobs.transfer_jobs import FILTER
from gridlane_transfer.store import jobs, summaries, sweeps
from gridlane_transfer.store.tables import FEED, JOB, METADATA, JobRow
from gridlane_transfer.store.visibility import visible_jobs

NOBODYS = "01939f5e-0000-7000-8000-000000000001"
OWN = Visibility(owner="https://issuer.test/|sue")
SHARER = Visibility(owner="https://issuer.test/|sue", groups=frozenset({("local", "/local/team")}))
ON_CHANNELS = Visibility(owner="https://issuer.test/|max", channels=frozenset({"x", "y"}))
MANAGER = Visibility(owner="https://issuer.test/|max", vos=frozenset({"local"}))


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    url = sqlite_url(tmp_path / "plans.sqlite")
    database = await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("visibility", "text", "index"),
    [
        (OWN, "", "ix_transfer_job_owner_number"),
        (MANAGER, "", "ix_transfer_job_owner_number"),
        (MANAGER, "", "ix_transfer_job_vo_number"),
        (EVERYTHING, "", "SCAN transfer_job"),
        (OWN, 'tags.gridlane.job = "x"', "ix_transfer_job_job_tag_number"),
        (MANAGER, 'tags.gridlane.job = "x"', "ix_transfer_job_job_tag_number"),
        (EVERYTHING, 'tags.gridlane.job = "x"', "ix_transfer_job_job_tag_number"),
        (OWN, "state = ACTIVE", "ix_transfer_job_owner_state_number"),
        (MANAGER, "state = ACTIVE", "ix_transfer_job_owner_state_number"),
        (MANAGER, "state = ACTIVE", "ix_transfer_job_vo_state_number"),
        (MANAGER, "vo = local", "ix_transfer_job_vo_number"),
        (SHARER, "", "ix_transfer_job_owner_group_number"),
        (SHARER, "vo = local", "ix_transfer_job_owner_group_number"),
        (SHARER, "state = ACTIVE", "ix_transfer_job_owner_group_state_number"),
        (SHARER, 'tags.gridlane.job = "x"', "ix_transfer_job_job_tag_number"),
        (EVERYTHING, "state = ACTIVE", "ix_transfer_job_state_number"),
        (EVERYTHING, "vo = local", "ix_transfer_job_vo_number"),
        (OWN, "vo = local AND state = ACTIVE", "ix_transfer_job_owner_state_number"),
        (MANAGER, "vo = local AND state = ACTIVE", "ix_transfer_job_vo_state_number"),
        (SHARER, "vo = local AND state = ACTIVE", "ix_transfer_job_owner_group_state_number"),
        (EVERYTHING, "vo = local AND state = ACTIVE", "ix_transfer_job_vo_state_number"),
    ],
)
async def test_a_listing_goes_by_its_index_and_sorts_nothing(
    db: Database, visibility: Visibility, text: str, index: str
) -> None:
    asked: Filter = FILTER.parse(text)
    page = page_request(jobs.NEWEST_FIRST, page_size=5, page_token="", binding=())
    plan = await db.read(lambda conn: plans(conn, lambda c: jobs.page(c, visibility, asked, page)))
    assert index in plan
    assert "TEMP B-TREE" not in plan


async def test_whether_a_job_lies_on_a_channel_is_seen_without_its_files(db: Database) -> None:
    manager = Visibility(owner="https://issuer.test/|max", channels=frozenset({"x", "y"}))
    statement = select(JOB.c.number).where(JOB.c.uuid == "j", visible_jobs(manager))
    plan = await db.read(lambda conn: plans(conn, lambda c: c.execute(statement)))
    assert "ix_file_transfer_job_number_channel_uid (job_number=? AND channel_uid=?)" in plan


@pytest.mark.parametrize("text", ["", "state = FINISHED", "vo = other"])
async def test_the_jobs_of_a_channel_are_passed_one_by_one_along_their_index(
    db: Database, text: str
) -> None:
    page = page_request(jobs.NEWEST_FIRST, page_size=5, page_token="", binding=())
    plan = await db.read(
        lambda conn: plans(conn, lambda c: jobs.page(c, ON_CHANNELS, FILTER.parse(text), page))
    )
    # In its order: what is sorted after that, when a state is asked for, is a page.
    assert "SEARCH job_channel USING PRIMARY KEY (channel_uid=?)\nCORRELATED" in plan
    assert "SCAN transfer_job" not in plan
    assert "SCAN file" not in plan
    assert text.startswith("state") or "TEMP B-TREE" not in plan


async def test_the_unfinished_jobs_of_a_channel_are_found_among_those_in_their_state(
    db: Database,
) -> None:
    asked = FILTER.parse("state = ACTIVE")
    page = page_request(jobs.NEWEST_FIRST, page_size=5, page_token="", binding=())
    plan = await db.read(lambda conn: plans(conn, lambda c: jobs.page(c, ON_CHANNELS, asked, page)))
    assert "ix_transfer_job_state_number" in plan
    assert "ix_file_transfer_job_number_channel_uid (job_number=? AND channel_uid=?)" in plan
    assert "SCAN transfer_job" not in plan


async def test_a_claim_goes_from_queue_to_queue_by_the_index_of_what_is_due(
    db: Database,
) -> None:
    from gridlane_transfer.store import places, queues

    def read(conn: Connection) -> None:
        run_kept(conn, queues.HEADS, uid="x").all()
        run_kept(conn, queues.OF_QUEUE, uid="x", queue="local/", limit=4).all()
        run_kept(conn, queues.WAITING_CHANNELS).all()
        queues.running(conn, ["x"], elements=False)
        queues.running(conn, ["x"], elements=True)
        places.written(conn, ["file:///x"])

    plan = await db.read(lambda conn: plans(conn, read))
    found = [line for line in plan.splitlines() if "file_transfer" in line or "ahead" in line]
    assert "ix_file_transfer_due" in plan
    assert "ix_file_transfer_running" in plan
    assert "SEARCH writer USING INDEX ix_file_transfer_writing (target_url=?)" in plan
    assert "SEARCH file_transfer USING INDEX ix_file_transfer_writing" in plan
    assert "SCAN writer" not in plan
    # The only table that is gone through is that of the few files that run.
    assert [line for line in found if line.startswith("SCAN") and "running" not in line] == []
    assert "FOR ORDER BY" not in plan


async def test_held_files_and_what_moved_lately_are_found_by_their_indexes(db: Database) -> None:
    from gridlane_transfer.store import channels

    page = page_request(channels.HELD_LONGEST, page_size=5, page_token="", binding=())

    def read(conn: Connection) -> None:
        channels.held_page(conn, "x", page)
        channels.usage(conn, "x")
        channels.has_waiting(conn, "x")

    plan = await db.read(lambda conn: plans(conn, read))
    for index in ("held", "due", "running"):
        assert f"ix_file_transfer_{index}" in plan
    assert "ix_file_attempt_channel_uid_end_us" in plan
    assert "TEMP B-TREE" not in plan
    assert "SCAN file" not in plan


async def test_what_is_late_and_what_is_left_behind_is_found_by_the_index_of_its_time(
    db: Database,
) -> None:
    from gridlane_transfer.store import deadlines, leftovers

    def read(conn: Connection) -> None:
        deadlines.late(conn, 10)
        leftovers.is_due(conn)

    plan = await db.read(lambda conn: plans(conn, read))
    for index in (
        "ix_file_transfer_queue_until_us",
        "ix_transfer_job_expire_us",
        "ix_leftover_due_us",
    ):
        assert index in plan, plan
    assert "SCAN" not in plan


@pytest.mark.parametrize(
    ("visibility", "text", "index"),
    [
        (OWN, "", "COVERING INDEX ix_transfer_job_counted_owner"),
        (MANAGER, "", "COVERING INDEX ix_transfer_job_counted_vo"),
        (EVERYTHING, "vo = local", "COVERING INDEX ix_transfer_job_counted_vo"),
        (OWN, "state = FAILED", "COVERING INDEX ix_transfer_job_counted_owner"),
        (MANAGER, "vo = local AND state = FAILED", "COVERING INDEX ix_transfer_job_counted_vo"),
        (OWN, 'tags.gridlane.job = "x"', "ix_transfer_job_job_tag_number"),
        (MANAGER, f'name = "transfers/{NOBODYS}"', "uuid=?"),
        (ON_CHANNELS, "", "SEARCH job_channel USING PRIMARY KEY (channel_uid=?"),
    ],
)
async def test_a_sum_is_counted_in_an_index(
    db: Database, visibility: Visibility, text: str, index: str
) -> None:
    asked = summaries.Asked(visibility, SUMMARY_FILTER.parse(text))
    plan = await db.read(lambda conn: plans(conn, lambda c: summaries.count(c, asked)))
    assert index in plan
    assert "SCAN transfer_job\n" not in plan


async def test_the_files_of_a_job_in_a_state_are_found_in_their_order_by_its_index(
    db: Database,
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(JobRow._fields)
    job = JobRow(**nothing)._replace(number=7)
    page = page_request(jobs.IN_ORDER, page_size=5, page_token="", binding=())
    one = await db.read(lambda conn: plans(conn, lambda c: jobs.files_page(c, job, page, 16)))
    several = await db.read(
        lambda conn: plans(conn, lambda c: jobs.files_in(c, job, [2, 9, 12], page))
    )
    for plan in (one, several):
        assert "ix_file_transfer_job_number_state_n" in plan
    assert "TEMP B-TREE" not in one


async def test_what_a_large_job_still_owes_is_found_by_its_states(db: Database) -> None:
    feed = Feed(db, FEED)

    def step(conn: Connection) -> object:
        return sweeps.cancel_files(conn, feed, Channels(), 7)

    # The job is not there: what is asked for before that is seen.
    plan = await db.read(lambda conn: plans(conn, lambda c: _until_missing(step, c)))
    assert "ix_file_transfer_job_number_state_n" in plan


def _until_missing(step: Callable[[Connection], object], conn: Connection) -> None:
    with suppress(KeyError):
        step(conn)
