"""Files that wait at storage elements which are banned.

Responsible for finding them, along the indexes of the unfinished files at an element and of those
that are blocked, and for the transaction that blocks, cancels and lets them go. What a ban means is
`bans`'; a file that is missed here is stopped when it is claimed (`moving`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_transfer import messages
from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving import file_transfers
from gridlane_transfer.moving.alternatives import Alternatives, Source
from gridlane_transfer.states import BLOCKED, UNFINISHED, FileState, JobKind
from gridlane_transfer.storage.bans import BannedFile, Barred, Operation, banned_file, cancelled
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import catalogue, onward
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.onward import Ways
from gridlane_transfer.store.tables import BLOCKED_FOR, FILE, FILE_COLUMNS, FileRow, JobRow, file_in

PAGE: Final = 200
"""So many files are looked at at once."""

CONCERNED: Final = frozenset(
    {FileState.READY, FileState.RETRYING, FileState.BLOCKED, FileState.ACTIVE}
)
"""What a ban, or its end, can change."""

_UNFINISHED: Final = file_in(UNFINISHED)
_BLOCKED: Final = file_in(BLOCKED)
_CONCERNED: Final = sorted(int(state) for state in CONCERNED)
_FILES: Final = (
    select(*FILE_COLUMNS)
    .where(FILE.c.number.in_(bindparam("numbers", expanding=True)), FILE.c.state.in_(_CONCERNED))
    .order_by(FILE.c.number)
    .with_for_update()
)
# It waits as long as it may, says its review.
_LOOK_AGAIN: Final = (
    update(FILE)
    .where(BLOCKED_FOR, FILE.c.source.in_(bindparam("names", expanding=True)))
    .values(due_us=bindparam("now"))
)


@dataclass(frozen=True, slots=True)
class Review:
    """A file that is to stand as the bans say."""

    number: int


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What was done: whether its copy is to be ended, and whether it may start."""

    aborted: bool = False
    started: bool = False


def at_element(conn: Connection, element: str, end: str, after: int) -> list[int]:
    """The numbers of the next files at an element that a ban may concern.

    Parameters:
        element: the resource name.
        end: which of their ends it is, "source" or "target".
        after: the number of the last one seen.
    """
    statement = (
        select(FILE.c.number)
        .where(FILE.c[f"{end}_element"] == element, _UNFINISHED, FILE.c.number > after)
        .where(FILE.c.state.in_(_CONCERNED))
        .order_by(FILE.c.number)
        .limit(PAGE)
    )
    return list(conn.execute(statement).scalars())


def blocked(conn: Connection, after: tuple[int, int]) -> list[tuple[int, int]]:
    """The next files that are blocked: until when they wait, and their numbers, in that order.

    Parameters:
        after: the last one seen.
    """
    due_us, number = after
    later = (FILE.c.due_us > due_us) | ((FILE.c.due_us == due_us) & (FILE.c.number > number))
    statement = (
        select(FILE.c.due_us, FILE.c.number)
        .where(_BLOCKED, FILE.c.due_us >= due_us, later)
        .order_by(FILE.c.due_us, FILE.c.number)
        .limit(PAGE)
    )
    return [(row.due_us, row.number) for row in conn.execute(statement)]


def next_deadline_us(conn: Connection) -> int | None:
    """When the first of the files that are blocked has waited long enough; None: none is."""
    statement = select(FILE.c.due_us).where(_BLOCKED).order_by(FILE.c.due_us).limit(1)
    found: int | None = conn.execute(statement).scalar()
    return found


def copies_came(conn: Connection, elements: StorageElements, lfns: Collection[str]) -> None:
    """Have the files that a ban keeps waiting looked at again whose logical source has a new copy:
    in the transaction that registers it, so that they are whoever dies then.

    Parameters:
        lfns: the logical names.
    """
    if lfns and elements.bans.any:
        conn.execute(_LOOK_AGAIN, {"now": now_us(), "names": sorted(lfns)})


def review(
    conn: Connection,
    entries: Sequence[Review],
    *,
    feed: Feed,
    channels: Channels,
    elements: StorageElements,
) -> list[Reviewed | Exception]:
    """Have files stand as the bans say that this process knows."""
    numbers = sorted({entry.number for entry in entries})
    rows = [FileRow._make(row) for row in conn.execute(_FILES, {"numbers": numbers})]
    changes = Changes(conn, feed, channels, now_us())
    changes.load({row.job_number for row in rows})
    lfns = {name for row in rows for name in file_transfers.names_to_resolve(row)}
    known = catalogue.files(conn, sorted(lfns)) if lfns else {}
    done: dict[int, Reviewed] = {}
    for row in rows:
        ways = Ways(channels, elements, row, changes.job(row.job_number), known)
        done[row.number] = _stand(changes, ways)
    changes.save()
    return [done.get(entry.number, Reviewed()) for entry in entries]


def _stand(changes: Changes, ways: Ways) -> Reviewed:
    row, found = ways.row, _barred(ways)
    state = FileState(row.state)
    if state is FileState.ACTIVE:
        if found is None or not found.cancels:
            return Reviewed()
        changes.file(row, FileState.CANCELING, failure=cancelled(found.ban))
        changes.by_bans([found.ban.uid])
        return Reviewed(aborted=True)
    if found is None:
        if state is not FileState.BLOCKED:
            return Reviewed()
        _let_go(changes, ways)
        return Reviewed(started=True)
    stop(changes, row, found)
    return Reviewed()


