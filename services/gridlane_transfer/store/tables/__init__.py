"""The tables of Transfer, by noun. Responsible for columns and indexes.

Times are microseconds since 1970-01-01 UTC, states the numbers of `states`. Rows are read as the
named tuples beside their tables. Whoever uses a table imports it from here, so that `METADATA`
always has all of them.
"""

from gridlane_transfer.store.tables.bookkeeping import (
    AUDIT,
    FEED,
    FILE_NUMBERS,
    JOB_NUMBERS,
    REQUEST_ID,
    SETTINGS_REVISION,
    TURN,
)
from gridlane_transfer.store.tables.catalogue import LOGICAL_FILE, REPLICA, UPLOAD
from gridlane_transfer.store.tables.channels import ACTIVITY_SHARES, CHANNEL, CHANNEL_OPTIMIZER
from gridlane_transfer.store.tables.files import (
    BLOCKED_FOR,
    FILE,
    FILE_ATTEMPT,
    FILE_COLUMNS,
    INDEXED_URL,
    FileRow,
    file_in,
    written_to,
)
from gridlane_transfer.store.tables.jobs import (
    JOB,
    JOB_CHANNEL,
    JOB_COLUMNS,
    STAGED_JOB,
    SWEEP,
    JobRow,
)
from gridlane_transfer.store.tables.schema import METADATA
from gridlane_transfer.store.tables.storage import LEFTOVER, STORAGE_BAN, STORAGE_ELEMENT

__all__ = [
    "ACTIVITY_SHARES",
    "AUDIT",
    "BLOCKED_FOR",
    "CHANNEL",
    "CHANNEL_OPTIMIZER",
    "FEED",
    "FILE",
    "FILE_ATTEMPT",
    "FILE_COLUMNS",
    "FILE_NUMBERS",
    "INDEXED_URL",
    "JOB",
    "JOB_CHANNEL",
    "JOB_COLUMNS",
    "JOB_NUMBERS",
    "LEFTOVER",
    "LOGICAL_FILE",
    "METADATA",
    "REPLICA",
    "REQUEST_ID",
    "SETTINGS_REVISION",
    "STAGED_JOB",
    "STORAGE_BAN",
    "STORAGE_ELEMENT",
    "SWEEP",
    "TURN",
    "UPLOAD",
    "FileRow",
    "JobRow",
    "file_in",
    "written_to",
]
