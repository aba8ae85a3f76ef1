"""The states of transfer jobs and their files in the words of gLite, FTS3 and DIRAC.

Responsible for the tables of both directions. Outward every state has a word, a number that this
version does not know included. Inward every word has a state: a word that no table has becomes
UNKNOWN, which is never final, and stands beside it as it was said. Not for what a job's state
follows from, nor for transitions (the transfer service).

Sources: the documentation of gLite's File Transfer and Placement Service (first letter big), FTS3's
REST interface (capitals), `FTS3Job`, `FTS3File` and `FTS3Operation` of DIRAC 9.1. gLite's Done is
FTS3's FINISHED; gLite's Finished is the end of a placement job, with every replica registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from gridlane.transfer.v1.transfer_job_pb2 import FileTransferState, TransferJobState

JobState: TypeAlias = TransferJobState.ValueType
FileState: TypeAlias = FileTransferState.ValueType

GliteJobState: TypeAlias = Literal[
    "Submitted",
    "Pending",
    "Active",
    "Done",
    "Failed",
    "Hold",
    "Canceling",
    "Canceled",
    "Finished",
    "FinishedDirty",
]
GliteFileState: TypeAlias = Literal[
    "Submitted",
    "Pending",
    "Active",
    "Done",
    "Failed",
    "Waiting",
    "Hold",
    "Canceling",
    "Canceled",
    "CatalogFailed",
    "Finished",
]
Fts3JobState: TypeAlias = Literal[
    "SUBMITTED",
    "READY",
    "STAGING",
    "ACTIVE",
    "ARCHIVING",
    "FINISHED",
    "FINISHEDDIRTY",
    "FAILED",
    "CANCELED",
]
Fts3FileState: TypeAlias = Literal[
    "SUBMITTED",
    "READY",
    "NOT_USED",
    "TOKEN_PREP",
    "STAGING",
    "STARTED",
    "ON_HOLD",
    "ACTIVE",
    "ARCHIVING",
    "FINISHED",
    "FAILED",
    "CANCELED",
]
DiracFileStatus: TypeAlias = Literal[
    "New",
    "Submitted",
    "Ready",
    "Active",
    "Staging",
    "Archiving",
    "Started",
    "Not_used",
    "Token_prep",
    "Canceled",
    "Failed",
    "Finished",
    "Defunct",
]
DiracJobStatus: TypeAlias = Literal[
    "Submitted",
    "Ready",
    "Active",
    "Staging",
    "Archiving",
    "Canceled",
    "Failed",
    "Finished",
    "Finisheddirty",
]
DiracOperationStatus: TypeAlias = Literal["Active", "Processed", "Finished", "Canceled", "Failed"]

_J, _F = TransferJobState, FileTransferState


class JobWords(NamedTuple):
    """What the systems say of a transfer job in one of Gridlane's states."""

    glite: GliteJobState
    fts3: Fts3JobState
    dirac: DiracJobStatus
    operation: DiracOperationStatus


class FileWords(NamedTuple):
    """What the systems say of a file in one of Gridlane's states."""

    glite: GliteFileState
    fts3: Fts3FileState
    dirac: DiracFileStatus


class JobReading(NamedTuple):
    """A foreign word about a transfer job, read."""

    state: JobState
    #: As it was said.
    word: str


class FileReading(NamedTuple):
    """A foreign word about a file, read."""

    state: FileState
    #: As it was said.
    word: str


# --- outward --------------------------------------------------------------------------------------

