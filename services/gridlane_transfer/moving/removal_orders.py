"""Removals of files: what is removed for one, and what may not be.

Responsible for the rules of a single file when its turn has come, as functions without I/O; they
are `file_transfers`' of files that move. What a job that asks for it must be is `deletions`'.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gridlane_kit.decision import Visibility
from gridlane_transfer.backends.base import Location
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import is_logical
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.tables import FileRow, JobRow


@dataclass(frozen=True, slots=True)
class RemoveOrder:
    """One attempt to remove a file.

    Parameters:
        copies: where it lies.
        registered: the URLs of those that are in the catalogue under `lfn`.
        looked_at: nothing may be removed; it is looked whether anything is there.
    """

    number: int
    epoch: int
    lfn: str
    copies: Sequence[Location]
    registered: Sequence[str]
    looked_at: bool


def plan(
    file: FileRow,
    job: JobRow,
    elements: StorageElements,
    known: Mapping[str, LogicalFile],
    right: Visibility,
) -> RemoveOrder | Failed:
    """The order for an attempt.

    Parameters:
        known: the catalogue's answer to the file's logical name.
        right: how far its owner's right to remove reaches now.

    Returns:
        The order, or why there cannot be one: class BACKEND_REFUSED when no element serves the file
        any more, PERMISSION when it is another's now.
    """
    located = elements.locate(file.source, internal=True, operation=Operation.REMOVE)
    if located is None:
        return Failed(
            FailureClass.BACKEND_REFUSED,
            f"no storage element serves {file.source} any more",
            "have the storage element configured again",
        )
    logical = known.get(located.lfn)
    manages = right.covers(vo=located.vo)
    if logical is not None and not manages and not right.covers(owner=logical.owner):
        return Failed(
            FailureClass.PERMISSION,
            f"{file.source} is another's",
            "have its owner or a manager of the VO remove it",
        )
    copies = [located]
    element = located.location.storage_element
    registered = [] if logical is None else [replica.url for replica in logical.on(element)]
    if logical is not None and is_logical(file.source):
        registered = [replica.url for replica in logical.replicas]
        kept = kept_from_removal(elements, registered)
        if kept is not None:
            return Failed(
                FailureClass.BACKEND_REFUSED,
                f"{file.source} has a copy on {kept}, where nothing is removed",
                "name the URLs of the other copies, or have that one unregistered",
            )
        found = [elements.locate(url, operation=Operation.REMOVE) for url in registered]
        copies = [one for one in found if one is not None] or copies
    return RemoveOrder(
        number=file.number,
        epoch=file.lease_epoch,
        lfn=located.lfn,
        copies=[copy.location for copy in copies],
        registered=registered,
        looked_at=not manages and not registered,
    )


def kept_from_removal(elements: StorageElements, names: Iterable[str]) -> str | None:
    """The first storage element that has one of some files and removes none; None: there is none.

    Parameters:
        names: URLs or logical names; what no element serves is passed over.
    """
    for name in names:
        found = elements.locate(name)
        if found and elements.locate(name, operation=Operation.REMOVE) is None:
            return found.location.storage_element
    return None


def not_yours(file: FileRow) -> Failed:
    """A file that is there, and registered to nobody, is its VO's managers' to remove."""
    return Failed(
        FailureClass.PERMISSION,
        f"{file.source} is in nobody's name: only managers of its VO remove it",
        "have a manager of the VO remove it, or register it",
    )
