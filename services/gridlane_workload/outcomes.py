"""What a payload's end, or a transfer's, means for its job.

Responsible for failure classes, words and cures; pure. When it is asked is decided in `steps`.
"""

import signal
from collections.abc import Sequence
from typing import Final

from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobDescription, ResourceUse
from gridlane_kit.clock import to_duration
from gridlane_kit.errors import GridlaneError
from gridlane_workload import jobs, states
from gridlane_workload.backends.interface import End, EndKind, OutputFile
from gridlane_workload.jobs import Change
from gridlane_workload.states import Minor
from gridlane_workload.transfers import Moved

_READ_LOG: Final = "read its standard error: gridlane logs --stderr JOB"


def resource_use(end: End, description: JobDescription) -> ResourceUse:
    """What a payload used, without what was moved for it."""
    return ResourceUse(
        cpu_time=to_duration(end.cpu_us),
        wall_time=to_duration(end.wall_us),
        peak_memory_bytes=end.peak_memory_bytes,
        processors=description.resources.cpu_cores or 1,
        disk_bytes=end.disk_bytes,
        input_sandbox_bytes=sum(len(item.content) for item in description.inputs),
    )


def use_of(end: End, description: JobDescription) -> Job:
    """The fields of a status that a payload's end sets."""
    used = Job(resource_use=resource_use(end, description))
    if end.exit_code is not None:
        used.exit_code = end.exit_code
    elif end.signal is not None:
        used.exit_code = 128 + end.signal  # as shells say it
    return used


def payload_failed(end: End, description: JobDescription, source: str) -> Change | None:
    """What a payload's end means for its job when it is a bad one; None for a good one."""
    if end.kind is EndKind.EXITED and end.exit_code == 0:
        return None
    failure_class, minor, message, cure = _classified(end, description)
    return jobs.failed(
        failure_class, minor, message, cure, source=source, sets=use_of(end, description)
    )


def _classified(
    end: End, description: JobDescription
) -> tuple[FailureClass.ValueType, str, str, str]:
    command = description.executors[end.executor].command[0]
    match end.kind:
        case EndKind.EXITED:
            return (
                FailureClass.FAILURE_CLASS_PAYLOAD_EXIT,
                Minor.FINISHED_BADLY,
                f"{command} ended with exit code {end.exit_code}",
                _READ_LOG,
            )
        case EndKind.SIGNALED if end.signal == signal.SIGXFSZ:
            return (
                FailureClass.FAILURE_CLASS_RESOURCE_LIMIT,
                Minor.FINISHED_BADLY,
                f"{command} wrote a file larger than {description.resources.disk_bytes} bytes",
                "raise resources.disk_bytes",
            )
        case EndKind.SIGNALED:
            return (
                FailureClass.FAILURE_CLASS_PAYLOAD_SIGNAL,
                Minor.FINISHED_BADLY,
                f"{command} was {end.message}",
                _READ_LOG,
            )
        case EndKind.NOT_FOUND:
            return (
                FailureClass.FAILURE_CLASS_COMMAND_NOT_FOUND,
                Minor.NOT_FOUND,
                f"cannot be executed: {end.message}",
                "give the program's path, or bring it as an input and name its interpreter",
            )
        case EndKind.WALLTIME:
            return (
                FailureClass.FAILURE_CLASS_WALLTIME_EXCEEDED,
                Minor.WALLTIME,
                f"{command} outlived the wall time of {_walltime(description)} and was ended",
                "raise resources.walltime",
            )
        case EndKind.OUTPUT_LIMIT:
            return (
                FailureClass.FAILURE_CLASS_RESOURCE_LIMIT,
                Minor.FINISHED_BADLY,
                f"{command} wrote more to standard output or error than the server keeps",
                "write to a file in the working directory, and name it as an output",
            )
        case EndKind.KILLED | EndKind.BROKEN:
            return (
                FailureClass.FAILURE_CLASS_BACKEND_LOST,
                Minor.EXCEPTION,
                f"{command} could not be run to its end: {end.message}",
                "",
            )


def missing_outputs(
    description: JobDescription, found: Sequence[OutputFile], source: str
) -> Change | None:
    """FAILED when a promised output is not there; None when all are."""
    there = {item.path for item in found if item.size_bytes is not None}
    missing = [
        item.path for item in description.outputs if not item.optional and item.path not in there
    ]
    if not missing:
        return None
    return jobs.failed(
        FailureClass.FAILURE_CLASS_OUTPUT_MISSING,
        Minor.DELIVERING,
        f"the payload left no regular file {', '.join(missing)} in its working directory",
        "let the payload write it there, or declare the output optional",
        source=source,
    )


def lost(source: str) -> Change:
    """FAILED because the payload vanished without a word."""
    return jobs.failed(
        FailureClass.FAILURE_CLASS_BACKEND_LOST,
        Minor.STALLED,
        "the payload's processes are gone and left no word of their end: the machine was restarted,"
        " or they were killed from outside",
        "submit the job again",
        source=source,
    )


def not_brought(transfer: str, how: Moved) -> Change:
    """FAILED because an input could not be brought, or KILLED since it may not be."""
    if _lacks_permission(how):
        return jobs.killed(how.failure.message, "transfer", failure=how.failure)
    return jobs.failed(
        FailureClass.FAILURE_CLASS_STAGE_IN,
        Minor.NOT_BROUGHT,
        f"an input could not be brought: {_reason(transfer, how)}",
        how.failure.cure,
        recoverable=how.failure.recoverable,
    )


def not_delivered(transfer: str, how: Moved) -> Change:
    """FAILED because an output could not be moved, or KILLED since it may not be."""
    if _lacks_permission(how):
        return jobs.killed(how.failure.message, "transfer", failure=how.failure)
    return jobs.failed(
        FailureClass.FAILURE_CLASS_STAGE_OUT,
        Minor.DELIVERING,
        f"an output could not be moved: {_reason(transfer, how)}",
        how.failure.cure,
        recoverable=how.failure.recoverable,
    )


def refused(status: Job, error: GridlaneError) -> Change:
    """FAILED because a peer refused a step for good."""
    if error.code.name in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        failure_class = FailureClass.FAILURE_CLASS_PERMISSION
        cure = "ask an administrator for the right, then submit the job again"
    else:
        failure_class = {
            states.STAGING: FailureClass.FAILURE_CLASS_STAGE_IN,
            states.COMPLETING: FailureClass.FAILURE_CLASS_STAGE_OUT,
        }.get(status.state, FailureClass.FAILURE_CLASS_BACKEND_REFUSED)
        cure = ""
    minor = Minor.NOT_BROUGHT if status.state == states.STAGING else status.minor_status
    return jobs.failed(failure_class, minor, error.message, cure)


def _lacks_permission(how: Moved) -> bool:
    return how.failure.failure_class == FailureClass.FAILURE_CLASS_PERMISSION


def _reason(transfer: str, how: Moved) -> str:
    return how.failure.message or f"{transfer} was cancelled"


def _walltime(description: JobDescription) -> str:
    if description.resources.HasField("walltime"):
        return f"{description.resources.walltime.ToTimedelta().total_seconds():g} s"
    return "the server's default"
