"""The command's rules: exit codes, units, options of `run`, without a server."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from gridlane.cli import exit_codes, jobs, units
from gridlane.cli.exit_codes import ExitCode, exit_code_of_job, exit_code_of_status
from gridlane.cli.main import app, end_with
from gridlane.cli.run_plan import read_environment, read_inputs, read_outputs
from gridlane.cli.terminal import plain
from gridlane.type.v1.failure_pb2 import Failure, FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobHold, JobState

DONE, FAILED, KILLED = (
    JobState.JOB_STATE_DONE,
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_KILLED,
)


def failed(word: str, exit_code: int | None = None) -> Job:
    number = FailureClass.Value(f"FAILURE_CLASS_{word}")
    job = Job(state=FAILED, failure=Failure(failure_class=number))
    if exit_code is not None:
        job.exit_code = exit_code
    return job


@pytest.mark.parametrize(
    ("job", "code", "whose"),
    [
        (Job(state=DONE), 0, "payload"),
        (failed("PAYLOAD_EXIT", 3), 3, "payload"),
        (failed("PAYLOAD_SIGNAL", 137), 137, "payload"),
        (failed("PAYLOAD_SIGNAL"), 1, "payload"),
        (failed("STAGE_OUT", 0), 73, "client"),
        (failed("STAGE_IN"), 65, "client"),
        (failed("WALLTIME_EXCEEDED"), 124, "client"),
        (failed("COMMAND_NOT_FOUND"), 127, "client"),
        (failed("CANCELED"), 130, "client"),
        (failed("UNSPECIFIED"), 70, "client"),
        (Job(state=KILLED), 130, "client"),
        (Job(state=FAILED), 70, "client"),
    ],
)
def test_a_jobs_end_has_its_exit_code(job: Job, code: int, whose: str) -> None:
    assert exit_code_of_job(job) == (code, whose)


def test_a_job_that_is_shown_says_why_it_is_held() -> None:
    held = Job(state=JobState.JOB_STATE_WAITING, hold=JobHold(by="policy", reason="a veto"))
    assert dict(jobs._pairs(held))["held"] == "a veto"
    assert not dict(jobs._pairs(Job()))["held"]


def test_every_failure_class_has_an_exit_code_that_is_not_0() -> None:
    for name in FailureClass.DESCRIPTOR.values_by_name:
        code, _ = exit_code_of_job(failed(name.removeprefix("FAILURE_CLASS_"), 0))
        assert 0 < code < 256
        if not name.endswith(("UNSPECIFIED", "PAYLOAD_EXIT", "PAYLOAD_SIGNAL")):
            assert name.removeprefix("FAILURE_CLASS_") in exit_codes._BY_FAILURE


def test_every_status_has_an_exit_code_that_is_not_0() -> None:
    for status in grpc.StatusCode:
        assert exit_code_of_status(status.name) != ExitCode.OK


def test_the_reference_lists_every_exit_code() -> None:
    page = Path(__file__).resolve().parents[3] / "docs/reference/exit-codes.md"
    text = page.read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {code.value} |" in text, f"{code!r} is not in {page.name}"
    for name in FailureClass.DESCRIPTOR.values_by_name:
        if not name.endswith("UNSPECIFIED"):
            assert name.removeprefix("FAILURE_CLASS_") in text


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("1K", 1024), ("512M", 512 << 20), ("1.5GiB", 3 << 29)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "G", "1X", "1 2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("1.5 h", 5400)],
)
def test_durations_have_units(text: str, seconds: int) -> None:
    assert units.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "5x", "1h30", "m5", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration(text)


@given(st.floats(0, 1e16))
def test_sizes_are_shown_short(count: float) -> None:
    assert len(units.size(count)) <= 12


@given(st.floats(0, 1e6))
def test_durations_are_shown_short(seconds: float) -> None:
    assert len(units.duration(seconds)) <= 14


@given(st.text())
def test_no_text_from_outside_reaches_the_terminals_controls(text: str) -> None:
    shown = plain(text)
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_inputs_are_paths_urls_and_lfns_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").touch()
    Path("x=y").touch()
    found = read_inputs(
        ["a.csv", "a.csv=data/b.csv", "x=y", "lfn:/local/c.csv", "LFN:/local/c=d", "s3://h/k?e=f"],
        [],
    )
    assert [(given.name, given.source) for given in found] == [
        ("a.csv", ""),
        ("data/b.csv", ""),
        ("x=y", ""),
        ("c.csv", "LFN:/local/c.csv"),
        ("d", "LFN:/local/c"),
        ("k?e=f", "s3://h/k?e=f"),
    ]
    assert [str(given.local) for given in found[:3]] == ["a.csv", "a.csv", "x=y"]
    assert all(given.local is None for given in found[3:])


def test_a_checksum_belongs_to_the_one_input_or_names_one() -> None:
    (only,) = read_inputs(["LFN:/local/a"], ["adler32:1"])
    assert only.checksum == "ADLER32:00000001"
    two = ["LFN:/local/a", "LFN:/local/b"]
    assert read_inputs(two, ["b=MD5:" + "0" * 32])[1].checksum == "MD5:" + "0" * 32
    for wrong in ("ADLER32:1", "c=ADLER32:1", "a=ADLER32:zz"):
        with pytest.raises(typer.BadParameter, match="--checksum"):
            read_inputs(two, [wrong])


def test_inputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        read_inputs([str(tmp_path / "gone")], [])
    with pytest.raises(IsADirectoryError, match="not a file"):
        read_inputs([str(tmp_path)], [])
    with pytest.raises(typer.BadParameter, match="twice"):
        read_inputs(["LFN:/local/a", "LFN:/other/a"], [])


def test_outputs_go_to_paths_urls_and_lfns(tmp_path: Path) -> None:
    found = read_outputs(
        [f"a/b.txt={tmp_path}", f"c={tmp_path}/d", "e=LFN:/local/f", "g=LFN:/local/h/"]
    )
    assert [(o.name, o.target, o.local) for o in found] == [
        ("a/b.txt", "", tmp_path / "b.txt"),
        ("c", "", tmp_path / "d"),
        ("e", "LFN:/local/f", None),
        ("g", "LFN:/local/h/g", None),
    ]


@pytest.mark.parametrize("text", ["a", "a=", "=b"])
def test_an_output_needs_a_name_and_a_target(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="NAME=PATH"):
        read_outputs([text])


def test_an_output_needs_a_folder_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(exit_codes.CannotCreateError, match="no folder"):
        read_outputs([f"a={tmp_path}/gone/b"])


def test_variables_are_given_or_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "own")
    assert read_environment(["A=b=c", "E=", "MINE"]) == {"A": "b=c", "E": "", "MINE": "own"}
    monkeypatch.delenv("MINE")
    with pytest.raises(typer.BadParameter, match="--env MINE"):
        read_environment(["MINE"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["job"],
        ["job", "show"],
        ["run"],
        ["run", "--walltime", "soon", "--", "true"],
        ["run", "--output", "a", "--", "true"],
        ["put", "a", "b"],
        ["job", "list", "--limit", "many"],
    ],
)
def test_wrong_usage_ends_with_64(arguments: list[str]) -> None:
    assert end_with(arguments) == ExitCode.USAGE


def commands(group: Any, path: str = "gridlane") -> Iterator[tuple[str, Any]]:
    """Every command with its path."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_says_what_it_does_and_what_it_takes(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} says nothing"
        if parameter.param_type_name == "argument":  # its brackets come by themselves
            assert not (parameter.metavar or "").startswith("[")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["job", "--help"]])
