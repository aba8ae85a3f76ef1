"""The commands about signing keys, against a server of the test's own: its keys change."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.authorization.v1.signing_key_pb2 import SigningKeyState
from gridlane.ids import uuid7

PUBLISHED = SigningKeyState.SIGNING_KEY_STATE_PUBLISHED
ACTIVE = SigningKeyState.SIGNING_KEY_STATE_ACTIVE

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def embedded_server(start_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return start_server()


def test_a_key_is_replaced_announced_and_revoked(
    command: Callable[..., Any], terminal: Callable[..., Any]
) -> None:
    (first,) = command("key", "list", "-o", "json").json
    assert first["state"] == "SIGNING_KEY_STATE_ACTIVE"
    second = command("key", "rotate", "--reason", "yearly", "-o", "json").json
    assert second["name"] != first["name"]
    shown = command("key", "list").out.splitlines()
    assert shown[1].split()[:2] == [second["name"], "ACTIVE"]
    assert shown[2].split()[:2] == [first["name"], "RETIRED"]
    third = command("key", "rotate", "--publish-for", "1d")
    assert (third.code, "PUBLISHED" in third.out) == (0, True)
    waits = command("key", "rotate")
    assert (waits.code, "PRECONDITION" in waits.err) == (65, True)
    unasked = command("key", "rotate", "--revoke-present")
    assert (unasked.code, "--yes" in unasked.err) == (64, True)
    asked = terminal("key", "rotate", "--revoke-present")
    asked.wait_for("Go on?")
    asked.press(b"n\n")
    assert asked.wait() != 0
    states = {key["name"]: key["state"] for key in command("key", "list", "-o", "json").json}
    assert states[second["name"]] == "SIGNING_KEY_STATE_ACTIVE"
    asked = terminal("key", "rotate", "--revoke-present", "--reason", "lost")
    asked.wait_for("Go on?")
    asked.press(b"y\n")
    assert asked.wait() == 0
    states = {key["name"]: key["state"] for key in command("key", "list", "-o", "json").json}
    assert states[second["name"]] == "SIGNING_KEY_STATE_REVOKED"
    assert states[first["name"]] == "SIGNING_KEY_STATE_RETIRED"
    (entry,) = command("audit", "list", "--limit", "1", "-o", "json").json
    assert (entry["reason"], entry["method"].rpartition("/")[2]) == ("lost", "RotateSigningKey")


@pytest.mark.parametrize(
    "options",
    [
        ("--publish-for", "1d", "--revoke-present", "--yes"),
        ("--publish-for", "soon"),
        ("--publish-for", "0s"),
    ],
)
def test_what_makes_no_sense_is_a_matter_of_usage(
    command: Callable[..., Any], options: tuple[str, ...]
) -> None:
    assert command("key", "rotate", *options).code == 64


async def test_both_clients_rotate_and_list(embedded_server: EmbeddedServer) -> None:
    server, id_ = embedded_server, uuid7()
    with gridlane.Client(server.address, token_file=server.token_file) as client:
        made = client.keys.rotate(reason="a program", request_id=id_)
        assert client.keys.rotate(reason="a program", request_id=id_) == made
        assert json.loads(made.public_jwk)["kid"] == made.name.partition("/")[2]
        assert len(list(client.keys.list())) == 2
    async with gridlane.AsyncClient(server.address, token_file=server.token_file) as client:
        waiting = await client.keys.rotate(publish_for=timedelta(hours=1))
        assert waiting.state == PUBLISHED
        with pytest.raises(gridlane.FailedPrecondition):
            await client.keys.rotate()
        assert [key.name async for key in client.keys.list(limit=1)] == [waiting.name]
        assert (await client.keys.rotate(revoke_present=True)).state == ACTIVE
