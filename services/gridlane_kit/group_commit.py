"""Group commit: many callers' writes in one transaction, each answered after it is durable.

Responsible for gathering, ordering, isolating and answering writes; the writes themselves are
functions of the services' stores. A batch is whatever queued while the last commit ran and, while
many call at once, a moment longer (`pacing`): the busier the service, the cheaper an entry. On
SQLite one sync of the disk serves all entries of all kinds.

What it promises:
* an answer is sent only after its commit is durable;
* an entry past its deadline is dropped before the batch forms;
* an entry that fails is isolated by bisection with savepoints, and the others go through;
* a caller that is cancelled never cancels its write;
* the queue is bounded: a full one answers OVERLOADED at once;
* when the store fails, nothing of the batch is kept and every caller of it gets an error worth a
  retry.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Table

from gridlane_kit import errors
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.pacing import Pace

E = TypeVar("E")
R = TypeVar("R")

Apply = Callable[[Connection, Sequence[E]], Sequence[R | Exception]]

_BEFORE_COMMIT = failpoint("kit.group_commit.before_commit")
_COMMITTED = failpoint("kit.group_commit.committed")
_RETRY_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class _Call:
    """One caller's entries, which share its deadline and its answer."""

    kind: "WriteKind[Any, Any]"
    entries: Sequence[Any]
    deadline: float | None
    answer: "asyncio.Future[list[Any]]"


class WriteKind(Generic[E, R]):
    """One kind of write, made by `GroupCommit.kind`; call it with an entry to write that."""

    def __init__(
        self,
        group: "GroupCommit",
        name: str,
        apply: Apply[E, R],
        key: Callable[[E], Any],
        *,
        in_turn: bool,
    ) -> None:
        self.name = name
        self.in_turn = in_turn
        self._group = group
        self._apply = apply
        self._key = key

    async def __call__(self, entry: E, *, deadline: float | None = None) -> R:
        """Write one entry.

        Parameters:
            entry: what the kind's `apply` takes.
            deadline: in the loop's time; passed before the write began, nothing is written.

        Returns:
            What `apply` answered for the entry; it is durable.

        Raises:
            GridlaneError: OVERLOADED, DEADLINE_EXCEEDED, DRAINING, STORE_UNAVAILABLE, NO_SPACE.
            Exception: what `apply` answered or raised for this entry.
        """
        (outcome,) = await self._group.submit(self, (entry,), deadline)
        if isinstance(outcome, Exception):
            # One error may answer many callers: each raises it with a traceback of its own.
            raise outcome.with_traceback(None)
        return outcome

    async def many(
        self, entries: Sequence[E], *, deadline: float | None = None
    ) -> list[R | Exception]:
        """Write the entries of a batch verb: in one transaction, but each with its own outcome.

        Parameters and errors as for one entry; what concerns an entry alone is in the list, in its
        place.
        """
        return await self._group.submit(self, entries, deadline) if entries else []

    def apply(self, conn: Connection, entries: Sequence[E]) -> list[R | Exception]:
        """Apply entries sorted by key; outcomes in the order given. Called by the group."""
        order = sorted(range(len(entries)), key=lambda index: self._key(entries[index]))
        answers = self._apply(conn, [entries[index] for index in order])
        if len(answers) != len(entries):
            raise TypeError(
                f"the write {self.name} answered {len(answers)} outcomes for {len(entries)} entries"
            )
        outcomes: list[Any] = [None] * len(entries)
        for index, answer in zip(order, answers, strict=True):
            outcomes[index] = answer
        return outcomes


