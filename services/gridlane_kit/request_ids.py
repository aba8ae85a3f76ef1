"""Request ids: a call that creates is executed once, however often it is sent.

Responsible for the table of ids, for telling a replay from a conflict, and for how long an id is
good. Not responsible for the answer to a replay: the service reads the resource as it is now, with
the permission checked anew.

An id is unique per owner (issuer and subject) and method, and is kept for 30 days. It is a UUIDv7,
so its age can be read: an older one is refused, never executed again (AIP-155, tightened). Ids sort
by age; that is what `purge` deletes by.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import google.protobuf
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)

from gridlane.ids import uuid7_floor, uuid7_time_ms
from gridlane_kit import errors
from gridlane_kit.database import Text36, insert_values, rows_by_key

RETENTION_DAYS = 30
_DAY_MS = 24 * 3600 * 1000
# How far the clock of who made the id may be ahead of ours.
_AHEAD_MS = _DAY_MS
# What was young enough when its call was checked is still there when its write begins.
_PURGE_MARGIN_MS = 3600 * 1000


class RequestKey(NamedTuple):
    """A request as it came.

    Parameters:
        owner: the caller, "issuer|subject".
        method: the RPC's full name.
        request_id: checked by `check`.
        digest: of the request's content, by `digest`.
    """

    owner: str
    method: str
    request_id: str
    digest: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """What is unique."""
        return self.request_id, self.owner, self.method


@dataclass(frozen=True, slots=True)
class New:
    """Never seen: execute it, and `remember` it when it created something."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Executed before; answer with the resource of this name as it is now."""

    resource: str


@dataclass(frozen=True, slots=True)
class SameAs:
    """Twice among the keys given: answer as for the key of this index, which comes before."""

    index: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """The id came with another content before: refuse with `errors.request_id_reused`."""


Claim = New | Replay | SameAs | Conflict

_NEW = New()
_COLUMNS = ("request_id", "owner", "method", "digest", "resource")


def request_id_table(metadata: MetaData) -> Table:
    """Declare the table in a service's metadata."""
    return Table(
        "request_id",
        metadata,
        Column("request_id", Text36, nullable=False),
        Column("owner", String(512), nullable=False),
        Column("method", String(200), nullable=False),
        Column("digest", String(200), nullable=False),
        Column("resource", String(512), nullable=False),
        PrimaryKeyConstraint("request_id", "owner", "method"),
        sqlite_with_rowid=False,
    )


def check(request_id: str, now_us: int) -> None:
    """Check an id before its call is queued.

    Parameters:
        request_id: as it came, not empty.
        now_us: the present, microseconds since 1970-01-01 UTC.

    Raises:
        GridlaneError: INVALID_FIELDS when it is no UUIDv7 or more than a day ahead of the clock,
            REQUEST_ID_TOO_OLD when it was made more than 30 days ago.
    """
    try:
        made_ms = uuid7_time_ms(request_id)
    except ValueError as error:
        raise errors.invalid([("request_id", "a UUIDv7 in lower case with hyphens")]) from error
    now_ms = now_us // 1000
    if made_ms > now_ms + _AHEAD_MS:
        raise errors.invalid([("request_id", "made by a clock that is at most a day ahead")])
    if made_ms < now_ms - RETENTION_DAYS * _DAY_MS:
        raise errors.request_id_too_old(RETENTION_DAYS)


def digest(request: Message) -> str:
    """The digest of a request's content.

    Deterministic bytes are the same only within one protobuf runtime and one schema, so the digest
    is tagged with both (protobuf.dev, "Proto Serialization Is Not Canonical").

    Returns:
        `<tag>:<sha256 of the deterministic bytes>`.
    """
    content = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    return f"{_tag(request.DESCRIPTOR)}:{content}"


def claim(conn: Connection, table: Table, keys: Sequence[RequestKey | None]) -> list[Claim]:
    """Say of each request whether it is to be executed. Call it in the transaction that creates.

    Parameters:
        keys: the requests of a batch in order; None for one without an id, which is always new.
    """
    ids = {key.request_id for key in keys if key is not None}
    known = _known(conn, table, ids) if ids else {}
    here: dict[tuple[str, str, str], tuple[str, int]] = {}
    claims: list[Claim] = []
    for index, key in enumerate(keys):
        if key is None:
            claims.append(_NEW)
            continue
        identity = key.identity
        stored, first = known.get(identity), here.get(identity)
        if stored is not None:
            digest_before, resource = stored
            answer: Claim = Replay(resource)
        elif first is not None:
            digest_before, same = first
            answer = SameAs(same)
        else:
            here[identity] = (key.digest, index)
            claims.append(_NEW)
            continue
        claims.append(answer if _same_content(digest_before, key.digest) else Conflict())
    return claims


def remember(conn: Connection, table: Table, created: Iterable[tuple[RequestKey, str]]) -> None:
    """Keep the ids of what was created, in the same transaction.

    Parameters:
        created: pairs of the request and the name of the resource it created. A request that was
            refused is left out: sent again, it is judged again.
    """
    rows = [(key.request_id, key.owner, key.method, key.digest, name) for key, name in created]
    insert_values(conn, table, _COLUMNS, rows)


def purge(conn: Connection, table: Table, now_us: int) -> int:
    """Delete the ids that `check` refuses by now; the number of them."""
    oldest_ms = now_us // 1000 - RETENTION_DAYS * _DAY_MS - _PURGE_MARGIN_MS
    return conn.execute(table.delete().where(table.c.request_id < uuid7_floor(oldest_ms))).rowcount


def _known(
    conn: Connection, table: Table, ids: set[str]
) -> dict[tuple[str, str, str], tuple[str, str]]:
    rows = rows_by_key(conn, tuple(table.c), table.c.request_id, sorted(ids))
    return {(row.request_id, row.owner, row.method): (row.digest, row.resource) for row in rows}


def _same_content(stored: str, given: str) -> bool:
    """Whether two digests do not contradict: those of different tags cannot be compared."""
    stored_tag, _, stored_content = stored.rpartition(":")
    given_tag, _, given_content = given.rpartition(":")
    return stored_tag != given_tag or stored_content == given_content


@lru_cache(maxsize=1024)
def _tag(descriptor: Descriptor) -> str:
    files: dict[str, bytes] = {}
    _collect(descriptor.file, files)
    schema = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
    return f"{google.protobuf.__version__}:{schema[:16]}"


def _collect(file: FileDescriptor, files: dict[str, bytes]) -> None:
    if file.name not in files:
        files[file.name] = file.serialized_pb
        for dependency in file.dependencies:
            _collect(dependency, files)
