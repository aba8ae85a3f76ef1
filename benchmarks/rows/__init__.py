"""The rows of the table, in its order. A new one is a module here and a line below."""

from typing import Final

from benchmarks.row import Row
from benchmarks.rows import (
    beside_copy,
    claim,
    decision,
    diracx,
    echo,
    http_mover,
    imports,
    jobs,
    mover,
    pipeline,
    scale,
    small_files,
    start,
    stream,
    transfers,
    watchers,
)

ROWS: Final[tuple[Row, ...]] = (
    *echo.ROWS,
    *jobs.ROWS,
    *transfers.ROWS,
    *stream.ROWS,
    *diracx.ROWS,
    *scale.ROWS,
    *claim.ROWS,
    *watchers.ROWS,
    *decision.ROWS,
    *pipeline.ROWS,
    *imports.ROWS,
    *start.ROWS,
    *mover.ROWS,
    *small_files.ROWS,
    *http_mover.ROWS,
    *beside_copy.ROWS,
)
