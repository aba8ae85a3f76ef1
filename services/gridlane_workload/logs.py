"""What a payload wrote, as a stream.

Responsible for reading an attempt's output while it grows, and for knowing when there will be no
more. Not for who may read (`service`), nor for where the files lie (the backend).
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from gridlane.workload.v1.job_service_pb2 import LogStream, ReadJobLogRequest, ReadJobLogResponse
from gridlane_kit import errors
from gridlane_kit.feed import Feed, Position
from gridlane_kit.grouped_read import GroupedRead
from gridlane_workload import states
from gridlane_workload.backends.interface import Attempt, Backend
from gridlane_workload.store import StoredJob

_CHUNK_BYTES: Final = 256 * 1024
# A growing file tells nobody; the end of the payload is an event and is waited for.
_GROWTH_S: Final = 0.15

_OVER: Final = states.FINAL | {states.COMPLETING}
"""States in which the payload writes nothing any more."""


class Logs:
    """Reads outputs of payloads."""

    def __init__(self, backend: Backend, feed: Feed, reads: GroupedRead[str, StoredJob]) -> None:
        self._backend = backend
        self._feed = feed
        self._reads = reads

    async def read(
        self, stored: StoredJob, request: ReadJobLogRequest
    ) -> AsyncIterator[ReadJobLogResponse]:
        """Stream an output from an offset; with `follow`, until the payload has ended.

        Parameters:
            stored: the job, which the caller may read.

        Raises:
            GridlaneError: NOT_FOUND: the job has had no such attempt. PRECONDITION: its output is
                not kept any more.
        """
        job = stored.message()
        number = request.attempt or max(job.attempt, 1)
        if request.attempt > job.attempt:
            raise errors.not_found(f"{stored.name}, attempt {request.attempt}")
        error_stream = request.stream == LogStream.LOG_STREAM_STDERR
        path = self._backend.log_file(Attempt(stored.uid, number), error_stream)
        offset = request.offset_bytes
        over = job.state in _OVER or number < job.attempt
        if job.HasField("start_time") and not await asyncio.to_thread(path.parent.is_dir):
            raise errors.precondition(
                stored.name, f"what the payload of {stored.name} wrote is not kept any more"
            )
        if not request.follow or over:
            async for part in _parts(path, offset):
                yield part
            return
        async with self._told_of_end(stored) as ended:
            last_look = False
            while True:
                async for part in _parts(path, offset):
                    offset = part.next_offset_bytes
                    yield part
                if last_look:
                    return
                # What was written before the end is read once more after it.
                last_look = await _set_within(ended, _GROWTH_S)

    @contextlib.asynccontextmanager
    async def _told_of_end(self, stored: StoredJob) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the payload has ended."""
        ended = asyncio.Event()
        after = await self._feed.position()
        # It may have ended between the answer to the caller's question and the position.
        present = await self._reads.get(stored.uid)
        if present is None or present.message().state in _OVER:
            ended.set()
        watch = asyncio.create_task(self._watch(stored.name, after, ended))
        try:
            yield ended
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, name: str, after: Position, ended: asyncio.Event) -> None:
        over = {states.word(state) for state in _OVER}
        try:
            async for events in self._feed.follow(after, subjects=frozenset({name})):
                if any(event.kind in over for event in events):
                    return
        finally:
            # Also when the feed stops: the reader gets what is there, and comes again.
            ended.set()


async def _parts(path: Path, offset: int) -> AsyncIterator[ReadJobLogResponse]:
    """What lies in a file from an offset on; nothing when it is not there yet."""
    while chunk := await asyncio.to_thread(_read, path, offset):
        offset += len(chunk)
        yield ReadJobLogResponse(chunk=chunk, next_offset_bytes=offset)


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            if offset >= os.fstat(file.fileno()).st_size:
                return b""  # seeking far beyond the end is an error on some file systems
            file.seek(offset)
            return file.read(_CHUNK_BYTES)
    except FileNotFoundError:
        return b""


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
