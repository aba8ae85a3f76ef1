"""Orders in the workers' words. Responsible for turning the interface's messages into the mover's
own, which name places by what they are made of.
"""

from gridlane_transfer.backends.base import Location, MoveOrder
from gridlane_transfer.backends.embedded.ends import AnyPlace, CopyTask
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace, is_remote, on_the_wire


def ends_of(order: MoveOrder) -> str:
    """What messages call the ends of an order, of which one or the other is at fault."""
    return f"{order.sources[0].shown} or of {order.target.shown}"


def task_of(order: MoveOrder) -> CopyTask:
    """What a worker is told of an order."""
    return CopyTask(
        number=order.number,
        epoch=order.epoch,
        sources=[place_of(source) for source in order.sources],
        target=place_of(order.target),
        overwrite=order.overwrite,
        verify_source=order.verify_source and not order.strict_copy,
        verify_target=order.verify_target and not order.strict_copy,
        size_bytes=order.size_bytes,
        expected=order.expected,
        checksums=order.checksums,
        resumed=order.resumed,
        max_bytes_per_second=order.max_bytes_per_second,
        streams=order.streams,
        disable_cleanup=order.disable_cleanup,
        strict_copy=order.strict_copy,
        scitag=order.scitag,
        third_party=order.third_party,
    )


def place_of(location: Location) -> AnyPlace:
    """A location as those who open it want it."""
    if is_remote(location.url):
        url, base = on_the_wire(location.url), on_the_wire(location.base)
        return RemotePlace(url, base, location.shown)
    return Place(location.base, location.relative, location.shown)
