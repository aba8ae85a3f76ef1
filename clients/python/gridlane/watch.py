"""Streams that go on: when one breaks, the next begins where it stopped, and nothing comes twice.

Responsible for watches (resumed by the server's token) and for byte streams (resumed by their
offset). A stream has a deadline like any call, after which it is opened anew; so a connection that
died in silence is noticed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from gridlane.calls import Calls
from gridlane.errors import DeadlineExceeded, GridlaneError
from gridlane.retry import RetryPolicy
from gridlane.transport import Method, Request, Response

#: A stream is opened anew after this time, seconds.
RENEWAL_S = 300.0
#: How long a stream that gets nowhere is tried again, seconds: a restart of the server, an upgrade.
PATIENCE_S = 300.0
RESUME = RetryPolicy(max_attempts=1_000)

Cursor = TypeVar("Cursor")
Item = TypeVar("Item")


async def resumed(
    calls: Calls,
    method: Method[Request, Response],
    open_at: Callable[[Cursor], Request],
    take: Callable[[Response, Cursor], tuple[Cursor, Sequence[Item]]],
    start: Cursor,
    timeout_s: float | None = None,
) -> AsyncGenerator[Item]:
    """The items of a stream, over as many calls as it takes.

    Parameters:
        calls: makes the calls.
        method: the RPC.
        open_at: the request that goes on at a cursor.
        take: the cursor behind a response that came at the given one, and the items in it.
        start: where to begin.
        timeout_s: how long in all, seconds; None for as long as the stream lasts.

    Raises:
        DeadlineExceeded: `timeout_s` passed.
        OutOfRange: what comes after the cursor is no longer kept.
        GridlaneError: another failure that does not pass, or one that lasted PATIENCE_S.
    """
    end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    cursor, failures, patience = start, 0, time.monotonic() + PATIENCE_S
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"{method.full_name} went on for longer than {timeout_s:.3g} s")
        opened, allowed = time.monotonic(), min(left, RENEWAL_S)
        responses = calls.responses(method, open_at(cursor), allowed)
        try:
            async with aclosing(responses):
                async for response in responses:
                    failures, patience = 0, time.monotonic() + PATIENCE_S
                    cursor, items = take(response, cursor)
                    for item in items:
                        yield item
            return
        except DeadlineExceeded:
            if time.monotonic() - opened < allowed / 2:
                raise  # not ours: a server's, which another attempt would meet again
            continue  # renewed, or ended by the check above
        except GridlaneError as error:
            failures += 1
            now = time.monotonic()
            pause = RESUME.pause_s(error, failures, min(end, patience) - now)
            if pause is None:
                raise
        await calls.transport.sleep(pause)
