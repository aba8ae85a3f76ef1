"""Registers what the catalogue is owed: files whose bytes are there and whose first try was not
the last.

Responsible for the loop. It looks once a second for what is due; what is claimed and what follows
is `store.registering`'s, what may be registered `registrations`'. Leases are not renewed: to
register twice does no harm, and the answer of who was taken over changes nothing.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.leases import new_holder
from gridlane_transfer.catalogue.base import Catalogue, ConflictError, LogicalFile
from gridlane_transfer.moving import registrations
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.store.registering import (
    OwedFile,
    Registering,
    RegistrationReport,
    RegistrationRequest,
)
from gridlane_transfer.store.tables import FileRow

_CLAIMED = failpoint("transfer.registration.claimed")
_REGISTERED = failpoint("transfer.registration.registered")
_REPORTED = failpoint("transfer.registration.committed")
_AT_ONCE: Final = 200
_LOOK_S: Final = 1.0
_log = logs.logger("transfer.registrar")


class Registrar:
    """The loop.

    Parameters:
        claim, report: the writes, through the group commit.
        exclusive: no other process has this database, so that all leases in it are void at start.
        lease_s: how long a file is leased.
        wake: has files looked for that may be written to places that became free.
    """

    def __init__(
        self,
        db: Database,
        registering: Registering,
        catalogue: Catalogue,
        *,
        claim: WriteKind[RegistrationRequest, list[OwedFile]],
        report: WriteKind[RegistrationReport, FileRow | None],
        exclusive: bool,
        lease_s: float,
        wake: Callable[[], None],
    ) -> None:
        self._db = db
        self._registering = registering
        self._catalogue = catalogue
        self._claim = claim
        self._report = report
        self._exclusive = exclusive
        self._wake = wake
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        self._background = Background(
            self._register_all,
            name="transfer-registrar",
            log=_log,
            trouble="files could not be registered",
        )

    async def start(self) -> None:
        """Begin, with what was left."""
        if self._exclusive:
            await self._db.write(self._registering.release_all)
        self._background.start()

    async def drain(self) -> None:
        """Register no more; what is left is taken up by whoever starts next."""
        await self._background.stop()
        await self._db.write(lambda conn: self._registering.release(conn, self._holder))

    async def _register_all(self) -> float:
        while await self._step():
            pass
        return _LOOK_S

    async def _step(self) -> bool:
        """Register what is due, as much as goes at once; whether there may be more."""
        if not await self._db.read(self._registering.is_due):
            return False
        owed = await self._claim(RegistrationRequest(_AT_ONCE, self._holder, self._ttl))
        _CLAIMED()
        if not owed:
            return False
        outcomes = await self._register(owed)
        _REGISTERED()
        reports = [
            RegistrationReport(file.number, self._holder, file.epoch, outcome)
            for file, outcome in zip(owed, outcomes, strict=True)
            if not isinstance(outcome, Exception)
        ]
        reported = await self._report.many(reports)
        _REPORTED()
        self._wake()
        # A defect is told once the others' answers are stored; its file waits for its lease's end.
        for outcome in (*outcomes, *reported):
            if isinstance(outcome, Exception):
                raise outcome
        return len(owed) == _AT_ONCE

    async def _register(self, owed: Sequence[OwedFile]) -> list[Failed | Exception | None]:
        try:
            answers = await self._catalogue.register([file.copy for file in owed])
        except GridlaneError as error:
            return [registrations.unanswered(self._catalogue.name, error.message)] * len(owed)
        return [self._failure(answer) for answer in answers]

    def _failure(self, answer: LogicalFile | Exception) -> Failed | Exception | None:
        """Why a copy is not registered; None: it is; an exception: it is not known."""
        if isinstance(answer, ConflictError):
            return registrations.contradicted(answer)
        if isinstance(answer, GridlaneError):
            return registrations.unanswered(self._catalogue.name, answer.message)
        return answer if isinstance(answer, Exception) else None