def _let_go(changes: Changes, ways: Ways) -> None:
    """Have a file start that waited; elsewhere, if the source that it waits at is banned."""
    row = changes.file(ways.row, FileState.READY, due_us=now_us())
    if not ways.elements.barred(row.source_element, Operation.READ, ways.job.vo):
        return
    several = another_source(ways)
    if several is not None:
        onward.to_source(changes, ways, row, FileState.READY, several)
        return
    logical = ways.known.get(file_transfers.source_of(row))
    if logical is None or ways.job.kind == JobKind.DELETION:
        return
    for name, channel in ways.of_copies(logical).items():
        if not ways.elements.barred(name, Operation.READ, ways.job.vo):
            changes.file(row, FileState.READY, source_element=name, channel_uid=channel.uid)
            return


def stop(changes: Changes, row: FileRow, found: Barred) -> BannedFile:
    """Have a file that has not started wait, or end, and count it for its ban."""
    job = changes.job(row.job_number)
    stopped = banned_file(found, job.create_us, now_us())
    reason = messages.failure_message(stopped.failure).SerializeToString()
    if (row.state, row.due_us, row.failure) == (stopped.state, stopped.due_us, reason):
        return stopped  # it stands so already
    changes.file(
        row, stopped.state, failure=stopped.failure, due_us=stopped.due_us, lease_until_us=0
    )
    if row.state != stopped.state:
        changes.by_bans(stopped.bans)
    return stopped


def barred_at_claim(
    row: FileRow, job: JobRow, order: MoveOrder, elements: StorageElements
) -> Barred | None:
    """What keeps a file from starting as it was planned; None when nothing does."""
    target = elements.barred(row.target_element, Operation.WRITE, job.vo)
    sources = [one.storage_element for one in order.sources]
    return _together(target, _sources_barred(sources, job, elements))


def stop_at_claim(changes: Changes, row: FileRow, order: MoveOrder, found: Barred) -> None:
    """Have a file that was claimed wait, or end; it waits at the source that it would have had."""
    waiting = row._replace(source_element=row.source_element or order.sources[0].storage_element)
    stop(changes, waiting, found)


def another_source(ways: Ways) -> Alternatives | None:
    """The sources of a file with one chosen that may be read, where the present one may not; None
    when there is no such one, or the target is what is banned.
    """
    row, job, elements = ways.row, ways.job, ways.elements
    several = file_transfers.alternatives_of(row)
    if several is None or elements.barred(row.target_element, Operation.WRITE, job.vo):
        return None
    several = ways.with_new_copies(several)
    free = []
    for index, source in enumerate(several.sources):
        if index == several.now or index in several.gone:
            continue
        places = ways.of(source)
        if places and not _sources_barred(places, job, elements):
            free.append(index)
    if not free:
        return None
    fresh = [index for index in free if index not in several.tried]
    return replace(several, now=(fresh or free)[0])


def without_barred(order: MoveOrder, job: JobRow, elements: StorageElements) -> MoveOrder:
    """The order without sources that may not be read now; those that are only probed come last.
    Its ends copy between them only where all of them may.
    """
    if not _may_copy_between(order, job, elements):
        order = replace(order, third_party=False)
    if len(order.sources) == 1:
        return order
    free = [
        one
        for one in order.sources
        if elements.barred(one.storage_element, Operation.READ, job.vo) is None
    ]
    free.sort(key=lambda one: elements.is_probed(one.storage_element))
    return order if list(order.sources) == free or not free else replace(order, sources=free)


def _may_copy_between(order: MoveOrder, job: JobRow, elements: StorageElements) -> bool:
    """Whether no end is kept from copying with another storage, by its endpoint or by a ban."""
    ends = [
        (order.target, Operation.THIRD_PARTY_WRITE),
        *((source, Operation.THIRD_PARTY_READ) for source in order.sources),
    ]
    return all(
        elements.copies_between(end, operation)
        and elements.barred(end.storage_element, operation, job.vo) is None
        for end, operation in ends
    )


def _barred(ways: Ways) -> Barred | None:
    """What keeps a file from starting, whichever of its sources were taken."""
    row, job, elements = ways.row, ways.job, ways.elements
    if job.kind == JobKind.DELETION:
        return _removal_barred(row, job, elements)
    target = elements.barred(row.target_element, Operation.WRITE, job.vo)
    return _together(target, _sources_barred(_source_elements(ways), job, elements))


def _removal_barred(row: FileRow, job: JobRow, elements: StorageElements) -> Barred | None:
    """What keeps a file from being removed; a removal that runs is done in a moment."""
    if row.state == FileState.ACTIVE or not row.source_element:
        return None
    return elements.barred(row.source_element, Operation.REMOVE, job.vo)


def _source_elements(ways: Ways) -> Collection[str]:
    """The resource names of the elements that a file can be read from; an empty one stands for
    those of a name that is not registered.
    """
    row = ways.row
    if row.state == FileState.ACTIVE:
        return [row.source_element]
    several = file_transfers.alternatives_of(row)
    if several is not None:
        several = ways.with_new_copies(several)
        left = (one for n, one in enumerate(several.sources) if n not in several.gone)
        return [name for one in left for name in ways.of(one)]
    name = file_transfers.source_of(row)
    found = ways.of(Source(name, "")) if name in ways.known else ()
    return found or [one for one in (row.source_element,) if one]


def _sources_barred(
    names: Collection[str], job: JobRow, elements: StorageElements
) -> Barred | None:
    """What keeps every one of some sources from being read: the mildest of it, since one that may
    be read again is enough.
    """
    found = [elements.barred(name, Operation.READ, job.vo) for name in names]
    bars = [one for one in found if one is not None]
    if not bars or len(bars) < len(found):
        return None
    return min(bars, key=lambda one: one.ban.severity)


def _together(one: Barred | None, other: Barred | None) -> Barred | None:
    return other if one is None else one.with_others(other)
