"""`gridlane transfer`: handed in one by one and in lists, followed, explained, tried again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gridlane

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
    assert command("transfer", "submit", "a:b", "c:d", "--tag", "x").code == 64
    assert command("transfer", "cancel", "a", "b", "--file", "1").code == 64
    assert command("transfer", "cancel", "a", "b", "--reason", "late").code == 64
    assert command("transfer", "cancel", "a", "--file", "1", "--reason", "late").code == 64
    assert command("transfer", "submit", "--from", "none.csv").code == 65


def test_what_failed_is_tried_again(
    command: Command, client: gridlane.Client, folder: str, files: list[str]
) -> None:
    job = client.transfers.submit(
        gridlane.new_transfer({f"{folder}/late.csv": f"{folder}/out.csv", files[0]: f"{folder}/o"})
    )
    client.transfers.wait(job.name, timeout=30)
    client.storage.put(b"now", f"{folder}/late.csv")
    done = command("transfer", "retry", job.name, "--wait", "-o", "json")
    assert done.code == 0, done.err
    assert done.json[0]["retry_of"] == job.name
    summary = command("transfer", "summary", job.name, "-o", "json").json
    assert (summary["job_count"], summary["file_count"]) == ("1", "2")
    assert summary["failures"][0]["examples"] == [f"{job.name}/files/1"]
    assert "CATALOGUE" in command("transfer", "summary", job.name).out


def test_jobs_and_files_are_cancelled(
    command: Command, client: gridlane.Client, folder: str, files: list[str]
) -> None:
    jobs = [
        client.transfers.submit(gridlane.new_transfer({files[0]: f"{folder}/c{n}"})).name
        for n in range(2)
    ]
    done = command("transfer", "cancel", *jobs)
    assert (done.code, [line.split()[0] for line in done.out.splitlines()]) == (0, jobs)
    file = command("transfer", "cancel", jobs[0], "--file", "1", "--file", "7")
    assert (file.code, file.out.split()[0]) == (65, f"{jobs[0]}/files/1")
    released = command("transfer", "release", jobs[0], "-o", "json")
    assert (released.code, released.json) == (0, {"released_files": 0})
    assert command("transfer", "update", jobs[0], "--priority", "5").code == 65  # it has ended
    assert command("transfer", "watch", "--bar", jobs[0]).code in (0, 130)


def test_the_facade_hands_in_many_jobs_and_large_ones(client: gridlane.Client, folder: str) -> None:
    large = gridlane.new_transfer({f"{folder}/n{n}": f"{folder}/o{n}" for n in range(1500)})
    small = [gridlane.new_transfer({f"{folder}/x{n}": f"{folder}/y{n}"}) for n in range(3)]
    wrong = gridlane.new_transfer({"srm://nowhere/a": f"{folder}/z"})
    results = client.transfers.submit_many([small[0], large, wrong, *small[1:]])
    counts = [getattr(one, "file_count", None) for one in results]
    assert counts == [1, 1500, None, 1, 1]
    assert isinstance(results[2], gridlane.InvalidArgument)
    jobs = [one.name for one in results if not isinstance(one, Exception)]
    canceled = client.transfers.cancel_many(jobs)
    assert not any(isinstance(one, Exception) for one in canceled)
    last = client.transfers.wait(jobs[1], timeout=60)
    assert client.transfers.file(f"{last.name}/files/1500").target == f"{folder}/o1499"
    listed = list(client.transfers.files(last.name, state="ACTIVE"))
    assert listed == []
