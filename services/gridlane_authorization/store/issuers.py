"""Issuers of the policy: rows, and what decisions and followers need of them.

Those of the settings and Gridlane's own have no rows: `given_issuers` has them.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    delete,
    insert,
    select,
    update,
)

from gridlane_authorization.store.tables import ISSUER
from gridlane_kit.filters import Filter
from gridlane_kit.issuers import PolicyIssuer

PREFIX: Final = "issuers/"
_C: Final = ISSUER.c
_FILTERED: Final = {"vo": _C.vo}
_MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StoredIssuer:
    """An issuer; `id` is its name without "issuers/". Times of life are microseconds, None where
    nothing is said; no algorithms: both."""

    id: str
    url: str
    vo: str
    create_time_us: int
    update_time_us: int
    revision: int
    audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    jwks_uri: str = ""
    jwks: str = ""
    enabled: bool = False
    max_group_age_us: int | None = None
    max_token_lifetime_us: int | None = None
    description: str = ""

    @property
    def name(self) -> str:
        """ "issuers/{id}"."""
        return PREFIX + self.id

    @property
    def terms(self) -> PolicyIssuer:
        """How its tokens are believed, when they are; where nothing is said, by the defaults.

        Raises:
            ValidationError: a field says what nobody can do; never of what is stored.
        """
        terms = {
            "name": self.name,
            "url": self.url,
            "vo": self.vo,
            "audiences": self.audiences,
            "algorithms": self.algorithms or None,
            "jwks_uri": self.jwks_uri,
            "jwks": self.jwks,
            "max_group_age_s": _seconds(self.max_group_age_us),
            "max_token_lifetime_s": _seconds(self.max_token_lifetime_us),
        }
        said = {field: term for field, term in terms.items() if term is not None}
        return PolicyIssuer.model_validate(said)


def ids(conn: Connection, filter_: Filter) -> Iterable[str]:
    """Returns the ids of those that a filter asks for, in no order."""
    return conn.execute(select(_C.id).where(filter_.where(_FILTERED))).scalars().all()


def named(conn: Connection, wanted: Collection[str]) -> Mapping[str, StoredIssuer]:
    """Returns those with these ids that are there, by id."""
    rows = conn.execute(select(ISSUER).where(_C.id.in_(wanted)))
    return {row.id: _stored(row) for row in rows}


def believed(conn: Connection) -> Iterator[PolicyIssuer]:
    """Yields those that are switched on, as followers are told of them."""
    rows = conn.execute(select(ISSUER).where(_C.enabled))
    return (_stored(row).terms for row in rows)


def believed_urls(conn: Connection) -> frozenset[str]:
    """Returns the URLs of those that are switched on."""
    return frozenset(conn.execute(select(_C.url).where(_C.enabled)).scalars())


def read(conn: Connection, id_: str) -> StoredIssuer | None:
    """Returns one."""
    return _one(conn, _C.id == id_)


def with_url(conn: Connection, url: str) -> StoredIssuer | None:
    """Returns the one with a URL, compared exactly."""
    return _one(conn, _C.url == url)


def of_vo(conn: Connection, vo: str) -> str:
    """Returns the name of one that speaks for a VO; empty when there is none."""
    found = conn.execute(select(_C.id).where(_C.vo == vo).order_by(_C.id).limit(1)).scalar()
    return "" if found is None else PREFIX + str(found)


def insert_one(conn: Connection, stored: StoredIssuer) -> None:
    """Stores one; there is none of that name or URL."""
    fixed = {
        "id": stored.id,
        "url": stored.url,
        "vo": stored.vo,
        "create_time_us": stored.create_time_us,
    }
    conn.execute(insert(ISSUER).values(**fixed, **_changeable(stored)))


def change_one(conn: Connection, stored: StoredIssuer) -> None:
    """Stores what may change of one."""
    conn.execute(update(ISSUER).where(_C.id == stored.id).values(_changeable(stored)))


def remove(conn: Connection, id_: str) -> None:
    """Deletes one."""
    conn.execute(delete(ISSUER).where(_C.id == id_))


def _one(conn: Connection, where: ColumnElement[bool]) -> StoredIssuer | None:
    row = conn.execute(select(ISSUER).where(where)).one_or_none()
    return None if row is None else _stored(row)


def _changeable(stored: StoredIssuer) -> dict[str, Any]:
    return {
        "audiences": json.dumps(stored.audiences),
        "algorithms": json.dumps(stored.algorithms),
        "jwks_uri": stored.jwks_uri,
        "jwks": stored.jwks,
        "enabled": stored.enabled,
        "max_group_age_us": stored.max_group_age_us,
        "max_token_lifetime_us": stored.max_token_lifetime_us,
        "description": stored.description,
        "update_time_us": stored.update_time_us,
        "revision": stored.revision,
    }


def _stored(row: Row[Any]) -> StoredIssuer:
    return StoredIssuer(
        id=row.id,
        url=row.url,
        vo=row.vo,
        create_time_us=row.create_time_us,
        update_time_us=row.update_time_us,
        revision=row.revision,
        audiences=tuple(json.loads(row.audiences)),
        algorithms=tuple(json.loads(row.algorithms)),
        jwks_uri=row.jwks_uri,
        jwks=row.jwks,
        enabled=row.enabled,
        max_group_age_us=row.max_group_age_us,
        max_token_lifetime_us=row.max_token_lifetime_us,
        description=row.description,
    )


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / _MICROS
