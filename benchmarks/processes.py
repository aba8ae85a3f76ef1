"""Child processes under measurement, and the processor time that they use.

Responsible for starting a server in a process of its own, for reading where it listens, for its
end, and for reading the clocks of processor time of a process and its descendants. Not for what
runs in it.
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
from typing import Any, Protocol

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
_START_S = 60.0
_STOP_S = 20.0
_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of Linux' include/linux/posix-timers_types.h
_LOG_LINES = 5


class ChildFailedError(Exception):
    """A process under measurement did not start; the text says how it ended."""


class Clock(Protocol):
    """Whatever uses processor time."""

    def cpu_seconds(self) -> float:
        """Returns the processor time used so far, in seconds."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and its descendants."""

    pid: int

    def cpu_seconds(self) -> float:
        """Returns the processor time used so far; see `tree_cpu_seconds`."""
        return tree_cpu_seconds(self.pid)


@dataclass(frozen=True, slots=True)
class Child(Tree):
    """A running process and what it said of itself when it was ready."""

    ready: Mapping[str, Any]


def cpu_seconds(pid: int) -> float:
    """Returns the processor time (user and system, of all threads) of a process so far, in seconds.

    Linux' clock of the process, as `clock_getcpuclockid` makes its id: it counts nanoseconds,
    where `/proc/PID/stat` counts ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def tree_cpu_seconds(pid: int) -> float:
    """Returns the processor time of a process and its descendants so far, in seconds.

    Those that have ended count too, with the ticks that their parents keep for them.
    """
    root = psutil.Process(pid)
    return sum(map(_with_ended, [root, *root.children(recursive=True)]))


def _with_ended(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return cpu_seconds(process.pid) + times.children_user + times.children_system
    except (psutil.NoSuchProcess, OSError):
        return 0.0  # it has ended since, and its parent keeps its time


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


@asynccontextmanager
async def program(
    *command: str, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a program of others until the block ends; what it says goes to a file.

    Whether it is ready is for the caller to find out, with `until`.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        await end(process)


async def succeed(
    *command: str, environment: Mapping[str, str] | None = None, given: bytes = b""
) -> str:
    """Runs a program to its end and returns what it printed.

    Raises:
        ChildFailedError: it failed; the text is the end of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, said = await process.communicate(given)
    if process.returncode != 0:
        raise ChildFailedError(f"{Path(command[0]).name}: {_last_lines(said or printed)}")
    return printed.decode()


def check_running(process: asyncio.subprocess.Process, name: str, log: Path) -> None:
    """Sees to it that a program has not ended.

    Raises:
        ChildFailedError: it has; the text is the end of its log.
    """
    if process.returncode is not None:
        raise ChildFailedError(f"{name} ended: {_last_lines(log.read_bytes())}")


def _last_lines(said: bytes) -> str:
    return " / ".join(said.decode(errors="replace").strip().splitlines()[-_LOG_LINES:])


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends a process: asks it first, and makes it end when it takes too long."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
