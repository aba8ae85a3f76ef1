"""Follows the feeds of workload and transfer and accounts what ends there.

Responsible for the order that loses nothing: take a batch, commit records and cursor together,
acknowledge after that. A feed that breaks is followed again from the cursor. One whose events were
trimmed, or whose epoch is another, is not: the follower stops and alarms, since what it missed
cannot be had from the feed. Of several processes on one database one follows, under a lease, and
the others stand by.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.type.v1 import feed_pb2, status_pb2
from gridlane_kit.clock import from_timestamp, now_us
from gridlane_kit.database import Database
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.feed import Position
from gridlane_kit.leases import new_holder
from gridlane_kit.logs import logger
from gridlane_reporting.accounting import NewRecord, UnaccountableEventError
from gridlane_reporting.store import (
    FeedLease,
    LostLeaseError,
    PoisonEvent,
    Taken,
    claim_feed,
    count_quarantined,
    give_feed_back,
    keep_feed,
    read_cursor,
    take,
)

_MAX_RETRY_S: Final = 30.0
_log = logger("reporting.follower")


class FeedEvent(Protocol):
    """What an event of any feed has."""

    @property
    def event_id(self) -> str:
        """A UUIDv7."""

    @property
    def time(self) -> Timestamp:
        """When it happened."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Returns the event's bytes."""


E = TypeVar("E", bound=FeedEvent)
E_co = TypeVar("E_co", bound=FeedEvent, covariant=True)


class FeedPage(Protocol[E_co]):
    """One message of a feed's stream; a heartbeat has no events."""

    @property
    def events(self) -> Sequence[E_co]:
        """In order."""

    @property
    def position(self) -> feed_pb2.FeedPosition:
        """The position of the last of them."""


@dataclass(frozen=True, slots=True)
class Source(Generic[E]):
    """A feed to follow.

    `follow` streams what comes after a position, `acknowledge` tells the source what is durable
    here, `account` makes a record of an event or says that it makes none. `committed` and
    `acknowledged` are its failpoints.
    """

    name: str
    follow: Callable[[feed_pb2.FeedPosition | None], AsyncGenerator[FeedPage[E], None]]
    acknowledge: Callable[[feed_pb2.FeedPosition], Awaitable[object]]
    account: Callable[[E], NewRecord | None]
    committed: Callable[[], None]
    acknowledged: Callable[[], None]


class FollowerState(StrEnum):
    """Where a follower stands."""

    FOLLOWING = "follows"
    STANDING_BY = "another process of the service follows"
    BROKEN = "the feed does not answer; it is tried again"
    STOPPED = "stopped: the feed was trimmed or restored, events may be missing"


