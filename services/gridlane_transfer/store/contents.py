"""Uploads as rows: what is being written, so that a server that died in the middle can clean up or
finish.

Responsible for statements. An upload is begun before its temporary file exists, verified before the
file gets its own name, and ended in the transaction that registers the replica. It is leased by the
process that writes it; once that lease ran out, another one may end it in its place.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, true, update

from gridlane_kit.leases import claim_due, database_now_us, held_by, renew
from gridlane_transfer.catalogue.base import ConflictError, LogicalFile, Registration
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, catalogue, places
from gridlane_transfer.store.tables import UPLOAD


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is being put. `size_bytes` and `checksum` are set once its bytes are whole and
    durable. Without a temporary name: one that is being removed.
    """

    uuid: str
    url: str
    temporary: str
    owner: str
    size_bytes: int | None
    checksum: str | None
    create_us: int
    lease_holder: str
    lease_epoch: int


_COLUMNS = [UPLOAD.c[field.name] for field in fields(Upload)]


class Writer(Enum):
    """Who else writes to a place, or removes what is there."""

    FILE = "a file of a transfer job"
    CONTENT = "a put or a removal, which soon ends"


@dataclass(frozen=True, slots=True)
class Finished:
    """An upload whose file has its own name, and the registration that it ends with."""

    upload: Upload
    registration: Registration


class LostUploadError(Exception):
    """The lease ran out, and another process has ended the upload, or is about to."""


def begin(conn: Connection, upload: Upload, ttl: timedelta) -> None:
    """Keep the intent to write, leased for so long."""
    conn.execute(
        insert(UPLOAD).values(
            uuid=upload.uuid,
            url=upload.url,
            temporary=upload.temporary,
            owner=upload.owner,
            size_bytes=upload.size_bytes,
            checksum=upload.checksum,
            create_us=upload.create_us,
            lease_holder=upload.lease_holder,
            lease_epoch=upload.lease_epoch,
            lease_until_us=database_now_us() + ttl // timedelta(microseconds=1),
        )
    )


def keep(conn: Connection, uploads: Sequence[Upload], ttl: timedelta) -> None:
    """Renew the leases of those that are still their holder's."""
    for upload in uploads:
        mine = UPLOAD.c.uuid == upload.uuid
        holder, epoch = upload.lease_holder, upload.lease_epoch
        renew(conn, UPLOAD, where=mine, holder=holder, epoch=epoch, ttl=ttl)


def verified(
    conn: Connection, upload: Upload, copy: Registration, urls: Sequence[str]
) -> Writer | None:
    """Keep that the bytes are whole, and what they are.

    Parameters:
        urls: all by which the place is reached.

    Returns:
        Who writes there now: nothing was kept then. Of two that replace each other the one that is
        named last is to be registered last.

    Raises:
        ConflictError: they could not be registered.
        LostUploadError: it is not the holder's any more; the temporary file is not to be published.
    """
    if places.written(conn, urls):
        return Writer.FILE
    if places.at_work(conn, puts=copy.replaces).has(urls, copy.storage_element, copy.lfn):
        return Writer.CONTENT
    catalogue.require_agreement(conn, copy)
    noted = conn.execute(
        update(UPLOAD)
        .where(_is_its(upload))
        .values(size_bytes=upload.size_bytes, checksum=upload.checksum)
    )
    if noted.rowcount == 0:
        raise LostUploadError
    return None


def remove(
    conn: Connection, removals: Sequence[Upload], urls: Collection[str], ttl: timedelta
) -> Writer | None:
    """Keep the intent to remove files: nobody else writes there, leased for so long.

    Parameters:
        removals: a row without a temporary name for each of them.
        urls: all by which their places are reached.

    Returns:
        Who writes to one of them now: nothing was kept then.
    """
    if places.written(conn, urls):
        return Writer.FILE
    if not places.at_work(conn).urls.isdisjoint(urls):
        return Writer.CONTENT
    for removal in removals:
        begin(conn, removal, ttl)
    return None


@dataclass(frozen=True, slots=True)
class Unregistered:
    """An upload that has ended without a registration, since that contradicts another one."""

    conflict: ConflictError


def finish(
    conn: Connection, finished: Sequence[Finished], elements: StorageElements
) -> list[LogicalFile | Unregistered | Exception]:
    """End uploads and register their replicas; LostUploadError for one that another process ended
    or is about to, whatever came of it there.
    """
    answers: list[LogicalFile | Unregistered | Exception] = []
    for one in finished:
        if not forget(conn, one.upload):
            answers.append(LostUploadError())
            continue
        (registered,) = catalogue.register(conn, [one.registration])
        if isinstance(registered, ConflictError):
            answers.append(Unregistered(registered))
        else:
            answers.append(registered)
            banned.copies_came(conn, elements, [registered.lfn])
    return answers


def forget(conn: Connection, upload: Upload) -> bool:
    """End an upload that came to nothing; False when it is not its holder's any more."""
    return conn.execute(delete(UPLOAD).where(_is_its(upload))).rowcount > 0


def void_leases(conn: Connection) -> None:
    """End every lease: no other process has this database, so their holders are no more."""
    conn.execute(update(UPLOAD).values(lease_until_us=0))


def claim_abandoned(conn: Connection, holder: str, ttl: timedelta, limit: int) -> list[Upload]:
    """Lease uploads whose process is no more."""
    rows = claim_due(
        conn,
        UPLOAD,
        where=true(),
        order_by=[UPLOAD.c.uuid],
        limit=limit,
        holder=holder,
        ttl=ttl,
    )
    return [Upload(*(row._mapping[column] for column in _COLUMNS)) for row in rows]


def _is_its(upload: Upload) -> ColumnElement[bool]:
    return and_(
        UPLOAD.c.uuid == upload.uuid, held_by(UPLOAD, upload.lease_holder, upload.lease_epoch)
    )
