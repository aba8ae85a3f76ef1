"""What `import gridlane` costs a program that has grpc already."""

import subprocess
import sys
import time

from benchmarks.row import Bound, Measured, Row, Target
from benchmarks.run import Run

_GRPC = "import grpc"
_GRIDLANE = "from gridlane import Client"


async def _measure(run: Run) -> Measured:
    _seconds(_GRPC), _seconds(_GRIDLANE)
    pairs = [(_seconds(_GRPC), _seconds(_GRIDLANE)) for _ in range(2 * run.effort.rounds)]
    return Measured.of(
        [(gridlane - grpc) * 1000 for grpc, gridlane in pairs],
        grpc_ms=Measured.of([grpc * 1000 for grpc, _ in pairs]).value,
        gridlane_ms=Measured.of([gridlane * 1000 for _, gridlane in pairs]).value,
    )


def _seconds(statement: str) -> float:
    """Returns how long a new interpreter takes for a statement, in seconds on the clock."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begun


ROWS = (
    Row(
        name="import",
        title="`import gridlane`, its `Client` looked up, over `import grpc`",
        unit="ms",
        measure=_measure,
        target=Target(Bound.AT_MOST, 60.0, "ms"),
        conditions="new interpreters in turn, time on the clock",
    ),
)