class GroupCommit:
    """The one writer of a service's database.

    Parameters:
        db: the database.
        max_queue: entries that may wait; a call beyond is refused.
        max_batch: entries in one transaction, unless a single call has more.
        on_commit: called in the event loop after each commit, for example `Feed.wake`.
        turn: as `Database.write` takes it, for batches with kinds that want it.
    """

    def __init__(
        self,
        db: Database,
        *,
        max_queue: int = 10_000,
        max_batch: int = 1000,
        on_commit: Callable[[], None] | None = None,
        turn: Table | None = None,
    ) -> None:
        self._db = db
        self._turn = turn
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._on_commit = on_commit
        self._kinds: list[WriteKind[Any, Any]] = []
        self._queue: deque[_Call] = deque()
        self._depth = 0
        self._arrived = asyncio.Event()
        self._pace = Pace()
        self._accepting = False
        self._task: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """How many entries wait."""
        return self._depth

    def kind(
        self, name: str, apply: Apply[E, R], *, key: Callable[[E], Any], in_turn: bool = False
    ) -> WriteKind[E, R]:
        """Declare a kind of write, before `start`; kinds are applied in the order declared.

        Parameters:
            name: for messages, for example `jobs.submit`.
            apply: gets the entries of a batch sorted by `key` (equal keys in the order of arrival)
                and answers one result or Exception for each. An Exception answered is a refusal: it
                must have written nothing for that entry. When it raises, it is called again with
                parts of the entries until the bad one is alone; so it does nothing but statements,
                and does not change the entries. What fails only at the commit (a deferred
                constraint) fails the whole batch: declare none.
            key: the sort key of an entry, so that batches take locks in one order.
            in_turn: it is written by one process at a time, as the group's `turn` says.
        """
        if self._task is not None:
            raise RuntimeError(f"the write {name} is declared after the group commit was started")
        kind = WriteKind(self, name, apply, key, in_turn=in_turn)
        self._kinds.append(kind)
        return kind

    async def start(self) -> None:
        """Begin to write."""
        self._accepting = True
        self._task = asyncio.create_task(self._run(), name="group-commit")

    async def drain(self) -> None:
        """Refuse what is new, finish what is queued, end."""
        self._accepting = False
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def submit(
        self, kind: WriteKind[E, R], entries: Sequence[E], deadline: float | None
    ) -> list[R | Exception]:
        """Queue entries of a kind and wait for their outcomes; called by `WriteKind`."""
        if not self._accepting:
            raise errors.draining()
        if self._depth + len(entries) > self._max_queue:
            raise errors.overloaded("group_commit", _RETRY_AFTER_S)
        answer: asyncio.Future[list[R | Exception]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Call(kind, entries, deadline, answer))
        self._depth += len(entries)
        self._arrived.set()
        return await answer

    async def _run(self) -> None:
        try:
            while self._accepting or self._queue:
                if self._queue:
                    await self._pace.wait()
                    await self._commit(self._next_batch())
                else:
                    self._arrived.clear()
                    await self._arrived.wait()
        finally:
            # Reached with callers waiting only when a defect ended the loop: they are not left
            # hanging.
            self._accepting = False
            for call in self._queue:
                _fail(call, errors.draining())

    def _next_batch(self) -> list[_Call]:
        now = asyncio.get_running_loop().time()
        batch: list[_Call] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].entries) <= self._max_batch):
            call = self._queue.popleft()
            self._depth -= len(call.entries)
            if call.deadline is not None and call.deadline <= now:
                _fail(call, errors.deadline_exceeded())
            else:
                batch.append(call)
                size += len(call.entries)
        self._pace.grouped(len(batch))
        return batch

    async def _commit(self, batch: list[_Call]) -> None:
        by_kind = {kind: [call for call in batch if call.kind is kind] for kind in self._kinds}
        work = {
            kind: [entry for call in calls for entry in call.entries]
            for kind, calls in by_kind.items()
            if calls
        }
        if not work:
            return
        try:
            outcomes = await self._write(work)
            _COMMITTED()
        except Exception as error:
            for call in batch:
                _fail(call, error)
            return
        for kind, results in outcomes.items():
            _answer(by_kind[kind], results)
        if self._on_commit is not None:
            self._on_commit()

    async def _write(self, work: "_ByKind") -> "_ByKind":
        """Write all at once; when some entry is bad, begin anew and isolate it."""
        turn = self._turn if any(kind.in_turn for kind in work) else None
        try:
            return await self._db.write(lambda conn: self._apply(conn, work), turn=turn)
        except _BadEntryError:
            return await self._db.write(lambda conn: self._apply_isolating(conn, work), turn=turn)

    def _apply(self, conn: Connection, work: "_ByKind") -> "_ByKind":
        outcomes: _ByKind = {}
        for kind, entries in work.items():
            try:
                outcomes[kind] = kind.apply(conn, entries)
            except Exception as error:
                if self._db.store_failure(error) is not None:
                    raise
                raise _BadEntryError from error
        _BEFORE_COMMIT()
        return outcomes

    def _apply_isolating(self, conn: Connection, work: "_ByKind") -> "_ByKind":
        outcomes = {kind: self._isolate(conn, kind, entries) for kind, entries in work.items()}
        _BEFORE_COMMIT()
        return outcomes

    def _isolate(
        self, conn: Connection, kind: WriteKind[Any, Any], entries: Sequence[Any]
    ) -> list[Any]:
        """Apply what can be applied; an entry that raises when it is alone gets what it raised."""
        try:
            with conn.begin_nested():
                return kind.apply(conn, entries)
        except Exception as error:
            if self._db.store_failure(error) is not None:
                raise
            if len(entries) == 1:
                return [error]
        middle = len(entries) // 2
        return [
            *self._isolate(conn, kind, entries[:middle]),
            *self._isolate(conn, kind, entries[middle:]),
        ]


# Entries, or their outcomes in the same order, by kind.
_ByKind = dict[WriteKind[Any, Any], list[Any]]


class _BadEntryError(Exception):
    """Some entry of a batch made its `apply` raise; which one is not known yet."""


def _answer(calls: Sequence[_Call], outcomes: Sequence[Any]) -> None:
    begin = 0
    for call in calls:
        end = begin + len(call.entries)
        # A caller that was cancelled has no ear for the answer; its write is done all the same.
        if not call.answer.done():
            call.answer.set_result(list(outcomes[begin:end]))
        begin = end


def _fail(call: _Call, error: Exception) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
