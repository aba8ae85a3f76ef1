"""The decision's fine print: expiry, namesakes, groups, the paths of scopes. The table itself, cell
by cell, is `contract/test_permissions`'s."""

import json
from typing import Any

import pytest

from gridlane_kit.decision import Reason, Visibility, decide, scope_covers
from gridlane_kit.identity import Principal, PrincipalKind
from gridlane_kit.policy import Binding, Policy, PolicyChange, Role, WorkAction
from gridlane_kit.steps import denial

ISSUER = "https://issuer.test/"
NOW = 1_000_000
ME = f"{ISSUER}|ada"


def ada(**changes: Any) -> Principal:
    defaults = {"issuer": ISSUER, "subject": "ada", "vos": frozenset({"sub", "other"})}
    return Principal(**defaults | changes)


def bound(role: Role) -> Binding:
    vo = {Role.VO_MANAGER: "run", Role.SUBMITTER: "sub"}.get(role, "")
    channel = "channel-uid" if role is Role.CHANNEL_MANAGER else ""
    return Binding(ISSUER, "ada", role, vo=vo, channel_uid=channel)


def policy_of(*roles: Role, **changes: Any) -> Policy:
    return Policy(7, [bound(role) for role in roles], **changes)


def test_a_token_without_capability_scopes_is_not_narrowed() -> None:
    for scopes in (None, set(), {"openid", "wlcg.groups"}):
        assert decide(ada(scopes=scopes), "workload.jobs.view", policy_of(), NOW).allowed


def test_a_scope_gives_nothing_that_the_role_does_not() -> None:
    caller = ada(scopes={"compute.create"})
    decision = decide(caller, "workload.jobs.submit", policy_of(), NOW)
    assert decision.reason is Reason.PERMISSION_DENIED


def test_a_veto_reaches_the_tokens_of_running_jobs() -> None:
    job = ada(kind=PrincipalKind.JOB, job="jobs/1", attempt=1)
    decision = decide(job, "reporting.spans.write", policy_of(Role.VETOED), NOW)
    assert decision.reason is Reason.CALLER_VETOED


def test_jobs_are_not_read_within_the_vo_where_the_policy_says_so() -> None:
    decision = decide(ada(), "workload.jobs.view", policy_of(jobs_vo_readable=False), NOW)
    assert decision.visibility == Visibility(owner=ME)


def test_a_submitter_submits_only_for_the_vos_it_still_belongs_to() -> None:
    decision = decide(
        ada(vos=frozenset({"other"})), "workload.jobs.submit", policy_of(Role.SUBMITTER), NOW
    )
    assert not decision.allowed
    anywhere = Policy(1, [Binding(ISSUER, "ada", Role.SUBMITTER)])
    assert decide(ada(), "workload.jobs.submit", anywhere, NOW).visibility.vos == {"sub", "other"}


def test_roles_of_another_issuers_namesake_do_not_count() -> None:
    stranger = ada(issuer="https://other.test/")
    assert not decide(stranger, "workload.jobs.submit", policy_of(Role.ADMIN), NOW).allowed


def test_a_binding_counts_until_its_end_and_not_at_it() -> None:
    ending = Binding(ISSUER, "ada", Role.ADMIN, expires_us=NOW)
    policy = Policy(1, [ending, bound(Role.SUBMITTER)])
    assert decide(ada(), "transfer.channels.view", policy, NOW - 1).visibility.everything
    assert not decide(ada(), "transfer.channels.view", policy, NOW).allowed
    assert decide(ada(), "workload.jobs.submit", policy, NOW).visibility.vos == {"sub"}
    assert [b.role for b in policy.grants(ada(), NOW).bindings] == [Role.SUBMITTER]


def test_a_narrowed_token_changes_no_policy_and_is_told_what_it_needs() -> None:
    permission = "authorization.roles.manage"
    decision = decide(ada(scopes={"compute.create"}), permission, policy_of(Role.ADMIN), NOW)
    refusal = denial(decision, permission)
    assert (refusal.reason.name, refusal.metadata["scopes_needed"]) == ("SCOPE_TOO_NARROW", "")
    assert refusal.message == f"{permission} needs a token without capability scopes"


TEAM = "/sub/team"


def of_team(role: Role, vo: str = "sub", **more: Any) -> Binding:
    return Binding("", "", role, vo, group=TEAM, **more)


