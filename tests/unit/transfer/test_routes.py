"""Files that stop on the way: where they go next, and what they leave behind."""

import pytest

from gridlane_transfer.moving import routes
from gridlane_transfer.moving.routes import Route, Stop

FIRST = Stop("file:///a/.gridlane-hop-1", "storageElements/a", "", stays=False)
KEPT = Stop("file:///b/x", "storageElements/b", "", stays=True)
THIRD = Stop("file:///a/.gridlane-hop-3", "storageElements/a", "", stays=False)
TARGET = Stop("file:///c/x", "storageElements/c", "LFN:/local/x", stays=True)
ROUTE = Route([FIRST, KEPT, THIRD, TARGET])


@pytest.mark.parametrize(
    ("hop", "left"),
    [(1, [FIRST.url]), (2, [FIRST.url]), (3, [FIRST.url, THIRD.url]), (4, [FIRST.url, THIRD.url])],
)
def test_the_copies_that_a_file_leaves_when_it_ends_on_a_hop(hop: int, left: list[str]) -> None:
    assert ROUTE.left_behind(hop) == left


def test_the_last_hop_ends_at_the_target() -> None:
    assert [ROUTE.is_last(hop) for hop in (1, 2, 3, 4)] == [False, False, False, True]
    assert ROUTE.stop(4) == TARGET


def test_the_source_is_that_of_the_first_hop() -> None:
    second = ROUTE.onward(1, ("file:///d/x", "storageElements/d"))
    third = second.onward(4, (FIRST.url, FIRST.element))
    assert third.origin == ("file:///d/x", "storageElements/d")
    assert third.begun == 4


def test_the_store_keeps_all_of_it() -> None:
    route = ROUTE.onward(2, ("file:///d/x", "storageElements/d"))
    assert routes.read(route.to_json()) == route
