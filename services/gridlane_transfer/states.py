"""The state machines of transfer jobs and their files, as data.

Responsible for which file transitions exist and for the one pure function that says what a job's
state is: the states of its files are the truth, the job has none of its own. The words join gLite's
File Transfer Service and FTS3; outcomes are FTS3's rules over the files, cancellation and
registration gLite's.
"""

from collections.abc import Mapping
from enum import IntEnum


class FileState(IntEnum):
    """`gridlane.transfer.v1.FileTransferState`, by number."""

    SUBMITTED = 1
    READY = 2
    NOT_USED = 3
    TOKEN_PREPARING = 4
    STAGING = 5
    STAGING_STARTED = 6
    BLOCKED = 7
    ACTIVE = 8
    RETRYING = 9
    ARCHIVING = 10
    REGISTERING = 11
    HELD = 12
    CANCELING = 13
    FINISHED = 14
    CATALOG_FAILED = 15
    FAILED = 16
    CANCELED = 17
    UNKNOWN = 18


class JobState(IntEnum):
    """`gridlane.transfer.v1.TransferJobState`, by number."""

    SUBMITTED = 1
    READY = 2
    STAGING = 3
    ACTIVE = 4
    ARCHIVING = 5
    REGISTERING = 6
    HELD = 7
    CANCELING = 8
    FINISHED = 9
    REGISTRATION_FAILED = 10
    PARTIALLY_FINISHED = 11
    FAILED = 12
    CANCELED = 13
    UNKNOWN = 14


class JobKind(IntEnum):
    """`gridlane.transfer.v1.TransferJobKind`, by number."""

    TRANSFER = 1
    STAGING = 2
    DELETION = 3


_F = FileState

FILE_TRANSITIONS: Mapping[FileState, frozenset[FileState]] = {
    _F.SUBMITTED: frozenset({_F.READY, _F.HELD, _F.CANCELED}),
    _F.READY: frozenset(
        {_F.ACTIVE, _F.BLOCKED, _F.HELD, _F.FAILED, _F.CATALOG_FAILED, _F.CANCELED}
    ),
    _F.BLOCKED: frozenset({_F.READY, _F.HELD, _F.FAILED, _F.CANCELED}),
    _F.ACTIVE: frozenset(
        {
            _F.READY,  # the next hop
            _F.REGISTERING,
            _F.FINISHED,
            _F.RETRYING,
            _F.HELD,
            _F.FAILED,
            _F.CATALOG_FAILED,
            _F.CANCELING,
        }
    ),
    _F.RETRYING: frozenset(
        {_F.ACTIVE, _F.BLOCKED, _F.HELD, _F.FAILED, _F.CATALOG_FAILED, _F.CANCELED}
    ),
    _F.REGISTERING: frozenset({_F.FINISHED, _F.CATALOG_FAILED}),
    _F.HELD: frozenset({_F.READY, _F.FAILED, _F.CANCELED}),
    _F.CANCELING: frozenset({_F.REGISTERING, _F.FINISHED, _F.CANCELED}),
    _F.FINISHED: frozenset(),
    _F.CATALOG_FAILED: frozenset(),
    _F.FAILED: frozenset(),
    _F.CANCELED: frozenset(),
}
"""What a file can become. The states that are missing are those that this version's backend never
reports.
"""

FILE_FINAL = frozenset({_F.FINISHED, _F.CATALOG_FAILED, _F.FAILED, _F.CANCELED})
"""A file that is here never changes again."""

JOB_FINAL = frozenset(
    {
        JobState.FINISHED,
        JobState.REGISTRATION_FAILED,
        JobState.PARTIALLY_FINISHED,
        JobState.FAILED,
        JobState.CANCELED,
    }
)

DUE = frozenset({_F.READY, _F.RETRYING})
"""Files that wait to be started."""

RUNNING = frozenset({_F.ACTIVE, _F.CANCELING})
"""Files that a mover works on."""

WRITING = RUNNING | {_F.REGISTERING}
"""Files whose targets nobody else may write: their bytes are on the way there, or are there and not
registered yet.
"""

BLOCKED = frozenset({_F.BLOCKED})
"""Files that wait for the end of a ban."""

UNFINISHED = frozenset(FileState) - FILE_FINAL
"""Files that have not ended."""

UNSTARTED = frozenset({_F.SUBMITTED, _F.READY, _F.BLOCKED, _F.RETRYING, _F.HELD})
"""Files that a cancel ends at once."""

# A later hop or a spare replica neither starts nor ends anything.
_IGNORED = frozenset({_F.NOT_USED})
_STARTED = frozenset(
    {_F.ACTIVE, _F.RETRYING, _F.ARCHIVING, _F.REGISTERING, _F.CANCELING, _F.FINISHED}
)
_FROM_TAPE = frozenset({_F.STAGING, _F.STAGING_STARTED})

# What the unfinished files of a job say of it, when all of them are in the one set; the first that
# holds.
_STANDING: tuple[tuple[frozenset[FileState], JobState], ...] = (
    (frozenset({_F.HELD}), JobState.HELD),
    (frozenset({_F.HELD, _F.REGISTERING}), JobState.REGISTERING),
    (frozenset({_F.HELD, _F.REGISTERING, _F.ARCHIVING}), JobState.ARCHIVING),
)


def legal(before: FileState, after: FileState) -> bool:
    """Whether a file can go from one state to the other."""
    return after in FILE_TRANSITIONS.get(before, frozenset())


def job_state(
    counts: Mapping[FileState, int],
    *,
    moved_uncatalogued: int,
    cancel_asked: bool,
    started: bool = False,
) -> JobState:
    """The state of a job, which is a function of its files' states.

    Parameters:
        counts: how many files are in each state; at least one is in some.
        moved_uncatalogued: how many of those in CATALOG_FAILED have their bytes at the target:
            registration failed, not resolution.
        cancel_asked: whether somebody asked for the job's end.
        started: whether a file was ever started, whatever has become of it.
    """
    present = frozenset(state for state, count in counts.items() if count) - _IGNORED
    live = present - FILE_FINAL
    if live:
        return _standing(present, live, cancel_asked, started)
    return _outcome(counts, moved_uncatalogued, cancel_asked)


def _standing(
    present: frozenset[FileState], live: frozenset[FileState], cancel_asked: bool, started: bool
) -> JobState:
    if cancel_asked:
        return JobState.CANCELING
    for states, standing in _STANDING:
        if live <= states:
            return standing
    # Active means that a file has started, even when none moves just now.
    if started or present & _STARTED:
        return JobState.ACTIVE
    if present & _FROM_TAPE:
        return JobState.STAGING
    return JobState.READY if live == {_F.READY} else JobState.SUBMITTED


def _outcome(
    counts: Mapping[FileState, int], moved_uncatalogued: int, cancel_asked: bool
) -> JobState:
    canceled = counts.get(_F.CANCELED, 0)
    there = counts.get(_F.FINISHED, 0) + moved_uncatalogued
    failed = counts.get(_F.FAILED, 0) + counts.get(_F.CATALOG_FAILED, 0) - moved_uncatalogued
    if canceled and cancel_asked:
        return JobState.CANCELED
    if failed:
        return JobState.PARTIALLY_FINISHED if there else JobState.FAILED
    if canceled:
        return JobState.CANCELED
    return JobState.REGISTRATION_FAILED if moved_uncatalogued else JobState.FINISHED
