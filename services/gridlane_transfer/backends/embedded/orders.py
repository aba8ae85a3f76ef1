"""Orders under way at the mover's worker processes, and the words between it and them.

Responsible for what an order is and for how its message, its answer and its failure are written.
Who gets it, and when it is given up, is `mover`'s; what a worker does, `worker`'s.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gridlane_transfer.backends.base import MayPublish, MoveOrder
from gridlane_transfer.backends.embedded.webdav.urls import is_remote
from gridlane_transfer.moving.failures import Failed, FailureClass

BUNDLED_FILES: Final = 128
BUNDLED_BYTES: Final = 1 << 20
"""So many files of at most so many bytes are copied together."""

# Messages are made here, and have no circles.
_JSON: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False)


@dataclass(slots=True, eq=False)
class Slot:
    """What one thread of a worker is, or will be, at: an order, or several that are carried out
    together.

    Parameters:
        orders: which; one that is taken back before a worker has it leaves them.
        answered: done when all of them are answered.
        heard_s: when the worker last told of any of them, on the event loop's clock.
    """

    orders: "list[Order]" = field(repr=False)
    answered: asyncio.Future[None]
    heard_s: float = 0.0
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._left = len(self.orders)
        for order in self.orders:
            order.slot = self

    def note_answer(self) -> None:
        """Take note that one more is answered."""
        self._left -= 1
        if not self._left and not self.answered.done():
            self.answered.set_result(None)


@dataclass(slots=True, eq=False)
class Order:
    """An order under way.

    Parameters:
        key: names it to the worker: a file's number may run twice, with two epochs.
        message: what the worker is told.
        places: what messages call its ends.
        quick: a question, or a cleaning, which does not wait until copies have ended.
        outcome: the worker's answer, or the failure; None as long as there is neither.
        slot: shared with those that are carried out together with it.
    """

    key: int
    message: Mapping[str, Any]
    places: str
    outcome: Mapping[str, Any] | Failed | None = None
    may_publish: MayPublish | None = None
    timeout_s: float | None = None
    quick: bool = False
    moved: int = 0
    slot: Slot = field(init=False, repr=False)
    aborted: bool = False
    overdue_s: float | None = None
    """When its time was over; None as long as it is not."""
    worker: "Worker | None" = field(default=None, repr=False)
    given_up: bool = False
    """Whether its worker did not end it: nobody has removed what is half written."""

    def answer(self) -> Mapping[str, Any] | Failed:
        """Its outcome, when it was carried out."""
        if self.outcome is None:
            raise LookupError(f"order {self.key} is not answered")
        return self.outcome


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

    def take(self, slot: Slot) -> None:
        """Have it work on orders; quick ones take no slot."""
        for order in slot.orders:
            order.worker = self
            self.orders[order.key] = order
            if not order.quick:
                self._slots[slot] += 1
        messages = [order.message for order in slot.orders]
        self.send(messages if len(messages) > 1 else messages[0])

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
            stdin.write(f"{_JSON.encode(message)}\n".encode())

    def abort(self, order: Order) -> None:
        """Have it end an order of its."""
        self.send({"op": "abort", "id": order.key})

    def kill(self) -> None:
        """End it, unless it has ended."""
        if self.process.returncode is None:
            self.process.kill()


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
    if order.outcome is None:
        order.outcome = outcome
        order.slot.note_answer()


def lost(message: str, slot: Slot | None = None) -> Failed:
    """The failure of an order that its worker did not end.

    Parameters:
        slot: which its worker was at, if it was.
    """
    together = slot is not None and len(slot.orders) > 1
    return Failed(FailureClass.BACKEND_LOST, message, recoverable=True, together=together)


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
