"""The shim: a process of its own that runs one attempt's payload and writes down how it ended.

Responsible for that an attempt runs once, within its limits, and that its end is known whatever
becomes of the server. Started as `python -I -m gridlane_workload.backends.embedded.shim DIRECTORY`
in a session of its own; it outlives the server. Not for when to start or what an end means
(`runner`, `steps`).

It holds the directory's lock for its life: whoever finds the lock taken knows that the attempt is
alive, and whoever finds it free knows that it is not. Its first act is the claim; a second shim of
the same attempt loses it and exits 0 without running anything. Only the standard library is
imported before the payload has ended, because the start of a payload waits for it.

Exit codes of the shim itself: 0, also for one that lost the claim; 1 when it could not do its work
(`shim.log`).
"""

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from gridlane_workload.backends.embedded import directory as files
from gridlane_workload.backends.embedded.payload import Outcome, Payload

# Between taking the lock and claiming pass milliseconds; a server that looks at the lock holds it
# for less.
_LOCK_PATIENCE_S: Final = 5.0
_LOCK_POLL_S: Final = 0.01
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROOM_POLL_S: Final = 1.0


def main(arguments: list[str]) -> int:
    """Run the attempt of the directory given as the one argument."""
    # Blocked, not ignored: the payload's loop takes them one by one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
    os.umask(0o077)
    directory = Path(arguments[1])
    lock = files.open_lock(directory)
    if not _take_lock(directory, lock) or not files.make_claim(directory, f"shim {os.getpid()}"):
        _leave(directory)
        return 0
    job = files.read_json(directory / files.JOB)
    if job is None:
        raise FileNotFoundError(directory / files.JOB)
    started_us = time.time_ns() // 1000
    _write_down(
        directory / files.STARTED,
        {"pid": os.getpid(), "machine": files.this_machine(), "started_us": started_us},
    )
    _let_go_of_server()
    outcome = _run(directory, job)
    ended_us = time.time_ns() // 1000
    _write_down(
        directory / files.EXIT,
        {**outcome.to_json(), "started_us": started_us, "ended_us": ended_us},
    )
    _tell_span(directory, job, outcome, started_us, ended_us)
    (directory / files.TOKEN).unlink(missing_ok=True)
    return 0


def _leave(directory: Path) -> None:
    """Another shim runs the attempt, or did: then the token that came with this one is not left."""
    if (directory / files.EXIT).exists():
        (directory / files.TOKEN).unlink(missing_ok=True)


def _take_lock(directory: Path, lock: int) -> bool:
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while not files.try_lock(lock):
        if (directory / files.CLAIM).exists() or time.monotonic() > deadline:
            return False
        time.sleep(_LOCK_POLL_S)
    return True


def _write_down(path: Path, content: dict[str, Any]) -> None:
    """Write what only the shim knows, however long the disk is full: a payload that ended well is
    not to be lost for want of a few bytes."""
    while True:
        try:
            files.write_json(path, content)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            time.sleep(_ROOM_POLL_S)
        else:
            return


def _let_go_of_server() -> None:
    """Close standard output: the server that started the shim reads from it until then."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def _run(directory: Path, job: dict[str, Any]) -> Outcome:
    """Run the payload; whatever goes wrong is an outcome, since nobody waits for an exception
    here."""
    try:
        return Payload(directory, job).run()
    except Exception as error:
        print(f"the payload could not be run: {error!r}", file=sys.stderr)  # noqa: T201 - shim.log
        # The owner is told what, and not where on the server.
        what = error.strerror if isinstance(error, OSError) else type(error).__name__
        return Outcome("broken", message=f"the payload could not be run: {what}")


def _tell_span(
    directory: Path, job: dict[str, Any], outcome: Outcome, started_us: int, ended_us: int
) -> None:
    """Send the payload's span; that it cannot be sent changes nothing of the job."""
    # Imported here: it takes longer than all of the shim's own work.
    from gridlane_workload.backends.embedded import span

    try:
        span.send(job, (directory / files.TOKEN).read_text(), outcome.error, started_us, ended_us)
    except Exception as error:
        print(f"the span was not taken: {error!r}"[:500], file=sys.stderr)  # noqa: T201 - shim.log


if __name__ == "__main__":
    sys.exit(main(sys.argv))
