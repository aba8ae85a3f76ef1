"""The permission table, written by hand a second time: role × permission, and what narrows it."""

from typing import Any

import pytest

from gridlane_kit.decision import PERMISSIONS, Reason, Visibility, decide, scope_covers
from gridlane_kit.identity import Principal, PrincipalKind, service_principal
from gridlane_kit.policy import Binding, Policy, Role

ISSUER = "https://issuer.test/"
NOW = 1_000_000
ME = f"{ISSUER}|ada"

# What each role gives: "all", "own", "vo" (the managed one is "run", those of submissions are
# "sub", those belonged to "sub" and "other"), "channel", "empty", "-" (denied). Columns: admin,
# channel manager, VO manager, submitter, regular, vetoed. In the columns of managers and of the
# submitter the caller is of course a regular user too. "own+vo": own ones, and those of its VOs.
TABLE = """
authorization.self.view       own     own            own       own      own      -
authorization.policy.view     -       -              -         -        -        -
authorization.policy.follow   -       -              -         -        -        -
authorization.tokens.mint     -       -              -         -        -        -
authorization.status.view     all     all            all       all      all      -
transfer.jobs.submit          all     -              -         sub      -        -
transfer.jobs.view            all     own+vo+channel own+vo+run own+vo  own+vo   -
transfer.jobs.list            all     own+channel    own+run   own      own      empty
transfer.jobs.cancel          all     own+channel    own+run   own      own      -
transfer.channels.list        all     all            all       all      all      -
transfer.channels.view        all     channel        all       -        -        -
transfer.storage.view         all     all            all       all      all      -
transfer.content.read         all     vo             vo        vo       vo       -
transfer.content.write        all     -              -         sub      -        -
transfer.content.delete       all     -              run       own      -        -
transfer.replicas.view        all     vo             vo        vo       vo       -
transfer.replicas.register    all     -              -         sub      -        -
transfer.replicas.unregister  all     -              run       own      -        -
transfer.events.follow        -       -              -         -        -        -
transfer.status.view          all     all            all       all      all      -
workload.jobs.submit          all     -              -         sub      -        -
workload.jobs.view            all     own+vo         own+vo+run own+vo  own+vo   -
workload.jobs.list            all     own            own+run   own      own      empty
workload.jobs.kill            all     own            own+run   own      own      -
workload.logs.read            all     own            own+run   own      own      -
workload.events.follow        -       -              -         -        -        -
workload.status.view          all     all            all       all      all      -
reporting.accounting.view     all     own+vo         own+vo+run own+vo  own+vo   -
reporting.spans.view          all     own+vo         own+vo+run own+vo  own+vo   -
reporting.spans.write         -       -              -         -        -        -
reporting.status.view         all     all            all       all      all      -
gateway.tasks.submit          all     -              -         sub      -        -
gateway.tasks.view            all     own+vo         own+vo+run own+vo  own+vo   -
gateway.tasks.cancel          all     own            own+run   own      own      -
gateway.status.view           all     all            all       all      all      -
server.reflection.view        all     all            all       all      all      -
"""
ROWS = [line.split() for line in TABLE.split("\n") if line]
BINDINGS = {
    "admin": (Role.ADMIN,),
    "channel manager": (Role.CHANNEL_MANAGER,),
    "VO manager": (Role.VO_MANAGER,),
    "submitter": (Role.SUBMITTER,),
    "regular": (),
    "vetoed": (Role.VETOED, Role.ADMIN, Role.SUBMITTER),
}
# permission → services acting for themselves; jobs' own tokens.
BY_SERVICES = {
    "authorization.self.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "authorization.policy.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "authorization.policy.follow": {
        "authorization",
        "transfer",
        "workload",
        "reporting",
        "gateway",
    },
    "authorization.status.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "transfer.status.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "workload.status.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "reporting.status.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "gateway.status.view": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "reporting.spans.write": {"authorization", "transfer", "workload", "reporting", "gateway"},
    "transfer.events.follow": {"reporting", "workload"},
    "workload.events.follow": {"reporting"},
}
BY_JOBS = {"authorization.self.view", "reporting.spans.write"}
# permission → the capability scopes of which a narrowed token needs one.
LOOK = {"storage.read", "storage.create", "storage.modify", "storage.stage", "storage.poll"}
SCOPES = {
    "transfer.jobs.submit": {"storage.create", "storage.modify", "storage.stage"},
    "transfer.jobs.view": LOOK,
    "transfer.jobs.list": LOOK,
    "transfer.jobs.cancel": {"storage.create", "storage.modify", "storage.stage"},
    "transfer.content.read": {"storage.read"},
    "transfer.content.write": {"storage.create", "storage.modify"},
    "transfer.content.delete": {"storage.modify"},
    "transfer.replicas.view": LOOK,
    "transfer.replicas.register": {"storage.create", "storage.modify"},
    "transfer.replicas.unregister": {"storage.modify"},
    "workload.jobs.submit": {"compute.create"},
    "workload.jobs.view": {"compute.read"},
    "workload.jobs.list": {"compute.read"},
    "workload.jobs.kill": {"compute.cancel"},
    "workload.logs.read": {"compute.read"},
    "reporting.accounting.view": {"compute.read"},
    "reporting.spans.view": {"compute.read"},
    "gateway.tasks.submit": {"compute.create"},
    "gateway.tasks.view": {"compute.read"},
    "gateway.tasks.cancel": {"compute.cancel"},
}


