"""Who writes at a place: of those who would, one at a time.

Responsible for the statements by which whoever is about to write, or to remove, asks whether
another one is at it; each in the transaction in which it begins itself. Of two that crossed, one
would publish its bytes first and be registered last, and the catalogue would tell of bytes that are
no more.

A place has a writer from the moment in which one may change what lies there: from the claim of a
file until its bytes are registered, from when the bytes of a put are whole until they are, while a
file is being removed. What is read or received before that keeps nobody waiting.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from gridlane_kit.database import run_kept
from gridlane_kit.leases import database_now_us
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import NO_CHANNEL
from gridlane_transfer.moving.file_transfers import is_logical
from gridlane_transfer.states import DUE, RUNNING
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.tables import (
    FILE,
    INDEXED_URL,
    UPLOAD,
    FileRow,
    file_in,
    written_to,
)

_WRITER: Final = FILE.alias("writer")
_ONE_OF: Final = FILE.c.target_url.in_(bindparam("urls", expanding=True))
_WRITTEN: Final = (
    select(FILE.c.target_url).where(written_to(), _ONE_OF),
    # What is too long for that index: among all that move, and all that are owed a registration.
    *(
        select(FILE.c.target_url).where(one, func.length(FILE.c.target_url) > INDEXED_URL, _ONE_OF)
        for one in (file_in(RUNNING), FILE.c.arrived.is_not(None))
    ),
)
# Puts, and removals that somebody waits for, which have no temporary name, and stand for nothing
# once their process is no more; the files of deletion jobs.
_AT_WORK: Final = union_all(
    select(UPLOAD.c.url, literal_column("''"), UPLOAD.c.temporary).where(
        UPLOAD.c.checksum.is_not(None),
        or_(UPLOAD.c.temporary != "", UPLOAD.c.lease_until_us > database_now_us()),
    ),
    select(FILE.c.source, FILE.c.source_element, FILE.c.target_lfn).where(
        FILE.c.channel_uid == NO_CHANNEL, file_in(RUNNING)
    ),
)


def unwritten(files: FromClause) -> ColumnElement[bool]:
    """The condition that no other file is being written to the target of one that waits.

    Parameters:
        files: the table of those that wait, or an alias of it.
    """
    # Not EXISTS, which PostgreSQL might answer for all that wait together, by going through them.
    writer = (
        select(_WRITER.c.number)
        .where(written_to(_WRITER), _WRITER.c.target_url == files.c.target_url)
        .limit(1)
        .correlate(files)
        .scalar_subquery()
    )
    return writer.is_(None)


def written(conn: Connection, urls: Collection[str]) -> set[str]:
    """Those of some places that files are being written to."""
    if not urls:
        return set()
    found: set[str] = set()
    for statement in _WRITTEN if any(map(_is_long, urls)) else _WRITTEN[:1]:
        found.update(conn.execute(statement, {"urls": sorted(urls)}).scalars())
    return found


def urls_of(elements: StorageElements, url: str, element: str) -> Sequence[str]:
    """A place by every way in which it is reached, always in the same order.

    Parameters:
        url: by one of them.
        element: the resource name of its storage element.
    """
    found = elements.get(element)
    endpoints = () if found is None or len(found.endpoints) == 1 else found.endpoints
    for one in endpoints:
        if url.startswith(f"{one.base_url}/"):
            path = url[len(one.base_url) :]
            return [f"{other.base_url}{path}" for other in endpoints]
    return (url,)


class AtWork(NamedTuple):
    """What else is done at places: they are put to, or removed from.

    Parameters:
        urls: by their URLs.
        copies: by storage element and logical name.
        lfns: all copies of a logical name.
    """

    urls: frozenset[str]
    copies: frozenset[tuple[str, str]]
    lfns: frozenset[str]

    def has(self, urls: Sequence[str], element: str, lfn: str) -> bool:
        """Whether a place is one of them.

        Parameters:
            urls: all by which it is reached.
        """
        if not any(self):
            return False
        return not self.urls.isdisjoint(urls) or lfn in self.lfns or (element, lfn) in self.copies


def at_work(conn: Connection, *, puts: bool = True) -> AtWork:
    """What is done now by others than files on their way; costs by how much that is.

    Parameters:
        puts: without it only what is removed.
    """
    urls: set[str] = set()
    copies: set[tuple[str, str]] = set()
    lfns: set[str] = set()
    for name, element, more in map(tuple, run_kept(conn, _AT_WORK)):
        if not element:
            urls.update((name,) if puts or not more else ())
        elif is_logical(name):
            lfns.add(more)
        else:
            copies.add((element, more))
    return AtWork(frozenset(urls), frozenset(copies), frozenset(lfns))


def in_work(
    conn: Connection,
    elements: StorageElements,
    rows: Collection[FileRow],
    known: Mapping[str, LogicalFile],
) -> set[int]:
    """The numbers of those files that wait to which others write, or from which others remove.

    Parameters:
        known: the logical files that they come from.
    """
    ways = {row.number: _ways(elements, row, known) for row in rows if row.state in DUE}
    busy = written(conn, {url for urls in ways.values() for url in urls})
    others = at_work(conn)
    return {
        row.number
        for row in rows
        if (urls := ways.get(row.number))
        and (not busy.isdisjoint(urls) or others.has(urls, row.target_element, row.target_lfn))
    }


def _ways(
    elements: StorageElements, row: FileRow, known: Mapping[str, LogicalFile]
) -> Sequence[str]:
    """All by which the place is reached that a file is written to, or the places of one that is to
    be removed.
    """
    if row.target_url:
        return urls_of(elements, row.target_url, row.target_element)
    logical = known.get(row.source)
    names = [row.source] if logical is None else [one.url for one in logical.replicas]
    found = [elements.locate(name, operation=Operation.REMOVE) for name in names]
    return [
        url
        for one in found
        if one is not None
        for url in urls_of(elements, one.location.url, one.location.storage_element)
    ]


class Places:
    """The places that files of one claim take, beside what others do.

    Parameters:
        rows: the files that may start.
    """

    def __init__(
        self, conn: Connection, elements: StorageElements, rows: Collection[FileRow]
    ) -> None:
        self._urls = {
            row.number: urls_of(elements, row.target_url, row.target_element) for row in rows
        }
        # Files wait by URL; here those whose places have others, or one that no index holds.
        ways = (urls for urls in self._urls.values() if len(urls) > 1 or _is_long(urls[0]))
        self._written = written(conn, {url for urls in ways for url in urls})
        self._at_work = at_work(conn)
        self._taken: set[str] = set()

    def is_taken(self, row: FileRow) -> bool:
        """Whether another file of this claim is written to a file's target."""
        return self._urls[row.number][0] in self._taken

    def is_at_work(self, row: FileRow) -> bool:
        """Whether something else is done there."""
        urls = self._urls[row.number]
        return self._at_work.has(urls, row.target_element, row.target_lfn) or (
            bool(self._written) and not self._written.isdisjoint(urls)
        )

    def take(self, row: FileRow) -> None:
        """Note that a file begins."""
        self._taken.add(self._urls[row.number][0])


def _is_long(url: str) -> bool:
    return len(url) > INDEXED_URL
