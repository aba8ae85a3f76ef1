"""The copies of a logical file: which of them may be read, and which one first.

Responsible for the one answer that a submission, which puts a file on the channel of the copy that
would be taken now, and the order for an attempt have in common. What is registered is the
catalogue's, what comes first `source_order`'s.
"""

from collections.abc import Mapping, Sequence

from gridlane_transfer.backends.base import Location
from gridlane_transfer.catalogue.base import LogicalFile
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
    return sorted(
        copies, key=lambda one: order(Source(one.url, one.storage_element.removeprefix(PREFIX)))
    )


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
        order: SourceOrder,
        *,
        vo: str,
        protocols: Sequence[str],
    ) -> None:
        self._known = known
        self._elements = elements
        self._order = order
        self._vo = vo
        self._protocols = protocols

    def first(self, lfn: str, target: Location, strategy: int = Strategy.ORDERLY) -> str:
        """The storage element of the copy that would be taken now, by its resource name; empty when
        there is none.

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
        order = self._order.by(strategy, target.storage_element.removeprefix(PREFIX), self._vo)
        return in_order(copies, order)[0].storage_element