def ada(**changes: Any) -> Principal:
    defaults = {"issuer": ISSUER, "subject": "ada", "vos": frozenset({"sub", "other"})}
    return Principal(**defaults | changes)


def bound(role: Role) -> Binding:
    vo = {Role.VO_MANAGER: "run", Role.SUBMITTER: "sub"}.get(role, "")
    channel = "channel-uid" if role is Role.CHANNEL_MANAGER else ""
    return Binding(ISSUER, "ada", role, vo=vo, channel_uid=channel)


def policy_of(*roles: Role, **changes: Any) -> Policy:
    return Policy(7, [bound(role) for role in roles], **changes)


def expected(cell: str) -> Visibility | None:
    if cell == "-":
        return None
    parts = set(cell.split("+"))
    vos = {"run"} & parts | ({"sub"} & parts) | ({"sub", "other"} if "vo" in parts else set())
    return Visibility(
        everything="all" in parts,
        owner=ME if "own" in parts else None,
        vos=frozenset(vos),
        channels=frozenset({"channel-uid"} if "channel" in parts else ()),
        nothing="empty" in parts,
    )


@pytest.mark.parametrize("column", range(6), ids=list(BINDINGS))
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_role_gets_exactly_what_the_table_says(row, column):
    permission, *cells = row
    roles = list(BINDINGS.values())[column]
    decision = decide(ada(), permission, policy_of(*roles), NOW)
    wanted = expected(cells[column])
    assert decision.allowed == (wanted is not None)
    assert decision.policy_revision == 7
    if wanted is None:
        vetoed = Role.VETOED in roles
        assert decision.reason is (Reason.CALLER_VETOED if vetoed else Reason.PERMISSION_DENIED)
        assert decision.visibility == Visibility(nothing=True)
    else:
        assert decision.visibility == wanted
        assert decision.rule


def test_the_table_has_every_permission_once():
    assert [row[0] for row in ROWS] == list(PERMISSIONS)


@pytest.mark.parametrize("permission", PERMISSIONS)
@pytest.mark.parametrize(
    "service", ["authorization", "transfer", "workload", "reporting", "gateway", "stranger"]
)
def test_services_acting_for_themselves_get_exactly_what_the_table_says(permission, service):
    decision = decide(service_principal(service), permission, policy_of(), NOW)
    assert decision.allowed == (service in BY_SERVICES.get(permission, ()))


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_a_jobs_own_token_is_good_for_its_verbs_alone_whatever_its_owner_may(permission):
    job = ada(kind=PrincipalKind.JOB, job="jobs/1", attempt=1)
    decision = decide(job, permission, policy_of(Role.ADMIN, Role.SUBMITTER), NOW)
    assert decision.allowed == (permission in BY_JOBS)
    if decision.allowed:
        assert decision.visibility == Visibility(job="jobs/1")
        assert not decision.visibility.covers(owner=ME, vo="sub")


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_a_narrowed_token_needs_one_of_the_scopes_and_no_role_helps(permission):
    needed = SCOPES.get(permission, set())
    policy = policy_of(Role.ADMIN)
    if not decide(ada(), permission, policy, NOW).allowed:
        return
    for scope in LOOK | {"compute.read", "compute.create", "compute.cancel", "compute.modify"}:
        given = f"{scope}:/" if scope.startswith("storage") else scope
        decision = decide(ada(scopes={"openid", given}), permission, policy, NOW)
        assert decision.allowed == (not needed or scope in needed)
        if not decision.allowed:
            assert decision.reason is Reason.SCOPE_TOO_NARROW
            assert decision.scopes_needed == needed


