"""The tables of file transfers and of their attempts.

Every listing's and scan's index says whose it is.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
    func,
    literal_column,
    or_,
    text,
)

from gridlane_kit.database import Counter, Micros, Text36
from gridlane_kit.leases import lease_columns
from gridlane_transfer.states import BLOCKED, DUE, RUNNING, UNFINISHED, WRITING, FileState
from gridlane_transfer.store.tables.schema import BY_CODE_POINT, METADATA


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
    """Resource names; the source's is empty while its logical name has no copy."""
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
    arrived: str | None = None
    """What arrived at the target, as `registrations.Arrived` writes it, while it waits to be
    registered.
    """
    place: int | None = None
    """While it moves: the same number, drawn for them, in all that share its place. None: it has a
    place of its own.
    """


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
    Column("queue", BY_CODE_POINT, nullable=False, server_default=text("''")),
    Column("held_us", Micros),
    Column("arrived", Text),
    Column("place", BigInteger),
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

FILE_COLUMNS: Final = [FILE.c[name] for name in FileRow._fields]


_SHORT_LIST: Final = 2
"""For a longer list SQLite makes a table at each row that it writes, which takes longer than to
write the row.
"""


def file_in(states: frozenset[FileState], files: FromClause = FILE) -> ColumnElement[bool]:
    """The condition that a file is in one of some states, in the very words of the partial indexes
    below.

    The numbers stand in the statement itself: a partial index serves only what provably implies its
    condition.

    Parameters:
        files: the table, or an alias of it.
    """
    state, numbers = files.c.state, sorted(int(state) for state in states)
    if len(numbers) <= _SHORT_LIST:
        return state.in_(map(_word, numbers))
    return or_(
        *(
            state.between(_word(first), _word(last)) if first < last else state == _word(first)
            for first, last in _spans(numbers)
        )
    )


INDEXED_URL: Final = 2000
"""The longest URL that the index of `written_to` holds, in characters: PostgreSQL indexes no text
of any length.
"""


def written_to(files: FromClause = FILE) -> ColumnElement[bool]:
    """The condition that a file is being written to its target, in the words of the index by which
    that is found; of URLs that are not too long for it.

    Parameters:
        files: as `file_in`.
    """
    length = func.length(files.c.target_url)
    return and_(file_in(WRITING, files), length <= _word(INDEXED_URL))


def _word(number: int) -> ColumnElement[int]:
    return literal_column(str(number))


def _spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as spans without a gap: the first and the last of each."""
    firsts = [number for number in numbers if number - 1 not in numbers]
    lasts = [number for number in numbers if number + 1 not in numbers]
    return zip(firsts, lasts, strict=True)


# Files that are to have started by a time.
_IN_QUEUE = FILE.c.queue_until_us.is_not(None)
Index(None, FILE.c.queue_until_us, sqlite_where=_IN_QUEUE, postgresql_where=_IN_QUEUE)
# The files of a job, in order; those of them in a state; whether one of them lies on a channel,
# which takes as long for a job with a thousand files as for one that is not there.
Index(None, FILE.c.job_number, FILE.c.n, unique=True)
Index(None, FILE.c.job_number, FILE.c.state, FILE.c.n)
Index(None, FILE.c.job_number, FILE.c.channel_uid)
# Files to start on a channel, in the order of each queue; files that run on it, and that are held
# on it.
Index(
    "ix_file_transfer_due",
    FILE.c.channel_uid,
    FILE.c.queue,
    FILE.c.rank,
    FILE.c.number,
    sqlite_where=file_in(DUE),
    postgresql_where=file_in(DUE),
)
Index(
    "ix_file_transfer_running",
    FILE.c.channel_uid,
    FILE.c.number,
    sqlite_where=file_in(RUNNING),
    postgresql_where=file_in(RUNNING),
)
# The places that files are written to: each has one writer at a time.
Index(
    "ix_file_transfer_writing",
    FILE.c.target_url,
    sqlite_where=written_to(),
    postgresql_where=written_to(),
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
# Files whose registration is owed, by when it is tried.
_OWED = FILE.c.arrived.is_not(None)
Index(
    "ix_file_transfer_registering",
    FILE.c.due_us,
    FILE.c.number,
    sqlite_where=_OWED,
    postgresql_where=_OWED,
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
# The unfinished files from and to an element: for its bans, and for its end.
for _end in ("source", "target"):
    Index(
        f"ix_file_transfer_at_{_end}",
        FILE.c[f"{_end}_element"],
        FILE.c.number,
        sqlite_where=file_in(UNFINISHED),
        postgresql_where=file_in(UNFINISHED),
    )
# Files that wait for the end of a ban, by the end of their patience.
Index(
    "ix_file_transfer_blocked",
    FILE.c.due_us,
    FILE.c.number,
    sqlite_where=file_in(BLOCKED),
    postgresql_where=file_in(BLOCKED),
)
# The same by what they are read from, for its new copies. PostgreSQL indexes no text of any length.
BLOCKED_FOR: Final = and_(file_in(BLOCKED), func.length(FILE.c.source) <= _word(512))
"""Files that wait for the end of a ban, or for another copy of their logical source."""
Index(
    "ix_file_transfer_blocked_for",
    FILE.c.source,
    sqlite_where=BLOCKED_FOR,
    postgresql_where=BLOCKED_FOR,
)
