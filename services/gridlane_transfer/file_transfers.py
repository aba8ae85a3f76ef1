"""File transfers: how one file is to be moved, and what becomes of it then.

Responsible for the rules of a single file, as functions without I/O: the order for the mover
(sources, expected content, what is verified) and the state that follows from the mover's answer.
There is ONE retry budget, the job's `max_retries` for each file; no layer below tries again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridlane_transfer.backends.base import Location, MoveOrder
from gridlane_transfer.channels import ExhaustedAction
from gridlane_transfer.failures import Failed, FailureClass
from gridlane_transfer.states import FileState
from gridlane_transfer.storage_elements import Located, StorageElements
from gridlane_transfer.store.catalogue import LogicalFile
from gridlane_transfer.store.tables import FileRow, JobRow

# Numbers of `VerifyMode` and `OverwriteMode`.
VERIFY_BOTH, VERIFY_SOURCE, VERIFY_TARGET, VERIFY_NONE = 1, 2, 3, 4
OVERWRITE_NEVER, OVERWRITE_ALWAYS = 1, 2

DEFAULT_CHECKSUM = "ADLER32"
"""What is computed when nobody names an algorithm: the field's default."""

_LFN = "LFN:"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a file waits before it is tried again, seconds: doubling from the first to the
    longest.
    """

    first_s: float
    longest_s: float

    def delay_us(self, retries: int) -> int:
        """The wait before the retry after `retries` others, microseconds."""
        # 2^30 times anything is beyond every longest wait.
        seconds = min(self.first_s * 2.0 ** min(retries, 30), self.longest_s)
        return round(seconds * 1_000_000)


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a file whose attempt failed; `retry` says whether a retry is spent on it."""

    state: FileState
    retry: bool = False


def is_logical(name: str) -> bool:
    """Whether a name is a logical file name."""
    return name.startswith(_LFN)


def replaces(files: int, jobs: int) -> bool:
    """Whether an existing target is replaced.

    Parameters:
        files, jobs: the `OverwriteMode` of the file and of its job.
    """
    return (files or jobs) == OVERWRITE_ALWAYS


def names_to_resolve(file: FileRow) -> list[str]:
    """The logical names that a file's order depends on."""
    names = [file.source] if is_logical(file.source) else []
    return [*names, file.target_lfn] if file.target_lfn else names


def after_failure(
    state: FileState, failed: Failed, *, retries: int, max_retries: int, exhausted: ExhaustedAction
) -> Next:
    """The state that follows a failed attempt.

    Parameters:
        state: the file's, ACTIVE or CANCELING.
        retries: how many were spent before.
        exhausted: the channel's answer to spent retries (gLite: Failed or Hold).
    """
    if state is FileState.CANCELING or failed.failure_class is FailureClass.CANCELED:
        return Next(FileState.CANCELED)
    if not failed.recoverable:
        return Next(FileState.FAILED)
    if retries < max_retries:
        return Next(FileState.RETRYING, retry=True)
    return Next(FileState.HELD if exhausted is ExhaustedAction.HOLD else FileState.FAILED)


def plan(
    file: FileRow,
    job: JobRow,
    elements: StorageElements,
    known: Mapping[str, LogicalFile],
    computable: frozenset[str],
) -> MoveOrder | Failed:
    """The order for an attempt.

    Parameters:
        file: as claimed: `lease_epoch` is the attempt's.
        known: the catalogue's answers to `names_to_resolve`.
        computable: the checksums that the mover computes.

    Returns:
        The order, or why there cannot be one: class CATALOGUE when a name cannot be resolved or the
        target's is taken by other bytes, BACKEND_REFUSED when no element serves an end any more.
    """
    target = elements.locate(file.target_url, internal=True)
    if target is None:
        return _unserved(file.target)
    sources = _sources(file, elements, known)
    if isinstance(sources, Failed):
        return sources
    sources = [source for source in sources if source.url != target.location.url]
    if not sources:
        return Failed(
            FailureClass.BACKEND_REFUSED,
            f"source and target are the same file: {file.target}",
            "choose another target",
        )
    content = _content(file, known, computable)
    if isinstance(content, Failed):
        return content
    expected, size_bytes = content
    return MoveOrder(
        number=file.number,
        epoch=file.lease_epoch,
        sources=sources,
        target=_shown_as(file.target, target),
        overwrite=replaces(file.overwrite, job.overwrite),
        verify_source=job.verify in (VERIFY_BOTH, VERIFY_SOURCE),
        verify_target=job.verify in (VERIFY_BOTH, VERIFY_TARGET),
        size_bytes=size_bytes,
        expected={} if job.verify == VERIFY_NONE else expected,
        checksums=_computed(file, expected, known, computable),
        resumed=file.attempt > 0,
    )


def _sources(
    file: FileRow, elements: StorageElements, known: Mapping[str, LogicalFile]
) -> list[Location] | Failed:
    if not is_logical(file.source):
        located = elements.locate(file.source, internal=True)
        return _unserved(file.source) if located is None else [located.location]
    logical = known.get(file.source)
    if logical is None:
        return Failed(
            FailureClass.CATALOGUE,
            f"{file.source} is not registered in the catalogue",
            "check the name; put the file there, or register its replica",
        )
    found = [elements.locate(replica.url) for replica in logical.replicas]
    locations = [_shown_as(file.source, located) for located in found if located is not None]
    return locations or _unserved(file.source)


def _shown_as(name: str, located: Located) -> Location:
    """A place under the name that its submitter gave it; on an internal element it has another."""
    return located.location if located.internal else located.location._replace(shown=name)


def _content(
    file: FileRow, known: Mapping[str, LogicalFile], computable: frozenset[str]
) -> tuple[dict[str, str], int | None] | Failed:
    """The checksums and the size that the bytes must have."""
    expected = dict([_split(file.checksum)]) if file.checksum is not None else {}
    size_bytes = file.size_bytes
    named = [known.get(file.source)] if is_logical(file.source) else []
    target = known.get(file.target_lfn)
    if target is not None and any(r.url != file.target_url for r in target.replicas):
        # Every copy of a logical file has the same bytes: those of the copies elsewhere.
        named.append(target)
    for logical in named:
        if logical is None:
            continue
        algorithm, value = _split(logical.checksum)
        if expected.setdefault(algorithm, value) != value and logical is target:
            return Failed(
                FailureClass.CATALOGUE,
                f"{target.lfn} is registered with {target.checksum}, and has copies elsewhere",
                "choose another logical name",
            )
        size_bytes = logical.size_bytes if size_bytes is None else size_bytes
    return {name: value for name, value in expected.items() if name in computable}, size_bytes


def _computed(
    file: FileRow,
    expected: Mapping[str, str],
    known: Mapping[str, LogicalFile],
    computable: frozenset[str],
) -> Sequence[str]:
    """The algorithms to compute: those expected, and the one under which the target is
    registered.
    """
    names = list(expected)
    target = known.get(file.target_lfn)
    if target is not None:
        algorithm, _ = _split(target.checksum)
        if algorithm in computable and algorithm not in names:
            names.append(algorithm)
    return names or [DEFAULT_CHECKSUM]


def _split(checksum: str) -> tuple[str, str]:
    algorithm, _, value = checksum.partition(":")
    return algorithm, value


def _unserved(name: str) -> Failed:
    return Failed(
        FailureClass.BACKEND_REFUSED,
        f"no storage element serves {name} any more",
        "have the storage element configured again",
    )
