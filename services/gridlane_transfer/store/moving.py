"""Files on their way: claimed for an attempt, and what the mover answered.

Responsible for two transactions. A claim leases due files as far as channels and storage elements
have places (which ones is `scheduling`'s choice), resolves their names and commits the intent
(ACTIVE, the attempt, the lease epoch) before anything is touched. A report takes the mover's
answer, if it still is the answer of the newest attempt, and has the replica registered with it
(`registering`). The rules are `file_transfers`'.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, and_, select, update

from gridlane_kit.clock import now_us
from gridlane_kit.database import rows_by_key
from gridlane_kit.feed import Feed
from gridlane_kit.leases import database_now_us
from gridlane_kit.policy import WorkAction
from gridlane_transfer import messages
from gridlane_transfer.backends.base import Moved, MoveOrder
from gridlane_transfer.catalogue.base import Catalogue, LogicalFile
from gridlane_transfer.channels.bundles import ElementRoom, Waiting
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.channels.scheduling import Choice, Seen
from gridlane_transfer.moving import file_transfers, limits, rights, routes
from gridlane_transfer.moving.alternatives import OF_THE_SOURCE, Alternatives, Order
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import Budget, RetryPolicy
from gridlane_transfer.moving.registrations import Arrived
from gridlane_transfer.moving.rights import Stopped
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.states import DUE, RUNNING, FileState
from gridlane_transfer.storage.bans import Barred, cancelled, waits
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, onward, queues
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.claims import Claimed, ClaimRequest, Claims, Step
from gridlane_transfer.store.onward import Ways
from gridlane_transfer.store.places import Places
from gridlane_transfer.store.queues import MOST_FILES
from gridlane_transfer.store.registering import Registering
from gridlane_transfer.store.tables import FILE, FILE_COLUMNS, FileRow, JobRow, file_in

# Kept: to build them anew costs more than to run them.
_RUNNING = file_in(RUNNING)
_DUE_NOW = and_(file_in(DUE), FILE.c.due_us <= database_now_us())
# A file whose sources are all in use is looked at again so much later.
_POSTPONED_US = 1_000_000


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
        order: SourceOrder,
        catalogue: Catalogue,
        registering: Registering,
    ) -> None:
        self._feed = feed
        self._catalogue = catalogue
        self._registering = registering
        self._order = order
        self._channels = channels
        self._elements = elements
        self._retry = retry
        self._computable = computable

    def claim(self, conn: Connection, requests: Sequence[ClaimRequest]) -> list[Claims | Exception]:
        """Claim files for each request; what cannot be moved at all is ended here."""
        return [self._claim(conn, request) for request in requests]

    def report(self, conn: Connection, reports: Sequence[Report]) -> list[FileRow | None]:
        """Take answers: the file after each; None for a stale one (a newer attempt runs), which
        changes nothing.
        """
        numbers = [report.number for report in reports]
        found = rows_by_key(conn, FILE_COLUMNS, FILE.c.number, numbers, locked=True)
        rows = {row.number: row for row in map(FileRow._make, found)}
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows.values()})
        known = self._targets(conn, changes, reports, rows)
        taken: list[FileRow | None] = []
        for report in reports:
            row = rows.get(report.number)
            if row is None or not _is_newest(row, report):
                taken.append(None)
                continue
            rows[row.number] = self._take(conn, changes, row, report.outcome, known)
            taken.append(rows[row.number])
        changes.save()
        return taken

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

    def _claim(self, conn: Connection, request: ClaimRequest) -> Claims:
        places: list[list[FileRow]] = []
        more_abandoned = False
        if request.abandoned:
            places, more_abandoned = queues.lease_abandoned(
                conn, request.limit, holder=request.holder, ttl=request.ttl
            )
        begun, seen, room = self._chosen(conn, request, request.limit - len(places))
        places += begun
        rows = [row for place in places for row in place]
        if not rows:
            return Claims([], seen)
        changes = Changes(conn, self._feed, self._channels, now_us())
        changes.load({row.job_number for row in rows})
        lfns = {name for row in rows for name in file_transfers.names_to_resolve(row)}
        known = self._catalogue.known(conn, sorted(lfns)) if lfns else {}
        step = Step(changes, known, request.policy, room, Places(conn, self._elements, rows))
        claimed: list[list[Claimed | None]] = []
        for place in places:
            # Not one of the files: it may end, and start anew in a place of its own, before others.
            shared = random.getrandbits(62) if len(place) > 1 else None
            files = (row._replace(place=shared) for row in place)
            claimed.append([self._begin(step, row) for row in files])
        changes.save()
        more = sum(map(len, begun)) >= MOST_FILES
        return Claims(claimed, seen, more_abandoned, more, step.again_us)

    def _chosen(
        self, conn: Connection, request: ClaimRequest, limit: int
    ) -> tuple[list[list[FileRow]], Seen, ElementRoom]:
        """The due files that start, leased, by place, in the order in which they were chosen."""
        asked = {channel.uid for channel in request.channels}
        # As they are now: one may have been stopped while the claim waited to be written.
        starting = [one for one in self._channels.all() if one.uid in asked and one.starts_files]
        limited = queues.has_limits(self._elements)
        if limit <= 0 or not starting:
            return [], Seen(), ElementRoom({}, {})
        moving = queues.running(conn, [one.uid for one in starting], elements=limited)
        room = queues.room_at(self._elements, moving)
        lanes, idle = queues.lanes(conn, starting, moving, room, limit, request.bundle)
        idle = {*idle, *(one.uid for one in self._channels.all() if not one.starts_files)}
        weights = self._channels.weights
        choice = Choice(lanes, weights, request.standing, room, idle, request.bundle)
        chosen: list[Sequence[Waiting]] = []
        numbers: list[int] = []
        for place in islice(iter(choice.next_place, None), limit):
            chosen.append(place)
            numbers += [waiting.number for waiting in place]
            if len(numbers) >= MOST_FILES:
                break
        if not chosen:
            return [], choice.seen, room
        rows = queues.leased(conn, numbers, holder=request.holder, ttl=request.ttl)
        leased = ([rows[one.number] for one in place if one.number in rows] for place in chosen)
        return [place for place in leased if place], choice.seen, room

    def _begin(self, step: Step, row: FileRow) -> Claimed | None:
        changes, known, policy = step.changes, step.known, step.policy
        job = changes.job(row.job_number)
        order = file_transfers.plan(row, job, self._elements, known, self._computable, self._order)
        if row.state == FileState.CANCELING:
            if not isinstance(order, Failed):
                return Claimed(row, job, order, canceling=True)
            changes.file(row, FileState.CANCELED, lease_until_us=0)
            return None
        if job.cancel_us is not None and row.state in DUE:
            # Of a large job, whose files are cancelled bit by bit.
            changes.file(row, FileState.CANCELED, lease_until_us=0)
            return None
        action = step.action(job, FileState(row.state))
        if action is not WorkAction.KEEP:
            return self._stop(changes, row, job, order, rights.stopped(job, policy, action))
        if not isinstance(order, Failed):
            order = onward.on_channels(self._channels, row, order)
        ways = Ways(self._channels, self._elements, row, job, known)
        if isinstance(order, Failed):
            self._refuse(changes, ways, order)
            return None
        found = banned.barred_at_claim(row, job, order, self._elements)
        if found is not None and row.state != FileState.ACTIVE:
            self._wait_for_bans(changes, ways, order, found)
            return None
        if found is not None and found.cancels:
            ended = Stopped(FileState.CANCELED, cancelled(found.ban))
            return self._stop(changes, row, job, order, ended)
        order = banned.without_barred(order, job, self._elements)
        return self._start(step, row, job, order)

    def _start(self, step: Step, row: FileRow, job: JobRow, order: MoveOrder) -> Claimed | None:
        """Commit the intent to move a file; one whose sources are all in use is put off, one that
        is to be read on another channel waits there, and one whose target has a writer waits for
        its end.
        """
        changes, places = step.changes, step.places
        if row.state in DUE and (due_us := step.waits_until_us(row)) is not None:
            changes.file(row, FileState(row.state), due_us=due_us, lease_until_us=0)
            return None
        of_copies = onward.to_copy(changes, self._channels, self._order, row, order)
        if of_copies is None:
            return None
        placed = queues.placed(row, of_copies, step.room)
        if placed is None:
            changes.file(
                row, FileState(row.state), due_us=now_us() + _POSTPONED_US, lease_until_us=0
            )
            return None
        places.take(row)
        channel = self._channels.by_uid(row.channel_uid)
        order = limits.within(placed, channel, self._channels.all(), self._elements)
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

    def _wait_for_bans(self, changes: Changes, ways: Ways, order: MoveOrder, found: Barred) -> None:
        """Have another of its sources taken for a file that may not start, else have it wait."""
        row = ways.row
        following = banned.another_source(ways)
        if following is not None:
            failed = waits(found.ban)
            onward.to_source(changes, ways, row, FileState(row.state), following, failed)
            return
        banned.stop_at_claim(changes, row, order, found)

    def _refuse(self, changes: Changes, ways: Ways, failed: Failed) -> None:
        """Have another of its sources taken for a file that cannot be started, else end it."""
        row, job = ways.row, ways.job
        sources = file_transfers.alternatives_of(row)
        following = file_transfers.after_failure(
            FileState.ACTIVE, failed, self._budget(row, job), *self._led(ways, sources)
        )
        if following.sources is None:
            catalogue_failed = failed.failure_class is FailureClass.CATALOGUE
            state = FileState.CATALOG_FAILED if catalogue_failed else FileState.FAILED
            changes.file(row, state, failure=failed, lease_until_us=0)
            return
        state = FileState.RETRYING if row.state == FileState.ACTIVE else FileState(row.state)
        if following.state is FileState.HELD:
            state = FileState.HELD
        channel = self._channels.by_uid(row.channel_uid)
        waiting = changes.file(
            row,
            state,
            failure=None if state is FileState.READY else failed,
            retries=row.retries + following.retry,
            due_us=now_us() + (self._retry.wait_us(job, channel, row.retries) * following.retry),
        )
        onward.to_source(changes, ways, waiting, state, following.sources, failed)

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

    def _targets(
        self,
        conn: Connection,
        changes: Changes,
        reports: Sequence[Report],
        rows: Mapping[int, FileRow],
    ) -> dict[str, LogicalFile | None]:
        """What is registered of the logical names that files have arrived at, unless it is to be
        registered anyway.
        """
        arrived = (rows.get(one.number) for one in reports if isinstance(one.outcome, Moved))
        names = {
            row.target_lfn
            for row in arrived
            if row is not None and row.target_lfn and not changes.job(row.job_number).placement
        }
        known = self._catalogue.known(conn, sorted(names)) if names else {}
        return {name: known.get(name) for name in names}

    def _take(
        self,
        conn: Connection,
        changes: Changes,
        row: FileRow,
        outcome: Moved | Failed,
        known: dict[str, LogicalFile | None],
    ) -> FileRow:
        if isinstance(outcome, Moved):
            return self._moved(conn, changes, row, outcome, known)
        job = changes.job(row.job_number)
        channel = self._channels.by_uid(row.channel_uid)
        ways = self._ways(conn, row, job, outcome)
        following = file_transfers.after_failure(
            FileState(row.state),
            outcome,
            self._budget(row, job),
            *self._sources_left(ways),
            spared=file_transfers.is_spared(outcome, row),
        )
        reported: dict[str, Any] = {}
        if outcome.target is not None:
            report = messages.target_report(outcome.target)
            reported["target_report"] = report.SerializeToString()
        changed = changes.file(
            row,
            following.state,
            failure=None if following.state is FileState.CANCELED else outcome,
            retries=row.retries + following.retry,
            due_us=now_us() + (self._retry.wait_us(job, channel, row.retries) * following.retry),
            end_us=now_us(),
            lease_until_us=0,
            **reported,
        )
        if following.sources is None:
            return changed
        return onward.to_source(changes, ways, changed, following.state, following.sources, outcome)

    def _budget(self, row: FileRow, job: JobRow) -> Budget:
        return file_transfers.budget(row, job, self._channels.by_uid(row.channel_uid))

    def _ways(self, conn: Connection, row: FileRow, job: JobRow, failed: Failed) -> Ways:
        """The ways from the sources of a file after an attempt; what the catalogue has of them is
        asked when another one may do better.
        """
        of_source = failed.failure_class in OF_THE_SOURCE
        names = file_transfers.logical_sources(row) if of_source else []
        known = self._catalogue.known(conn, names) if names else {}
        return Ways(self._channels, self._elements, row, job, known)

    def _sources_left(self, ways: Ways) -> tuple[Alternatives | None, Order | None]:
        """The sources of a file after an attempt, with copies of a logical one that it did not
        try.
        """
        logical = ways.known.get(file_transfers.source_of(ways.row))
        if logical is None:
            return self._led(ways, file_transfers.alternatives_of(ways.row))
        return self._led(ways, onward.with_copies(ways, logical))

    def _led(
        self, ways: Ways, sources: Alternatives | None
    ) -> tuple[Alternatives | None, Order | None]:
        """Those of several sources that channels lead from, and in which order they are tried
        now.
        """
        if sources is None:
            return None, None
        strategy, target = file_transfers.strategy_of(ways.row), ways.row.target_element
        return ways.led(sources), self._order.by(strategy, onward.plain(target), ways.job.vo)

    def _moved(
        self,
        conn: Connection,
        changes: Changes,
        row: FileRow,
        moved: Moved,
        known: dict[str, LogicalFile | None],
    ) -> FileRow:
        """Take a file's arrival.

        Parameters:
            known: what was registered of some logical names; what may have changed is taken out.
        """
        algorithm, value = next(iter(moved.checksums.items()))
        job = changes.job(row.job_number)
        arrived: dict[str, Any] = {
            "source_url": moved.source.url,
            "source_element": moved.source.storage_element,
            "actual_checksum": f"{algorithm}:{value}",
            "transferred_bytes": file_transfers.transferred(moved, row, job),
            "lease_until_us": 0,
        }
        route = None if row.route is None else routes.read(row.route)
        if route is not None and not route.is_last(row.hop):
            return onward.to_hop(changes, self._channels, row._replace(**arrived), route)
        if not row.target_lfn or not (job.placement or self._is_registered(conn, row, known)):
            return changes.file(row, FileState.FINISHED, **arrived)
        earlier = file_transfers.attempts_of_hop(row) - 1
        replaced = file_transfers.replaces(row, job, earlier)
        brought = Arrived(moved.size_bytes, moved.checksums, replaced)
        known.pop(row.target_lfn, None)
        return self._registering.begin(conn, changes, row._replace(**arrived), brought)

    def _is_registered(
        self, conn: Connection, row: FileRow, known: dict[str, LogicalFile | None]
    ) -> bool:
        """Whether a file's target is a copy in the catalogue, which must not lie about it."""
        name = row.target_lfn
        if name not in known:
            known[name] = self._catalogue.known(conn, [name]).get(name)
        found = known[name]
        return found is not None and found.replica(row.target_url) is not None


def _is_newest(row: FileRow, report: Report) -> bool:
    return row.state in RUNNING and (row.lease_holder, row.lease_epoch) == (
        report.holder,
        report.epoch,
    )
