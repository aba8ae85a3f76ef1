"""What is looked for when a storage element is banned or removed is found by an index."""

from collections.abc import Callable
from typing import Any

import pytest
from query_plans import plans
from sqlalchemy import Connection, String, Text, func, insert, select

from gridlane_kit.database import Database
from gridlane_kit.pages import page_request
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.bans import Ban, BanAction
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, storage
from gridlane_transfer.store.tables import FILE, METADATA

ELEMENT = "storageElements/desy"
BAN = Ban("1", ELEMENT, frozenset(), "", BanAction.WAIT, None, False, None, "x", "{}", 0)
PAGE = page_request(storage.BANS_NEWEST_FIRST, page_size=5, page_token="", binding=())


@pytest.mark.parametrize(
    ("read", "indexes"),
    [
        (
            lambda conn: banned.at_element(conn, ELEMENT, "target", 5),
            ["ix_file_transfer_at_target"],
        ),
        (
            lambda conn: banned.at_element(conn, ELEMENT, "source", 5),
            ["ix_file_transfer_at_source"],
        ),
        (lambda conn: banned.blocked(conn, (5, 5)), ["ix_file_transfer_blocked"]),
        (banned.next_deadline_us, ["ix_file_transfer_blocked"]),
        (
            lambda conn: storage.used_by(conn, "desy"),
            [
                "ix_replica_storage_element",
                "ix_file_transfer_at_target",
                "ix_file_transfer_at_source",
            ],
        ),
        (
            lambda conn: storage.replica_below(conn, "desy", "file:///x/"),
            ["ix_replica_storage_element"],
        ),
        (
            lambda conn: storage.count_waiting(conn, BAN),
            ["ix_file_transfer_at_target", "ix_file_transfer_at_source"],
        ),
        (
            lambda conn: storage.bans_page(conn, ELEMENT, 5, PAGE),
            ["ix_storage_ban_storage_element_uid"],
        ),
    ],
)
async def test_it_goes_by_its_index(
    database_url: str, read: Callable[[Connection], Any], indexes: list[str]
) -> None:
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    try:
        plan = await db.read(lambda conn: plans(conn, read))
    finally:
        await db.close()
    assert [index for index in indexes if index not in plan] == []
    assert "SCAN file_transfer" not in plan.replace("SCAN file_transfer USING INDEX", "")
    assert "SCAN replica" not in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_files_that_wait_for_copies_are_found_by_an_index(database_url: str) -> None:
    elements = StorageElements([])
    elements.bans.replace([BAN])
    nothing = {
        column.name: "" if isinstance(column.type, String | Text) else 0
        for column in FILE.columns
        if not column.nullable
    }

    def fill(conn: Connection) -> None:
        rows = [
            nothing | {"number": n, "n": n, "state": FileState.BLOCKED, "source": f"LFN:/local/{n}"}
            for n in range(3000)
        ]
        conn.execute(insert(FILE), rows)
        conn.exec_driver_sql("ANALYZE")

    def came(conn: Connection) -> None:
        banned.copies_came(conn, elements, ["LFN:/local/5", "LFN:/local/7"])

    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    try:
        await db.write(fill)
        plan = await db.write(lambda conn: plans(conn, came))
        due = select(func.count()).where(FILE.c.due_us > 0)
        assert await db.read(lambda conn: conn.execute(due).scalar_one()) == 2
    finally:
        await db.close()
    assert "ix_file_transfer_blocked_for" in plan