def test_a_token_without_capability_scopes_is_not_narrowed():
    for scopes in (None, set(), {"openid", "wlcg.groups"}):
        assert decide(ada(scopes=scopes), "workload.jobs.view", policy_of(), NOW).allowed


def test_a_scope_gives_nothing_that_the_role_does_not():
    caller = ada(scopes={"compute.create"})
    decision = decide(caller, "workload.jobs.submit", policy_of(), NOW)
    assert decision.reason is Reason.PERMISSION_DENIED


def test_only_workload_mints_and_only_on_behalf_of_an_owner_who_is_not_vetoed():
    permission = "authorization.tokens.mint"
    for actor, allowed in ((None, False), ("gateway", False), ("workload", True)):
        assert decide(ada(actor=actor), permission, policy_of(), NOW).allowed == allowed
    vetoed = decide(ada(actor="workload"), permission, policy_of(Role.VETOED), NOW)
    assert vetoed.reason is Reason.CALLER_VETOED
    assert not decide(service_principal("workload"), permission, policy_of(), NOW).allowed


def test_a_veto_reaches_the_tokens_of_running_jobs():
    job = ada(kind=PrincipalKind.JOB, job="jobs/1", attempt=1)
    decision = decide(job, "reporting.spans.write", policy_of(Role.VETOED), NOW)
    assert decision.reason is Reason.CALLER_VETOED


def test_jobs_are_not_read_within_the_vo_where_the_policy_says_so():
    decision = decide(ada(), "workload.jobs.view", policy_of(jobs_vo_readable=False), NOW)
    assert decision.visibility == Visibility(owner=ME)


def test_a_submitter_submits_only_for_the_vos_it_still_belongs_to():
    decision = decide(
        ada(vos=frozenset({"other"})), "workload.jobs.submit", policy_of(Role.SUBMITTER), NOW
    )
    assert not decision.allowed
    anywhere = Policy(1, [Binding(ISSUER, "ada", Role.SUBMITTER)])
    assert decide(ada(), "workload.jobs.submit", anywhere, NOW).visibility.vos == {"sub", "other"}


def test_roles_of_another_issuers_namesake_do_not_count():
    stranger = ada(issuer="https://other.test/")
    assert not decide(stranger, "workload.jobs.submit", policy_of(Role.ADMIN), NOW).allowed


def test_a_binding_counts_until_its_end_and_not_at_it():
    ending = Binding(ISSUER, "ada", Role.ADMIN, expires_us=NOW)
    policy = Policy(1, [ending, bound(Role.SUBMITTER)])
    assert decide(ada(), "transfer.channels.view", policy, NOW - 1).visibility.everything
    assert not decide(ada(), "transfer.channels.view", policy, NOW).allowed
    assert decide(ada(), "workload.jobs.submit", policy, NOW).visibility.vos == {"sub"}
    assert [b.role for b in policy.roles_of(ME, NOW)] == [Role.SUBMITTER]


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
def test_a_scopes_path_covers_itself_and_what_lies_below(scope, path, covered):
    assert scope_covers(ada(scopes={scope}), "storage.read", path) is covered


def test_a_storage_scope_without_a_usable_path_opens_nothing():
    caller = ada(scopes={"storage.read"})
    decision = decide(caller, "transfer.content.read", policy_of(), NOW)
    assert decision.reason is Reason.SCOPE_TOO_NARROW


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
def test_visibility_covers_rows_by_owner_vo_or_channel(visibility, owner, vo, channel, covered):
    assert visibility.covers(owner=owner, vo=vo, channel=channel) is covered


def test_a_principal_survives_being_stored():
    stored = ada(scopes=frozenset({"compute.read"}), groups=frozenset({"/sub"}), actor="gateway")
    read = Principal.from_json(stored.to_json())
    assert read == Principal(
        ISSUER,
        "ada",
        vos=frozenset({"sub", "other"}),
        groups=frozenset({"/sub"}),
        scopes=frozenset({"compute.read"}),
    )
    assert read.owner == ME
