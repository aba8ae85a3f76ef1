"""Sessions: a token is proven once, for at most five minutes, and every policy decides anew."""

import time

import pytest

from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.sessions import Sessions, acting
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, new_key

ISSUER = "https://issuer.test/"
AUDIENCE = "https://gridlane.test"
SIGNER = TokenSigner(new_key(), ISSUER, AUDIENCE)


def header(subject: str = "ada", lifetime_s: int = 60) -> str:
    return f"Bearer {SIGNER.sign_user(subject, lifetime_s=lifetime_s, vos=['local'])}"


def sessions(policy: PolicyHolder | None = None, size: int = 100) -> Sessions:
    verifier = TokenVerifier({ISSUER: StaticKeys(SIGNER.jwks())}, AUDIENCE)
    return Sessions(verifier, policy or PolicyHolder(Policy(1)), size=size)


def submitter(revision: int, expires_us: int | None = None) -> Policy:
    binding = Binding(ISSUER, "ada", Role.SUBMITTER, vo="local", expires_us=expires_us)
    return Policy(revision, [binding])


async def test_a_proven_token_is_known_until_it_ends_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, sent = sessions(), header(lifetime_s=60)
    assert kept.known(sent) is None
    session = await kept.prove(sent)
    assert session.principal.subject == "ada"
    assert kept.known(sent) is session
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert kept.known(sent) is None
    with pytest.raises(GridlaneError) as caught:
        await kept.prove(sent)
    assert caught.value.reason == "TOKEN_EXPIRED"
    assert len(kept) == 0


async def test_a_long_lived_token_is_proven_again_after_five_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, sent = sessions(), header(lifetime_s=3600)
    await kept.prove(sent)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 299)
    assert kept.known(sent) is not None
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert kept.known(sent) is None


async def test_what_was_not_proven_is_not_known() -> None:
    kept, sent = sessions(), header()
    await kept.prove(sent)
    assert kept.known(sent[:-1]) is None
    assert kept.known("") is None
    for bad in ("", "Bearer", "Bearer ", "Basic YTpi", sent.removeprefix("Bearer ")):
        with pytest.raises(GridlaneError) as caught:
            await kept.prove(bad)
        assert caught.value.reason == "TOKEN_MISSING"
    with pytest.raises(GridlaneError) as caught:
        await kept.prove(sent + "x")
    assert caught.value.reason == "TOKEN_INVALID"
    assert len(kept) == 1


async def test_the_scheme_is_read_whatever_its_case() -> None:
    sent = header().replace("Bearer", "bEARER")
    assert (await sessions().prove(sent)).principal.subject == "ada"


async def test_memory_is_bounded_and_what_is_used_stays() -> None:
    kept, used = sessions(size=10), header("used")
    session = await kept.prove(used)
    for number in range(50):
        await kept.prove(header(f"user{number}"))
        assert kept.known(used) is session
        assert len(kept) <= 11


async def test_no_token_is_kept() -> None:
    kept, sent = sessions(), header()
    await kept.prove(sent)
    assert sent not in repr(vars(kept))
    assert {len(key) for key in kept._young} == {32}


async def test_a_caller_acts_in_the_group_that_it_names_among_its_own() -> None:
    token = SIGNER.sign_user("ada", groups=["/cms", "/cms/production"], lifetime_s=60)
    kept, sent = sessions(), f"Bearer {token}"
    first, chosen = await kept.prove(sent), await kept.prove(sent, "/cms/production")
    assert first.principal.active_group == "/cms"
    assert chosen.principal.active_group == "/cms/production"
    assert chosen.principal.owner == first.principal.owner
    assert kept.known(sent) is first
    assert kept.known(sent, "/cms/production") is chosen
    assert kept.known(sent, "/cms/produktion") is None


@pytest.mark.parametrize("group", ["/atlas", "/cm", "/cms/", "cms", "x" * 5000, "\x7f"])
async def test_a_group_that_the_token_does_not_assert_is_refused(group: str) -> None:
    token = SIGNER.sign_user("ada", groups=["/cms", "/cms/production"], lifetime_s=60)
    kept = sessions()
    with pytest.raises(GridlaneError) as caught:
        await kept.prove(f"Bearer {token}", group)
    assert caught.value.reason == "PERMISSION_DENIED"
    assert group not in caught.value.message or group == "/cm"
    assert kept.known(f"Bearer {token}", group) is None


def declaring(revision: int, *groups: str) -> Policy:
    return Policy(revision, groups=groups)