# What is UNKNOWN here has not ended: the words for that are those of something that moves.
JOB_WORDS: Final[Mapping[JobState, JobWords]] = MappingProxyType(
    {
        _J.TRANSFER_JOB_STATE_SUBMITTED: JobWords("Submitted", "SUBMITTED", "Submitted", "Active"),
        _J.TRANSFER_JOB_STATE_READY: JobWords("Pending", "READY", "Ready", "Active"),
        _J.TRANSFER_JOB_STATE_STAGING: JobWords("Pending", "STAGING", "Staging", "Active"),
        _J.TRANSFER_JOB_STATE_ACTIVE: JobWords("Active", "ACTIVE", "Active", "Active"),
        _J.TRANSFER_JOB_STATE_ARCHIVING: JobWords("Active", "ARCHIVING", "Archiving", "Active"),
        _J.TRANSFER_JOB_STATE_REGISTERING: JobWords("Done", "ACTIVE", "Active", "Processed"),
        _J.TRANSFER_JOB_STATE_HELD: JobWords("Hold", "ACTIVE", "Active", "Active"),
        _J.TRANSFER_JOB_STATE_CANCELING: JobWords("Canceling", "ACTIVE", "Active", "Active"),
        _J.TRANSFER_JOB_STATE_FINISHED: JobWords("Done", "FINISHED", "Finished", "Finished"),
        _J.TRANSFER_JOB_STATE_REGISTRATION_FAILED: JobWords(
            "FinishedDirty", "FINISHED", "Finished", "Failed"
        ),
        _J.TRANSFER_JOB_STATE_PARTIALLY_FINISHED: JobWords(
            "Failed", "FINISHEDDIRTY", "Finisheddirty", "Finished"
        ),
        _J.TRANSFER_JOB_STATE_FAILED: JobWords("Failed", "FAILED", "Failed", "Failed"),
        _J.TRANSFER_JOB_STATE_CANCELED: JobWords("Canceled", "CANCELED", "Canceled", "Canceled"),
        _J.TRANSFER_JOB_STATE_UNKNOWN: JobWords("Active", "ACTIVE", "Active", "Active"),
    }
)
"""The words of every state of a transfer job; `operation` is the state of DIRAC's FTS3Operation
that a job of its own stands for."""

GLITE_PLACEMENT_JOB: Final[Mapping[JobState, GliteJobState]] = MappingProxyType(
    {_J.TRANSFER_JOB_STATE_FINISHED: "Finished"}
)
"""Where gLite says another word of a placement job."""

FILE_WORDS: Final[Mapping[FileState, FileWords]] = MappingProxyType(
    {
        _F.FILE_TRANSFER_STATE_SUBMITTED: FileWords("Submitted", "SUBMITTED", "Submitted"),
        _F.FILE_TRANSFER_STATE_READY: FileWords("Pending", "READY", "Ready"),
        _F.FILE_TRANSFER_STATE_NOT_USED: FileWords("Pending", "NOT_USED", "Not_used"),
        _F.FILE_TRANSFER_STATE_TOKEN_PREPARING: FileWords("Pending", "TOKEN_PREP", "Token_prep"),
        _F.FILE_TRANSFER_STATE_STAGING: FileWords("Pending", "STAGING", "Staging"),
        _F.FILE_TRANSFER_STATE_STAGING_STARTED: FileWords("Pending", "STARTED", "Started"),
        # DIRAC has no word for ON_HOLD; the file is accepted and waits.
        _F.FILE_TRANSFER_STATE_BLOCKED: FileWords("Waiting", "ON_HOLD", "Submitted"),
        _F.FILE_TRANSFER_STATE_ACTIVE: FileWords("Active", "ACTIVE", "Active"),
        _F.FILE_TRANSFER_STATE_RETRYING: FileWords("Waiting", "SUBMITTED", "Submitted"),
        _F.FILE_TRANSFER_STATE_ARCHIVING: FileWords("Active", "ARCHIVING", "Archiving"),
        _F.FILE_TRANSFER_STATE_REGISTERING: FileWords("Done", "FINISHED", "Finished"),
        _F.FILE_TRANSFER_STATE_HELD: FileWords("Hold", "FAILED", "Failed"),
        _F.FILE_TRANSFER_STATE_CANCELING: FileWords("Canceling", "ACTIVE", "Active"),
        _F.FILE_TRANSFER_STATE_FINISHED: FileWords("Done", "FINISHED", "Finished"),
        _F.FILE_TRANSFER_STATE_CATALOG_FAILED: FileWords("CatalogFailed", "FAILED", "Failed"),
        _F.FILE_TRANSFER_STATE_FAILED: FileWords("Failed", "FAILED", "Failed"),
        _F.FILE_TRANSFER_STATE_CANCELED: FileWords("Canceled", "CANCELED", "Canceled"),
        _F.FILE_TRANSFER_STATE_UNKNOWN: FileWords("Active", "ACTIVE", "Active"),
    }
)
"""The words of every state of a file that has not been moved."""

