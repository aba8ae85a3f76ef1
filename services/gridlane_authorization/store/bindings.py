"""Role bindings: rows, who may see and change which, and the rule of the last administrator.

A binding past its end is not there for anybody; its row stays until it is pruned, and gives way to
a new one of the same holder, role and place.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    false,
    insert,
    or_,
    select,
    true,
    update,
)

from gridlane.ids import uuid7, uuid7_floor
from gridlane_authorization.store.tables import ROLE_BINDING
from gridlane_kit.decision import Visibility
from gridlane_kit.filters import Filter
from gridlane_kit.identity import Principal
from gridlane_kit.listing import along_indexes
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_kit.policy import IN_ITS_VOS, Binding, Role, WorkAction

NEWEST_FIRST: Final = Keyset(ROLE_BINDING.c.uid, descending=True)
OF_A_VO: Final = (Role.VO_MANAGER, *IN_ITS_VOS)
"""The roles that a VO's manager gives and takes, in its VO."""

_C: Final = ROLE_BINDING.c
_KEY: Final = ("issuer", "subject", "role", "vo", "channel_uid")


def _unindexed(column: Column[str]) -> ColumnElement[str]:
    """A column's value in a form that no index has: rows are found by something better."""
    return column.concat("")


def _has(key: Mapping[str, Any]) -> ColumnElement[bool]:
    """The one row with a key; few others have its holder, and very many its role or its VO."""
    held = and_(_C.issuer == key["issuer"], _C.subject == key["subject"])
    return and_(held, *(_unindexed(_C[name]) == key[name] for name in _KEY[2:]))


_NAMED_AT_ONCE: Final = 5000
# Bound names must differ from the columns' that are set.
_NAME: Final = (
    update(ROLE_BINDING)
    .where(_has({name: bindparam(f"its_{name}") for name in _KEY}))
    .values(uid=bindparam("uid"), revision=bindparam("revision"))
)
_FILTERED: Final = {
    "subject": _C.subject,
    "issuer": _C.issuer,
    "role": _C.role,
    "vo": _C.vo,
    "channel_uid": _C.channel_uid,
    "group": _C.subject,
}


@dataclass(frozen=True, slots=True)
class StoredBinding:
    """A binding as it is stored. `creator` is the stored principal, empty for the server itself;
    `revision` the policy's when it was made or changed last."""

    uid: str
    binding: Binding
    create_time_us: int
    revision: int
    reason: str = ""
    creator: str = ""

    @property
    def name(self) -> str:
        """ "roleBindings/{uuid}"."""
        return f"roleBindings/{self.uid}"

    def in_force(self, now_us: int) -> bool:
        """Whether its end has not come."""
        return self.binding.expires_us is None or now_us < self.binding.expires_us


def complete(conn: Connection, revision: int) -> None:
    """Names the bindings that a version without names wrote; the same ones every time.

    Parameters:
        revision: the policy's, which they are said to be of.
    """
    unnamed = [
        {
            **{f"its_{name}": row._mapping[name] for name in _KEY},
            "uid": _old_uid(row),
            "revision": revision,
        }
        for row in conn.execute(select(ROLE_BINDING).where(_C.uid.is_(None)))
    ]
    # In parts: a statement may take only so long.
    for start in range(0, len(unnamed), _NAMED_AT_ONCE):
        conn.execute(_NAME, unnamed[start : start + _NAMED_AT_ONCE])


def every(conn: Connection) -> Iterator[Binding]:
    """Yields all bindings, those past their end among them."""
    return (_binding_of(row) for row in conn.execute(select(ROLE_BINDING)))


def put(conn: Connection, binding: Binding, revision: int, now_us: int) -> bool:
    """Gives a role for the server itself; what is there already takes the new terms.

    Returns:
        Whether that changed anything.
    """
    present = same_place(conn, binding)
    if present is None:
        insert_one(conn, StoredBinding(uuid7(), binding, now_us, revision))
        return True
    if present.binding == binding:
        return False
    values = {**_terms(binding), "revision": revision}
    conn.execute(update(ROLE_BINDING).where(_has(_key(binding))).values(values))
    return True


def remove(conn: Connection, binding: Binding) -> bool:
    """Takes a role away; returns whether it was there."""
    return conn.execute(delete(ROLE_BINDING).where(_has(_key(binding)))).rowcount > 0


def insert_one(conn: Connection, stored: StoredBinding) -> None:
    """Stores a binding; nobody has that role in that place."""
    values = {
        **_key(stored.binding),
        **_terms(stored.binding),
        "create_time_us": stored.create_time_us,
        "uid": stored.uid,
        "revision": stored.revision,
        "reason": stored.reason,
        "creator": stored.creator or None,
    }
    conn.execute(insert(ROLE_BINDING).values(values))


