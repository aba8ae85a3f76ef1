"""The channels' rows, and those of the shares of activities.

Responsible for reading and writing them, for what is on a channel now, and for the default channel
that a new service begins with. What may be changed is `channel_admin`'s and `activities`'.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, insert, select, update

from gridlane.ids import uuid7
from gridlane_kit.clock import now_us
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_transfer.channels.channels import (
    DEFAULT_NAME,
    Channel,
    ChannelState,
    ExhaustedAction,
    Optimizer,
    OptimizerMode,
)
from gridlane_transfer.channels.scheduling import ActivityWeights
from gridlane_transfer.states import DUE, FILE_FINAL, RUNNING, FileState
from gridlane_transfer.store.tables import (
    ACTIVITY_SHARES,
    CHANNEL,
    CHANNEL_OPTIMIZER,
    FILE,
    FILE_ATTEMPT,
    FILE_COLUMNS,
    JOB,
    JOB_COLUMNS,
    FileRow,
    JobRow,
    file_in,
)

BY_NAME: Final = Keyset(CHANNEL.c.name)
HELD_LONGEST: Final = Keyset(FILE.c.held_us, FILE.c.number)
_GOOD: Final = frozenset({FileState.FINISHED, FileState.CATALOG_FAILED})
_TELLING: Final = _GOOD | {FileState.FAILED, FileState.RETRYING, FileState.HELD}
"""The outcomes of attempts that say something of the way; CATALOG_FAILED says that of the
catalogue.
"""
_HERE: Final = CHANNEL.c.delete_us.is_(None)
_READ = select(*CHANNEL.c, CHANNEL_OPTIMIZER.c.allowed_files).join(
    CHANNEL_OPTIMIZER, CHANNEL_OPTIMIZER.c.channel_uid == CHANNEL.c.uid, isouter=True
)


def ensure_default(conn: Connection, max_files: int) -> None:
    """See to it that a new service has the default channel, from anywhere to anywhere.

    Parameters:
        max_files: how many files it moves at once.
    """
    if conn.execute(select(CHANNEL.c.uid).limit(1)).first() is not None:
        return
    time_us = now_us()
    insert_one(
        conn,
        Channel(
            uid=uuid7(),
            name=DEFAULT_NAME,
            source="*",
            target="*",
            state=ChannelState.ACTIVE,
            max_files=max_files,
            on_exhausted=ExhaustedAction.FAIL,
            create_us=time_us,
            update_us=time_us,
            revision=1,
        ),
    )


def read_all(conn: Connection) -> tuple[list[Channel], ActivityWeights]:
    """All channels, those that are no more among them, and the shares of activities in force."""
    channels = [_channel(row) for row in conn.execute(_READ)]
    shares = select(ACTIVITY_SHARES.c.vo, ACTIVITY_SHARES.c.weights).where(ACTIVITY_SHARES.c.active)
    weights = {vo: json.loads(text) for vo, text in conn.execute(shares)}
    return channels, ActivityWeights({vo: own for vo, own in weights.items() if own})


def read(conn: Connection, name: str) -> Channel | None:
    """A channel by its plain name."""
    row = conn.execute(_READ.where(CHANNEL.c.name == name, _HERE)).first()
    return None if row is None else _channel(row)


def read_by_uid(conn: Connection, uid: str) -> Channel | None:
    """A channel by its uid."""
    row = conn.execute(_READ.where(CHANNEL.c.uid == uid, _HERE)).first()
    return None if row is None else _channel(row)


def page(conn: Connection, page_: Page) -> tuple[list[Channel], str]:
    """A page of the channels by name, and the token of the next page."""
    rows, token = fetch_page(conn, _READ.where(_HERE), BY_NAME, page_)
    return [_channel(row) for row in rows], token


def insert_one(conn: Connection, channel: Channel) -> None:
    """Write a new channel."""
    ends = {"source": channel.source, "target": channel.target}
    made = {"uid": channel.uid, "name": channel.name, "create_us": channel.create_us}
    conn.execute(insert(CHANNEL).values(**made, **ends, **_settings(channel)))


def change_one(conn: Connection, channel: Channel) -> None:
    """Write a channel's settings."""
    conn.execute(update(CHANNEL).where(CHANNEL.c.uid == channel.uid).values(**_settings(channel)))


