"""Closes the policy of a process that has not been told for too long that it is the newest.

Responsible for the time since the last confirmation and for what happens when it grows too long: a
timer puts a closed policy into the holder, under which every decision is refused, so that calls pay
nothing for the check. The next confirmation opens it again. Who confirms, and how, is up to the
holder's keeper (`policy_feed`; in Authorization the one that reads its database).
"""

import asyncio
import time

from gridlane_kit.logs import logger
from gridlane_kit.policy import Policy, PolicyHolder

_log = logger("policy")


class Freshness:
    """Keeps a holder's policy open while it is confirmed.

    Parameters:
        holder: what the process decides from. Closed until the first confirmation.
        limit_s: so long a policy is good without being confirmed, seconds.
    """

    def __init__(self, holder: PolicyHolder, limit_s: float) -> None:
        self._holder = holder
        self._limit_s = limit_s
        self._open: Policy | None = None
        self._confirmed_s = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def staleness_s(self) -> float:
        """Returns how long ago the policy was confirmed, seconds; since the start when it never
        was. Any thread may ask."""
        return time.monotonic() - self._confirmed_s

    def begin(self) -> None:
        """Closes the holder until a policy is confirmed."""
        self._holder.replace(Policy(0, closed=True))

    def confirm(self, policy: Policy, age_s: float = 0.0) -> None:
        """Puts a policy in force, or leaves it so: it was the newest so long ago.

        Parameters:
            age_s: less than the limit.
        """
        self._confirmed_s = time.monotonic() - age_s
        if self._timer is None:
            self._check_after(self._limit_s - age_s)
        if policy is not self._open:
            self._open = policy
            self._holder.replace(policy)

    def stop(self) -> None:
        """Ends the timer; the policy stays as it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        left_s = self._limit_s - self.staleness_s()
        if left_s > 0:
            self._check_after(left_s)
        elif self._open is not None:
            _log.error(
                "the policy is stale: every call is refused until it is confirmed",
                revision=self._open.revision,
                stale_s=round(self.staleness_s(), 3),
            )
            closed = Policy(self._open.revision, closed=True)
            self._open = None
            self._holder.replace(closed)
