"""The tables of logical files and their replicas, and of files that are being put."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from gridlane_kit.database import Micros, Text36
from gridlane_kit.leases import lease_columns
from gridlane_transfer.store.tables.schema import BY_CODE_POINT, METADATA

LOGICAL_FILE: Final = Table(
    "logical_file",
    METADATA,
    Column("lfn", BY_CODE_POINT, primary_key=True),
    Column("vo", String(200), nullable=False),
    Column("owner", String(512), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("checksum", String(80), nullable=False),
    Column("create_us", Micros, nullable=False),
    Column("guid", Text36),
)
_HAS_GUID = LOGICAL_FILE.c.guid.is_not(None)
Index(
    None,
    LOGICAL_FILE.c.guid,
    unique=True,
    sqlite_where=_HAS_GUID,
    postgresql_where=_HAS_GUID,
)
# Listings by prefix, of the VOs that somebody sees.
Index(None, LOGICAL_FILE.c.vo, LOGICAL_FILE.c.lfn)

REPLICA: Final = Table(
    "replica",
    METADATA,
    Column("url", Text, primary_key=True),
    Column("lfn", Text, nullable=False, index=True),
    Column("storage_element", String(80), nullable=False),
    Column("create_us", Micros, nullable=False),
)
# What lies on an element.
Index(None, REPLICA.c.storage_element)

# Files that are being put: what a server that died in the middle has to clean up or to finish.
UPLOAD: Final = Table(
    "upload",
    METADATA,
    Column("uuid", Text36, primary_key=True),
    Column("url", Text, nullable=False),
    Column("temporary", String(80), nullable=False),
    Column("owner", String(512), nullable=False),
    # Set once the bytes are whole, durable and about to get their name.
    Column("size_bytes", BigInteger),
    Column("checksum", String(80)),
    Column("create_us", Micros, nullable=False),
    *lease_columns(),
)
