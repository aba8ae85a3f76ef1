"""Storage elements that administrators made, and bans: their rows.

Responsible for statements; what an element may be is decided in `storage_admin`, what a ban means
in `bans`.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, true, update

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_kit.pages import Keyset, Page, fetch_page
from gridlane_transfer.channels.channels import NO_CHANNEL
from gridlane_transfer.states import UNFINISHED, FileState
from gridlane_transfer.storage.bans import Ban, BanAction, Operation
from gridlane_transfer.storage.storage_elements import PREFIX, StorageElement
from gridlane_transfer.store.tables import (
    CHANNEL,
    FILE,
    JOB,
    REPLICA,
    STORAGE_BAN,
    STORAGE_ELEMENT,
    file_in,
)

BY_NAME: Final = Keyset(STORAGE_ELEMENT.c.name)
BANS_NEWEST_FIRST: Final = Keyset(STORAGE_BAN.c.uid, descending=True)
_E: Final = STORAGE_ELEMENT.c
_B: Final = STORAGE_BAN.c
_UNFINISHED: Final = file_in(UNFINISHED)
_REMOVED: Final = FILE.c.channel_uid == NO_CHANNEL
_WAITING: Final = frozenset({FileState.READY, FileState.RETRYING, FileState.BLOCKED})
# Whose end an element is, of the files that wait for an operation there; and which of them do.
_CONCERNED: Final = (
    (Operation.WRITE, FILE.c.target_element, true()),
    (Operation.READ, FILE.c.source_element, ~_REMOVED),
    (Operation.REMOVE, FILE.c.source_element, _REMOVED),
)
_MOST_COUNTED: Final = 10_000


def read_all(conn: Connection) -> tuple[list[StorageElement], list[Ban]]:
    """Every element, in the order of creation, and every ban."""
    ordered = select(STORAGE_ELEMENT).order_by(_E.create_us, _E.name)
    return (
        [_element(row) for row in conn.execute(ordered)],
        [_ban(row) for row in conn.execute(select(STORAGE_BAN))],
    )


def read(conn: Connection, name: str) -> StorageElement | None:
    """An element by its plain name."""
    row = conn.execute(select(STORAGE_ELEMENT).where(_E.name == name)).one_or_none()
    return None if row is None else _element(row)


def insert_element(conn: Connection, element: StorageElement) -> None:
    """Stores an element; there is none of that name."""
    values = {**_columns(element), "name": element.name, "create_us": element.create_us}
    conn.execute(insert(STORAGE_ELEMENT).values(values))


def update_element(conn: Connection, element: StorageElement) -> None:
    """Stores what changed of an element."""
    conn.execute(update(STORAGE_ELEMENT).where(_E.name == element.name).values(_columns(element)))


def delete_element(conn: Connection, name: str) -> None:
    """Removes an element and its bans."""
    conn.execute(delete(STORAGE_BAN).where(_B.storage_element == PREFIX + name))
    conn.execute(delete(STORAGE_ELEMENT).where(_E.name == name))


def used_by(conn: Connection, name: str) -> str:
    """What keeps an element from being removed, for people; empty when nothing does."""
    resource = PREFIX + name
    replica = conn.execute(
        select(REPLICA.c.lfn).where(REPLICA.c.storage_element == resource).limit(1)
    ).scalar()
    if replica is not None:
        return f"the replica of {replica}"
    for end in (FILE.c.target_element, FILE.c.source_element):
        file = conn.execute(
            select(JOB.c.uuid, FILE.c.n)
            .join_from(FILE, JOB, JOB.c.number == FILE.c.job_number)
            .where(end == resource, _UNFINISHED)
            .limit(1)
        ).first()
        if file is not None:
            return f"transfers/{file.uuid}/files/{file.n}"
    channel = conn.execute(
        select(CHANNEL.c.name)
        .where(
            or_(CHANNEL.c.source == name, CHANNEL.c.target == name), CHANNEL.c.delete_us.is_(None)
        )
        .limit(1)
    ).scalar()
    return "" if channel is None else f"channels/{channel}"


def replica_below(conn: Connection, name: str, prefix: str) -> str:
    """The URL of a replica on an element that begins with a prefix; empty when there is none.

    Parameters:
        name: the element's plain name.
        prefix: ends with a slash.
    """
    begins = func.substr(REPLICA.c.url, 1, len(prefix)) == prefix
    statement = select(REPLICA.c.url).where(REPLICA.c.storage_element == PREFIX + name, begins)
    return conn.execute(statement.limit(1)).scalar() or ""


def insert_ban(conn: Connection, ban: Ban) -> None:
    """Stores a ban."""
    conn.execute(
        insert(STORAGE_BAN).values(
            uid=ban.uid,
            storage_element=ban.element,
            operations=",".join(str(int(one)) for one in sorted(ban.operations)),
            vo=ban.vo,
            action=int(ban.action),
            wait_timeout_us=ban.wait_timeout_us,
            accept_submissions=ban.accept_submissions,
            expires_us=ban.expires_us,
            reason=ban.reason,
            creator=ban.creator,
            create_us=ban.create_us,
            affected_files=0,
        )
    )


def read_ban(conn: Connection, uid: str, now_us: int) -> Ban | None:
    """A ban that is in force."""
    row = conn.execute(select(STORAGE_BAN).where(_B.uid == uid, _in_force(now_us))).one_or_none()
    return None if row is None else _ban(row)


def delete_ban(conn: Connection, uid: str) -> None:
    """Removes a ban."""
    conn.execute(delete(STORAGE_BAN).where(_B.uid == uid))


def prune_bans(conn: Connection, now_us: int) -> int:
    """Removes the bans that have ended by themselves; returns how many."""
    return conn.execute(delete(STORAGE_BAN).where(_B.expires_us <= now_us)).rowcount


def bans_page(
    conn: Connection, element: str | None, now_us: int, page: Page
) -> tuple[list[Ban], str]:
    """A page of the bans in force, newest first, and the token of the next page.

    Parameters:
        element: the resource name; None: of all elements.
    """
    statement = select(STORAGE_BAN).where(_in_force(now_us))
    if element is not None:
        statement = statement.where(_B.storage_element == element)
    rows, token = fetch_page(conn, statement, BANS_NEWEST_FIRST, page)
    return [_ban(row) for row in rows], token


def count_affected(conn: Connection, files: Mapping[str, int]) -> None:
    """Adds to how many files bans have cancelled or blocked.

    Parameters:
        files: by the bans' uids.
    """
    for uid, count in sorted(files.items()):
        conn.execute(
            update(STORAGE_BAN)
            .where(_B.uid == uid)
            .values(affected_files=_B.affected_files + count)
        )


def count_waiting(conn: Connection, ban: Ban) -> int:
    """How many files wait that a new ban will cancel or block; not more than ten thousand for
    each operation are counted.
    """
    numbers: set[int] = set()
    for operation, end, which in _CONCERNED:
        if not ban.concerns(operation, ban.vo):
            continue
        statement = select(FILE.c.number).where(
            end == ban.element, which, _UNFINISHED, FILE.c.state.in_(sorted(_WAITING))
        )
        if ban.vo:
            statement = statement.join_from(FILE, JOB, JOB.c.number == FILE.c.job_number)
            statement = statement.where(JOB.c.vo == ban.vo)
        numbers.update(conn.execute(statement.limit(_MOST_COUNTED)).scalars())
    return len(numbers)


def _in_force(now_us: int) -> Any:
    return or_(_B.expires_us.is_(None), _B.expires_us > now_us)


def _columns(element: StorageElement) -> dict[str, Any]:
    return {
        "settings": element.settings.SerializeToString(),
        "revision": element.revision,
        "update_us": element.update_us,
    }


def _element(row: Row[Any]) -> StorageElement:
    return StorageElement.of(
        row.name,
        storage_element_pb2.StorageElement.FromString(row.settings),
        revision=row.revision,
        create_us=row.create_us,
        update_us=row.update_us,
    )


def _ban(row: Row[Any]) -> Ban:
    numbers = [int(number) for number in row.operations.split(",") if number]
    return Ban(
        uid=row.uid,
        element=row.storage_element,
        operations=frozenset(map(Operation, numbers)),
        vo=row.vo,
        action=BanAction(row.action),
        wait_timeout_us=row.wait_timeout_us,
        accept_submissions=row.accept_submissions,
        expires_us=row.expires_us,
        reason=row.reason,
        creator=row.creator,
        create_us=row.create_us,
        affected_files=row.affected_files,
    )
