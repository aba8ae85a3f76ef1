"""The replica catalogue's rows: logical files and where their copies lie.

Responsible for statements, and for the one rule that a catalogue keeps: every copy of a logical
file has the same bytes. Many copies take as many statements as one.
"""

import heapq
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, select, update

from gridlane.ids import uuid7
from gridlane_kit.database import insert_rows, rows_by_key
from gridlane_kit.decision import Visibility
from gridlane_kit.errors import GridlaneError
from gridlane_kit.pages import Keyset, Page, next_page_token
from gridlane_transfer.catalogue.base import (
    ConflictError,
    LogicalFile,
    Registration,
    Removal,
    StoredReplica,
)
from gridlane_transfer.store.tables import LOGICAL_FILE, REPLICA

BY_NAME: Final = Keyset(LOGICAL_FILE.c.lfn)
"""The order of listings."""

_FILE_COLUMNS: Final = tuple(LOGICAL_FILE.columns)
_REPLICA_COLUMNS: Final = tuple(REPLICA.columns)
# In one statement: SQLite takes 32 766 parameters.
_AT_ONCE: Final = 10_000
_BELOW: Final = select(*_FILE_COLUMNS).where(
    LOGICAL_FILE.c.lfn >= bindparam("prefix"), LOGICAL_FILE.c.lfn < bindparam("beyond")
)
_BELOW_OF_VO: Final = _BELOW.where(LOGICAL_FILE.c.vo == bindparam("of_vo"))
_REPLACE: Final = (
    update(LOGICAL_FILE)
    .where(LOGICAL_FILE.c.lfn == bindparam("key"))
    .values(size_bytes=bindparam("size_bytes"), checksum=bindparam("checksum"))
)


def files(conn: Connection, lfns: Collection[str]) -> dict[str, LogicalFile]:
    """Logical files by name; what is not registered is left out."""
    return _with_replicas(conn, _rows(conn, _FILE_COLUMNS, LOGICAL_FILE.c.lfn, list(lfns)))


def page_below(
    conn: Connection, prefix: str, reach: Visibility, page: Page
) -> tuple[list[LogicalFile], str]:
    """A page of the logical files within reach whose names begin with `prefix`, and the token of
    the next page.

    Those of each VO are read along an index of their own, so that a page costs the same however
    many there are of other VOs.
    """
    if reach.nothing or reach.job is not None:
        return [], ""
    given: dict[str, Any] = {"prefix": prefix, "beyond": _beyond(prefix)}
    statements = [(_BELOW, given)]
    if not reach.everything:
        statements = [(_BELOW_OF_VO, {**given, "of_vo": vo}) for vo in sorted(reach.vos)]
    found = []
    for statement, values in statements:
        if page.after is not None:
            statement = statement.where(BY_NAME.after(page.after))
        # One row more than asked tells whether there is another page.
        ordered = statement.order_by(*BY_NAME.order()).limit(page.size + 1)
        found.append(conn.execute(ordered, values).all())
    rows = list(heapq.merge(*found, key=lambda row: str(row.lfn)))
    shown = rows[: page.size]
    token = next_page_token([shown[-1].lfn], page) if len(rows) > page.size else ""
    return list(_with_replicas(conn, shown).values()), token


def _beyond(prefix: str) -> str:
    """The first text that sorts behind every name with the prefix: its last character raised by
    one, which jumps over the halves of surrogate pairs and ends at the last character of all.
    """
    raisable = prefix.rstrip(chr(sys.maxunicode))
    after = ord(raisable[-1]) + 1
    return raisable[:-1] + chr(0xE000 if after == 0xD800 else after)


def require_agreement(conn: Connection, copy: Registration) -> None:
    """Refuse a copy that could not be registered.

    Raises:
        ConflictError: as `register` answers.
    """
    conflict = _Registering(conn, [copy]).conflict(copy)
    if conflict is not None:
        raise conflict


