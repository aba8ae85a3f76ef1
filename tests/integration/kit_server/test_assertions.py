"""Services' assertions at a real server: every edge and every other pair, and every forgery."""

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grpc import aio
from integration.kit_server.served import FailureOf, Serve, Served, SignerOf
from joserfc import jwt
from joserfc.jwk import ECKey

from gridlane_kit.assertions import (
    CLOCK_LEEWAY_S,
    AssertionSigner,
    AssertionVerifier,
    ServiceKeysError,
    service_jwks,
)
from gridlane_kit.identity import Principal, service_principal
from gridlane_kit.peers import EDGES, SPAN_KEEPER
from gridlane_kit.tokens import TokenSigner, new_key

ADA = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))
SERVICES = tuple(EDGES)
TYPE = "gridlane-assertion+jwt"

Ask = Callable[[Served, str], Awaitable[str]]
Forged = Callable[..., str]
Keys = Callable[[str], ECKey]


class Things:
    """Notes as whom it was called."""

    def __init__(self, messages: Any) -> None:
        self.m = messages
        self.principals: list[Principal] = []

    async def GetThing(self, request: Any, call: Any) -> Any:
        self.principals.append(call.principal)
        return self.m.Thing(name=request.name)


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


@pytest.fixture
def ask(messages: SimpleNamespace, failure: FailureOf) -> Ask:
    """Calls GetThing with an `authorization` header; returns the reason of a refusal, or OK."""
    request = messages.GetThingRequest(name="things/a")

    async def ask(served: Served, header: str) -> str:
        try:
            await served.unary("GetThing", request, metadata=(("authorization", header),))
        except aio.AioRpcError as error:
            refused = failure(error)
            return f"{refused.code.name} {refused.reason}"
        return "OK"

    return ask


REFUSED = "UNAUTHENTICATED TOKEN_INVALID"


