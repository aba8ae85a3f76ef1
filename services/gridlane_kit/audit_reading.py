"""The audit as its readers see it: what all services' methods that show theirs have in common.

Responsible for who sees which entries, for filters, times and pages, and for the contract's form of
an entry. What is kept is `audit`'s.
"""

import json
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict
from google.rpc import status_pb2
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    false,
    func,
    literal,
    or_,
    select,
    true,
)

from gridlane.authorization.v1 import audit_entry_pb2
from gridlane.ids import uuid7_floor
from gridlane.type.v1 import time_window_pb2
from gridlane_kit import errors
from gridlane_kit.audit import FILTERED, AuditEntry
from gridlane_kit.call import Call
from gridlane_kit.clock import given_us, to_timestamp
from gridlane_kit.database import Database, rows_by_key
from gridlane_kit.decision import Visibility
from gridlane_kit.filters import Field, Filter, FilterRules
from gridlane_kit.identity import Principal
from gridlane_kit.listing import along_indexes
from gridlane_kit.pages import Keyset, Page, fetch_page, next_page_token, page_request
from gridlane_kit.principal_messages import principal_message

_PREFIX: Final = "auditEntries/"
FILTER: Final = FilterRules(
    {name: Field(str) for name in FILTERED}, combinations=[[name] for name in FILTERED]
)
# Ids are of the clock of who wrote the entry, like its time, but made a moment later.
_BESIDE_MS: Final = 60_000
# Characters that are kept of the entries in one answer: as a message they stay below 4 MiB.
_LARGEST_PAGE: Final = 1024 * 1024
# Of one entry beside its long texts.
_OVERHEAD: Final = 512


@dataclass(frozen=True, slots=True)
class Window:
    """A time, half-open, microseconds since 1970-01-01 UTC; None: no bound."""

    start_us: int | None = None
    end_us: int | None = None


class ListRequest(Protocol):
    """What every service's ListAuditEntriesRequest has."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...
    @property
    def filter(self) -> str: ...
    @property
    def window(self) -> time_window_pb2.TimeWindow: ...


class AuditReader:
    """Shows who changed what.

    Parameters:
        table: the service's audit.
    """

    def __init__(self, db: Database, table: Table) -> None:
        self._db = db
        self._table = table

    async def get(self, name: str, call: Call) -> audit_entry_pb2.AuditEntry:
        """Shows one entry.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        uid = name.removeprefix(_PREFIX)
        found = await self._db.read(lambda conn: visible(conn, self._table, uid, call.visibility))
        if found is None:
            raise errors.not_found(name)
        return entry_message(found)

    async def list(
        self, request: ListRequest, call: Call
    ) -> tuple[list[audit_entry_pb2.AuditEntry], str]:
        """Lists the entries that the caller may see: a page, and the token of the next one.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED, TOKEN_NOT_OURS.
        """
        asked = FILTER.parse(request.filter)
        window = Window(
            given_us(request.window, "start_time"), given_us(request.window, "end_time")
        )
        wanted = page_request(
            newest_first(self._table),
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, asked.canonical, repr(window), call.principal.owner),
        )
        found, token = await self._db.read(
            lambda conn: page(conn, self._table, call.visibility, asked, window, wanted)
        )
        return [entry_message(entry) for entry in found], token


def newest_first(table: Table) -> Keyset:
    """The order of a listing."""
    return Keyset(table.c.uid, descending=True)


def visible(conn: Connection, table: Table, uid: str, visibility: Visibility) -> AuditEntry | None:
    """An entry that the caller may see."""
    where = and_(table.c.uid == uid, or_(false(), *_reaches(table, visibility, None)))
    row = conn.execute(select(table).where(where)).one_or_none()
    return None if row is None else AuditEntry(*row)


def page(
    conn: Connection,
    table: Table,
    visibility: Visibility,
    filter_: Filter,
    window: Window,
    page_: Page,
) -> tuple[list[AuditEntry], str]:
    """A page of the entries that a caller sees, newest first, and the token of the next page; fewer
    than were asked for where those do not fit into one answer.
    """
    columns = {name: table.c[name] for name in FILTERED}
    where = and_(filter_.where(columns), _within(table, window))
    reaches = _reaches(table, visibility, filter_.value("vo"))
    order, what = newest_first(table), [table.c.uid, _size(table).label("size")]
    rows, token = fetch_page(conn, along_indexes(what, reaches, where, order, page_), order, page_)
    sizes = accumulate(row.size for row in rows)
    # The first one is answered whatever its size is.
    fitting = max(1, sum(size <= _LARGEST_PAGE for size in sizes))
    uids = [row.uid for row in rows[:fitting]]
    if len(uids) < len(rows):
        token = next_page_token(uids[-1:], page_)
    found = [AuditEntry(*row) for row in rows_by_key(conn, list(table.c), table.c.uid, uids)]
    return sorted(found, reverse=True), token


def entry_message(entry: AuditEntry) -> audit_entry_pb2.AuditEntry:
    """The contract's form of an entry."""
    message = audit_entry_pb2.AuditEntry(
        name=_PREFIX + entry.uid,
        time=to_timestamp(entry.time_us),
        actor=principal_message(Principal.from_json(entry.principal)),
        service=entry.service,
        method=entry.method,
        resource=entry.resource,
        vo=entry.vo,
        reason=entry.reason,
        permission=entry.permission,
        rule=entry.rule,
        policy_revision=entry.policy_revision,
        trace_id=entry.trace_id,
        peer=entry.peer,
    )
    if entry.status is not None:
        message.status.CopyFrom(status_pb2.Status.FromString(entry.status))
    for field, text in (("before", entry.before_json), ("after", entry.after_json)):
        if text is not None:
            getattr(message, field).CopyFrom(ParseDict(json.loads(text), struct_pb2.Struct()))
    return message


def _reaches(table: Table, visibility: Visibility, vo: str | None) -> list[ColumnElement[bool]]:
    """The parts of what a caller sees: everything, or what concerns a VO of its."""
    if visibility.nothing or visibility.job is not None:
        return []
    if visibility.everything:
        return [true()]
    return [table.c.vo == name for name in sorted(visibility.vos) if vo in (None, name)]


def _within(table: Table, window: Window) -> ColumnElement[bool]:
    """The entries of a time: about there by their ids, exactly by their times."""
    conditions: list[ColumnElement[bool]] = [true()]
    if window.start_us is not None:
        first = uuid7_floor(max(0, window.start_us // 1000 - _BESIDE_MS))
        conditions += [table.c.uid >= first, table.c.time_us >= window.start_us]
    if window.end_us is not None:
        last = uuid7_floor(max(0, window.end_us // 1000 + _BESIDE_MS))
        conditions += [table.c.uid < last, table.c.time_us < window.end_us]
    return and_(*conditions)


def _size(table: Table) -> ColumnElement[int]:
    """About how much an entry takes of an answer."""
    texts = [table.c.principal, table.c.reason, table.c.before_json, table.c.after_json]
    lengths = (func.coalesce(func.length(text), 0) for text in texts)
    return sum(lengths, start=literal(_OVERHEAD))
