"""What the names in a description stand for: sources, stops on the way, targets.

Responsible for resolving the names of a submission and for the rules that speak of more than one of
them: no two targets are the same, no file goes where it comes from. Names each violation with its
field. Who may touch the places is `access`'; what may be done at an element now is not looked at.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit import errors
from gridlane_transfer.moving.file_transfers import is_logical
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.folders import Folders
from gridlane_transfer.storage.protocols import reached_by
from gridlane_transfer.storage.storage_elements import OWN_NAMES, PREFIX, Located, StorageElements

Violation = tuple[str, str]
Key = tuple[str, str]


class Stop(NamedTuple):
    """A place on the way; `stays` when the copy there does."""

    located: Located
    stays: bool


class Ends(NamedTuple):
    """What the names of one file stand for."""

    source: Located
    target: Located
    alternatives: Sequence[Located] = ()
    stops: Sequence[Stop] = ()


class NamedEnds:
    """Resolves the names of one description.

    Parameters:
        internal: whether the caller may name internal elements.
        vo: whose files they are.
        uuid: of the job, part of the names that the service chooses.
    """

    def __init__(self, elements: StorageElements, *, internal: bool, vo: str, uuid: str) -> None:
        self._elements = elements
        self._sources = Folders(elements, Operation.READ, internal=internal)
        self._targets = Folders(elements, Operation.WRITE, internal=internal)
        self._vo = vo
        self._uuid = uuid
        self._violations: list[Violation] = []
        self._unserved: list[tuple[str, str]] = []
        self._taken: set[Key] = set()

    def of(
        self,
        job: transfer_job_pb2.TransferJob,
        asks: Sequence[bool],
        also: Sequence[Violation],
    ) -> list[Ends]:
        """The ends of each file.

        Parameters:
            asks: of each file, whether it may have further sources, or stops.
            also: other violations of the same description, to be named with those found here.

        Raises:
            GridlaneError: NO_STORAGE_ELEMENT or INVALID_FIELDS, with all violations.
        """
        protocols = tuple(job.protocols)
        ends = [
            self._of_file(file, index, protocols, asks[index])
            for index, file in enumerate(job.files)
        ]
        violations = [*also, *self._violations]
        if self._unserved:
            raise errors.no_storage_element(*self._unserved[0], violations)
        if violations:
            raise errors.invalid(violations)
        return [end for end in ends if end is not None]

    def _of_file(
        self,
        file: transfer_job_pb2.FileTransfer,
        index: int,
        protocols: Sequence[str],
        asks: bool,
    ) -> Ends | None:
        source, target = self._sources.locate(file.source), self._targets.locate(file.target)
        if source is None or target is None:
            if source is None:
                self._is_unserved(index, "source", file.source)
            if target is None:
                self._is_unserved(index, "target", file.target)
            return None
        if protocols:
            source = self._reached(source, file.source, Operation.READ, protocols)
            target = self._reached(target, file.target, Operation.WRITE, protocols)
        came, goes = _key(source), _key(target)
        if came == goes and (is_logical(file.target) or not is_logical(file.source)):
            # A logical source may have another copy to take.
            self._violates(index, "target", "is the source")
        self._take(index, "target", goes)
        if not asks:
            return Ends(source, target)
        if file.guid and not target.lfn:
            self._violates(index, "guid", "is given to what has no logical name")
        if file.via and file.alternative_sources:
            self._violates(index, "via", "contradicts alternative_sources")
        return Ends(
            source,
            target,
            self._alternatives(file, index, goes),
            self._stops(file, index, {came, goes}),
        )

    def _alternatives(
        self, file: transfer_job_pb2.FileTransfer, index: int, target: Key
    ) -> list[Located]:
        found = []
        names = {file.source}
        for turn, name in enumerate(file.alternative_sources):
            field = f"alternative_sources[{turn}]"
            located = self._sources.locate(name)
            if located is None:
                self._is_unserved(index, field, name)
                continue
            if name in names:
                self._violates(index, field, "is named before")
            if _key(located) == target and not is_logical(name):
                self._violates(index, field, "is the target")
            names.add(name)
            found.append(located)
        return found

    def _stops(self, file: transfer_job_pb2.FileTransfer, index: int, ends: set[Key]) -> list[Stop]:
        stops = []
        for turn, name in enumerate(file.via):
            field = f"via[{turn}]"
            stop = self._stop(name, index, turn)
            if stop is None:
                if name.startswith(PREFIX):
                    why = f"{name} has no place for files of the VO {self._vo}"
                    self._violates(index, field, why)
                else:
                    self._is_unserved(index, field, name)
                continue
            key = _key(stop.located)
            if is_logical(name):
                self._violates(index, field, "is no URL: name a storage element, or a copy's URL")
            elif key in ends:
                self._violates(index, field, "is an end of the file")
            else:
                self._take(index, field, key)
            stops.append(stop)
        return stops

    def _stop(self, name: str, index: int, turn: int) -> Stop | None:
        if not name.startswith(PREFIX):
            located = self._targets.locate(name)
            return None if located is None else Stop(located, stays=True)
        element = self._elements.get(name)
        endpoint = None if element is None else element.endpoint(Operation.WRITE)
        if element is None or endpoint is None or self._vo not in element.vo_paths:
            return None
        path = f"{element.vo_paths[self._vo]}/{OWN_NAMES}hop-{self._uuid}-{index + 1}-{turn + 1}"
        located = element.locate(endpoint, path, f"a copy on {element.resource}")
        return None if located is None else Stop(located, stays=False)

    def _reached(
        self, located: Located, name: str, operation: Operation, protocols: Sequence[str]
    ) -> Located:
        """The place of a logical name as one of the protocols reaches it."""
        if not is_logical(name):
            return located
        reached = reached_by(protocols, located, operation, self._elements)
        if reached is not None:
            return reached
        element = located.location.storage_element
        why = f"{element}, where {name} lies, speaks none of them"
        self._violations.append(("transfer_job.protocols", why))
        return located

    def _take(self, index: int, field: str, key: Key) -> None:
        if key in self._taken:
            self._violates(index, field, "is the target of another file of the job")
        self._taken.add(key)

    def _violates(self, index: int, field: str, why: str) -> None:
        self._violations.append((f"transfer_job.files[{index}].{field}", why))

    def _is_unserved(self, index: int, field: str, name: str) -> None:
        self._unserved.append((name, field))
        self._violates(index, field, f"no storage element serves {name}")


def element_of(end: Located) -> str:
    """The plain name of the storage element of a place."""
    return end.location.storage_element.removeprefix(PREFIX)


def _key(end: Located) -> Key:
    """What two places have in common when they are one file, however it is reached."""
    return end.location.storage_element, end.location.relative
