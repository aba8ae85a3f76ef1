"""The tables of transfer jobs: those that are seen, those that come in, and those with much to do.

Every listing's and scan's index says whose it is.
"""

from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
)

from gridlane_kit.database import Counter, Micros, Text36
from gridlane_kit.leases import lease_columns
from gridlane_transfer.store.tables.schema import METADATA


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

JOB_COLUMNS: Final = [JOB.c[name] for name in JobRow._fields]

# Where the files of each job lie, or lay: for the listings of those who manage channels.
JOB_CHANNEL: Final = Table(
    "job_channel",
    METADATA,
    Column("channel_uid", Text36, primary_key=True),
    Column("job_number", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
# What goes with a job.
Index(None, JOB_CHANNEL.c.job_number)

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
    # The last file, by its number in the job, that was passed by what goes through all of them.
    Column("after_n", Integer, nullable=False, server_default="0"),
)

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
# Jobs that are to end at a time.
_EXPIRES = and_(JOB.c.expire_us.is_not(None), JOB.c.end_us.is_(None))
Index(None, JOB.c.expire_us, sqlite_where=_EXPIRES, postgresql_where=_EXPIRES)
