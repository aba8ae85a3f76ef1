"""What waits and what runs on channels, read in the transaction that claims.

Responsible for statements along the indexes of what is due and of what runs: they cost by how many
channels and queues have something that waits and by how many files move, whatever else is stored.
Which files start is decided in `scheduling`, how they are claimed in `moving`.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, partial
from itertools import chain, islice, zip_longest
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    and_,
    bindparam,
    case,
    func,
    select,
)

from gridlane_kit.database import run_kept
from gridlane_kit.leases import claim_due, database_now_us
from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.channels.bundles import ALONE, Bundle, ElementRoom, Queue, Waiting
from gridlane_transfer.channels.channels import NO_CHANNEL, Channel
from gridlane_transfer.channels.scheduling import Lane
from gridlane_transfer.states import DUE, RUNNING
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.places import unwritten
from gridlane_transfer.store.tables import FILE, LOGICAL_FILE, FileRow, file_in

LOOK_AHEAD: Final = 1000
"""So many files of a queue are looked at when storage elements are full: one behind them waits
until those before it have started.
"""
MOST_FILES: Final = 1000
"""So many files are claimed at once, or a place's more: whatever is written in the same transaction
waits for them.
"""

_AHEAD: Final = FILE.alias("ahead")
_HEAD: Final = FILE.alias("head")
# The size that was said, else that of the logical source.
_LOGICAL_SIZE: Final = (
    select(LOGICAL_FILE.c.size_bytes)
    .where(LOGICAL_FILE.c.lfn == FILE.c.source)
    .correlate(FILE)
    .scalar_subquery()
)
_IS_LOGICAL: Final = func.substr(FILE.c.source, 1, 4) == "LFN:"
_SIZE: Final = func.coalesce(FILE.c.size_bytes, case((_IS_LOGICAL, _LOGICAL_SIZE)))
# The columns of `Waiting`.
_WAITING: Final = (
    FILE.c.rank,
    FILE.c.number,
    FILE.c.source_element,
    FILE.c.target_element,
    FILE.c.job_number,
    _SIZE.label("size_bytes"),
)


def _of_queue(table: FromClause, queue: ColumnElement[Any]) -> ColumnElement[bool]:
    """The due files of a queue that wait neither for their time nor for who writes to their
    targets.
    """
    return and_(
        table.c.channel_uid == bindparam("uid"),
        table.c.queue == queue,
        file_in(DUE, table),
        table.c.due_us <= database_now_us(),
        unwritten(table),
    )


def _heads() -> Select[Any]:
    """The first file of each queue of a channel: goes from one queue to the next along the index,
    past all their files.
    """
    waits = and_(_AHEAD.c.channel_uid == bindparam("uid"), file_in(DUE, _AHEAD))
    first = select(func.min(_AHEAD.c.queue)).where(waits).scalar_subquery()
    queue = select(first.label("queue")).cte("waiting_queue", recursive=True)
    following = select(func.min(_AHEAD.c.queue)).where(waits, _AHEAD.c.queue > queue.c.queue)
    queue = queue.union_all(
        select(following.correlate(queue).scalar_subquery()).where(queue.c.queue.is_not(None))
    )
    head = (
        select(_HEAD.c.number)
        .where(_of_queue(_HEAD, queue.c.queue))
        .order_by(_HEAD.c.rank, _HEAD.c.number)
        .limit(1)
        .correlate(queue)
    )
    found = (
        select(head.scalar_subquery().label("number"))
        .where(queue.c.queue.is_not(None))
        .subquery("found")
    )
    return select(FILE.c.queue, *_WAITING).join(found, found.c.number == FILE.c.number)


def _waiting_channels() -> Select[Any]:
    """The channels on which something waits, in the same manner."""
    first = select(func.min(_AHEAD.c.channel_uid)).where(file_in(DUE, _AHEAD)).scalar_subquery()
    channel = select(first.label("uid")).cte("waiting_channel", recursive=True)
    following = select(func.min(_AHEAD.c.channel_uid)).where(
        file_in(DUE, _AHEAD), _AHEAD.c.channel_uid > channel.c.uid
    )
    channel = channel.union_all(
        select(following.correlate(channel).scalar_subquery()).where(channel.c.uid.is_not(None))
    )
    return select(channel.c.uid).where(channel.c.uid.is_not(None))


HEADS: Final = _heads()
WAITING_CHANNELS: Final = _waiting_channels()
OF_QUEUE: Final = (
    select(*_WAITING)
    .where(_of_queue(FILE, bindparam("queue")))
    .order_by(FILE.c.rank, FILE.c.number)
    .limit(bindparam("limit"))
)
PLACE: Final = func.coalesce(FILE.c.place, FILE.c.number)
"""Which place a running file takes: those that share one have the same."""
_COUNT: Final = func.count(PLACE.distinct()).label("places")
# What is removed lies on no channel, and takes no place.
_RUNNING: Final = and_(file_in(RUNNING), FILE.c.channel_uid != NO_CHANNEL)
_RUNNING_ON: Final = select(_COUNT).where(FILE.c.channel_uid == bindparam("uid"), _RUNNING)
_RUNNING_ALL: Final = (
    select(FILE.c.channel_uid, FILE.c.source_element, FILE.c.target_element, PLACE)
    .where(_RUNNING)
    .distinct()
)
# Files whose lease ran out, with what those that share a place have in common.
_ABANDONED: Final = (
    select(FILE.c.number, FILE.c.job_number, FILE.c.channel_uid, PLACE)
    .where(_RUNNING, FILE.c.lease_until_us <= database_now_us())
    .order_by(FILE.c.number)
    .limit(MOST_FILES)
)

# So many channels are counted one by one: so a claim meets others on its channels alone.
_FEW: Final = 4


@dataclass(frozen=True, slots=True)
class Running:
    """How many places are taken: on channels, out of storage elements and into them."""

    on: Counter[str] = field(default_factory=Counter)
    out_of: Counter[str] = field(default_factory=Counter)
    into: Counter[str] = field(default_factory=Counter)


def running(conn: Connection, uids: Collection[str], *, elements: bool) -> Running:
    """Count what moves.

    Parameters:
        uids: on these channels.
        elements: on all channels, and by storage element.
    """
    found = Running()
    if not elements and len(uids) <= _FEW:
        for uid in uids:
            found.on[uid] = places_taken(conn, uid)
        return found
    # Files that share a place may have copies at several storage elements as their sources.
    places = [tuple(row) for row in run_kept(conn, _RUNNING_ALL)]
    found.on.update(uid for uid, _ in {(uid, place) for uid, _, _, place in places})
    found.out_of.update(source for source, _ in {(source, place) for _, source, _, place in places})
    found.into.update(target for target, _ in {(target, place) for _, _, target, place in places})
    return found


def places_taken(conn: Connection, uid: str) -> int:
    """How many places of a channel are taken."""
    return int(run_kept(conn, _RUNNING_ON, uid=uid).scalar_one())


def running_of_vos(conn: Connection, uids: Collection[str]) -> dict[tuple[str, str], int]:
    """Count the places taken on some channels, by channel and VO."""
    found: dict[tuple[str, str], int] = {}
    of_queues = (
        select(FILE.c.channel_uid, FILE.c.queue, _COUNT)
        .where(FILE.c.channel_uid.in_(sorted(uids)), _RUNNING)
        .group_by(FILE.c.channel_uid, FILE.c.queue)
    )
    for uid, queue, count in conn.execute(of_queues):
        key = uid, queue.partition("/")[0]
        found[key] = found.get(key, 0) + count
    return found


def room_at(elements: StorageElements, moving: Running) -> ElementRoom:
    """What storage elements with limits still take."""
    out: dict[str, int] = {}
    into: dict[str, int] = {}
    for element in elements.all():
        if element.limits.max_active_out:
            out[element.resource] = element.limits.max_active_out - moving.out_of[element.resource]
        if element.limits.max_active_in:
            into[element.resource] = element.limits.max_active_in - moving.into[element.resource]
    return ElementRoom(out, into)


def has_limits(elements: StorageElements) -> bool:
    """Whether any storage element takes only so many files at once."""
    limits = (element.limits for element in elements.all())
    return any(one.max_active_in or one.max_active_out for one in limits)


def placed(row: FileRow, order: MoveOrder, room: ElementRoom) -> MoveOrder | None:
    """The order with those sources alone that have a place left: the first one takes it, and those
    beside it need none. None when none has. The source that the file waited at is counted already.
    """
    names = {one.storage_element for one in order.sources}
    if room.unlimited or names == {row.source_element}:
        return order
    own = row.source_element
    fits = (
        one for one in order.sources if own == (name := one.storage_element) or room.fits(name, "")
    )
    first = next(fits, None)
    if first is None:
        return None
    if first.storage_element != own:
        room.take(first.storage_element, "")
    beside = (
        one
        for one in order.sources
        if one is not first
        and (
            one.storage_element == first.storage_element
            or not room.counts_out_of(one.storage_element)
        )
    )
    return replace(order, sources=[first, *beside])


def lanes(
    conn: Connection,
    channels: Sequence[Channel],
    moving: Running,
    room: ElementRoom,
    limit: int,
    bundle: Bundle = ALONE,
) -> tuple[list[Lane], Collection[str]]:
    """The channels that have free places and on which files may wait, and the uids of those that
    have places alone.

    Parameters:
        limit: at most so many places are given.
    """
    ahead = 0 if room.unlimited else LOOK_AHEAD
    free = {
        channel.uid: min(limit, channel.places - moving.on[channel.uid]) for channel in channels
    }
    open_ = [channel for channel in channels if free[channel.uid] > 0]
    idle: set[str] = set()
    if len(open_) > 1:
        waits = {uid for (uid,) in run_kept(conn, WAITING_CHANNELS)}
        idle = {channel.uid for channel in open_} - waits
        open_ = [channel for channel in open_ if channel.uid in waits]
    found = [
        Lane(
            uid=channel.uid,
            places=channel.places,
            free=free[channel.uid],
            vo_shares=channel.vo_shares,
            queues=partial(
                _queues,
                conn,
                channel.uid,
                max(ahead, free[channel.uid] * bundle.files),
            ),
        )
        for channel in open_
    ]
    return found, idle


def _queues(conn: Connection, uid: str, most: int) -> list[Queue]:
    """What waits on a channel.

    Parameters:
        most: so many files of a queue are looked at.
    """
    queues: list[Queue] = []
    for name, *first in map(tuple, run_kept(conn, HEADS, uid=uid).all()):
        vo, _, activity = name.partition("/")
        head = Waiting._make(first)
        queues.append(Queue(vo, activity, _files(conn, uid, name, head, most)))
    return queues


def _files(conn: Connection, uid: str, queue: str, head: Waiting, most: int) -> Iterator[Waiting]:
    """The files of a queue: the first one is known, the others are read when they are needed."""
    yield head
    if most > 1:
        for row in run_kept(conn, OF_QUEUE, uid=uid, queue=queue, limit=most).all():
            if row.number != head.number:
                yield Waiting._make(row)


def leased(
    conn: Connection, numbers: Sequence[int], *, holder: str, ttl: timedelta
) -> dict[int, FileRow]:
    """Files that are due and that nobody has meanwhile, locked, as they are when they are leased to
    a holder; by number. The lease is written with what becomes of them (`changes`).
    """
    # Filled up to a power of two, so that few statements serve all sizes.
    size = 1 << (len(numbers) - 1).bit_length()
    keys = {f"key_{n}": number for n, number in zip_longest(range(size), numbers)}
    last = numbers[-1]
    found = run_kept(
        conn,
        _leased(size),
        **{name: last if number is None else number for name, number in keys.items()},
        holder=holder,
        ttl_us=ttl // timedelta(microseconds=1),
    )
    return {row.number: row for row in map(FileRow._make, found.all())}


def lease_abandoned(
    conn: Connection, limit: int, *, holder: str, ttl: timedelta
) -> tuple[list[list[FileRow]], bool]:
    """Lease files whose attempt lost its process, by the places that they take.

    Parameters:
        limit: at most so many places.

    Returns:
        The files, and whether there may be more of them.
    """
    places: dict[tuple[Any, ...], list[int]] = {}
    lost = conn.execute(_ABANDONED).all()
    for number, *place in lost:
        places.setdefault(tuple(place), []).append(number)
    taken = list(islice(places.values(), limit))
    if not taken:
        return [], False
    numbers = list(chain.from_iterable(taken))
    found = claim_due(
        conn,
        FILE,
        where=and_(_RUNNING, FILE.c.number.in_(numbers)),
        order_by=[FILE.c.number],
        limit=len(numbers),
        holder=holder,
        ttl=ttl,
    )
    rows = {row.number: row for row in map(FileRow._make, found)}
    leased = ([rows[number] for number in place if number in rows] for place in taken)
    return [place for place in leased if place], len(taken) == limit or len(lost) == MOST_FILES


@lru_cache(maxsize=32)
def _leased(size: int) -> Select[Any]:
    lease: Mapping[str, ColumnElement[Any]] = {
        "lease_holder": bindparam("holder", type_=String),
        "lease_epoch": FILE.c.lease_epoch + 1,
        "lease_until_us": database_now_us() + bindparam("ttl_us", type_=BigInteger),
    }
    columns = (lease.get(name, FILE.c[name]).label(name) for name in FileRow._fields)
    # Of holders that claim at the same time (PostgreSQL) each passes by what another is claiming.
    return (
        select(*columns)
        .where(
            FILE.c.number.in_([bindparam(f"key_{n}") for n in range(size)]),
            file_in(DUE),
            FILE.c.due_us <= database_now_us(),
            FILE.c.lease_until_us <= database_now_us(),
        )
        .with_for_update(skip_locked=True)
    )
