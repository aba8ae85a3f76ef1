"""Listings as one sequence, whatever the number of pages.

Responsible for asking for page after page, and for stopping; each page is a call with a deadline
and attempts of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from gridlane.errors import Internal

LARGEST_PAGE = 1000


class Page(Protocol):
    """A response of a listing."""

    next_page_token: str


AnyPage = TypeVar("AnyPage", bound=Page)
Item = TypeVar("Item")


def page_size(limit: int | None, size: int = LARGEST_PAGE) -> int:
    """The size of page to ask for: no more than is wanted.

    Parameters:
        limit: how many items are wanted in all; None for all there are.
        size: how many to ask for at once.

    Raises:
        ValueError: `limit` is negative.
    """
    if limit is None:
        return size
    if limit < 0:
        raise ValueError(f"limit {limit}: expected 0 or more")
    return max(1, min(limit, size))


async def all_items(
    fetch: Callable[[str], Awaitable[AnyPage]],
    items_of: Callable[[AnyPage], Iterable[Item]],
    limit: int | None = None,
) -> AsyncGenerator[Item]:
    """The items of all pages, in order; pages are asked for as they are needed.

    Parameters:
        fetch: asks for the page of a token; empty for the first.
        items_of: the items of a page.
        limit: stop after this many; None for all.

    Raises:
        Internal: the server gave the same page token twice, which would never end.
    """
    token = ""
    left = float("inf") if limit is None else limit
    while left > 0:
        page = await fetch(token)
        for item in items_of(page):
            if left <= 0:
                return
            left -= 1
            yield item
        if not page.next_page_token:
            return
        if page.next_page_token == token:
            raise Internal("the server answered the same next_page_token twice")
        token = page.next_page_token
