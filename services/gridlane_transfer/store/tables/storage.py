"""The tables of storage elements, of their bans, and of what is left over on them."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from gridlane_kit.database import Micros, Text36
from gridlane_kit.leases import lease_columns
from gridlane_transfer.store.tables.schema import METADATA

STORAGE_ELEMENT: Final = Table(
    "storage_element",
    METADATA,
    Column("name", String(63), primary_key=True),
    # A `gridlane.transfer.v1.StorageElement` with what can be set.
    Column("settings", LargeBinary, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("create_us", Micros, nullable=False),
    Column("update_us", Micros, nullable=False),
)

STORAGE_BAN: Final = Table(
    "storage_ban",
    METADATA,
    Column("uid", Text36, primary_key=True),
    Column("storage_element", String(80), nullable=False),
    # Their numbers, with commas; empty: all.
    Column("operations", String(64), nullable=False),
    Column("vo", String(200), nullable=False),
    Column("action", Integer, nullable=False),
    Column("wait_timeout_us", BigInteger),
    Column("accept_submissions", Boolean(create_constraint=False), nullable=False),
    Column("expires_us", Micros),
    Column("reason", Text, nullable=False),
    Column("creator", Text, nullable=False),
    Column("create_us", Micros, nullable=False),
    Column("affected_files", BigInteger, nullable=False),
)
# The bans of an element, newest first.
Index(None, STORAGE_BAN.c.storage_element, STORAGE_BAN.c.uid)

# Copies at storage elements on the way that are of no use any more, to be removed.
LEFTOVER: Final = Table(
    "leftover",
    METADATA,
    Column("url", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("due_us", Micros, nullable=False),
    *lease_columns(),
)
Index(None, LEFTOVER.c.due_us)