class Follower(Generic[E]):
    """Follows one feed; `run` is its task.

    Parameters:
        source: the feed.
        db: where records and the cursor go.
        retry_s: pause before a broken feed is followed again; it grows while that fails.
        lease_s: for how long the feed is leased; renewed at a third of it.
    """

    def __init__(self, source: Source[E], db: Database, *, retry_s: float, lease_s: float) -> None:
        self.name = source.name
        self._source = source
        self._db = db
        self._retry_s = retry_s
        self._ttl = timedelta(seconds=lease_s)
        self._holder = new_holder()
        self._lease: FeedLease | None = None
        self._state = FollowerState.BROKEN
        self._position: Position | None = None
        self._up_to_date_us = now_us()
        self._last_lag_us = 0
        self._failures = 0
        self._quarantined = 0

    async def run(self) -> None:
        """Follows until cancelled, or until events are missing."""
        while True:
            try:
                await self._follow_under_lease()
            except LostLeaseError:
                _log.warning("another process follows the feed", feed=self.name)
                self._state, self._lease = FollowerState.STANDING_BY, None
                continue
            except GridlaneError as error:
                self._broke(error)
                if error.reason is ErrorReason.POSITION_TRIMMED:
                    return
            except Exception as error:  # a defect: told each time, and never the end of the feed
                self._state = FollowerState.BROKEN
                _log.critical("a follower failed", feed=self.name, exc_info=error)
            self._failures += 1
            await asyncio.sleep(min(self._retry_s * 2 ** min(self._failures - 1, 6), _MAX_RETRY_S))

    async def release(self) -> None:
        """Lets another process follow at once; `run` was cancelled."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._db.write(partial(give_feed_back, lease=lease))

    def lag_s(self) -> float:
        """Returns how far behind the follower is, in seconds.

        While it follows: how long after it happened the last event was durable here. Where another
        process does: 0. Otherwise: since when nothing was taken.
        """
        if self._state is FollowerState.STANDING_BY:
            return 0.0
        if self._state is FollowerState.FOLLOWING:
            return self._last_lag_us / 1e6
        return (now_us() - self._up_to_date_us) / 1e6

    def in_quarantine(self) -> float:
        """Returns how many of the feed's events could not be taken."""
        return float(self._quarantined)

    def status(self) -> status_pb2.BackendStatus:
        """Returns how it is, as a backend of Reporting's status."""
        reached = "nothing" if self._position is None else str(self._position.position)
        return status_pb2.BackendStatus(
            name=f"feed:{self._source.name}",
            reachable=self._state in (FollowerState.FOLLOWING, FollowerState.STANDING_BY),
            message=f"{self._state.value}; taken up to {reached}, {self.lag_s():.3f} s behind,"
            f" {self._quarantined} in quarantine",
        )

    async def _follow_under_lease(self) -> None:
        """Follows once it has the lease, and as long as it keeps it.

        Raises:
            LostLeaseError: another process has it.
        """
        if self._lease is None:
            self._lease = await self._claim()
        keeping = asyncio.create_task(self._keep(self._lease), name=f"keep {self.name}")
        following = asyncio.create_task(self._follow(self._lease), name=f"take {self.name}")
        try:
            await asyncio.wait([keeping, following], return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            following.cancel()
            kept, followed = await asyncio.gather(keeping, following, return_exceptions=True)
        for error in (kept, followed):
            if isinstance(error, Exception):
                raise error

    async def _claim(self) -> FeedLease:
        claim = partial(claim_feed, source=self.name, holder=self._holder, ttl=self._ttl)
        while (lease := await self._db.write(claim)) is None:
            self._state = FollowerState.STANDING_BY
            await asyncio.sleep(self._ttl.total_seconds() / 3)
        self._state = FollowerState.BROKEN
        return lease

    async def _keep(self, lease: FeedLease) -> None:
        while True:
            await asyncio.sleep(self._ttl.total_seconds() / 3)
            await self._db.write(partial(keep_feed, lease=lease))

    async def _follow(self, lease: FeedLease) -> None:
        self._quarantined = await self._db.read(
            partial(count_quarantined, source=self._source.name)
        )
        self._position = await self._db.read(partial(read_cursor, source=self._source.name))
        after = None if self._position is None else _message(self._position)
        if after is not None:
            # It may have been left out by a crash; until it is told, the source keeps its events.
            await self._source.acknowledge(after)
        async with contextlib.aclosing(self._source.follow(after)) as pages:
            self._state = FollowerState.FOLLOWING
            async for page in pages:
                self._failures = 0
                if page.events:
                    await self._take(page, lease)
                self._up_to_date_us = now_us()
        self._state = FollowerState.BROKEN

    async def _take(self, page: FeedPage[E], lease: FeedLease) -> None:
        records, poison = self._accounted(page.events)
        position = Position(epoch=page.position.epoch, position=page.position.position)
        taken = Taken(
            source=self._source.name,
            lease=lease,
            records=records,
            poison=poison,
            position=position,
            now_us=now_us(),
        )
        new_in_quarantine = await self._db.write(partial(take, taken=taken))
        self._source.committed()
        self._position = position
        self._last_lag_us = max(0, now_us() - from_timestamp(page.events[-1].time))
        if new_in_quarantine:
            self._quarantined += new_in_quarantine
            _log.error("events in quarantine", feed=self._source.name, count=new_in_quarantine)
        await self._source.acknowledge(page.position)
        self._source.acknowledged()

    def _accounted(self, events: Sequence[E]) -> tuple[list[NewRecord], list[PoisonEvent]]:
        records: list[NewRecord] = []
        poison: list[PoisonEvent] = []
        for event in events:
            try:
                record = self._source.account(event)
            except Exception as error:  # whatever is wrong with it, the feed goes on
                _log.error(
                    "an event cannot be accounted",
                    feed=self._source.name,
                    event_id=event.event_id,
                    exc_info=None if isinstance(error, UnaccountableEventError) else error,
                    reason=str(error),
                )
                reason = f"{type(error).__name__}: {error}"
                poison.append(PoisonEvent(event.event_id, reason, event.SerializeToString()))
            else:
                if record is not None:
                    records.append(record)
        return records, poison

    def _broke(self, error: GridlaneError) -> None:
        if error.reason is ErrorReason.POSITION_TRIMMED:
            self._state = FollowerState.STOPPED
            _log.critical(
                "a feed cannot be followed any more: events may be missing",
                feed=self._source.name,
                reason=error.message,
            )
            return
        self._state = FollowerState.BROKEN
        if not self._failures and error.reason is not ErrorReason.DRAINING:
            _log.warning("a feed broke", feed=self._source.name, reason=error.reason.value)


def _message(position: Position) -> feed_pb2.FeedPosition:
    return feed_pb2.FeedPosition(epoch=position.epoch, position=position.position)
