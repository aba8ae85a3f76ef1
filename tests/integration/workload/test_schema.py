"""The schema: migrations make what the code declares, and documented reads go along indexes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, Select

from gridlane_kit.database import Database
from gridlane_kit.decision import Visibility
from gridlane_kit.migrations import schema_differences
from gridlane_kit.pages import Page
from gridlane_workload import queue_store, states
from gridlane_workload.listings import NEWEST_FIRST, listing
from gridlane_workload.store import METADATA, MIGRATIONS

OWN = Visibility(owner="i|ada")
MANAGER = Visibility(owner="i|ada", vos=frozenset({"a", "b"}))
SHARER = Visibility(owner="i|ada", groups=frozenset({("a", "/a/team"), ("b", "/a/team")}))
ADMIN = Visibility(everything=True)
PAGE = Page(50, [1000], b"")


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(
        database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True
    )
    yield opened
    await opened.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_the_migrations_make_the_schema_that_the_code_declares(db: Database) -> None:
    differences = await db.read(lambda conn: schema_differences(conn, METADATA, MIGRATIONS))
    assert differences == []


def plan(conn: Connection, statement: Select[object]) -> list[str]:
    compiled = statement.compile(dialect=conn.dialect, compile_kwargs={"literal_binds": True})
    return [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]


@pytest.mark.parametrize(
    "visibility", [OWN, MANAGER, SHARER, ADMIN], ids=["own", "manager", "sharer", "admin"]
)
@pytest.mark.parametrize("state", [None, states.RUNNING])
@pytest.mark.parametrize("vo", [None, "a", "c"])
async def test_every_documented_listing_reads_only_along_an_index_and_sorts_nothing(
    db: Database, visibility: Visibility, state: states.State | None, vo: str | None
) -> None:
    statement = listing(visibility, state=state, vo=vo, page=PAGE)
    paged = statement.where(NEWEST_FIRST.after([1000])).order_by(*NEWEST_FIRST.order()).limit(51)
    steps = await db.read(lambda conn: plan(conn, paged))
    assert not [step for step in steps if step.startswith("SCAN job")]
    sorted_by = [step for step in steps if "TEMP B-TREE" in step]
    # The page of a union is sorted: that is what was picked of each part, not what there is.
    assert not sorted_by or visibility in (MANAGER, SHARER)
    if vo is None and state is None and visibility == OWN:
        assert steps == ["SEARCH job USING INDEX ix_job_owner_number (owner=? AND number<?)"]
    if visibility == SHARER and vo != "c":
        by = "owner_group_number" if state is None else "owner_group_state_number"
        assert any(f"USING INDEX ix_job_{by} (owner_group=?" in step for step in steps)


async def test_the_next_job_to_start_is_found_without_sorting_those_that_wait(
    db: Database,
) -> None:
    said: list[str] = []

    def look(conn: Connection) -> None:
        conn.connection.driver_connection.set_trace_callback(said.append)  # type: ignore[union-attr]
        queue_store.startable(conn, 2)
        conn.connection.driver_connection.set_trace_callback(None)  # type: ignore[union-attr]
        (query,) = [text for text in said if "ORDER BY" in text]
        steps = [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
        assert steps == ["SEARCH job USING INDEX ix_job_startable (state=?)"]

    await asyncio.wait_for(db.read(look), 10)
