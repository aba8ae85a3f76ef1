"""What is kept: the schema that migrations make, and how long jobs and events stay."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from gridlane.transfer.v1 import event_service_pb2, transfer_service_pb2
from gridlane.type.v1 import feed_pb2
from gridlane_kit.call import Caller
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.identity import service_principal
from gridlane_kit.migrations import schema_differences
from gridlane_transfer.retention import Retention
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.store import jobs
from gridlane_transfer.store.tables import FEED, FILE, METADATA

BOTH = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


@BOTH
async def test_the_migrations_make_the_tables_as_they_are_declared(database_url: str) -> None:
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    try:
        assert await db.read(lambda conn: schema_differences(conn, METADATA, MIGRATIONS)) == []
    finally:
        await db.close()


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_logical_names_are_in_the_order_of_code_points_whatever_the_databases_language(
    database_url: str,
) -> None:
    """What lies below a folder is found by that order. The test's database knows no language."""
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    asked = (
        "SELECT collation_name FROM information_schema.columns"
        " WHERE table_name = 'logical_file' AND column_name = 'lfn'"
    )
    try:
        assert await db.read(lambda conn: conn.exec_driver_sql(asked).scalar()) == "C"
    finally:
        await db.close()


@BOTH
async def test_an_ended_job_goes_when_every_follower_had_its_events(house: Any, sue: Any) -> None:
    job = await sue.submit((house.file("local/a"), "LFN:/local/b"))
    await sue.ended(job.name)
    follower = Caller(service_principal("workload"), None, house.telemetry.root())
    stub = house.peers.transfer_events(follower)

    async def acknowledge(position: int) -> None:
        at = feed_pb2.FeedPosition(epoch=epoch, position=position)
        await stub.AckTransferEvents(
            event_service_pb2.AckTransferEventsRequest(consumer="workload", position=at)
        )

    parts = house.room._started
    end = await parts.feed.position()
    epoch = end.epoch
    retention = Retention(
        parts.db, parts.feed, every_s=3600, job_age=timedelta(0), event_age=timedelta(0)
    )
    await acknowledge(1)
    assert await retention.prune() == 0
    assert (await sue.get(job.name)).name == job.name
    await acknowledge(end.position)
    assert await retention.prune() == 1
    listed = await sue.jobs.ListTransferJobs(transfer_service_pb2.ListTransferJobsRequest())
    assert not listed.transfer_jobs


async def test_counts_and_state_of_a_job_agree_with_its_files(house: Any, sue: Any) -> None:
    good, missing = house.file("local/a"), (house.storage / "local/none").as_uri()
    files = [(good if n % 3 else missing, f"LFN:/local/o{n}") for n in range(12)]
    job = await sue.ended((await sue.submit(*files)).name)
    counted: dict[int, int] = {}
    for file in job.files:
        counted[file.state] = counted.get(file.state, 0) + 1
    assert {one.state: one.count for one in job.summary} == counted


@BOTH
async def test_no_transaction_deletes_more_files_than_a_few_hundred(house: Any, sue: Any) -> None:
    db = house.room._started.db
    for job in range(5):
        files = [(f"LFN:/local/none{n}", f"LFN:/local/{job}-{n}") for n in range(300)]
        await sue.ended((await sue.submit(*files)).name)
    await db.write(lambda conn: conn.execute(delete(FEED.event)))
    count = select(func.count()).select_from(FILE)
    left = 1500
    while await db.write(lambda conn: jobs.delete_ended(conn, now_us(), 500)):
        now: int = await db.read(lambda conn: conn.execute(count).scalar_one())
        assert 0 < left - now <= jobs.FIRST_FILES
        left = now
    assert left == 0
