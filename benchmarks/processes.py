"""Child processes under measurement, and the processor time that they use.

Responsible for starting a server in a process of its own, for reading where it listens, for its
end, and for reading its clock of processor time. Not for what runs in it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
_START_S = 60.0
_STOP_S = 20.0
_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of Linux' include/linux/posix-timers_types.h


class ChildFailedError(Exception):
    """A process under measurement did not start; the text says how it ended."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process and what it said of itself when it was ready."""

    pid: int
    ready: Mapping[str, Any]

    def cpu_seconds(self) -> float:
        """Returns the processor time used so far; see `cpu_seconds`."""
        return cpu_seconds(self.pid)


def cpu_seconds(pid: int) -> float:
    """Returns the processor time (user and system, of all threads) of a process so far, in seconds.

    Linux' clock of the process, as `clock_getcpuclockid` makes its id: it counts nanoseconds,
    where `/proc/PID/stat` counts ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """Runs `python -m module arguments`, which writes one line of JSON when it is ready.

    Raises:
        ChildFailedError: it ended, or said nothing for a minute.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        except TimeoutError:
            raise ChildFailedError(f"{module} was not ready after {_START_S:.0f} s") from None
        if not line:
            raise ChildFailedError(f"{module} ended with code {await process.wait()}")
        yield Child(process.pid, json.loads(line))
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends a process: asks it first, and makes it end when it takes too long."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
