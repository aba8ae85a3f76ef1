"""What is looked for when a storage element is banned or removed is found by an index."""

from collections.abc import Callable
from typing import Any

import pytest
from query_plans import plans
from sqlalchemy import Connection

from gridlane_kit.database import Database
from gridlane_kit.pages import page_request
from gridlane_transfer.room import MIGRATIONS
from gridlane_transfer.storage.bans import Ban, BanAction
from gridlane_transfer.store import banned, storage
from gridlane_transfer.store.tables import METADATA

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