def register(conn: Connection, copies: Sequence[Registration]) -> list[LogicalFile | ConflictError]:
    """Register copies, and their logical files when those are new.

    Returns:
        For each the file after it, in the order given; or ConflictError: the file is registered
        with another size, checksum or GUID, the GUID is another file's, or the URL another's
        copy. Bytes that replace a file's only copy are no conflict, and change the file.
    """
    registering = _Registering(conn, copies)
    answers = [registering.conflict(copy) or registering.add(copy) for copy in copies]
    registering.save()
    return answers


class _Registering:
    """Copies that are registered together: what is there of them, and what is added.

    Parameters:
        copies: all that will be asked about.
    """

    def __init__(self, conn: Connection, copies: Sequence[Registration]) -> None:
        self._conn = conn
        self._known = files(conn, {copy.lfn for copy in copies})
        guids = {copy.guid for copy in copies if copy.guid}
        self._by_guid = _names(conn, LOGICAL_FILE.c.lfn, LOGICAL_FILE.c.guid, guids)
        self._by_url = _names(conn, REPLICA.c.lfn, REPLICA.c.url, {copy.url for copy in copies})
        self._new_files: dict[str, Registration] = {}
        self._new_copies: dict[str, Registration] = {}
        self._replaced: set[str] = set()

    def conflict(self, copy: Registration) -> ConflictError | None:
        """What keeps a copy from being registered; None when nothing does."""
        known = self._known.get(copy.lfn)
        if known is not None and not _same(known, copy):
            others = [replica for replica in known.replicas if replica.url != copy.url]
            if others or not copy.replaces:
                return _other_bytes(known, copy)
        if known is not None and copy.guid and copy.guid != known.guid:
            has = f"the GUID {known.guid}" if known.guid else "no GUID"
            return ConflictError(
                copy.lfn, f"{copy.lfn} is registered with {has}, and was given {copy.guid}"
            )
        if copy.guid and self._by_guid.get(copy.guid, copy.lfn) != copy.lfn:
            return ConflictError(copy.guid, f"{copy.guid} is the GUID of another logical file")
        if self._by_url.get(copy.url, copy.lfn) != copy.lfn:
            return ConflictError(copy.url, f"{copy.url} is a copy of another logical file")
        return None

    def add(self, copy: Registration) -> LogicalFile:
        """Take in a copy that no conflict keeps away; the file with it."""
        known = self._known.get(copy.lfn)
        if known is None:
            known = _new(copy)
            self._new_files[copy.lfn] = copy
            if copy.guid:
                self._by_guid[copy.guid] = copy.lfn
        elif not _same(known, copy):
            known = replace(known, size_bytes=copy.size_bytes, checksum=copy.checksum)
            self._replaced.add(copy.lfn)
        if known.replica(copy.url) is None:
            self._by_url[copy.url] = copy.lfn
            self._new_copies[copy.url] = copy
            added = StoredReplica(copy.url, copy.storage_element, copy.time_us)
            known = replace(known, replicas=_in_order([*known.replicas, added]))
        self._known[copy.lfn] = known
        return known

    def save(self) -> None:
        """Write what was taken in."""
        insert_rows(self._conn, LOGICAL_FILE, [_row(self._known[lfn]) for lfn in self._new_files])
        replaced = [self._known[lfn] for lfn in sorted(self._replaced - self._new_files.keys())]
        if replaced:
            values = [
                {"key": file.lfn, "size_bytes": file.size_bytes, "checksum": file.checksum}
                for file in replaced
            ]
            self._conn.execute(_REPLACE, values)
        rows = [
            {
                "url": copy.url,
                "lfn": copy.lfn,
                "storage_element": copy.storage_element,
                "create_us": copy.time_us,
            }
            for copy in self._new_copies.values()
        ]
        insert_rows(self._conn, REPLICA, rows)


