"""The tables beside the nouns: events, request ids, numbers, revisions of settings, the audit."""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from gridlane_kit.database import Micros, Text36, only_on
from gridlane_kit.feed import feed_tables
from gridlane_kit.numbers import Numbers
from gridlane_kit.request_ids import request_id_table
from gridlane_transfer.store.tables.schema import METADATA

FEED: Final = feed_tables(METADATA)
REQUEST_ID: Final = request_id_table(METADATA)

# The last numbers given to jobs and files; one row. Taken before the rows are inserted, so that
# what refers to them can be written in the same go.
_LAST_NUMBER: Final = Table(
    "last_number",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("jobs", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    info=only_on("sqlite"),
)
_NONE_YET: Final = {"id": 1, "jobs": 0, "files": 0}
JOB_NUMBERS: Final = Numbers(
    METADATA, "transfer_job_number", last=_LAST_NUMBER.c.jobs, row=_NONE_YET
)
FILE_NUMBERS: Final = Numbers(
    METADATA, "file_transfer_number", last=_LAST_NUMBER.c.files, row=_NONE_YET
)

# Storage elements and channels that verbs change: by kind, how often something of it changed.
SETTINGS_REVISION: Final = Table(
    "settings_revision",
    METADATA,
    Column("kind", String(32), primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

# What managers changed, and why (`store.audit`).
AUDIT: Final = Table(
    "audit_entry",
    METADATA,
    Column("uid", Text36, primary_key=True),
    Column("time_us", Micros, nullable=False),
    Column("principal", Text, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("service", String(32), nullable=False),
    Column("method", String(200), nullable=False),
    Column("resource", String(255), nullable=False),
    Column("vo", String(200), nullable=False),
    Column("reason", String(1024), nullable=False),
    Column("permission", String(64), nullable=False),
    Column("rule", String(64), nullable=False),
    Column("before_json", Text),
    Column("after_json", Text),
    Column("trace_id", String(32), nullable=False),
    Column("peer", String(128), nullable=False),
)
