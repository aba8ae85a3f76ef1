"""The copies of a logical file: which of them may be read, and which one first.

Responsible for the one answer that a submission, which puts a file on the channel of the copy that
would be taken now, and the order for an attempt have in common; and for when a file leaves the copy
that it waits for. What is registered is the catalogue's, what comes first `source_order`'s.

An attempt reads the copies that its place stands for: those on the file's own channel, and of these
beside the first one none whose element counts what is read from it. For the others it waits anew.
"""

from collections.abc import Collection, Mapping, Sequence

from gridlane_transfer.backends.base import Location
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.moving.alternatives import Order, Source, Strategy
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.protocols import reached_by
from gridlane_transfer.storage.storage_elements import PREFIX, Located, StorageElements


def places(
    logical: LogicalFile, elements: StorageElements, protocols: Sequence[str]
) -> list[Located]:
    """Where the copies of a logical file are read, in the order of their registration; those that
    no storage element serves, or by none of the protocols, are left out.

    Parameters:
        protocols: as `reached_by` takes them.
    """
    located = (elements.locate(one.url, operation=Operation.READ) for one in logical.replicas)
    reached = (reached_by(protocols, one, Operation.READ, elements) for one in located if one)
    return [one for one in reached if one is not None]


def is_one_file(one: Location, other: Location) -> bool:
    """Whether two places are one file, by whatever endpoint it is reached."""
    return (one.storage_element, one.relative) == (other.storage_element, other.relative)


def in_order(copies: Sequence[Location], order: Order) -> list[Location]:
    """Copies in the order in which they are tried."""
    return sorted(copies, key=lambda one: order(_source(one)))


def _source(copy: Location) -> Source:
    return Source(copy.url, copy.storage_element.removeprefix(PREFIX))


def kept(
    copies: Sequence[Location], starting: Collection[str], waits_at: str, order: Order
) -> Location:
    """The copy that a file is to be read from: the one that it waits for, unless another one is
    better.

    Parameters:
        copies: what may be read now, at least one, in the order in which they are tried.
        starting: the storage elements, by their resource names, from which files start now.
        waits_at: the storage element that the file waits at; empty for none.
        order: what holds in every process, so that no two of them send a file to and fro.
    """
    first = next((one for one in copies if one.storage_element in starting), None)
    own = next((one for one in copies if one.storage_element == waits_at), None)
    if own is None:
        return first or copies[0]
    return own if first is None or order(_source(own)) <= order(_source(first)) else first


class Copies:
    """The copies of a job's logical sources, as the catalogue has them at a moment.

    Parameters:
        known: by logical name; what is not registered is left out.
        vo: whose files they are.
        protocols: those of the job.
    """

    def __init__(
        self,
        known: Mapping[str, LogicalFile],
        elements: StorageElements,
        channels: Channels,
        order: SourceOrder,
        *,
        vo: str,
        protocols: Sequence[str],
    ) -> None:
        self._known = known
        self._elements = elements
        self._channels = channels
        self._order = order
        self._vo = vo
        self._protocols = protocols

    def first(self, lfn: str, target: Location, strategy: int = Strategy.ORDERLY) -> str:
        """The storage element of the copy that would be taken now, by its resource name: the first
        one that a channel leads from, if there is one; empty when there is no copy.

        Parameters:
            target: where the bytes go, which is no source of theirs.
            strategy: the file's `SelectionStrategy`.
        """
        logical = self._known.get(lfn)
        if logical is None:
            return ""
        found = [one.location for one in places(logical, self._elements, self._protocols)]
        copies = [one for one in found if not is_one_file(one, target)]
        if not copies:
            return ""
        end = target.storage_element.removeprefix(PREFIX)
        ordered = in_order(copies, self._order.by(strategy, end, self._vo))
        ways = (one for one in ordered if self._channels.choose(_source(one).element, end))
        return next(ways, ordered[0]).storage_element
