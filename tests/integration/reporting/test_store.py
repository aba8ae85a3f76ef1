"""Records, cursor and quarantine in one transaction, and listings as documented."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from gridlane.reporting.v1 import accounting_record_pb2
from gridlane_kit.database import Database
from gridlane_kit.decision import EVERYTHING, NOTHING, Visibility
from gridlane_kit.errors import GridlaneError
from gridlane_kit.feed import Position
from gridlane_kit.leases import new_holder
from gridlane_kit.migrations import schema_differences
from gridlane_kit.pages import page_request
from gridlane_reporting.accounting import DATA_OPERATION, JOB, NewRecord
from gridlane_reporting.service import FILTER
from gridlane_reporting.store import (
    METADATA,
    MIGRATIONS,
    NEWEST_FIRST,
    PoisonEvent,
    Taken,
    claim_feed,
    count_quarantined,
    list_records,
    read_cursor,
    take,
)

SOURCE = "workload"


def record(
    uid: str = "", *, end_us: int = 1, owner_group: str | None = None, **given: str
) -> NewRecord:
    uid = uid or str(uuid4())
    fields = {"kind": JOB, "owner": "i|ada", "vo": "local", "job": "jobs/1", **given}
    message = accounting_record_pb2.AccountingRecord(name=f"accountingRecords/{uid}")
    return NewRecord(
        event_id=f"event-{uid}",
        uid=uid,
        end_us=end_us,
        owner_group=owner_group,
        message=message,
        **fields,
    )


async def take_all(
    db: Database, *records: NewRecord, poison: Sequence[PoisonEvent] = (), position: int = 1
) -> int:
    def take_under_lease(conn: Connection) -> int:
        lease = claim_feed(conn, SOURCE, new_holder(), timedelta(0))
        assert lease is not None
        place = Position("epoch", position)
        return take(conn, Taken(SOURCE, lease, records, poison, place, now_us=1))

    return await db.write(take_under_lease)


async def listed(
    db: Database, visibility: Visibility = EVERYTHING, text: str = "", size: int = 0
) -> list[str]:
    """The uids of all pages."""
    chosen, token = FILTER.parse(text), ""
    found: list[str] = []
    while True:
        page = page_request(NEWEST_FIRST, page_size=size, page_token=token, binding=(text,))
        read = partial(list_records, visibility=visibility, chosen=chosen, page=page)
        messages, token = await db.read(read)
        found.extend(m.name.removeprefix("accountingRecords/") for m in messages)
        if not token:
            return found


async def test_records_and_cursor_come_together(db: Database) -> None:
    await take_all(db, record("a"), record("b"), position=7)
    assert sorted(await listed(db)) == ["a", "b"]
    assert await db.read(partial(read_cursor, source=SOURCE)) == Position("epoch", 7)
    assert await db.read(partial(read_cursor, source="transfer")) is None


async def test_a_record_that_comes_again_is_kept_once(db: Database) -> None:
    await take_all(db, record("a"), position=1)
    await take_all(db, record("a"), record("b"), record("b"), position=2)
    assert sorted(await listed(db)) == ["a", "b"]


async def test_a_record_that_the_database_refuses_goes_into_quarantine_and_blocks_nothing(
    db: Database,
) -> None:
    new = await take_all(db, record("a"), record("bad", end_us=2**70), record("b"), position=3)
    assert new == 1
    assert sorted(await listed(db)) == ["a", "b"]
    assert await db.read(partial(count_quarantined, source=SOURCE)) == 1
    assert await db.read(partial(read_cursor, source=SOURCE)) == Position("epoch", 3)


async def test_a_poison_event_that_comes_again_is_put_aside_once(db: Database) -> None:
    poison = [PoisonEvent("e", "why", b"event")]
    assert await take_all(db, poison=poison) == 1
    assert await take_all(db, poison=poison) == 0
    assert await db.read(partial(count_quarantined, source=SOURCE)) == 1


async def test_pages_go_from_the_newest_end_to_the_oldest_without_gaps(db: Database) -> None:
    await take_all(db, *(record(f"r{n:02}", end_us=n // 3) for n in range(20)))
    assert await listed(db, size=4) == await listed(db)
    assert (await listed(db, size=4))[0] == "r19"


async def test_filters_choose_as_documented(db: Database) -> None:
    await take_all(
        db,
        record("one", job="jobs/1"),
        record("two", job="jobs/2", kind=DATA_OPERATION),
        record("three", job="", vo="other"),
    )
    assert await listed(db, text='job = "jobs/1"') == ["one"]
    assert await listed(db, text='type = "data_operation"') == ["two"]
    assert await listed(db, text='vo = "other"') == ["three"]


@pytest.mark.parametrize(
    "text", ['job = "1"', 'type = "pilot"', 'vo = "a" AND type = "job"', 'user = "ada"']
)
def test_other_filters_are_refused(text: str) -> None:
    with pytest.raises(GridlaneError):
        FILTER.parse(text)


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        (EVERYTHING, {"own", "vo", "team", "foreign"}),
        (NOTHING, set()),
        (Visibility(owner="i|ada"), {"own"}),
        (Visibility(owner="i|ada", vos=frozenset({"local"})), {"own", "vo", "team"}),
        (Visibility(groups=frozenset({("local", "/local/team")})), {"team"}),
        (Visibility(owner="i|ada", groups=frozenset({("local", "/local/team")})), {"own", "team"}),
        (Visibility(channels=frozenset({"c"})), set()),
        (Visibility(job="jobs/1"), set()),
    ],
)
async def test_a_caller_sees_what_its_reach_covers(
    db: Database, visibility: Visibility, seen: set[str]
) -> None:
    await take_all(
        db,
        record("own", vo="elsewhere"),
        record("vo", owner="i|bob"),
        record("team", owner="i|bob", owner_group="/local/team"),
        record("foreign", owner="i|bob", vo="elsewhere", owner_group="/local/team"),
    )
    assert set(await listed(db, visibility)) == seen


async def test_migrations_make_exactly_the_tables_of_the_code(db: Database) -> None:
    assert await db.read(lambda c: schema_differences(c, METADATA, MIGRATIONS)) == []
