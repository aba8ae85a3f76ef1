"""The commands that make, change, ban and remove storage elements, against a real server."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.ids import uuid7
from gridlane.storage_words import access_of, ban_action_of, checksums_of, operations_of
from gridlane.transfer.v1.storage_element_pb2 import StorageElement, StorageOperation

Command = Callable[..., Any]


@pytest.fixture
def name(client: gridlane.Client) -> Iterator[str]:
    """Of a storage element that no other test knows; gone in the end."""
    name = f"e{uuid7()}"
    yield name
    with suppress(gridlane.NotFound):
        client.storage_settings.delete(name)


def url(name: str) -> str:
    """Where nobody is."""
    return f"https://{name}.invalid/data"


def test_an_element_is_made_looked_at_changed_and_removed(command: Command, name: str) -> None:
    made = command(
        "storage", "create", name, "--endpoint", url(name),
        "--endpoint", f"davs://{name}.invalid:2880/data=read,check", "--vo-path", "atlas=/atlas",
        "--site", "DESY-HH", "--max-active-in", "7", "--max-rate-in", "100M", "--checksum", "md5",
        "--reason", "more room", "-o", "json",
    ).json  # fmt: skip
    assert made["name"] == f"storageElements/{name}"
    assert [one["base_url"] for one in made["endpoints"]] == [
        url(name),
        f"davs://{name}.invalid:2880/data",
    ]
    assert made["endpoints"][1]["operations"] == [
        "STORAGE_OPERATION_READ",
        "STORAGE_OPERATION_CHECK",
    ]
    assert made["limits"] == {
        "max_active_in": 7,
        "max_bandwidth_in_bytes_per_second": str(100 << 20),
    }
    shown = command("storage", "show", name)
    for text in (name, "DESY-HH", "atlas: LFN:/atlas", "read, check", "MD5", "max active in"):
        assert text in shown.out
    assert name in command("storage", "list").out
    changed = command(
        "storage", "update", name, "--site", "", "--draining", "--write", "probing", "-o", "json"
    ).json
    assert "site" not in changed
    assert changed["draining"] is True
    assert changed["access"]["write"] == "ACCESS_STATE_PROBING"
    assert changed["limits"] == made["limits"]
    stale = command("storage", "update", name, "--site", "X", "--revision", made["revision"])
    assert (stale.code, "REVISION_CONFLICT" in stale.err) == (75, True)
    assert command("storage", "update", name).code == 64
    assert command("storage", "delete", name, "--reason", "retired").code == 0
    assert command("storage", "show", name).code == 65
    assert command("storage", "delete", name).code == 65


def test_what_is_only_checked_is_not_made(command: Command, name: str) -> None:
    checked = command(
        "storage", "create", name, "--endpoint", url(name), "--check", "-o", "json"
    ).json
    assert "revision" not in checked
    assert command("storage", "show", name).code == 65


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("https://127.0.0.1/data", "ADDRESS_FORBIDDEN"),
        ("https://169.254.169.254/latest", "ADDRESS_FORBIDDEN"),
        ("file:///etc", "ADDRESS_FORBIDDEN"),
        ("srm://storage.invalid/data", "CAPABILITY_MISSING"),
        ("https://me:secret@storage.invalid/data", "INVALID_FIELDS"),
        ("https://storage.invalid/data/../x", "INVALID_FIELDS"),
    ],
)
def test_what_may_not_be_reached_is_refused(
    command: Command, name: str, endpoint: str, reason: str
) -> None:
    refused = command("storage", "create", name, "--endpoint", endpoint)
    assert (refused.code, reason in refused.err) == (65, True)


def test_wrong_options_are_told(command: Command, name: str) -> None:
    for options in (
        ("--endpoint", f"{url(name)}=fly"),
        ("--endpoint", "storage.invalid/data"),
        ("--endpoint", url(name), "--vo-path", "atlas"),
        ("--endpoint", url(name), "--vo-path", "atlas=atlas"),
        ("--endpoint", url(name), "--checksum", "crc7"),
        ("--endpoint", url(name), "--max-rate-in", "fast"),
    ):
        assert command("storage", "create", name, *options).code == 64
    assert command("storage", "create", name).code == 64
    assert command("storage", "ban", name).code == 64
    for options in (("--operation", "reed"), ("--wait", "long"), ("--for", "ever")):
        assert command("storage", "ban", name, "--reason", "x", *options).code == 64


def test_limits_are_shown_with_their_units(command: Command, name: str) -> None:
    options = ("--endpoint", url(name), "--max-active-in", "3", "--max-rate-out", "100M")
    shown = command("storage", "create", name, *options)
    assert shown.code == 0, shown.err
    assert ["max", "active", "in", "3"] in [line.split() for line in shown.out.splitlines()]
    assert "100.0 MiB/s" in shown.out


def test_a_shell_completes_operations_of_storage(command: Command) -> None:
    words = ("gridlane", "storage", "ban", "x", "--operation", "w")
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    offered = command(env={**asked, "_GRIDLANE_COMPLETE": "complete_bash"})
    assert offered.out.split() == ["write"]


def test_an_element_is_banned_and_unbanned(command: Command, name: str) -> None:
    assert command("storage", "create", name, "--endpoint", url(name)).code == 0
    made = command(
        "storage", "ban", name, "--reason", "repair", "--operation", "write", "--wait", "12h",
        "--accept", "--for", "2d", "-o", "json",
    ).json  # fmt: skip
    assert made["operations"] == ["STORAGE_OPERATION_WRITE"]
    assert (made["wait_timeout"], made["accept_submissions"]) == ("43200s", True)
    assert command("storage", "ban", name, "--reason", "gone", "--action", "cancel").code == 0
    listed = command("storage", "bans", name)
    _, _, ban = made["name"].partition("/bans/")
    assert f"{name}/{ban}" in listed.out  # as `unban` takes it
    assert "cancel" in listed.out
    assert len(command("storage", "bans", name, "-o", "json").json) == 2
    assert "banned" in command("storage", "show", name).out
    assert command("storage", "unban", f"{name}/{ban}").code == 0
    assert command("storage", "unban", made["name"]).code == 65
    assert "lifted 1 ban" in command("storage", "unban", name, "--reason", "repaired").out
    assert command("storage", "bans", name, "-o", "json").json == []
    assert command("storage", "bans", f"{name}-none").code == 65


async def test_the_facade_does_the_same_beneath_asyncio(
    embedded_server: EmbeddedServer, name: str
) -> None:
    async with gridlane.AsyncClient(embedded_server.address, token=embedded_server.token) as client:
        await manage(client, name)


async def manage(client: gridlane.AsyncClient, name: str) -> None:
    settings = client.storage_settings
    wanted = StorageElement(site="DESY")
    wanted.endpoints.add(base_url=url(name))
    made = await settings.create(name, wanted)
    assert (await client.storage.element(name)).revision == made.revision
    changed = await settings.update(name, StorageElement(), fields=["site"], revision=made.revision)
    assert changed.site == ""
    with pytest.raises(gridlane.Aborted):
        await settings.delete(name, revision=made.revision)
    until = datetime.now(UTC) + timedelta(hours=1)
    ban = await settings.ban(
        name, "repair", operations=["read"], wait_timeout=timedelta(minutes=5), expire_time=until
    )
    assert [one.name async for one in settings.bans(name)] == [ban.name]
    assert list(ban.operations) == [StorageOperation.STORAGE_OPERATION_READ]
    await settings.unban(f"{name}/{ban.name.rpartition('/')[2]}")
    await settings.delete(name)


def test_words_are_the_contracts() -> None:
    assert operations_of(["read", "Third-Party-Write"]) == [1, 6]
    assert (access_of("probing"), ban_action_of("wait"), checksums_of(["md5"])) == (3, 2, [3])
    for wrong in (lambda: operations_of(["fly"]), lambda: ban_action_of("unspecified")):
        with pytest.raises(ValueError, match="expected one of"):
            wrong()
