"""Settings that verbs change, in force in every process of the service within a second.

Responsible for the revisions of what is kept in memory (storage elements, channels), bumped in the
transaction that changes it, and for reading it again when another process bumped one. Not for what
is read nor for what it means: that is the registry's that takes it (`storage_elements`,
`channels`), which other code asks synchronously, without a statement.

Usage, in the room::

    refresh = Refresh(db)
    refresh.follow(Kind.CHANNELS, channel_rows.read_all, channels.replace)
    await refresh.start()      # reads everything once: the registries are filled from here on

and where something is changed::

    def transact(conn: Connection) -> Channel:
        revision = lock(conn, Kind.CHANNELS) + 1    # first: other changers wait for the commit
        ...                                         # the statements, with this revision in the row
        bump(conn, Kind.CHANNELS)
        return channel

    changed = await db.write_after_lock(transact)
    await refresh.now()        # this process sees it before the caller is answered
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, insert, select, update

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.database import Database
from gridlane_transfer.store.tables import SETTINGS_REVISION

T = TypeVar("T")
EVERY_S: Final = 0.5
"""How often the revisions are read: a change is in force everywhere within a second."""

_C: Final = SETTINGS_REVISION.c
_log = logs.logger("transfer.refresh")


class Kind(StrEnum):
    """What is read as a whole when one of it changed."""

    STORAGE_ELEMENTS = "storage_elements"
    CHANNELS = "channels"


def lock(conn: Connection, kind: Kind) -> int:
    """Keeps every other changer of a kind waiting until this transaction's end; call it first, in
    `Database.write_after_lock`.

    Returns:
        The revision that is stored.
    """
    statement = select(_C.revision).where(_C.kind == kind.value).with_for_update()
    return int(conn.execute(statement).scalar_one())


def bump(conn: Connection, kind: Kind) -> int:
    """Has every process read a kind again once this transaction is committed.

    Returns:
        The new revision, which no other change has.
    """
    of_kind = _C.kind == kind.value
    conn.execute(update(SETTINGS_REVISION).where(of_kind).values(revision=_C.revision + 1))
    return int(conn.execute(select(_C.revision).where(of_kind)).scalar_one())


def ensure(conn: Connection) -> None:
    """Sees to it that each kind has its revision."""
    present = set(conn.execute(select(_C.kind)).scalars())
    for kind in Kind:
        if kind.value not in present:
            conn.execute(insert(SETTINGS_REVISION).values(kind=kind.value, revision=0))


@dataclass(slots=True)
class _Followed:
    """One kind: how it is read, who takes it, and the revision that was taken last."""

    read: Callable[[Connection], Any]
    take: Callable[[Any], None]
    revision: int = -1


class Refresh:
    """Keeps the registries of this process as the store is.

    Parameters:
        every_s: how often is looked for the changes of other processes, seconds.
    """

    def __init__(self, db: Database, every_s: float = EVERY_S) -> None:
        self._db = db
        self._every_s = every_s
        self._followed: dict[Kind, _Followed] = {}
        # What is read later is newer: one look at a time.
        self._looking = asyncio.Lock()
        self._background = Background(
            self._look,
            name="transfer-refresh",
            log=_log,
            trouble="changed settings cannot be taken now",
            again_s=every_s,
            first_s=every_s,
        )

    def follow(
        self, kind: Kind, read: Callable[[Connection], T], take: Callable[[T], None]
    ) -> None:
        """Have a kind read and taken; call it before `start`.

        Parameters:
            read: everything of that kind, on the snapshot of its revision.
            take: puts it in force; called in the event loop, must not wait or raise.
        """
        self._followed[kind] = _Followed(read, take)

    async def start(self) -> None:
        """Read everything once, and begin to look for changes.

        Raises:
            GridlaneError: STORE_UNAVAILABLE.
        """
        await self._db.write(ensure)
        await self.now()
        self._background.start()

    async def stop(self) -> None:
        """Look no more; what was read last stays in force."""
        await self._background.stop()

    async def now(self) -> None:
        """Put in force what is committed, before this returns.

        Raises:
            GridlaneError: STORE_UNAVAILABLE; the next look takes it over.
        """
        async with self._looking:
            for kind, revision, found in await self._db.read(self._changed):
                followed = self._followed[kind]
                followed.take(found)
                followed.revision = revision

    def _changed(self, conn: Connection) -> list[tuple[Kind, int, Any]]:
        """What is at another revision than was taken, on one snapshot."""
        rows = conn.execute(select(_C.kind, _C.revision))
        revisions = {row.kind: row.revision for row in rows}
        return [
            (kind, revisions[kind], followed.read(conn))
            for kind, followed in self._followed.items()
            if revisions[kind] != followed.revision
        ]

    async def _look(self) -> float:
        await self.now()
        return self._every_s
