"""Assertions: a principal arrives as in the next room; signed once, sent often."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_kit.assertions import (
    LIFETIME_S,
    REUSE_S,
    AssertionSigner,
    AssertionVerifier,
    BearerVerifier,
    service_jwks,
)
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import Principal, PrincipalKind, service_principal
from gridlane_kit.peers import EDGES, SPAN_KEEPER
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key

KEY = new_key()
VERIFIER = AssertionVerifier("transfer", service_jwks({"workload": KEY}))
ADA = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, min_size=1, max_size=20)
scopes = st.frozensets(st.from_regex(r"[a-z.]{1,9}(:/[a-z/]{0,9})?", fullmatch=True), max_size=3)
people = st.builds(
    Principal,
    issuer=texts.filter(lambda text: not text.startswith("urn:gridlane")),
    subject=texts,
    display_name=st.just("") | texts,
    vos=st.frozensets(texts, max_size=3),
    groups=st.frozensets(texts, max_size=3),
    active_group=st.just("") | texts,
    scopes=st.none() | scopes,
    actor=st.none() | st.just("gateway"),
    token_expires_us=st.none() | st.integers(0, 2**53),
)
jobs = st.builds(
    Principal,
    issuer=st.just("https://issuer.test/"),
    subject=texts,
    kind=st.just(PrincipalKind.JOB),
    job=texts,
    attempt=st.integers(0, 2**31),
)


def signer(**options: int) -> AssertionSigner:
    return AssertionSigner("workload", KEY, **options)


async def proven(header: str) -> Principal:
    return (await VERIFIER.prove(header.removeprefix("Bearer "))).principal


@given(people | jobs)
async def test_a_principal_arrives_as_it_would_in_the_next_room(principal: Principal) -> None:
    got = await proven(signer().header(principal, "transfer"))
    assert got == principal.on_behalf("workload")
    assert got.token_expires_us == principal.token_expires_us


async def test_a_service_that_acts_for_itself_arrives_as_itself() -> None:
    itself = service_principal("workload")
    assert await proven(signer().header(itself, "transfer")) == itself


def test_a_service_acts_for_no_other_service() -> None:
    with pytest.raises(ValueError, match="workload cannot act for the service reporting"):
        signer().header(service_principal("reporting"), "transfer")


def test_one_is_sent_again_for_a_while_and_then_signed_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signs, now = signer(), time.time()
    first = signs.header(ADA, "transfer")
    for seconds, same in ((REUSE_S - 1, True), (REUSE_S + 1, False), (-3600, False)):
        monkeypatch.setattr(time, "time", lambda later=now + seconds: later)
        assert (signs.header(ADA, "transfer") == first) is same, seconds
    assert REUSE_S < LIFETIME_S


def test_each_receiver_and_each_principal_has_its_own() -> None:
    signs = signer()
    bob = Principal(ADA.issuer, "bob")
    renewed = Principal(ADA.issuer, "bob", token_expires_us=5)
    asked = ((ADA, "transfer"), (ADA, "authorization"), (bob, "transfer"), (renewed, "transfer"))
    assert len({signs.header(*of) for of in asked}) == len(asked)
    assert signs.header(bob, "transfer") == signs.header(bob, "transfer")


def test_one_that_was_not_taken_is_signed_anew() -> None:
    signs = signer()
    first = signs.header(ADA, "transfer")
    signs.forget(ADA, "transfer")
    assert signs.header(ADA, "transfer") != first


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    signs = signer(size=3)
    headers = [signs.header(Principal("i", str(number)), "transfer") for number in range(5)]
    for number in (4, 3, 2):
        assert signs.header(Principal("i", str(number)), "transfer") == headers[number]
    for number in (1, 0):
        assert signs.header(Principal("i", str(number)), "transfer") != headers[number]


async def test_each_kind_of_bearer_is_proven_by_its_own_verifier() -> None:
    users = TokenSigner(new_key(), "https://issuer.test/", "all")
    tokens = TokenVerifier({users.issuer: StaticKeys(users.jwks())}, "all")
    both = BearerVerifier(tokens, VERIFIER)
    token = users.sign_user("ada", lifetime_s=60, vos=["local"])
    assert (await both.prove(token)).principal == ADA
    assertion = signer().header(ADA, "transfer").removeprefix("Bearer ")
    assert (await both.prove(assertion)).principal == ADA.on_behalf("workload")


def test_no_issuer_of_users_tokens_is_called_like_a_service() -> None:
    keys = StaticKeys(service_jwks({"workload": KEY}))
    for issuer in ("urn:gridlane:service", "urn:gridlane:service:workload"):
        with pytest.raises(ValueError, match="no issuer of users' tokens"):
            TokenVerifier({issuer: keys}, "all")


@pytest.mark.parametrize("sender", sorted(EDGES.keys() - {SPAN_KEEPER}))
async def test_every_other_service_reaches_the_keeper_of_spans_for_itself(sender: str) -> None:
    verifier = AssertionVerifier(SPAN_KEEPER, service_jwks({sender: KEY}))
    header = AssertionSigner(sender, KEY).header(service_principal(sender), SPAN_KEEPER)
    proof = await verifier.prove(header.removeprefix("Bearer "))
    assert proof.principal == service_principal(sender)


@pytest.mark.parametrize("sender", sorted(s for s, to in EDGES.items() if SPAN_KEEPER not in to))
async def test_only_who_may_call_the_keeper_of_spans_reaches_it_for_somebody(sender: str) -> None:
    verifier = AssertionVerifier(SPAN_KEEPER, service_jwks({sender: KEY}))
    header = AssertionSigner(sender, KEY).header(ADA, SPAN_KEEPER)
    with pytest.raises(GridlaneError) as refused:
        await verifier.prove(header.removeprefix("Bearer "))
    assert refused.value.reason is ErrorReason.TOKEN_INVALID
