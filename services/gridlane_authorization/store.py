"""Authorization's tables and statements.

Responsible for what is stored: bindings, virtual organisations, the policy's revision, who the
local user is. Only Authorization holds bindings; every other service has the policy made from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    String,
    Table,
    UniqueConstraint,
    insert,
    select,
    update,
)

from gridlane_kit.database import Micros, service_metadata
from gridlane_kit.policy import Binding, Role

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

# One row: the revision grows with every change of the policy.
_STATE = Table(
    "policy_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)

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
    """Everything that the policy is made of."""

    revision: int
    bindings: Sequence[Binding]
    vos: frozenset[str]


def read_policy(conn: Connection) -> StoredPolicy:
    """Returns the policy as it is stored; revision 0 before anything was."""
    revision = conn.execute(select(_STATE.c.revision)).scalar_one_or_none()
    bindings = [
        Binding(
            issuer=row.issuer,
            subject=row.subject,
            role=Role(row.role),
            vo=row.vo,
            channel_uid=row.channel_uid,
            expires_us=row.expires_us,
        )
        for row in conn.execute(select(_BINDING))
    ]
    vos = frozenset(conn.execute(select(_VO.c.name)).scalars())
    return StoredPolicy(revision=revision or 0, bindings=bindings, vos=vos)


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
    _add_vo(conn, user.vo, now_us)
    _add_bindings(
        conn,
        [
            Binding(issuer=user.issuer, subject=user.subject, role=Role.ADMIN),
            Binding(issuer=user.issuer, subject=user.subject, role=Role.SUBMITTER, vo=user.vo),
        ],
        now_us,
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
    _add_bindings(conn, [Binding(issuer=issuer, subject=subject, role=Role.ADMIN)], now_us)
    return True


def _add_vo(conn: Connection, name: str, now_us: int) -> None:
    if conn.execute(select(_VO.c.name).where(_VO.c.name == name)).first() is None:
        conn.execute(insert(_VO).values(name=name, create_time_us=now_us))


def _add_bindings(conn: Connection, bindings: Sequence[Binding], now_us: int) -> None:
    conn.execute(
        insert(_BINDING),
        [
            {
                "issuer": binding.issuer,
                "subject": binding.subject,
                "role": binding.role.value,
                "vo": binding.vo,
                "channel_uid": binding.channel_uid,
                "expires_us": binding.expires_us,
                "create_time_us": now_us,
            }
            for binding in bindings
        ],
    )
    if conn.execute(update(_STATE).values(revision=_STATE.c.revision + 1)).rowcount == 0:
        conn.execute(insert(_STATE).values(id=_THE_ROW, revision=1))
