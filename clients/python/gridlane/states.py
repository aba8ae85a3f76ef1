"""Which states are final, and states as words.

Responsible for what a program must know to stop waiting. The transitions are the services'
business.
"""

from __future__ import annotations

from gridlane.transfer.v1.transfer_job_pb2 import (
    FileTransferState,
    TransferJobState,
)
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import JobPhase, JobState

#: A job in one of these changes no more by itself.
FINAL_JOB_STATES = frozenset(
    {
        JobState.JOB_STATE_DONE,
        JobState.JOB_STATE_FAILED,
        JobState.JOB_STATE_KILLED,
        JobState.JOB_STATE_DELETED,
    }
)
#: A transfer job in one of these changes no more.
FINAL_TRANSFER_STATES = frozenset(
    {
        TransferJobState.TRANSFER_JOB_STATE_FINISHED,
        TransferJobState.TRANSFER_JOB_STATE_REGISTRATION_FAILED,
        TransferJobState.TRANSFER_JOB_STATE_PARTIALLY_FINISHED,
        TransferJobState.TRANSFER_JOB_STATE_FAILED,
        TransferJobState.TRANSFER_JOB_STATE_CANCELED,
    }
)


def job_state_word(state: int) -> str:
    """ "RUNNING"; a number that this client does not know stays a number."""
    return enum_word(JobState, state, "JOB_STATE_")


def job_phase_word(phase: int) -> str:
    """ "QUEUED"; empty when there is none."""
    return enum_word(JobPhase, phase, "JOB_PHASE_") if phase else ""


def transfer_state_word(state: int) -> str:
    """ "ACTIVE", of a transfer job."""
    return enum_word(TransferJobState, state, "TRANSFER_JOB_STATE_")


def file_state_word(state: int) -> str:
    """ "ACTIVE", of a file transfer."""
    return enum_word(FileTransferState, state, "FILE_TRANSFER_STATE_")


def failure_word(failure_class: int) -> str:
    """ "PAYLOAD_EXIT", of a failure's class."""
    return enum_word(FailureClass, failure_class, "FAILURE_CLASS_")


def enum_word(enum: object, number: int, prefix: str) -> str:
    """A value of one of the contracts' enums without its prefix; a number that this client does not
    know stays a number.
    """
    name = enum.DESCRIPTOR.values_by_number.get(number)  # type: ignore[attr-defined]
    return name.name.removeprefix(prefix) if name is not None else str(number)


def enum_words(enum: object, prefix: str) -> list[str]:
    """The values of one of the contracts' enums without their prefix, but for UNSPECIFIED."""
    values = enum.DESCRIPTOR.values  # type: ignore[attr-defined]
    return [value.name.removeprefix(prefix) for value in values if value.number]
