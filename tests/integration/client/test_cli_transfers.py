"""`gridlane transfer`: handed in one by one and in lists, followed, explained, tried again."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gridlane
from gridlane.ids import uuid7
from gridlane.transfer.v1.channel_pb2 import Channel, ChannelState
from gridlane.transfer.v1.selection_strategy_pb2 import SelectionStrategy
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transfer.v1.transfer_job_pb2 import OverwriteMode, VerifyMode

Command = Callable[..., Any]


@pytest.fixture
def files(client: gridlane.Client, folder: str) -> list[str]:
    """Two files in the store."""
    names = [f"{folder}/{name}.csv" for name in ("a", "b")]
    for name in names:
        client.storage.put(b"1,2\n", name)
    return names


def test_one_file_is_handed_in_and_waited_for(
    command: Command, folder: str, files: list[str]
) -> None:
    done = command("transfer", "submit", "--wait", files[0], f"{folder}/copy.csv")
    assert done.code == 0, done.err
    assert "FINISHED" in done.out
    again = command("transfer", "submit", "--wait", files[0], f"{folder}/copy.csv", "-o", "json")
    assert again.code == 73  # it is there
    (job,) = again.json
    assert job["completeness_percent"] == 100
    shown = command("transfer", "show", job["name"], "--state", "FAILED")
    assert "TARGET_EXISTS" in shown.out
    attempts = command("transfer", "attempts", f"{job['name']}/files/1", "-o", "json").json
    assert [one["attempt"] for one in attempts] == [1]
    listed = command("transfer", "list", "--vo", "local", "--state", "failed", "-o", "json").json
    assert job["name"] in [one["name"] for one in listed]
    explained = command("transfer", "explain", job["name"])
    assert (explained.code, explained.out) == (0, "")
    assert "nothing waits" in explained.err


@pytest.mark.parametrize("written", ["csv", "jsonl"])
def test_a_list_is_handed_in(
    command: Command, tmp_path: Path, folder: str, files: list[str], written: str
) -> None:
    pairs = [(name, f"{folder}/{written}/{n}.csv") for n, name in enumerate(files)]
    if written == "csv":
        lines = ["source,target", *(",".join(pair) for pair in pairs)]
    else:
        lines = [json.dumps(dict(zip(("source", "target"), pair, strict=True))) for pair in pairs]
    (tmp_path / f"list.{written}").write_text("\n".join(lines) + "\n")
    checked = command("transfer", "submit", "--check", "--from", f"list.{written}")
    assert checked.out == "2 files are good\n"
    done = command(
        "transfer", "submit", "--from", f"list.{written}", "--tag", "a=b", "--wait", "-o", "json"
    )
    assert done.code == 0, done.err
    assert [(job["file_count"], job["tags"]) for job in done.json] == [(2, {"a": "b"})]
    several = command(
        "transfer", "submit", "--from", f"list.{written}", "--files-per-job", "1", "--overwrite"
    )
    assert len(several.out.split()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source,goal\na:b,c:d\n", "line 1: no such columns: goal"),
        ("source,target\nfile:///a\n", "line 2: source and target are needed"),
        ("", "the list has no files"),
        ("source,target,checksum\nfile:///a,file:///b,MD5\n", "line 2"),
        ("source,target\na.csv,LFN:/local/a.csv\n", "line 2: 'a.csv' is no logical file name"),
        ("source,target\nLFN:/nowhere/a,LFN:/nowhere/b\n", "list.csv, line 2, source: no storage"),
        ('"a:b,c:d\n', "line 1: no CSV"),
    ],
)
def test_what_is_wrong_with_a_list_is_named_by_its_line(
    command: Command, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "list.csv").write_text(text)
    done = command("transfer", "submit", "--from", "list.csv")
    assert done.code == 65
    assert said in done.err


def test_what_must_be_said_is_asked_for(command: Command) -> None:
    assert command("transfer", "submit").code == 64
    assert command("transfer", "submit", "a:b", "c:d", "--from", "x.csv").code == 64
    for options in (
        ("--tag", "x"),
        ("--verify", "some"),
        ("--checksum", "MD5"),
        ("--size", "large"),
        ("--alternative", "b.csv"),
        ("--via", "local"),
        ("--timeout", "soon"),
        ("--overwrite", "--overwrite-mode", "never"),
    ):
        assert command("transfer", "submit", "a:b", "c:d", *options).code == 64
    assert command("transfer", "submit", "--from", "x.csv", "--size", "4").code == 64
    assert command("transfer", "cancel", "a", "b", "--file", "1").code == 64
    assert command("transfer", "cancel", "a", "b", "--reason", "late").code == 64
    assert command("transfer", "cancel", "a", "--file", "1", "--reason", "late").code == 64
    assert command("transfer", "submit", "--from", "none.csv").code == 65
    assert command("transfer", "submit", "--from", "list").code == 64
    assert command("transfer", "submit", "a.csv", "LFN:/local/a.csv").code == 64
    assert command("transfer", "update", "01a20343-0486-7398-bb00-071eaf29d06e").code == 64
    assert command("transfer", "list", "--state", "MOVED").code == 64


def test_what_a_job_may_ask_for_is_asked_for_with_options(
    command: Command, client: gridlane.Client, folder: str, files: list[str]
) -> None:
    done = command(
        *("transfer", "submit", f"{folder}/none.csv", f"{folder}/asked.csv", "--wait"),
        *("--alternative", files[0], "--size", "4", "--checksum", "ADLER32:01ba009a"),
        *("--overwrite-mode", "when-different", "--verify", "target", "--strategy", "success"),
        *("--max-retries", "7", "--retry-delay", "1m30s", "--max-time-in-queue", "2h"),
        *("--timeout", "10m", "--expire-in", "1d", "--priority", "4", "--activity", "asked"),
        *("--report-target-file", "--backend", "embedded", "--metadata", '{"run": 7}'),
        *("--tag", "a=b", "--no-placement", "-o", "json"),
    )
    assert done.code == 0, done.err
    (job,) = done.json
    kept = client.transfers.get(job["name"])
    assert job["file_count"] == 1
    assert kept.overwrite == OverwriteMode.OVERWRITE_MODE_WHEN_DIFFERENT
    assert kept.verify == VerifyMode.VERIFY_MODE_TARGET
    assert kept.selection_strategy == SelectionStrategy.SELECTION_STRATEGY_SUCCESS
    assert (kept.max_retries, kept.priority, kept.activity) == (7, 4, "asked")
    assert (kept.retry_delay.seconds, kept.max_time_in_queue.seconds) == (90, 7200)
    assert kept.timeout.seconds == 600
    lives_s = kept.expire_time.ToSeconds() - kept.create_time.ToSeconds()
    assert abs(lives_s - 86_400) < 60
    assert kept.report_target_file
    assert kept.backend == "transferBackends/embedded"
    assert (kept.metadata, dict(kept.tags), kept.placement) == ('{"run": 7}', {"a": "b"}, False)
    (file,) = kept.files
    assert list(file.alternative_sources) == [files[0]]
    assert (file.size_bytes, file.checksum.value) == (4, "01ba009a")
    shown = command("transfer", "show", job["name"]).out
    for name, value in (
        ("overwrite", "when-different"),
        ("verify", "target"),
        ("retries", "7"),
        ("retry delay", "1 min 30 s"),
        ("time in queue", "2 h 00 min"),
        ("attempt time", "10 min 00 s"),
        ("strategy", "success"),
        ("backend", "embedded"),
        ("metadata", '{"run": 7}'),
        ("tags", "a=b"),
    ):
        assert re.search(rf"^{name} +{re.escape(value)} *$", shown, re.MULTILINE), name


def test_what_has_no_option_is_in_a_file_of_parameters(
    command: Command, client: gridlane.Client, tmp_path: Path, folder: str, files: list[str]
) -> None:
    fields = {"strict_copy": True, "placement": False, "priority": 5, "tags": {"a": "b"}}
    (tmp_path / "params.json").write_text(json.dumps(fields))
    done = command(
        *("transfer", "submit", files[0], f"{folder}/params.csv", "--params", "params.json"),
        *("--priority", "2", "-o", "json"),
    )
    assert done.code == 0, done.err
    kept = client.transfers.get(done.json[0]["name"])
    assert kept.strict_copy
    assert not kept.placement
    assert (kept.priority, dict(kept.tags)) == (2, {"a": "b"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "params.json: no JSON"),
        ("[]", "params.json: no JSON object"),
        ('{"files": []}', "params.json: files are no parameters"),
        ('{"verify": "SOME"}', "params.json: Failed to parse verify field"),
    ],
)
def test_what_is_wrong_with_a_file_of_parameters_is_named(
    command: Command, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "params.json").write_text(text)
    done = command("transfer", "submit", "a:b", "c:d", "--params", "params.json")
    assert done.code == 65
    assert said in done.err


def test_sources_and_stops_of_a_cell_are_parted_by_spaces(
    command: Command, client: gridlane.Client, tmp_path: Path, folder: str, files: list[str]
) -> None:
    lines = [
        "source,target,alternative_sources,via",
        f"{folder}/none.csv,{folder}/one.csv,lfn:{folder[4:]}/nor.csv {files[1]},",
        f"{files[0]},{folder}/two.csv,,storageElements/local",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    done = command("transfer", "submit", "--from", "list.csv", "--wait", "-o", "json")
    assert done.code == 0, done.err
    first, second = client.transfers.get(done.json[0]["name"]).files
    assert list(first.alternative_sources) == [f"{folder}/nor.csv", files[1]]
    assert list(second.via) == ["storageElements/local"]


def test_jobs_that_were_handed_in_before_one_is_refused_are_named(
    command: Command, client: gridlane.Client, tmp_path: Path, folder: str, files: list[str]
) -> None:
    lines = [f"{files[0]},{folder}/x.csv", "LFN:/nowhere/a,LFN:/nowhere/b"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    done = command("transfer", "submit", "--from", "list.csv", "--files-per-job", "1")
    assert (done.code, done.out) == (65, "")
    _, _, name = done.err.splitlines()[0].partition("handed in before: ")
    assert client.transfers.get(name).files[0].target == f"{folder}/x.csv"


def test_of_a_long_list_each_wrong_line_is_named_until_there_are_too_many(
    command: Command, tmp_path: Path, folder: str
) -> None:
    lines = [f"davs://nowhere.invalid/{n},{folder}/{n}.csv" for n in range(2_500)]
    (tmp_path / "list.csv").write_text("\n".join(["source,target", *lines]))
    done = command("transfer", "submit", "--from", "list.csv")
    head, *problems = done.err.splitlines()
    assert (done.code, head) == (65, "error NO_STORAGE_ELEMENT: the request is wrong")
    first = "no storage element serves davs://nowhere.invalid/0"
    assert problems[0] == f"  - list.csv, line 2, source: {first}"
    left = [one for one in problems if one.startswith("  - … and ")]
    assert len(left) == 1
    assert left[0].endswith(" more")


def test_why_a_file_failed_is_told_at_the_end_and_by_the_exit_code(
    command: Command, folder: str
) -> None:
    done = command("transfer", "submit", "--wait", f"{folder}/none", f"{folder}/out")
    assert done.code == 65
    assert "CATALOGUE" in done.err
    watched = command("transfer", "watch", done.out.split()[0])
    assert (watched.code, "CATALOGUE" in watched.out) == (65, True)


def test_who_waits_no_longer_is_told_what_goes_on(
    terminal: Command, client: gridlane.Client, folder: str, files: list[str]
) -> None:
    name = f"wait-{uuid7()[-12:]}"
    element = StorageElement(vo_paths={"local": f"/local/{name}"})
    element.endpoints.add(base_url=f"davs://{name}.invalid/data")
    client.storage_settings.create(name, element)
    channel = Channel(source="*", target=name, state=ChannelState.CHANNEL_STATE_STOPPED)
    client.channels.create(name, channel)
    target = f"davs://{name}.invalid/data/local/{name}/x"
    shown = terminal("transfer", "submit", "--wait", files[0], target)
    shown.wait_for("0 of 1 files")
    shown.press(b"\x03")
    assert shown.wait() == 130
    _, _, told = shown.shown.partition("gridlane transfer watch ")
    job = "".join(told.split())[: len("transfers/") + 36]
    assert client.transfers.cancel(job).file_count == 1
    client.transfers.wait(job, timeout=30)
    # Others, who share the server, look at all that it has.
    client.channels.delete(name)
    client.storage_settings.delete(name)


@pytest.mark.parametrize(
    "arguments",
    [
        ("transfer", "watch", "01a20343-0486-7398-bb00-071eaf29d06e"),
        ("get", "LFN:/local/x"),
        ("channel", "list"),
    ],
)
def test_a_server_that_is_away_is_given_up_soon(
    command: Command, arguments: tuple[str, ...]
) -> None:
    begun = time.monotonic()
    done = command(*arguments, env={"GRIDLANE_ADDRESS": "127.0.0.1:1"})
    assert (done.code, "gridlane-server all" in done.err) == (69, True)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(("typed", "offered"), [("CAT", "CATALOG_FAILED"), ("re", "ready")])
def test_a_shell_completes_states(command: Command, typed: str, offered: str) -> None:
    words = ("gridlane", "transfer", "show", "x", "--state", typed)
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    told = command(env={**asked, "_GRIDLANE_COMPLETE": "complete_bash"})
    assert offered in told.out.split()