def test_help_ends_with_0(arguments: list[str]) -> None:
    assert end_with(arguments) == ExitCode.OK


@pytest.mark.parametrize("noun", typer.main.get_command(app).commands)  # type: ignore[attr-defined]
def test_a_noun_s_help_is_what_the_whole_tree_says(
    noun: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a noun that is asked for, the commands of the others are not made."""
    app(args=[noun, "--help"], prog_name="gridlane", standalone_mode=False)
    said = capsys.readouterr().out
    assert end_with([noun, "--help"]) == ExitCode.OK
    assert capsys.readouterr().out == said != ""


def test_a_name_that_is_none_ends_with_65_and_one_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end_with(["job", "show", "nonsense"]) == ExitCode.BAD_INPUT
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[0].startswith("error: 'nonsense'")
    assert "Traceback" not in told.err


def test_help_does_not_load_grpc() -> None:
    """`gridlane --help` answers at once: the facade is imported by the commands that need it."""
    program = (
        "import sys; from gridlane.cli.main import end_with; end_with(['--help']);"
        " sys.exit('grpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0


def test_a_command_that_calls_collects_what_it_drops() -> None:
    """It may follow for days; before, there is next to nothing to collect."""
    program = (
        "import gc, sys; from gridlane.cli import main, session; main.end_with = lambda _: 0;"
        " sys.exit = lambda _: None; main.main(); off = not gc.isenabled(); session.connect();"
        " assert off and gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_gridlane_loads_nothing_heavy() -> None:
    program = (
        "import sys, gridlane; gridlane.uuid7();"
        " sys.exit(bool({'grpc', 'google.protobuf', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0


def test_every_command_module_says_what_it_is_for() -> None:
    folder = Path(exit_codes.__file__).parent
    for path in folder.glob("*.py"):
        assert importlib.import_module(f"gridlane.cli.{path.stem}").__doc__
