"""The command `python -m benchmarks`: measures rows and writes the table.

The exit code says whether everything could be measured, never whether the targets are met. A row
whose peer is not installed is left out with a line that says so; with `--require-peers` it counts
as one that could not be measured.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks import report
from benchmarks.load import CallFailedError
from benchmarks.processes import REPOSITORY, ChildFailedError
from benchmarks.report import Outcome
from benchmarks.row import Engine, PeerMissingError, Row
from benchmarks.rows import ROWS
from benchmarks.run import QUICK, Effort, Run

_BOTH = "both"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 when every row has its figure, 1 when one has not, 2 for wrong usage."""
    given = _parser().parse_args(arguments)
    rows = [row for row in given.rows if _is_on(row, given.engine)]
    if given.list:
        width = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(f"{row.name:{width}}  {row.title}")
        return 0
    now = datetime.now(UTC)
    machine = report.machine(now)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_measure(rows, _effort(given)))
    path = report.write(given.results, outcomes, machine, now)
    print(report.markdown(outcomes, machine))
    print(f"Written to {path} and {path.with_suffix('.json').name}")
    missing = {outcome.error for outcome in outcomes if outcome.skipped}
    for peer in sorted(missing):
        print(f"Rows were left out: {peer}", file=sys.stderr)
    failed = any(not (outcome.measured or outcome.skipped) for outcome in outcomes)
    return 1 if failed or (missing and given.require_peers) else 0


def _is_on(row: Row, engine: str) -> bool:
    return engine == _BOTH or row.engine is None or row.engine == engine


def _effort(given: argparse.Namespace) -> Effort:
    """What `--quick` says, or the usual, where nothing else is given."""
    effort = QUICK if given.quick else Effort()
    asked = {name: getattr(given, name) for name in ("seconds", "rounds", "stored")}
    return replace(effort, **{name: value for name, value in asked.items() if value is not None})


async def _measure(rows: Sequence[Row], effort: Effort) -> list[Outcome]:
    outcomes = []
    async with Run(effort) as run:
        for row in rows:
            print(f"{row.name} … ", end="", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            outcomes.append(await _outcome(row, run))
            print(f"{time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    return outcomes


async def _outcome(row: Row, run: Run) -> Outcome:
    try:
        return Outcome(row, await row.measure(run))
    except PeerMissingError as missing:
        return Outcome(row, None, str(missing), skipped=True)
    except (CallFailedError, ChildFailedError, OSError) as failed:
        return Outcome(row, None, str(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures Gridlane's targets and writes one table."
    )
    parser.add_argument(
        "--rows", type=_rows, default=ROWS, metavar="NAME,…", help="these rows only (see --list)"
    )
    parser.add_argument(
        "--engine",
        choices=[*Engine, _BOTH],
        default=_BOTH,
        help="rows with a database: on this one only (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short window a row and small stores: shows that all is measured, no more",
    )
    usual = Effort()
    parser.add_argument(
        "--seconds", type=float, help=f"length of one window (default: {usual.seconds})"
    )
    parser.add_argument(
        "--rounds", type=int, help=f"windows, or pairs of them, a row (default: {usual.rounds})"
    )
    parser.add_argument(
        "--stored",
        type=int,
        help=f"jobs in the large store of the scale rows (default: {usual.stored})",
    )
    parser.add_argument(
        "--require-peers",
        action="store_true",
        help="a peer that is not installed is an error, as in `make bench`",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=REPOSITORY / "benchmarks" / "results",
        help="directory for the table as Markdown and JSON (default: benchmarks/results)",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the rows and end")
    return parser


def _rows(names: str) -> tuple[Row, ...]:
    known = {row.name: row for row in ROWS}
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no row {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
        )
    return tuple(known[name] for name in wanted)


if __name__ == "__main__":
    sys.exit(main())
