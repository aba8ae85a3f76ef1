"""The feed as a service uses it: append, read, follow, acknowledge, prune.

Responsible for handing events to those who follow: one tailer a process reads what is new once and
gives it to every follower, each of which has a bounded queue. One that does not take its events in
time is cut off and resumes from its last position. Tables and statements are in `feed_store`.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection

from gridlane_kit import errors, feed_store
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.feed_store import (
    READ_LIMIT,
    EventPage,
    FeedTables,
    NewEvent,
    Position,
    StoredEvent,
    feed_tables,
    put_events,
)

__all__ = [
    "Feed",
    "FeedTables",
    "NewEvent",
    "Position",
    "StoredEvent",
    "feed_tables",
    "put_events",
]

# A wake-up may be missed by a writer that forgets it; this is what it costs then.
_POLL_S = 1.0
# How long commits gather before they are handed out: each time costs every follower a wake-up and a
# message, so the moment grows with their number. What comes after a pause is handed out at once.
_GATHER_S = 0.01
_GATHER_PER_FOLLOWER_S = 0.0001
_GATHER_MAX_S = 0.1
# Events that are given their positions in one transaction.
_SEQUENCE_CHUNK = 5000
# Events deleted in one transaction, so that writers are not held up.
_PRUNE_CHUNK = 2000

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Feed:
    """A service's feed.

    Parameters:
        db: the service's database.
        tables: by `feed_tables`, in the service's metadata.
        max_pending: events that may wait for one follower before it is cut off.
    """

    def __init__(self, db: Database, tables: FeedTables, *, max_pending: int = 10_000) -> None:
        self._db = db
        self._tables = tables
        self._max_pending = max_pending
        self._tailer = _Tailer(self._page_after)
        self._sequencer: _Sequencer | None = None

    async def start(self) -> None:
        """Take up the feed; one that was never used begins its first epoch."""

        def take_up(conn: Connection) -> bool:
            feed_store.ensure_epoch(conn, self._tables)
            return feed_store.is_sequenced(conn)

        if await self._db.write(take_up):
            self._sequencer = _Sequencer(self._db, self._tables, self._tailer.wake)
            self._sequencer.start()

    async def stop(self) -> None:
        """End all followers with DRAINING."""
        await self._tailer.stop()
        if self._sequencer is not None:
            await self._sequencer.stop()

    def append(self, conn: Connection, events: Sequence[NewEvent]) -> None:
        """Store events in the writer's transaction; followers get them after commit and `wake`."""
        feed_store.append(conn, self._tables, events)

    def wake(self) -> None:
        """Say that events may have been committed; `GroupCommit` calls it after each commit."""
        (self._sequencer or self._tailer).wake()

    async def read(
        self, after: int, *, limit: int = READ_LIMIT, subject: str | None = None
    ) -> list[StoredEvent]:
        """Read events in order.

        Parameters:
            after: the position after which to begin.
            limit: at most so many.
            subject: only those of this resource: its history, as far as it is kept.
        """
        subjects = None if subject is None else [subject]
        return await self._read(
            lambda conn: feed_store.events_after(
                conn, self._tables, after, limit=limit, subjects=subjects
            )
        )

    async def position(self) -> Position:
        """Where the feed is now: to follow from here is to see only what comes."""
        return await self._read(lambda conn: feed_store.last_position(conn, self._tables))

    async def follow(
        self, after: Position | None, *, subjects: frozenset[str] | None = None
    ) -> AsyncGenerator[list[StoredEvent], None]:
        """Every event after a cursor, those stored and then those to come, each once and in order.

        Close it when done (`contextlib.aclosing`), or what is to come queues up for nobody.

        Parameters:
            after: the cursor; None begins at the oldest event that is kept.
            subjects: only events of these resources.

        Yields:
            Events, 1 to 500. The list may be shared with other followers: do not change it.

        Raises:
            GridlaneError: POSITION_TRIMMED when the cursor cannot be followed; WATCHER_TOO_SLOW
                when events were not taken in time and DRAINING at `stop`, both with the last
                position in the metadata.
        """
        queue = _Queue(subjects, self._max_pending)
        try:
            # What is stored, page by page; only then the live queue begins to fill. The page after
            # that closes the gap, and what is in both is dropped by its position.
            while True:
                page = await self._page_after(after, subjects)
                after = page.up_to
                if page.events:
                    yield page.events
                if page.full:
                    continue
                if self._tailer.serves(queue):
                    break
                self._tailer.add(queue, after)
            while True:
                events = _after(after.position, await queue.take(after))
                if events:
                    after = Position(after.epoch, events[-1].position)
                    yield events
        finally:
            self._tailer.remove(queue)

    async def ack(self, consumer: str, position: Position) -> None:
        """Keep how far a consumer has come; retention deletes nothing beyond.

        A new consumer acknowledges the position it begins at before it reads, so that nothing is
        deleted under it. A consumer never goes back.

        Raises:
            GridlaneError: POSITION_TRIMMED for another epoch or a position that is not there yet.
        """
        await self._db.write(
            lambda conn: feed_store.acknowledge(conn, self._tables, consumer, position, now_us())
        )

    async def prune(self, max_age: timedelta) -> int:
        """Delete events that are older than `max_age` and acknowledged by every consumer.

        Returns:
            How many were deleted.
        """
        before_us = now_us() - max_age // timedelta(microseconds=1)
        up_to = await self._read(
            lambda conn: feed_store.last_older_than(conn, self._tables, before_us)
        )
        total = 0
        while deleted := await self._db.write(
            lambda conn: feed_store.prune(conn, self._tables, up_to, _PRUNE_CHUNK)
        ):
            total += deleted
        return total

    async def _page_after(
        self, cursor: Position | None, subjects: frozenset[str] | None = None
    ) -> EventPage:
        return await self._db.read(
            lambda conn: feed_store.page_after(conn, self._tables, cursor, subjects)
        )

    async def _read(self, fn: Callable[[Connection], T]) -> T:
        """Read so that everything committed before the call is seen."""
        sequencer = self._sequencer
        if sequencer is None:
            return await self._db.read(fn)

        def complete(conn: Connection) -> tuple[T] | None:
            return None if feed_store.has_pending(conn, self._tables) else (fn(conn),)

        found = await self._db.read(complete)
        if found is None:
            await sequencer.sequence()
            return await self._db.read(fn)
        return found[0]


