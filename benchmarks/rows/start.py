"""How long the embedded server takes from its command to its ready file."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.processes import ChildFailedError, cpu_seconds, end
from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run

_LOOK_S: Final = 0.005
_LONGEST_S: Final = 60.0


class _Start(NamedTuple):
    """What the server took until it served: seconds on the clock, and of processor time."""

    wall_s: float
    cpu_s: float


async def _first(run: Run) -> Measured:
    starts: list[_Start] = []
    for _ in range(run.effort.rounds):
        with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
            starts.append(await _start(Path(directory)))
    return _summed_up(starts)


async def _second(run: Run) -> Measured:
    with tempfile.TemporaryDirectory(prefix="gridlane-benchmark-") as directory:
        await _start(Path(directory))
        return _summed_up([await _start(Path(directory)) for _ in range(run.effort.rounds)])


def _summed_up(starts: Sequence[_Start]) -> Measured:
    return Measured.of(
        [start.wall_s for start in starts],
        cpu_s=Measured.of([start.cpu_s for start in starts]).value,
    )


async def _start(directory: Path) -> _Start:
    """Starts and stops the server once."""
    ready = directory / "ready.json"
    log = directory / "log"
    begun = time.perf_counter()
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("gridlane-server"),
            "all",
            "--data-dir",
            str(directory / "data"),
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
        return _Start(time.perf_counter() - begun, cpu_seconds(process.pid))
    finally:
        await end(process)


def _last_line(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


ROWS = (
    Row(
        name="first-start",
        title="Embedded server to serving, first start",
        unit="s",
        measure=_first,
        target=Target(Bound.AT_MOST, 4.0, "s"),
        conditions="on the clock, an empty data directory: keys, databases, token are made",
    ),
    Row(
        name="second-start",
        title="Embedded server to serving, second start",
        unit="s",
        measure=_second,
        target=Target(Bound.AT_MOST, 2.0, "s"),
        conditions="on the clock, after an orderly stop",
    ),
)
