"""In which order the sources of a file are tried: what may be read now, and what did well lately.

Responsible for judging a source at the moment when one is chosen. Which sources are left to try is
`alternatives`'. How the ways did is what this process saw of them, weighted by age: a server that
has just started has no opinion, and takes sources in the order given.
"""

import math
import time
from collections.abc import Callable
from typing import Final

from gridlane_transfer.moving.alternatives import Order, Source, Strategy
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import PREFIX, AccessState, StorageElements

_HALF_LIFE_S: Final = 600.0
# Outcomes weigh against so many that are not known, half of them good.
_DOUBT: Final = 2.0


class Successes:
    """The outcomes of attempts between storage elements, the older ones counting less.

    Parameters:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ways: dict[tuple[str, str], tuple[float, float, float]] = {}

    def note(self, source: str, target: str, *, good: bool) -> None:
        """Take note of an attempt's end.

        Parameters:
            source, target: plain names of storage elements.
        """
        count, successes = self._counted(source, target)
        self._ways[source, target] = (count + 1, successes + good, self._clock())

    def rate(self, source: str, target: str) -> float:
        """How many of the attempts on a way ended well, 0 to 1; 0.5 where nothing is known."""
        count, successes = self._counted(source, target)
        return (successes + _DOUBT / 2) / (count + _DOUBT)

    def _counted(self, source: str, target: str) -> tuple[float, float]:
        count, successes, then = self._ways.get((source, target), (0.0, 0.0, 0.0))
        weight = math.pow(0.5, (self._clock() - then) / _HALF_LIFE_S) if count else 0.0
        return count * weight, successes * weight


class SourceOrder:
    """Judges sources."""

    def __init__(self, elements: StorageElements, successes: Successes) -> None:
        self._elements = elements
        self._successes = successes

    def by(self, strategy: int, target: str, vo: str) -> Order:
        """What the sources of a file are sorted by.

        Parameters:
            strategy: its `SelectionStrategy`; AUTO takes what lies on the target's own storage
                element first.
            target: the plain name of the target's storage element.
            vo: whose file it is.
        """

        def orderly(source: Source) -> tuple[float, ...]:
            return (self._is_last(source.element, vo),)

        def auto(source: Source) -> tuple[float, ...]:
            return (self._is_last(source.element, vo), source.element != target)

        def success(source: Source) -> tuple[float, ...]:
            rate = self._successes.rate(source.element, target)
            return (self._is_last(source.element, vo), -rate)

        return {Strategy.AUTO: auto, Strategy.SUCCESS: success}.get(Strategy(strategy), orderly)

    def settled(self, strategy: int, target: str, vo: str) -> Order:
        """The same without what differs from process to process, and from moment to moment: how
        the ways did.

        Parameters:
            strategy, target, vo: as `by` takes them.
        """
        lasting = strategy if strategy == Strategy.AUTO else Strategy.ORDERLY
        return self.by(lasting, target, vo)

    def _is_last(self, name: str, vo: str) -> bool:
        """Whether an element is banned from being read, or on probation."""
        element = self._elements.get(PREFIX + name)
        if element is None:
            return False
        if element.access_state(Operation.READ) >= AccessState.PROBING:
            return True
        return self._elements.barred(element.resource, Operation.READ, vo) is not None
