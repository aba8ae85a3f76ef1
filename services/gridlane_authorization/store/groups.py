"""Groups of virtual organisations: rows, and who may see which."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    insert,
    or_,
    select,
    update,
)

from gridlane_authorization.store.tables import GROUP
from gridlane_kit.decision import Visibility
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.visibility import visible_vos

BY_NAME: Final = Keyset(GROUP.c.id)


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A declared group; `path` is what tokens assert."""

    vo: str
    id: str
    path: str
    create_time_us: int
    update_time_us: int
    revision: int
    description: str = ""
    dirac_group: str = ""

    @property
    def name(self) -> str:
        """ "vos/{vo}/groups/{id}"."""
        return f"vos/{self.vo}/groups/{self.id}"


def insert_one(conn: Connection, stored: StoredGroup) -> None:
    """Stores one; there is none of that name or path."""
    conn.execute(
        insert(GROUP).values(
            vo=stored.vo,
            id=stored.id,
            path=stored.path,
            create_time_us=stored.create_time_us,
            **_terms(stored),
        )
    )


def change_one(conn: Connection, stored: StoredGroup) -> None:
    """Stores what may change of one."""
    conn.execute(update(GROUP).where(_is(stored.vo, stored.id)).values(_terms(stored)))


def remove(conn: Connection, stored: StoredGroup) -> None:
    """Deletes one."""
    conn.execute(delete(GROUP).where(_is(stored.vo, stored.id)))


def read(conn: Connection, vo: str, id_: str) -> StoredGroup | None:
    """Returns one, whoever asks."""
    return _one(conn, _is(vo, id_))


def visible(conn: Connection, vo: str, id_: str, visibility: Visibility) -> StoredGroup | None:
    """Returns one that is within the caller's reach."""
    return _one(conn, and_(_is(vo, id_), visible_vos(visibility, GROUP.c.vo)))


def declared(conn: Connection, vo: str, path: str) -> bool:
    """Whether a VO has a group of that path."""
    return _one(conn, and_(GROUP.c.path == path, GROUP.c.vo == vo)) is not None


def may_be_active(conn: Connection, vo: str, path: str) -> bool:
    """Whether callers may act in the group of that path, as `Policy.may_be_active` says it."""
    return declared(conn, vo, path) or not of_vo(conn, vo)


def paths(conn: Connection) -> list[str]:
    """Returns the paths of all groups."""
    return list(conn.execute(select(GROUP.c.path)).scalars())


def taken(conn: Connection, vo: str, id_: str, path: str) -> str:
    """Returns the name of a group that has that name or path; empty when there is none."""
    found = _one(conn, or_(_is(vo, id_), GROUP.c.path == path))
    return "" if found is None else found.name


def of_vo(conn: Connection, vo: str) -> str:
    """Returns the name of a group of a VO; empty when there is none."""
    found = _one(conn, GROUP.c.vo == vo)
    return "" if found is None else found.name


def page(conn: Connection, vo: str, page_: Page) -> tuple[list[StoredGroup], str]:
    """A page of a VO's groups, by name, and the token of the next page."""
    rows, token = fetch_page(conn, select(GROUP).where(GROUP.c.vo == vo), BY_NAME, page_)
    return [_stored(row) for row in rows], token


def _is(vo: str, id_: str) -> ColumnElement[bool]:
    return and_(GROUP.c.vo == vo, GROUP.c.id == id_)


def _one(conn: Connection, where: ColumnElement[bool]) -> StoredGroup | None:
    row = conn.execute(select(GROUP).where(where).limit(1)).one_or_none()
    return None if row is None else _stored(row)


def _terms(stored: StoredGroup) -> dict[str, Any]:
    return {
        "description": stored.description,
        "dirac_group": stored.dirac_group,
        "update_time_us": stored.update_time_us,
        "revision": stored.revision,
    }


def _stored(row: Row[Any]) -> StoredGroup:
    return StoredGroup(
        vo=row.vo,
        id=row.id,
        path=row.path,
        create_time_us=row.create_time_us,
        update_time_us=row.update_time_us,
        revision=row.revision,
        description=row.description,
        dirac_group=row.dirac_group,
    )
