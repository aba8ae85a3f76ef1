"""Authorization's tables and statements.

Responsible for what is stored: bindings, virtual organisations, the policy's revisions and what
changed with each, who the local user is. Only Authorization holds bindings; every other service has
the policy made from them. `change_policy` is the one way to change it: writers stand in line for
the row with the revision, so revisions are committed in their order, and no reader sees a gap.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    UniqueConstraint,
    and_,
    delete,
    insert,
    select,
    update,
)

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_kit.database import Micros, Text36, service_metadata
from gridlane_kit.policy import Binding, Policy, PolicyChange, Role
from gridlane_kit.policy_messages import change_message

METADATA = service_metadata()
MIGRATIONS = Path(__file__).parent / "migrations"

_BINDING = Table(
    "role_binding",
    METADATA,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("role", String(32), primary_key=True),
    Column("vo", String(64), primary_key=True),
    Column("channel_uid", String(36), primary_key=True),
    Column("expires_us", Micros, nullable=True),
    Column("create_time_us", Micros, nullable=False),
)

_VO = Table(
    "vo",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("create_time_us", Micros, nullable=False),
)

# One row: the revision grows with every change of the policy. The epoch is the database's: one
# that is restored from a copy needs another, or followers take new revisions for old ones.
_STATE = Table(
    "policy_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("epoch", Text36, nullable=True),
    Column("jobs_vo_readable", Boolean, nullable=True),
)

# What each of the last revisions changed, as the contract's PolicyChange.
_CHANGE = Table(
    "policy_change",
    METADATA,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", Micros, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

KEPT_CHANGES: Final = 10_000
"""How many of the last changes are kept for followers that were away; others get the whole policy.
"""

# One row: the user that the first start of an embedded server made.
_LOCAL_USER = Table(
    "local_user",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("vo", String(64), nullable=False),
    UniqueConstraint("issuer", "subject"),
)

_THE_ROW = 1


@dataclass(frozen=True, slots=True)
class LocalUser:
    """The user of an embedded server, as the first start made it."""

    issuer: str
    subject: str
    vo: str


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """The whole policy, and the epoch in which its revision counts."""

    epoch: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Which policy is stored."""

    epoch: str
    revision: int


def open_policy(conn: Connection, *, jobs_vo_readable: bool, now_us: int) -> None:
    """Begins the policy of a new database, and takes a setting over into it: a setting that differs
    from the stored one is a change like any other."""
    row = conn.execute(select(_STATE)).one_or_none()
    if row is None:
        conn.execute(
            insert(_STATE).values(
                id=_THE_ROW, revision=0, epoch=str(uuid4()), jobs_vo_readable=jobs_vo_readable
            )
        )
        return
    if row.epoch is None:  # made by a version that had none
        conn.execute(update(_STATE).values(epoch=str(uuid4())))
    change_policy(conn, jobs_vo_readable=jobs_vo_readable, now_us=now_us)


def read_state(conn: Connection) -> PolicyState:
    """Returns which policy is stored; `open_policy` has been called."""
    epoch, revision = conn.execute(select(_STATE.c.epoch, _STATE.c.revision)).one()
    return PolicyState(epoch, revision)


def read_policy(conn: Connection) -> StoredPolicy:
    """Returns the policy as it is stored; `open_policy` has been called."""
    state = conn.execute(select(_STATE)).one()
    policy = Policy(
        state.revision,
        (_binding_of(row) for row in conn.execute(select(_BINDING))),
        state.jobs_vo_readable,
        conn.execute(select(_VO.c.name)).scalars(),
    )
    return StoredPolicy(state.epoch, policy)


def read_changes(
    conn: Connection, after: int, up_to: int
) -> Sequence[policy_service_pb2.PolicyChange] | None:
    """Returns what changed from one revision to another, in order.

    Returns:
        None when not all of it is kept.
    """
    wanted = _CHANGE.c.revision.between(after + 1, up_to)
    rows = conn.execute(select(_CHANGE.c.payload).where(wanted).order_by(_CHANGE.c.revision))
    changes = [policy_service_pb2.PolicyChange.FromString(row.payload) for row in rows]
    return changes if len(changes) == up_to - after else None


