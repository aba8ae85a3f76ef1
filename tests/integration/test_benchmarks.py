"""The benchmarks' harness works: a row is measured end to end, and the table is written.

Figures are not judged here; that is `make bench`, by hand.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]


def _benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _rows_measured(results: Path) -> list[dict[str, Any]]:
    (record,) = results.glob("*.json")
    rows: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8"))["rows"]
    return rows


def test_the_reference_is_measured_and_written(tmp_path: Path) -> None:
    run = _benchmarks(
        "--rows", "echo", "--seconds", "0.3", "--rounds", "2", "--results", str(tmp_path)
    )

    assert run.returncode == 0, run.stderr
    (row,) = _rows_measured(tmp_path)
    assert row["measured"]["samples"] == 2
    # A call costs some processor time, and less than a hundredth of a second.
    assert 1 < row["measured"]["low"] <= row["measured"]["value"] <= row["measured"]["high"] < 1e4
    (table,) = tmp_path.glob("*.md")
    assert row["title"] in table.read_text(encoding="utf-8")


def test_a_target_that_is_not_met_stays_in_the_table_and_fails_nothing(tmp_path: Path) -> None:
    run = _benchmarks(
        "--rows", "decision", "--seconds", "0.05", "--rounds", "1", "--results", str(tmp_path)
    )

    assert run.returncode == 0, run.stderr
    (row,) = _rows_measured(tmp_path)
    met = row["measured"]["value"] >= row["target"]["limit"]
    assert row["verdict"] == ("met" if met else "not met")
    assert f"| {row['verdict']} |" in run.stdout


def test_an_unknown_row_is_refused_with_the_names_there_are() -> None:
    run = _benchmarks("--rows", "ecco")

    assert run.returncode == 2
    assert "ecco" in run.stderr
    assert "submit-job" in run.stderr
