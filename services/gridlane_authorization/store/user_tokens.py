"""Tokens signed for users: rows, what ends with which, and who may see them."""

from collections.abc import Mapping
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
    select,
    true,
    update,
)

from gridlane.ids import uuid7_floor
from gridlane_authorization.store.tables import USER_TOKEN
from gridlane_kit.decision import Visibility
from gridlane_kit.filters import Filter
from gridlane_kit.identity import Principal
from gridlane_kit.pages import Keyset, Page, fetch_page

NEWEST_FIRST: Final = Keyset(USER_TOKEN.c.jti, descending=True)

_FILTERED: Final = {"subject": USER_TOKEN.c.subject}


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token without the token itself; times are microseconds since 1970-01-01 UTC."""

    jti: str
    principal: Principal
    creator: Principal
    audience: str
    create_time_us: int
    expires_us: int
    reason: str = ""
    exchanged_for: str = ""
    revoke_time_us: int | None = None

    @property
    def name(self) -> str:
        """ "tokens/{jti}"."""
        return f"tokens/{self.jti}"


def insert_one(conn: Connection, stored: StoredToken) -> None:
    """Stores a new one."""
    conn.execute(
        insert(USER_TOKEN).values(
            jti=stored.jti,
            owner=stored.principal.owner,
            subject=stored.principal.subject,
            principal=stored.principal.to_json(),
            creator=stored.creator.to_json(),
            audience=stored.audience,
            create_time_us=stored.create_time_us,
            expires_us=stored.expires_us,
            reason=stored.reason,
            exchanged_for=stored.exchanged_for,
        )
    )


def read(conn: Connection, jti: str) -> StoredToken | None:
    """Returns one, whoever asks."""
    return _one(conn, jti, true())


def visible(conn: Connection, jti: str, visibility: Visibility) -> StoredToken | None:
    """Returns one that is within the caller's reach."""
    return _one(conn, jti, _reach(visibility))


def page(
    conn: Connection, visibility: Visibility, filter_: Filter, page_: Page
) -> tuple[list[StoredToken], str]:
    """A page of those within reach, newest first, and the token of the next page."""
    statement = select(USER_TOKEN).where(_reach(visibility), filter_.where(_FILTERED))
    rows, token = fetch_page(conn, statement, NEWEST_FIRST, page_)
    return [_stored(row) for row in rows], token


def exchanged_since(conn: Connection, owner: str, since_us: int, limit: int) -> list[int]:
    """When an identity had tokens by exchange since a time, the first of them first.

    Returns:
        At most `limit` times, microseconds since 1970-01-01 UTC.
    """
    # Ids are made a moment after the time at which they are said to be.
    since = and_(
        USER_TOKEN.c.owner == owner,
        USER_TOKEN.c.jti >= uuid7_floor(since_us // 1000),
        USER_TOKEN.c.exchanged_for != "",
    )
    times = select(USER_TOKEN.c.create_time_us).where(since)
    return list(conn.execute(times.order_by(USER_TOKEN.c.jti).limit(limit)).scalars())


def revoke(conn: Connection, stored: StoredToken, now_us: int) -> Mapping[str, int]:
    """Revokes one, and those that were had from it by exchange, however often.

    Only the same identity's can be: another issuer may have given one of its tokens the same id.

    Returns:
        Those that were good until now, with their ends.
    """
    ended: dict[str, int] = {}
    owner, wave = stored.principal.owner, [stored.jti]
    while wave:
        here = and_(USER_TOKEN.c.jti.in_(wave), USER_TOKEN.c.revoke_time_us.is_(None))
        good = select(USER_TOKEN.c.jti, USER_TOKEN.c.expires_us).where(here)
        ended |= {row.jti: row.expires_us for row in conn.execute(good) if row.expires_us > now_us}
        conn.execute(update(USER_TOKEN).where(here).values(revoke_time_us=now_us))
        children = and_(USER_TOKEN.c.exchanged_for.in_(wave), USER_TOKEN.c.owner == owner)
        wave = list(conn.execute(select(USER_TOKEN.c.jti).where(children)).scalars())
    return ended


def revoked(conn: Connection, now_us: int) -> Mapping[str, int]:
    """Returns those that are revoked and have not ended by themselves, with their ends."""
    rows = conn.execute(
        select(USER_TOKEN.c.jti, USER_TOKEN.c.expires_us).where(
            USER_TOKEN.c.revoke_time_us.is_not(None), USER_TOKEN.c.expires_us > now_us
        )
    )
    return {row.jti: row.expires_us for row in rows}


def prune(conn: Connection, ended_us: int, limit: int) -> int:
    """Deletes those that ended before a time; returns how many, at most `limit`."""
    old = (
        select(USER_TOKEN.c.jti)
        .where(USER_TOKEN.c.expires_us < ended_us)
        .order_by(USER_TOKEN.c.expires_us)
        .limit(limit)
    )
    return conn.execute(delete(USER_TOKEN).where(USER_TOKEN.c.jti.in_(old))).rowcount


def _reach(visibility: Visibility) -> ColumnElement[bool]:
    if visibility.everything:
        return true()
    if visibility.nothing or visibility.owner is None:
        return false()
    return USER_TOKEN.c.owner == visibility.owner


def _one(conn: Connection, jti: str, reach: ColumnElement[bool]) -> StoredToken | None:
    row = conn.execute(select(USER_TOKEN).where(USER_TOKEN.c.jti == jti, reach)).one_or_none()
    return None if row is None else _stored(row)


def _stored(row: Row[Any]) -> StoredToken:
    return StoredToken(
        jti=row.jti,
        principal=Principal.from_json(row.principal),
        creator=Principal.from_json(row.creator),
        audience=row.audience,
        create_time_us=row.create_time_us,
        expires_us=row.expires_us,
        reason=row.reason,
        exchanged_for=row.exchanged_for,
        revoke_time_us=row.revoke_time_us,
    )
