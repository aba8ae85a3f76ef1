"""The W3C trace context that each call carries, so that a call is the root of its story on the
servers.

Responsible for making and reading `traceparent` values. The client records no spans of its own.
Source: https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import os
import re

_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def new_traceparent() -> str:
    """A new trace with a random id, sampled."""
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"


def traceparent_of(given: str | None) -> str | None:
    """The trace that calls are to join: the one given, else that of the environment's TRACEPARENT.

    Returns:
        A valid `traceparent`, or None when each call is to begin a trace of its own. What is in the
        environment and not valid is passed over, as the specification asks.

    Raises:
        ValueError: `given` is not a `traceparent`.
    """
    if given is not None:
        if not trace_id(given):
            raise ValueError(f"traceparent {given!r}: expected 00-<32 hex>-<16 hex>-<2 hex>")
        return given
    ambient = os.environ.get("TRACEPARENT", "").strip().lower()
    return ambient if trace_id(ambient) else None


def trace_id(traceparent: str) -> str:
    """The trace's id, 32 hexadecimal digits; empty when `traceparent` is not valid."""
    match = _FORM.fullmatch(traceparent)
    if match is None or not int(match[1], 16) or not int(match[2], 16):
        return ""
    return match[1]
