"""Grouped reads: one SELECT for all callers that wait for rows of one kind by key.

Responsible for gathering keys and sharing out values; the SELECT is a function of the service's
store. A group is whatever was asked for while the last one was read, as in `group_commit`, since a
read through SQLAlchemy costs a multiple alone of what it costs among many.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from sqlalchemy import Connection

from gridlane_kit import errors
from gridlane_kit.database import Database
from gridlane_kit.pacing import Pace

K = TypeVar("K")
V = TypeVar("V")

# The keys a caller asked for, and where it waits for the values.
_Waiting = tuple[Sequence[K], asyncio.Future[list[V | None]]]

_RETRY_AFTER_S = 0.5


class GroupedRead(Generic[K, V]):
    """Reads of one kind.

    Parameters:
        db: the database.
        fetch: reads the values of distinct keys in one statement; what is not there is left out.
        max_batch: keys in one statement.
        max_queue: keys that may wait; a call beyond is refused.
    """

    def __init__(
        self,
        db: Database,
        fetch: Callable[[Connection, Sequence[K]], Mapping[K, V]],
        *,
        max_batch: int = 500,
        max_queue: int = 10_000,
    ) -> None:
        self._db = db
        self._fetch = fetch
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[_Waiting[K, V]] = deque()
        self._waiting_keys = 0
        self._pace = Pace()
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Read one value; it shows everything that was committed before the call.

        Returns:
            The value, None when there is none.

        Raises:
            GridlaneError: OVERLOADED, STORE_UNAVAILABLE.
        """
        (answer,) = await self._ask([key])
        return answer

    async def get_many(self, keys: Sequence[K]) -> list[V | None]:
        """Read some values, in the order of their keys. Otherwise as `get`."""
        return await self._ask(keys)

    async def _ask(self, keys: Sequence[K]) -> list[V | None]:
        if self._waiting_keys + len(keys) > self._max_queue:
            raise errors.overloaded("grouped_read", _RETRY_AFTER_S)
        answer: asyncio.Future[list[V | None]] = asyncio.get_running_loop().create_future()
        self._queue.append((keys, answer))
        self._waiting_keys += len(keys)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="grouped-read")
        return await answer

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._pace.wait()
                await self._read(self._next_group())
        finally:
            self._task = None

    def _next_group(self) -> list[_Waiting[K, V]]:
        group: list[_Waiting[K, V]] = []
        size = 0
        while self._queue and (not group or size + len(self._queue[0][0]) <= self._max_batch):
            group.append(self._queue.popleft())
            size += len(group[-1][0])
        self._waiting_keys -= size
        self._pace.grouped(len(group))
        return group

    async def _read(self, group: list[_Waiting[K, V]]) -> None:
        keys = list({key: None for asked, _ in group for key in asked})
        try:
            values = await self._db.read(lambda conn: self._fetch(conn, keys))
        except Exception as error:
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        for asked, answer in group:
            if not answer.done():
                answer.set_result([values.get(key) for key in asked])
