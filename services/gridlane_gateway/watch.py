"""The changes of a task: those of its job and of its transfers, in one stream.

Responsible for merging the streams of Workload and Transfer, for finding the transfers as the job
makes them, for the end (the job is final and so are its transfers), and for one resume token that
holds the place in each stream. A token names only what was handed out before it, so that a resumed
watch repeats and misses nothing.
"""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gridlane.gateway.v1 import task_pb2, task_service_pb2
from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2
from gridlane_gateway.peers import GatewayPeers
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_kit.peers import reading

_JOB_ENDS: Final = frozenset(
    {
        job_pb2.JOB_STATE_DONE,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_KILLED,
        job_pb2.JOB_STATE_DELETED,
    }
)
# In these states files move: the transfer job may be there a moment after the event.
_FILES_MOVE: Final = frozenset({job_pb2.JOB_STATE_STAGING, job_pb2.JOB_STATE_COMPLETING})
_TRANSFER_ENDS: Final = frozenset(
    {
        transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_REGISTRATION_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        transfer_job_pb2.TRANSFER_JOB_STATE_FAILED,
        transfer_job_pb2.TRANSFER_JOB_STATE_CANCELED,
    }
)
_QUEUED: Final = 32
_TOKEN_FORM: Final = 1


@dataclass
class Place:
    """How far a task was watched.

    `job_token` is Workload's, empty before the first event; `transfers` has Transfer's token of
    each transfer job, None when its last event was handed out.
    """

    job: str
    job_token: str = ""
    job_ended: bool = False
    transfers: dict[str, str | None] = field(default_factory=dict)

    def encoded(self) -> str:
        """Returns the place as an opaque resume token."""
        content = [_TOKEN_FORM, self.job, self.job_token, self.job_ended, self.transfers]
        raw = json.dumps(content, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @staticmethod
    def decoded(token: str, job: str) -> "Place":
        """Reads a resume token; the empty one is the place before everything.

        Raises:
            GridlaneError: TOKEN_NOT_OURS: no token of a watch of this job.
        """
        if not token:
            return Place(job)
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            form, of_job, job_token, job_ended, transfers = json.loads(raw)
        except (ValueError, TypeError, RecursionError, binascii.Error):
            raise errors.token_not_ours("resume_token") from None
        well_formed = (
            form == _TOKEN_FORM
            and of_job == job
            and _is_text(job_token)
            and isinstance(job_ended, bool)
            and isinstance(transfers, dict)
            and all(map(_is_text, transfers))
            and all(value is None or _is_text(value) for value in transfers.values())
        )
        if not well_formed:
            raise errors.token_not_ours("resume_token")
        return Place(job, job_token, job_ended, transfers)


def _is_text(value: object) -> bool:
    """Whether a message takes a value as text: JSON can also hold halves of surrogate pairs."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


@dataclass(frozen=True, slots=True)
class _Heard:
    """What one stream brought: its events, and how the place moves when they are handed out."""

    events: Sequence[task_pb2.TaskEvent]
    move: Callable[[], None]
    of_job: bool


class TaskWatch:
    """One watch of one task.

    Parameters:
        call: the caller's; its resume token is set as the stream goes.
        place: where to go on; moved as events are handed out.
        lookup_interval_s: how often transfers are looked for while files should move.
    """

    def __init__(
        self, peers: GatewayPeers, call: Call, place: Place, *, lookup_interval_s: float
    ) -> None:
        self._peers = peers
        self._call = call
        self._place = place
        self._interval_s = lookup_interval_s
        self._heard: asyncio.Queue[_Heard | Exception] = asyncio.Queue(_QUEUED)
        self._broken: Exception | None = None
        self._job_changed = False
        self._listeners: dict[str, asyncio.Task[None]] = {}
        self._state = job_pb2.JOB_STATE_UNSPECIFIED

    async def changes(self) -> AsyncGenerator[task_service_pb2.WatchTaskResponse, None]:
        """Yields the changes until the task has ended.

        Raises:
            GridlaneError: NOT_FOUND; what a stream ended with, with the resume token in its
            metadata.
        """
        job = await self._job()
        self._state = job.state
        try:
            if not self._place.job_ended:
                self._listen(self._place.job, self._job_changes())
            await self._find_transfers(job)
            while not self._over():
                events = await self._next()
                if events:
                    token = self._place.encoded()
                    yield task_service_pb2.WatchTaskResponse(events=events, resume_token=token)
                    self._call.resume_token = token
                if self._job_changed or not events:
                    self._job_changed = False
                    await self._find_transfers(await self._job())
        except GridlaneError as error:
            error.metadata["resume_token"] = self._place.encoded()
            raise
        finally:
            await self._stop_listening()

    def _over(self) -> bool:
        return self._place.job_ended and all(
            token is None for token in self._place.transfers.values()
        )

    async def _next(self) -> list[task_pb2.TaskEvent]:
        """Returns what the streams brought, empty when it is time to look for transfers.

        Raises:
            GridlaneError: what a stream ended with, after everything that came before it.
        """
        if self._broken is not None:
            raise self._broken
        idle = self._state in _FILES_MOVE and all(
            token is None for token in self._place.transfers.values()
        )
        try:
            async with asyncio.timeout(self._interval_s if idle else None):
                heard = await self._heard.get()
        except TimeoutError:
            return []
        events: list[task_pb2.TaskEvent] = []
        while True:
            if isinstance(heard, Exception):
                self._broken = heard
                return events
            events.extend(heard.events)
            heard.move()
            self._job_changed |= heard.of_job
            if self._heard.empty():
                return events
            heard = self._heard.get_nowait()

    async def _job(self) -> job_pb2.Job:
        request = job_service_pb2.GetJobRequest(name=self._place.job)
        return await self._peers.jobs(self._call).GetJob(request)

    async def _find_transfers(self, job: job_pb2.Job) -> None:
        """Listens to every transfer of the job that is not listened to yet."""
        for transfer in await self._peers.transfers_of(self._call, job):
            self._place.transfers.setdefault(transfer.name, "")
        for name, token in self._place.transfers.items():
            if token is not None and name not in self._listeners:
                self._listen(name, self._transfer_changes(name, token))

    def _listen(self, name: str, changes: AsyncGenerator[_Heard, None]) -> None:
        self._listeners[name] = asyncio.create_task(self._pump(changes), name=f"watch {name}")

    async def _pump(self, changes: AsyncGenerator[_Heard, None]) -> None:
        try:
            async with contextlib.aclosing(changes):
                async for heard in changes:
                    await self._heard.put(heard)
        except Exception as error:  # raised again by the reader
            await self._heard.put(error)

    async def _stop_listening(self) -> None:
        for listener in self._listeners.values():
            listener.cancel()
        for listener in self._listeners.values():
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    async def _job_changes(self) -> AsyncGenerator[_Heard, None]:
        request = job_service_pb2.WatchJobsRequest(
            names=[self._place.job], resume_token=self._place.job_token
        )
        async with reading(self._peers.jobs(self._call).WatchJobs(request)) as pages:
            async for page in pages:
                yield self._heard_of_job(page.events, page.resume_token)
                if any(event.state in _JOB_ENDS for event in page.events):
                    return
        raise errors.peer_unavailable("workload")

    def _heard_of_job(self, events: Sequence[job_event_pb2.JobEvent], token: str) -> _Heard:
        ended = any(event.state in _JOB_ENDS for event in events)

        def move() -> None:
            self._place.job_token = token
            self._place.job_ended = ended
            if events:
                self._state = events[-1].state

        return _Heard([task_pb2.TaskEvent(job=event) for event in events], move, of_job=True)

    async def _transfer_changes(self, name: str, token: str) -> AsyncGenerator[_Heard, None]:
        request = transfer_service_pb2.WatchTransferJobsRequest(names=[name], resume_token=token)
        async with reading(self._peers.transfers(self._call).WatchTransferJobs(request)) as pages:
            async for page in pages:
                ended = any(_ends(event) for event in page.events)
                reached = None if ended else page.resume_token
                yield self._heard_of_transfer(name, page.events, reached)
                if ended:
                    return
        raise errors.peer_unavailable("transfer")

    def _heard_of_transfer(
        self, name: str, events: Sequence[transfer_event_pb2.TransferEvent], token: str | None
    ) -> _Heard:
        def move() -> None:
            self._place.transfers[name] = token

        return _Heard([task_pb2.TaskEvent(transfer=event) for event in events], move, of_job=False)


def _ends(event: transfer_event_pb2.TransferEvent) -> bool:
    """Whether an event is the last of its transfer job: the job's own, with a final state."""
    return not event.HasField("file") and event.job.state in _TRANSFER_ENDS