GLITE_PLACEMENT_FILE: Final[Mapping[FileState, GliteFileState]] = MappingProxyType(
    {_F.FILE_TRANSFER_STATE_FINISHED: "Finished"}
)
"""Where gLite says another word of a file of a placement job."""

FTS3_MOVED_FILE: Final[Mapping[FileState, Fts3FileState]] = MappingProxyType(
    {_F.FILE_TRANSFER_STATE_CATALOG_FAILED: "FINISHED"}
)
"""Where FTS3 says another word of a file whose bytes are at the target."""

DIRAC_MOVED_FILE: Final[Mapping[FileState, DiracFileStatus]] = MappingProxyType(
    {_F.FILE_TRANSFER_STATE_CATALOG_FAILED: "Finished"}
)
"""Where DIRAC says another word of a file whose bytes are at the target."""

DIRAC_FILE_GIVEN_UP: Final[Mapping[DiracFileStatus, DiracFileStatus]] = MappingProxyType(
    {"Failed": "Defunct"}
)
"""Where DIRAC says another word of a file that trying again cannot help."""


def glite_job_state(state: JobState, *, placement: bool) -> GliteJobState:
    """A transfer job's state as gLite says it.

    Parameters:
        placement: whether the job also registers replicas.
    """
    word = _job_words(state).glite
    return GLITE_PLACEMENT_JOB.get(state, word) if placement else word


def fts3_job_state(state: JobState) -> Fts3JobState:
    """A transfer job's state as FTS3 says it, of a plain job and of placement alike."""
    return _job_words(state).fts3


def dirac_job_status(state: JobState) -> DiracJobStatus:
    """A transfer job's state as the status of DIRAC's FTS3Job: FTS3's word, capitalised."""
    return _job_words(state).dirac


def dirac_operation_status(state: JobState) -> DiracOperationStatus:
    """A transfer job's state as the status of the DIRAC FTS3Operation that it carries out.

    Processed: the bytes are there and the catalogue is owed (DIRAC: its callback). Finished says
    nothing of single files: DIRAC finishes an operation when no file can change any more.
    """
    return _job_words(state).operation


def glite_file_state(state: FileState, *, placement: bool) -> GliteFileState:
    """A file's state as gLite says it.

    Parameters:
        placement: whether its job also registers replicas.
    """
    word = _file_words(state).glite
    return GLITE_PLACEMENT_FILE.get(state, word) if placement else word


def fts3_file_state(state: FileState, *, moved: bool) -> Fts3FileState:
    """A file's state as FTS3 says it.

    Parameters:
        moved: whether its bytes are at the target; a file in CATALOG_FAILED may or may not have
            been moved.
    """
    word = _file_words(state).fts3
    return FTS3_MOVED_FILE.get(state, word) if moved else word


def dirac_file_status(state: FileState, *, moved: bool, recoverable: bool) -> DiracFileStatus:
    """A file's state as the status of DIRAC's FTS3File.

    Parameters:
        moved: whether its bytes are at the target.
        recoverable: whether trying again can help (`Failure.recoverable`); DIRAC hands a Failed
            file in again, a Defunct one never.
    """
    word = _file_words(state).dirac
    if moved:
        word = DIRAC_MOVED_FILE.get(state, word)
    return word if recoverable else DIRAC_FILE_GIVEN_UP.get(word, word)


def _job_words(state: JobState) -> JobWords:
    return JOB_WORDS.get(state, JOB_WORDS[_J.TRANSFER_JOB_STATE_UNKNOWN])


def _file_words(state: FileState) -> FileWords:
    return FILE_WORDS.get(state, FILE_WORDS[_F.FILE_TRANSFER_STATE_UNKNOWN])


# --- inward ---------------------------------------------------------------------------------------

