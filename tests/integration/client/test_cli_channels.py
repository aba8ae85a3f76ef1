"""The commands that make, change and remove channels and share places, against a real server."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.ids import uuid7
from gridlane.transfer.v1.channel_pb2 import Channel

Command = Callable[..., Any]


@pytest.fixture
def name(client: gridlane.Client) -> Iterator[str]:
    """Of a channel that no other test knows; gone in the end."""
    name = f"c{uuid7()}"
    yield name
    with suppress(gridlane.NotFound):
        client.channels.delete(name)


def test_a_channel_is_made_looked_at_changed_and_removed(command: Command, name: str) -> None:
    made = command(
        "channel", "create", name, "--from", "jobs", "--to", "jobs", "--max-files", "7",
        "--share", "atlas=70", "--share", "*=1", "--on-exhausted", "hold", "--retries", "0",
        "--retry-delay", "90s", "--bandwidth", "100M", "--optimizer", "moderate",
        "--most-files", "9", "--contact", "ops@example.org", "--reason", "more ways", "-o", "json",
    ).json  # fmt: skip
    assert made["name"] == f"channels/{name}"
    assert made["vo_shares"] == {"atlas": 70, "*": 1}
    assert (made["max_files"], made["default_max_retries"]) == (7, 0)
    assert made["default_retry_delay"] == "90s"
    assert made["max_bandwidth_bytes_per_second"] == str(100 << 20)
    assert made["optimizer"] == {
        "mode": "OPTIMIZER_MODE_MODERATE",
        "min_files": 2,
        "max_files": 9,
    }
    shown = command("channel", "show", name)
    for text in (name, "*=1, atlas=70", "moderate, 2 to 9 files", "hold", "0 of 7", "90 s"):
        assert text in shown.out
    assert name in command("channel", "list").out
    changed = command(
        "channel", "update", name, "--no-shares", "--optimizer", "none", "--state", "drain",
        "-o", "json",
    ).json  # fmt: skip
    assert "vo_shares" not in changed
    assert "optimizer" not in changed
    assert changed["state"] == "CHANNEL_STATE_DRAIN"
    assert changed["max_files"] == 7
    assert command("channel", "delete", name, "-o", "json").json == {}
    assert command("channel", "show", name).code == 65


def test_the_audit_tells_who_changed_a_channel(command: Command, name: str) -> None:
    command("channel", "create", name, "--from", "jobs", "--to", "jobs", "--reason", "more ways")
    command("channel", "update", name, "--max-files", "7", "--reason", "slower")
    asked = ("audit", "list", "--service", "transfer", "--resource", f"channels/{name}")
    listed = command(*asked, "-o", "json").json
    assert [entry["reason"] for entry in listed] == ["slower", "more ways"]
    shown = command(*asked, "--since", "1h").out
    for text in ("CreateChannel", "UpdateChannel", "slower", "done"):
        assert text in shown
    entry = command("audit", "show", listed[0]["name"], "--service", "transfer")
    assert (entry.code, '"max_files": 7' in entry.out) == (0, True)
    assert "unchanged" not in entry.out
    # Each service has its own.
    assert command("audit", "show", listed[0]["name"]).code == 65
    assert command("audit", "list", "--resource", f"channels/{name}", "-o", "json").json == []
    assert command("audit", "list", "--service", "workload").code == 64
    nobody = command("audit", "list", "--service", "transfer", "--actor", "nobody")
    assert "no entries that you may see" in nobody.err


def test_a_shell_completes_the_service_of_an_audit(command: Command) -> None:
    asked = {"COMP_WORDS": "gridlane audit list --service tr", "COMP_CWORD": "4"}
    offered = command(env={**asked, "_GRIDLANE_COMPLETE": "complete_bash"}).out
    assert offered.split() == ["transfer"]


async def test_the_asyncio_client_reads_the_same_audit(
    embedded_server: EmbeddedServer, name: str, command: Command
) -> None:
    command("channel", "create", name, "--from", "jobs", "--to", "jobs", "--reason", "more ways")
    async with gridlane.AsyncClient(embedded_server.address, token=embedded_server.token) as client:
        found = client.audit.list(service="transfer", resource=f"channels/{name}")
        (entry,) = [entry async for entry in found]
        assert await client.audit.get(entry.name, service="transfer") == entry
        assert entry.reason == "more ways"


def test_held_files_and_managers_of_a_channel_are_listed(
    command: Command, client: gridlane.Client, name: str
) -> None:
    client.channels.create(name, Channel(source="jobs", target="jobs"))
    assert command("channel", "held", name, "-o", "json").json == []
    assert "no files are held" in command("channel", "held", name).err
    released = command("channel", "release", name, "--all", "-o", "json").json
    assert released == {"released_files": 0}
    assert "failed 0 files" in command("channel", "fail", name, "--all").out
    assert command("channel", "managers", name, "-o", "json").json == []
    command("role", "grant", "channel_manager", "ann", "--channel", name)
    (binding,) = command("channel", "managers", name, "-o", "json").json
    assert binding["subject"] == "ann"
    assert "ann" in command("channel", "managers", name).out


def test_the_shares_of_activities_are_shown_and_changed(command: Command) -> None:
    changed = command(
        "channel", "activities", "local", "--set", "Data Challenge=3", "--off", "-o", "json"
    ).json
    assert changed["activities"][0]["name"] == "vos/local/activities/Data%20Challenge"
    shown = command("channel", "activities", "local")
    assert "Data Challenge" in shown.out
    assert "not in force" in shown.err
    cleared = command("channel", "activities", "local", "--clear", "--on", "-o", "json").json
    assert "activities" not in cleared
    assert cleared["active"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "default"),
        ("update", "default", "--share", "atlas"),
        ("update", "default", "--share", "=7"),
        ("update", "default", "--most-files", "7"),
        ("update", "default", "--max-files", "0"),
        ("update", "default", "--share", "atlas=7", "--no-shares"),
        ("update", "default", "--bandwidth", "much"),
        ("release", "default"),
        ("fail", "default", "--all", "transfers/x/files/1"),
        ("create", "x", "--from", "local"),
        ("activities", "local", "--set", "x"),
        ("activities", "local", "--set", "x=1", "--clear"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(
    command: Command, arguments: tuple[str, ...]
) -> None:
    assert command("channel", *arguments).code == 64


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "x", "--from", "nowhere", "--to", "*"), 65),
        (("create", "default", "--from", "*", "--to", "*"), 65),
        (("update", "nowhere", "--contact", "x"), 65),
        (("update", "default", "--max-files", "10001"), 65),
        (("held", "nowhere"), 65),
        (("delete", "nowhere"), 65),
    ],
)
def test_what_the_server_refuses_has_its_exit_code(
    command: Command, arguments: tuple[str, ...], code: int
) -> None:
    assert command("channel", *arguments).code == code