# Says to a follower why its queue ended; given the epoch and the last position that the follower
# has.
_Ending = Callable[[str, int], GridlaneError]


class _Queue:
    """What waits for one follower."""

    def __init__(self, subjects: frozenset[str] | None, limit: int) -> None:
        self.subjects = subjects
        self._limit = limit
        self._batches: deque[list[StoredEvent]] = deque()
        self._size = 0
        self._ending: _Ending | None = None
        self._changed = asyncio.Event()

    def offer(self, events: list[StoredEvent]) -> bool:
        """Add events; False when they do not fit, which ends the queue."""
        if self._size + len(events) > self._limit:
            self.end(errors.watcher_too_slow)
            return False
        self._batches.append(events)
        self._size += len(events)
        self._changed.set()
        return True

    def end(self, ending: _Ending) -> None:
        """Drop what waits and tell the follower why."""
        self._batches.clear()
        self._ending = self._ending or ending
        self._changed.set()

    async def take(self, last: Position) -> list[StoredEvent]:
        """Wait for events; `last` is what the follower has."""
        while not self._batches:
            if self._ending is not None:
                raise self._ending(last.epoch, last.position)
            self._changed.clear()
            await self._changed.wait()
        events = self._batches.popleft()
        if self._batches and len(events) + len(self._batches[0]) <= READ_LIMIT:
            events = list(events)
            while self._batches and len(events) + len(self._batches[0]) <= READ_LIMIT:
                events += self._batches.popleft()
        self._size -= len(events)
        return events


