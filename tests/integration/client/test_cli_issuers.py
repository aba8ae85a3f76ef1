"""The commands about issuers of tokens, against a real server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_tokens import Forge

from gridlane.ids import uuid7
from gridlane_authorization.settings import AuthorizationSettings

Command = Callable[..., Any]


@pytest.fixture
def name(command: Command) -> Iterator[str]:
    """Of a VO, and of an issuer that speaks for it; both are gone at the end."""
    found = f"n{uuid7()[-12:]}"
    assert command("vo", "create", found).code == 0
    yield found
    command("issuer", "delete", found)
    assert command("vo", "delete", found).code == 0


def test_an_issuer_is_added_changed_switched_off_and_taken_away(
    command: Command, name: str, tmp_path: Path
) -> None:
    forge = Forge(f"https://{name}.test/", AuthorizationSettings().audience, {})
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [forge.key.as_dict(private=False)]}))
    added = command(
        "issuer", "create", name, "--url", forge.issuer, "--vo", name, "--jwks", keys,
        "--max-token-lifetime", "6h", "--reason", "new", "-o", "json",
    ).json  # fmt: skip
    assert (added["name"], added["max_token_lifetime"]) == (f"issuers/{name}", "21600s")
    ada = {"BEARER_TOKEN": forge.token()}
    assert command("whoami", env=ada).code == 77
    on = command("issuer", "update", name, "--enable")
    assert on.code == 0
    assert "key-1" in on.out
    assert command("whoami", "-o", "json", env=ada).json["principal"]["issuer"] == forge.issuer
    # Everybody sees them.
    (listed,) = command("issuer", "list", "--vo", name, "-o", "json", env=ada).json
    assert listed["url"] == forge.issuer
    assert "own" in command("issuer", "list", env=ada).out
    shown = command("issuer", "show", name, env=ada).out
    assert "6 h 00 min" in shown
    assert command("issuer", "update", name, "--disable", env=ada).code == 77
    reset = command("issuer", "update", name, "--reset", "max-token-lifetime", "-o", "json").json
    assert "max_token_lifetime" not in reset
    changed = command("issuer", "update", name, "--description", "IAM", "--algorithm", "ES256")
    assert "IAM" in changed.out
    assert command("issuer", "update", name, "--disable").code == 0
    assert command("whoami", env=ada).code == 77
    gone = command("issuer", "delete", name, "-o", "json")
    assert int(gone.json["policy_revision"]) > int(added["revision"])
    assert command("issuer", "show", name).code == 65


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["create", "x", "--url", "http://x.test/", "--vo", "local"], 65, "issuer.url"),
        (["create", "x", "--url", "https://127.0.0.1/", "--vo", "local"], 65, "ADDRESS_FORBIDDEN"),
        (["create", "x", "--vo", "local"], 64, "--url"),
        (["create", "x", "--url", "https://x.test/", "--vo", "x", "--jwks", "no"], 64, "no"),
        (["update", "own"], 64, "nothing to change"),
        (["update", "own", "--disable"], 65, "Gridlane's own"),
        (["update", "own", "--reset", "url"], 64, "max-group-age"),
        (["update", "own", "--max-group-age", "soon"], 64, "duration"),
        (["delete", "own"], 65, "Gridlane's own"),
        (["delete", "absent"], 65, "NOT_FOUND"),
        (["list", "--vo", 'a"b'], 65, "quotes"),
    ],
)
def test_what_cannot_be_done_says_why(
    command: Command, arguments: list[str], code: int, told: str
) -> None:
    refused = command("issuer", *arguments)
    assert (refused.code, told in refused.err) == (code, True), refused.err
