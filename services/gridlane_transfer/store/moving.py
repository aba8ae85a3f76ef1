"""Files on their way: claimed for an attempt, and what the mover answered.

Responsible for two transactions. A claim leases due files of a channel up to its limit, resolves
their names and commits the intent (ACTIVE, the attempt, the lease epoch) before anything is
touched. A report takes the mover's answer, if it still is the answer of the newest attempt, and
registers the replica in the same transaction. The rules are `file_transfers`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, and_, bindparam, func, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.feed import Feed
from gridlane_kit.leases import claim_due, database_now_us, renew
from gridlane_kit.policy import Policy, WorkAction
from gridlane_transfer import file_transfers, rights
from gridlane_transfer.backends.base import Moved, MoveOrder
from gridlane_transfer.channels import Channel, Channels
from gridlane_transfer.failures import Failed, FailureClass
from gridlane_transfer.file_transfers import RetryPolicy
from gridlane_transfer.rights import Stopped
from gridlane_transfer.states import DUE, RUNNING, FileState
from gridlane_transfer.storage_elements import StorageElements
from gridlane_transfer.store import catalogue
from gridlane_transfer.store.catalogue import ConflictError, LogicalFile, Registration
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FILE, FILE_COLUMNS, FileRow, JobRow, file_in

# Kept: to build them anew costs more than to run them.
_RUNNING = file_in(RUNNING)
_DUE_NOW = and_(file_in(DUE), FILE.c.due_us <= database_now_us())
_REPORTED = (
    select(*FILE_COLUMNS)
    .where(FILE.c.number.in_(bindparam("numbers", expanding=True)))
    .with_for_update()
)
_COUNT_RUNNING = (
    select(func.count()).select_from(FILE).where(FILE.c.channel_uid == bindparam("uid"), _RUNNING)
)


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Asks for files of a channel to move.

    Parameters:
        limit: at most so many.
        holder: who will move them.
        ttl: for how long they are leased.
        policy: what submitters may do now.
        abandoned: also take up files whose lease ran out: their process is no more.
    """

    channel: Channel
    limit: int
    holder: str
    ttl: timedelta
    policy: Policy
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file to work on: to be moved as ordered, or (`canceling`) to be cleaned up after."""

    file: FileRow
    job: JobRow
    order: MoveOrder
    canceling: bool


@dataclass(frozen=True, slots=True)
class Keep:
    """A holder's wish to keep a file that it works on for another `ttl`."""

    number: int
    holder: str
    epoch: int
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Report:
    """The mover's answer for one attempt."""

    number: int
    holder: str
    epoch: int
    outcome: Moved | Failed


