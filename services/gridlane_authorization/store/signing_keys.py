"""Signing keys: rows, one for each key that signs, will sign or did. Private halves are in files.

A revoked key's row stays for good: a key that is known to others must not come back out of an old
file. All others go when nobody needs them any more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from gridlane_authorization.store.tables import SIGNING_KEY
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.request_ids import RETENTION_DAYS

PREFIX: Final = "signingKeys/"
_C: Final = SIGNING_KEY.c
NEWEST_FIRST: Final = Keyset(_C.uid, descending=True)
# So long a request id may name a key; an id may be a day ahead of the clock.
_NAMED_US: Final = (RETENTION_DAYS + 2) * 86_400_000_000


class KeyState(StrEnum):
    """Where a key is in its life; the values are those stored."""

    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key without its private half; times are microseconds since 1970-01-01 UTC.

    `activate_time_us` lies ahead while it is PUBLISHED; `expires_us` is None until another one took
    its place.
    """

    uid: str
    kid: str
    state: KeyState
    public_jwk: str
    create_time_us: int
    activate_time_us: int
    retire_time_us: int | None = None
    expires_us: int | None = None

    @property
    def name(self) -> str:
        """ "signingKeys/{kid}"."""
        return PREFIX + self.kid

    def proves(self, now_us: int) -> bool:
        """Whether tokens that it signed are accepted, or will be."""
        ended = self.expires_us is not None and self.expires_us <= now_us
        return self.state is not KeyState.REVOKED and not ended


def every(conn: Connection) -> list[StoredKey]:
    """Returns all keys, newest first: few, but for those that were revoked."""
    return [_stored(row) for row in conn.execute(select(SIGNING_KEY).order_by(_C.uid.desc()))]


def put(conn: Connection, keys: Iterable[StoredKey]) -> None:
    """Stores keys, in the place of those that are there."""
    for key in keys:
        values = asdict(key)
        changed = update(SIGNING_KEY).where(_C.kid == key.kid).values(values)
        if not conn.execute(changed).rowcount:
            conn.execute(insert(SIGNING_KEY).values(values))


def read(conn: Connection, kid: str) -> StoredKey | None:
    """Returns one."""
    row = conn.execute(select(SIGNING_KEY).where(_C.kid == kid)).one_or_none()
    return None if row is None else _stored(row)


def page(conn: Connection, page_: Page, now_us: int) -> tuple[Sequence[StoredKey], str]:
    """A page of the keys that somebody needs, newest first, and the token of the next page."""
    needed = or_(_C.expires_us.is_(None), _C.expires_us > now_us)
    rows, token = fetch_page(conn, select(SIGNING_KEY).where(needed), NEWEST_FIRST, page_)
    return [_stored(row) for row in rows], token


def prune(conn: Connection, now_us: int, limit: int) -> int:
    """Deletes those that nobody needs any more; returns how many, at most `limit`."""
    over = and_(
        _C.state == KeyState.RETIRED,
        _C.expires_us < now_us,
        _C.create_time_us < now_us - _NAMED_US,
    )
    old = select(_C.uid).where(over).limit(limit)
    return conn.execute(delete(SIGNING_KEY).where(_C.uid.in_(old))).rowcount


def _stored(row: Row[Any]) -> StoredKey:
    return StoredKey(
        uid=row.uid,
        kid=row.kid,
        state=KeyState(row.state),
        public_jwk=row.public_jwk,
        create_time_us=row.create_time_us,
        activate_time_us=row.activate_time_us,
        retire_time_us=row.retire_time_us,
        expires_us=row.expires_us,
    )
