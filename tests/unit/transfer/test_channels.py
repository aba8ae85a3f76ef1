"""Which channel a file lies on, and what settings of channels mean."""

from dataclasses import replace

import pytest

from gridlane_transfer.channels.channels import (
    Channel,
    Channels,
    ChannelState,
    ExhaustedAction,
    Optimizer,
    OptimizerMode,
)


def channel(name: str, source: str, target: str, **settings: object) -> Channel:
    made = Channel(name, name, source, target, ChannelState.ACTIVE, 4, ExhaustedAction.FAIL)
    return replace(made, **settings)  # type: ignore[arg-type]


ALL = [
    channel("any", "*", "*"),
    channel("to", "*", "b"),
    channel("from", "a", "*"),
    channel("exact", "a", "b"),
]


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("a", "b", "exact"),
        ("a", "c", "from"),
        ("c", "b", "to"),
        ("c", "d", "any"),
        ("", "b", "to"),
        ("", "c", "any"),
    ],
)
def test_a_file_lies_on_the_most_particular_channel(source: str, target: str, name: str) -> None:
    for order in (ALL, ALL[::-1]):
        found = Channels(order).choose(source, target)
        assert found is not None
        assert found.name == name


def test_of_two_with_the_same_ends_the_first_name_counts() -> None:
    channels = Channels([channel("z", "a", "b"), channel("y", "a", "b")])
    found = channels.choose("a", "b")
    assert found is not None
    assert found.name == "y"


def test_nothing_lies_on_a_channel_that_is_no_more_and_it_is_still_known() -> None:
    channels = Channels([channel("gone", "*", "*", deleted=True)])
    assert channels.choose("a", "b") is None
    assert channels.all() == []
    assert channels.by_name("channels/gone") is None
    assert channels.name_of("gone") == ""
    assert not channels.by_uid("gone").starts_files


def test_what_is_read_anew_is_in_force_at_once_and_told() -> None:
    channels = Channels([channel("a", "*", "*")])
    assert channels.choose("x", "y") is not None
    told: list[int] = []
    channels.subscribe(lambda: told.append(1))
    channels.replace(([], channels.weights))
    assert channels.choose("x", "y") is None
    assert told == [1]


@pytest.mark.parametrize(
    ("mode", "allowed", "places", "most"),
    [
        (None, 9, 4, 4),
        (OptimizerMode.FIXED, 9, 4, 4),
        (OptimizerMode.MODERATE, None, 6, 20),
        (OptimizerMode.MODERATE, 9, 9, 20),
    ],
)
def test_places_are_max_files_or_what_the_optimizer_has_come_to(
    mode: OptimizerMode | None, allowed: int | None, places: int, most: int
) -> None:
    optimizer = None if mode is None else Optimizer(mode, 6, 20)
    found = channel("a", "*", "*", optimizer=optimizer, allowed_files=allowed)
    assert (found.places, found.most_places) == (places, most)


def test_an_optimizer_that_has_not_looked_yet_keeps_to_its_bounds() -> None:
    many = channel("a", "*", "*", optimizer=Optimizer(OptimizerMode.CONSERVATIVE, 2, 3))
    assert (many.max_files, many.places, many.most_places) == (4, 3, 3)
