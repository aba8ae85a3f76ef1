"""How long the embedded server takes from its command to its ready file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.embedded import embedded
from benchmarks.processes import cpu_seconds
from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run


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
    async with embedded(directory) as server:
        return _Start(server.start_s, cpu_seconds(server.pid))


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