def delete_one(conn: Connection, channel: Channel, revision: int, time_us: int) -> None:
    """Remove a channel. Its row stays, with its uid for a name, and the name is free."""
    conn.execute(
        update(CHANNEL)
        .where(CHANNEL.c.uid == channel.uid)
        .values(name=channel.uid, delete_us=time_us, update_us=time_us, revision=revision)
    )


def has_unfinished(conn: Connection, uid: str) -> bool:
    """Whether files that have not ended lie on a channel: reads them all, for rare questions."""
    ended = sorted(int(state) for state in FILE_FINAL)
    lies = exists().where(FILE.c.channel_uid == uid, FILE.c.state.not_in(ended))
    return bool(conn.execute(select(lies)).scalar_one())


def has_waiting(conn: Connection, uid: str) -> bool:
    """Whether files wait, move or are held on a channel, by the indexes of these."""
    for condition in (file_in(DUE), file_in(RUNNING), FILE.c.held_us.is_not(None)):
        found = select(FILE.c.number).where(FILE.c.channel_uid == uid, condition).limit(1)
        if conn.execute(found).first() is not None:
            return True
    return False


def held_page(conn: Connection, uid: str, page_: Page) -> tuple[list[tuple[FileRow, JobRow]], str]:
    """A page of the files that are held for the manager of a channel, those held longest first,
    each with its job; and the token of the next page.
    """
    statement = select(*FILE_COLUMNS).where(FILE.c.channel_uid == uid, FILE.c.held_us.is_not(None))
    found, token = fetch_page(conn, statement, HELD_LONGEST, page_)
    files = [FileRow._make(row) for row in found]
    numbers = {file.job_number for file in files}
    jobs = {
        row.number: JobRow._make(row)
        for row in conn.execute(select(*JOB_COLUMNS).where(JOB.c.number.in_(numbers)))
    }
    return [(file, jobs[file.job_number]) for file in files], token


def held_numbers(conn: Connection, uid: str, names: Collection[str]) -> list[int]:
    """The numbers of those files, "transfers/{uuid}/files/{n}", that are held on a channel."""
    wanted: dict[str, list[int]] = {}
    for name in names:
        _, uuid, _, n = name.split("/")
        wanted.setdefault(uuid, []).append(int(n))
    jobs = conn.execute(select(JOB.c.uuid, JOB.c.number).where(JOB.c.uuid.in_(wanted))).all()
    numbers: list[int] = []
    for uuid, job_number in jobs:
        statement = select(FILE.c.number).where(
            FILE.c.job_number == job_number,
            FILE.c.n.in_(wanted[uuid]),
            FILE.c.channel_uid == uid,
            FILE.c.held_us.is_not(None),
        )
        numbers += conn.execute(statement).scalars()
    return numbers


@dataclass(frozen=True, slots=True)
class Usage:
    """What is on a channel: counts of files, and bytes of attempts in the last minute, as far as
    they fall into it, by second.

    Parameters:
        running: the files that move, by their numbers, and since when, microseconds.
    """

    active_by_vo: Mapping[str, int] = field(default_factory=dict)
    queued: int = 0
    held: int = 0
    bytes_per_second: int = 0
    running: Sequence[tuple[int, int]] = ()

    def with_running(self, moved: Callable[[int], int | None], time_us: int) -> "Usage":
        """The same with what those have moved that run; at first of ended attempts alone.

        Parameters:
            moved: how many bytes a file has moved by its number; None of one of which no more is
                known.
        """
        from_us = time_us - _WINDOW_US
        found = sum(
            _inside(moved(number) or 0, start_us, time_us, from_us)
            for number, start_us in self.running
        )
        rate = self.bytes_per_second + _rate(found, _WINDOW_US)
        return replace(self, bytes_per_second=rate)


_WINDOW_US: Final = 60_000_000


