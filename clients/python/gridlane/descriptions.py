"""Jobs and transfer jobs described with Python's own values.

Responsible for building the messages that are submitted: commands as text or lists, times as
timedelta, checksums as text. The rules of what is acceptable are the server's; here only what
cannot be expressed is refused.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from gridlane.checksums import parse_checksum
from gridlane.transfer.v1.replica_service_pb2 import RegisterReplicaRequest
from gridlane.transfer.v1.transfer_job_pb2 import FileTransfer, OverwriteMode, TransferJob
from gridlane.workload.v1.job_pb2 import (
    Executor,
    Job,
    JobDescription,
    JobInput,
    JobOutput,
    Resources,
)

Command = str | Sequence["str | os.PathLike[str]"]


def new_job(
    command: Command,
    *,
    inputs: Mapping[str, str] | Iterable[JobInput] = (),
    outputs: Mapping[str, str] | Iterable[JobOutput] = (),
    name: str = "",
    environment: Mapping[str, str] | None = None,
    walltime: timedelta | float | None = None,
    memory_bytes: int = 0,
    disk_bytes: int = 0,
    cpu_cores: int = 0,
    vo: str = "",
    tags: Mapping[str, str] | None = None,
    priority: int | None = None,
    job_type: str = "",
    job_group: str = "",
) -> Job:
    """Describe a job of one command.

    Parameters:
        command: the program and its arguments; a text is split as a shell would ("a 'b c'"), no
            shell runs it.
        inputs: files brought before it starts: {path in the working directory: URL or LFN}, or
            messages made by `new_input` when checksums are to be given.
        outputs: files moved out after it ended well: {path in the working directory: URL or LFN},
            or messages.
        name: a name for people, at most 255 characters.
        environment: variables beside those that Gridlane sets.
        walltime: how long it may run, seconds or a timedelta, at most 30 days; None means 24 h.
        memory_bytes: a limit on the address space of each process; 0 means none.
        disk_bytes: the largest file it may write; 0 means no limit.
        cpu_cores: processors; 0 means 1.
        vo: the virtual organisation; may be empty when the caller has one alone.
        tags: free pairs, at most 32.
        priority: from 0 (last) to 10 (first); None means 1.
        job_type, job_group: what accounting groups by, at most 32 characters.

    Returns:
        A message for `client.tasks.submit` or `client.jobs.submit`; more can be set in it.

    Raises:
        ValueError: the command is empty or its quotes do not match, or the wall time is not
            positive.
    """
    resources = Resources(cpu_cores=cpu_cores, memory_bytes=memory_bytes, disk_bytes=disk_bytes)
    if walltime is not None:
        resources.walltime.CopyFrom(_duration(walltime))
    description = JobDescription(
        display_name=name,
        inputs=_inputs(inputs),
        outputs=_outputs(outputs),
        executors=[Executor(command=split_command(command), environment=environment or {})],
        resources=resources,
        tags=tags or {},
        job_type=job_type,
        job_group=job_group,
    )
    if priority is not None:
        description.priority = priority
    return Job(vo=vo, description=description)


def new_input(path: str, source: str, checksum: str | None = None) -> JobInput:
    """A file that a job reads.

    Parameters:
        path: where the payload finds it, below the working directory.
        source: a URL or a logical file name ("LFN:/vo/path").
        checksum: what it must have, "ADLER32:0a1b2c3d"; None for the catalogue's.

    Raises:
        ValueError: the checksum is not one.
    """
    message = JobInput(path=path, source=source)
    if checksum:
        message.checksum.CopyFrom(parse_checksum(checksum))
    return message


def new_transfer(
    files: Mapping[str, str] | Iterable[FileTransfer],
    *,
    vo: str = "",
    placement: bool = True,
    overwrite: bool = False,
    max_retries: int | None = None,
    priority: int = 0,
    tags: Mapping[str, str] | None = None,
) -> TransferJob:
    """Describe a transfer job.

    Parameters:
        files: {source: target}, URLs or logical file names, or messages made by `new_file`; 1 to
            100 000: those of more than 1000 are streamed.
        vo: the virtual organisation; may be empty when the caller has one alone.
        placement: register each target that is a logical file name in the catalogue.
        overwrite: replace what is at a target; otherwise such a file fails (TARGET_EXISTS).
        max_retries: how often a file is tried again, 0 to 256; None: as its channel says, 3 where
            nobody set it.
        priority: from 1 (last) to 5 (first); 0 means 3.
        tags: free pairs, at most 32.

    Returns:
        A message for `client.transfers.submit`; more can be set in it.
    """
    listed = (
        [FileTransfer(source=source, target=target) for source, target in files.items()]
        if isinstance(files, Mapping)
        else list(files)
    )
    mode = OverwriteMode.OVERWRITE_MODE_ALWAYS if overwrite else OverwriteMode.OVERWRITE_MODE_NEVER
    job = TransferJob(
        vo=vo,
        files=listed,
        placement=placement,
        overwrite=mode,
        priority=priority,
        tags=tags or {},
    )
    if max_retries is not None:
        job.max_retries = max_retries
    return job


def new_file(
    source: str, target: str, *, checksum: str | None = None, size_bytes: int | None = None
) -> FileTransfer:
    """A file of a transfer job, with what its bytes must be.

    Parameters:
        source, target: URLs or logical file names.
        checksum: "ADLER32:0a1b2c3d"; None for the catalogue's.
        size_bytes: the size it must have; None for the catalogue's.

    Raises:
        ValueError: the checksum is not one.
    """
    message = FileTransfer(source=source, target=target)
    if checksum:
        message.checksum.CopyFrom(parse_checksum(checksum))
    if size_bytes is not None:
        message.size_bytes = size_bytes
    return message


def new_replica(
    lfn: str, url: str, *, size_bytes: int, checksum: str, guid: str = ""
) -> RegisterReplicaRequest:
    """A copy of a logical file, to be registered.

    Parameters:
        lfn: the logical file name.
        url: where the copy lies.
        size_bytes: its size.
        checksum: "ADLER32:0a1b2c3d".
        guid: the GUID of a file that is new, a UUID; empty for none.

    Raises:
        ValueError: the checksum is not one.
    """
    return RegisterReplicaRequest(
        lfn=lfn, url=url, size_bytes=size_bytes, checksum=parse_checksum(checksum), guid=guid
    )


def split_command(command: Command) -> list[str]:
    """The program and its arguments, as a list.

    Raises:
        ValueError: there is no program, or a text's quotes do not match.
    """
    parts = shlex.split(command) if isinstance(command, str) else [os.fspath(p) for p in command]
    if not parts or not parts[0]:
        raise ValueError("the command is empty: expected a program and its arguments")
    return parts


def _inputs(inputs: Mapping[str, str] | Iterable[JobInput]) -> list[JobInput]:
    if isinstance(inputs, Mapping):
        return [JobInput(path=path, source=source) for path, source in inputs.items()]
    return list(inputs)


def _outputs(outputs: Mapping[str, str] | Iterable[JobOutput]) -> list[JobOutput]:
    if isinstance(outputs, Mapping):
        return [JobOutput(path=path, target=target) for path, target in outputs.items()]
    return list(outputs)


def _duration(value: timedelta | float) -> Duration:
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not seconds > 0:
        raise ValueError(f"walltime {value!r}: expected more than 0 seconds")
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration
