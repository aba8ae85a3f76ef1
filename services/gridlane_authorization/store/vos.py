"""Virtual organisations: rows, and who may see which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    insert,
    select,
    true,
    update,
)

from gridlane_authorization.store.tables import VO
from gridlane_kit.decision import Visibility
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.visibility import visible_vos

BY_NAME: Final = Keyset(VO.c.name)


@dataclass(frozen=True, slots=True)
class StoredVo:
    """A virtual organisation; `vo` is its name without "vos/"."""

    vo: str
    create_time_us: int
    update_time_us: int
    revision: int
    description: str = ""
    contact: str = ""

    @property
    def name(self) -> str:
        """ "vos/{vo}"."""
        return f"vos/{self.vo}"


def complete(conn: Connection, revision: int) -> None:
    """Gives a revision to what a version without them wrote."""
    conn.execute(update(VO).where(VO.c.revision.is_(None)).values(revision=revision))


def names(conn: Connection) -> Sequence[str]:
    """Returns the names of all."""
    return conn.execute(select(VO.c.name)).scalars().all()


def put(conn: Connection, name: str, revision: int, now_us: int) -> bool:
    """Makes one for the server itself; returns whether there was none of that name."""
    if read(conn, name) is not None:
        return False
    insert_one(conn, StoredVo(name, now_us, now_us, revision))
    return True


def remove(conn: Connection, name: str) -> bool:
    """Deletes one; returns whether it was there."""
    return conn.execute(delete(VO).where(VO.c.name == name)).rowcount > 0


def insert_one(conn: Connection, stored: StoredVo) -> None:
    """Stores one; there is none of that name."""
    conn.execute(
        insert(VO).values(name=stored.vo, create_time_us=stored.create_time_us, **_terms(stored))
    )


def change_one(conn: Connection, stored: StoredVo) -> None:
    """Stores what may change of one."""
    conn.execute(update(VO).where(VO.c.name == stored.vo).values(_terms(stored)))


def read(conn: Connection, name: str) -> StoredVo | None:
    """Returns one, whoever asks."""
    return _one(conn, true(), name)


def visible(conn: Connection, name: str, visibility: Visibility) -> StoredVo | None:
    """Returns one that is within the caller's reach."""
    return _one(conn, visible_vos(visibility, VO.c.name), name)


def page(conn: Connection, visibility: Visibility, page_: Page) -> tuple[list[StoredVo], str]:
    """A page of those within reach, by name, and the token of the next page."""
    rows, token = fetch_page(
        conn, select(VO).where(visible_vos(visibility, VO.c.name)), BY_NAME, page_
    )
    return [_stored(row) for row in rows], token


def _one(conn: Connection, reach: ColumnElement[bool], name: str) -> StoredVo | None:
    row = conn.execute(select(VO).where(and_(VO.c.name == name, reach))).one_or_none()
    return None if row is None else _stored(row)


def _terms(stored: StoredVo) -> dict[str, Any]:
    return {
        "description": stored.description,
        "contact": stored.contact,
        "update_time_us": stored.update_time_us,
        "revision": stored.revision,
    }


def _stored(row: Row[Any]) -> StoredVo:
    return StoredVo(
        vo=row.name,
        create_time_us=row.create_time_us,
        update_time_us=row.update_time_us or row.create_time_us,
        revision=row.revision or 0,
        description=row.description or "",
        contact=row.contact or "",
    )
