"""The commands that look, put, get and remove, against a real server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gridlane

Command = Callable[..., Any]


@pytest.fixture
def job(client: gridlane.Client, folder: str) -> str:
    """A job that was done, with an input and an output."""
    client.storage.put(b"1,2\n", f"{folder}/in.csv")
    made = gridlane.new_job(
        ["sh", "-c", "cp in.csv out.csv; echo said; echo complained >&2"],
        name="looked at",
        inputs={"in.csv": f"{folder}/in.csv"},
        outputs={"out.csv": f"{folder}/out.csv"},
    )
    task = client.tasks.wait(client.tasks.submit(made).name, timeout=30)
    return task.job.name


def test_bytes_go_in_and_come_out_the_same(command: Command, tmp_path: Path, folder: str) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a.bin").write_bytes(content)
    put = command("put", "a.bin", f"{folder}/", "--output", "json")
    assert (put.code, put.json["lfn"]) == (0, f"{folder}/a.bin")
    assert command("get", f"{folder}/a.bin", "b.bin").code == 0
    assert (tmp_path / "b.bin").read_bytes() == content
    shown = command("replica", "show", f"{folder}/a.bin", "-o", "json").json
    assert int(shown["size_bytes"]) == len(content)
    assert command("rm", f"{folder}/a.bin").code == 0
    assert command("get", f"{folder}/a.bin", "c.bin").code == 65
    assert command("rm", f"{folder}/a.bin").code == 65
    assert command("rm", "--force", f"{folder}/a.bin").code == 0
    assert not (tmp_path / "c.bin").exists()


def test_what_is_got_is_told_as_the_contracts_write_it(
    command: Command, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "a").write_text("one")
    put = command("put", "a", f"{folder}/a", "-o", "json").json
    got = command("get", f"{folder}/a", "b", "-o", "json").json
    assert got["path"] == "b"
    assert (got["size_bytes"], got["checksum"]) == (put["size_bytes"], put["checksum"])


def test_one_file_that_cannot_be_removed_does_not_keep_the_others(
    command: Command, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "a").write_text("one")
    assert command("put", "a", f"{folder}/a").code == 0
    removed = command("rm", f"{folder}/none", f"{folder}/a", f"{folder}/nor", "-o", "json")
    assert removed.code == 65
    assert [one["message"] for one in removed.json["errors"]] == [
        f"there is no {folder}/none",
        f"there is no {folder}/nor",
    ]
    assert command("get", f"{folder}/a", "b").code == 65
    assert command("rm", "--force", f"{folder}/a", "-o", "json").json == {}


def test_a_local_file_that_cannot_be_is_named(
    command: Command, tmp_path: Path, folder: str
) -> None:
    missing = command("put", "nothing", f"{folder}/a")
    assert (missing.code, "nothing: No such file" in missing.err) == (65, True)
    (tmp_path / "a").write_text("one")
    assert command("put", "a", f"{folder}/a").code == 0
    nowhere = command("get", f"{folder}/a", "nowhere/a")
    assert (nowhere.code, "nowhere: No such file" in nowhere.err) == (73, True)


def test_other_bytes_are_replaced_only_when_asked(
    command: Command, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "a").write_text("one")
    assert command("put", "a", f"{folder}/a").code == 0
    assert command("put", "a", f"{folder}/a").code == 0, "the same bytes again are well"
    (tmp_path / "a").write_text("two")
    refused = command("put", "a", f"{folder}/a")
    assert refused.code == 65
    assert "ALREADY_EXISTS" in refused.err
    assert "--overwrite" in refused.err
    assert command("put", "--overwrite", "a", f"{folder}/a").code == 0


def test_what_nothing_serves_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    for target in ("LFN:/nobody/a", "srm://example.org/a", "file:///etc/a", "LFN:/local/../../a"):
        ended = command("put", "a", target)
        assert ended.code in (65, 77), (target, ended)


def test_a_job_is_listed_and_shown(command: Command, job: str) -> None:
    listed = command("job", "list", "--state", "done", "--output", "json").json
    assert job in [one["name"] for one in listed]
    assert job in command("job", "list").out
    shown = command("job", "show", job)
    assert "looked at" in shown.out
    assert command("job", "show", job, "-o", "json").json["state"] == "JOB_STATE_DONE"


def test_a_jobs_streams_are_printed_byte_for_byte(command: Command, job: str) -> None:
    assert command("logs", job).out == "said\n"
    assert command("logs", "--stderr", job).out == "complained\n"


def test_a_watch_tells_the_whole_history_and_ends(command: Command, job: str) -> None:
    events = [
        json.loads(line) for line in command("job", "watch", job, "-o", "json").out.splitlines()
    ]
    states = [event["state"].removeprefix("JOB_STATE_") for event in events]
    assert states[0] == "RECEIVED"
    assert states[-1] == "DONE"
    assert len({event["event_id"] for event in events}) == len(events)


def test_a_running_job_is_killed(command: Command, client: gridlane.Client) -> None:
    name = client.tasks.submit(gridlane.new_job("sleep 60")).job.name
    ended = command("job", "kill", name, "--reason", "wrong dataset")
    assert (ended.code, ended.out.split()) == (0, [name, "KILLED"])
    assert "wrong dataset" in command("job", "show", name).out
    assert "wrong dataset" in command("job", "watch", name).out


def test_transfers_of_a_job_are_found(command: Command, job: str) -> None:
    found = command("transfer", "list", "--job", job, "-o", "json").json
    assert len(found) == 2
    shown = command("transfer", "show", found[0]["name"])
    assert "FINISHED" in shown.out
    assert command("transfer", "cancel", found[0]["name"]).code == 0, "it has ended already"
    assert command("transfer", "cancel", found[0]["name"], "--reason", "x" * 1025).code == 65
    assert "FINISHED" in command("transfer", "watch", found[0]["name"]).out


def test_a_job_is_accounted(command: Command, job: str) -> None:
    kinds: set[str] = set()
    for _ in range(20):  # records follow the work
        kinds = {
            kind
            for record in command("report", job, "--output", "json").json
            for kind in ("job_usage", "data_operation")
            if kind in record
        }
        if kinds == {"job_usage", "data_operation"}:
            break
    assert kinds == {"job_usage", "data_operation"}
    assert "DONE" in command("report", job).out


def test_the_story_is_drawn_from_the_clients_call_on(command: Command, job: str) -> None:
    drawn = command("trace", job)
    assert drawn.code == 0
    lines = drawn.out.splitlines()
    assert "client" in lines[1]
    for text in ("RECEIVED", "RUNNING", "DONE", "local → jobs", "jobs → local"):
        assert text in drawn.out
    told = command("trace", job, "-o", "json").json
    assert told["trace_id"] == told["job"]["trace_id"]


def test_who_i_am_and_how_all_is(command: Command) -> None:
    who = command("whoami", "-o", "json").json
    assert who["principal"]["vos"] == ["local"]
    assert "Submitter of local" in command("whoami").out
    ping = command("ping", "-o", "json")
    assert ping.code == 0
    names = {service["service"] for service in ping.json["services"]}
    assert names == {"authorization", "transfer", "workload", "reporting"}
    assert "embedded" in command("ping").out


def test_storage_channels_and_replicas_are_listed(
    command: Command, client: gridlane.Client, folder: str
) -> None:
    client.storage.put(b"x", f"{folder}/x")
    assert "LFN:/local" in command("storage", "list").out
    assert "default" in command("channel", "list").out
    assert command("channel", "show", "default").code == 0
    assert f"{folder}/x" in command("replica", "list", f"{folder}/").out
    assert command("replica", "show", f"{folder}/y").code == 65


@pytest.mark.parametrize(
    "arguments",
    [("job", "show"), ("job", "kill"), ("logs",), ("trace",), ("job", "watch")],
    ids=" ".join,
)
def test_a_job_that_is_not_there_gives_65_and_one_message(
    command: Command, arguments: tuple[str, ...]
) -> None:
    ended = command(*arguments, "jobs/019a0000-0000-7000-8000-000000000000")
    assert (ended.code, ended.out) == (65, "")
    assert ended.err.startswith("error NOT_FOUND: ")


def test_output_that_nobody_reads_is_no_error_worth_a_traceback(
    environment: dict[str, str],
) -> None:
    gridlane_command = Path(sys.executable).with_name("gridlane")
    done = subprocess.run(
        ["bash", "-c", f"{gridlane_command} ping -o json | true"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
