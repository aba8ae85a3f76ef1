"""Ends what waits for a storage. Responsible for the words between those who ask for an end and
requests that wait in other threads.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Protocol


class Waker(Protocol):
    """What a request asks while it waits."""

    def stopped(self) -> bool:
        """Whether to end at once."""

    def closing(self, close: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the block, `close` is called when the end is asked for, from another thread."""


class Unstoppable:
    """Work that is done in any case."""

    def stopped(self) -> bool:
        """Never."""
        return False

    def closing(self, close: Callable[[], None]) -> AbstractContextManager[None]:
        """Nothing closes it."""
        return nullcontext()


class Part:
    """A part of a piece of work: it is stopped with the whole, or alone."""

    def __init__(self, whole: Waker) -> None:
        self._whole = whole
        self._stopped = False
        self._closers: list[Callable[[], None]] = []
        self._lock = Lock()

    def stopped(self) -> bool:
        """Whether to end at once."""
        return self._stopped or self._whole.stopped()

    def stop(self) -> None:
        """End it: who waits is woken."""
        self._stopped = True
        with self._lock:
            closers = list(self._closers)
        for close in closers:
            close()

    @contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        """As `Waker` has it."""
        with self._lock:
            self._closers.append(close)
        try:
            with self._whole.closing(close):
                yield
        finally:
            with self._lock:
                self._closers.remove(close)
