"""Tokens: only what is whole, ours, for us and in time proves an identity; nothing is told but
that."""

import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal, PrincipalKind
from gridlane_kit.issuers import Issuer, TrustedIssuers
from gridlane_kit.tokens import (
    StaticKeys,
    TokenSigner,
    TokenVerifier,
    dump_key,
    load_key,
    new_key,
)

ISSUER = "https://issuer.test/"
AUDIENCE = "https://gridlane.test"
KEY = new_key()
SIGNER = TokenSigner(KEY, ISSUER, AUDIENCE)


def verifier() -> TokenVerifier:
    return TokenVerifier({ISSUER: StaticKeys(SIGNER.jwks())}, AUDIENCE)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {
        "wlcg.ver": "1.0",
        "iss": ISSUER,
        "sub": "ada",
        "aud": AUDIENCE,
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": "1",
        "gridlane.kind": "user",
        "gridlane.vos": ["local"],
    }
    return {k: v for k, v in (good | changes).items() if v is not None}


def signed(content: dict[str, Any], key: Any = KEY, **header: Any) -> str:
    algorithm = header.get("alg", "ES256")
    full = {"alg": algorithm, "kid": KEY.kid, **header}
    return jwt.encode(full, content, key, algorithms=[algorithm])


async def reason(token: str) -> str:
    with pytest.raises(GridlaneError) as caught:
        await verifier().verify(token)
    assert token[:20] not in str(caught.value) or len(token) < 20
    return caught.value.reason.value


async def test_a_users_token_proves_who_it_is() -> None:
    token = SIGNER.sign_user(
        "ada",
        display_name="Ada L.",
        vos=["cms", "local"],
        groups=["/cms/production"],
        scopes=["compute.read", "storage.read:/x"],
        lifetime_s=60,
    )
    principal = await verifier().verify(token)
    assert (principal.issuer, principal.subject, principal.owner) == (
        ISSUER,
        "ada",
        f"{ISSUER}|ada",
    )
    assert principal.display_name == "Ada L."
    assert principal.vos == {"cms", "local"}
    assert principal.groups == {"/cms/production"}
    assert principal.scopes == frozenset({"compute.read", "storage.read:/x"})
    assert (principal.kind, principal.job) == (PrincipalKind.USER, None)
    assert abs((principal.token_expires_us or 0) / 1e6 - time.time() - 60) < 3


async def test_a_jobs_token_proves_which_attempt_of_which_job_it_is() -> None:
    token = SIGNER.sign_job(ISSUER, "ada", job="jobs/1", attempt=2, vos=["local"], lifetime_s=60)
    principal = await verifier().verify(token)
    assert (principal.kind, principal.job, principal.attempt) == (PrincipalKind.JOB, "jobs/1", 2)
    assert principal.owner == f"{ISSUER}|ada"


async def test_a_jobs_token_names_the_issuer_of_its_owner() -> None:
    elsewhere = "https://elsewhere.test/"
    one, other = [
        await verifier().verify(
            SIGNER.sign_job(issuer, "ada", job="jobs/1", attempt=1, lifetime_s=60)
        )
        for issuer in (ISSUER, elsewhere)
    ]
    assert (other.issuer, other.subject) == (elsewhere, "ada")
    assert other.owner == f"{elsewhere}|ada" != one.owner


async def test_a_jobs_token_that_does_not_name_its_owners_issuer_is_refused() -> None:
    job = {"gridlane.kind": "job", "gridlane.job": "jobs/1", "gridlane.attempt": 1}
    assert await reason(signed(claims(**job))) == "TOKEN_INVALID"
    whole = signed(claims(**job, **{"gridlane.owner_issuer": ISSUER}))
    assert (await verifier().verify(whole)).job == "jobs/1"


async def test_a_key_survives_its_file() -> None:
    again = TokenSigner(load_key(dump_key(KEY)), ISSUER, AUDIENCE)
    assert again.jwks() == SIGNER.jwks()
    assert "d" not in again.jwks()["keys"][0]
    assert (await verifier().verify(again.sign_user("ada", lifetime_s=9))).subject == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"gridlane.kind": "service"},
        {"gridlane.kind": None},
        {"gridlane.kind": "job"},
        {"gridlane.kind": "job", "gridlane.job": "jobs/1", "gridlane.attempt": "1"},
        {"gridlane.kind": "job", "gridlane.job": "jobs/1", "gridlane.attempt": True},
        {"gridlane.vos": "local"},
        {"gridlane.vos": [1]},
        {"gridlane.vos": ["lo\0cal"]},
        {"gridlane.active_group": "/cms"},
        {"gridlane.active_group": 1},
        {"gridlane.owner_issuer": "https://nobodys.test/"},
        {"gridlane.owner_issuer": ""},
        {"jti": "x" * 256},
    ],
    ids=str,
)
async def test_a_claim_of_gridlanes_own_that_is_not_as_it_should_be_is_refused(
    changes: dict[str, Any],
) -> None:
    assert await reason(signed(claims(**changes))) == "TOKEN_INVALID"


