"""How fast one file may be moved, and by how many streams: its part of what its channel and its
storage elements bear.

Responsible for the division, which is made once, when the file starts: every place of a channel has
the same part of its bandwidth, used or not, so that all together never exceed it. How a mover holds
it is the mover's.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gridlane_transfer.backends.base import MoveOrder
from gridlane_transfer.channels.channels import ANY, Channel
from gridlane_transfer.storage.storage_elements import StorageElement, StorageElements

_LEAST_BYTES_PER_SECOND: Final = 1


def within(
    order: MoveOrder, channel: Channel, channels: Sequence[Channel], elements: StorageElements
) -> MoveOrder:
    """An order with the limits of its channel and of its ends.

    Parameters:
        channels: all there are: an element without a limit of files divides its bandwidth among
            their places.
    """
    parts = [
        order.max_bytes_per_second,
        _part(channel.max_bandwidth, channel.most_places),
        _into(elements.get(order.target.storage_element), channels),
        *(_out_of(elements.get(one.storage_element), channels) for one in order.sources),
    ]
    rates = [part for part in parts if part is not None]
    streams = order.streams
    if channel.max_streams:
        streams = min(streams or channel.max_streams, channel.max_streams)
    if not rates and streams == order.streams:
        return order
    return replace(order, max_bytes_per_second=min(rates, default=None), streams=streams)


def _out_of(element: StorageElement | None, channels: Sequence[Channel]) -> int | None:
    if element is None or not element.limits.max_bandwidth_out_bytes_per_second:
        return None
    places = element.limits.max_active_out or sum(
        one.most_places for one in channels if one.source in (ANY, element.name)
    )
    return _part(element.limits.max_bandwidth_out_bytes_per_second, places)


def _into(element: StorageElement | None, channels: Sequence[Channel]) -> int | None:
    if element is None or not element.limits.max_bandwidth_in_bytes_per_second:
        return None
    places = element.limits.max_active_in or sum(
        one.most_places for one in channels if one.target in (ANY, element.name)
    )
    return _part(element.limits.max_bandwidth_in_bytes_per_second, places)


def _part(bandwidth: int, places: int) -> int | None:
    """The part of one place; None when there is no limit."""
    if not bandwidth:
        return None
    return max(_LEAST_BYTES_PER_SECOND, bandwidth // max(1, places))
