"""Those whom a start of the server makes: the local user of an embedded one, the first Admin."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from gridlane_authorization.store import bindings
from gridlane_authorization.store.policy import change_policy
from gridlane_authorization.store.tables import LOCAL_USER, THE_ROW
from gridlane_kit.policy import Binding, Role


@dataclass(frozen=True, slots=True)
class LocalUser:
    """The user of an embedded server, as the first start made it."""

    issuer: str
    subject: str
    vo: str


def read_local_user(conn: Connection) -> LocalUser | None:
    """Returns the local user, None before the first start made one."""
    row = conn.execute(select(LOCAL_USER)).one_or_none()
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
        insert(LOCAL_USER).values(id=THE_ROW, issuer=user.issuer, subject=user.subject, vo=user.vo)
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
    """Makes an identity Admin when nobody is, or none without an end who is not vetoed.

    Returns:
        Whether it was made; False when there is an Admin already.
    """
    if bindings.standing_admin(conn, now_us) is not None:
        return False
    admin = Binding(issuer=issuer, subject=subject, role=Role.ADMIN)
    change_policy(conn, added=[admin], now_us=now_us)
    return True
