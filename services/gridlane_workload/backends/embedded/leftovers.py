"""What a payload leaves running when its shim is killed, and the end of that.

Responsible for finding an attempt's processes when nobody is left who knows them. While the shim
lives it sees to its payload itself (`payload`), and when it dies the kernel kills the command; but
what the command had detached goes on, as an orphan in a session of its own. It is found by the
variables that every payload has, which a program inherits, and by descent from one that has them.
A program that empties its environment and outlives all its parents is not found: to hold that one,
too, takes a cgroup, which a server without the machine's leave cannot make.

Linux alone: `/proc` (proc(5)) and pidfds, through which no signal reaches a process that came later
to the same pid.
"""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

JOB_VARIABLE: Final = "GRIDLANE_JOB"
ATTEMPT_VARIABLE: Final = "GRIDLANE_ATTEMPT"

_PROC: Final = Path("/proc")
# What killed processes get to vanish: one that hangs in the kernel ends when that lets it go.
_PATIENCE_S: Final = 5.0
_LOOK_S: Final = 0.02


def end(job: str, attempt: int) -> int:
    """Kill what runs of an attempt whose shim is no more; blocks until it is gone.

    Parameters:
        job: the job's uuid.
        attempt: its number.

    Returns:
        How many processes were found; some may still be there after 5 seconds.
    """
    marks = frozenset({f"{JOB_VARIABLE}=jobs/{job}", f"{ATTEMPT_VARIABLE}={attempt}"})
    deadline = time.monotonic() + _PATIENCE_S
    killed: set[int] = set()
    # Anew until none is found: one may have forked while the others were killed.
    while (found := _running(marks)) and time.monotonic() < deadline:
        killed |= found
        time.sleep(_LOOK_S)
    return len(killed)


class _Seen(NamedTuple):
    """A process when it was looked at: its parent, and when it was started (ticks since boot)."""

    parent: int
    started: int


def _running(marks: frozenset[str]) -> set[int]:
    """Send SIGKILL to every process of the payload; the pids that were reached."""
    # Seen first: what had the pid then, and when the signal is sent, had it also in between.
    seen = {pid: found for pid in _pids() if (found := _look(pid)) is not None}
    marked = [pid for pid in seen if marks <= _environment(pid)]
    return {pid for pid in _with_descendants(marked, seen) if _kill(pid, seen[pid])}


def _kill(pid: int, seen: _Seen) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        now = _look(pid)
        if now is None or now.started != seen.started:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _pids() -> list[int]:
    me = os.getpid()
    names = (entry.name for entry in _PROC.iterdir())
    return [int(name) for name in names if name.isdigit() and int(name) != me]


def _look(pid: int) -> _Seen | None:
    """A process that lives; fields 3, 4 and 22 of `/proc/<pid>/stat`."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else _Seen(int(fields[1]), int(fields[19]))


def _environment(pid: int) -> frozenset[str]:
    """The variables that a process was started with; none of one that ended or may not be read."""
    try:
        content = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return frozenset()
    return frozenset(content.decode("utf-8", "surrogateescape").split("\0"))


def _with_descendants(pids: Iterable[int], seen: Mapping[int, _Seen]) -> set[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, process in seen.items():
        children[process.parent].append(pid)
    found: set[int] = set()
    ahead = list(pids)
    while ahead:
        pid = ahead.pop()
        if pid not in found:
            found.add(pid)
            ahead += children[pid]
    return found
