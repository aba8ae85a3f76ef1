"""Orders under way at the mover's worker processes, and the words between it and them.

Responsible for what an order is and for how its message, its answer and its failure are written.
Who gets it, and when it is given up, is `mover`'s; what a worker does, `worker`'s.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from gridlane_transfer.backends.base import MayPublish, MoveOrder
from gridlane_transfer.backends.embedded.ends import AnyPlace, CopyTask
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.tasks import task_of
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace, is_remote
from gridlane_transfer.moving.failures import Failed, FailureClass

BUNDLED_FILES: Final = 64
BUNDLED_BYTES: Final = 1 << 20
"""So many files of at most so many bytes are copied together."""

_TASK: Final = tuple(one.name for one in fields(CopyTask))
_PLACES: Final = {kind: tuple(one.name for one in fields(kind)) for kind in (Place, RemotePlace)}


@dataclass(slots=True, eq=False)
class Slot:
    """What one thread of a worker is at: an order, or several that are carried out together.

    Parameters:
        heard_s: when the worker last told of any of them, on the event loop's clock.
    """

    heard_s: float = 0.0


@dataclass(slots=True, eq=False)
class Order:
    """An order under way.

    Parameters:
        key: names it to the worker: a file's number may run twice, with two epochs.
        message: what the worker is told, but for the key.
        places: what messages call its ends.
        quick: a question, or a cleaning, which does not wait until copies have ended.
        answer: the worker's, or the failure.
        slot: shared with those that are carried out together with it.
    """

    key: int
    message: Mapping[str, Any]
    places: str
    answer: "asyncio.Future[Mapping[str, Any] | Failed]"
    may_publish: MayPublish | None = None
    timeout_s: float | None = None
    quick: bool = False
    moved: int = 0
    slot: Slot = field(default_factory=Slot)
    aborted: bool = False
    overdue_s: float | None = None
    """When its time was over; None as long as it is not."""
    worker: "Worker | None" = None
    given_up: bool = False
    """Whether its worker did not end it: nobody has removed what is half written."""


@dataclass(slots=True, eq=False)
class Worker:
    """One process and what it works on; `retired` when a copy of its hangs."""

    process: asyncio.subprocess.Process
    orders: dict[int, Order] = field(default_factory=dict)
    retired: asyncio.Event = field(default_factory=asyncio.Event)
    _slots: Counter[Slot] = field(default_factory=Counter)

    @property
    def copies(self) -> int:
        """How many of its slots are taken."""
        return len(self._slots)

    def take(self, order: Order, slot: Slot) -> None:
        """Have it work on an order; a quick one takes no slot."""
        order.worker, order.slot = self, slot
        self.orders[order.key] = order
        if not order.quick:
            self._slots[slot] += 1

    def drop(self, order: Order) -> None:
        """Expect no more of an order."""
        del self.orders[order.key]
        if not order.quick:
            self._slots[order.slot] -= 1
            if not self._slots[order.slot]:
                del self._slots[order.slot]

    def send(self, message: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Tell it something, as long as it hears."""
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(f"{json.dumps(message, separators=(',', ':'))}\n".encode())

    def abort(self, order: Order) -> None:
        """Have it end an order of its."""
        self.send({"op": "abort", "id": order.key})

    def kill(self) -> None:
        """End it, unless it has ended."""
        if self.process.returncode is None:
            self.process.kill()


def message_of(op: str, order: MoveOrder) -> dict[str, Any]:
    """What a worker is told of an order, but for the key."""
    task = task_of(order)
    told = {name: getattr(task, name) for name in _TASK}
    told["sources"] = [place_message(source) for source in task.sources]
    told["target"] = place_message(task.target)
    return {"op": op, "task": told}


def place_message(place: AnyPlace) -> dict[str, str]:
    """What a worker is told of a place."""
    return {name: getattr(place, name) for name in _PLACES[type(place)]}


def is_small(order: MoveOrder) -> bool:
    """Whether an order is carried out together with others: its file is known to be small, and on
    both sides in a directory, and nothing is asked of its pace. One that is tried again is alone:
    it may be what held up, or killed, all that it was with.
    """
    ends = [*order.sources, order.target]
    return (
        not order.resumed
        and order.size_bytes is not None
        and order.size_bytes <= BUNDLED_BYTES
        and order.max_bytes_per_second is None
        and order.timeout_s is None
        and not any(is_remote(end.url) for end in ends)
    )


def answer(order: Order, outcome: Mapping[str, Any] | Failed) -> None:
    """Answer an order, once."""
    if not order.answer.done():
        order.answer.set_result(outcome)


def lost(message: str) -> Failed:
    """The failure of an order that its worker did not end."""
    return Failed(FailureClass.BACKEND_LOST, message, recoverable=True)


def unjudged(error: Exception) -> Failed:
    """The failure of an order of which a defect keeps it unknown whether it may be published."""
    return Failed(
        FailureClass.INTERNAL,
        f"the leave to publish could not be asked for: {type(error).__name__}",
        recoverable=True,
    )


def timed_out(order: Order) -> Failed:
    """The failure of an order whose time was over."""
    return Failed(
        FailureClass.TIMED_OUT,
        f"the attempt took longer than {order.timeout_s:g} s: {order.places}",
        "allow more time, or ask who runs the storages why it takes so long",
        recoverable=True,
    )


def outcome_of(order: Order, message: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
    """What a worker's answer says."""
    if "failed" not in message:
        done: Mapping[str, Any] = message["done"]
        return done
    failed = message["failed"]
    outcome = Failed(**{**failed, "failure_class": FailureClass(failed["failure_class"])})
    ended = outcome.failure_class is FailureClass.CANCELED and not order.aborted
    return timed_out(order) if ended and order.overdue_s is not None else outcome
