"""`gridlane run` against a real server: files in and out, exit codes, Ctrl-C."""

import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.workload.v1.job_pb2 import JobState

Command = Callable[..., Any]
COMMAND = Path(sys.executable).with_name("gridlane")


def test_a_command_runs_on_local_files_and_leaves_local_files(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("a\nb\nc\n")
    ended = command(
        "run", "--input", "in.csv", "--output", "n.txt=out/n.txt", "--", "sh", "-c",
        "wc -l < in.csv > n.txt",
    )  # fmt: skip
    assert ended.code == 73, "the folder out/ is not there"
    (tmp_path / "out").mkdir()
    ended = command(
        "run", "--input", "in.csv", "--output", "n.txt=out/n.txt", "--", "sh", "-c",
        "wc -l < in.csv > n.txt",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "out/n.txt").read_text().strip() == "3"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["n.txt"]


def test_the_payloads_streams_are_the_commands(command: Command) -> None:
    ended = command("run", "--", "sh", "-c", "printf 'to out'; printf 'to err' >&2")
    assert (ended.code, ended.out, ended.err) == (0, "to out", "to err")


def test_progress_can_be_told_in_lines(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n")
    ended = command("run", "--lines", "--name", "lined", "--input", "in.csv", "--", "cat", "in.csv")
    assert (ended.code, ended.out) == (0, "a\n")
    told = [line.split(" s  ")[1] for line in ended.err.splitlines()]
    # Events of one service come in order; those of two may cross.
    job = [line for line in told if line.startswith("lined")]
    assert job[0] == "lined · RECEIVED · Job accepted"
    assert job[-1] == "lined · DONE · Execution Complete"
    assert len(job) == len(set(job))  # each says something new
    assert "↓ in.csv · FINISHED · 2 B" in told


def test_the_payloads_exit_code_is_the_commands(command: Command) -> None:
    ended = command("run", "--", "sh", "-c", "exit 7")
    assert ended.code == 7
    assert ended.err.startswith("error PAYLOAD_EXIT: ")
    assert "exit code 7" in ended.err


def test_a_payload_that_a_signal_ended_gives_128_and_its_number(command: Command) -> None:
    assert command("run", "--", "sh", "-c", "kill -SEGV $$").code == 139


def test_a_payload_that_outlives_its_walltime_gives_124(command: Command) -> None:
    ended = command("run", "--walltime", "1s", "--", "sleep", "30")
    assert ended.code == 124
    assert "WALLTIME_EXCEEDED" in ended.err


def test_a_command_that_does_not_exist_gives_127(command: Command) -> None:
    ended = command("run", "--", "no-such-command")
    assert ended.code == 127
    assert "no-such-command" in ended.err


def test_json_says_whose_the_exit_code_is(command: Command) -> None:
    ended = command("run", "--output", "json", "--", "sh", "-c", "echo unseen; exit 65")
    assert ended.code == 65
    assert (ended.json["exit_code"], ended.json["exit_code_of"]) == (65, "payload")
    ended = command("run", "--format", "json", "--input", "LFN:/local/none", "--", "true")
    assert (ended.json["exit_code"], ended.json["exit_code_of"]) == (65, "client")
    assert "LFN:/local/none" in ended.json["error"]["problems"][0]
    ended = command("run", "--output", "json", "--", "true")
    assert (ended.json["state"], ended.json["exit_code_of"]) == ("DONE", "payload")


def test_a_wrong_checksum_of_a_local_file_is_found_before_there_is_a_job(
    command: Command, client: gridlane.Client, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("bytes")
    newest = next(iter(client.jobs.list(limit=1)), None)
    ended = command("run", "--input", "in", "--checksum", "ADLER32:00000001", "--", "true")
    assert ended.code == 65
    assert f"ADLER32:{zlib.adler32(b'bytes'):08x}" in ended.err
    assert next(iter(client.jobs.list(limit=1)), None) == newest


def test_a_wrong_checksum_of_a_file_in_the_store_ends_the_job_before_the_payload(
    command: Command, client: gridlane.Client, folder: str
) -> None:
    client.storage.put(b"bytes", f"{folder}/in")
    ended = command(
        "run", "--input", f"{folder}/in", "--checksum", "ADLER32:00000001", "--", "echo", "ran"
    )
    assert (ended.code, ended.out) == (65, "")
    assert "ADLER32:00000001" in ended.err


def test_a_missing_input_is_named_and_leaves_no_job(
    command: Command, client: gridlane.Client, tmp_path: Path, folder: str
) -> None:
    newest = next(iter(client.jobs.list(limit=1)), None)
    (tmp_path / "there").write_text("x")
    before = [file.lfn for file in client.replicas.list("LFN:/local/user/")]
    ended = command("run", "--input", "there", "--input", f"{folder}/none", "--", "true")
    assert ended.code == 65
    assert f"{folder}/none" in ended.err
    assert command("run", "--input", "gone", "--", "true").code == 65
    assert next(iter(client.jobs.list(limit=1)), None) == newest
    assert [file.lfn for file in client.replicas.list("LFN:/local/user/")] == before


def test_a_target_that_cannot_be_written_is_named(
    command: Command, client: gridlane.Client, folder: str
) -> None:
    client.storage.put(b"a file as parent", f"{folder}/file")
    ended = command("run", "--output", f"o={folder}/file/below", "--", "sh", "-c", "date > o")
    assert ended.code == 73
    assert "STAGE_OUT" in ended.err


def test_what_is_at_a_target_is_replaced_only_when_asked(
    command: Command, client: gridlane.Client, folder: str
) -> None:
    client.storage.put(b"old", f"{folder}/o")
    write = ("--output", f"o={folder}/o", "--", "sh", "-c", "printf new > o")
    assert command("run", *write).code == 73
    assert b"".join(client.storage.read(f"{folder}/o")) == b"old"
    assert command("run", "--overwrite", *write).code == 0
    assert b"".join(client.storage.read(f"{folder}/o")) == b"new"


def test_an_output_that_was_not_made_is_missed(command: Command, tmp_path: Path) -> None:
    ended = command("run", "--output", "never=never", "--", "true")
    assert ended.code == 73
    assert "OUTPUT_MISSING" in ended.err
    assert not (tmp_path / "never").exists()


def test_a_path_of_the_servers_machine_is_not_read_for_anybody(command: Command) -> None:
    ended = command("run", "--input", "file:///etc/passwd", "--", "cat", "passwd")
    assert (ended.code, ended.out) == (65, "")


def test_variables_and_inputs_names_reach_the_payload(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    ended = command(
        "run", "--input", "in=data/x.txt", "--env", "WHO=me", "--env", "MINE", "--", "sh", "-c",
        "cat data/x.txt; echo \" $WHO $MINE\"", env={"MINE": "too"},
    )  # fmt: skip
    assert (ended.code, ended.out) == (0, "content me too\n")


def test_memory_is_limited(command: Command) -> None:
    ended = command("run", "--memory", "200M", "--", "python3", "-c", "x = bytearray(1 << 30)")
    assert ended.code == 1
    assert "MemoryError" in ended.err


def runs(client: gridlane.Client) -> list[str]:
    """What runs have in the store."""
    found = [file.lfn for file in client.replicas.list("LFN:/local/user/")]
    return sorted(lfn for lfn in found if "/runs/" in lfn and "/in/" in lfn)


@pytest.mark.parametrize("script", ["cat in", "exit 3"])
def test_a_local_input_leaves_the_store_when_its_job_has_ended(
    command: Command, client: gridlane.Client, tmp_path: Path, script: str
) -> None:
    (tmp_path / "in").write_text("content")
    before = runs(client)
    ended = command("run", "--format", "json", "--input", "in", "--", "sh", "-c", script)
    (given,) = ended.json["inputs"]
    assert given["source"].startswith("LFN:/local/user/")
    assert given["source"].endswith("/in/in")
    assert runs(client) == before
    with pytest.raises(gridlane.NotFound):
        b"".join(client.storage.read(given["source"]))


def test_an_input_of_a_detached_job_stays_and_is_named(
    command: Command, client: gridlane.Client, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("content")
    before = runs(client)
    ended = command("run", "--detach", "--input", "in", "--", "cat", "in")
    (kept,) = set(runs(client)) - set(before)
    assert f"gridlane rm {kept}" in ended.err
    assert command("logs", "--follow", ended.out.strip()).out == "content"
    assert command("rm", kept).code == 0


def test_an_input_of_a_job_that_is_left_stays_and_is_named(
    terminal: Command, client: gridlane.Client, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("content")
    before = runs(client)
    script = "trap '' TERM; echo started; sleep 60 & wait; sleep 60"
    shown = terminal("run", "--input", "in", "--", "sh", "-c", script)
    shown.wait_for("started")
    shown.press(b"\x03")
    shown.wait_for("cancelling")
    shown.press(b"\x03")
    assert shown.wait() == 130
    (kept,) = set(runs(client)) - set(before)
    assert f"gridlane rm {kept}" in shown.shown.replace("\r", "").replace("\n", "")
    client.storage.delete(kept)


def test_a_detached_job_is_named_and_goes_on(command: Command) -> None:
    ended = command("run", "--detach", "--", "sh", "-c", "sleep 1; echo later")
    name = ended.out.strip()
    assert ended.code == 0
    assert command("logs", "--follow", name).out == "later\n"
    watched = command("job", "watch", name)
    assert watched.code == 0
    assert "DONE" in watched.out.splitlines()[-1]


def test_a_server_that_is_not_there_gives_69_and_the_cure(command: Command) -> None:
    ended = command("run", "--", "true", env={"GRIDLANE_ADDRESS": "127.0.0.1:1"})
    assert ended.code == 69
    assert "GRIDLANE_ADDRESS" in ended.err


def test_no_token_and_a_wrong_token_give_77(command: Command, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("nonsense")
    wrong = {"BEARER_TOKEN_FILE": str(tmp_path / "wrong")}
    for env in (wrong, {"BEARER_TOKEN_FILE": str(tmp_path / "gone")}):
        ended = command("run", "--", "true", env=env)
        assert ended.code == 77, ended.err


def test_a_terminal_shows_progress_and_the_payloads_lines(
    terminal: Command, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("x")
    shown = terminal(
        "run", "--input", "in.csv", "--name", "pictured", "--", "sh", "-c", "echo one; sleep 1"
    )
    assert shown.wait() == 0
    for text in ("pictured", "RUNNING", "↓ in.csv", "FINISHED", "one", "done in"):
        assert text in shown.shown


def test_ctrl_c_cancels_the_job_and_waits_until_it_is_killed(
    terminal: Command, client: gridlane.Client
) -> None:
    shown = terminal("run", "--name", "cancelled", "--", "sh", "-c", "echo started; sleep 60")
    shown.wait_for("started")
    shown.press(b"\x03")
    assert shown.wait() == 130
    assert "is KILLED" in shown.shown
    job = next(j for j in client.jobs.list() if j.description.display_name == "cancelled")
    assert job.state == JobState.JOB_STATE_KILLED


def test_the_second_ctrl_c_leaves_at_once(terminal: Command, client: gridlane.Client) -> None:
    script = "trap '' TERM; echo started; sleep 60 & wait; sleep 60"
    shown = terminal("run", "--name", "left", "--", "sh", "-c", script)
    shown.wait_for("started")
    shown.press(b"\x03")
    shown.wait_for("cancelling")
    shown.press(b"\x03")
    assert shown.wait() == 130
    assert "is being cancelled" in shown.shown
    job = next(j for j in client.jobs.list() if j.description.display_name == "left")
    assert client.jobs.wait(job.name, timeout=30).state == JobState.JOB_STATE_KILLED


def test_a_full_disk_here_leaves_the_output_in_the_store_and_nothing_half_written(
    command: Command, client: gridlane.Client, small_disk: Path
) -> None:
    script = "head -c 3000000 /dev/zero > big"
    ended = command(
        "run", "--output", f"big={small_disk}/big", "--format", "json", "--", "sh", "-c", script
    )
    assert ended.code == 74, ended
    assert list(small_disk.iterdir()) == []
    kept = ended.json["outputs"][0]["target"]
    assert sum(len(part) for part in client.storage.read(kept)) == 3_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk can be made by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_run_goes_on_over_the_servers_death_and_return(
    start_server: Callable[[], EmbeddedServer], environment: dict[str, str], tmp_path: Path
) -> None:
    server = start_server()
    server.port = int(server.address.rpartition(":")[2])
    own = {
        **environment,
        "GRIDLANE_ADDRESS": server.address,
        "BEARER_TOKEN_FILE": str(server.token_file),
    }
    script = "echo before; touch out; sleep 4; echo after"
    running = subprocess.Popen(
        [COMMAND, "run", "--output", "out=out", "--", "sh", "-c", script],
        env=own,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "before\n"
    server.kill()
    server.start()
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (0, "after\n", "")
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there(command: Command, shell: str) -> None:
    ended = command(env={"_GRIDLANE_COMPLETE": f"source_{shell}"})
    assert ended.code == 0
    assert "_GRIDLANE_COMPLETE" in ended.out
