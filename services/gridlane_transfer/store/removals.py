"""Files that are to be removed: claimed for an attempt, and what came of it.

Responsible for two transactions, as `moving` is for files that move. A claim leases due files and
commits the intent before anything is touched; a report takes the answer, if it still is the newest
attempt's, and takes the file out of the catalogue in the same transaction. They lie on no channel,
and so nothing else claims them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.decision import Visibility, decide
from gridlane_kit.feed import Feed
from gridlane_kit.identity import Principal
from gridlane_kit.leases import claim_due, database_now_us, renew
from gridlane_kit.policy import Policy, WorkAction
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.catalogue.base import Removal as Copies
from gridlane_transfer.channels.channels import NO_CHANNEL, Channels, ExhaustedAction
from gridlane_transfer.moving import rights
from gridlane_transfer.moving.failures import Failed
from gridlane_transfer.moving.file_transfers import Budget, RetryPolicy, after_failure
from gridlane_transfer.moving.removal_orders import RemoveOrder, plan
from gridlane_transfer.states import DUE, RUNNING, FileState
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, catalogue, places
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FILE, FILE_COLUMNS, FileRow, JobRow, file_in

_NOWHERE: Final = FILE.c.channel_uid == NO_CHANNEL
_RUNNING: Final = and_(_NOWHERE, file_in(RUNNING))
_DUE: Final = and_(_NOWHERE, file_in(DUE), FILE.c.due_us <= database_now_us())
# A file to whose place another one is written is looked at again so much later.
_WRITTEN_US: Final = 1_000_000
_REPORTED = (
    select(*FILE_COLUMNS)
    .where(FILE.c.number.in_(bindparam("numbers", expanding=True)))
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class RemovalRequest:
    """Asks for files to remove: at most so many, for a holder, leased for so long."""

    limit: int
    holder: str
    ttl: timedelta
    policy: Policy


@dataclass(frozen=True, slots=True)
class Removal:
    """A file to remove."""

    file: FileRow
    job: JobRow
    order: RemoveOrder


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """The answer for one attempt.

    Parameters:
        gone: copies that are not there any more, to be taken out of the catalogue.
        failed: why something is left; None when nothing is.
    """

    number: int
    holder: str
    epoch: int
    lfn: str
    gone: Sequence[str]
    failed: Failed | None


class Removing:
    """The transactions; one object a service."""

    def __init__(
        self, feed: Feed, channels: Channels, elements: StorageElements, retry: RetryPolicy
    ) -> None:
        self._feed = feed
        self._channels = channels
        self._elements = elements
        self._retry = retry

    def is_due(self, conn: Connection) -> bool:
        """Whether there is something to do, seen without writing."""
        free = or_(_DUE, _RUNNING)
        found = select(FILE.c.number).where(free, FILE.c.lease_until_us <= database_now_us())
        return conn.execute(found.limit(1)).first() is not None

    def claim(
        self, conn: Connection, requests: Sequence[RemovalRequest]
    ) -> list[list[Removal] | Exception]:
        """Claim files for each request; what cannot be removed at all is ended here."""
        return [self._claim(conn, request) for request in requests]

    def _claim(self, conn: Connection, request: RemovalRequest) -> list[Removal]:
        rows: list[FileRow] = []
        for where in (_RUNNING, _DUE):  # first those whose process is no more
            found = claim_due(
                conn,
                FILE,
                where=where,
                order_by=[FILE.c.rank, FILE.c.number],
                limit=request.limit - len(rows),
                holder=request.holder,
                ttl=request.ttl,
            )
            rows += map(FileRow._make, found)
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows})
        known = catalogue.files(conn, sorted({row.target_lfn for row in rows})) if rows else {}
        orders = [(row, self._order(changes, row, known, request.policy)) for row in rows]
        planned = [(row, order) for row, order in orders if order is not None]
        begun = self._begin(conn, changes, planned)
        changes.save()
        return begun

    def _begin(
        self, conn: Connection, changes: Changes, planned: Sequence[tuple[FileRow, RemoveOrder]]
    ) -> list[Removal]:
        """Commit the intent to remove files; one to whose place another one writes waits for its
        end.
        """
        urls = {url for _, order in planned for url in self._urls(order)}
        written = places.written(conn, urls) | places.at_work(conn).urls if urls else set()
        begun: list[Removal] = []
        for row, order in planned:
            if row.state in DUE and not written.isdisjoint(self._urls(order)):
                due_us = now_us() + _WRITTEN_US
                changes.file(row, FileState(row.state), due_us=due_us, lease_until_us=0)
                continue
            active = changes.file(
                row,
                FileState.ACTIVE,
                attempt=row.attempt + 1,
                start_us=now_us(),
                source_url=order.copies[0].url,
            )
            begun.append(Removal(active, changes.job(row.job_number), order))
        return begun

    def _urls(self, order: RemoveOrder) -> set[str]:
        """All by which the places of a file's copies are reached."""
        return {
            url
            for copy in order.copies
            for url in places.urls_of(self._elements, copy.url, copy.storage_element)
        }

    def _order(
        self, changes: Changes, row: FileRow, known: dict[str, LogicalFile], policy: Policy
    ) -> RemoveOrder | None:
        """What is to be done for a file; one that cannot be removed ends, or waits."""
        job = changes.job(row.job_number)
        if row.state == FileState.CANCELING or job.cancel_us is not None:
            _stop(changes, row, FileState.CANCELED)
            return None
        action = rights.action(job, policy, FileState(row.state))
        if action is not WorkAction.KEEP:
            stopped = rights.stopped(job, policy, action)
            _stop(changes, row, stopped.state, stopped.failure)
            return None
        bar = self._elements.barred(row.source_element, Operation.REMOVE, job.vo)
        if bar is not None and row.state in DUE:
            banned.stop(changes, row, bar)
            return None
        order = plan(row, job, self._elements, known, _right(job, policy))
        if isinstance(order, Failed):
            changes.file(row, FileState.FAILED, failure=order, lease_until_us=0)
            return None
        return order

    def report(
        self, conn: Connection, reports: Sequence[RemovalReport]
    ) -> list[FileRow | Exception | None]:
        """Take answers: the file after each; None for a stale one, which changes nothing."""
        numbers = [report.number for report in reports]
        found = conn.execute(_REPORTED, {"numbers": numbers})
        rows = {row.number: row for row in map(FileRow._make, found)}
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows.values()})
        taken: list[FileRow | Exception | None] = []
        for report in reports:
            row = rows.get(report.number)
            holder = None if row is None else (row.lease_holder, row.lease_epoch)
            newest = holder == (report.holder, report.epoch)
            if row is None or row.state not in RUNNING or not newest:
                taken.append(None)
                continue
            if report.gone:
                catalogue.unregister(conn, [Copies(report.lfn, report.gone)])
            rows[row.number] = self._take(changes, row, report.failed)
            taken.append(rows[row.number])
        changes.save()
        return taken

    def _take(self, changes: Changes, row: FileRow, failed: Failed | None) -> FileRow:
        if failed is None:
            return changes.file(row, FileState.FINISHED, lease_until_us=0)
        budget = Budget(row.retries, changes.job(row.job_number).max_retries, ExhaustedAction.FAIL)
        following = after_failure(FileState(row.state), failed, budget)
        delay_us = self._retry.delay_us(row.retries) if following.retry else 0
        return changes.file(
            row,
            following.state,
            failure=None if following.state is FileState.CANCELED else failed,
            retries=row.retries + following.retry,
            due_us=now_us() + delay_us,
            end_us=now_us(),
            lease_until_us=0,
        )

    def keep(
        self, conn: Connection, held: Sequence[tuple[int, int]], holder: str, ttl: timedelta
    ) -> Collection[int]:
        """Renew the leases of files, by number and epoch; the numbers of those still held."""
        kept = []
        for number, epoch in held:
            where = and_(FILE.c.number == number, _RUNNING)
            if renew(conn, FILE, where=where, holder=holder, epoch=epoch, ttl=ttl):
                kept.append(number)
        return kept

    def release(self, conn: Connection, holder: str) -> None:
        """Give back all files of a holder that stops."""
        conn.execute(
            update(FILE).where(_RUNNING, FILE.c.lease_holder == holder).values(lease_until_us=0)
        )


def _stop(changes: Changes, row: FileRow, state: FileState, why: Failed | None = None) -> None:
    """Remove a file no further."""
    if state is FileState.CANCELED and row.state == FileState.ACTIVE:
        row = changes.file(row, FileState.CANCELING, failure=why)
    changes.file(row, state, failure=why, lease_until_us=0)


def _right(job: JobRow, policy: Policy) -> Visibility:
    """How far a job's owner may remove now; work that goes on in spite of a veto keeps its
    right.
    """
    principal = Principal.from_json(job.principal)
    return decide(principal, rights.permission(job), policy, now_us(), despite_veto=True).visibility
