"""Files whose bytes are there and that the catalogue is owed: registered, tried again, given up.

Responsible for what a registration makes of a file, in three transactions. The first try is part of
the report that the bytes arrived: with a catalogue in this database, file and registration are kept
together. What could not be registered then stays REGISTERING and is claimed when it is due; a
report takes what became of it. The rules are `registrations`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, and_, bindparam, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_kit.leases import claim_due, database_now_us
from gridlane_transfer.catalogue.base import Catalogue, ConflictError, Registration
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving import file_transfers, registrations
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.moving.file_transfers import RetryPolicy
from gridlane_transfer.moving.registrations import Arrived
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FILE, FILE_COLUMNS, FileRow

_OWED: Final = FILE.c.arrived.is_not(None)
_DUE: Final = and_(_OWED, FILE.c.due_us <= database_now_us())
_REPORTED: Final = (
    select(*FILE_COLUMNS)
    .where(FILE.c.number.in_(bindparam("numbers", expanding=True)))
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """Asks for files to register: at most so many, for a holder, leased for so long."""

    limit: int
    holder: str
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class OwedFile:
    """A file to register."""

    number: int
    epoch: int
    copy: Registration


@dataclass(frozen=True, slots=True)
class RegistrationReport:
    """What became of a try.

    Parameters:
        failed: why it is not registered; None: it is.
    """

    number: int
    holder: str
    epoch: int
    failed: Failed | None


class Registering:
    """The transactions; one object a service."""

    def __init__(
        self,
        feed: Feed,
        channels: Channels,
        elements: StorageElements,
        retry: RetryPolicy,
        catalogue: Catalogue,
    ) -> None:
        self._feed = feed
        self._channels = channels
        self._elements = elements
        self._retry = retry
        self._catalogue = catalogue

    def begin(self, conn: Connection, changes: Changes, row: FileRow, arrived: Arrived) -> FileRow:
        """Register a file whose bytes have arrived, in the transaction that tells of them."""
        begun_us = now_us()
        row = changes.file(row, FileState.REGISTERING)
        job = changes.job(row.job_number)
        copy = registrations.copy_of(row, job, arrived, self._elements, begun_us)
        if isinstance(copy, Failed):
            return self._failed(changes, row, arrived, copy)
        try:
            registered = self._catalogue.register_with(conn, copy)
        except ConflictError as error:
            return self._failed(changes, row, arrived, registrations.contradicted(error))
        if registered is None:
            return changes.file(
                row,
                FileState.REGISTERING,
                due_us=begun_us,
                end_us=begun_us,
                arrived=arrived.to_json(),
            )
        return changes.file(row, FileState.FINISHED, registration_us=now_us() - begun_us)

    def is_due(self, conn: Connection) -> bool:
        """Whether a registration is to be tried, seen without writing."""
        found = select(FILE.c.number).where(_DUE, FILE.c.lease_until_us <= database_now_us())
        return conn.execute(found.limit(1)).first() is not None

    def claim(
        self, conn: Connection, requests: Sequence[RegistrationRequest]
    ) -> list[list[OwedFile] | Exception]:
        """Claim files for each request; what cannot be registered now is put off, or ended."""
        return [self._claim(conn, request) for request in requests]

    def _claim(self, conn: Connection, request: RegistrationRequest) -> list[OwedFile]:
        found = claim_due(
            conn,
            FILE,
            where=_DUE,
            order_by=[FILE.c.due_us, FILE.c.number],
            limit=request.limit,
            holder=request.holder,
            ttl=request.ttl,
        )
        rows = [FileRow._make(row) for row in found]
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows})
        owed = []
        for row in rows:
            arrived = registrations.read(row.arrived or "")
            job = changes.job(row.job_number)
            copy = registrations.copy_of(row, job, arrived, self._elements, now_us())
            if isinstance(copy, Failed):
                self._failed(changes, row, arrived, copy)
            else:
                owed.append(OwedFile(row.number, row.lease_epoch, copy))
        changes.save()
        return owed

    def report(
        self, conn: Connection, reports: Sequence[RegistrationReport]
    ) -> list[FileRow | Exception | None]:
        """Take what became of tries: the file after each; None for one that another process took
        up meanwhile, which changes nothing.
        """
        numbers = [report.number for report in reports]
        found = conn.execute(_REPORTED, {"numbers": numbers})
        rows = {row.number: row for row in map(FileRow._make, found)}
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows.values()})
        taken: list[FileRow | Exception | None] = []
        for report in reports:
            row = rows.get(report.number)
            if row is None or not _is_newest(row, report):
                taken.append(None)
                continue
            rows[row.number] = self._take(changes, row, report)
            taken.append(rows[row.number])
        changes.save()
        return taken

    def release_all(self, conn: Connection) -> None:
        """End every lease: no other process has this database, so their holders are no more."""
        conn.execute(update(FILE).where(_OWED).values(lease_until_us=0))

    def release(self, conn: Connection, holder: str) -> None:
        """Give back all files of a holder that stops."""
        mine = and_(_OWED, FILE.c.lease_holder == holder)
        conn.execute(update(FILE).where(mine).values(lease_until_us=0))

    def _take(self, changes: Changes, row: FileRow, report: RegistrationReport) -> FileRow:
        if report.failed is not None:
            arrived = registrations.read(row.arrived or "")
            return self._failed(changes, row, arrived, report.failed)
        return changes.file(
            row,
            FileState.FINISHED,
            registration_us=_since_us(row),
            arrived=None,
            lease_until_us=0,
        )

    def _failed(self, changes: Changes, row: FileRow, arrived: Arrived, failed: Failed) -> FileRow:
        """Put a registration off while that may help and there are retries, else give it up; a
        job whose end was asked for has none.
        """
        job = changes.job(row.job_number)
        channel = self._channels.by_uid(row.channel_uid)
        budget = file_transfers.budget(row, job, channel)
        if failed.recoverable and budget.spent < budget.most and job.cancel_us is None:
            return changes.file(
                row,
                FileState.REGISTERING,
                failure=failed,
                retries=row.retries + 1,
                due_us=now_us() + self._retry.wait_us(job, channel, row.retries),
                end_us=row.end_us or now_us(),
                arrived=arrived.to_json(),
                lease_until_us=0,
            )
        return changes.file(
            row,
            FileState.CATALOG_FAILED,
            failure=failed,
            moved=True,
            registration_us=_since_us(row),
            arrived=None,
            lease_until_us=0,
        )


def _since_us(row: FileRow) -> int:
    """How long ago the bytes of a file arrived that waited to be registered; 0 for one that did
    not.
    """
    return 0 if row.end_us is None else max(0, now_us() - row.end_us)


def _is_newest(row: FileRow, report: RegistrationReport) -> bool:
    return row.arrived is not None and (row.lease_holder, row.lease_epoch) == (
        report.holder,
        report.epoch,
    )
