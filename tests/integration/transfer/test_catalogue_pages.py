"""The catalogue is listed by prefix in pages along an index, however many files there are."""

import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import pytest
from query_plans import plans
from sqlalchemy import Connection

from gridlane.transfer.v1 import replica_service_pb2
from gridlane_kit.database import Database, insert_values
from gridlane_kit.decision import EVERYTHING, Visibility
from gridlane_kit.pages import Page, page_request
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.store import catalogue, registering
from gridlane_transfer.store.tables import LOGICAL_FILE, METADATA, REPLICA

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)

MANY = 100_000
OWN = Visibility(vos=frozenset({"local"}))
BOTH = Visibility(vos=frozenset({"local", "other"}))
NOTHING = Visibility(nothing=True)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(
        database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True
    )
    yield opened
    await opened.close()


def add(conn: Connection, names: Sequence[tuple[str, str]]) -> None:
    """Registers names, each with its VO, with a copy each."""
    files = [(lfn, vo, "https://issuer.test/|sue", 1, "ADLER32:00620062", 5) for lfn, vo in names]
    columns = ("lfn", "vo", "owner", "size_bytes", "checksum", "create_us")
    insert_values(conn, LOGICAL_FILE, columns, files)
    copies = [(f"file:///s/{n}/{lfn}", lfn, "x", 5) for n, (lfn, _) in enumerate(names)]
    insert_values(conn, REPLICA, ("url", "lfn", "storage_element", "create_us"), copies)


def page(size: int, token: str = "") -> Page:
    return page_request(catalogue.BY_NAME, page_size=size, page_token=token, binding=("x",))


async def below(db: Database, prefix: str, reach: Visibility = EVERYTHING) -> list[str]:
    """All names with a prefix, read in pages of 2."""
    found: list[str] = []
    token = ""
    while True:
        asked = page(2, token)
        files, token = await db.read(
            partial(catalogue.page_below, prefix=prefix, reach=reach, page=asked)
        )
        found += [file.lfn for file in files]
        if not token:
            return found


async def test_what_means_something_in_a_pattern_means_itself(db: Database) -> None:
    last = chr(sys.maxunicode)
    names = [
        "LFN:/a%b/1",
        "LFN:/a_b/1",
        "LFN:/aXb/1",
        "LFN:/a\\b/1",
        "LFN:/a*b/1",
        "LFN:/a[b/1",
        "LFN:/A/1",
        "LFN:/a/1",
        "LFN:/ä/1",
        "LFN:/z/1",
        "LFN:/\ud7ff/1",
        "LFN:/\ue000/1",
        f"LFN:/{last}/1",
        f"LFN:/{last}{last}",
    ]
    await db.write(lambda conn: add(conn, [(name, "local") for name in names]))
    for prefix in {*names, *(name[:-2] for name in names), "LFN:/", "LFN:/a", f"LFN:/{last}"}:
        expected = sorted(name for name in names if name.startswith(prefix))
        assert await below(db, prefix) == expected, prefix
        assert await below(db, prefix, OWN) == expected, prefix


async def test_files_of_several_vos_come_in_the_order_of_their_names(db: Database) -> None:
    names = [(f"LFN:/{n % 7}/{n}", ("local", "other", "hidden")[n % 3]) for n in range(60)]
    await db.write(lambda conn: add(conn, names))
    assert await below(db, "LFN:/", BOTH) == sorted(n for n, vo in names if vo != "hidden")
    assert await below(db, "LFN:/3/", OWN) == sorted(
        n for n, vo in names if vo == "local" and n.startswith("LFN:/3/")
    )
    assert await below(db, "LFN:/", NOTHING) == []


async def plan_of(db: Database, reach: Visibility, asked: Page) -> str:
    def run(conn: Connection) -> Any:
        return catalogue.page_below(conn, "LFN:/local/", reach, asked)

    return await db.read(lambda conn: plans(conn, run))


async def test_a_page_goes_by_its_index_wherever_it_lies(db: Database, engine: str) -> None:
    names = [(f"LFN:/local/{n:06}", "local") for n in range(2000)]
    await db.write(lambda conn: add(conn, names))
    later = Page(50, ["LFN:/local/001000"], b"")
    primary = {"sqlite": "sqlite_autoindex_logical_file_1", "postgresql": "pk_logical_file"}
    for reach, index in ((EVERYTHING, primary[engine]), (OWN, "ix_logical_file_vo_lfn")):
        for asked in (page(50), later):
            plan = await plan_of(db, reach, asked)
            assert index in plan, plan
            assert "SCAN logical_file" not in plan
            assert "Seq Scan" not in plan
            assert "TEMP B-TREE" not in plan
            assert "Sort" not in plan, plan


async def test_registrations_that_are_owed_are_found_by_their_index(
    db: Database, engine: str
) -> None:
    table = registering.Registering(*[None] * 5)  # type: ignore[arg-type]
    plan = await db.read(lambda conn: plans(conn, table.is_due))
    assert "ix_file_transfer_registering" in plan


async def test_a_hundred_thousand_files_are_listed_in_pages(house: Any) -> None:
    names = [(f"LFN:/local/many/{n:06}", "local") for n in range(MANY)]
    foreign = [(f"LFN:/other/many/{n:06}", "other") for n in range(100)]
    database = house.room._started.db
    for start in range(0, MANY, 10_000):
        await database.write(lambda conn, start=start: add(conn, names[start : start + 10_000]))
    await database.write(lambda conn: add(conn, foreign))
    for user in ("sue", "admin"):
        client = house.client(user)
        token, found = "", 0
        while True:
            request = replica_service_pb2.ListReplicasRequest(
                prefix="LFN:/local/many/", page_size=1000, page_token=token
            )
            answer = await client.replicas.ListReplicas(request)
            listed = [file.lfn for file in answer.files]
            assert listed == [name for name, _ in names[found : found + 1000]]
            assert all(len(file.replicas) == 1 for file in answer.files)
            found += len(listed)
            token = answer.next_page_token
            if not token:
                break
        assert found == MANY