def unregister(conn: Connection, removals: Sequence[Removal]) -> list[int | GridlaneError]:
    """Take copies out, and each logical file with its last one.

    Returns:
        For each how many copies went, in the order given; or why it is refused.
    """
    known = files(conn, {removal.lfn for removal in removals})
    gone: list[str] = []
    ended: list[str] = []
    answers: list[int | GridlaneError] = []
    for removal in removals:
        file = known.get(removal.lfn)
        refusal = None if file is None else removal.refusal(file)
        if file is None or refusal is not None:
            answers.append(0 if refusal is None else refusal)
            continue
        left = tuple(replica for replica in file.replicas if not removal.takes(replica))
        answers.append(len(file.replicas) - len(left))
        gone += [replica.url for replica in file.replicas if replica not in left]
        known[file.lfn] = replace(file, replicas=left)
        if not left:
            ended.append(file.lfn)
            del known[file.lfn]
    for some in _parts(sorted(gone)):
        conn.execute(delete(REPLICA).where(REPLICA.c.url.in_(some)))
    for some in _parts(sorted(ended)):
        conn.execute(delete(LOGICAL_FILE).where(LOGICAL_FILE.c.lfn.in_(some)))
    return answers


def _same(known: LogicalFile, copy: Registration) -> bool:
    algorithm, _, value = known.checksum.partition(":")
    return known.size_bytes == copy.size_bytes and copy.checksums.get(algorithm) == value


def _other_bytes(known: LogicalFile, copy: Registration) -> ConflictError:
    return ConflictError(
        copy.lfn,
        f"{copy.lfn} is registered with {known.size_bytes} bytes and {known.checksum};"
        f" the copy on {copy.storage_element} has {copy.size_bytes} bytes and {copy.checksum}",
    )


def _new(copy: Registration) -> LogicalFile:
    guid = copy.guid or (uuid7() if copy.makes_guid else "")
    return LogicalFile(
        lfn=copy.lfn,
        vo=copy.vo,
        owner=copy.owner,
        size_bytes=copy.size_bytes,
        checksum=copy.checksum,
        create_us=copy.time_us,
        replicas=(),
        guid=guid,
    )


def _row(file: LogicalFile) -> Mapping[str, Any]:
    return {
        "lfn": file.lfn,
        "vo": file.vo,
        "owner": file.owner,
        "size_bytes": file.size_bytes,
        "checksum": file.checksum,
        "create_us": file.create_us,
        "guid": file.guid or None,
    }


def _in_order(replicas: Iterable[StoredReplica]) -> tuple[StoredReplica, ...]:
    """Copies in the order of their registration."""
    return tuple(sorted(replicas, key=lambda replica: (replica.create_us, replica.url)))


def _names(conn: Connection, lfn: Any, key: Any, keys: Collection[str]) -> dict[str, str]:
    """Logical names by what else is unique: a GUID, a URL."""
    rows = _rows(conn, (key, lfn), key, sorted(keys))
    return dict(map(tuple, rows))


def _with_replicas(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, LogicalFile]:
    """Files of rows, in their order."""
    found: dict[str, list[StoredReplica]] = {row.lfn: [] for row in rows}
    for replica in _rows(conn, _REPLICA_COLUMNS, REPLICA.c.lfn, list(found)):
        found[replica.lfn].append(
            StoredReplica(replica.url, replica.storage_element, replica.create_us)
        )
    return {
        row.lfn: LogicalFile(
            lfn=row.lfn,
            vo=row.vo,
            owner=row.owner,
            size_bytes=row.size_bytes,
            checksum=row.checksum,
            create_us=row.create_us,
            replicas=_in_order(found[row.lfn]),
            guid=row.guid or "",
        )
        for row in rows
    }


def _rows(conn: Connection, columns: Any, key: Any, keys: Sequence[str]) -> list[Row[Any]]:
    return [row for some in _parts(keys) for row in rows_by_key(conn, columns, key, some)]


def _parts(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))
