"""Tokens: only what is whole, ours, for us and in time proves an identity; nothing is told but
that."""

import base64
import hmac
import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import PrincipalKind
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


async def test_a_users_token_proves_who_it_is():
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
    assert principal.scopes == {"compute.read", "storage.read:/x"}
    assert (principal.kind, principal.job) == (PrincipalKind.USER, None)
    assert abs(principal.token_expires_us / 1e6 - time.time() - 60) < 3


async def test_a_jobs_token_proves_which_attempt_of_which_job_it_is():
    token = SIGNER.sign_job(ISSUER, "ada", job="jobs/1", attempt=2, vos=["local"], lifetime_s=60)
    principal = await verifier().verify(token)
    assert (principal.kind, principal.job, principal.attempt) == (PrincipalKind.JOB, "jobs/1", 2)
    assert principal.owner == f"{ISSUER}|ada"


async def test_a_jobs_token_names_the_issuer_of_its_owner():
    elsewhere = "https://elsewhere.test/"
    one, other = [
        await verifier().verify(
            SIGNER.sign_job(issuer, "ada", job="jobs/1", attempt=1, lifetime_s=60)
        )
        for issuer in (ISSUER, elsewhere)
    ]
    assert (other.issuer, other.subject) == (elsewhere, "ada")
    assert other.owner == f"{elsewhere}|ada" != one.owner


async def test_a_jobs_token_that_does_not_name_its_owners_issuer_is_refused():
    job = {"gridlane.kind": "job", "gridlane.job": "jobs/1", "gridlane.attempt": 1}
    assert await reason(signed(claims(**job))) == "TOKEN_INVALID"
    whole = signed(claims(**job, **{"gridlane.owner_issuer": ISSUER}))
    assert (await verifier().verify(whole)).job == "jobs/1"


async def test_a_key_survives_its_file():
    again = TokenSigner(load_key(dump_key(KEY)), ISSUER, AUDIENCE)
    assert again.jwks() == SIGNER.jwks()
    assert "d" not in again.jwks()["keys"][0]
    assert (await verifier().verify(again.sign_user("ada", lifetime_s=9))).subject == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://issuer.test"},
        {"iss": "https://other.test/"},
        {"iss": None},
        {"iss": ["https://issuer.test/"]},
        {"aud": "https://elsewhere.test"},
        {"aud": None},
        {"aud": ["a", "b"]},
        {"aud": {AUDIENCE: 1}},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "ada\0"},
        {"gridlane.vos": ["lo\0cal"]},
        {"jti": None},
        {"wlcg.ver": None},
        {"wlcg.ver": "2.0"},
        {"wlcg.ver": 1.0},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": -1},
        {"exp": 10**400},
        {"iat": None},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
        {"gridlane.kind": "service"},
        {"gridlane.kind": None},
        {"gridlane.kind": "job"},
        {"gridlane.kind": "job", "gridlane.job": "jobs/1", "gridlane.attempt": "1"},
        {"gridlane.vos": "local"},
        {"gridlane.vos": [1]},
        {"wlcg.groups": {"a": 1}},
        {"scope": ["compute.read"]},
    ],
    ids=str,
)
async def test_a_claim_that_breaks_the_profile_is_refused(changes):
    assert await reason(signed(claims(**changes))) == "TOKEN_INVALID"


async def test_an_audience_among_several_will_do():
    token = signed(claims(aud=["https://elsewhere.test", AUDIENCE]))
    assert (await verifier().verify(token)).subject == "ada"


async def test_an_expired_token_is_told_apart_only_when_all_else_is_good():
    past = int(time.time()) - 1
    assert await reason(signed(claims(exp=past))) == "TOKEN_EXPIRED"
    assert await reason(signed(claims(exp=past), ECKey.generate_key("P-256"))) == "TOKEN_INVALID"
    assert await reason(signed(claims(exp=past, aud="x"))) == "TOKEN_INVALID"


def segment(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def unsigned() -> str:
    return f"{segment({'alg': 'none'})}.{segment(claims())}."


def keyed_with(secret: bytes) -> str:
    signing_input = f"{segment({'alg': 'HS256', 'kid': KEY.kid})}.{segment(claims())}"
    mac = hmac.digest(secret, signing_input.encode(), "sha256")
    return f"{signing_input}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


HOSTILE = {
    "not ours": lambda: signed(claims(), ECKey.generate_key("P-256")),
    "alg none": unsigned,
    "HS256 with the public key as the secret": lambda: keyed_with(KEY.as_pem(private=False)),
    "RS256 under the key id of an EC key": lambda: signed(
        claims(), RSAKey.generate_key(2048), alg="RS256"
    ),
    "unknown key id": lambda: signed(claims(), kid="elsewhere"),
    "another header than the signed one": lambda: ".".join(
        [segment({"alg": "ES256", "kid": KEY.kid, "x": 1}), *signed(claims()).split(".")[1:]]
    ),
    "longer than 16 KiB": lambda: signed(claims(name="x" * 20_000)),
    "empty": lambda: "",
    "dots": lambda: "...",
    "two segments": lambda: "a.b",
    "no base64": lambda: "!!!.???.***",
    "claims are a list": lambda: jwt_of(b"[]"),
    "claims are no JSON": lambda: jwt_of(b"\xff\xfe{"),
    "deep JSON": lambda: jwt_of(b"[" * 9000),
    "a changed claim": lambda: tampered(),
    "a shortened signature": lambda: signed(claims())[:-4],
}


def jwt_of(content: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(content).decode().rstrip('=')}.AAAA"


def tampered() -> str:
    head, _, tail = signed(claims()).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).decode()
    return f"{head}.{body.rstrip('=')}.{tail}"


@pytest.mark.parametrize("make", HOSTILE.values(), ids=list(HOSTILE))
async def test_a_hostile_token_is_refused_and_learns_nothing(make):
    assert await reason(make()) == "TOKEN_INVALID"


def test_a_key_of_another_kind_is_no_signing_key():
    with pytest.raises(ValueError, match="P-256"):
        load_key(ECKey.generate_key("P-384").as_pem(private=True))
    with pytest.raises(ValueError, match="P-256"):
        load_key(KEY.as_pem(private=False))
