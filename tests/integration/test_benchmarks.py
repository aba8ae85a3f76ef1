"""The benchmarks' harness works: a row is measured end to end, and the table is written.

Figures are not judged here; that is `make bench`, by hand.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_HAS_DIRACX = (_REPOSITORY / ".tools" / "diracx" / "bin" / "uvicorn").exists()


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


def test_on_postgresql_the_database_is_told_apart(tmp_path: Path) -> None:
    run = _benchmarks(
        *("--rows", "get-job,get-job-postgresql", "--engine", "postgresql"),
        *("--quick", "--results", str(tmp_path)),
    )

    assert run.returncode == 0, run.stderr
    (row,) = _rows_measured(tmp_path)
    assert row["name"] == "get-job-postgresql"
    details = row["measured"]["details"]
    # Both worked for the calls, in processes of their own.
    assert details["method_us"] > 0
    assert details["database_us"] > 0


def test_calls_are_compared_on_a_large_and_a_small_store(tmp_path: Path) -> None:
    run = _benchmarks(
        *("--rows", "scale-list-jobs-filtered", "--quick", "--stored", "3000"),
        *("--results", str(tmp_path)),
    )

    assert run.returncode == 0, run.stderr
    (row,) = _rows_measured(tmp_path)
    assert row["measured"]["details"]["stored"] == 3000
    assert row["measured"]["value"] > 0


def test_every_change_is_told_to_its_watcher_once(tmp_path: Path) -> None:
    run = _benchmarks("--rows", "watchers", "--quick", "--results", str(tmp_path))

    assert run.returncode == 0, run.stderr
    (row,) = _rows_measured(tmp_path)
    assert row["measured"]["details"]["watchers"] == 50
    assert 0 < row["measured"]["low"] < 30_000


@pytest.mark.skipif(_HAS_DIRACX, reason="DiracX is installed here")
@pytest.mark.parametrize(("options", "code"), [([], 0), (["--require-peers"], 1)])
def test_a_missing_peer_leaves_its_rows_out_and_says_so(
    tmp_path: Path, options: list[str], code: int
) -> None:
    run = _benchmarks("--rows", "diracx-submit", "--quick", *options, "--results", str(tmp_path))

    assert run.returncode == code, run.stderr
    (row,) = _rows_measured(tmp_path)
    assert row["verdict"] == "skipped"
    assert "make diracx" in run.stderr


def test_an_unknown_row_is_refused_with_the_names_there_are() -> None:
    run = _benchmarks("--rows", "ecco")

    assert run.returncode == 2
    assert "ecco" in run.stderr
    assert "submit-job" in run.stderr
