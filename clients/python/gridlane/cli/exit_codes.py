"""The exit codes of the command `gridlane`, and which failure has which.

Responsible for the one table; docs/reference/exit-codes.md is written from it. The numbers follow
BSD's sysexits(3), with coreutils' 124 (timeout) and the shell's 127 and 128+n beside them.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridlane.transfer.v1.transfer_job_pb2 import TransferJob
    from gridlane.workload.v1.job_pb2 import Job


class ExitCode(IntEnum):
    """Exit codes that are the command's own; `gridlane run` otherwise ends with the payload's."""

    OK = 0
    USAGE = 64
    BAD_INPUT = 65
    UNAVAILABLE = 69
    INTERNAL = 70
    CANNOT_CREATE = 73
    INPUT_OUTPUT = 74
    TRY_AGAIN = 75
    DENIED = 77
    CONFIGURATION = 78
    WALLTIME = 124
    COMMAND_NOT_FOUND = 127
    CANCELLED = 130
    RESOURCE_LIMIT = 137


class CannotCreateError(OSError):
    """A local file cannot be made; the message names it."""


_BY_STATUS: Mapping[str, ExitCode] = {
    "INVALID_ARGUMENT": ExitCode.BAD_INPUT,
    "NOT_FOUND": ExitCode.BAD_INPUT,
    "ALREADY_EXISTS": ExitCode.BAD_INPUT,
    "FAILED_PRECONDITION": ExitCode.BAD_INPUT,
    "OUT_OF_RANGE": ExitCode.BAD_INPUT,
    "DATA_LOSS": ExitCode.BAD_INPUT,
    "UNAVAILABLE": ExitCode.UNAVAILABLE,
    "UNIMPLEMENTED": ExitCode.UNAVAILABLE,
    "INTERNAL": ExitCode.INTERNAL,
    "UNKNOWN": ExitCode.INTERNAL,
    "RESOURCE_EXHAUSTED": ExitCode.TRY_AGAIN,
    "DEADLINE_EXCEEDED": ExitCode.TRY_AGAIN,
    "ABORTED": ExitCode.TRY_AGAIN,
    "PERMISSION_DENIED": ExitCode.DENIED,
    "UNAUTHENTICATED": ExitCode.DENIED,
    "CANCELLED": ExitCode.CANCELLED,
}

_BY_FAILURE: Mapping[str, ExitCode] = {
    "COMMAND_NOT_FOUND": ExitCode.COMMAND_NOT_FOUND,
    "WALLTIME_EXCEEDED": ExitCode.WALLTIME,
    "STAGE_IN": ExitCode.BAD_INPUT,
    "SOURCE_MISSING": ExitCode.BAD_INPUT,
    "SOURCE_UNREADABLE": ExitCode.BAD_INPUT,
    "CHECKSUM_MISMATCH": ExitCode.BAD_INPUT,
    "CATALOGUE": ExitCode.BAD_INPUT,
    "NO_REPLICA": ExitCode.BAD_INPUT,
    "PARENT_FAILED": ExitCode.BAD_INPUT,
    "STAGE_OUT": ExitCode.CANNOT_CREATE,
    "OUTPUT_MISSING": ExitCode.CANNOT_CREATE,
    "TARGET_EXISTS": ExitCode.CANNOT_CREATE,
    "TARGET_UNWRITABLE": ExitCode.CANNOT_CREATE,
    "NO_SPACE": ExitCode.INPUT_OUTPUT,
    "PERMISSION": ExitCode.DENIED,
    "CREDENTIAL": ExitCode.DENIED,
    "BACKEND_LOST": ExitCode.UNAVAILABLE,
    "BACKEND_REFUSED": ExitCode.UNAVAILABLE,
    "STORAGE_BANNED": ExitCode.UNAVAILABLE,
    "CANCELED": ExitCode.CANCELLED,
    "TIMED_OUT": ExitCode.TRY_AGAIN,
    "RESOURCE_LIMIT": ExitCode.RESOURCE_LIMIT,
    "INTERNAL": ExitCode.INTERNAL,
}

# How a payload ends by itself, other than well.
_PAYLOAD_FAILURES = frozenset({"PAYLOAD_EXIT", "PAYLOAD_SIGNAL"})


def exit_code_of_status(status: str) -> ExitCode:
    """The exit code for a failed call, from its gRPC status ("NOT_FOUND")."""
    return _BY_STATUS.get(status, ExitCode.INTERNAL)


def exit_code_of_files(error: OSError) -> ExitCode:
    """The exit code for a local file that cannot be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExitCode.INPUT_OUTPUT
    if isinstance(error, CannotCreateError):
        return ExitCode.CANNOT_CREATE
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return ExitCode.BAD_INPUT
    return ExitCode.INPUT_OUTPUT


def exit_code_of_job(job: Job) -> tuple[int, str]:
    """The exit code for a job that has ended.

    Returns:
        The code, and whose it is: "payload" when the payload ended by itself, with 0 or not;
            "client" when
        something else went wrong, before, around or after it.
    """
    from gridlane.states import failure_word
    from gridlane.workload.v1.job_pb2 import JobState

    failure = failure_word(job.failure.failure_class) if job.HasField("failure") else ""
    if failure in _PAYLOAD_FAILURES:
        return job.exit_code or 1, "payload"  # a failure is never 0
    if failure:
        return _BY_FAILURE.get(failure, ExitCode.INTERNAL), "client"
    if job.state == JobState.JOB_STATE_DONE:
        return job.exit_code, "payload"
    if job.state == JobState.JOB_STATE_KILLED:
        return ExitCode.CANCELLED, "client"
    return ExitCode.INTERNAL, "client"


def exit_code_of_transfer(transfer: TransferJob) -> int:
    """The exit code for a transfer job that has ended: 0 when every file is there."""
    from gridlane.states import failure_word, transfer_state_word

    state = transfer_state_word(transfer.state)
    if state == "FINISHED":
        return ExitCode.OK
    if state == "CANCELED" or not transfer.HasField("failure"):
        return ExitCode.CANCELLED if state == "CANCELED" else ExitCode.INTERNAL
    return _BY_FAILURE.get(failure_word(transfer.failure.failure_class), ExitCode.INTERNAL)
