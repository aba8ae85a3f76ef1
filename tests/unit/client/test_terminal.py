"""What people see: tables that fit a terminal, errors that are told once, bars with a rate."""

import json
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from gridlane.cli import terminal
from gridlane.cli.pace import Pace
from gridlane.errors import FailedPrecondition, GridlaneError, InvalidArgument, NotFound, Violation

COLUMNS = ("NAME", ">SIZE", "~CHECKSUM", "?VO", "-FAILURE", "~PLACE")
WELL = [("a", "1 B", "MD5:1", "atlas", "", "here"), ("b", "20 B", "MD5:2", "atlas", "", "there")]

Shown = Callable[..., tuple[str, str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shown]:
    """What a table looks like on a terminal of a width, or in a pipe: both streams."""

    def show(rows: list[tuple[str, ...]], width: int | None) -> tuple[str, str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None)
        monkeypatch.setenv("COLUMNS", str(width))
        terminal.out.cache_clear()
        terminal.err.cache_clear()
        terminal.table(COLUMNS, rows, "none")
        told = capsys.readouterr()
        return told.out, told.err

    yield show
    terminal.out.cache_clear()
    terminal.err.cache_clear()


def headings(out: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", out.splitlines()[0]).split()


def test_a_pipe_gets_every_column(shown: Shown) -> None:
    out, err = shown(WELL, None)
    assert headings(out) == ["NAME", "SIZE", "CHECKSUM", "VO", "FAILURE", "PLACE"]
    assert err == ""


def test_a_wide_terminal_leaves_out_what_says_nothing(shown: Shown) -> None:
    out, err = shown(WELL, 120)
    assert headings(out) == ["NAME", "SIZE", "CHECKSUM", "PLACE"]
    assert err == ""


def test_a_narrow_terminal_leaves_out_what_it_may_and_says_so(shown: Shown) -> None:
    out, err = shown(WELL, 22)
    assert headings(out) == ["NAME", "SIZE", "CHECKSUM"]
    assert "too narrow: PLACE" in err
    out, err = shown(WELL, 12)
    assert headings(out) == ["NAME", "SIZE"]
    assert "too narrow: CHECKSUM, PLACE" in err


def test_what_matters_of_a_single_row_is_shown(shown: Shown) -> None:
    out, _ = shown([("a", "1 B", "MD5:1", "atlas", "no space", "here")], 120)
    assert headings(out) == ["NAME", "SIZE", "CHECKSUM", "FAILURE", "PLACE"]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[GridlaneError], str]]:
    def tell(error: GridlaneError) -> str:
        terminal.err.cache_clear()
        terminal.fail_call(error)
        return capsys.readouterr().err

    yield tell
    terminal.err.cache_clear()


def test_a_violation_that_the_message_tells_is_not_told_again(
    told: Callable[[GridlaneError], str],
) -> None:
    text = "x is a directory"
    out = told(FailedPrecondition(text, reason="PRECONDITION", violations=[Violation("x", text)]))
    assert out.count(text) == 1


def test_violations_that_are_the_message_are_told_one_by_one(
    told: Callable[[GridlaneError], str],
) -> None:
    message = "files[0].source: nothing serves a; files[1].source: nothing serves b"
    violations = [
        Violation("files[0].source", "nothing serves a"),
        Violation("files[1].source", "nothing serves b"),
    ]
    out = told(InvalidArgument(message, reason="NO_STORAGE_ELEMENT", violations=violations))
    assert out.count("nothing serves a") == out.count("nothing serves b") == 1
    assert "  - files[1].source: nothing serves b" in out


def test_several_errors_are_one_json_value(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.use_json(True)
    try:
        code = terminal.fail_calls([NotFound("no a", reason="NOT_FOUND"), NotFound("no b")])
    finally:
        terminal.use_json(False)
    told = json.loads(capsys.readouterr().out)
    assert (code, told["exit_code"], told["error"]["message"]) == (65, 65, "no a")
    assert [one["message"] for one in told["errors"]] == ["no a", "no b"]


def test_a_bar_tells_the_rate_and_the_time_left() -> None:
    pace = Pace()
    pace.take(0.0, 0)
    assert pace.text(4 << 20) == ""
    pace.take(1.0, 1 << 20)
    assert pace.text(4 << 20) == "  1.0 MiB/s  3.00 s left"
    pace.take(2.0, 4 << 20)
    assert pace.text(4 << 20) == "  2.0 MiB/s"
