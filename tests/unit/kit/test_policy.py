"""The policy as it is changed: each change makes another policy, which is right and cheap."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane.authorization.v1 import policy_pb2
from gridlane_kit.decision import decide
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal, service_principal
from gridlane_kit.policy import Binding, Policy, PolicyChange, PolicyDraft, Role, WorkAction
from gridlane_kit.policy_messages import (
    PART_SIZE,
    binding_message,
    binding_of,
    change_message,
    change_of,
    snapshot_parts,
    take_part,
)

ISSUER = "https://issuer.test/"
ADA = Principal(issuer=ISSUER, subject="ada", vos=frozenset({"local"}))


def bound(subject: str, role: Role, vo: str = "", **more: Any) -> Binding:
    return Binding(ISSUER, subject, role, vo, **more)


def after(policy: Policy, **change: Any) -> Policy:
    return policy.changed(PolicyChange(policy.revision + 1, **change))


def test_a_binding_that_is_added_counts_and_one_that_is_removed_does_not() -> None:
    first = Policy(1, [bound("ada", Role.ADMIN)])
    second = after(first, added=[bound("ada", Role.VETOED)], removed=[bound("ada", Role.ADMIN)])
    assert (second.grants(ADA, 0).vetoed, second.grants(ADA, 0).admin) == (True, False)
    assert second.revision == 2


def test_a_change_leaves_the_policy_before_it_as_it_was() -> None:
    first = Policy(1, [bound("ada", Role.ADMIN)], vos=["local"])
    after(first, added=[bound("ada", Role.VETOED)], removed_vos=frozenset({"local"}))
    assert not first.grants(ADA, 0).vetoed
    assert first.vos == {"local"}


def test_a_binding_that_differs_only_in_its_end_takes_the_place_of_the_other() -> None:
    ending = bound("ada", Role.SUBMITTER, "local", expires_us=5)
    policy = after(Policy(1, [bound("ada", Role.SUBMITTER, "local")]), added=[ending])
    assert policy.bindings == (ending,)
    assert not policy.grants(ADA, 6).in_vos


def test_a_removed_binding_is_found_whatever_its_end() -> None:
    policy = Policy(1, [bound("ada", Role.ADMIN, expires_us=5)])
    assert after(policy, removed=[bound("ada", Role.ADMIN)]).bindings == ()


def test_virtual_organisations_and_settings_change_too() -> None:
    policy = Policy(1, vos=["local"])
    policy = after(policy, added_vos=frozenset({"cms"}), removed_vos=frozenset({"local"}))
    assert (policy.vos, policy.jobs_vo_readable) == (frozenset({"cms"}), True)
    assert after(policy, jobs_vo_readable=False).jobs_vo_readable is False


@pytest.mark.parametrize("principal", [ADA, service_principal("transfer")])
def test_a_closed_policy_says_nothing_of_anybody(principal: Principal) -> None:
    with pytest.raises(GridlaneError) as refused:
        decide(principal, "transfer.status.view", Policy(3, closed=True), 0)
    assert (refused.value.code.name, refused.value.reason.value) == ("UNAVAILABLE", "POLICY_STALE")


VOS = frozenset({"local", "cms"})
GROUPS = frozenset({"/local/one", "/cms"})

of_groups = st.builds(
    Binding,
    st.just(""),
    st.just(""),
    st.sampled_from(Role),
    st.sampled_from(["local", "cms"]),
    st.sampled_from(["", "uid"]),
    st.none() | st.integers(0, 2**50),
    st.sampled_from(["/local/one", "/cms", "/cms/else"]),
)
bindings = of_groups | st.builds(
    Binding,
    st.just(ISSUER),
    st.sampled_from(["ada", "bob", "eve"]),
    st.sampled_from(Role),
    st.sampled_from(["", "local", "cms"]),
    st.sampled_from(["", "uid"]),
    st.none() | st.integers(0, 2**50),
)
changes = st.builds(
    PolicyChange,
    st.just(2),
    st.lists(bindings, max_size=4, unique_by=lambda b: (b.owner, b.key)),
    st.lists(bindings, max_size=4),
    st.frozensets(st.sampled_from(["local", "cms"])),
    st.frozensets(st.sampled_from(["local", "cms"])),
    st.none() | st.booleans(),
)


@given(st.lists(bindings, max_size=8, unique_by=lambda b: (b.owner, b.key)), changes)
def test_a_changed_policy_is_the_policy_made_of_what_is_left_and_what_is_new(
    present: list[Binding], change: PolicyChange
) -> None:
    gone = {(b.owner, b.key) for b in (*change.added, *change.removed)}
    left = [b for b in present if (b.owner, b.key) not in gone]
    whole = Policy(2, [*left, *change.added])
    changed = Policy(1, present).changed(change)
    assert set(changed.bindings) == set(whole.bindings)
    for subject in ("ada", "bob", "eve"):
        caller = Principal(ISSUER, subject, vos=VOS, groups=GROUPS)
        assert set(changed.grants(caller, 7).bindings) == set(whole.grants(caller, 7).bindings)


@given(changes)
def test_a_change_comes_back_from_its_message_as_it_was(change: PolicyChange) -> None:
    assert change_of(change_message(change)) == change


@pytest.mark.parametrize("role", Role)
def test_every_role_comes_back_from_its_message(role: Role) -> None:
    binding = Binding(ISSUER, "ada", role, "local", "uid", 1_700_000_000_123_456)
    assert binding_of(binding_message(binding)) == binding
    of_group = Binding("", "", role, "local", group="/local/one")
    assert binding_of(binding_message(of_group)) == of_group


@pytest.mark.parametrize("queued", WorkAction)
@pytest.mark.parametrize("running", WorkAction)
def test_what_a_veto_does_to_work_comes_back_from_its_message(
    queued: WorkAction, running: WorkAction
) -> None:
    veto = bound("ada", Role.VETOED, queued_work=queued, running_work=running)
    assert binding_of(binding_message(veto)) == veto


def test_a_veto_that_says_nothing_of_work_holds_what_is_queued_and_keeps_what_runs() -> None:
    veto = policy_pb2.RoleBinding(issuer=ISSUER, subject="ada", role=policy_pb2.ROLE_VETOED_USER)
    read = binding_of(veto)
    assert (read.queued_work, read.running_work) == (WorkAction.HOLD, WorkAction.KEEP)


@pytest.mark.parametrize("count", [0, 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE])
def test_a_snapshot_comes_back_from_its_parts_of_which_one_is_the_last(count: int) -> None:
    many = [bound(f"user-{n}", Role.SUBMITTER, "local") for n in range(count)]
    policy = Policy(9, many, jobs_vo_readable=False, vos=["local", "cms"])
    parts = list(snapshot_parts("epoch", policy))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {(part.epoch, part.revision) for part in parts} == {("epoch", 9)}
    draft = PolicyDraft()
    read = [take_part(draft, part) for part in parts][-1]
    assert read is not None
    assert set(read.bindings) == set(many)
    assert read.revision == 9
    assert (read.vos, read.jobs_vo_readable) == (frozenset({"local", "cms"}), False)


LATER_US = 4_000_000_000_000_000


def test_revoked_tokens_come_with_changes_and_snapshots() -> None:
    change = PolicyChange(2, revoked={"lost": LATER_US})
    policy = Policy(1, revoked={"stolen": LATER_US}).changed(change_of(change_message(change)))
    assert policy.revoked == {"lost": LATER_US, "stolen": LATER_US}
    assert after(policy, added=[bound("ada", Role.ADMIN)]).revoked == policy.revoked
    draft, many = PolicyDraft(), {f"token-{n}": LATER_US for n in range(PART_SIZE + 1)}
    parts = [take_part(draft, part) for part in snapshot_parts("epoch", Policy(1, revoked=many))]
    assert parts[0] is None
    assert parts[1] is not None
    assert parts[1].revoked == many


def test_a_revoked_token_is_forgotten_when_it_has_ended_by_itself() -> None:
    policy = Policy(1, revoked={"old": 1})
    assert after(policy, revoked={"lost": LATER_US}).revoked == {"lost": LATER_US}
    (part,) = snapshot_parts("epoch", policy)
    assert not part.revoked_tokens


def test_a_part_of_the_longest_bindings_is_below_the_limit_of_a_message() -> None:
    longest = [
        Binding(4 * "\U0001f600" * 60, f"{n:0255}", Role.SUBMITTER, "\U0001f600" * 64, 36 * "u", 1)
        for n in range(PART_SIZE)
    ]
    (part,) = snapshot_parts(36 * "e", Policy(1, longest))
    assert part.ByteSize() < 3 * 1024 * 1024


def test_one_change_costs_the_same_however_large_the_policy_is() -> None:
    """It costs about 0.05 ms; to make the whole policy anew would take more than 100 ms."""
    policy = Policy(1, [bound(f"user-{n}", Role.SUBMITTER, "local") for n in range(100_000)])
    costs = []
    for n in range(20):
        begun = time.perf_counter()
        policy = after(policy, added=[bound(f"user-{n}", Role.VETOED)])
        costs.append(time.perf_counter() - begun)
    assert min(costs) < 0.005


def test_declared_groups_come_with_the_policy_and_with_its_changes() -> None:
    many = [f"/vo{n}/production" for n in range(PART_SIZE + 1)]
    draft = PolicyDraft()
    *_, policy = (take_part(draft, part) for part in snapshot_parts("e", Policy(1, groups=many)))
    assert policy is not None
    assert policy.groups == frozenset(many)
    change = PolicyChange(
        2,
        added_groups=frozenset({"/cms", "/vo1/analysis"}),
        removed_groups=frozenset({"/vo0/production"}),
    )
    after = policy.changed(change_of(change_message(change)))
    assert after.groups == {*many[1:], "/cms", "/vo1/analysis"}
    assert after.may_be_active("/vo1/analysis")
    assert not after.may_be_active("/vo1/other")
    # The last one is taken back: the VO declares none any more.
    assert not policy.may_be_active("/vo0/other")
    assert after.may_be_active("/vo0/other")


@pytest.mark.parametrize(
    ("group", "may"),
    [
        ("", True),
        ("/cms/production", True),
        ("/cms", False),
        ("/cms/production/x", False),
        ("/cms/productio", False),
        ("/cmsx", True),
        ("/atlas/production", True),
    ],
)
def test_a_vo_that_declares_groups_wants_exactly_these(group: str, may: bool) -> None:
    assert Policy(1, groups=["/cms/production"]).may_be_active(group) is may
