"""The tables of Transfer. Responsible for columns and indexes; every listing's and scan's index
says whose it is.

Times are microseconds since 1970-01-01 UTC, states the numbers of `states`. Rows are read as the
named tuples beside their tables.
"""

from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    bindparam,
    literal_column,
)

from gridlane_kit.database import Counter, Micros, Text36, only_on, service_metadata
from gridlane_kit.feed import feed_tables
from gridlane_kit.leases import lease_columns
from gridlane_kit.numbers import Numbers
from gridlane_kit.request_ids import request_id_table
from gridlane_transfer.states import DUE, RUNNING, FileState

METADATA: Final = service_metadata()
# What is listed in its order, or by what it begins with: by code points on both engines, whatever
# the language of the database.
_BY_CODE_POINT: Final = Text().with_variant(Text(collation="C"), "postgresql")
FEED: Final = feed_tables(METADATA)
REQUEST_ID: Final = request_id_table(METADATA)

CHANNEL: Final = Table(
    "channel",
    METADATA,
    Column("uid", Text36, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("source", String(63), nullable=False),
    Column("target", String(63), nullable=False),
    Column("state", Integer, nullable=False),
    Column("max_files", Integer, nullable=False),
    Column("on_exhausted", Integer, nullable=False),
    Column("create_us", Micros, nullable=False),
)


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


class JobRow(NamedTuple):
    """A row of `transfer_job`."""

    number: int
    uuid: str
    owner: str
    vo: str
    principal: str
    """The submitter as `Principal.to_json` writes it."""
    state: int
    counts: str
    """JSON: how many files are in each state, by number, and under "moved" those in CATALOG_FAILED
    whose bytes are at the target."""
    placement: bool
    overwrite: int
    verify: int
    max_retries: int
    priority: int
    tags: str
    """JSON object; empty text for none."""
    job_tag: str | None
    """The tag gridlane.job."""
    traceparent: str
    failure: bytes | None
    """The first file's failure, a `gridlane.type.v1.Failure`."""
    cancel_us: int | None
    """When its end was asked for."""
    create_us: int
    update_us: int
    end_us: int | None
    owner_group: str | None = None
    """The owner's active group at submission: job sharers of the same one reach the job."""


JOB: Final = Table(
    "transfer_job",
    METADATA,
    Column("number", Counter, primary_key=True, autoincrement=False),
    Column("uuid", Text36, nullable=False, unique=True),
    Column("owner", String(512), nullable=False),
    Column("vo", String(200), nullable=False),
    Column("principal", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("counts", Text, nullable=False),
    Column("placement", Boolean(create_constraint=False), nullable=False),
    Column("overwrite", Integer, nullable=False),
    Column("verify", Integer, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("tags", Text, nullable=False),
    Column("job_tag", String(255)),
    Column("traceparent", String(55), nullable=False),
    Column("failure", LargeBinary),
    Column("cancel_us", Micros),
    Column("create_us", Micros, nullable=False),
    Column("update_us", Micros, nullable=False),
    Column("end_us", Micros),
    Column("owner_group", String(255)),
)


class FileRow(NamedTuple):
    """A row of `file_transfer`."""

    number: int
    job_number: int
    n: int
    """From 1, in the order of submission."""
    source: str
    target: str
    """As submitted: a URL or logical file name."""
    target_url: str
    target_lfn: str
    """Empty when it has none."""
    source_element: str
    target_element: str
    """Resource names; the source's is empty until it is known."""
    checksum: str | None
    """The one expected, `ALGORITHM:hex`."""
    size_bytes: int | None
    """The size expected."""
    overwrite: int
    """Its own mode; 0: the job's."""
    state: int
    channel_uid: str
    rank: int
    """5 minus the job's priority: files are started in the order of rank and number."""
    attempt: int
    retries: int
    """How many of the retries are spent; an attempt that a restart of the server cut short spends
    none.
    """
    due_us: int
    source_url: str | None
    actual_checksum: str | None
    transferred_bytes: int
    start_us: int | None
    end_us: int | None
    registration_us: int | None
    failure: bytes | None
    lease_holder: str | None
    lease_epoch: int
    lease_until_us: int


FILE: Final = Table(
    "file_transfer",
    METADATA,
    Column("number", Counter, primary_key=True, autoincrement=False),
    Column("job_number", BigInteger, nullable=False),
    Column("n", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("target_url", Text, nullable=False),
    Column("target_lfn", Text, nullable=False),
    Column("source_element", String(80), nullable=False),
    Column("target_element", String(80), nullable=False),
    Column("checksum", String(80)),
    Column("size_bytes", BigInteger),
    Column("overwrite", Integer, nullable=False, server_default="0"),
    Column("state", Integer, nullable=False),
    Column("channel_uid", Text36, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("retries", Integer, nullable=False, server_default="0"),
    Column("due_us", Micros, nullable=False),
    Column("source_url", Text),
    Column("actual_checksum", String(80)),
    Column("transferred_bytes", BigInteger, nullable=False, server_default="0"),
    Column("start_us", Micros),
    Column("end_us", Micros),
    Column("registration_us", Micros),
    Column("failure", LargeBinary),
    *lease_columns(),
)

LOGICAL_FILE: Final = Table(
    "logical_file",
    METADATA,
    Column("lfn", _BY_CODE_POINT, primary_key=True),
    Column("vo", String(200), nullable=False),
    Column("owner", String(512), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("checksum", String(80), nullable=False),
    Column("create_us", Micros, nullable=False),
)

REPLICA: Final = Table(
    "replica",
    METADATA,
    Column("url", Text, primary_key=True),
    Column("lfn", Text, nullable=False, index=True),
    Column("storage_element", String(80), nullable=False),
    Column("create_us", Micros, nullable=False),
)

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


def file_in(states: frozenset[FileState]) -> ColumnElement[bool]:
    """The condition that a file is in one of some states, in the very words of the partial indexes
    below.

    The numbers stand in the statement itself: a partial index serves only what provably implies its
    condition.
    """
    numbers = sorted(int(state) for state in states)
    return FILE.c.state.in_(bindparam(None, numbers, expanding=True, literal_execute=True))


# Listings: of an owner, of a VO, of a group, in a state, by the tag of a job; newest first.
Index(None, JOB.c.owner, JOB.c.number)
Index(None, JOB.c.vo, JOB.c.number)
Index(None, JOB.c.state, JOB.c.number)
Index(None, JOB.c.owner, JOB.c.state, JOB.c.number)
Index(None, JOB.c.vo, JOB.c.state, JOB.c.number)
_GROUPED = JOB.c.owner_group.is_not(None)
for _by in ((), (JOB.c.state,)):
    Index(
        None,
        JOB.c.owner_group,
        *_by,
        JOB.c.number,
        sqlite_where=_GROUPED,
        postgresql_where=_GROUPED,
    )
Index(
    None,
    JOB.c.job_tag,
    JOB.c.number,
    sqlite_where=JOB.c.job_tag.is_not(None),
    postgresql_where=JOB.c.job_tag.is_not(None),
)
# Retention: what ended long ago.
Index(
    None,
    JOB.c.end_us,
    sqlite_where=JOB.c.end_us.is_not(None),
    postgresql_where=JOB.c.end_us.is_not(None),
)
# The files of a job, in order; whether one of them lies on a channel, which takes as long for a job
# with a thousand files as for one that is not there.
Index(None, FILE.c.job_number, FILE.c.n, unique=True)
Index(None, FILE.c.job_number, FILE.c.channel_uid)


def _in_words(states: frozenset[FileState]) -> ColumnElement[bool]:
    return FILE.c.state.in_([literal_column(str(number)) for number in sorted(states)])


# Files to start on a channel, in their order; files that run on it.
Index(
    "ix_file_transfer_due",
    FILE.c.channel_uid,
    FILE.c.rank,
    FILE.c.number,
    sqlite_where=_in_words(DUE),
    postgresql_where=_in_words(DUE),
)
Index(
    "ix_file_transfer_running",
    FILE.c.channel_uid,
    FILE.c.number,
    sqlite_where=_in_words(RUNNING),
    postgresql_where=_in_words(RUNNING),
)

JOB_COLUMNS: Final = [JOB.c[name] for name in JobRow._fields]
FILE_COLUMNS: Final = [FILE.c[name] for name in FileRow._fields]
