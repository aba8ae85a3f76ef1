"""Several sources of one file: each has its turn, what cannot help is left out, and rounds end."""

from hypothesis import given
from hypothesis import strategies as st

from gridlane_transfer.moving import alternatives
from gridlane_transfer.moving.alternatives import Alternatives, Order, Source, Strategy
from gridlane_transfer.moving.source_order import SourceOrder, Successes
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage.storage_elements import StorageElements

A, B, C = Source("file:///a/x", "a"), Source("file:///b/x", "b"), Source("LFN:/local/x", "")


def orderly(source: Source) -> tuple[float, ...]:
    return (0,)


def last(*elements: str) -> Order:
    return lambda source: (source.element in elements,)


def test_sources_are_tried_in_the_order_given() -> None:
    first = Alternatives([A, B, C], Strategy.ORDERLY).begin(orderly)
    assert first.present == A
    second = first.after(orderly, recoverable=True)
    assert second is not None
    assert (second[0].present, second[1]) == (B, False)
    third = second[0].after(orderly, recoverable=True)
    assert third is not None
    assert (third[0].present, third[1]) == (C, False)
    again = third[0].after(orderly, recoverable=True)
    assert again is not None
    assert (again[0].present, again[1]) == (A, True)


def test_what_is_to_come_last_does() -> None:
    sources = Alternatives([A, B, C], Strategy.ORDERLY).begin(last("a"))
    assert sources.present == B
    following = sources.after(last("a"), recoverable=True)
    assert following is not None
    assert following[0].present == C


def test_a_source_that_cannot_help_is_not_asked_again() -> None:
    sources = Alternatives([A, B], Strategy.ORDERLY)
    following = sources.after(orderly, recoverable=False)
    assert following is not None
    assert (following[0].present, following[1]) == (B, False)
    round_two = following[0].after(orderly, recoverable=True)
    assert round_two is not None
    assert (round_two[0].present, round_two[1]) == (B, True)
    assert round_two[0].after(orderly, recoverable=False) is None


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=40))
def test_a_round_asks_each_source_that_is_left_once(count: int, recoverable: list[bool]) -> None:
    sources: Alternatives = Alternatives(
        [Source(f"file:///{n}", str(n)) for n in range(count)], Strategy.ORDERLY
    ).begin(orderly)
    asked = [sources.now]
    for passes in recoverable:
        following = sources.after(orderly, recoverable=passes)
        if following is None:
            assert not passes
            assert sources.gone | {sources.now} == frozenset(range(count))
            return
        before = sources
        sources, new_round = following
        assert sources.now not in sources.gone
        if new_round:
            assert before.tried | {before.now} | before.gone == frozenset(range(count))
            asked = []
        else:
            assert sources.now not in asked
        asked.append(sources.now)
        assert alternatives.read(sources.to_json()) == sources


def elements() -> StorageElements:
    return StorageElements(
        [
            StorageElementSettings(
                name=name, base_url=f"file:///{name}", vo_paths={"local": "/local"}
            )
            for name in ("a", "b", "target")
        ]
    )


def test_the_order_by_strategy() -> None:
    clock = [0.0]
    successes = Successes(lambda: clock[0])
    order = SourceOrder(elements(), successes)
    near = Source("file:///target/x", "target")

    def sorted_by(strategy: Strategy) -> list[Source]:
        return sorted([A, B, near], key=order.by(strategy, "target", "local"))

    assert sorted_by(Strategy.ORDERLY) == [A, B, near]
    assert sorted_by(Strategy.AUTO) == [near, A, B]
    assert sorted_by(Strategy.SUCCESS) == [A, B, near]
    successes.note("a", "target", good=False)
    successes.note("b", "target", good=True)
    assert sorted_by(Strategy.SUCCESS) == [B, near, A]
    clock[0] = 100_000.0
    assert abs(successes.rate("a", "target") - successes.rate("b", "target")) < 0.001


def test_a_way_that_nobody_went_is_neither_good_nor_bad() -> None:
    successes = Successes(lambda: 0.0)
    assert successes.rate("a", "b") == 0.5
    for _ in range(100):
        successes.note("a", "b", good=True)
    assert 0.95 < successes.rate("a", "b") < 1
