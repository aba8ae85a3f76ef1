"""Second tries: for tests with processes and clocks, told, and never for what is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import second_tries

FAILS_ONCE = """
import pathlib, pytest

@pytest.mark.parametrize("n", range({count}))
def test_it(n):
    mark = pathlib.Path(__file__).with_name(f"tried-{{n}}")
    tried, _ = mark.exists(), mark.touch()
    assert tried, "the first try"
"""
FAILS = "def test_it():\n    assert not 'broken'\n"


def outcome(tmp_path: Path, folder: str, test: str, *options: str) -> tuple[int, str]:
    """Runs one test file in a folder; the exit code and what was printed."""
    file = tmp_path / folder / "test_it.py"
    file.parent.mkdir(parents=True)
    file.write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "second_tries", *options, "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(second_tries.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")])
@pytest.mark.parametrize("folder", second_tries.FOLDERS)
def test_what_fails_once_passes_and_is_told(
    tmp_path: Path, folder: str, options: tuple[str, ...]
) -> None:
    code, said = outcome(tmp_path, folder, FAILS_ONCE.format(count=1), *options)
    assert code == 0, said
    assert f"{folder}test_it.py::test_it[0] failed at first:" in said
    assert "AssertionError: the first try" in said


@pytest.mark.parametrize("folder", second_tries.FOLDERS)
def test_what_fails_twice_fails(tmp_path: Path, folder: str) -> None:
    code, said = outcome(tmp_path, folder, FAILS)
    assert code == 1, said
    assert "1 failed, 1 rerun" in said


@pytest.mark.parametrize("folder", ["tests/unit", "tests/contract"])
def test_what_has_no_clock_has_one_try(tmp_path: Path, folder: str) -> None:
    code, said = outcome(tmp_path, folder, FAILS_ONCE.format(count=1))
    assert code == 1, said
    assert "second tries" not in said


def test_a_run_that_needs_few_passes(tmp_path: Path) -> None:
    test = FAILS_ONCE.format(count=second_tries.MOST)
    code, said = outcome(tmp_path, "tests/faults", test, "-n", "2")
    assert code == 0, said
    assert said.count("failed at first:") == second_tries.MOST
    assert "the run fails" not in said


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_run_that_needs_many_fails(tmp_path: Path, options: tuple[str, ...]) -> None:
    test = FAILS_ONCE.format(count=second_tries.MOST + 1)
    code, said = outcome(tmp_path, "tests/faults", test, *options)
    assert code == 1, said
    assert f"more than {second_tries.MOST}: the run fails" in said