class Moving:
    """The transactions; one object a service."""

    def __init__(
        self,
        feed: Feed,
        channels: Channels,
        elements: StorageElements,
        retry: RetryPolicy,
        computable: frozenset[str],
    ) -> None:
        self._feed = feed
        self._channels = channels
        self._elements = elements
        self._retry = retry
        self._computable = computable

    def claim(
        self, conn: Connection, requests: Sequence[ClaimRequest]
    ) -> list[list[Claimed | None]]:
        """Claim files for each request; what cannot be moved at all is ended here, and is None."""
        return [self._claim(conn, request) for request in requests]

    def report(self, conn: Connection, reports: Sequence[Report]) -> list[FileRow | None]:
        """Take answers: the file after each; None for a stale one (a newer attempt runs), which
        changes nothing.
        """
        numbers = [report.number for report in reports]
        found = conn.execute(_REPORTED, {"numbers": numbers})
        rows = {row.number: row for row in map(FileRow._make, found)}
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows.values()})
        taken: list[FileRow | None] = []
        for report in reports:
            row = rows.get(report.number)
            if row is None or not _is_newest(row, report):
                taken.append(None)
                continue
            rows[row.number] = self._take(conn, changes, row, report.outcome)
            taken.append(rows[row.number])
        changes.save()
        return taken

    def keep(self, conn: Connection, wishes: Sequence[Keep]) -> list[FileState | Exception | None]:
        """Renew leases: the file's state; None for one that was lost or has ended."""
        return [_kept(conn, wish) for wish in wishes]

    def canceling(self, conn: Connection, holder: str) -> Sequence[int]:
        """The numbers of a holder's files whose end was asked for."""
        statement = select(FILE.c.number).where(
            _RUNNING, FILE.c.state == FileState.CANCELING, FILE.c.lease_holder == holder
        )
        return conn.execute(statement).scalars().all()

    def release(self, conn: Connection, holder: str) -> None:
        """Give back all files of a holder that stops; they are taken up by whoever starts next."""
        conn.execute(
            update(FILE).where(_RUNNING, FILE.c.lease_holder == holder).values(lease_until_us=0)
        )

    def release_all(self, conn: Connection) -> None:
        """End every lease: no other process has this database, so their holders are no more."""
        conn.execute(update(FILE).where(_RUNNING).values(lease_until_us=0))

    def _claim(self, conn: Connection, request: ClaimRequest) -> list[Claimed | None]:
        rows = self._leased(conn, request)
        if not rows:
            return []
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows})
        lfns = {name for row in rows for name in file_transfers.names_to_resolve(row)}
        known = catalogue.files(conn, sorted(lfns)) if lfns else {}
        claimed = [self._begin(changes, row, known, request.policy) for row in rows]
        changes.save()
        return claimed

    def _leased(self, conn: Connection, request: ClaimRequest) -> list[FileRow]:
        """Files whose attempt lost its process, then due ones as far as the channel has room."""
        rows = self._abandoned(conn, request) if request.abandoned else []
        if not request.channel.starts_files:
            return rows
        uid = request.channel.uid
        running = conn.execute(_COUNT_RUNNING, {"uid": uid}).scalar_one()
        room = min(request.channel.max_files - running, request.limit - len(rows))
        if room <= 0:
            return rows
        found = claim_due(
            conn,
            FILE,
            where=and_(FILE.c.channel_uid == uid, _DUE_NOW),
            order_by=[FILE.c.rank, FILE.c.number],
            limit=room,
            holder=request.holder,
            ttl=request.ttl,
        )
        begun = sorted(map(FileRow._make, found), key=lambda row: (row.rank, row.number))
        return rows + begun

    def _abandoned(self, conn: Connection, request: ClaimRequest) -> list[FileRow]:
        found = claim_due(
            conn,
            FILE,
            where=and_(FILE.c.channel_uid == request.channel.uid, _RUNNING),
            order_by=[FILE.c.number],
            limit=request.limit,
            holder=request.holder,
            ttl=request.ttl,
        )
        return [FileRow._make(row) for row in found]

    def _begin(
        self, changes: Changes, row: FileRow, known: dict[str, LogicalFile], policy: Policy
    ) -> Claimed | None:
        job = changes.job(row.job_number)
        order = file_transfers.plan(row, job, self._elements, known, self._computable)
        if row.state == FileState.CANCELING:
            if not isinstance(order, Failed):
                return Claimed(row, job, order, canceling=True)
            changes.file(row, FileState.CANCELED, lease_until_us=0)
            return None
        action = rights.action(job, policy, FileState(row.state))
        if action is not WorkAction.KEEP:
            return self._stop(changes, row, job, order, rights.stopped(job, policy, action))
        if isinstance(order, Failed):
            catalogue_failed = order.failure_class is FailureClass.CATALOGUE
            state = FileState.CATALOG_FAILED if catalogue_failed else FileState.FAILED
            changes.file(row, state, failure=order, lease_until_us=0)
            return None
        source = order.sources[0]
        begun = changes.file(
            row,
            FileState.ACTIVE,
            attempt=row.attempt + 1,
            start_us=now_us(),
            source_url=source.url,
            source_element=source.storage_element,
            transferred_bytes=0,
        )
        return Claimed(begun, job, order, canceling=False)

    def _stop(
        self,
        changes: Changes,
        row: FileRow,
        job: JobRow,
        order: MoveOrder | Failed,
        stopped: Stopped,
    ) -> Claimed | None:
        """What its owner may not have moved now; a copy that lost its process is cleaned up after
        before it ends.
        """
        if stopped.state is FileState.CANCELED and row.state == FileState.ACTIVE:
            ending = changes.file(row, FileState.CANCELING, failure=stopped.failure)
            if not isinstance(order, Failed):
                return Claimed(ending, job, order, canceling=True)
            row = ending
        changes.file(row, stopped.state, failure=stopped.failure, lease_until_us=0)
        return None

    def _take(
        self, conn: Connection, changes: Changes, row: FileRow, outcome: Moved | Failed
    ) -> FileRow:
        if isinstance(outcome, Moved):
            return self._moved(conn, changes, row, outcome)
        job = changes.job(row.job_number)
        following = file_transfers.after_failure(
            FileState(row.state),
            outcome,
            retries=row.retries,
            max_retries=job.max_retries,
            exhausted=self._channels.by_uid(row.channel_uid).on_exhausted,
        )
        return changes.file(
            row,
            following.state,
            failure=None if following.state is FileState.CANCELED else outcome,
            retries=row.retries + following.retry,
            due_us=now_us() + self._retry.delay_us(row.retries),
            end_us=now_us(),
            lease_until_us=0,
        )

    def _moved(self, conn: Connection, changes: Changes, row: FileRow, moved: Moved) -> FileRow:
        algorithm, value = next(iter(moved.checksums.items()))
        arrived = row._replace(
            source_url=moved.source.url,
            source_element=moved.source.storage_element,
            actual_checksum=f"{algorithm}:{value}",
            transferred_bytes=moved.size_bytes,
            lease_until_us=0,
        )
        job = changes.job(row.job_number)
        known = catalogue.files(conn, [row.target_lfn]) if row.target_lfn else {}
        registered = row.target_lfn in known and known[row.target_lfn].replica(row.target_url)
        if not row.target_lfn or not (job.placement or registered):
            return changes.file(arrived, FileState.FINISHED)
        begun_us = now_us()
        arrived = changes.file(arrived, FileState.REGISTERING)
        try:
            catalogue.register(conn, self._registration(arrived, job, moved))
        except ConflictError as error:
            failed = Failed(FailureClass.CATALOGUE, str(error), "choose another logical name")
            return changes.file(arrived, FileState.CATALOG_FAILED, failure=failed, moved=True)
        return changes.file(arrived, FileState.FINISHED, registration_us=now_us() - begun_us)

    def _registration(self, row: FileRow, job: JobRow, moved: Moved) -> Registration:
        located = self._elements.locate(row.target_url)
        return Registration(
            lfn=row.target_lfn,
            url=row.target_url,
            storage_element=row.target_element,
            vo=job.vo if located is None else located.vo,
            owner=job.owner,
            size_bytes=moved.size_bytes,
            checksums=moved.checksums,
            replaces=file_transfers.replaces(row.overwrite, job.overwrite),
            time_us=now_us(),
        )


def _kept(conn: Connection, wish: Keep) -> FileState | None:
    mine = and_(FILE.c.number == wish.number, _RUNNING)
    kept = renew(conn, FILE, where=mine, holder=wish.holder, epoch=wish.epoch, ttl=wish.ttl)
    if not kept:
        return None
    state = conn.execute(select(FILE.c.state).where(FILE.c.number == wish.number)).scalar_one()
    return FileState(state)


def _is_newest(row: FileRow, report: Report) -> bool:
    return row.state in RUNNING and (row.lease_holder, row.lease_epoch) == (
        report.holder,
        report.epoch,
    )
