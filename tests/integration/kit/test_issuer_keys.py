"""An issuer's keys: fetched from real servers, kept while they are away, and no more than asked."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from certificates import Authority
from token_issuer import DISCOVERY, JWKS, Fault, TokenIssuer

from gridlane_kit.addresses import Addresses
from gridlane_kit.errors import GridlaneError
from gridlane_kit.issuer_documents import DocumentError, Documents
from gridlane_kit.issuer_keys import KeyStatus, RemoteKeys
from gridlane_kit.issuers import Issuer, PolicyIssuer, TrustedIssuers
from gridlane_kit.jwks import PublicKey
from gridlane_kit.tokens import TokenVerifier

AUDIENCE = "gridlane"
QUICK_S = 0.3
NO_MORE = 3600.0
"""A pause that no test lives to see the end of."""


@pytest.fixture(params=["ES256", "RS256"])
def issuer(request: pytest.FixtureRequest) -> Iterator[TokenIssuer]:
    with TokenIssuer(algorithm=request.param) as running:
        yield running


@pytest.fixture
def plain() -> Iterator[TokenIssuer]:
    with TokenIssuer() as running:
        yield running


def keys_of(issuer: TokenIssuer, retry_s: float = NO_MORE, jwks_uri: str = "") -> RemoteKeys:
    documents = Documents(timeout_s=QUICK_S)
    return RemoteKeys(issuer.url, documents, jwks_uri=jwks_uri, retry_s=retry_s, refresh_s=NO_MORE)


async def found(keys: RemoteKeys, issuer: TokenIssuer) -> tuple[PublicKey, ...]:
    return await keys.find(issuer.algorithm, issuer.key.kid)


async def test_keys_are_found_where_the_issuer_says(issuer: TokenIssuer) -> None:
    keys = keys_of(issuer)
    assert len(await found(keys, issuer)) == 1
    assert len(await found(keys, issuer)) == 1
    assert issuer.seen == {DISCOVERY: 1, JWKS: 1}


async def test_a_known_place_of_the_keys_needs_no_discovery(plain: TokenIssuer) -> None:
    assert await found(keys_of(plain, jwks_uri=plain.url + JWKS), plain)
    assert plain.seen == {JWKS: 1}


async def test_certificates_are_verified(tmp_path: Path) -> None:
    authority = Authority()
    roots = authority.write_roots(tmp_path / "ca.pem")
    with TokenIssuer(authority.write_pair(tmp_path, "issuer")) as secure:
        assert await found(RemoteKeys(secure.url, Documents(roots)), secure)
        with pytest.raises(DocumentError, match="CERTIFICATE_VERIFY_FAILED"):
            await Documents().jwks_uri(secure.url)


@pytest.mark.parametrize(
    ("path", "fault"),
    # A discovery document never has keys: that is no fault of it.
    [(DISCOVERY, fault) for fault in Fault if fault is not Fault.NO_KEYS]
    + [(JWKS, fault) for fault in Fault],
    ids=str,
)
async def test_an_issuer_that_fails_keeps_its_last_keys_and_holds_nobody_up(
    plain: TokenIssuer, path: str, fault: Fault
) -> None:
    keys = keys_of(plain, retry_s=0.0)
    last = await found(keys, plain)
    trust = keys.trust
    plain.fault, plain.faulty_paths = fault, (path,)
    begun = time.monotonic()
    assert await keys.find("ES256", "unheard of") == ()
    assert time.monotonic() - begun < 2 * QUICK_S + 1
    assert await found(keys, plain) == last
    assert not trust.ended
    plain.fault = None
    plain.rotate()
    assert await found(keys, plain)


@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.STATUS_500, Fault.GARBAGE])
async def test_while_no_key_could_ever_be_had_callers_are_told_to_come_again(
    plain: TokenIssuer, fault: Fault
) -> None:
    plain.fault = fault
    keys = keys_of(plain)
    for _ in range(3):
        with pytest.raises(GridlaneError) as caught:
            await found(keys, plain)
        assert caught.value.reason == "PEER_UNAVAILABLE"
        assert plain.url not in caught.value.message
    assert plain.seen[DISCOVERY] == 1


async def test_a_key_that_is_not_known_is_looked_for_once_for_all_who_ask(
    plain: TokenIssuer,
) -> None:
    keys = keys_of(plain, retry_s=0.0)
    await found(keys, plain)
    plain.rotate()
    answers = await asyncio.gather(*(found(keys, plain) for _ in range(50)))
    assert all(len(answer) == 1 for answer in answers)
    assert plain.seen[JWKS] == 2


async def test_unknown_keys_do_not_make_this_server_call_the_issuer_again_and_again(
    plain: TokenIssuer,
) -> None:
    keys = keys_of(plain, retry_s=NO_MORE)
    await found(keys, plain)
    for number in range(50):
        assert await keys.find("ES256", f"made up {number}") == ()
    assert plain.seen[JWKS] == 1


async def test_a_key_that_is_gone_ends_what_it_proved_and_one_more_does_not(
    plain: TokenIssuer,
) -> None:
    keys = keys_of(plain, retry_s=0.0)
    await found(keys, plain)
    trust = keys.trust
    plain.rotate(keep=True)
    await found(keys, plain)
    assert (trust.ended, keys.trust) == (False, trust)
    plain.retire()
    await keys.refresh()
    assert trust.ended
    assert not keys.trust.ended


async def test_keys_are_fetched_again_in_the_background(plain: TokenIssuer) -> None:
    keys = RemoteKeys(plain.url, Documents(timeout_s=QUICK_S), refresh_s=0.05, retry_s=0.05)
    kept_fresh = asyncio.create_task(keys.keep_fresh())
    await found(keys, plain)
    plain.rotate(keep=False)
    trust = keys.trust
    await eventually(lambda: trust.ended)
    seen = plain.seen[JWKS]
    plain.go_away()
    assert await found(keys, plain)
    age_s = keys.age_s
    await asyncio.sleep(0.3)
    assert keys.age_s > age_s
    assert await found(keys, plain)
    plain.come_back()
    await eventually(lambda: plain.seen[JWKS] > seen + 1)
    await cancelled(kept_fresh)
    await keys.close()


async def test_a_caller_who_leaves_takes_nobodys_keys_away(plain: TokenIssuer) -> None:
    keys = keys_of(plain)
    leaving = asyncio.create_task(found(keys, plain))
    staying = asyncio.create_task(found(keys, plain))
    await asyncio.sleep(0)
    await cancelled(leaving)
    assert len(await staying) == 1
    assert plain.seen[JWKS] == 1


async def test_an_issuer_elsewhere_cannot_have_others_called_in_plain_text(
    plain: TokenIssuer,
) -> None:
    with pytest.raises(DocumentError, match="only https"):
        await Documents().fetch(plain.url + JWKS, "https://elsewhere.example/")
    with pytest.raises(DocumentError, match="only https"):
        await Documents().fetch("http://elsewhere.example/", plain.url)
    for strange in ("file:///etc/hostname", "ftp://127.0.0.1/", "", "https://[", "//x"):
        with pytest.raises(DocumentError):
            await Documents().fetch(strange, plain.url)
    assert not plain.seen


async def test_issuers_are_begun_with_the_server_and_replaced_while_it_runs(
    issuer: TokenIssuer,
) -> None:
    configured = Issuer(url=issuer.url, vo="cms")
    issuers = TrustedIssuers(AUDIENCE, [], documents=Documents(timeout_s=QUICK_S), refresh_s=60)
    verifier = TokenVerifier({}, AUDIENCE, issuers)
    await issuers.start()
    with pytest.raises(GridlaneError, match="not acceptable"):
        await verifier.verify(issuer.sign())
    issuers.replace([configured])
    proof = await verifier.prove(issuer.sign())
    assert proof.principal.vos == {"cms"}
    issuers.replace([])
    assert proof.trust.ended
    with pytest.raises(GridlaneError, match="not acceptable"):
        await verifier.verify(issuer.sign())
    await issuers.stop()
    assert not [task for task in asyncio.all_tasks() if "keys" in task.get_name()]


async def test_what_policy_names_is_fetched_from_public_addresses_alone(tmp_path: Path) -> None:
    """By its number, by a name that means it, and when another place sends there."""
    authority = Authority()
    roots = authority.write_roots(tmp_path / "roots.pem")
    with TokenIssuer(authority.write_pair(tmp_path, "issuer")) as here:
        public = Documents(roots, timeout_s=QUICK_S, addresses=Addresses())
        for url in (here.url, f"https://localhost:{here.port}"):
            with pytest.raises(DocumentError, match="policy forbids"):
                await public.fetch(url + JWKS, here.url)
        assert not here.seen
        named = Documents(roots, addresses=Addresses([ip_network("127.0.0.0/8")]))
        assert (await named.fetch(here.url + JWKS, here.url))["keys"]
        seen = here.seen[JWKS]
        here.fault, here.redirect = Fault.REDIRECT, "https://10.0.0.1/keys"
        with pytest.raises(DocumentError, match="policy forbids to connect to this address"):
            await named.fetch(here.url + JWKS, here.url)
        assert here.seen[JWKS] == seen + 1


async def test_an_issuer_of_the_policy_tells_how_its_keys_are(tmp_path: Path) -> None:
    authority = Authority()
    roots = authority.write_roots(tmp_path / "roots.pem")
    with TokenIssuer(authority.write_pair(tmp_path, "issuer")) as here:
        allowed = Addresses([ip_network("127.0.0.0/8")])
        issuers = TrustedIssuers(
            AUDIENCE, policy_documents=Documents(roots, addresses=allowed), retry_s=0.05
        )
        verifier = TokenVerifier({}, AUDIENCE, issuers)
        await issuers.start()
        policy_s = PolicyIssuer(name="issuers/here", url=here.url, vo="cms")
        here.fault = Fault.GARBAGE
        issuers.replace([policy_s])
        await eventually(lambda: "no JSON" in status(issuers, here.url).problem)
        assert status(issuers, here.url)[:2] == ((), None)
        here.fault = None
        await eventually(lambda: bool(status(issuers, here.url).kids))
        assert (await verifier.verify(here.sign())).vos == {"cms"}
        good = status(issuers, here.url)
        assert (good.kids, good.problem) == ((here.key.kid,), "")
        assert good.fetched_us is not None
        assert abs(good.fetched_us / 1e6 - time.time()) < 60
        # Other terms, and the keys need not be fetched again.
        seen = here.seen[JWKS]
        issuers.replace([policy_s.model_copy(update={"max_token_lifetime_s": 60.0})])
        with pytest.raises(GridlaneError, match="not acceptable"):
            await verifier.verify(here.sign())
        assert here.seen[JWKS] == seen
        issuers.replace([])
        assert issuers.status(here.url) is None
        await issuers.stop()
        await eventually(
            lambda: not [task for task in asyncio.all_tasks() if "keys" in task.get_name()]
        )


def status(issuers: TrustedIssuers, url: str) -> KeyStatus:
    found = issuers.status(url)
    assert found is not None
    return found


async def test_the_state_of_all_issuers_is_told(plain: TokenIssuer) -> None:
    with TokenIssuer() as away:
        issuers = TrustedIssuers(
            AUDIENCE,
            [Issuer(url=plain.url, vo="cms"), Issuer(url=away.url, vo="atlas")],
            documents=Documents(timeout_s=QUICK_S),
        )
        away.go_away()
        good, bad = await issuers.report()
    assert (good.url, good.vo, good.problem) == (plain.url, "cms", "")
    assert good.keys == (f"{plain.key.kid} (ES256)",)
    assert bad.keys == ()
    assert "127.0.0.1" in bad.problem


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def cancelled(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
