"""The audit: rows that are written once, and read by those whom they concern."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    false,
    insert,
    or_,
    select,
    true,
)

from gridlane.ids import uuid7_floor
from gridlane_authorization.store.tables import AUDIT
from gridlane_kit.decision import Visibility
from gridlane_kit.filters import Filter
from gridlane_kit.listing import along_indexes
from gridlane_kit.pages import Keyset, Page, fetch_page

NEWEST_FIRST: Final = Keyset(AUDIT.c.uid, descending=True)

_FILTERED: Final = {name: AUDIT.c[name] for name in ("actor", "resource", "vo", "method")}
# Ids are of the clock of who wrote the entry, like its time, but made a moment later.
_BESIDE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its columns."""

    uid: str
    time_us: int
    principal: str
    actor: str
    service: str
    method: str
    resource: str
    vo: str
    reason: str
    permission: str
    rule: str
    status: bytes | None
    before_json: str | None
    after_json: str | None
    policy_revision: int
    trace_id: str
    peer: str


_FIELDS: Final = tuple(Entry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Window:
    """A time, half-open, microseconds since 1970-01-01 UTC; None: no bound."""

    start_us: int | None = None
    end_us: int | None = None


def append(conn: Connection, entry: Entry) -> None:
    """Writes an entry."""
    conn.execute(insert(AUDIT).values({name: getattr(entry, name) for name in _FIELDS}))


def visible(conn: Connection, uid: str, visibility: Visibility) -> Entry | None:
    """Returns an entry that the caller may see."""
    where = and_(AUDIT.c.uid == uid, or_(false(), *_reaches(visibility, None)))
    row = conn.execute(select(AUDIT).where(where)).one_or_none()
    return None if row is None else _entry(row)


def page(
    conn: Connection, visibility: Visibility, filter_: Filter, window: Window, page_: Page
) -> tuple[list[Entry], str]:
    """A page of the entries that a caller sees, newest first, and the token of the next page."""
    where = and_(filter_.where(_FILTERED), _within(window))
    reaches = _reaches(visibility, filter_.value("vo"))
    statement = along_indexes(AUDIT, reaches, where, NEWEST_FIRST, page_)
    rows, token = fetch_page(conn, statement, NEWEST_FIRST, page_)
    return [_entry(row) for row in rows], token


def prune(conn: Connection, before_us: int, limit: int) -> int:
    """Deletes the oldest entries that were written before a time; returns how many, at most
    `limit`."""
    old = (
        select(AUDIT.c.uid)
        .where(AUDIT.c.uid < uuid7_floor(max(0, before_us // 1000)))
        .order_by(AUDIT.c.uid)
        .limit(limit)
    )
    return conn.execute(delete(AUDIT).where(AUDIT.c.uid.in_(old))).rowcount


def _reaches(visibility: Visibility, vo: str | None) -> list[ColumnElement[bool]]:
    """The parts of what a caller sees: everything, or what concerns a VO of its."""
    if visibility.nothing or visibility.job is not None:
        return []
    if visibility.everything:
        return [true()]
    return [AUDIT.c.vo == name for name in sorted(visibility.vos) if vo in (None, name)]


def _within(window: Window) -> ColumnElement[bool]:
    """The entries of a time: about there by their ids, exactly by their times."""
    conditions: list[ColumnElement[bool]] = [true()]
    if window.start_us is not None:
        first = uuid7_floor(max(0, window.start_us // 1000 - _BESIDE_MS))
        conditions += [AUDIT.c.uid >= first, AUDIT.c.time_us >= window.start_us]
    if window.end_us is not None:
        last = uuid7_floor(max(0, window.end_us // 1000 + _BESIDE_MS))
        conditions += [AUDIT.c.uid < last, AUDIT.c.time_us < window.end_us]
    return and_(*conditions)


def _entry(row: Row[Any]) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _FIELDS})
