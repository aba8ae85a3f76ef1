"""Documented listings and the scans of the reconciler go by an index, whoever asks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from query_plans import plans
from sqlalchemy import and_, select

from gridlane_kit.database import Database
from gridlane_kit.decision import EVERYTHING, Visibility
from gridlane_kit.filters import Filter
from gridlane_kit.pages import page_request
from gridlane_kit.sqlite import sqlite_url
from gridlane_transfer.states import DUE
from gridlane_transfer.store import jobs
from gridlane_transfer.store.tables import FILE, JOB, METADATA, file_in
from gridlane_transfer.store.visibility import visible_jobs
from gridlane_transfer.transfer_jobs import FILTER

OWN = Visibility(owner="https://issuer.test/|sue")
SHARER = Visibility(owner="https://issuer.test/|sue", groups=frozenset({("local", "/local/team")}))
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


async def test_due_files_are_found_in_their_order_by_the_index_of_what_is_due(
    db: Database,
) -> None:
    statement = (
        select(FILE.c.number)
        .where(and_(FILE.c.channel_uid == "x", file_in(DUE)))
        .order_by(FILE.c.rank, FILE.c.number)
    )
    plan = await db.read(lambda conn: plans(conn, lambda c: c.execute(statement)))
    assert "ix_file_transfer_due" in plan
    assert "TEMP B-TREE" not in plan