JOB_OF_GLITE: Final[Mapping[str, JobState]] = MappingProxyType(
    {
        "Submitted": _J.TRANSFER_JOB_STATE_SUBMITTED,
        "Pending": _J.TRANSFER_JOB_STATE_READY,
        "Active": _J.TRANSFER_JOB_STATE_ACTIVE,
        "Done": _J.TRANSFER_JOB_STATE_FINISHED,
        "Failed": _J.TRANSFER_JOB_STATE_FAILED,
        "Hold": _J.TRANSFER_JOB_STATE_HELD,
        "Canceling": _J.TRANSFER_JOB_STATE_CANCELING,
        "Canceled": _J.TRANSFER_JOB_STATE_CANCELED,
        "Finished": _J.TRANSFER_JOB_STATE_FINISHED,
        "FinishedDirty": _J.TRANSFER_JOB_STATE_REGISTRATION_FAILED,
    }
)
"""gLite's words about a job; what Done means of a placement job is below."""

PLACEMENT_JOB_OF_GLITE: Final[Mapping[str, JobState]] = MappingProxyType(
    {"Done": _J.TRANSFER_JOB_STATE_REGISTERING}
)
"""gLite's words that mean another state of a placement job."""

JOB_OF_FTS3: Final[Mapping[str, JobState]] = MappingProxyType(
    {
        "SUBMITTED": _J.TRANSFER_JOB_STATE_SUBMITTED,
        "READY": _J.TRANSFER_JOB_STATE_READY,
        "STAGING": _J.TRANSFER_JOB_STATE_STAGING,
        "ACTIVE": _J.TRANSFER_JOB_STATE_ACTIVE,
        "ARCHIVING": _J.TRANSFER_JOB_STATE_ARCHIVING,
        "FINISHED": _J.TRANSFER_JOB_STATE_FINISHED,
        "FINISHEDDIRTY": _J.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        "FAILED": _J.TRANSFER_JOB_STATE_FAILED,
        "CANCELED": _J.TRANSFER_JOB_STATE_CANCELED,
    }
)
"""FTS3's words about a job. DELETE, QOS_TRANSITION and QOS_REQUEST_SUBMITTED are UNKNOWN."""

JOB_OF_DIRAC: Final[Mapping[str, JobState]] = MappingProxyType(
    {word.capitalize(): state for word, state in JOB_OF_FTS3.items()}
)
"""The statuses of DIRAC's FTS3Job: it capitalises what FTS3 says."""

JOB_OF_DIRAC_OPERATION: Final[Mapping[str, JobState]] = MappingProxyType(
    {
        "Active": _J.TRANSFER_JOB_STATE_ACTIVE,
        "Processed": _J.TRANSFER_JOB_STATE_REGISTERING,
        "Finished": _J.TRANSFER_JOB_STATE_FINISHED,
        "Canceled": _J.TRANSFER_JOB_STATE_CANCELED,
        "Failed": _J.TRANSFER_JOB_STATE_FAILED,
    }
)
"""The statuses of DIRAC's FTS3Operation."""

FILE_OF_GLITE: Final[Mapping[str, FileState]] = MappingProxyType(
    {
        "Submitted": _F.FILE_TRANSFER_STATE_SUBMITTED,
        "Pending": _F.FILE_TRANSFER_STATE_READY,
        "Active": _F.FILE_TRANSFER_STATE_ACTIVE,
        "Done": _F.FILE_TRANSFER_STATE_FINISHED,
        "Failed": _F.FILE_TRANSFER_STATE_FAILED,
        "Waiting": _F.FILE_TRANSFER_STATE_RETRYING,
        "Hold": _F.FILE_TRANSFER_STATE_HELD,
        "Canceling": _F.FILE_TRANSFER_STATE_CANCELING,
        "Canceled": _F.FILE_TRANSFER_STATE_CANCELED,
        "CatalogFailed": _F.FILE_TRANSFER_STATE_CATALOG_FAILED,
        "Finished": _F.FILE_TRANSFER_STATE_FINISHED,
    }
)
"""gLite's words about a file; what Done means of a file of a placement job is below."""

PLACEMENT_FILE_OF_GLITE: Final[Mapping[str, FileState]] = MappingProxyType(
    {"Done": _F.FILE_TRANSFER_STATE_REGISTERING}
)
"""gLite's words that mean another state of a file of a placement job."""

