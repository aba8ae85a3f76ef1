"""What the verbs of the facade are made of: calls that carry a deadline, a token and a trace, and
are repeated where that is safe.

Responsible for the life of one call over several attempts. `retry.py` has the rules, `transport.py`
the single attempt, `pages.py` and `watch.py` what is made of several calls.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from gridlane.errors import GridlaneError, Unauthenticated
from gridlane.retry import NO_RETRY, RetryPolicy
from gridlane.tokens import TokenSource
from gridlane.tracing import new_traceparent
from gridlane.transport import Metadata, Method, Request, Response, Transport

#: Seconds as a number, or a timedelta. None stands for the default that the verb names.
Timeout = float | timedelta | None

DEFAULT_TIMEOUT_S = 30.0


def in_seconds(timeout: Timeout, default: float) -> float:
    """A timeout in seconds.

    Raises:
        ValueError: it is not positive.
    """
    if timeout is None:
        return default
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not seconds > 0:
        raise ValueError(f"timeout {timeout!r}: expected a positive number of seconds")
    return seconds


@dataclass(frozen=True)
class Calls:
    """Makes the calls of one client.

    Attributes:
        transport: blocking or beneath asyncio.
        token: where each call's token comes from.
        timeout_s: the deadline of a call that is given none, seconds.
        policy: when a call is repeated.
        traceparent: the trace that all calls join; None: each begins its own.
        group: the group in which the caller acts; empty: the token's own choice.
    """

    transport: Transport
    token: TokenSource
    timeout_s: float = DEFAULT_TIMEOUT_S
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    traceparent: str | None = None
    group: str = ""

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout: Timeout = None,
        *,
        repeat: bool = True,
    ) -> Response:
        """One answer, by as many attempts as the policy and the deadline allow.

        Parameters:
            method: the RPC.
            request: its request; a creation carries a request id, or `repeat` is False.
            timeout: until the answer, over all attempts.
            repeat: whether the call is safe to repeat.

        Raises:
            GridlaneError: the last attempt's failure.
        """
        return await self._attempts(
            lambda left, metadata: self.transport.unary(method, request, left, metadata),
            in_seconds(timeout, self.timeout_s),
            self.policy if repeat else NO_RETRY,
        )

    async def upload(
        self,
        method: Method[Request, Response],
        requests: Callable[[], Iterator[Request]],
        timeout_s: float,
        *,
        repeat: bool,
    ) -> Response:
        """One answer to a stream of requests, which `requests` makes anew for each attempt."""
        return await self._attempts(
            lambda left, metadata: self.transport.upload(method, requests(), left, metadata),
            timeout_s,
            self.policy if repeat else NO_RETRY,
        )

    def responses(
        self, method: Method[Request, Response], request: Request, timeout_s: float
    ) -> AsyncGenerator[Response]:
        """One attempt of a streamed answer; `watch.py` resumes it."""
        return self.transport.responses(method, request, timeout_s, self.metadata())

    def metadata(self) -> Metadata:
        """What a call carries: the trace, the token as it is now, and the group."""
        carried = [("traceparent", self.traceparent or new_traceparent())]
        token = self.token.current()
        if token:
            carried.append(("authorization", f"Bearer {token}"))
        if self.group:
            carried.append(("gridlane-group", self.group))
        return tuple(carried)

    async def _attempts(
        self,
        make: Callable[[float, Metadata], Coroutine[Any, Any, Response]],
        timeout_s: float,
        policy: RetryPolicy,
    ) -> Response:
        deadline = time.monotonic() + timeout_s
        metadata = self.metadata()
        attempt = 0
        while True:
            attempt += 1
            left = deadline - time.monotonic()
            try:
                return await make(left, metadata)
            except Unauthenticated:
                renewed = (metadata[0], *self.metadata()[1:])
                if renewed == metadata:
                    raise
                metadata = renewed  # the token file was renewed meanwhile
            except GridlaneError as error:
                pause = policy.pause_s(error, attempt, deadline - time.monotonic())
                if pause is None:
                    raise
                await self.transport.sleep(pause)
