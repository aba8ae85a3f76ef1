"""The replica catalogue's rows: logical files and where their copies lie.

Responsible for statements, and for the one rule that the catalogue itself keeps: every copy of a
logical file has the same bytes.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, insert, select, update

from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_transfer.store.tables import LOGICAL_FILE, REPLICA

# Kept: to build them anew costs more than to run them.
_FILES = select(LOGICAL_FILE).where(LOGICAL_FILE.c.lfn.in_(bindparam("lfns", expanding=True)))
_REPLICAS = (
    select(REPLICA)
    .where(REPLICA.c.lfn.in_(bindparam("lfns", expanding=True)))
    .order_by(REPLICA.c.create_us, REPLICA.c.url)
)
KEYSET = Keyset(LOGICAL_FILE.c.lfn)
"""The order of listings."""


@dataclass(frozen=True, slots=True)
class StoredReplica:
    """One copy."""

    url: str
    storage_element: str
    create_us: int


@dataclass(frozen=True, slots=True)
class LogicalFile:
    """A logical file with its copies, in the order of their registration."""

    lfn: str
    vo: str
    owner: str
    size_bytes: int
    checksum: str
    create_us: int
    replicas: tuple[StoredReplica, ...]

    def replica(self, url: str) -> StoredReplica | None:
        """The copy of a URL; None when it is not registered."""
        return next((replica for replica in self.replicas if replica.url == url), None)


@dataclass(frozen=True, slots=True)
class Registration:
    """A copy to register.

    Parameters:
        checksums: by algorithm; the first one is registered when the file is new.
        replaces: whether the copy's bytes took the place of others under the same URL.
        guid: the one that the submitter gave; empty for none. No column keeps it yet, and
            `capabilities` refuses it.
    """

    lfn: str
    url: str
    storage_element: str
    vo: str
    owner: str
    size_bytes: int
    checksums: Mapping[str, str]
    replaces: bool
    time_us: int
    guid: str = ""

    @property
    def checksum(self) -> str:
        """The first checksum, as it is stored."""
        name, value = next(iter(self.checksums.items()))
        return f"{name}:{value}"


class ConflictError(Exception):
    """The logical file is registered with other bytes; the message says which."""


def files(conn: Connection, lfns: Sequence[str]) -> dict[str, LogicalFile]:
    """Logical files by name; what is not registered is left out."""
    return _with_replicas(conn, conn.execute(_FILES, {"lfns": lfns}).all())


def page_below(
    conn: Connection, prefix: str, visible: ColumnElement[bool], page: Page
) -> tuple[list[LogicalFile], str]:
    """A page of the logical files whose names begin with `prefix`, and the token of the next
    page.
    """
    lfn = LOGICAL_FILE.c.lfn
    statement = select(LOGICAL_FILE).where(lfn >= prefix, lfn < _beyond(prefix), visible)
    rows, token = fetch_page(conn, statement, KEYSET, page)
    return list(_with_replicas(conn, rows).values()), token


def _beyond(prefix: str) -> str:
    """The first text that sorts behind every name with the prefix: its last character raised by
    one, which jumps over the halves of surrogate pairs and ends at the last character of all.
    """
    raisable = prefix.rstrip(chr(sys.maxunicode))
    after = ord(raisable[-1]) + 1
    return raisable[:-1] + chr(0xE000 if after == 0xD800 else after)


def require_agreement(conn: Connection, copy: Registration) -> LogicalFile | None:
    """The logical file as it is registered, None when it is new; refuses a copy with other bytes.

    Raises:
        ConflictError: the file is registered with another size or checksum. Bytes that replace the
            file's only copy are no conflict.
    """
    known = files(conn, [copy.lfn]).get(copy.lfn)
    if known is None or _same(known, copy):
        return known
    others = [replica for replica in known.replicas if replica.url != copy.url]
    if others or not copy.replaces:
        raise ConflictError(
            f"{copy.lfn} is registered with {known.size_bytes} bytes and {known.checksum};"
            f" the copy on {copy.storage_element} has {copy.size_bytes} bytes and {copy.checksum}"
        )
    return known


def register(conn: Connection, copy: Registration) -> LogicalFile:
    """Register a copy, and its logical file when that is new.

    Raises:
        ConflictError: as `require_agreement`. Bytes that replaced the only copy change the file.
    """
    known = require_agreement(conn, copy)
    if known is None:
        _insert_file(conn, copy)
    elif not _same(known, copy):
        conn.execute(
            update(LOGICAL_FILE)
            .where(LOGICAL_FILE.c.lfn == copy.lfn)
            .values(size_bytes=copy.size_bytes, checksum=copy.checksum)
        )
    if known is None or known.replica(copy.url) is None:
        conn.execute(
            insert(REPLICA).values(
                url=copy.url,
                lfn=copy.lfn,
                storage_element=copy.storage_element,
                create_us=copy.time_us,
            )
        )
    return files(conn, [copy.lfn])[copy.lfn]


def unregister(conn: Connection, lfn: str, urls: Iterable[str]) -> None:
    """Forget copies, and the logical file with the last one."""
    conn.execute(delete(REPLICA).where(REPLICA.c.lfn == lfn, REPLICA.c.url.in_(list(urls))))
    left = select(REPLICA.c.url).where(REPLICA.c.lfn == lfn).exists()
    conn.execute(delete(LOGICAL_FILE).where(LOGICAL_FILE.c.lfn == lfn, ~left))


def _same(known: LogicalFile, copy: Registration) -> bool:
    algorithm, _, value = known.checksum.partition(":")
    return known.size_bytes == copy.size_bytes and copy.checksums.get(algorithm) == value


def _insert_file(conn: Connection, copy: Registration) -> None:
    conn.execute(
        insert(LOGICAL_FILE).values(
            lfn=copy.lfn,
            vo=copy.vo,
            owner=copy.owner,
            size_bytes=copy.size_bytes,
            checksum=copy.checksum,
            create_us=copy.time_us,
        )
    )


def _with_replicas(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, LogicalFile]:
    if not rows:
        return {}
    found: dict[str, list[StoredReplica]] = {row.lfn: [] for row in rows}
    for replica in conn.execute(_REPLICAS, {"lfns": list(found)}):
        found[replica.lfn].append(
            StoredReplica(replica.url, replica.storage_element, replica.create_us)
        )
    return {
        row.lfn: LogicalFile(
            row.lfn,
            row.vo,
            row.owner,
            row.size_bytes,
            row.checksum,
            row.create_us,
            tuple(found[row.lfn]),
        )
        for row in rows
    }