@pytest.fixture
def forged() -> Forged:
    """Signs claims as anybody may; what is not given is as in a good assertion of workload's."""

    def forged(
        key: ECKey,
        changes: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        now = int(time.time())
        claims = {
            "iss": "urn:gridlane:service:workload",
            "aud": "urn:gridlane:service:transfer",
            "act": "workload",
            "sub": "ada",
            "iat": now,
            "exp": now + 60,
            "gridlane.issuer": "https://issuer.test/",
            "gridlane.kind": "user",
            "gridlane.vos": ["local"],
            "wlcg.groups": [],
            **(changes or {}),
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        full = {"typ": TYPE, "alg": "ES256", "kid": "workload", **(header or {})}
        return "Bearer " + jwt.encode(full, claims, key, algorithms=["ES256"])

    return forged


@pytest.fixture
def keys(signer_of: SignerOf) -> Keys:
    """The private keys of the services, as their signers have them."""
    return lambda service: signer_of(service)._key


@pytest.mark.parametrize("receiver", SERVICES)
async def test_an_assertion_is_taken_along_the_edges_of_the_design_and_nowhere_else(
    receiver: str, serve: Serve, things: Things, ask: Ask, signer_of: SignerOf
) -> None:
    served = await serve(things, receiver=receiver)
    outcome = {
        sender: await ask(served, signer_of(sender).header(ADA, receiver)) for sender in SERVICES
    }
    assert outcome == {s: "OK" if receiver in EDGES[s] else REFUSED for s in SERVICES}
    senders = [sender for sender in SERVICES if receiver in EDGES[sender]]
    assert things.principals == [ADA.on_behalf(sender) for sender in senders]


@pytest.mark.parametrize("receiver", SERVICES)
async def test_a_service_that_acts_for_itself_is_known_as_itself_on_the_edges(
    receiver: str, serve: Serve, things: Things, ask: Ask, signer_of: SignerOf
) -> None:
    served = await serve(things, receiver=receiver)
    for sender in SERVICES:
        outcome = await ask(served, signer_of(sender).header(service_principal(sender), receiver))
        # All services send their spans to Reporting, each in its own name.
        known = receiver in EDGES[sender] or (receiver == SPAN_KEEPER and sender != receiver)
        # The sample's permission is none that services have: the identity was proven.
        assert outcome == ("PERMISSION_DENIED PERMISSION_DENIED" if known else REFUSED), sender


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"iat": -120, "exp": -60}, id="expired a minute ago"),
        pytest.param({"iat": 0, "exp": 61}, id="good for more than a minute"),
        pytest.param({"iat": 0, "exp": 0}, id="good for no time"),
        pytest.param({"iat": CLOCK_LEEWAY_S + 5, "exp": 60}, id="of the future"),
        pytest.param({"iat": None}, id="without iat"),
        pytest.param({"exp": None}, id="without exp"),
    ],
)
async def test_an_assertion_is_good_for_its_minute_alone(
    changes: Mapping[str, Any], serve: Serve, things: Things, ask: Ask, forged: Forged, keys: Keys
) -> None:
    served = await serve(things)
    now = int(time.time())
    times = {name: None if value is None else now + value for name, value in changes.items()}
    outcome = await ask(served, forged(keys("workload"), times))
    expected = "UNAUTHENTICATED TOKEN_EXPIRED" if changes.get("exp") == -60 else REFUSED
    assert outcome == expected
    assert not things.principals


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "urn:gridlane:service:authorization"},
        {"aud": ["urn:gridlane:service:transfer"]},
        {"aud": "https://gridlane.test"},
        {"aud": None},
        {"act": "gateway"},
        {"act": None},
        {"iss": "urn:gridlane:service:gateway"},
        {"iss": "urn:gridlane:service:nobody"},
        {"iss": "urn:gridlane:service:"},
        {"iss": "urn:gridlane:service"},
        {"sub": None},
        {"sub": 7},
        {"gridlane.kind": "root"},
        {"gridlane.kind": "service"},
        {"gridlane.kind": "service", "gridlane.issuer": "urn:gridlane:service", "sub": "reporting"},
        {"gridlane.issuer": "urn:gridlane:service"},
        {"gridlane.issuer": "urn:gridlane:service:workload"},
        {"gridlane.kind": "job"},
        {"gridlane.kind": "job", "gridlane.job": "jobs/1", "gridlane.attempt": True},
        {"gridlane.job": "jobs/1", "gridlane.attempt": 1},
        {"gridlane.vos": "local"},
        {"scope": ["a"]},
    ],
    ids=str,
)
async def test_claims_that_contradict_are_refused(
    changes: Mapping[str, Any], serve: Serve, things: Things, ask: Ask, forged: Forged, keys: Keys
) -> None:
    served = await serve(things)
    assert await ask(served, forged(keys("workload"))) == "OK"
    assert await ask(served, forged(keys("workload"), changes)) == REFUSED
    assert len(things.principals) == 1


async def test_only_the_senders_own_key_proves_it(
    serve: Serve, things: Things, ask: Ask, forged: Forged, keys: Keys
) -> None:
    served = await serve(things)
    gateway = {"iss": "urn:gridlane:service:gateway", "act": "gateway"}
    assert await ask(served, forged(new_key())) == REFUSED
    assert await ask(served, forged(keys("gateway"))) == REFUSED
    assert await ask(served, forged(keys("gateway"), header={"kid": "gateway"})) == REFUSED
    assert await ask(served, forged(keys("workload"), gateway)) == REFUSED
    assert await ask(served, forged(keys("workload"), gateway, {"kid": "gateway"})) == REFUSED
    assert await ask(served, forged(keys("gateway"), gateway)) == REFUSED, "kid is workload's"
    assert await ask(served, forged(keys("gateway"), gateway, {"kid": "gateway"})) == "OK"
    assert len(things.principals) == 1


@pytest.mark.parametrize("header", [{"kid": "x"}, {"typ": "JWT"}, {"typ": "at+jwt"}], ids=str)
async def test_headers_of_other_tokens_are_refused(
    header: Mapping[str, Any], serve: Serve, things: Things, ask: Ask, forged: Forged, keys: Keys
) -> None:
    served = await serve(things)
    assert await ask(served, forged(keys("workload"), header=header)) == REFUSED


