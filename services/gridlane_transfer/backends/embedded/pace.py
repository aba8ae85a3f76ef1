"""Keeps a copy to a limit of bytes in a second: a bucket of tokens.

Responsible for waiting; what is waited for says so itself, so that nobody takes it for hung.
"""

import time
from collections.abc import Callable
from typing import Final

# So much of a second may be saved up, and is waited for at once.
_BURST_S: Final = 0.25
_WAKE_S: Final = 0.1


class Pace:
    """The bucket.

    Parameters:
        limit: bytes in a second; None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._tokens = 0.0
        self._filled_s = time.monotonic()

    def block(self, most: int) -> int:
        """How many bytes are moved at once, so that the flow is even; at most `most`."""
        return most if self._limit is None else max(1, min(most, int(self._limit * _BURST_S)))

    def spend(self, count: int, waits: Callable[[], bool]) -> None:
        """Take bytes out of the bucket, and wait until it is not in debt.

        Parameters:
            waits: called again and again while it waits; False ends that.
        """
        if self._limit is None:
            return
        now = time.monotonic()
        earned = (now - self._filled_s) * self._limit
        self._tokens = min(self._tokens + earned, self._limit * _BURST_S) - count
        self._filled_s = now
        due_s = now - self._tokens / self._limit
        while (left_s := due_s - time.monotonic()) > 0 and waits():
            time.sleep(min(left_s, _WAKE_S))
