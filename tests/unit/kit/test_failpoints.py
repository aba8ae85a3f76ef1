"""Failpoints do nothing unless armed; armed, they do what was asked at the hit that was asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gridlane_kit import failpoints
from gridlane_kit.failpoints import FailpointError, failpoint, parse, registered

PROGRAM = """
from gridlane_kit.failpoints import failpoint
first, second = failpoint("test.first.moment"), failpoint("test.second.moment")
for turn in range(3):
    print(turn, flush=True)
    first()
    second()
"""


def run(tmp_path: Path, armed: str) -> tuple[subprocess.CompletedProcess[str], str]:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "GRIDLANE_FAILPOINTS": armed, "GRIDLANE_FAILPOINT_LOG": str(log)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done, log.read_text() if log.exists() else ""


def test_unarmed_points_do_nothing(tmp_path: Path) -> None:
    done, log = run(tmp_path, "")
    assert (done.returncode, done.stdout, log) == (0, "0\n1\n2\n", "")


def test_an_armed_point_kills_the_process_and_leaves_its_name(tmp_path: Path) -> None:
    done, log = run(tmp_path, "test.first.moment")
    assert (done.returncode, done.stdout, log) == (-signal.SIGKILL, "0\n", "test.first.moment\n")


def test_the_hit_is_counted_for_each_name(tmp_path: Path) -> None:
    done, log = run(tmp_path, "test.second.moment=kill@3,test.first.moment=sleep:0@1")
    assert (done.returncode, done.stdout, log) == (
        -signal.SIGKILL,
        "0\n1\n2\n",
        "test.second.moment\n",
    )


def test_an_error_is_raised_once() -> None:
    point = parse("a.b=error@2")["a.b"]
    point()
    with pytest.raises(FailpointError, match=r"a\.b"):
        point()
    point()


def test_a_sleep_waits() -> None:
    point = parse("a.b=sleep:0.05")["a.b"]
    begin = time.monotonic()
    point()
    assert time.monotonic() - begin >= 0.05


@pytest.mark.parametrize("text", ["a.b=explode", "a.b@0", "a.b=sleep", "A.B", "a.b kill"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="GRIDLANE_FAILPOINTS"):
        parse(text)


def test_names_are_unique_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_names", set())
    failpoint("z.y")
    failpoint("a.b")
    assert registered() == ["a.b", "z.y"]
    with pytest.raises(ValueError, match="twice"):
        failpoint("a.b")
    with pytest.raises(ValueError, match="no name"):
        failpoint("nodots")