def segment(content: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256"])
async def test_another_algorithm_than_es256_is_refused(
    algorithm: str, serve: Serve, things: Things, ask: Ask, forged: Forged, keys: Keys
) -> None:
    served = await serve(things)
    _, claims, signature = forged(keys("workload")).removeprefix("Bearer ").split(".")
    header = segment({"typ": TYPE, "alg": algorithm, "kid": "workload"})
    for end in ("", signature):
        assert await ask(served, f"Bearer {header}.{claims}.{end}") == REFUSED
    assert not things.principals


async def test_an_assertion_for_one_service_is_of_no_use_at_another(
    serve: Serve, things: Things, ask: Ask, signer_of: SignerOf
) -> None:
    transfer = await serve(things)
    authorization = await serve(things, receiver="authorization")
    stolen = signer_of("workload").header(ADA, "transfer")
    assert await ask(transfer, stolen) == "OK"
    assert await ask(authorization, stolen) == REFUSED


async def test_a_users_token_in_a_services_name_is_refused(
    serve: Serve, things: Things, ask: Ask, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    for issuer in ("urn:gridlane:service:workload", "urn:gridlane:service"):
        claimed = TokenSigner(served.signer._key, issuer, "https://gridlane.test")
        token = claimed.sign_user("ada", lifetime_s=60, vos=["local"])
        assert await ask(served, f"Bearer {token}") == REFUSED
    assert await ask(served, f"Bearer {served.token()}") == "OK"
    assert things.principals == [ADA], "users are served on the same port, without an actor"


async def test_a_refusal_tells_nothing_but_that(
    serve: Serve, things: Things, forged: Forged, keys: Keys, messages: SimpleNamespace
) -> None:
    served = await serve(things)
    header = forged(keys("workload"), {"aud": "urn:gridlane:service:reporting"})
    failure = await served.refused(
        "GetThing",
        messages.GetThingRequest(name="things/a"),
        metadata=(("authorization", header),),
    )
    assert failure.metadata == {}
    for secret in ("aud", "reporting", "workload", "transfer", "urn:"):
        assert secret not in failure.message


async def test_a_proven_assertion_is_remembered_no_longer_than_it_is_good(
    serve: Serve, things: Things, ask: Ask, signer_of: SignerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(things)
    header = signer_of("workload").header(ADA, "transfer")
    assert await ask(served, header) == "OK"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert await ask(served, header) == "OK"
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert await ask(served, header) == "UNAUTHENTICATED TOKEN_EXPIRED"


async def test_a_service_that_changes_its_key_has_two_for_a_while(serve: Serve, keys: Keys) -> None:
    old, new = new_key(), new_key()
    both = {
        "keys": [*service_jwks({"workload": old})["keys"], *service_jwks({"workload": new})["keys"]]
    }
    verifier = AssertionVerifier("transfer", both)
    for key in (old, new):
        token = AssertionSigner("workload", key).header(ADA, "transfer").removeprefix("Bearer ")
        assert (await verifier.prove(token)).principal == ADA.on_behalf("workload")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "service_keys.json"),
        ("[]", "no JWKS"),
        ('{"keys": {}}', "no JWKS"),
        ('{"keys": [{"kty": "EC", "kid": "somebody"}]}', "'somebody' is no service"),
        ('{"keys": [{"kty": "EC", "kid": "workload"}]}', "key of workload is no EC key"),
        ("private", "key of workload is not the public half"),
    ],
)
def test_a_file_of_service_keys_that_is_none_is_refused_by_name(
    content: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "service_keys.json"
    private = {**new_key().as_dict(private=True), "kid": "workload"}
    path.write_text(json.dumps({"keys": [private]}) if content == "private" else content)
    with pytest.raises(ServiceKeysError, match=complaint) as caught:
        AssertionVerifier.from_file("transfer", path)
    assert str(path) in str(caught.value)


def test_a_missing_key_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "workload.pem", tmp_path / "service_keys.json"):
        with pytest.raises(ServiceKeysError, match=path.name):
            AssertionSigner.from_file("workload", path)
        with pytest.raises(ServiceKeysError, match=path.name):
            AssertionVerifier.from_file("workload", path)