def usage(conn: Connection, uid: str) -> Usage:
    """What is on a channel now; along the indexes of what waits, runs and is held."""
    on_channel = FILE.c.channel_uid == uid
    statement = select(FILE.c.queue, FILE.c.number, FILE.c.start_us)
    by_vo: dict[str, int] = {}
    running = []
    for queue, number, start_us in conn.execute(statement.where(on_channel, file_in(RUNNING))):
        running.append((number, start_us))
        vo = queue.partition("/")[0]
        by_vo[vo] = by_vo.get(vo, 0) + 1
    count = select(func.count()).select_from(FILE)
    queued = conn.execute(count.where(on_channel, file_in(DUE))).scalar_one()
    held = conn.execute(count.where(on_channel, FILE.c.held_us.is_not(None))).scalar_one()
    now = now_us()
    ended = traffic(conn, uid, now - _WINDOW_US, now)
    return Usage(by_vo, queued, held, ended.rate, running)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What attempts that ended on a channel in a window came to.

    Parameters:
        rate: bytes in a second, of each attempt what falls into the window.
        finished, failed: attempts; those that somebody ended count for neither.
    """

    rate: int
    finished: int
    failed: int


def traffic(conn: Connection, uid: str, from_us: int, to_us: int) -> Traffic:
    """What moved on a channel between two times; along the index on attempts' ends."""
    a = FILE_ATTEMPT.c
    statement = select(a.start_us, a.end_us, a.transferred_bytes, a.outcome).where(
        a.channel_uid == uid, a.end_us > from_us, a.end_us <= to_us
    )
    moved, outcomes = 0.0, {True: 0, False: 0}
    for start_us, end_us, size, outcome in conn.execute(statement):
        moved += _inside(size, start_us, end_us, from_us)
        if outcome in _TELLING:
            outcomes[outcome in _GOOD] += 1
    return Traffic(_rate(moved, to_us - from_us), outcomes[True], outcomes[False])


def _inside(size: int, start_us: int, end_us: int, from_us: int) -> float:
    """How much of the bytes of an attempt moved after a time."""
    inside = (end_us - max(start_us, from_us)) / max(1, end_us - start_us)
    return size * min(1.0, max(0.0, inside))


def _rate(size: float, within_us: int) -> int:
    """Bytes in a second."""
    return round(size * 1_000_000 / max(1, within_us))


def _settings(channel: Channel) -> dict[str, Any]:
    optimizer = channel.optimizer
    return {
        "state": int(channel.state),
        "max_files": channel.max_files,
        "on_exhausted": int(channel.on_exhausted),
        "vo_shares": json.dumps(dict(channel.vo_shares), sort_keys=True),
        "max_streams": channel.max_streams,
        "max_bandwidth": channel.max_bandwidth,
        "nominal_throughput": channel.nominal_throughput,
        "contact": channel.contact,
        "description": channel.description,
        "default_max_retries": channel.default_max_retries,
        "default_retry_delay_us": channel.default_retry_delay_us,
        "optimizer_mode": 0 if optimizer is None else int(optimizer.mode),
        "optimizer_min": 0 if optimizer is None else optimizer.min_files,
        "optimizer_max": 0 if optimizer is None else optimizer.max_files,
        "update_us": channel.update_us,
        "revision": channel.revision,
    }


def _channel(row: Row[*tuple[Any, ...]]) -> Channel:
    optimizer = None
    if row.optimizer_mode:
        mode = OptimizerMode(row.optimizer_mode)
        optimizer = Optimizer(mode, row.optimizer_min, row.optimizer_max)
    return Channel(
        uid=row.uid,
        name=row.name,
        source=row.source,
        target=row.target,
        state=ChannelState(row.state),
        max_files=row.max_files,
        on_exhausted=ExhaustedAction(row.on_exhausted),
        vo_shares=json.loads(row.vo_shares),
        max_streams=row.max_streams,
        max_bandwidth=row.max_bandwidth,
        nominal_throughput=row.nominal_throughput,
        contact=row.contact,
        description=row.description,
        default_max_retries=row.default_max_retries,
        default_retry_delay_us=row.default_retry_delay_us,
        optimizer=optimizer,
        allowed_files=row.allowed_files,
        create_us=row.create_us,
        update_us=row.update_us,
        revision=row.revision,
        deleted=row.delete_us is not None,
    )
