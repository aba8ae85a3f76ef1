"""The policy as a whole: its revisions, and what each of them changed.

Responsible for the order of changes. Whoever changes the policy locks the row with the revision
first (`lock`) and stores what followers are told last (`record`), so that revisions are committed
in their order and no reader sees a gap. What a revision is made of are the rows of `bindings`,
`vos`, `groups` and `issuers`, and the tokens that were revoked (`user_tokens`).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Connection, delete, insert, select, update

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_authorization.store import bindings, groups, issuers, user_tokens, vos
from gridlane_authorization.store.tables import CHANGE, STATE, THE_ROW
from gridlane_kit.clock import now_us
from gridlane_kit.policy import Binding, Policy, PolicyChange
from gridlane_kit.policy_messages import change_message

KEPT_CHANGES: Final = 10_000
"""How many of the last changes are kept for followers that were away; others get the whole policy.
"""
_FORM: Final = "2: with declared groups and issuers"
"""Which kinds of rows a policy tells its followers of. It is a part of the epoch that they know:
whoever followed a version that told less is sent the whole policy."""


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
    """Begins the policy of a new database, completes what an older version wrote, and takes a
    setting over: one that differs from the stored one is a change like any other."""
    row = conn.execute(select(STATE).with_for_update()).one_or_none()
    if row is None:
        conn.execute(
            insert(STATE).values(
                id=THE_ROW, revision=0, epoch=str(uuid4()), jobs_vo_readable=jobs_vo_readable
            )
        )
        return
    if row.epoch is None:  # made by a version that had none
        conn.execute(update(STATE).values(epoch=str(uuid4())))
    bindings.complete(conn, row.revision)
    vos.complete(conn, row.revision)
    change_policy(conn, jobs_vo_readable=jobs_vo_readable, now_us=now_us)


def read_state(conn: Connection) -> PolicyState:
    """Returns which policy is stored; `open_policy` has been called."""
    epoch, revision = conn.execute(select(STATE.c.epoch, STATE.c.revision)).one()
    return PolicyState(_told(epoch), revision)


def read_policy(conn: Connection) -> StoredPolicy:
    """Returns the policy as it is stored; `open_policy` has been called."""
    state = conn.execute(select(STATE)).one()
    policy = Policy(
        state.revision,
        bindings.every(conn),
        state.jobs_vo_readable,
        vos.names(conn),
        revoked=user_tokens.revoked(conn, now_us()),
        groups=groups.paths(conn),
        issuers=issuers.believed(conn),
    )
    return StoredPolicy(_told(state.epoch), policy)


def _told(epoch: str) -> str:
    """The epoch as followers know it: of the database, and of what they are told."""
    return str(uuid5(UUID(epoch), _FORM))


def read_changes(
    conn: Connection, after: int, up_to: int
) -> Sequence[policy_service_pb2.PolicyChange] | None:
    """Returns what changed from one revision to another, in order.

    Returns:
        None when not all of it is kept.
    """
    wanted = CHANGE.c.revision.between(after + 1, up_to)
    rows = conn.execute(select(CHANGE.c.payload).where(wanted).order_by(CHANGE.c.revision))
    changes = [policy_service_pb2.PolicyChange.FromString(row.payload) for row in rows]
    return changes if len(changes) == up_to - after else None


def lock(conn: Connection) -> int:
    """Keeps every other writer of the policy waiting until this transaction's end.

    Returns:
        The revision that is stored.
    """
    return int(conn.execute(select(STATE.c.revision).with_for_update()).scalar_one())


def record(conn: Connection, change: PolicyChange, now_us: int) -> None:
    """Makes a change the newest revision, and keeps it for followers; `lock` has been called.

    Parameters:
        change: what the transaction did to the rows; its revision is the stored one's next.
    """
    conn.execute(update(STATE).values(revision=change.revision))
    if change.jobs_vo_readable is not None:
        conn.execute(update(STATE).values(jobs_vo_readable=change.jobs_vo_readable))
    payload = change_message(change).SerializeToString()
    values = {"revision": change.revision, "time_us": now_us, "payload": payload}
    conn.execute(insert(CHANGE).values(values))
    conn.execute(delete(CHANGE).where(CHANGE.c.revision <= change.revision - KEPT_CHANGES))


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
    """Changes the policy as the server itself does, for nobody.

    What is so already, is left out; when that is all, nothing changes.

    Parameters:
        added: bindings; each takes the place of one that differs from it only in its end and in
            what it does to work.
        removed: bindings; neither matters.
        jobs_vo_readable: None leaves it as it is.
        now_us: microseconds since 1970-01-01 UTC.

    Returns:
        The revision that holds after this.
    """
    before = lock(conn)
    readable = conn.execute(select(STATE.c.jobs_vo_readable)).scalar_one()
    revision = before + 1
    change = PolicyChange(
        revision=revision,
        removed=[binding for binding in removed if bindings.remove(conn, binding)],
        added=[binding for binding in added if bindings.put(conn, binding, revision, now_us)],
        removed_vos=frozenset(name for name in removed_vos if vos.remove(conn, name)),
        added_vos=frozenset(name for name in added_vos if vos.put(conn, name, revision, now_us)),
        jobs_vo_readable=None if jobs_vo_readable == readable else jobs_vo_readable,
    )
    if change == PolicyChange(revision, [], []):
        return before
    record(conn, change, now_us)
    return revision
