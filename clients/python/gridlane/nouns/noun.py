"""What every noun is made of: the calls of its client, filters, and times.

Responsible for nothing that reaches a server by itself.
"""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.calls import Calls
from gridlane.modes import Mode, Noun


class ClientNoun(Noun[Mode]):
    """A kind of resource, bound to the calls of one client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._blocking = calls.transport.blocking


def equals(**wanted: str | None) -> str:
    """A filter of equalities joined by AND, of what is not None and not empty (`field="value"`).

    Raises:
        ValueError: a value cannot stand in a filter.
    """
    parts = []
    for field, value in wanted.items():
        if value:
            if '"' in value or "\\" in value:
                raise ValueError(
                    f"{field} {value!r}: a filter's value has no quotes or backslashes"
                )
            parts.append(f'{field} = "{value}"')
    return " AND ".join(parts)


def timestamp(time: datetime | None) -> Timestamp | None:
    """A time as the contracts have it.

    Raises:
        ValueError: it has no time zone.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
