"""The embedded server as users start it, in a process of its own.

Responsible for starting `gridlane-server all` on a directory, for waiting until it serves, and for
its end.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import ChildFailedError, end

_LOOK_S: Final = 0.005
_LONGEST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running server.

    Parameters:
        address: `host:port`.
        token: its local user's.
        data: its data directory.
        start_s: seconds from the command to the ready file.
    """

    pid: int
    address: str
    token: str
    data: Path
    start_s: float


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Embedded]:
    """Runs the server on `directory`/data, which may be there from a run before.

    Raises:
        ChildFailedError: it does not serve.
    """
    ready, log, data = directory / "ready.json", directory / "log", directory / "data"
    ready.unlink(missing_ok=True)
    begun = time.perf_counter()
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("gridlane-server"),
            "all",
            "--data-dir",
            str(data),
            "--port",
            "0",
            "--health-port",
            "0",
            "--ready-file",
            str(ready),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        while not ready.exists():
            if process.returncode is not None:
                raise ChildFailedError(f"gridlane-server did not start: {_last_line(log)}")
            if time.perf_counter() - begun > _LONGEST_S:
                raise ChildFailedError(f"gridlane-server did not serve in {_LONGEST_S:.0f} s")
            await asyncio.sleep(_LOOK_S)
        spent_s = time.perf_counter() - begun
        address, token = await asyncio.to_thread(_told, ready)
        yield Embedded(process.pid, address, token, data, spent_s)
    finally:
        await end(process)


def _told(ready: Path) -> tuple[str, str]:
    """The address and the token of a server that serves."""
    told = json.loads(ready.read_text(encoding="utf-8"))
    return told["address"], Path(told["token_file"]).read_text(encoding="utf-8").strip()


def _last_line(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