FILE_OF_FTS3: Final[Mapping[str, FileState]] = MappingProxyType(
    {
        "SUBMITTED": _F.FILE_TRANSFER_STATE_SUBMITTED,
        "FORCE_START": _F.FILE_TRANSFER_STATE_SUBMITTED,
        "READY": _F.FILE_TRANSFER_STATE_READY,
        "NOT_USED": _F.FILE_TRANSFER_STATE_NOT_USED,
        "TOKEN_PREP": _F.FILE_TRANSFER_STATE_TOKEN_PREPARING,
        "STAGING": _F.FILE_TRANSFER_STATE_STAGING,
        "STARTED": _F.FILE_TRANSFER_STATE_STAGING_STARTED,
        "ON_HOLD": _F.FILE_TRANSFER_STATE_BLOCKED,
        "ON_HOLD_STAGING": _F.FILE_TRANSFER_STATE_BLOCKED,
        "ACTIVE": _F.FILE_TRANSFER_STATE_ACTIVE,
        "ARCHIVING": _F.FILE_TRANSFER_STATE_ARCHIVING,
        "FINISHED": _F.FILE_TRANSFER_STATE_FINISHED,
        "FAILED": _F.FILE_TRANSFER_STATE_FAILED,
        "CANCELED": _F.FILE_TRANSFER_STATE_CANCELED,
    }
)
"""FTS3's words about a file."""

FILE_OF_DIRAC: Final[Mapping[str, FileState]] = MappingProxyType(
    {
        "New": _F.FILE_TRANSFER_STATE_SUBMITTED,
        "Submitted": _F.FILE_TRANSFER_STATE_SUBMITTED,
        "Ready": _F.FILE_TRANSFER_STATE_READY,
        "Active": _F.FILE_TRANSFER_STATE_ACTIVE,
        "Staging": _F.FILE_TRANSFER_STATE_STAGING,
        "Archiving": _F.FILE_TRANSFER_STATE_ARCHIVING,
        "Started": _F.FILE_TRANSFER_STATE_STAGING_STARTED,
        "Not_used": _F.FILE_TRANSFER_STATE_NOT_USED,
        "Token_prep": _F.FILE_TRANSFER_STATE_TOKEN_PREPARING,
        "Canceled": _F.FILE_TRANSFER_STATE_CANCELED,
        "Failed": _F.FILE_TRANSFER_STATE_FAILED,
        "Finished": _F.FILE_TRANSFER_STATE_FINISHED,
        "Defunct": _F.FILE_TRANSFER_STATE_FAILED,
    }
)
"""The statuses of DIRAC's FTS3File."""


def job_from_glite(word: str, *, placement: bool) -> JobReading:
    """Read gLite's word about a job.

    Parameters:
        placement: whether the job also registers replicas: then Done is REGISTERING.
    """
    return _read_job(
        word, {**JOB_OF_GLITE, **PLACEMENT_JOB_OF_GLITE} if placement else JOB_OF_GLITE
    )


def job_from_fts3(word: str) -> JobReading:
    """Read FTS3's word about a job."""
    return _read_job(word, JOB_OF_FTS3)


def job_from_dirac(word: str) -> JobReading:
    """Read the status of DIRAC's FTS3Job."""
    return _read_job(word, JOB_OF_DIRAC)


def job_from_dirac_operation(word: str) -> JobReading:
    """Read the status of DIRAC's FTS3Operation."""
    return _read_job(word, JOB_OF_DIRAC_OPERATION)


def file_from_glite(word: str, *, placement: bool) -> FileReading:
    """Read gLite's word about a file.

    Parameters:
        placement: whether its job also registers replicas: then Done is REGISTERING.
    """
    table = {**FILE_OF_GLITE, **PLACEMENT_FILE_OF_GLITE} if placement else FILE_OF_GLITE
    return _read_file(word, table)


def file_from_fts3(word: str) -> FileReading:
    """Read FTS3's word about a file."""
    return _read_file(word, FILE_OF_FTS3)


def file_from_dirac(word: str) -> FileReading:
    """Read the status of DIRAC's FTS3File."""
    return _read_file(word, FILE_OF_DIRAC)


def _read_job(word: str, table: Mapping[str, JobState]) -> JobReading:
    return JobReading(table.get(word, _J.TRANSFER_JOB_STATE_UNKNOWN), word)


def _read_file(word: str, table: Mapping[str, FileState]) -> FileReading:
    return FileReading(table.get(word, _F.FILE_TRANSFER_STATE_UNKNOWN), word)
