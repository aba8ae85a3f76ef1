"""Uploads as rows: what is being written, so that a server that died in the middle can clean up or
finish.

Responsible for statements. An upload is begun before its temporary file exists, verified before the
file gets its own name, and ended in the transaction that registers the replica.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from gridlane_transfer.store import catalogue
from gridlane_transfer.store.catalogue import ConflictError, LogicalFile, Registration
from gridlane_transfer.store.tables import UPLOAD


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is being put. `size_bytes` and `checksum` are set once its bytes are whole and
    durable.
    """

    uuid: str
    url: str
    temporary: str
    owner: str
    size_bytes: int | None
    checksum: str | None
    create_us: int


@dataclass(frozen=True, slots=True)
class Finished:
    """An upload whose file has its own name, and the registration that it ends with."""

    uuid: str
    registration: Registration


def begin(conn: Connection, upload: Upload) -> None:
    """Keep the intent to write."""
    conn.execute(
        insert(UPLOAD).values(
            uuid=upload.uuid,
            url=upload.url,
            temporary=upload.temporary,
            owner=upload.owner,
            create_us=upload.create_us,
        )
    )


def verified(conn: Connection, upload: Upload, copy: Registration) -> None:
    """Keep that the bytes are whole, and what they are.

    Raises:
        ConflictError: they could not be registered.
    """
    catalogue.require_agreement(conn, copy)
    conn.execute(
        update(UPLOAD)
        .where(UPLOAD.c.uuid == upload.uuid)
        .values(size_bytes=upload.size_bytes, checksum=upload.checksum)
    )


@dataclass(frozen=True, slots=True)
class Unregistered:
    """An upload that has ended without a registration, since that contradicts another one."""

    conflict: ConflictError


def finish(
    conn: Connection, finished: Sequence[Finished]
) -> list[LogicalFile | Unregistered | Exception]:
    """End uploads and register their replicas."""
    answers: list[LogicalFile | Unregistered | Exception] = []
    for one in finished:
        forget(conn, one.uuid)
        try:
            answers.append(catalogue.register(conn, one.registration))
        except ConflictError as error:
            answers.append(Unregistered(error))
    return answers


def forget(conn: Connection, uuid: str) -> None:
    """End an upload that came to nothing."""
    conn.execute(delete(UPLOAD).where(UPLOAD.c.uuid == uuid))


def unfinished(conn: Connection) -> list[Upload]:
    """Every upload that has not ended."""
    return [Upload(*row) for row in conn.execute(select(UPLOAD))]