def change_one(conn: Connection, stored: StoredBinding) -> None:
    """Stores what may change of a binding: its terms, revision and reason."""
    values = {
        **_terms(stored.binding),
        "revision": stored.revision,
        "reason": stored.reason,
    }
    conn.execute(update(ROLE_BINDING).where(_C.uid == stored.uid).values(values))


def same_place(conn: Connection, binding: Binding) -> StoredBinding | None:
    """Returns the binding of the same holder and role in the same place."""
    row = conn.execute(select(ROLE_BINDING).where(_has(_key(binding)))).one_or_none()
    return None if row is None else _stored(row)


def visible(
    conn: Connection, uid: str, visibility: Visibility, principal: Principal, now_us: int
) -> StoredBinding | None:
    """Returns a binding that the caller may see."""
    reach = or_(false(), *_seen(visibility, principal))
    return _one(conn, and_(_C.uid == uid, reach, _in_force(now_us)))


def managed(
    conn: Connection, uid: str, visibility: Visibility, now_us: int
) -> StoredBinding | None:
    """Returns a binding that the caller may change."""
    reach = or_(false(), *_managed(visibility))
    return _one(conn, and_(_C.uid == uid, reach, _in_force(now_us)))


def is_held(conn: Connection, uid: str, principal: Principal, now_us: int) -> bool:
    """Whether a binding is the caller's own, by itself or by a group of it."""
    held = or_(*_held(principal))
    return _one(conn, and_(_C.uid == uid, held, _in_force(now_us))) is not None


def may_give(visibility: Visibility, binding: Binding) -> bool:
    """Whether the caller's right to manage reaches a binding that is not there yet."""
    if visibility.everything:
        return True
    if binding.role is Role.CHANNEL_MANAGER:
        return binding.channel_uid in visibility.channels
    return binding.role in OF_A_VO and binding.vo in visibility.vos


def page(
    conn: Connection,
    visibility: Visibility,
    principal: Principal,
    filter_: Filter,
    page_: Page,
    now_us: int,
) -> tuple[list[StoredBinding], str]:
    """A page of the bindings that a caller sees, newest first, and the token of the next page."""
    where = and_(_asked(filter_), _in_force(now_us))
    reaches = _seen(visibility, principal)
    statement = along_indexes(ROLE_BINDING, reaches, where, NEWEST_FIRST, page_)
    rows, token = fetch_page(conn, statement, NEWEST_FIRST, page_)
    return [_stored(row) for row in rows], token


def standing_admin(
    conn: Connection,
    now_us: int,
    *,
    issuers: Collection[str] | None = None,
    besides: tuple[str, str] | None = None,
) -> StoredBinding | None:
    """Returns a binding by which an identity is administrator without an end, and is not vetoed by
    one of its own; None when there is none.

    Nobody knows who is in a group, so a group's role does not count.

    Parameters:
        issuers: whose identities count; None: everybody's.
        besides: issuer and subject of one who is not to count.
    """
    where = _is_standing_admin(now_us)
    if issuers is not None:
        where = and_(where, _C.issuer.in_(issuers))
    if besides is not None:
        where = and_(where, ~_is_of(*besides))
    row = conn.execute(select(ROLE_BINDING).where(where).limit(1)).first()
    return None if row is None else _stored(row)


def admin_of(conn: Connection, issuer: str, subject: str) -> StoredBinding | None:
    """Returns the binding by which an identity is administrator."""
    return _one(conn, and_(_is_of(issuer, subject), _C.role == Role.ADMIN.value))


def users_of_vo(conn: Connection, vo: str, now_us: int) -> str:
    """Returns the name of a binding that names a VO; empty when there is none."""
    return _first_name(conn, and_(_C.vo == vo, _in_force(now_us)))


def users_of_group(conn: Connection, vo: str, path: str, now_us: int) -> str:
    """Returns the name of a binding of a group; empty when there is none."""
    return _first_name(conn, and_(_is_of("", path), _unindexed(_C.vo) == vo, _in_force(now_us)))


def take_ended(conn: Connection, before_us: int, limit: int) -> list[Binding]:
    """Deletes bindings whose end came before a time, at most so many; returns them."""
    where = and_(_C.expires_us.is_not(None), _C.expires_us < before_us)
    rows = conn.execute(select(ROLE_BINDING).where(where).order_by(_C.expires_us).limit(limit))
    ended = [_binding_of(row) for row in rows.all()]
    for binding in ended:
        remove(conn, binding)
    return ended


