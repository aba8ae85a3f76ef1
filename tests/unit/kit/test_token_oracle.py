"""Tokens against an oracle: `scitokens`, the reference library, judges the same tokens as the kit.

It knows the profile of SciTokens, so validators for what WLCG adds are given to it (`wlcg.ver`,
`wlcg.groups`, `jti`, `sub`), and the claims that WLCG demands are demanded beside it. Where the two
profiles differ on purpose, tokens are not made: what SciTokens calls ANY, times between the kit's
leeway and none, and paths of scopes that end in a slash (for SciTokens, `/x/` does not cover `/x`).
"""

import itertools
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jwt  # what scitokens stands on
import pytest
from hostile_tokens import Forge
from hypothesis import given, settings
from hypothesis import strategies as st
from scitokens import Enforcer, SciToken
from scitokens.scitokens import EnforcementError, ValidationFailure
from workers import Told

from gridlane_kit.claims import read_jwt
from gridlane_kit.decision import scope_covers
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.tokens import StaticKeys, TokenVerifier

AUDIENCE = "https://gridlane.test"
ANY = "https://wlcg.cern.ch/jwt/v1/any"
FORGE = Forge("https://issuer.test/", AUDIENCE, {"gridlane.kind": "user", "gridlane.vos": ["cms"]})
PUBLIC_KEY = FORGE.key.as_pem(private=False)
REQUIRED = {"sub", "iss", "exp", "iat", "jti", "aud", "wlcg.ver", "scope"}
OPERATIONS = [f"storage.{verb}" for verb in ("read", "create", "modify", "stage", "poll")]
HOUR_S = 3600

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "iss": (FORGE.issuer, "https://elsewhere.test/", None),
    "aud": (AUDIENCE, [AUDIENCE, "x"], ANY, ["x", ANY], "x", ["x", "y"], [], None),
    "sub": ("ada", None),
    "exp": (HOUR_S, -HOUR_S, None),
    "iat": (-HOUR_S, HOUR_S, None),
    "nbf": (-HOUR_S, HOUR_S, None),
    "jti": ("1", None),
    "wlcg.ver": ("1.0", "1.1", "2.0", None),
    "wlcg.groups": (["/cms"], ["/cms/production", "/cms"], ["cms"], None),
    "scope": (
        "storage.read:/x",
        "openid storage.read:/x storage.create:/x/y",
        "storage.read",
        "storage.read:x",
        "compute.read",
        None,
    ),
}
"""What each claim may say; numbers are seconds from now, None leaves the claim out."""

segments = st.lists(st.sampled_from(["foo", "bar", "bargain", "f", "a b", "é"]), max_size=4)
slashes = st.sampled_from(["/", "//", "/./"])


class WlcgEnforcer(Enforcer):  # type: ignore[misc] # of a library without types
    """The oracle, told which operations need a path."""

    _authz_requiring_path = frozenset(OPERATIONS)


def oracle(issuer: str = FORGE.issuer) -> WlcgEnforcer:
    judge = WlcgEnforcer(issuer, audience=[AUDIENCE, ANY])
    judge.add_validator("wlcg.ver", lambda value: re.fullmatch(r"1\.[0-9]+", value) is not None)
    judge.add_validator("wlcg.groups", lambda value: all(g.startswith("/") for g in value))
    for ours in ("gridlane.kind", "gridlane.vos"):
        judge.add_validator(ours, lambda value: True)
    return judge


def judged_by_oracle(token: str) -> bool:
    try:
        read = SciToken.deserialize(token, public_key=PUBLIC_KEY)
        oracle().generate_acls(read)
    except (ValidationFailure, EnforcementError, jwt.PyJWTError):
        return False
    return {name for name, _ in read.claims()} >= REQUIRED


async def judged_by_kit(token: str) -> bool:
    verifier = TokenVerifier({FORGE.issuer: StaticKeys(FORGE.jwks())}, AUDIENCE)
    try:
        await verifier.verify(token)
    except GridlaneError:
        return False
    return "scope" in read_jwt(token).claims


def token_with(chosen: Mapping[str, Any]) -> str:
    now = int(time.time())
    moved = {n: now + v for n, v in chosen.items() if n in ("exp", "iat", "nbf") and v is not None}
    return FORGE.token(**{**chosen, **moved})


@pytest.fixture(autouse=True)
def _cache_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The oracle keeps a file of keys, even when it is given one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


async def test_both_judge_alike_whatever_one_or_two_claims_say(tell: Told) -> None:
    good = {name: values[0] for name, values in CHOICES.items()}
    cases = [
        {**good, first: one, second: two}
        for first, second in itertools.combinations(CHOICES, 2)
        for one in CHOICES[first]
        for two in CHOICES[second]
    ]
    taken = 0
    for chosen in cases:
        token = token_with(chosen)
        verdict = await judged_by_kit(token)
        assert verdict == judged_by_oracle(token), chosen
        taken += verdict
    tell("tokens", [f"{len(cases)} tokens judged by scitokens too, alike: {taken} good"])
    assert 100 < taken < len(cases) - 100


@settings(max_examples=300)
@given(st.fixed_dictionaries({name: st.sampled_from(v) for name, v in CHOICES.items()}))
async def test_both_judge_alike_whatever_all_claims_say(chosen: dict[str, Any]) -> None:
    token = token_with(chosen)
    assert await judged_by_kit(token) == judged_by_oracle(token), json.dumps(chosen)


@settings(max_examples=500)
@given(
    given_for=st.tuples(st.sampled_from(OPERATIONS), segments),
    slash=slashes,
    asked_for=st.tuples(st.sampled_from(OPERATIONS), segments),
)
async def test_both_find_the_same_paths_covered(
    given_for: tuple[str, list[str]], slash: str, asked_for: tuple[str, list[str]]
) -> None:
    operation, base = given_for
    path = "".join(slash + segment for segment in base) or "/"
    scope = f"{operation}:{quote(path, safe='/')}"
    read = SciToken.deserialize(FORGE.token(scope=scope), public_key=PUBLIC_KEY)
    wanted, below = asked_for
    asked = "/" + "/".join(below)
    covered = scope_covers(Principal("i", "s", scopes=frozenset({scope})), wanted, asked)
    assert covered == oracle().test(read, wanted, quote(asked, safe="/"))
