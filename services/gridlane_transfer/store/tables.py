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
    and_,
    bindparam,
    literal_column,
    text,
)

from gridlane_kit.database import Counter, Micros, Text36, only_on, service_metadata
from gridlane_kit.feed import feed_tables
from gridlane_kit.leases import lease_columns
from gridlane_kit.numbers import Numbers
from gridlane_kit.request_ids import request_id_table
from gridlane_transfer.states import BLOCKED, DUE, RUNNING, UNFINISHED, FileState

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
    Column("vo_shares", Text, nullable=False, server_default="{}"),
    Column("max_streams", Integer, nullable=False, server_default="0"),
    Column("max_bandwidth", BigInteger, nullable=False, server_default="0"),
    Column("nominal_throughput", BigInteger, nullable=False, server_default="0"),
    Column("contact", String(255), nullable=False, server_default=text("''")),
    Column("description", String(1024), nullable=False, server_default=text("''")),
    Column("default_max_retries", Integer),
    Column("default_retry_delay_us", BigInteger),
    # 0: it has no optimizer.
    Column("optimizer_mode", Integer, nullable=False, server_default="0"),
    Column("optimizer_min", Integer, nullable=False, server_default="0"),
    Column("optimizer_max", Integer, nullable=False, server_default="0"),
    Column("update_us", Micros, nullable=False, server_default="0"),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    # When it was removed: its row stays, so that its uid never comes again; its name is free.
    Column("delete_us", Micros),
)

# What the optimizer of a channel has come to.
CHANNEL_OPTIMIZER: Final = Table(
    "channel_optimizer",
    METADATA,
    Column("channel_uid", Text36, primary_key=True),
    Column("allowed_files", Integer, nullable=False),
    # In the last window that it looked at; the next one begins at `decide_us`.
    Column("bytes_per_second", BigInteger, nullable=False, server_default="0"),
    Column("decide_us", Micros, nullable=False),
)

# The shares of activities, of the VOs that have any.
ACTIVITY_SHARES: Final = Table(
    "activity_shares",
    METADATA,
    Column("vo", String(200), primary_key=True),
    # JSON: the weights by activity, in the order given.
    Column("weights", Text, nullable=False),
    Column("active", Boolean(create_constraint=False), nullable=False),
    Column("update_us", Micros, nullable=False),
    Column("revision", BigInteger, nullable=False),
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
    kind: int = 1
    """`TransferJobKind`."""
    revision: int = 0
    """Counts what managers changed of it."""
    retry_of: str | None = None
    """The uuid of the job whose failed files it tries again."""
    total_bytes: int = 0
    """The sizes of its files together, of those whose size is known."""
    moved_bytes: int = 0
    """What attempts that ended well have brought to targets."""
    start_us: int | None = None
    """When the first of its files was started."""
    activity: str | None = None
    """None: "default"."""
    metadata: str | None = None
    """The caller's JSON."""
    expire_us: int | None = None
    """When what has not ended is cancelled."""
    options: str | None = None
    """What few jobs ask for, as `options.Options` writes it."""
    cancel_failure: bytes | None = None
    """Why its end was asked for, as the files that it ends keep it; None: nothing was told."""


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
    Column("kind", Integer, nullable=False, server_default="1"),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    Column("retry_of", Text36),
    Column("total_bytes", BigInteger, nullable=False, server_default="0"),
    Column("moved_bytes", BigInteger, nullable=False, server_default="0"),
    Column("start_us", Micros),
    Column("activity", String(255)),
    Column("metadata", Text),
    Column("expire_us", Micros),
    Column("options", Text),
    Column("cancel_failure", LargeBinary),
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
    failure_class: int | None = None
    """The class of `failure`, to be counted by."""
    activity: str | None = None
    """The one that it counts for, its own or its job's; None: "default"."""
    metadata: str | None = None
    """The caller's JSON."""
    scitag: int | None = None
    guid: str | None = None
    queue_until_us: int | None = None
    """When it ends unless it was started before; None once it was."""
    alternatives: str | None = None
    """Its sources, when it has several names for them, as `alternatives.Alternatives` writes it."""
    route: str | None = None
    """Where it stops on the way, as `routes.Route` writes it; then the target's columns, the
    channel and the source's element are those of the present hop.
    """
    hop: int = 0
    """The hop that it is on, from 1; 0 when it goes straight."""
    target_report: bytes | None = None
    """What lay at the target, a `TargetReport`."""
    queue: str = ""
    """Where it waits on its channel: its VO, a slash and its activity, by which places are shared.
    """
    held_us: int | None = None
    """Since when it is held for the channel's manager, its retries spent."""


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
    Column("failure_class", Integer),
    Column("activity", String(255)),
    Column("metadata", Text),
    Column("scitag", Integer),
    Column("guid", Text36),
    Column("queue_until_us", Micros),
    Column("alternatives", Text),
    Column("route", Text),
    Column("hop", Integer, nullable=False, server_default="0"),
    Column("target_report", LargeBinary),
    Column("queue", _BY_CODE_POINT, nullable=False, server_default=text("''")),
    Column("held_us", Micros),
)

