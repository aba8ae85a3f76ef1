"""`gridlane replica`: copies registered and taken out, one by one and in lists."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gridlane

Command = Callable[..., Any]
CONTENT = b"1,2\n"
ADLER32 = "ADLER32:01ba009a"


@pytest.fixture
def copies(client: gridlane.Client, folder: str) -> dict[str, str]:
    """Files in the store that nobody has registered any more: URLs by logical names."""
    found = {}
    for name in ("a", "b", "c"):
        stored = client.storage.put(CONTENT, f"{folder}/{name}.csv")
        client.replicas.unregister(stored.lfn, stored.url)
        found[stored.lfn] = stored.url
    return found


def rows(copies: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"lfn": lfn, "url": url, "size_bytes": str(len(CONTENT)), "checksum": ADLER32}
        for lfn, url in copies.items()
    ]


def write(path: Path, lines: list[dict[str, str]]) -> None:
    if path.suffix == ".csv":
        text = [",".join(lines[0]), *(",".join(line.values()) for line in lines)]
    else:
        text = [json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n")


def test_one_copy_is_registered_shown_and_taken_out(
    command: Command, copies: dict[str, str]
) -> None:
    lfn, url = next(iter(copies.items()))
    given = ("--size", "4", "--checksum", ADLER32)
    guid = gridlane.uuid7()
    done = command("replica", "register", lfn, url, *given, "--guid", guid.upper())
    assert (done.code, done.out.strip()) == (0, lfn), done.err
    shown = command("replica", "show", lfn)
    assert guid in shown.out
    assert command("replica", "show", lfn, "-o", "json").json["replicas"][0]["url"] == url
    again = command("replica", "register", lfn, url, *given, "-o", "json")
    assert [file["guid"] for file in again.json] == [guid]
    other = command("replica", "register", lfn, url, "--size", "5", "--checksum", ADLER32)
    assert other.code == 65
    assert "ALREADY_EXISTS" in other.err
    assert command("replica", "unregister", lfn, "local").out == "took out 1 copy\n"
    assert command("replica", "unregister", lfn, url).code == 65
    forced = command("replica", "unregister", lfn, url, "--force", "-o", "json")
    assert (forced.code, forced.json) == (0, {"unregistered": 0})


@pytest.mark.parametrize("written", ["csv", "jsonl"])
def test_a_list_is_registered_and_taken_out(
    command: Command, tmp_path: Path, copies: dict[str, str], written: str, folder: str
) -> None:
    write(tmp_path / f"in.{written}", rows(copies))
    done = command("replica", "register", "--from", f"in.{written}")
    assert (done.code, done.out) == (0, "registered 3 copies\n"), done.err
    listed = command("replica", "list", f"{folder}/", "-o", "json").json
    assert [file["lfn"] for file in listed] == sorted(copies)
    out = [{"lfn": lfn, "replica": url} for lfn, url in copies.items()]
    write(tmp_path / f"out.{written}", out)
    done = command("replica", "unregister", "--from", f"out.{written}")
    assert (done.code, done.out) == (0, "took out 3 copies\n"), done.err
    assert command("replica", "list", f"{folder}/").out == ""


def test_what_is_refused_of_a_list_is_told_by_its_line(
    command: Command, tmp_path: Path, copies: dict[str, str]
) -> None:
    lines = rows(copies)
    lines[1]["url"] = "file:///nowhere/b.csv"
    write(tmp_path / "in.csv", lines)
    done = command("replica", "register", "--from", "in.csv")
    assert done.code == 65
    assert done.out == "registered 2 copies\n"
    assert "in.csv, line 3: " in done.err
    told = command("replica", "register", "--from", "in.csv", "-o", "json").json
    assert told["error"]["reason"] == "NO_STORAGE_ELEMENT"
    assert [file["lfn"] for file in told["done"]] == [lines[0]["lfn"], lines[2]["lfn"]]
    out = [{"lfn": line["lfn"], "replica": "local"} for line in lines]
    write(tmp_path / "out.jsonl", out)
    gone = command("replica", "unregister", "--from", "out.jsonl")
    assert (gone.code, gone.out) == (65, "took out 2 copies\n")
    assert "out.jsonl, line 2: " in gone.err
    assert command("replica", "unregister", "--from", "out.jsonl", "--force").code == 0


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "lfn,url\nLFN:/local/x,file:///x\n", "a.csv, line 2: size_bytes, checksum"),
        ("a.csv", "lfn,uri\n", "a.csv, line 1: no such columns: uri"),
        ("a.jsonl", '{"lfn": "LFN:/local/x"', "a.jsonl, line 1: no JSON"),
        (
            "a.jsonl",
            '{"lfn": "LFN:/x/y", "url": "a:b", "size_bytes": 1, "checksum": "MD5:1"}',
            "a.jsonl, line 1: checksum",
        ),
        ("a.csv", "\n", "the list has no copies"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_sent(
    command: Command, tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    done = command("replica", "register", "--from", name)
    assert done.code == 65
    assert told in done.err


def test_what_is_missing_on_the_command_line_is_said(command: Command, tmp_path: Path) -> None:
    for given in (
        ("register", "LFN:/local/x"),
        ("register", "LFN:/local/x", "--from", "a.csv"),
        ("unregister", "LFN:/local/x"),
        ("unregister", "LFN:/local/x", "local", "--from", "a.csv"),
        ("register", "--from", "-"),
    ):
        assert command("replica", *given).code == 64, given