def in_team(**changes: Any) -> Principal:
    return ada(groups=frozenset({TEAM, "/sub"}), active_group=TEAM, **changes)


def test_a_groups_role_is_everybodys_who_asserts_the_group_and_belongs_to_its_vo() -> None:
    policy = Policy(1, [of_team(Role.SUBMITTER)])
    assert decide(in_team(), "workload.jobs.submit", policy, NOW).visibility.vos == {"sub"}
    for other in (
        ada(),
        ada(groups=frozenset({"/sub", f"{TEAM}/core", "/sub/teams"})),
        in_team(vos=frozenset({"other"})),
    ):
        assert not decide(other, "workload.jobs.submit", policy, NOW).allowed


def test_an_identity_that_is_called_as_a_group_holds_nothing_of_the_groups() -> None:
    policy = Policy(1, [of_team(Role.ADMIN)])
    for imposter in (ada(issuer="", subject=f"sub|{TEAM}"), ada(issuer="sub", subject=TEAM)):
        assert not decide(imposter, "authorization.vos.manage", policy, NOW).allowed


def test_a_groups_binding_counts_until_its_end() -> None:
    policy = Policy(1, [of_team(Role.SUBMITTER, expires_us=NOW)])
    assert decide(in_team(), "workload.jobs.submit", policy, NOW - 1).allowed
    assert not decide(in_team(), "workload.jobs.submit", policy, NOW).allowed


def test_a_group_that_is_bound_by_a_change_counts_at_once_and_no_more_when_it_is_unbound() -> None:
    first = Policy(1, [bound(Role.SUBMITTER)])
    assert not decide(in_team(), "authorization.vos.manage", first, NOW).allowed
    second = first.changed(PolicyChange(2, added=[of_team(Role.ADMIN)]))
    assert decide(in_team(), "authorization.vos.manage", second, NOW).allowed
    third = second.changed(PolicyChange(3, removed=[of_team(Role.ADMIN)]))
    assert not decide(in_team(), "authorization.vos.manage", third, NOW).allowed
    assert decide(in_team(), "workload.jobs.submit", third, NOW).allowed


def test_a_veto_of_a_group_overrides_the_roles_of_its_members() -> None:
    policy = Policy(1, [bound(Role.ADMIN), of_team(Role.VETOED)])
    assert decide(in_team(), "workload.jobs.list", policy, NOW).visibility.nothing
    assert decide(in_team(), "authorization.self.view", policy, NOW).reason is Reason.CALLER_VETOED
    assert decide(ada(), "authorization.vos.manage", policy, NOW).allowed


def test_of_several_vetoes_the_severest_decides_what_becomes_of_work() -> None:
    hold = of_team(Role.VETOED, queued_work=WorkAction.KEEP, running_work=WorkAction.HOLD)
    cancel = Binding(ISSUER, "ada", Role.VETOED, queued_work=WorkAction.CANCEL)
    grants = Policy(1, [hold, cancel]).grants(in_team(), NOW)
    assert (grants.queued_work, grants.running_work) == (WorkAction.CANCEL, WorkAction.HOLD)
    nobody = Policy(1, [of_team(Role.ADMIN)]).grants(in_team(), NOW)
    assert (nobody.queued_work, nobody.running_work) == (WorkAction.KEEP, WorkAction.KEEP)


def shared(caller: Principal, policy: Policy) -> frozenset[tuple[str, str]]:
    return decide(caller, "transfer.jobs.cancel", policy, NOW).visibility.groups


def test_a_job_sharer_reaches_the_active_group_alone_and_in_the_vos_of_its_role_alone() -> None:
    everywhere = Policy(1, [Binding(ISSUER, "ada", Role.JOB_SHARER)])
    in_one = Policy(1, [Binding(ISSUER, "ada", Role.JOB_SHARER, "sub")])
    assert shared(in_team(), everywhere) == {("sub", TEAM), ("other", TEAM)}
    assert shared(in_team(), in_one) == {("sub", TEAM)}
    assert shared(in_team(vos=frozenset({"other"})), in_one) == frozenset()