# Each time that a file was started: one row from its start on. Goes with the file.
FILE_ATTEMPT: Final = Table(
    "file_attempt",
    METADATA,
    Column("file_number", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("hop", Integer, nullable=False, server_default="0"),
    Column("channel_uid", Text36, nullable=False),
    Column("source_url", Text, nullable=False),
    Column("target_url", Text, nullable=False),
    Column("source_element", String(80), nullable=False),
    Column("target_element", String(80), nullable=False),
    Column("start_us", Micros, nullable=False),
    Column("end_us", Micros),
    Column("transferred_bytes", BigInteger, nullable=False, server_default="0"),
    # What the file became by it, a state.
    Column("outcome", Integer, nullable=False),
    Column("failure", LargeBinary),
    Column("actual_checksum", String(80)),
)

# Jobs whose files come in by and by, and that nobody sees yet: their files stand in their table
# under a number that no job has.
STAGED_JOB: Final = Table(
    "staged_job",
    METADATA,
    Column("uuid", Text36, primary_key=True),
    Column("job_number", BigInteger, nullable=False),
    Column("create_us", Micros, nullable=False),
    *lease_columns(),
)

# What is still to be done to the files of a job that has too many for one transaction.
SWEEP: Final = Table(
    "sweep",
    METADATA,
    Column("job_number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("create_us", Micros, nullable=False),
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
# Sums: all that is counted of jobs that have ended, so that their rows are not read.
_ENDED = JOB.c.end_us.is_not(None)
_COUNTED = (
    JOB.c.state,
    JOB.c.counts,
    JOB.c.total_bytes,
    JOB.c.moved_bytes,
    JOB.c.create_us,
    JOB.c.end_us,
)
for _name, _columns in (
    ("ix_transfer_job_counted_owner", (JOB.c.owner, *_COUNTED)),
    ("ix_transfer_job_counted_vo", (JOB.c.vo, *_COUNTED, JOB.c.owner)),
):
    Index(_name, *_columns, sqlite_where=_ENDED, postgresql_where=_ENDED)
# Retention: what ended long ago.
Index(
    None,
    JOB.c.end_us,
    sqlite_where=JOB.c.end_us.is_not(None),
    postgresql_where=JOB.c.end_us.is_not(None),
)
# Jobs that are to end at a time; files that are to have started by one.
_EXPIRES = and_(JOB.c.expire_us.is_not(None), JOB.c.end_us.is_(None))
Index(None, JOB.c.expire_us, sqlite_where=_EXPIRES, postgresql_where=_EXPIRES)
_IN_QUEUE = FILE.c.queue_until_us.is_not(None)
Index(None, FILE.c.queue_until_us, sqlite_where=_IN_QUEUE, postgresql_where=_IN_QUEUE)
# The files of a job, in order; those of them in a state; whether one of them lies on a channel,
# which takes as long for a job with a thousand files as for one that is not there.
Index(None, FILE.c.job_number, FILE.c.n, unique=True)
Index(None, FILE.c.job_number, FILE.c.state, FILE.c.n)
Index(None, FILE.c.job_number, FILE.c.channel_uid)


def _in_words(states: frozenset[FileState]) -> ColumnElement[bool]:
    return FILE.c.state.in_([literal_column(str(number)) for number in sorted(states)])


# Files to start on a channel, in the order of each queue; files that run on it, and that are held
# on it.
Index(
    "ix_file_transfer_due",
    FILE.c.channel_uid,
    FILE.c.queue,
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

_HELD = FILE.c.held_us.is_not(None)
Index(
    "ix_file_transfer_held",
    FILE.c.channel_uid,
    FILE.c.held_us,
    FILE.c.number,
    sqlite_where=_HELD,
    postgresql_where=_HELD,
)
# What moved on a channel lately.
_ATTEMPT_ENDED = FILE_ATTEMPT.c.end_us.is_not(None)
Index(
    None,
    FILE_ATTEMPT.c.channel_uid,
    FILE_ATTEMPT.c.end_us,
    sqlite_where=_ATTEMPT_ENDED,
    postgresql_where=_ATTEMPT_ENDED,
)

# Storage elements and channels that verbs change: by kind, how often something of it changed.
SETTINGS_REVISION: Final = Table(
    "settings_revision",
    METADATA,
    Column("kind", String(32), primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

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
# What lies on an element.
Index(None, REPLICA.c.storage_element)
# The unfinished files from and to an element: for its bans, and for its end.
for _end in ("source", "target"):
    Index(
        f"ix_file_transfer_at_{_end}",
        FILE.c[f"{_end}_element"],
        FILE.c.number,
        sqlite_where=_in_words(UNFINISHED),
        postgresql_where=_in_words(UNFINISHED),
    )
# Files that wait for the end of a ban, by the end of their patience.
Index(
    "ix_file_transfer_blocked",
    FILE.c.due_us,
    FILE.c.number,
    sqlite_where=_in_words(BLOCKED),
    postgresql_where=_in_words(BLOCKED),
)

JOB_COLUMNS: Final = [JOB.c[name] for name in JobRow._fields]
FILE_COLUMNS: Final = [FILE.c[name] for name in FileRow._fields]
