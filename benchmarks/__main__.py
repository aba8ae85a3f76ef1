"""The command `python -m benchmarks`: measures rows and writes the table.

The exit code says whether everything could be measured, never whether the targets are met.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks import report
from benchmarks.load import CallFailedError
from benchmarks.processes import REPOSITORY, ChildFailedError
from benchmarks.report import Outcome
from benchmarks.row import Effort, Row
from benchmarks.rows import ROWS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 when every row has its figure, 1 when one has not, 2 for wrong usage."""
    given = _parser().parse_args(arguments)
    if given.list:
        for row in ROWS:
            print(f"{row.name:24}{row.title}")
        return 0
    effort = Effort(seconds=given.seconds, rounds=given.rounds)
    now = datetime.now(UTC)
    machine = report.machine(now)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_measure(given.rows, effort))
    path = report.write(given.results, outcomes, machine, now)
    print(report.markdown(outcomes, machine))
    print(f"Written to {path} and {path.with_suffix('.json').name}")
    return 0 if all(outcome.measured for outcome in outcomes) else 1


async def _measure(rows: Sequence[Row], effort: Effort) -> list[Outcome]:
    outcomes = []
    for row in rows:
        print(f"{row.name} …", file=sys.stderr, flush=True)
        outcomes.append(await _outcome(row, effort))
    return outcomes


async def _outcome(row: Row, effort: Effort) -> Outcome:
    try:
        return Outcome(row, await row.measure(effort))
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
        "--seconds", type=float, default=1.5, help="length of one window (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="windows, or pairs of them, a row (default: %(default)s)",
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
