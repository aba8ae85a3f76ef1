"""The table: Markdown for people, JSON for programs.

Responsible for the form of what was measured and of the machine it was measured on. A target that
is not met stays in the table and says so.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.row import Measured, Row


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row and its figure, or the error that left it without one."""

    row: Row
    measured: Measured | None
    error: str = ""
    skipped: bool = False

    @property
    def verdict(self) -> str:
        """ "met", "not met", "failed", "skipped", or "—" where nothing is promised."""
        if self.skipped:
            return "skipped"
        if self.measured is None:
            return "failed"
        if self.row.target is None:
            return "—"
        return "met" if self.row.target.met_by(self.measured.value) else "not met"


def markdown(outcomes: Sequence[Outcome], machine: Mapping[str, Any]) -> str:
    """Returns the whole report as Markdown."""
    header = ("what", "measured", "interval", "target", "", "computed from", "conditions")
    lines = [
        "# Gridlane: measured targets",
        "",
        ", ".join(f"{name} {value}" for name, value in machine.items()),
        "",
        _line(header),
        _line(["---"] * len(header)),
        *(_line(_cells(outcome)) for outcome in outcomes),
        "",
        "Measured: the median; interval: the smallest and largest of all measurements of the run.",
        "",
    ]
    for note in dict.fromkeys(outcome.row.note for outcome in outcomes if outcome.row.note):
        lines += [note, ""]
    return "\n".join(lines)


def record(outcomes: Sequence[Outcome], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the whole report as plain values."""
    return {"machine": dict(machine), "rows": [_plain(outcome) for outcome in outcomes]}


def write(
    directory: Path, outcomes: Sequence[Outcome], machine: Mapping[str, Any], now: datetime
) -> Path:
    """Writes both forms, named by the time, and returns the path of the Markdown."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y%m%dT%H%M%SZ}.md"
    path.write_text(markdown(outcomes, machine), encoding="utf-8")
    path.with_suffix(".json").write_text(
        json.dumps(record(outcomes, machine), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return path


def machine(now: datetime) -> dict[str, Any]:
    """Describes what the figures depend on besides the code."""
    return {
        "time": f"{now:%Y-%m-%d %H:%M} UTC",
        "processors": os.cpu_count(),
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 2),
        "Python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "SQLAlchemy": version("sqlalchemy"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cells(outcome: Outcome) -> list[str]:
    row, measured = outcome.row, outcome.measured
    target = row.target
    promise = "" if target is None else f"{target.bound} {_number(target.limit)} {target.unit}"
    if measured is None:
        return [row.title, outcome.error, "", promise, outcome.verdict, "", row.conditions]
    return [
        row.title,
        f"{_number(measured.value)} {row.unit}",
        f"{_number(measured.low)} – {_number(measured.high)} ({measured.samples})",
        promise,
        outcome.verdict,
        ", ".join(f"{name} {_number(value)}" for name, value in measured.details.items()),
        row.conditions,
    ]


def _plain(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "conditions": row.conditions,
        "engine": row.engine,
        "note": row.note,
        "target": None if row.target is None else asdict(row.target),
        "measured": None if outcome.measured is None else asdict(outcome.measured),
        "error": outcome.error,
        "verdict": outcome.verdict,
    }


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
