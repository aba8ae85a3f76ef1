"""The embedded replica catalogue: in the service's own database.

Responsible for the catalogue's writes through the group commit, so that many callers share one, and
for its grouped reads. The rows and their rule are `store.catalogue`'s.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from gridlane_kit.database import Database
from gridlane_kit.decision import Visibility
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.grouped_read import GroupedRead
from gridlane_kit.pages import Page
from gridlane_transfer.catalogue.base import (
    Catalogue,
    ConflictError,
    LogicalFile,
    Registration,
    Removal,
)
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, catalogue


class EmbeddedCatalogue(Catalogue):
    """The catalogue, made before the group commit is started.

    Parameters:
        elements: whose bans keep files waiting, for other copies too.
    """

    name = "embedded"

    def __init__(self, db: Database, group: GroupCommit, elements: StorageElements) -> None:
        self._db = db
        self._elements = elements
        self._files = GroupedRead(db, catalogue.files)
        # Of copies of one file the first that came is the first registered.
        self._register: WriteKind[Registration, LogicalFile] = group.kind(
            "replicas.register", self._register_all, key=lambda copy: copy.lfn
        )
        self._unregister: WriteKind[Removal, int] = group.kind(
            "replicas.unregister", _unregister, key=lambda removal: removal.lfn
        )

    async def resolve(self, lfns: Sequence[str]) -> Sequence[LogicalFile | None]:
        """Grouped with what others ask at the moment."""
        return await self._files.get_many(lfns)

    async def page_below(
        self, prefix: str, reach: Visibility, page: Page
    ) -> tuple[Sequence[LogicalFile], str]:
        """Along an index, wherever the page lies."""
        return await self._db.read(lambda conn: catalogue.page_below(conn, prefix, reach, page))

    async def register(
        self, copies: Sequence[Registration], *, deadline: float | None = None
    ) -> Sequence[LogicalFile | Exception]:
        """All in one transaction, with what others write at the moment."""
        return await self._register.many(copies, deadline=deadline)

    async def unregister(
        self, removals: Sequence[Removal], *, deadline: float | None = None
    ) -> Sequence[int | Exception]:
        """All in one transaction, with what others write at the moment."""
        return await self._unregister.many(removals, deadline=deadline)

    def known(self, conn: Connection, lfns: Sequence[str]) -> Mapping[str, LogicalFile]:
        """As the transaction sees them."""
        return catalogue.files(conn, lfns)

    def register_with(self, conn: Connection, copy: Registration) -> LogicalFile:
        """In the transaction itself: it and the registration are kept together or not at all."""
        (answer,) = self._register_all(conn, [copy])
        if isinstance(answer, ConflictError):
            raise answer
        return answer

    def _register_all(
        self, conn: Connection, copies: Sequence[Registration]
    ) -> Sequence[LogicalFile | ConflictError]:
        answers = catalogue.register(conn, copies)
        banned.copies_came(conn, self._elements, {copy.lfn for copy in copies})
        return answers


def _unregister(conn: Connection, removals: Sequence[Removal]) -> Sequence[int | Exception]:
    return catalogue.unregister(conn, removals)
