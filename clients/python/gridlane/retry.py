"""When a call that failed is made again, and after how long.

Pure rules, no input or output: `calls.py` asks after each failure. Only calls that are safe to
repeat come here: reads, verbs that are idempotent by contract, and creations that carry a
`request_id`, which the server answers with the same resource however often they come.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gridlane.errors import Aborted, GridlaneError, ResourceExhausted, Unavailable


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter, bounded by the call's deadline.

    Attributes:
        first_delay_s: the upper bound of the first pause, seconds.
        factor: by how much the bound grows with each attempt.
        longest_delay_s: the bound never grows beyond this, seconds.
        max_attempts: how often the call is made at most, the first time included.
    """

    first_delay_s: float = 0.1
    factor: float = 2.0
    longest_delay_s: float = 5.0
    max_attempts: int = 12

    def pause_s(
        self,
        error: GridlaneError,
        attempt: int,
        remaining_s: float,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """How long to wait before the next attempt.

        Parameters:
            error: what the last attempt ended with.
            attempt: its number, from 1.
            remaining_s: seconds until the deadline.
            draw: gives a number in [0, 1).

        Returns:
            Seconds, never less than what the server asked for; None when the error is to be raised:
            it is not one that passes, the attempts are spent, or the pause would outlast the
            deadline.
        """
        if attempt >= self.max_attempts or not passes_by_itself(error):
            return None
        bound = min(self.first_delay_s * self.factor ** (attempt - 1), self.longest_delay_s)
        pause = bound * draw() + (error.retry_after_s or 0.0)
        return pause if pause < remaining_s else None


NO_RETRY = RetryPolicy(max_attempts=1)


def passes_by_itself(error: GridlaneError) -> bool:
    """Whether the same call may well succeed a little later.

    A server that is full says when to come again; without that it is a quota or a disk, which do
    not pass.
    """
    if isinstance(error, ResourceExhausted):
        return error.retry_after_s is not None
    return isinstance(error, (Unavailable, Aborted))
