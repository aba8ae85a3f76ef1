"""The reference of the other rows: what a call costs a `grpc.aio` server that does nothing."""

from benchmarks.load import CALLERS, PAYLOAD_BYTES, alone
from benchmarks.reference import echo
from benchmarks.row import Measured, Row
from benchmarks.run import Run


async def _measure(run: Run) -> Measured:
    return await alone(await run.shared(echo), run.effort)


ROWS = (
    Row(
        name="echo",
        title="Echo: a bare `grpc.aio` unary call",
        unit="µs",
        measure=_measure,
        conditions=f"server CPU a call, {CALLERS} callers, {PAYLOAD_BYTES} bytes both ways",
    ),
)
