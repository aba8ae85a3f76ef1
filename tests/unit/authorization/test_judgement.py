"""What an answer to a question about a permission rests on, over many policies drawn at random."""

import random
from collections.abc import Iterator

import pytest

from gridlane_authorization.judgement import (
    Answer,
    Ground,
    Question,
    Target,
    answer,
    holds_until,
    role_needed,
)
from gridlane_kit.decision import Reason, decide
from gridlane_kit.identity import Principal
from gridlane_kit.permissions import PERMISSIONS
from gridlane_kit.policy import IN_ITS_VOS, Binding, Policy, Role

NOW, CASES = 1_000, 3_000
ISSUER = "https://iam.example.org/"
ROLES = tuple(role for role in Role if role is not Role.REGULAR)
VOS, CHANNELS = ("cms", "atlas"), ("c1", "c2")
WEAKEST_FIRST = (
    Role.JOB_MONITOR,
    Role.PILOT,
    Role.JOB_SHARER,
    Role.SUBMITTER,
    Role.CHANNEL_MANAGER,
    Role.VO_MANAGER,
    Role.ADMIN,
)


def ada(*vos: str, **claims: object) -> Principal:
    return Principal(ISSUER, "ada", vos=frozenset(vos), **claims)  # type: ignore[arg-type]


def held(role: Role, vo: str = "", channel: str = "", ends: int | None = None) -> Binding:
    return Binding(ISSUER, "ada", role, vo, channel, ends)


def in_some_place(draw: random.Random, role: Role) -> Binding:
    vo = channel = ""
    if role is Role.VO_MANAGER or (role in IN_ITS_VOS and draw.random() < 0.8):
        vo = draw.choice(VOS)
    if role is Role.CHANNEL_MANAGER:
        channel = draw.choice(CHANNELS)
    return held(role, vo, channel, draw.choice((None, NOW + 10, NOW + 20, NOW + 30)))


def cases() -> Iterator[tuple[Question, Ground]]:
    draw = random.Random(5)  # noqa: S311 - no secret
    permissions = sorted(PERMISSIONS)
    for _ in range(CASES):
        principal = ada(*draw.sample(VOS, draw.randint(0, 2)), groups=frozenset({"/cms/a"}),
                        active_group="/cms/a")  # fmt: skip
        owner = draw.choice(("", principal.owner, f"{ISSUER}|bob"))
        target = Target(
            draw.choice(("", *VOS)),
            draw.choice(("", *CHANNELS)),
            owner,
            draw.choice(("", "/cms/a")),
        )
        bindings = [in_some_place(draw, draw.choice(ROLES)) for _ in range(draw.randint(0, 4))]
        question = Question(
            principal, draw.choice(permissions), target if draw.random() < 0.8 else None
        )
        yield question, Ground(bindings, Policy(7, (), draw.random() < 0.5, VOS))


ALL = list(cases())


def allowed(question: Question, *bindings: Binding, like: Ground) -> bool:
    """What follows from the decision itself, and the reach that comes with it."""
    policy = Policy(7, bindings, like.policy.jobs_vo_readable, like.policy.vos)
    decision = decide(question.principal, question.permission, policy, NOW)
    target = question.target
    if target is None or not decision.allowed:
        return decision.allowed and not decision.visibility.nothing
    return decision.visibility.covers(
        owner=target.owner, vo=target.vo, channel=target.channel, group=target.group
    )


def test_an_answer_is_what_the_decision_and_its_reach_say() -> None:
    told = [answer(question, ground, NOW) for question, ground in ALL]
    for (question, ground), given in zip(ALL, told, strict=True):
        assert given.allowed == allowed(question, *ground.held, like=ground)
        assert given.allowed == (given.reason is None)
    assert {given.reason for given in told} == {
        None,
        Reason.CALLER_VETOED,
        Reason.PERMISSION_DENIED,
    }


def test_the_role_that_is_needed_is_the_least_that_would_do() -> None:
    found = set()
    for question, ground in ALL:
        if answer(question, ground, NOW).reason is not Reason.PERMISSION_DENIED:
            continue
        role = role_needed(question, ground, NOW)
        found.add(role)
        target = question.target or Target("some", "some")
        for weaker in WEAKEST_FIRST[: None if role is None else WEAKEST_FIRST.index(role)]:
            given = _there(weaker, target, question.target is None)
            assert not allowed(question, *ground.held, given, like=ground), (question, weaker)
        if role is not None:
            given = _there(role, target, question.target is None)
            assert allowed(question, *ground.held, given, like=ground), (question, role)
    assert found == {*WEAKEST_FIRST, None}


def _there(role: Role, target: Target, anywhere: bool) -> Binding:
    if role is Role.ADMIN:
        return held(role)
    if role is Role.CHANNEL_MANAGER:
        return held(role, channel=target.channel or "none")
    return held(role, "" if anywhere and role in IN_ITS_VOS else target.vo or "none")


def test_an_answer_holds_until_it_is_another_one() -> None:
    ended = 0
    for question, ground in ALL:
        given = answer(question, ground, NOW)
        until = holds_until(question, given, ground, NOW)
        times = sorted({b.expires_us for b in ground.held if b.expires_us is not None})
        for time in times:
            then = answer(question, ground, time)
            if until is None or time < until:
                assert (then.allowed, then.reason) == (given.allowed, given.reason)
            if time == until:
                assert _differs(question, given, then)
                ended += 1
    assert ended > CASES // 20


def _differs(question: Question, one: Answer, other: Answer) -> bool:
    if (one.allowed, one.reason) != (other.allowed, other.reason):
        return True
    return question.target is None and one.visibility != other.visibility


def test_a_holder_of_very_many_bindings_is_told_a_time_until_which_the_answer_holds() -> None:
    bindings = [held(Role.PILOT, f"vo{n}", ends=NOW + n) for n in range(1, 1000)]
    last = held(Role.SUBMITTER, "cms", ends=NOW + 2000)
    ground = Ground([*bindings, last], Policy(7, (), vos=VOS))
    question = Question(ada("cms"), "transfer.jobs.submit", Target("cms"))
    until = holds_until(question, answer(question, ground, NOW), ground, NOW)
    assert until is not None
    assert NOW < until <= NOW + 2000


@pytest.mark.parametrize(
    ("bindings", "owner", "vo", "rule"),
    [
        ((), "ada", "cms", "regular user: own"),
        ((held(Role.VO_MANAGER, "atlas"),), "ada", "cms", "regular user: own"),
        ((held(Role.VO_MANAGER, "cms"),), "bob", "cms", "VO manager: that VO"),
        (
            (held(Role.VO_MANAGER, "atlas"), held(Role.CHANNEL_MANAGER, channel="c1")),
            "bob",
            "cms",
            "channel manager: that channel",
        ),
        ((held(Role.VO_MANAGER, "atlas"),), "bob", "cms", "VO manager: that VO"),
        ((held(Role.ADMIN),), "ada", "cms", "admin: all"),
        ((), "bob", "cms", "regular user: own"),
    ],
)
def test_the_rule_is_the_one_that_gives_or_the_strongest_that_does_not_reach(
    bindings: tuple[Binding, ...], owner: str, vo: str, rule: str
) -> None:
    target = Target(vo, "c1", f"{ISSUER}|{owner}")
    question = Question(ada("cms", "atlas"), "transfer.jobs.cancel", target)
    assert answer(question, Ground(bindings, Policy(7, (), vos=VOS)), NOW).rule == rule
