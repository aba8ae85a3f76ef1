"""Tokens for users through the facade and the commands, against a real server."""

from collections.abc import Callable
from typing import Any

import pytest

import gridlane
from gridlane.ids import uuid7

Command = Callable[..., Any]


@pytest.fixture
def user() -> str:
    """A user of whom nobody has heard before."""
    return f"user-{uuid7()}"


def test_a_token_is_created_used_narrowed_and_revoked(client: gridlane.Client, user: str) -> None:
    made = client.tokens.create(user, vos=["local"], scopes=["compute.read", "compute.create"])
    with gridlane.Client(client.configuration.addresses.default, token=made.token) as theirs:
        assert theirs.whoami().principal.subject == user
        narrow = theirs.tokens.exchange(scopes=["compute.read"])
        assert [t.name for t in theirs.tokens.list()] == [narrow.resource.name, made.resource.name]
        gone = client.tokens.revoke(made.resource.name, reason="lost")
        assert gone.HasField("revoke_time")
        with pytest.raises(gridlane.errors.Unauthenticated) as refused:
            theirs.whoami()
        assert refused.value.reason == "TOKEN_INVALID"
    listed = list(client.tokens.list(subject=user))
    assert all(token.HasField("revoke_time") for token in listed)
    assert len(listed) == 2


def test_a_command_writes_the_token_alone(
    command: Command, client: gridlane.Client, user: str
) -> None:
    ended = command("token", "create", user, "--vo", "local", "--for", "1h", "--reason", "a robot")
    assert ended.code == 0
    address = client.configuration.addresses.default
    with gridlane.Client(address, token=ended.out.strip()) as theirs:
        assert theirs.whoami().principal.subject == user
    (listed,) = command("token", "list", user, "-o", "json").json
    assert listed["reason"] == "a robot"
    assert user in command("token", "list", user).out
    revoked = command("token", "revoke", listed["name"])
    assert revoked.code == 0
    assert listed["name"] in revoked.out
    assert command("token", "revoke", uuid7()).code != 0


def test_ones_own_token_is_narrowed_by_a_command(command: Command, client: gridlane.Client) -> None:
    ended = command("token", "exchange", "--scope", "storage.read:/local", "-o", "json")
    assert ended.json["resource"]["scopes"] == ["storage.read:/local"]
    address = client.configuration.addresses.default
    with gridlane.Client(address, token=ended.json["token"]) as narrowed:
        assert list(narrowed.whoami().scopes) == ["storage.read:/local"]


def test_a_call_is_made_in_the_group_that_was_chosen(
    client: gridlane.Client, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = f"/local/{uuid7()}"
    client.groups.create("local", group.removeprefix("/local/"))
    made = client.tokens.create(user, vos=["local"], groups=[group])
    address = client.configuration.addresses.default

    def active(chosen: str | None = None) -> str:
        with gridlane.Client(address, token=made.token, group=chosen) as theirs:
            return theirs.whoami().principal.active_group

    assert active() == ""
    assert active(group) == group
    monkeypatch.setenv("GRIDLANE_GROUP", group)
    assert active() == group
    with pytest.raises(gridlane.errors.PermissionDenied):
        active("/local/other")