async def test_where_a_vo_declares_groups_another_one_cannot_be_chosen() -> None:
    policy = PolicyHolder(declaring(1, "/cms/production", "/atlas/production"))
    token = SIGNER.sign_user("ada", groups=["/cms", "/cms/production", "/lhcb/x"], lifetime_s=60)
    kept, sent = sessions(policy), f"Bearer {token}"
    chosen = await kept.prove(sent, "/cms/production")
    assert chosen.principal.active_group == "/cms/production"
    for undeclared in ("/cms", "/cms"):
        with pytest.raises(GridlaneError) as caught:
            await kept.prove(sent, undeclared)
        assert caught.value.reason == "PERMISSION_DENIED"
        assert caught.value.metadata == {"group": "/cms"}
        assert "gridlane group list cms" in caught.value.message
    # Its own first one is no choice: it acts in none.
    first = await kept.prove(sent)
    assert first.principal.active_group == ""
    assert first.principal.groups == {"/cms", "/cms/production", "/lhcb/x"}
    # A VO that declares none leaves its groups to the issuer.
    assert (await kept.prove(sent, "/lhcb/x")).principal.active_group == "/lhcb/x"


async def test_what_is_declared_counts_from_then_on_and_no_longer() -> None:
    policy = PolicyHolder(declaring(1))
    token = SIGNER.sign_user("ada", groups=["/cms", "/cms/production"], lifetime_s=60)
    kept, sent = sessions(policy), f"Bearer {token}"
    first, chosen = await kept.prove(sent), await kept.prove(sent, "/cms/production")
    policy.replace(declaring(2, "/cms"))
    assert kept.known(sent) is first
    assert first.principal.active_group == "/cms"
    with pytest.raises(GridlaneError) as caught:
        kept.known(sent, "/cms/production")
    assert caught.value.reason == "PERMISSION_DENIED"
    policy.replace(declaring(3, "/cms/production"))
    assert kept.known(sent, "/cms/production") is chosen
    known = kept.known(sent)
    assert known is not None
    assert known.principal.active_group == ""
    policy.replace(declaring(4))
    assert kept.known(sent) is first
    assert first.principal.active_group == "/cms"


def test_a_service_names_the_group_in_which_work_was_accepted() -> None:
    policy = declaring(1, "/cms/production")
    ada = Principal(ISSUER, "ada", groups=frozenset({"/cms"}), active_group="/cms")
    assert acting(ada, "", policy).active_group == ""
    later = ada.on_behalf("workload")
    assert acting(later, "", policy) is later


async def test_a_session_ends_with_the_key_that_proved_its_token() -> None:
    signer = TokenSigner(new_key(), ISSUER, AUDIENCE)
    verifier = TokenVerifier({ISSUER: signer.keys}, AUDIENCE)
    kept = Sessions(verifier, PolicyHolder(Policy(1)))
    sent = f"Bearer {signer.sign_user('ada', lifetime_s=60)}"
    session = await kept.prove(sent)
    old = signer.jwks()["keys"][0]
    signer.replace_key(new_key(), [{**old, "exp": int(time.time()) + 60}])
    assert kept.known(sent) is session
    signer.replace_key(new_key(), [])
    assert kept.known(sent) is None
    with pytest.raises(GridlaneError):
        await kept.prove(sent)


async def test_a_revoked_token_is_refused_whether_it_is_known_or_not() -> None:
    policy = PolicyHolder(Policy(1))
    kept, lost, other = sessions(policy), header(), header()
    session = await kept.prove(lost)
    assert kept.decision(session, "authorization.self.view").allowed
    policy.replace(Policy(2, revoked={session.principal.token_id: 4_000_000_000_000_000}))
    for _ in range(2):
        with pytest.raises(GridlaneError) as caught:
            kept.known(lost)
        assert caught.value.reason == "TOKEN_INVALID"
    with pytest.raises(GridlaneError) as caught:
        await kept.prove(lost)
    assert caught.value.reason == "TOKEN_INVALID"
    assert kept.decision(await kept.prove(other), "authorization.self.view").allowed


async def test_a_decision_is_made_once_under_a_policy_and_anew_under_the_next() -> None:
    holder = PolicyHolder(Policy(1))
    kept = sessions(holder)
    sent = header()
    session = await kept.prove(sent)
    assert not kept.decision(session, "workload.jobs.submit").allowed
    holder.replace(submitter(2))
    assert kept.known(sent) is session
    first = kept.decision(session, "workload.jobs.submit")
    assert first.allowed
    assert first.policy_revision == 2
    assert kept.decision(session, "workload.jobs.submit") is first
    holder.replace(Policy(3, [Binding(ISSUER, "ada", Role.VETOED)]))
    assert kept.known(sent) is session
    assert not kept.decision(session, "workload.jobs.submit").allowed


async def test_a_decision_ends_with_the_binding_that_it_rests_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()
    holder = PolicyHolder(submitter(1, expires_us=int((now + 10) * 1e6)))
    kept, sent = sessions(holder), header()
    assert kept.decision(await kept.prove(sent), "workload.jobs.submit").allowed
    monkeypatch.setattr(time, "time", lambda: now + 11)
    monkeypatch.setattr(time, "time_ns", lambda: int((now + 11) * 1e9))
    assert kept.known(sent) is None
    assert not kept.decision(await kept.prove(sent), "workload.jobs.submit").allowed