async def test_an_audience_among_several_will_do() -> None:
    token = signed(claims(aud=["https://elsewhere.test", AUDIENCE]))
    assert (await verifier().verify(token)).subject == "ada"


async def test_an_expired_token_is_told_apart_only_when_all_else_is_good() -> None:
    past = int(time.time()) - 1
    assert await reason(signed(claims(exp=past))) == "TOKEN_EXPIRED"
    assert await reason(signed(claims(exp=past), ECKey.generate_key("P-256"))) == "TOKEN_INVALID"
    assert await reason(signed(claims(exp=past, aud="x"))) == "TOKEN_INVALID"


async def test_an_old_key_proves_until_its_time_is_over_and_the_new_one_from_the_start() -> None:
    signer = TokenSigner(new_key(), ISSUER, AUDIENCE)
    believes = TokenVerifier({ISSUER: signer.keys}, AUDIENCE)
    old = signer.sign_user("ada", lifetime_s=60)
    first, trust = signer.jwks()["keys"][0], (await believes.prove(old)).trust
    now = int(time.time())
    signer.replace_key(new_key(), [{**first, "exp": now + 60}])
    assert (await believes.verify(old)).subject == "ada"
    assert (await believes.verify(signer.sign_user("bob", lifetime_s=60))).subject == "bob"
    assert not trust.ended
    signer.replace_key(new_key(), [{**first, "exp": now}])
    with pytest.raises(GridlaneError, match="not acceptable"):
        await believes.verify(old)
    signer.replace_key(new_key(), [])
    assert trust.ended


async def test_nothing_is_believed_for_longer_than_the_key_is_that_proved_it() -> None:
    signer = TokenSigner(new_key(), ISSUER, AUDIENCE)
    believes = TokenVerifier({ISSUER: signer.keys}, AUDIENCE)
    token, ends_s = signer.sign_user("ada", lifetime_s=60), int(time.time()) + 5
    signer.replace_key(new_key(), [{**signer.jwks()["keys"][0], "exp": ends_s}])
    assert (await believes.prove(token)).expires_s == ends_s


async def test_whoever_follows_a_signer_hears_of_another_key_alone() -> None:
    signer, heard = TokenSigner(new_key(), ISSUER, AUDIENCE), []
    signer.subscribe(lambda: heard.append(signer.key.kid))
    next_one = new_key()
    signer.replace_key(signer.key, [next_one.as_dict(private=False)])
    assert heard == []
    signer.replace_key(next_one, [])
    assert heard == [next_one.kid]


async def test_the_first_group_of_a_token_is_the_active_one() -> None:
    token = SIGNER.sign_user("ada", groups=["/cms/production", "/cms"], lifetime_s=60)
    principal = await verifier().verify(token)
    assert principal.active_group == "/cms/production"
    assert principal.groups == {"/cms/production", "/cms"}
    assert (await verifier().verify(SIGNER.sign_user("ada", lifetime_s=60))).active_group == ""


async def test_a_token_for_every_service_is_for_this_one() -> None:
    token = signed(claims(aud="https://wlcg.cern.ch/jwt/v1/any"))
    assert (await verifier().verify(token)).subject == "ada"


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.0.1", "1"])
async def test_every_minor_version_of_the_profile_is_known(version: str) -> None:
    token = signed(claims(**{"wlcg.ver": version}))
    assert (await verifier().verify(token)).subject == "ada"


def exchanged(issuer: str) -> str:
    """A token of Gridlane's own for ada of an issuer."""
    now = int(time.time())
    ada = Principal(issuer, "ada", vos=frozenset({"cms"}), groups=frozenset({"/cms/a", "/cms/b"}))
    return SIGNER.sign_for(
        ada, token_id="the-one", audience=AUDIENCE, issued_s=now, expires_s=now + 60
    )


async def test_a_token_signed_for_a_principal_proves_that_one() -> None:
    found = await verifier().verify(exchanged(ISSUER))
    assert (found.issuer, found.subject, found.token_id) == (ISSUER, "ada", "the-one")
    assert (found.groups, found.active_group) == (frozenset({"/cms/a", "/cms/b"}), "")


async def test_another_issuers_identity_counts_as_long_as_that_issuer_is_believed() -> None:
    theirs = "https://elsewhere.test/"
    assert await reason(exchanged(theirs)) == "TOKEN_INVALID"
    book = TrustedIssuers(AUDIENCE, [Issuer(url=theirs, vo="cms", jwks=json.dumps(SIGNER.jwks()))])
    both = TokenVerifier({ISSUER: StaticKeys(SIGNER.jwks())}, AUDIENCE, book)
    assert (await both.verify(exchanged(theirs))).owner == f"{theirs}|ada"


def test_a_key_of_another_kind_is_no_signing_key() -> None:
    with pytest.raises(ValueError, match="P-256"):
        load_key(ECKey.generate_key("P-384").as_pem(private=True))
    with pytest.raises(ValueError, match="P-256"):
        load_key(KEY.as_pem(private=False))
