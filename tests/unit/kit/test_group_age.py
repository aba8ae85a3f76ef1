"""For how long the groups of a token, and a token itself, are believed: by a clock that the test
sets."""

import time
from dataclasses import replace
from typing import Any, Final

import pytest

from gridlane_kit.assertions import AssertionSigner, AssertionVerifier, service_jwks
from gridlane_kit.claims import BadTokenError
from gridlane_kit.decision import decide
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role, WorkAction
from gridlane_kit.standing_work import why_stopped, work_action
from gridlane_kit.token_profile import GROUP_AGE_S, IssuerProfile, principal_of
from gridlane_kit.tokens import new_key
from gridlane_workload.jobs import submitter

ISSUER: Final = "https://cms.test/"
TEAM: Final = "/cms/team"
NOW_S: Final = 1_800_000_000
SUBMIT: Final = "workload.jobs.submit"
HOUR_S: Final = 3600


def claims(life_s: int = HOUR_S, **changes: Any) -> dict[str, Any]:
    good = {
        "wlcg.ver": "1.0",
        "iss": ISSUER,
        "sub": "ada",
        "aud": "gridlane",
        "iat": NOW_S,
        "exp": NOW_S + life_s,
        "jti": "1",
        "wlcg.groups": [TEAM],
    }
    return good | changes


def profile(**terms: Any) -> IssuerProfile:
    return IssuerProfile(frozenset({"gridlane"}), "cms", **terms)


def proven(at_s: float = NOW_S, **terms: Any) -> Principal:
    return principal_of(claims(), profile(**terms), at_s)


def later_of(principal: Principal) -> Principal:
    """The principal of work that was submitted by one."""
    return Principal.from_json(principal.to_json())


def us(seconds: float) -> int:
    return int(seconds * 1_000_000)


def policy(*more: Binding) -> Policy:
    team = Binding("", "", Role.SUBMITTER, "cms", group=TEAM)
    return Policy(1, [team, *more], vos=["cms"])


@pytest.mark.parametrize("life_s", [1, HOUR_S - 1, HOUR_S])
def test_a_token_may_live_as_long_as_its_issuer_s_may(life_s: int) -> None:
    found = principal_of(claims(life_s), profile(max_lifetime_s=HOUR_S), NOW_S)
    assert found.token_expires_us == us(NOW_S + life_s)


@pytest.mark.parametrize(
    ("life_s", "changes"),
    [(HOUR_S + 1, {}), (30 * 86_400, {}), (HOUR_S, {"iat": NOW_S - 1}), (HOUR_S, {"iat": 0})],
)
def test_a_token_that_lives_longer_is_refused(life_s: int, changes: dict[str, Any]) -> None:
    long = claims(life_s, **changes)
    with pytest.raises(BadTokenError, match="longer"):
        principal_of(long, profile(max_lifetime_s=HOUR_S), NOW_S)
    assert principal_of(long, profile(), NOW_S).subject == "ada"


def test_groups_are_believed_for_a_day_of_work_that_runs_later() -> None:
    at_hand, work = proven(), later_of(proven())
    assert work.groups_until_us == us(NOW_S + GROUP_AGE_S)
    in_time, too_late = us(NOW_S + GROUP_AGE_S) - 1, us(NOW_S + GROUP_AGE_S)
    assert decide(work, SUBMIT, policy(), in_time).allowed
    assert not decide(work, SUBMIT, policy(), too_late).allowed
    assert work.at(in_time) is work
    assert (work.at(too_late).groups, work.at(too_late).active_group) == (frozenset(), "")
    # As long as the token itself is at hand, its groups are.
    assert decide(at_hand, SUBMIT, policy(), too_late).allowed


@pytest.mark.parametrize("age_s", [0.5, 60.0, 30 * 86_400.0])
def test_an_issuer_says_for_how_long(age_s: float) -> None:
    work = later_of(proven(max_group_age_s=age_s))
    assert decide(work, SUBMIT, policy(), us(NOW_S + age_s) - 1).allowed
    assert not decide(work, SUBMIT, policy(), us(NOW_S + age_s)).allowed


def test_what_is_the_identity_s_own_counts_on() -> None:
    own = Binding(ISSUER, "ada", Role.SUBMITTER, "cms")
    work, too_late = later_of(proven()), us(NOW_S + GROUP_AGE_S)
    assert decide(work, SUBMIT, policy(own), too_late).allowed


def test_a_veto_of_the_group_counts_on() -> None:
    own = Binding(ISSUER, "ada", Role.SUBMITTER, "cms")
    veto = Binding("", "", Role.VETOED, "cms", group=TEAM)
    work, too_late = later_of(proven()), us(NOW_S + GROUP_AGE_S)
    for at_us in (too_late - 1, too_late):
        assert not decide(work, SUBMIT, policy(own, veto), at_us).allowed


def test_the_active_group_of_work_is_not_believed_longer_either() -> None:
    sharer = Binding(ISSUER, "ada", Role.JOB_SHARER, "cms")
    work, too_late = later_of(proven()), us(NOW_S + GROUP_AGE_S)
    reach = decide(work, "workload.jobs.view", policy(sharer), too_late - 1).visibility
    assert reach.groups == {("cms", TEAM)}
    assert decide(work, "workload.jobs.view", policy(sharer), too_late).visibility.groups == set()


def test_work_that_outlived_its_groups_waits_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    work = later_of(proven())

    def becomes(seconds: float) -> WorkAction:
        monkeypatch.setattr(time, "time_ns", lambda: int((NOW_S + seconds) * 1e9))
        return work_action(work, SUBMIT, "cms", policy(), running=False)

    assert becomes(GROUP_AGE_S - 1) is WorkAction.KEEP
    assert becomes(GROUP_AGE_S + 1) is WorkAction.HOLD
    message, cure = why_stopped(work, "cms", policy(), "jobs")
    assert "asserted too long ago" in message
    assert cure == "submit again with a new token"


async def test_the_time_travels_with_the_principal_to_other_services() -> None:
    key = new_key()
    signer = AssertionSigner("workload", key)
    verifier = AssertionVerifier("transfer", service_jwks({"workload": key}))
    work = later_of(proven())
    later = replace(work, groups_until_us=us(NOW_S + 2 * GROUP_AGE_S))
    for sent in (work, later):
        header = signer.header(sent, "transfer").removeprefix("Bearer ")
        got = (await verifier.prove(header)).principal
        assert got.groups_until_us == sent.groups_until_us
        assert later_of(got).groups_until_us == sent.groups_until_us


def test_each_submission_counts_from_its_own_token() -> None:
    first, second = proven(NOW_S), proven(NOW_S + 600)
    assert first == second
    until = [us(NOW_S + GROUP_AGE_S), us(NOW_S + 600 + GROUP_AGE_S)]
    jobs = [submitter(each).stored for each in (first, second)]
    assert [Principal.from_json(stored).groups_until_us for stored in jobs] == until


def test_work_from_before_there_was_an_age_keeps_its_groups() -> None:
    old = Principal(ISSUER, "ada", vos=frozenset({"cms"}), groups=frozenset({TEAM}))
    work = later_of(old)
    assert work.groups_until_us is None
    assert decide(work, SUBMIT, policy(), us(NOW_S * 2)).allowed
