"""Hostile tokens: none is believed, whoever's name it bears, and none learns why."""

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_tokens import HOSTILE, Forge
from hypothesis import given
from hypothesis import strategies as st
from workers import Told

from gridlane_kit import errors
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.issuers import Issuer, TrustedIssuers
from gridlane_kit.jwks import JwksError, PublicKeys
from gridlane_kit.tokens import StaticKeys, TokenVerifier

AUDIENCE = "https://gridlane.test"
OWN = Forge("https://issuer.test/", AUDIENCE, {"gridlane.kind": "user", "gridlane.vos": ["cms"]})
OUTSIDE = Forge("https://issuer.outside.test/", AUDIENCE, {"name": "Ada"})
FORGES = {"Gridlane's own issuer": OWN, "an outside issuer": OUTSIDE}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
claim_names = st.sampled_from(
    [
        *("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "wlcg.ver", "wlcg.groups", "scope"),
        *("name", "gridlane.kind", "gridlane.vos", "gridlane.job", "gridlane.attempt"),
    ]
)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> TokenVerifier:
    """Believes both issuers."""
    file: Path = tmp_path_factory.mktemp("issuer") / "jwks.json"
    file.write_text(json.dumps(OUTSIDE.jwks()))
    outside = TrustedIssuers(AUDIENCE, [Issuer(url=OUTSIDE.issuer, vo="cms", jwks_file=file)])
    return TokenVerifier({OWN.issuer: StaticKeys(OWN.jwks())}, AUDIENCE, outside)


async def refusal(verifier: TokenVerifier, token: str) -> GridlaneError:
    with pytest.raises(GridlaneError) as caught:
        await verifier.prove(token)
    return caught.value


async def outcome(verifier: TokenVerifier, token: str) -> tuple[Principal | None, str | None]:
    try:
        return await verifier.verify(token), None
    except GridlaneError as error:
        return None, error.reason


@pytest.mark.parametrize("forge", FORGES.values(), ids=FORGES)
async def test_without_a_trick_the_same_tokens_are_good(
    verifier: TokenVerifier, forge: Forge
) -> None:
    good = [forge.token(), forge.signed_by(forge.other), forge.signed_by(forge.rsa, "RS256")]
    good.append(forge.with_header(typ="at+jwt", x="nobody knows it"))
    for token in good:
        assert (await verifier.verify(token)).subject == "ada"


@pytest.mark.parametrize("forge", FORGES.values(), ids=FORGES)
@pytest.mark.parametrize("trick", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_token_is_refused_and_learns_nothing(
    verifier: TokenVerifier, forge: Forge, trick: Any, tell: Told, caplog: pytest.LogCaptureFixture
) -> None:
    tell("tokens", [f"{len(HOSTILE)} hostile tokens, each of {len(FORGES)} issuers: all refused"])
    token = trick(forge)
    error, plain = await refusal(verifier, token), errors.token_invalid()
    assert (error.reason, error.message) == (plain.reason, plain.message)
    assert (error.metadata, error.details) == ({}, ())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("token refused: ")
    assert not any(len(part) > 8 and part in line for part in token.split("."))


def test_there_are_many_tricks() -> None:
    assert len(HOSTILE) > 150


@given(token=st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"))
async def test_no_text_at_all_does_more_than_be_refused(
    verifier: TokenVerifier, token: str
) -> None:
    assert (await refusal(verifier, token)).reason == "TOKEN_INVALID"


@given(place=st.integers(0, 10_000), char=st.characters())
async def test_one_changed_character_spoils_a_token(
    verifier: TokenVerifier, place: int, char: str
) -> None:
    good = TOKEN
    # The last character of a signature has bits that stand for nothing.
    place %= len(good) - 1
    if good[place] == char:
        return
    changed = good[:place] + char + good[place + 1 :]
    assert (await refusal(verifier, changed)).reason == "TOKEN_INVALID"


@pytest.mark.parametrize("forge", FORGES.values(), ids=FORGES)
@given(changes=st.dictionaries(claim_names, json_values, max_size=3))
async def test_whatever_a_believed_issuer_signs_is_a_principal_or_a_refusal(
    verifier: TokenVerifier, forge: Forge, changes: dict[str, Any]
) -> None:
    text = json.dumps(forge.claims() | changes)
    token = forge.raw({"alg": "ES256", "kid": "key-1"}, text.encode())
    principal, refused = await outcome(verifier, token)
    assert refused in (None, "TOKEN_INVALID", "TOKEN_EXPIRED")
    if principal is None:
        return
    assert Principal.from_json(principal.to_json()) == principal
    principal.to_json().encode()
    if forge is OUTSIDE:
        assert (principal.issuer, principal.job) == (forge.issuer, None)
        assert principal.vos == frozenset({"cms"})


@given(jwks=json_values | st.fixed_dictionaries({"keys": st.lists(json_values, max_size=4)}))
def test_a_strange_jwks_has_no_keys_and_does_no_harm(jwks: object) -> None:
    with pytest.raises(JwksError):
        PublicKeys.read(jwks)


@given(
    members=st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "use", "alg", "kid", "exp", "key_ops"]),
        json_values,
        max_size=3,
    )
)
def test_a_key_with_strange_members_counts_or_does_not_and_does_no_harm(
    members: dict[str, Any],
) -> None:
    other = OWN.other.as_dict(private=False)
    neighbour = PublicKeys.read({"keys": [other]})
    assert neighbour.names
    for entry in OWN.jwks()["keys"][:3]:
        keys = {"keys": [{**entry, **members}, other]}
        assert neighbour.kept_in(PublicKeys.read(keys))


TOKEN = OWN.token(exp=2**31)