def test_a_job_sharer_reaches_nothing_in_a_group_that_its_vo_has_not_declared() -> None:
    sharer = [Binding(ISSUER, "ada", Role.JOB_SHARER, "sub")]
    assert shared(in_team(), Policy(1, sharer, groups=[TEAM])) == {("sub", TEAM)}
    assert shared(in_team(), Policy(1, sharer, groups=["/sub/others"])) == frozenset()
    assert shared(in_team(), Policy(1, sharer, groups=["/other/others"])) == {("sub", TEAM)}


@pytest.mark.parametrize("active", ["", "/sub/others"])
def test_a_job_sharer_reaches_nothing_in_no_group_or_in_one_that_is_not_its_own(
    active: str,
) -> None:
    policy = Policy(1, [Binding(ISSUER, "ada", Role.JOB_SHARER)])
    caller = ada(groups=frozenset({TEAM}), active_group=active)
    assert shared(caller, policy) == frozenset()


@pytest.mark.parametrize(
    ("scope", "path", "covered"),
    [
        ("storage.read:/foo/bar", "/foo/bar", True),
        ("storage.read:/foo/bar", "/foo/bar/x", True),
        ("storage.read:/foo/bar/", "/foo/bar/x", True),
        ("storage.read:/foo/bar", "/foo/bargain", False),
        ("storage.read:/foo/bar", "/foo", False),
        ("storage.read:/foo/bar", "/foo/bar/../baz", False),
        ("storage.read:/foo/bar", "/foo//bar/x", False),
        ("storage.read:/foo/bar", "foo/bar", False),
        ("storage.read:/", "/anything", True),
        ("storage.read:/", "/", True),
        ("storage.read", "/foo", False),
        ("storage.read:foo", "/foo", False),
        ("storage.read:/foo/../bar", "/bar", False),
        ("storage.modify:/foo", "/foo", False),
        ("compute.read", "/foo", False),
        ("openid", "/foo", True),
    ],
)
def test_a_scopes_path_covers_itself_and_what_lies_below(
    scope: str, path: str, covered: bool
) -> None:
    assert scope_covers(ada(scopes={scope}), "storage.read", path) is covered


def test_a_storage_scope_without_a_usable_path_opens_nothing() -> None:
    caller = ada(scopes={"storage.read"})
    decision = decide(caller, "transfer.content.read", policy_of(), NOW)
    assert decision.reason is Reason.SCOPE_TOO_NARROW


PAIR = Visibility(groups=frozenset({("sub", TEAM)}))


@pytest.mark.parametrize(
    ("vo", "group", "covered"),
    [("sub", TEAM, True), ("other", TEAM, False), ("sub", "/sub", False), ("sub", None, False)],
)
def test_visibility_covers_what_a_group_made_in_its_vo(
    vo: str, group: str | None, covered: bool
) -> None:
    assert PAIR.covers(owner="x", vo=vo, group=group) is covered


@pytest.mark.parametrize(
    ("visibility", "owner", "vo", "channel", "covered"),
    [
        (Visibility(everything=True), "x", "x", "", True),
        (Visibility(nothing=True), ME, "sub", "c", False),
        (Visibility(owner=ME), ME, "x", "", True),
        (Visibility(owner=ME), "x", "x", "", False),
        (Visibility(), "", "", "", False),
        (Visibility(vos=frozenset({"sub"})), "x", "sub", "", True),
        (Visibility(vos=frozenset({"sub"})), "x", "", "", False),
        (Visibility(channels=frozenset({"c"})), "x", "x", "c", True),
        (Visibility(channels=frozenset({"c"})), "x", "x", "", False),
    ],
)
def test_visibility_covers_rows_by_owner_vo_or_channel(
    visibility: Visibility, owner: str, vo: str, channel: str, covered: bool
) -> None:
    assert visibility.covers(owner=owner, vo=vo, channel=channel) is covered


def test_a_principal_survives_being_stored() -> None:
    scopes, groups = frozenset({"compute.read"}), frozenset({"/sub", "/sub/a"})
    stored = ada(scopes=scopes, groups=groups, active_group="/sub", actor="gateway")
    read = Principal.from_json(stored.to_json())
    assert read == Principal(
        ISSUER,
        "ada",
        vos=frozenset({"sub", "other"}),
        groups=groups,
        active_group="/sub",
        scopes=scopes,
    )
    assert read.owner == ME


def test_a_principal_stored_before_there_were_active_groups_has_none() -> None:
    stored = json.loads(ada().to_json())
    del stored["active_group"]
    assert Principal.from_json(json.dumps(stored)) == ada()