def change_policy(
    conn: Connection,
    *,
    added: Iterable[Binding] = (),
    removed: Iterable[Binding] = (),
    added_vos: Collection[str] = (),
    removed_vos: Collection[str] = (),
    jobs_vo_readable: bool | None = None,
    now_us: int,
) -> int:
    """Changes the policy, and stores for its followers what was changed.

    What is so already, is left out; when that is all, nothing changes.

    Parameters:
        added: bindings; each takes the place of one that differs from it only in its end.
        removed: bindings; their ends do not matter.
        jobs_vo_readable: None leaves it as it is.
        now_us: microseconds since 1970-01-01 UTC.

    Returns:
        The revision that holds after this.
    """
    # The row first: on PostgreSQL the others wait here instead of failing at their commit.
    conn.execute(update(_STATE).values(revision=_STATE.c.revision + 1))
    state = conn.execute(select(_STATE)).one()
    change = PolicyChange(
        revision=state.revision,
        removed=[binding for binding in removed if _remove_binding(conn, binding)],
        added=[binding for binding in added if _add_binding(conn, binding, now_us)],
        removed_vos=frozenset(name for name in removed_vos if _remove_vo(conn, name)),
        added_vos=frozenset(name for name in added_vos if _add_vo(conn, name, now_us)),
        jobs_vo_readable=None if jobs_vo_readable == state.jobs_vo_readable else jobs_vo_readable,
    )
    if change == PolicyChange(state.revision, [], []):
        conn.execute(update(_STATE).values(revision=state.revision - 1))
        return int(state.revision) - 1
    if change.jobs_vo_readable is not None:
        conn.execute(update(_STATE).values(jobs_vo_readable=change.jobs_vo_readable))
    payload = change_message(change).SerializeToString()
    values = {"revision": state.revision, "time_us": now_us, "payload": payload}
    conn.execute(insert(_CHANGE).values(values))
    conn.execute(delete(_CHANGE).where(_CHANGE.c.revision <= state.revision - KEPT_CHANGES))
    return int(state.revision)


def read_local_user(conn: Connection) -> LocalUser | None:
    """Returns the local user, None before the first start made one."""
    row = conn.execute(select(_LOCAL_USER)).one_or_none()
    return None if row is None else LocalUser(issuer=row.issuer, subject=row.subject, vo=row.vo)


def create_local_user(conn: Connection, user: LocalUser, now_us: int) -> LocalUser:
    """Makes the local user, its VO and its two roles at the first start; later starts change
    nothing.

    What an administrator took away since is not given back.

    Returns:
        The local user that holds: the one made first.
    """
    present = read_local_user(conn)
    if present is not None:
        return present
    conn.execute(
        insert(_LOCAL_USER).values(
            id=_THE_ROW, issuer=user.issuer, subject=user.subject, vo=user.vo
        )
    )
    change_policy(
        conn,
        added=[
            Binding(issuer=user.issuer, subject=user.subject, role=Role.ADMIN),
            Binding(issuer=user.issuer, subject=user.subject, role=Role.SUBMITTER, vo=user.vo),
        ],
        added_vos=[user.vo],
        now_us=now_us,
    )
    return user


def create_first_admin(conn: Connection, issuer: str, subject: str, now_us: int) -> bool:
    """Makes an identity Admin when nobody is.

    Returns:
        Whether it was made; False when there is an Admin already.
    """
    admins = select(_BINDING.c.subject).where(_BINDING.c.role == Role.ADMIN.value).limit(1)
    if conn.execute(admins).first() is not None:
        return False
    admin = Binding(issuer=issuer, subject=subject, role=Role.ADMIN)
    change_policy(conn, added=[admin], now_us=now_us)
    return True


def _binding_of(row: Row[Any]) -> Binding:
    return Binding(
        issuer=row.issuer,
        subject=row.subject,
        role=Role(row.role),
        vo=row.vo,
        channel_uid=row.channel_uid,
        expires_us=row.expires_us,
    )


def _is(binding: Binding) -> ColumnElement[bool]:
    return and_(
        _BINDING.c.issuer == binding.issuer,
        _BINDING.c.subject == binding.subject,
        _BINDING.c.role == binding.role.value,
        _BINDING.c.vo == binding.vo,
        _BINDING.c.channel_uid == binding.channel_uid,
    )


def _add_binding(conn: Connection, binding: Binding, now_us: int) -> bool:
    present = conn.execute(select(_BINDING).where(_is(binding))).one_or_none()
    if present is not None:
        if present.expires_us == binding.expires_us:
            return False
        ends = update(_BINDING).where(_is(binding)).values(expires_us=binding.expires_us)
        conn.execute(ends)
        return True
    values = {
        "issuer": binding.issuer,
        "subject": binding.subject,
        "role": binding.role.value,
        "vo": binding.vo,
        "channel_uid": binding.channel_uid,
        "expires_us": binding.expires_us,
        "create_time_us": now_us,
    }
    conn.execute(insert(_BINDING).values(values))
    return True


def _remove_binding(conn: Connection, binding: Binding) -> bool:
    return conn.execute(delete(_BINDING).where(_is(binding))).rowcount > 0


def _add_vo(conn: Connection, name: str, now_us: int) -> bool:
    if conn.execute(select(_VO.c.name).where(_VO.c.name == name)).first() is not None:
        return False
    conn.execute(insert(_VO).values(name=name, create_time_us=now_us))
    return True


def _remove_vo(conn: Connection, name: str) -> bool:
    return conn.execute(delete(_VO).where(_VO.c.name == name)).rowcount > 0
