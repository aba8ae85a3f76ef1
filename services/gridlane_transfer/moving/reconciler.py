"""Moves what is due: claims files, hands them to the mover, stores its answers.

Responsible for the loop and for what runs now. It is woken by submissions and by answers, with a
slow poll behind; every step is bounded by what the mover can do at once. What is claimed, and what
becomes of a file, are `store.moving`'s and `file_transfers`'. Files whose process is no more are
claimed anew: their intent was committed before anything was touched. Several processes may do all
this on one database, each with the files that it leased.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from gridlane_kit import logs
from gridlane_kit.background import Background, Work, telling
from gridlane_kit.call import later
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.failpoints import failpoint
from gridlane_kit.group_commit import WriteKind
from gridlane_kit.identity import Principal
from gridlane_kit.leases import new_holder
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.telemetry import Telemetry
from gridlane_transfer.backends.base import MayPublish, Moved, TransferBackend
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.channels.scheduling import Ledger, path
from gridlane_transfer.jobs.options import options_of
from gridlane_transfer.moving.failures import Failed, FailureClass, TargetFound, canceled
from gridlane_transfer.moving.source_order import Successes
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.storage_elements import PREFIX
from gridlane_transfer.store.claims import Claimed, ClaimRequest, Claims
from gridlane_transfer.store.keeping import Keep
from gridlane_transfer.store.moving import Moving, Report
from gridlane_transfer.store.tables import FileRow

_CLAIMED = failpoint("transfer.claim.committed")
_ORDERED = failpoint("transfer.copy.ordered")
_PUBLISHED = failpoint("transfer.copy.published")
_REPORTED = failpoint("transfer.report.committed")
_ABORTED = failpoint("transfer.cancel.aborted")

# How long after a store that did not answer it is asked again.
_STORE_RETRY_S = 1.0
# How often a holder looks whether another process has accepted the cancel of a file of its.
_FIND_CANCELS_S = 1.0
# How soon files are looked for once one of a place has ended, but for the last one.
_SOON_S = 0.5
# So many leases are renewed in one go: small files by the thousand may move at the same time.
_RENEWED_TOGETHER = 500

_log = logs.logger("transfer.reconciler")


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done for a file, and under which epoch of its lease."""

    task: asyncio.Task[None]
    epoch: int


