"""Moves what is due: claims files, hands them to the mover, stores its answers.

Responsible for the loop and for what runs now. It is woken by submissions and by answers, with a
slow poll behind; every step is bounded by what the mover can do at once. What is claimed, and what
becomes of a file, are `store.moving`'s and `file_transfers`'. After a restart, files that were on
their way are claimed anew: their intent was committed before anything was touched.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache

from gridlane_kit import logs
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
from gridlane_transfer.backends.base import Moved, TransferBackend
from gridlane_transfer.channels import Channels
from gridlane_transfer.failures import Failed, canceled
from gridlane_transfer.states import FileState
from gridlane_transfer.store.moving import Claimed, ClaimRequest, Moving, Report
from gridlane_transfer.store.tables import FileRow

_CLAIMED = failpoint("transfer.claim.committed")
_ORDERED = failpoint("transfer.copy.ordered")
_PUBLISHED = failpoint("transfer.copy.published")
_REPORTED = failpoint("transfer.report.committed")
_ABORTED = failpoint("transfer.cancel.aborted")

# How long after a store that did not answer it is asked again.
_STORE_RETRY_S = 1.0

_log = logs.logger("transfer.reconciler")
_principal = lru_cache(maxsize=4096)(Principal.from_json)


class Reconciler:
    """The loop.

    Parameters:
        claim, report: the writes, through the group commit.
        exclusive: no other process has this database, so that all leases in it are void at start.
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
        claim: WriteKind[ClaimRequest, list[Claimed | None]],
        report: WriteKind[Report, FileRow | None],
        exclusive: bool,
        poll_s: float,
        lease_s: float,
    ) -> None:
        self._db = db
        self._moving = moving
        self._backend = backend
        self._channels = channels
        self._policy = policy
        self._telemetry = telemetry
        self._claim = claim
        self._report = report
        self._exclusive = exclusive
        self._poll_s = poll_s
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        self._woken = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._on_channel: Counter[str] = Counter()
        self._aborted: set[int] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Take up what was left, and begin."""
        if self._exclusive:
            await self._db.write(self._moving.release_all)
        await self._backend.start()
        self._loops = [
            asyncio.create_task(self._run(), name="transfer-reconciler"),
            asyncio.create_task(self._renew(), name="transfer-leases"),
        ]

    def wake(self) -> None:
        """Have due files looked for now."""
        self._woken.set()

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
            loop.cancel()
        await self._backend.stop()
        pending = [*self._loops, *self._running.values()]
        for task in self._running.values():
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        await self._db.write(lambda conn: self._moving.release(conn, self._holder))

    async def _run(self) -> None:
        poll = True
        while True:
            self._woken.clear()
            try:
                await self._step(abandoned=poll)
            except Exception:
                # Whatever it is, the files stay due, and the service must not stop moving others.
                _log.exception("due files could not be claimed")
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._woken.wait()
                poll = False
            except TimeoutError:
                poll = True

    async def _step(self, *, abandoned: bool) -> None:
        """Claim as much as the mover can begin, channel by channel.

        Parameters:
            abandoned: also take up files whose process is no more; at start and with the slow poll.
        """
        for channel in self._channels.all():
            room = channel.max_files if channel.starts_files else 0
            if not abandoned and room <= self._on_channel[channel.uid]:
                continue
            limit = self._backend.capacity() - len(self._running)
            if limit <= 0:
                return
            request = ClaimRequest(
                channel, limit, self._holder, self._ttl, self._policy.current, abandoned
            )
            for claimed in await self._claim(request):
                _CLAIMED()
                if claimed is None:
                    self.wake()  # it has ended: its place is free for the next
                else:
                    self._begin(claimed)

    def _begin(self, claimed: Claimed) -> None:
        number = claimed.file.number
        task = asyncio.create_task(self._work(claimed), name=f"transfer-file-{number}")
        task.add_done_callback(_tell_of_defect)
        self._running[number] = task
        self._on_channel[claimed.file.channel_uid] += 1

    async def _work(self, claimed: Claimed) -> None:
        number = claimed.file.number
        try:
            outcome = await self._outcome(claimed)
            if self._stopping:
                return
            if isinstance(outcome, Moved):
                _PUBLISHED()
            file = await self._store(
                Report(number, self._holder, claimed.file.lease_epoch, outcome)
            )
            _REPORTED()
            if file is not None and file.state == FileState.RETRYING:
                self._wake_at(file.due_us)
        finally:
            self._on_channel[claimed.file.channel_uid] -= 1
            self._aborted.discard(number)
            if self._running.get(number) is asyncio.current_task():
                del self._running[number]
            self.wake()

    async def _outcome(self, claimed: Claimed) -> Moved | Failed:
        if claimed.canceling:
            await self._backend.clean(claimed.order)
            return canceled()
        if claimed.file.number in self._aborted:
            return canceled()
        job = claimed.job
        with later(
            self._telemetry,
            "transfer.copy",
            _principal(job.principal),
            timeout_s=None,
            submitted=job.traceparent,
            job_id=job.job_tag or "",
        ):
            _ORDERED()
            return await self._backend.move(claimed.order)

    async def _store(self, report: Report) -> FileRow | None:
        """Store an answer, however long the store is away."""
        while True:
            try:
                return await self._report(report)
            except GridlaneError as error:
                _log.warning("a mover's answer could not be stored", reason=error.reason)
                await asyncio.sleep(_STORE_RETRY_S)

    def _wake_at(self, due_us: int) -> None:
        delay_s = max(0.0, (due_us - now_us()) / 1_000_000) + 0.002
        asyncio.get_running_loop().call_later(delay_s, self.wake)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl.total_seconds() / 3)
            if self._running:
                await self._renew_now(list(self._running))

    async def _renew_now(self, numbers: list[int]) -> None:
        try:
            await self._db.write(
                lambda conn: self._moving.renew(conn, self._holder, numbers, self._ttl)
            )
        except GridlaneError as error:
            _log.warning("leases could not be renewed", reason=error.reason)


def _tell_of_defect(task: asyncio.Task[None]) -> None:
    """Log what ended a file's task before its answer was stored; its lease runs out, and it is
    claimed anew.
    """
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the work on a file ended with a defect", exc_info=error)
