"""Bandwidth and streams of one file: its part of what its channel and its ends bear."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_transfer.backends.base import Location, MoveOrder
from gridlane_transfer.channels.channels import (
    Channel,
    ChannelState,
    ExhaustedAction,
    Optimizer,
    OptimizerMode,
)
from gridlane_transfer.moving.limits import within
from gridlane_transfer.storage.storage_elements import StorageElement, StorageElements

CHANNEL = Channel(
    uid="1",
    name="c",
    source="a",
    target="b",
    state=ChannelState.ACTIVE,
    max_files=4,
    on_exhausted=ExhaustedAction.FAIL,
)
ORDER = MoveOrder(
    number=1,
    epoch=1,
    sources=[Location("file:///a/x", "storageElements/a", "/a", "x", "x")],
    target=Location("file:///b/x", "storageElements/b", "/b", "x", "x"),
    overwrite=False,
    verify_source=True,
    verify_target=True,
    size_bytes=None,
    expected={},
    checksums=[],
    resumed=False,
)


def elements(tmp_path: Path, **limits: dict[str, int]) -> StorageElements:
    """The elements a and b, with limits by name."""
    found = StorageElements([])
    made = [
        StorageElement.of(
            name,
            storage_element_pb2.StorageElement(
                endpoints=[
                    storage_element_pb2.StorageEndpoint(base_url=(tmp_path / name).as_uri())
                ],
                limits=storage_element_pb2.StorageLimits(**limits.get(name, {})),
            ),
        )
        for name in ("a", "b")
    ]
    found.take((made, []))
    return found


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, None),
        ({"max_bandwidth": 1000}, 250),
        ({"max_bandwidth": 1}, 1),
        (
            {"max_bandwidth": 1000, "optimizer": Optimizer(OptimizerMode.MODERATE, 2, 10)},
            100,
        ),
        ({"max_bandwidth": 1000, "optimizer": Optimizer(OptimizerMode.FIXED, 2, 10)}, 250),
    ],
)
def test_every_place_has_the_same_part_of_a_channel_s_bandwidth(
    tmp_path: Path, settings: dict[str, Any], rate: int | None
) -> None:
    channel = replace(CHANNEL, **settings)
    order = within(ORDER, channel, [channel], elements(tmp_path))
    assert order.max_bytes_per_second == rate
    assert (order.max_bytes_per_second or 0) * channel.most_places <= max(
        channel.max_bandwidth, channel.most_places
    )


@pytest.mark.parametrize(
    ("limits", "rate"),
    [
        ({"a": {"max_bandwidth_out_bytes_per_second": 700}}, 100),
        ({"a": {"max_bandwidth_out_bytes_per_second": 700, "max_active_out": 2}}, 350),
        ({"b": {"max_bandwidth_in_bytes_per_second": 900, "max_active_in": 3}}, 300),
        ({"b": {"max_bandwidth_in_bytes_per_second": 900}}, 225),
        ({"a": {"max_bandwidth_in_bytes_per_second": 1}}, None),
    ],
)
def test_storage_elements_divide_theirs_among_all_channels_that_reach_them(
    tmp_path: Path, limits: dict[str, dict[str, int]], rate: int | None
) -> None:
    other = replace(CHANNEL, uid="2", target="z", max_files=3)
    order = within(ORDER, CHANNEL, [CHANNEL, other], elements(tmp_path, **limits))
    assert order.max_bytes_per_second == rate


@pytest.mark.parametrize(
    ("asked", "most", "streams"), [(0, 0, 0), (8, 0, 8), (8, 4, 4), (2, 4, 2), (0, 4, 4)]
)
def test_no_file_has_more_streams_than_its_channel_lets_it(
    tmp_path: Path, asked: int, most: int, streams: int
) -> None:
    channel = replace(CHANNEL, max_streams=most)
    order = within(replace(ORDER, streams=asked), channel, [channel], elements(tmp_path))
    assert order.streams == streams


def test_the_least_of_all_limits_holds(tmp_path: Path) -> None:
    found = elements(tmp_path, a={"max_bandwidth_out_bytes_per_second": 400})
    channel = replace(CHANNEL, max_bandwidth=2000)
    order = replace(ORDER, max_bytes_per_second=300)
    assert within(order, channel, [channel], found).max_bytes_per_second == 100