class Reconciler:
    """The loop.

    Parameters:
        claim, report, keep: the writes, through the group commit.
        successes: told how attempts ended.
        exclusive: no other process has this database, so that all leases in it are void at start,
            and nobody else cancels files or takes them over.
        poll_s: how often due files are looked for unasked.
        lease_s: how long a file is leased; renewed at a third of it.
    """

    def __init__(
        self,
        db: Database,
        moving: Moving,
        backend: TransferBackend,
        channels: Channels,
        policy: PolicyHolder,
        telemetry: Telemetry,
        *,
        claim: WriteKind[ClaimRequest, Claims],
        report: WriteKind[Report, FileRow | None],
        keep: WriteKind[Keep, FileState | None],
        successes: Successes,
        exclusive: bool,
        poll_s: float,
        lease_s: float,
    ) -> None:
        self._db = db
        self._successes = successes
        self._moving = moving
        self._backend = backend
        self._channels = channels
        self._policy = policy
        self._telemetry = telemetry
        self._claim = claim
        self._report = report
        self._keep = keep
        self._exclusive = exclusive
        self._poll_s = poll_s
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        self._running: dict[int, _Work] = {}
        self._places = 0
        self._on_channel: Counter[str] = Counter()
        self._ledger = Ledger()
        self._aborted: set[int] = set()
        # When files whose process is no more are looked for next, on the event loop's clock.
        self._look_s = 0.0
        self._claims = self._again("reconciler", "due files could not be claimed", self._claim_due)
        self._loops = [
            self._claims,
            self._again("leases", "leases could not be renewed", self._renew),
        ]
        if not exclusive:
            self._loops.append(
                self._again("cancels", "cancels could not be looked for", self._find_cancels)
            )
        self._waking: asyncio.TimerHandle | None = None
        self._stopping = False

    async def start(self) -> None:
        """Take up what was left, and begin."""
        if self._exclusive:
            await self._db.write(self._moving.release_all)
        await self._backend.start()
        for loop in self._loops:
            loop.start()

    def wake(self) -> None:
        """Have due files looked for now."""
        self._claims.wake()

    def abort(self, numbers: Sequence[int]) -> None:
        """End the copies of these files, whose state is CANCELING."""
        for number in numbers:
            if number in self._running:
                self._aborted.add(number)
                self._backend.abort(number)
        _ABORTED()
        self.wake()

    async def drain(self) -> None:
        """Claim no more, abort what runs; it is taken up again by whoever starts next."""
        self._stopping = True
        for loop in self._loops:
            await loop.stop()
        await self._backend.stop()
        works = [work.task for work in self._running.values()]
        for task in works:
            task.cancel()
        if works:
            await asyncio.wait(works)
        await self._db.write(lambda conn: self._moving.release(conn, self._holder))

    def _again(self, name: str, trouble: str, work: Work) -> Background:
        return Background(work, name=f"transfer-{name}", log=_log, trouble=trouble)

    async def _claim_due(self) -> float:
        """Claim; after how many seconds to do so unasked. Files whose process is no more are looked
        for that often too, however often it is woken.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_s:
            await self._step(abandoned=False)
        elif not await self._step(abandoned=True):
            self._look_s = now_s + self._poll_s
        return self._poll_s

    async def _step(self, *, abandoned: bool) -> bool:
        """Claim as much as the mover can begin, on all channels together.

        Parameters:
            abandoned: also take up files whose process is no more; at start, from time to time, and
                as long as there are more than the mover can begin at once.

        Returns:
            Whether there may be more of these.
        """
        limit = self._backend.capacity() - self._places
        channels = [
            channel
            for channel in self._channels.all()
            if channel.starts_files and channel.places > self._on_channel[channel.uid]
        ]
        if limit <= 0 or not (abandoned or channels):
            return abandoned
        standing = self._ledger.standing(time.monotonic())
        request = ClaimRequest(
            channels,
            limit,
            self._holder,
            self._ttl,
            self._policy.current,
            abandoned,
            standing,
            self._backend.bundle,
        )
        claims = await self._claim(request)
        for place in claims.places:
            _CLAIMED()
            if moving := [claimed for claimed in place if claimed is not None]:
                self._begin(moving)
            if len(moving) < len(place):
                self.wake()  # some have ended: there may be room for others
        if claims.again_us is not None:
            self._wake_at(claims.again_us)
        self._ledger.saw(claims.seen, standing)
        if claims.more:
            self.wake()
        return claims.more_abandoned

    def _begin(self, place: Sequence[Claimed]) -> None:
        """Work on the files that take a place together."""
        first = place[0].file
        task = asyncio.create_task(self._work(place), name=f"transfer-file-{first.number}")
        # Its lease runs out, and it is claimed anew.
        task.add_done_callback(telling(_log, "the work on a file ended before its end was stored"))
        for claimed in place:
            self._running[claimed.file.number] = _Work(task, claimed.file.lease_epoch)
        self._places += 1
        self._on_channel[first.channel_uid] += 1
        vo, _, activity = first.queue.partition("/")
        group = self._channels.weights.group(vo, activity)
        self._ledger.begin(first.number, path(first.channel_uid, vo, group), time.monotonic())

    async def _work(self, place: Sequence[Claimed]) -> None:
        first = place[0].file
        try:
            for before, part in enumerate(self._parts(place)):
                if before:
                    self._wake_soon()
                await self._work_on(part)
        finally:
            self._places -= 1
            self._on_channel[first.channel_uid] -= 1
            self._ledger.end(first.number, time.monotonic())
            for claimed in place:
                self._forget(claimed.file)
            self.wake()

    def _parts(self, place: Sequence[Claimed]) -> Iterator[Sequence[Claimed]]:
        """The files of a place that are moved together, and then each of the others."""
        together: list[Claimed] = []
        alone: list[Claimed] = []
        for claimed in place:
            (together if self._backend.moves_together(claimed.order) else alone).append(claimed)
        if together:
            yield together
        yield from ([claimed] for claimed in alone)

    async def _work_on(self, part: Sequence[Claimed]) -> None:
        """Move files, and store at once how they ended."""
        outcomes = await self._outcomes(part)
        if self._stopping:
            return
        for outcome in outcomes:
            if isinstance(outcome, Moved):
                _PUBLISHED()
        answered = list(zip(part, outcomes, strict=True))
        files = await self._store([self._report_of(*one) for one in answered])
        for (claimed, outcome), file in zip(answered, files, strict=True):
            _REPORTED()
            self._note(claimed.file, outcome)
            self._forget(claimed.file)
            if file is not None and file.state == FileState.RETRYING:
                self._wake_at(file.due_us)

    def _forget(self, file: FileRow) -> None:
        work = self._running.get(file.number)
        if work is not None and work.epoch == file.lease_epoch:
            del self._running[file.number]
            self._aborted.discard(file.number)

    def _report_of(self, claimed: Claimed, outcome: Moved | Failed) -> Report:
        return Report(claimed.file.number, self._holder, claimed.file.lease_epoch, outcome)

    async def _outcomes(self, part: Sequence[Claimed]) -> list[Moved | Failed]:
        """Move files, which are one job's; those whose end is asked for are cleaned up after."""
        # An end that is asked for from here on reaches the mover.
        moving = [one for one in part if not (one.canceling or one.file.number in self._aborted)]
        outcomes: dict[int, Moved | Failed] = {}
        if moving:
            for claimed, outcome in zip(moving, await self._move(moving), strict=True):
                outcomes[claimed.file.number] = await self._completed(claimed, outcome)
        for claimed in part:
            if claimed.file.number not in outcomes:
                await self._backend.clean(claimed.order)
                outcomes[claimed.file.number] = canceled()
        return [outcomes[claimed.file.number] for claimed in part]

    async def _move(self, files: Sequence[Claimed]) -> Sequence[Moved | Failed]:
        job = files[0].job
        with later(
            self._telemetry,
            "transfer.copy",
            Principal.from_json(job.principal),
            timeout_s=None,
            submitted=job.traceparent,
            job_id=job.job_tag or "",
        ):
            _ORDERED()
            return await self._backend.move_bundle(
                [(one.order, self._leave_of(one.file)) for one in files]
            )

    def _leave_of(self, file: FileRow) -> MayPublish | None:
        return None if self._exclusive else partial(self._may_publish, file)

    async def _completed(self, claimed: Claimed, outcome: Moved | Failed) -> Moved | Failed:
        if isinstance(outcome, Failed) and outcome.failure_class is FailureClass.TARGET_EXISTS:
            return await self._with_report(claimed, outcome)
        return outcome

    async def _with_report(self, claimed: Claimed, failed: Failed) -> Failed:
        """A failure with what lies at the target, where its job asks for that."""
        if not options_of(claimed.job.options).report_target_file:
            return failed
        order = claimed.order
        found = await self._backend.stat(order.target, order.checksums[:1])
        if isinstance(found, Failed) or found.size_bytes < 0:
            return failed
        checksums = [f"{name}:{value}" for name, value in found.checksums.items()]
        return replace(failed, target=TargetFound(found.size_bytes, *checksums[:1]))

    def _note(self, file: FileRow, outcome: Moved | Failed) -> None:
        """Keep how an attempt ended, for the choice among sources."""
        if isinstance(outcome, Moved):
            source = outcome.source.storage_element
        elif outcome.failure_class is FailureClass.CANCELED:
            return
        else:
            source = file.source_element
        self._successes.note(
            source.removeprefix(PREFIX),
            file.target_element.removeprefix(PREFIX),
            good=isinstance(outcome, Moved),
        )

    async def _may_publish(self, file: FileRow) -> bool:
        """Whether a file is still this process's, and wanted; asked however long the store is away.

        One that was paused past its lease finds that it is not.
        """
        wish = Keep(file.number, self._holder, file.lease_epoch, self._ttl)
        while True:
            try:
                return await self._keep(wish) is FileState.ACTIVE
            except GridlaneError as error:
                _log.warning("a file waits for its publication", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)

    async def _store(self, reports: Sequence[Report]) -> list[FileRow | None]:
        """Store answers, in one transaction, however long the store is away.

        Returns:
            Each file after it; None for what was stale, or whose answer alone was a defect: its
            lease runs out, and it is claimed anew.
        """
        while True:
            try:
                return [_stored(taken) for taken in await self._report.many(reports)]
            except GridlaneError as error:
                _log.warning("movers' answers could not be stored", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)

    def _wake_soon(self) -> None:
        """Have files looked for that wait for a place that one of several has written to, some
        times a second while the others move.
        """
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(_SOON_S, self._wake_now)

    def _wake_now(self) -> None:
        self._waking = None
        self.wake()

    def _wake_at(self, due_us: int) -> None:
        delay_s = max(0.0, (due_us - now_us()) / 1_000_000) + 0.002
        asyncio.get_running_loop().call_later(delay_s, self.wake)

    async def _renew(self) -> float:
        """Renew all leases; what was lost is somebody else's, and its copy is ended."""
        wishes = [
            Keep(number, self._holder, work.epoch, self._ttl)
            for number, work in self._running.items()
        ]
        for begin in range(0, len(wishes), _RENEWED_TOGETHER):
            await self._renew_some(wishes[begin : begin + _RENEWED_TOGETHER])
        return self._ttl.total_seconds() / 3

    async def _renew_some(self, wishes: Sequence[Keep]) -> None:
        for wish, state in zip(wishes, await self._keep.many(wishes), strict=True):
            work = self._running.get(wish.number)
            if state is None and work is not None and work.epoch == wish.epoch:
                self._aborted.add(wish.number)  # one that has not begun does not begin
                self._backend.abort(wish.number)

    async def _find_cancels(self) -> float:
        """End copies whose cancel another process accepted."""
        if self._running:
            numbers = await self._db.read(lambda conn: self._moving.canceling(conn, self._holder))
            if new := [number for number in numbers if number not in self._aborted]:
                self.abort(new)
        return _FIND_CANCELS_S


def _stored(taken: FileRow | Exception | None) -> FileRow | None:
    if isinstance(taken, Exception):
        _log.error("a mover's answer could not be stored", exc_info=taken)
        return None
    return taken
