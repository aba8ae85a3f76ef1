"""Which copy of a logical file a waiting file is read from, and what of the others goes with it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.backends.base import Location, MoveOrder
from gridlane_transfer.channels.bundles import ElementRoom
from gridlane_transfer.moving.alternatives import Alternatives, Source, Strategy
from gridlane_transfer.moving.copies import kept
from gridlane_transfer.moving.source_order import SourceOrder, Successes
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.storage_elements import PREFIX, StorageElements
from gridlane_transfer.store.queues import placed
from gridlane_transfer.store.tables import FileRow

NAMES = ("a", "b", "c")
ALL = frozenset(PREFIX + name for name in NAMES)


def at(name: str) -> Location:
    return Location(f"file:///{name}/x", PREFIX + name, f"file:///{name}", "x", "LFN:/local/x")


def judge(*successes: str) -> SourceOrder:
    """What a process thinks that saw files arrive from some elements."""
    seen = Successes()
    for name in successes:
        seen.note(name, "t", good=True)
    elements = [
        StorageElementSettings(name=name, base_url=f"file:///{name}", vo_paths={"local": "/local"})
        for name in NAMES
    ]
    return SourceOrder(StorageElements(elements), seen)


def chosen(by: SourceOrder, strategy: Strategy, waits_at: str, target: str = "t") -> str:
    order = by.by(strategy, target, "local")
    copies = sorted(
        map(at, NAMES), key=lambda one: order(Source(one.url, one.storage_element[16:]))
    )
    settled = by.settled(strategy, target, "local")
    found = kept(copies, ALL, PREFIX + waits_at if waits_at else "", settled)
    return found.storage_element.removeprefix(PREFIX)


def test_a_file_that_waits_at_no_copy_takes_the_first_one() -> None:
    assert chosen(judge(), Strategy.ORDERLY, "") == "a"
    assert chosen(judge("c"), Strategy.SUCCESS, "") == "c"


def test_a_copy_at_the_target_is_better_where_that_is_asked_for() -> None:
    assert chosen(judge(), Strategy.AUTO, "a", target="b") == "b"
    assert chosen(judge(), Strategy.ORDERLY, "a", target="b") == "a"


@given(
    st.sampled_from(Strategy),
    st.sampled_from(NAMES),
    st.lists(st.lists(st.sampled_from(NAMES), max_size=4), min_size=2, max_size=6),
)
def test_processes_that_judge_differently_do_not_send_a_file_to_and_fro(
    strategy: Strategy, waits_at: str, judges: list[list[str]]
) -> None:
    stays = chosen(judge(*judges[0]), strategy, waits_at, target="c")
    for successes in judges:
        assert chosen(judge(*successes), strategy, stays, target="c") == stays


def test_a_copy_whose_channel_starts_nothing_is_passed_over_for_one_whose_does() -> None:
    order = judge().settled(Strategy.AUTO, "b", "local")
    copies = [at("b"), at("a")]
    assert kept(copies, {PREFIX + "a"}, PREFIX + "a", order) == at("a")
    assert kept(copies, {PREFIX + "a"}, "", order) == at("a")
    assert kept(copies, set(), "", order) == at("b")


def waiting(source_element: str) -> FileRow:
    values: dict[str, Any] = dict.fromkeys(FileRow._fields)
    return FileRow(**values | {"source_element": source_element, "state": FileState.READY})


def ordered(*names: str) -> MoveOrder:
    return MoveOrder(
        number=1,
        epoch=1,
        sources=[at(name) for name in names],
        target=at("t"),
        overwrite=False,
        verify_source=True,
        verify_target=True,
        size_bytes=None,
        expected={},
        checksums=[],
        resumed=False,
    )


def test_the_first_copy_with_a_place_is_read_and_beside_it_none_that_would_need_one() -> None:
    room = ElementRoom({PREFIX + "a": 0, PREFIX + "b": 1, PREFIX + "d": 5}, {})
    taken = placed(waiting(PREFIX + "c"), ordered("a", "b", "d", "e"), room)
    assert taken is not None
    assert list(taken.sources) == [at("b"), at("e")]
    assert placed(waiting(PREFIX + "c"), ordered("a", "b"), room) is None


def test_the_place_of_the_copy_that_a_file_waited_at_is_counted_already() -> None:
    room = ElementRoom({PREFIX + "a": 0}, {})
    taken = placed(waiting(PREFIX + "a"), ordered("a", "b"), room)
    assert taken is not None
    assert list(taken.sources) == [at("a"), at("b")]
    assert placed(waiting(PREFIX + "b"), ordered("a"), room) is None


def test_copies_are_tried_one_by_one_after_those_that_were_tried_together() -> None:
    several = Alternatives([Source("LFN:/local/x", ""), Source("file:///z", "z")], Strategy.ORDERLY)
    spread = several.with_copies(["a", "b"], ["b", "c"])
    assert [source.element for source in spread.sources] == ["a", "z", "b", "c"]
    turns = []
    left = spread
    for _ in range(2):
        following = left.after(lambda _: (0,), recoverable=False)
        assert following is not None
        left = following[0]
        turns.append(left.present.element)
    assert turns == ["z", "c"]
    assert spread.with_copies(["a"], ["b", "c", "d"]).sources[-1].element == "d"
