"""Has the mover of a house fail as a test says: what is not to fail goes to the real one."""

from collections.abc import Callable, Sequence
from typing import Final

from gridlane_transfer.backends.base import Moved, MoveOrder, Ordered, TransferBackend
from gridlane_transfer.moving.failures import Failed, FailureClass

LOST: Final = Failed(FailureClass.BACKEND_LOST, "the worker went away", recoverable=True)


def fail(
    mover: TransferBackend, failure_of: Callable[[MoveOrder], Failed | None] = lambda _: LOST
) -> None:
    """Have orders fail before anything is moved, until `mend`.

    Parameters:
        failure_of: an order's failure; None for one that the mover carries out. All are LOST when
            not given.
    """
    move_bundle = type(mover).move_bundle

    async def failing(orders: Sequence[Ordered]) -> list[Moved | Failed]:
        failures = [failure_of(order) for order, _ in orders]
        rest = [one for one, failed in zip(orders, failures, strict=True) if failed is None]
        moved = iter(await move_bundle(mover, rest) if rest else ())
        return [next(moved) if failed is None else failed for failed in failures]

    vars(mover)["move_bundle"] = failing


def fail_in_turn(mover: TransferBackend, answers: list[Failed | None]) -> None:
    """Have orders fail by a list, in turn (None: moved); those after its end are LOST."""
    fail(mover, lambda _: answers.pop(0) if answers else LOST)


def mend(mover: TransferBackend) -> None:
    """Have orders carried out again."""
    del vars(mover)["move_bundle"]