class _Sequencer:
    """Gives committed events their positions, where the engine does not by itself.

    Any process of a service does it for all: when it has written, when it is asked, and each second
    for those who died between their commit and this.
    """

    def __init__(self, db: Database, tables: FeedTables, sequenced: Callable[[], None]) -> None:
        self._db = db
        self._tables = tables
        self._sequenced = sequenced
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def wake(self) -> None:
        self._woken.set()

    def start(self) -> None:
        work: list[Coroutine[Any, Any, None]] = [
            self._run(),
            self._db.listen(feed_store.CHANNEL, self._sequenced),
        ]
        self._tasks = [asyncio.create_task(part, name="feed-sequencer") for part in work]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sequence(self) -> None:
        """Give positions to all that was committed before the call."""
        while (
            await self._db.write_after_lock(
                lambda conn: feed_store.sequence(conn, self._tables, _SEQUENCE_CHUNK)
            )
            == _SEQUENCE_CHUNK
        ):
            self._sequenced()
        self._sequenced()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self.sequence()
            except GridlaneError as error:
                _log.warning("events wait for their positions: %s", error)
            await asyncio.sleep(_GATHER_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._woken.wait()


class _Tailer:
    """Reads what is new once, for all followers; runs while there are any."""

    def __init__(self, page_after: Callable[[Position], Awaitable[EventPage]]) -> None:
        self._page_after = page_after
        self._queues: set[_Queue] = set()
        self._for_all: set[_Queue] = set()
        self._by_subject: defaultdict[str, set[_Queue]] = defaultdict(set)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def wake(self) -> None:
        self._woken.set()

    def serves(self, queue: _Queue) -> bool:
        return queue in self._queues

    def add(self, queue: _Queue, cursor: Position) -> None:
        """Give the queue every event committed from now on, and perhaps some of those just before.

        Parameters:
            cursor: what its follower has read; where to begin when there is no other follower.
        """
        if self._stopped:
            raise errors.draining(cursor.epoch, cursor.position)
        self._queues.add(queue)
        if queue.subjects is None:
            self._for_all.add(queue)
        else:
            for subject in queue.subjects:
                self._by_subject[subject].add(queue)
        if self._task is None:
            self._task = asyncio.create_task(self._run(cursor), name="feed-tailer")

    def remove(self, queue: _Queue) -> None:
        self._queues.discard(queue)
        self._for_all.discard(queue)
        for subject in queue.subjects or ():
            self._by_subject[subject].discard(queue)
            if not self._by_subject[subject]:
                del self._by_subject[subject]

    async def stop(self) -> None:
        self._stopped = True
        self._end_all(errors.draining)
        self._woken.set()
        if self._task is not None:
            await self._task

    async def _run(self, cursor: Position) -> None:
        try:
            while self._queues:
                self._woken.clear()
                page = await self._read(cursor)
                self._hand_out(page.events)
                cursor = page.up_to
                if not page.full:
                    await self._next_wake()
        except Exception:  # a defect: told, and no follower waits for ever
            _log.exception("the feed's tailer failed; its followers are told to come again")
            self._end_all(errors.draining)
        finally:
            self._task = None

    async def _read(self, cursor: Position) -> EventPage:
        try:
            return await self._page_after(cursor)
        except GridlaneError as error:
            if error.reason is not ErrorReason.STORE_UNAVAILABLE:
                raise
            _log.warning("the feed cannot be read, followers wait: %s", error)
            return EventPage([], cursor)

    async def _next_wake(self) -> None:
        gather_s = _GATHER_S + _GATHER_PER_FOLLOWER_S * len(self._queues)
        await asyncio.sleep(min(gather_s, _GATHER_MAX_S))
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._woken.wait()

    def _hand_out(self, events: list[StoredEvent]) -> None:
        if not events:
            return
        parts = dict.fromkeys(self._for_all, events)
        for event in events:
            for queue in self._by_subject.get(event.subject, ()):
                parts.setdefault(queue, []).append(event)
        for queue, part in parts.items():
            if not queue.offer(part):
                self.remove(queue)

    def _end_all(self, ending: _Ending) -> None:
        for queue in list(self._queues):
            queue.end(ending)
            self.remove(queue)


def _after(position: int, events: list[StoredEvent]) -> list[StoredEvent]:
    """The events after a position; the same list when that is all of them."""
    if events[0].position > position:
        return events
    return [event for event in events if event.position > position]
