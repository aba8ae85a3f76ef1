"""The directory of one attempt of a job: what lies in it, and how it is written.

Responsible for names and for whole, durable writes. Used by the runner in the server's process and
by the shim in its own; so it imports the standard library alone.

    <jobs>/<job's uuid>/<attempt>/
        work/          the payload's working directory
        tmp/           its TMPDIR
        job.json       what the shim is to do, written by the runner
        token          the job's own token, 0600; gone when the shim has ended
        lock           held (flock) by the shim for its life
        claim          made once, by whoever decides the attempt: the shim that runs it, or a kill
            before that
        started.json   the shim's pid, the machine where that is its pid, and when the payload
            started
        kill           its presence asks the shim to end the payload
        exit.json      how the payload ended
        stdout.txt, stderr.txt    what it wrote
        shim.log       what the shim itself had to say
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

WORK: Final = "work"
TEMPORARY: Final = "tmp"
JOB: Final = "job.json"
TOKEN: Final = "token"  # noqa: S105 - a file's name
LOCK: Final = "lock"
CLAIM: Final = "claim"
STARTED: Final = "started.json"
KILL: Final = "kill"
EXIT: Final = "exit.json"
STDOUT: Final = "stdout.txt"
STDERR: Final = "stderr.txt"
SHIM_LOG: Final = "shim.log"


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole and durably or not at all; an older one is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as `write_whole` does."""
    write_whole(path, json.dumps(content).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an object; None when the file is not there."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no object")
    return content


def this_machine() -> str:
    """Where a pid of this process means the same: this boot of this machine, this pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def make_claim(directory: Path, by: str) -> bool:
    """Claim the attempt; whoever comes second gets False and must not run it.

    Parameters:
        by: who claims, for people who look into the directory.
    """
    # Linked when it is written: a claim is there with its claimant or not at all, also on a full
    # disk.
    temporary = directory / f".{CLAIM}.{os.getpid()}"
    write_whole(temporary, f"{by}\n".encode())
    try:
        (directory / CLAIM).hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(directory)
    return True


def open_lock(directory: Path) -> int:
    """Open the lock's file; the lock itself is not taken."""
    return os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int) -> bool:
    """Take the lock unless another process has it; closing the descriptor gives it back."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
