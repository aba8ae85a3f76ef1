"""What every noun is made of: the calls of its client, listings, filters, and times.

Responsible for nothing that reaches a server by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.calls import Calls, Timeout
from gridlane.modes import Mode, Noun
from gridlane.pages import Item, all_items, page_size
from gridlane.transport import Method, Response


class ListRequest(Protocol):
    """A request of a listing."""

    page_size: int
    page_token: str


class ClientNoun(Noun[Mode]):
    """A kind of resource, bound to the calls of one client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._blocking = calls.transport.blocking

    def _listed(
        self,
        method: Method[Any, Response],
        request: ListRequest,
        items_of: Callable[[Response], Iterable[Item]],
        limit: int | None,
        timeout: Timeout,
    ) -> AsyncGenerator[Item]:
        """The items of a listing, page after page as they are needed.

        Parameters:
            request: what is listed, without size and token of a page.
            items_of: the items of a page.
            limit: at most this many; None for all.
            timeout: for each page.

        Raises:
            ValueError: `limit` is negative.
        """
        request.page_size = page_size(limit)

        async def fetch(token: str) -> Any:
            request.page_token = token
            return await self._calls.unary(method, request, timeout)

        return all_items(fetch, items_of, limit)


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


def duration(length: timedelta | None) -> Duration | None:
    """A length of time as the contracts have it."""
    if length is None:
        return None
    message = Duration()
    message.FromTimedelta(length)
    return message