def _is_standing_admin(now_us: int) -> ColumnElement[bool]:
    veto = ROLE_BINDING.alias("veto")
    vetoed = exists().where(
        veto.c.issuer == _C.issuer,
        veto.c.subject == _C.subject,
        _unindexed(veto.c.role) == Role.VETOED.value,
        or_(veto.c.expires_us.is_(None), veto.c.expires_us > now_us),
    )
    return and_(
        _C.role == Role.ADMIN.value, (_C.expires_us + 0).is_(None), _C.issuer != "", ~vetoed
    )


def _seen(visibility: Visibility, principal: Principal) -> list[ColumnElement[bool]]:
    """The parts of what a caller sees: its own, and what it may manage."""
    if visibility.everything:
        return [true()]
    own = _held(principal) if visibility.owner == principal.owner else []
    return [*own, *_managed(visibility)]


def _held(principal: Principal) -> list[ColumnElement[bool]]:
    vos = sorted(principal.vos)
    return [
        _is_of(principal.issuer, principal.subject),
        *(
            and_(_is_of("", group), _unindexed(_C.vo).in_(vos))
            for group in sorted(principal.groups)
        ),
    ]


def _managed(visibility: Visibility) -> list[ColumnElement[bool]]:
    if visibility.nothing or visibility.job is not None:
        return []
    if visibility.everything:
        return [true()]
    roles = [role.value for role in OF_A_VO]
    return [
        *(and_(_C.vo == vo, _unindexed(_C.role).in_(roles)) for vo in sorted(visibility.vos)),
        *(
            and_(_C.channel_uid == uid, _unindexed(_C.role) == Role.CHANNEL_MANAGER.value)
            for uid in sorted(visibility.channels)
        ),
    ]


def _asked(filter_: Filter) -> ColumnElement[bool]:
    """What a filter asks for; a group stands where an identity has its subject."""
    names = {clause.field for clause in filter_.clauses}
    where = filter_.where(_FILTERED)
    if "group" in names:
        return and_(where, _C.issuer == "")
    if names == {"subject"}:
        return and_(where, _unindexed(_C.issuer) != "")
    return where


def _in_force(now_us: int) -> ColumnElement[bool]:
    # In a form that no index has: what is looked for is found by something else.
    ends = _C.expires_us + 0
    return and_(_C.uid.is_not(None), or_(ends.is_(None), ends > now_us))


def _one(conn: Connection, where: ColumnElement[bool]) -> StoredBinding | None:
    row = conn.execute(select(ROLE_BINDING).where(where)).first()
    return None if row is None else _stored(row)


def _first_name(conn: Connection, where: ColumnElement[bool]) -> str:
    found = _one(conn, where)
    return "" if found is None else found.name


def _is_of(issuer: str, subject: str) -> ColumnElement[bool]:
    return and_(_C.issuer == issuer, _C.subject == subject)


def _stored(row: Row[Any]) -> StoredBinding:
    return StoredBinding(
        uid=row.uid or "",
        binding=_binding_of(row),
        create_time_us=row.create_time_us,
        revision=row.revision or 0,
        reason=row.reason or "",
        creator=row.creator or "",
    )


def _binding_of(row: Row[Any]) -> Binding:
    of_group = not row.issuer
    binding = Binding(
        issuer=row.issuer,
        subject="" if of_group else row.subject,
        role=Role(row.role),
        vo=row.vo,
        channel_uid=row.channel_uid,
        expires_us=row.expires_us,
        group=row.subject if of_group else "",
    )
    if row.queued_work is None:
        return binding
    return replace(
        binding,
        queued_work=WorkAction(row.queued_work),
        running_work=WorkAction(row.running_work),
    )


def _key(binding: Binding) -> dict[str, str]:
    return {
        "issuer": "" if binding.group else binding.issuer,
        "subject": binding.group or binding.subject,
        "role": binding.role.value,
        "vo": binding.vo,
        "channel_uid": binding.channel_uid,
    }


def _terms(binding: Binding) -> dict[str, Any]:
    vetoes = binding.role is Role.VETOED
    return {
        "expires_us": binding.expires_us,
        "queued_work": binding.queued_work.value if vetoes else None,
        "running_work": binding.running_work.value if vetoes else None,
    }


def _old_uid(row: Row[Any]) -> str:
    """A UUIDv7 of the time of a binding, whose other digits follow from what it binds."""
    first = uuid7_floor(max(0, row.create_time_us // 1000))
    key = "\0".join(row._mapping[name] for name in _KEY)
    digits = hashlib.sha256(key.encode()).hexdigest()
    return f"{first[:15]}{digits[:3]}-{first[19]}{digits[3:6]}-{digits[6:18]}"
