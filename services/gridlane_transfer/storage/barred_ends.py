"""What bans and drains of storage elements do to a submission, and to calls for bytes.

Responsible for refusing what may not go there now, and for having the files wait that a ban lets in
(FTS3: allow_submit). A logical source may have other copies by the time that a file starts: what
keeps it from being read is seen when the file is claimed.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError
from gridlane_transfer import messages
from gridlane_transfer.jobs.named_ends import Ends
from gridlane_transfer.moving.file_transfers import is_logical
from gridlane_transfer.states import FileState, job_state
from gridlane_transfer.storage.bans import Ban, BannedFile, Barred, Operation, banned_file
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store.jobs import NewFile, NewTransferJob


def waiting(
    elements: StorageElements, job: transfer_job_pb2.TransferJob, vo: str, ends: Sequence[Ends]
) -> dict[int, Barred]:
    """The files that are accepted and wait, by their index, and what they wait for.

    Parameters:
        vo: whose files they are.
        ends: of each file.

    Raises:
        GridlaneError: PRECONDITION that names the first storage element that is banned, or drains.
    """
    if elements.all_open:
        return {}
    asked = _Asked(elements, vo)
    found: dict[int, Barred] = {}
    for index, (file, end) in enumerate(zip(job.files, ends, strict=True)):
        for target in (end.target, *(stop.located for stop in end.stops)):
            asked.require_open(target.location.storage_element)
        bars = [*asked.keeping(file, end)]
        if bars:
            found[index] = accepted(bars)
    return found


def blocked(new: NewTransferJob, found: dict[int, Barred]) -> NewTransferJob:
    """A job some of whose files wait for the end of bans."""
    if not found:
        return new
    files = list(new.files)
    by_bans: Counter[str] = Counter()
    for index, barred in found.items():
        stopped = banned_file(barred, new.row.create_us, new.row.create_us)
        files[index] = _stopped(files[index], stopped)
        by_bans.update(stopped.bans)
    counts = Counter(FileState(file.state) for file in files)
    state = job_state(counts, moved_uncatalogued=0, cancel_asked=False)
    row = new.row._replace(
        state=int(state), counts=json.dumps({int(one): many for one, many in counts.items()})
    )
    event = type(new.event)()
    event.CopyFrom(new.event)
    event.job.CopyFrom(messages.job_message(row))
    return replace(new, row=row, files=files, event=event, by_bans=by_bans)


def require_free(elements: StorageElements, located: Located, operation: Operation) -> None:
    """Refuses to do something with the bytes of a file at once where that is banned, or to write
    where nothing new is taken.

    Raises:
        GridlaneError: PRECONDITION.
    """
    element = elements.get(located.location.storage_element)
    if operation is Operation.WRITE and element is not None and element.draining:
        raise _drains(element.resource)
    found = elements.barred(located.location.storage_element, operation, located.vo)
    if found is not None:
        raise _banned(found.ban)


def readable(elements: StorageElements, copies: Sequence[Located]) -> Sequence[Located]:
    """The copies of a file that may be read now; those that are only probed come last.

    Raises:
        GridlaneError: PRECONDITION: none may be.
    """
    bars = [
        elements.barred(copy.location.storage_element, Operation.READ, copy.vo) for copy in copies
    ]
    free = [copy for copy, found in zip(copies, bars, strict=True) if found is None]
    first = next((found for found in bars if found is not None), None)
    if first is not None and not free:
        raise _banned(first.ban)
    return sorted(free, key=lambda copy: elements.is_probed(copy.location.storage_element))


def _drains(element: str) -> GridlaneError:
    return errors.precondition(
        element, f"{element} is being emptied and takes no new files: name another one"
    )


def _banned(ban: Ban) -> GridlaneError:
    return errors.precondition(
        ban.element,
        f"{ban.element} is banned: {ban.reason}; name another storage element, or wait for the end"
        " of the ban",
        {"subject": ban.element, "ban": ban.name},
    )


class _Asked:
    """What keeps the files of one job from storage elements; each element is asked about once."""

    def __init__(self, elements: StorageElements, vo: str) -> None:
        self._elements = elements
        self._vo = vo
        self._found: dict[tuple[str, Operation], Barred | None] = {}
        self._open: set[str] = set()

    def require_open(self, element: str) -> None:
        """Refuses a target that is being emptied."""
        if element in self._open:
            return
        known = self._elements.get(element)
        if known is not None and known.draining:
            raise _drains(element)
        self._open.add(element)

    def keeping(self, file: transfer_job_pb2.FileTransfer, end: Ends) -> Iterator[Barred]:
        """What keeps a file: from its target, from every one of its sources, from its stops."""
        names = (file.source, *file.alternative_sources)
        places = (end.source, *end.alternatives)
        sources = [
            located for name, located in zip(names, places, strict=True) if not is_logical(name)
        ]
        logical = len(sources) < len(names)
        bars = [self._barred(one.location.storage_element, Operation.READ) for one in sources]
        if bars and not logical and all(bars):
            yield min((one for one in bars if one), key=lambda one: one.ban.severity)
        for stop in end.stops:
            for operation in (Operation.WRITE, Operation.READ):
                found = self._barred(stop.located.location.storage_element, operation)
                if found is not None:
                    yield found
        found = self._barred(end.target.location.storage_element, Operation.WRITE)
        if found is not None:
            yield found

    def _barred(self, element: str, operation: Operation) -> Barred | None:
        key = (element, operation)
        if key not in self._found:
            self._found[key] = self._elements.barred(element, operation, self._vo)
        return self._found[key]


def accepted(bars: Sequence[Barred]) -> Barred:
    """Returns all that a file waits for, of one or more things that keep it.

    Raises:
        GridlaneError: PRECONDITION: one of them does not let it in.
    """
    for one in bars:
        if not one.accepts:
            ban = next(ban for ban in one.bans if not ban.accept_submissions)
            raise _banned(ban)
    together = bars[0]
    for one in bars[1:]:
        together = together.with_others(one)
    return together


def _stopped(file: NewFile, stopped: BannedFile) -> NewFile:
    failure = messages.failure_message(stopped.failure)
    waits = file._replace(state=int(stopped.state), due_us=stopped.due_us)
    return waits.with_failure(failure.SerializeToString(), failure.failure_class)
