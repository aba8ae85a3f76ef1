"""The tables beside the nouns: events, request ids, numbers, revisions of settings, the audit."""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, String, Table

from gridlane_kit.audit import audit_table
from gridlane_kit.database import only_on, turn_table
from gridlane_kit.feed import feed_tables
from gridlane_kit.numbers import Numbers
from gridlane_kit.request_ids import request_id_table
from gridlane_transfer.store.tables.schema import METADATA

FEED: Final = feed_tables(METADATA)
REQUEST_ID: Final = request_id_table(METADATA)
# Of the processes that change files one does at a time: on a busy channel all count the same places
# and change the same jobs.
TURN: Final = turn_table(METADATA)

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

# What managers changed, and why; listed by each of its filters, and in a VO for its managers.
AUDIT: Final = audit_table(METADATA, vo_length=200)
