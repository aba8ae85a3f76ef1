"""The table of permissions, cell by cell: the decision, the methods of the contracts and Cedar say
what the reviewed file says.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from workers import Told

from contracts.model import read_contract
from gridlane.configuration import SERVICES
from gridlane_kit.decision import Reason, Visibility, decide
from gridlane_kit.foreign import FOREIGN_RULES
from gridlane_kit.identity import Principal, PrincipalKind, service_principal
from gridlane_kit.permissions import PERMISSIONS, Reach, Rule, Vetoed
from gridlane_kit.policy import IN_ITS_VOS, Binding, Policy, Role, WorkAction
from permission_cells import KINDS, RELATIONS, ROLES, TELLS_NOTHING, Block, blocks, enumerated

ROOT = Path(__file__).resolve().parents[2]
CEDAR = Path(__file__).with_name("permissions.cedar")
ISSUER = "https://issuer.test/"
NOW = 1_000_000
TEAM = "/bound/team"
JOB = "jobs/1"
BLOCKS = blocks()
BY_PERMISSION = {block.permission: block for block in BLOCKS}
KINDS_OF_ROLES = {
    "admin": Role.ADMIN,
    "channel manager": Role.CHANNEL_MANAGER,
    "VO manager": Role.VO_MANAGER,
    "submitter": Role.SUBMITTER,
    "job sharer": Role.JOB_SHARER,
    "pilot": Role.PILOT,
    "job monitor": Role.JOB_MONITOR,
    "vetoed": Role.VETOED,
}


@dataclass(frozen=True)
class Row:
    """What a call names: whose it is, under which group it was made, its VO, where it lies."""

    owner: str
    vo: str
    group: str = ""
    channel: str = ""
    job: str = ""

    def within(self, visibility: Visibility) -> bool:
        if visibility.job is not None:
            return self.job == visibility.job
        return visibility.covers(
            owner=self.owner, vo=self.vo, channel=self.channel, group=self.group
        )


ADA = Principal(
    ISSUER,
    "ada",
    vos=frozenset({"bound", "its"}),
    groups=frozenset({TEAM, "/its"}),
    active_group=TEAM,
)
# Each related to ada in one way alone; the group's name says nothing in another VO.
ROWS = {
    "own": Row(ADA.owner, "left", channel="elsewhere"),
    "group": Row("bob", "bound", TEAM),
    "bound": Row("bob", "bound", "/bound/rest"),
    "vo": Row("bob", "its", TEAM),
    "managed": Row("bob", "managed", TEAM),
    "channel": Row("bob", "foreign", channel="managed-uid"),
    "foreign": Row("bob", "foreign", TEAM, "elsewhere"),
}


def bindings(role: str, *, to_group: bool = False) -> list[Binding]:
    """What makes ada a caller of a role; a vetoed one was an admin."""
    if role == "regular":
        return []
    given = KINDS_OF_ROLES[role]
    vo = {Role.VO_MANAGER: "managed"}.get(given, "bound" if given in IN_ITS_VOS or to_group else "")
    channel = "managed-uid" if given is Role.CHANNEL_MANAGER else ""
    binding = Binding(ISSUER, "ada", given, vo, channel)
    if to_group:
        binding = replace(binding, issuer="", subject="", group=TEAM)
    more = [Binding(ISSUER, "ada", Role.ADMIN)] if given is Role.VETOED else []
    return [binding, *more]


def viewing(permission: str) -> str:
    """The permission that says what of a thing may be seen."""
    noun = permission.rpartition(".")[0]
    special = {"transfer.content": "transfer.content.read", "workload.logs": "workload.jobs.view"}
    return special.get(noun, f"{noun}.view")


def caller_for(block: Block) -> Principal:
    """Ada, calling as far as it must be through a service."""
    return replace(ADA, actor=min(block.via)) if block.via else ADA


def answered(block: Block, kind: str, relation: str, policy: Policy) -> str:
    """What the decision makes a method of a kind answer about a row."""
    caller = caller_for(block)
    decision = decide(caller, block.permission, policy, NOW)
    if not decision.allowed:
        return "denied"
    if decision.visibility.nothing:
        return "empty"
    row = ROWS.get(relation)
    if kind == "none" or (row is not None and row.within(decision.visibility)):
        return "allowed"
    if kind == "list":
        return "filtered"
    if kind not in TELLS_NOTHING:
        everything = decision.visibility.everything
        return "hidden" if relation == "absent" and everything else "denied"
    seen = viewing(block.permission)
    if row is None or seen not in PERMISSIONS:
        return "hidden"
    view = decide(caller, seen, policy, NOW)
    return "denied" if view.allowed and row.within(view.visibility) else "hidden"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.permission)
@pytest.mark.parametrize("to_group", [False, True], ids=["bound itself", "bound by its group"])
@pytest.mark.parametrize("readable", [True, False], ids=["jobs readable", "jobs closed"])
def test_the_decision_gives_every_cell_what_the_table_says(
    block: Block, to_group: bool, readable: bool
) -> None:
    cells = block.cells if readable else block.closed
    for role, cell in cells.items():
        if block.permission == "anonymous" or (to_group and role == "VO manager"):
            continue
        policy = Policy(7, bindings(role, to_group=to_group), readable)
        for kind in {*block.methods.values()} or {"one"}:
            for relation in RELATIONS:
                said = answered(block, kind, relation, policy)
                assert said == cell.answer(kind, relation), (role, kind, relation)


@pytest.mark.parametrize("readable", [True, False], ids=["jobs readable", "jobs closed"])
@pytest.mark.parametrize("role", ROLES)
def test_the_decision_reaches_what_the_table_says_and_no_more(role: str, readable: bool) -> None:
    policy = Policy(7, bindings(role), readable)
    for permission in PERMISSIONS:
        block = BY_PERMISSION[permission]
        decision = decide(caller_for(block), permission, policy, NOW)
        reached = {name for name, row in ROWS.items() if row.within(decision.visibility)}
        assert reached == (block.cells if readable else block.closed)[role].acts, permission


def test_a_rule_gives_no_role_what_it_cannot_have() -> None:
    for reach in (Reach.VO, Reach.OWN, Reach.CHANNEL, Reach.GROUP):
        with pytest.raises(ValueError, match="admin cannot reach"):
            Rule(admin=reach)
    with pytest.raises(ValueError, match="job_sharer cannot reach ALL"):
        Rule(job_sharer=Reach.ALL)


@pytest.mark.parametrize("role", ROLES)
def test_a_decision_says_why_and_under_which_revision(role: str) -> None:
    policy = Policy(7, bindings(role))
    for permission in PERMISSIONS:
        decision = decide(caller_for(BY_PERMISSION[permission]), permission, policy, NOW)
        assert (decision.policy_revision, decision.permission) == (7, permission)
        if decision.allowed:
            assert decision.rule
            assert decision.reason is None
        else:
            wanted = Reason.CALLER_VETOED if role == "vetoed" else Reason.PERMISSION_DENIED
            assert (decision.reason, decision.visibility) == (wanted, Visibility(nothing=True))


def test_what_is_out_of_reach_is_answered_as_what_does_not_exist(tell: Told) -> None:
    methods = sum(len(block.methods) for block in BLOCKS)
    cells = f"{len(ROLES)} roles × {len(RELATIONS)} relations"
    count = len(list(enumerated(BLOCKS)))
    tell("permissions", [f"{count} cells: {methods} methods × {cells}"])
    for block, method, kind, role, _, _ in enumerated(BLOCKS):
        cell = block.cells[role]
        if "foreign" not in cell.sees:
            foreign, absent = (cell.answer(kind, relation) for relation in ("foreign", "absent"))
            assert foreign == absent, (method, role)


@pytest.mark.parametrize("service", [*SERVICES, "stranger"])
def test_services_acting_for_themselves_get_what_the_table_says(service: str) -> None:
    for permission in PERMISSIONS:
        decision = decide(service_principal(service), permission, Policy(1), NOW)
        assert decision.allowed == (service in BY_PERMISSION[permission].services), permission


@pytest.mark.parametrize("role", [role for role in ROLES if role != "vetoed"])
def test_a_jobs_own_token_is_good_for_its_verbs_alone_whatever_its_owner_may(role: str) -> None:
    for permission in PERMISSIONS:
        caller = caller_for(BY_PERMISSION[permission])
        job = replace(caller, kind=PrincipalKind.JOB, job=JOB, attempt=1)
        decision = decide(job, permission, Policy(1, bindings(role)), NOW)
        assert decision.allowed == BY_PERMISSION[permission].by_jobs, permission
        if decision.allowed:
            assert decision.visibility == Visibility(job=JOB)
            assert not any(row.within(decision.visibility) for row in ROWS.values())


@pytest.mark.parametrize("actor", [None, *SERVICES])
def test_some_acts_are_possible_only_through_the_services_of_the_table(actor: str | None) -> None:
    for block in BLOCKS:
        for role, cell in block.cells.items():
            steps = actor == "workload" and role == "vetoed"  # the next test's
            if block.permission != "anonymous" and not steps:
                caller, policy = replace(ADA, actor=actor), Policy(1, bindings(role))
                allowed = decide(caller, block.permission, policy, NOW).allowed
                reaches = cell.word != "-" and (not block.via or actor in block.via)
                assert allowed == reaches, (block.permission, role)


@pytest.mark.parametrize("running", WorkAction)
@pytest.mark.parametrize("queued", WorkAction)
def test_a_veto_lets_through_the_steps_of_the_work_that_it_keeps(
    queued: WorkAction, running: WorkAction
) -> None:
    kept = WorkAction.KEEP
    veto = Binding(ISSUER, "ada", Role.VETOED, queued_work=queued, running_work=running)
    policy = Policy(1, [Binding(ISSUER, "ada", Role.SUBMITTER), veto])
    ways = {
        "transfer.jobs.submit": kept in (queued, running),
        "transfer.jobs.view": kept in (queued, running),
        "authorization.tokens.mint": queued is kept,
        "transfer.jobs.cancel": True,
    }
    for actor in (None, *SERVICES):
        for permission, rule in PERMISSIONS.items():
            allowed = decide(replace(ADA, actor=actor), permission, policy, NOW).allowed
            way = actor == "workload" and ways.get(permission, False)
            assert allowed == (way or rule.vetoed is Vetoed.EMPTY), (actor, permission)


CAPABILITIES = (
    *(f"storage.{verb}" for verb in ("read", "create", "modify", "stage", "poll")),
    *(f"compute.{verb}" for verb in ("read", "create", "modify", "cancel")),
)


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_scopes_narrow_as_the_table_says_and_no_role_helps(permission: str) -> None:
    block = BY_PERMISSION[permission]
    for role, cell in block.cells.items():
        policy = Policy(1, bindings(role))
        for capability in CAPABILITIES:
            scope = f"{capability}:/" if capability.startswith("storage") else capability
            caller = replace(caller_for(block), scopes=frozenset({"openid", scope}))
            decision = decide(caller, permission, policy, NOW)
            covered = not block.whole and (not block.scopes or capability in block.scopes)
            reached = bool(cell.acts)
            assert decision.allowed == (cell.word == "empty" or (reached and covered))
            if reached and not covered:
                assert decision.reason is Reason.SCOPE_TOO_NARROW
                assert decision.scopes_needed == block.scopes


@pytest.fixture(scope="module")
def declared() -> dict[str, str | None]:
    """Every method of the contracts and its permission, from its options."""
    methods: dict[str, str | None] = {name: rule.permission for name, rule in FOREIGN_RULES.items()}
    for method in read_contract(ROOT).methods:
        methods[f"{method.service.rpartition('.')[2]}/{method.short}"] = method.permission
    return methods


def test_every_method_has_its_cells_and_all_cells_have_their_method(
    declared: dict[str, str | None],
) -> None:
    written = {
        method: None if block.permission == "anonymous" else block.permission
        for block in BLOCKS
        for method in block.methods
    }
    assert sorted(declared.keys() - written.keys()) == [], "methods without cells"
    assert sorted(written.keys() - declared.keys()) == [], "cells without a method"
    assert declared == written


def test_the_table_has_every_permission_once_and_nothing_empty() -> None:
    named = [block.permission for block in BLOCKS if block.permission != "anonymous"]
    assert sorted(named) == sorted(PERMISSIONS)
    assert [b.permission for b in BLOCKS if bool(b.methods) == b.later] == []
    assert {kind for block in BLOCKS for kind in block.methods.values()} <= set(KINDS)


def allowed_rows(principal: Principal, permission: str, policy: Policy) -> list[bool]:
    """What the decision says of every row."""
    decision = decide(principal, permission, policy, NOW)
    return [decision.allowed and row.within(decision.visibility) for row in CEDAR_ROWS.values()]


# A job's own row; services have reach of all.
CEDAR_ROWS = {**ROWS, "job": Row(ADA.owner, "bound", TEAM, job=JOB)}


def cedar_principal(principal: Principal, policy: Policy) -> dict[str, Any]:
    """A principal in Cedar's form, with what its bindings give, gathered here once more."""
    held = [
        b
        for b in policy.bindings
        if (b.expires_us is None or b.expires_us > NOW)
        and (
            b.vo in principal.vos and b.group in principal.groups
            if b.group
            else (b.issuer, b.subject) == (principal.issuer, principal.subject)
        )
    ]

    vetoes = [b for b in held if b.role is Role.VETOED]

    def vos(role: Role) -> list[str]:
        return sorted({b.vo or "*" for b in held if b.role is role})

    capabilities = principal.capabilities or ()
    return {
        "kind": principal.kind.value,
        "owner": principal.subject
        if principal.kind is PrincipalKind.SERVICE
        else f"{principal.issuer}|{principal.subject}",
        "vos": sorted(principal.vos),
        "groups": sorted(principal.groups),
        "activeGroup": principal.active_group,
        "admin": any(b.role is Role.ADMIN for b in held),
        "vetoed": bool(vetoes),
        "keepsQueued": all(b.queued_work is WorkAction.KEEP for b in vetoes),
        "keepsRunning": all(b.running_work is WorkAction.KEEP for b in vetoes),
        "channels": sorted({b.channel_uid for b in held if b.role is Role.CHANNEL_MANAGER}),
        "managed": vos(Role.VO_MANAGER),
        "submits": vos(Role.SUBMITTER),
        "shares": vos(Role.JOB_SHARER),
        "pilots": vos(Role.PILOT),
        "monitors": vos(Role.JOB_MONITOR),
        "narrowed": principal.capabilities is not None,
        "capabilities": sorted(
            c.operation for c in capabilities if c.path is not None or "compute" in c.operation
        ),
        "job": principal.job or "",
    }


@dataclass(frozen=True)
class Question:
    """Whether a caller may act on each of the rows, under a policy."""

    principal: Principal
    permission: str
    policy: Policy


def cedars_answers(questions: Sequence[Question]) -> list[list[bool]]:
    """What Cedar says of every row, for each question."""
    entities: list[dict[str, Any]] = [
        {
            "uid": {"type": "Row", "id": name},
            "attrs": {
                "owner": row.owner,
                "vo": row.vo,
                "group": row.group,
                "channel": row.channel,
                "job": row.job,
            },
            "parents": [],
        }
        for name, row in CEDAR_ROWS.items()
    ]
    requests = []
    for number, asked in enumerate(questions):
        caller = {"type": "Caller", "id": str(number)}
        attributes = cedar_principal(asked.principal, asked.policy)
        entities.append({"uid": caller, "attrs": attributes, "parents": []})
        requests += [
            {
                "principal": f'Caller::"{number}"',
                "action": f'Action::"{asked.permission}"',
                "resource": f'Row::"{name}"',
                "context": {
                    "actor": asked.principal.actor or "",
                    "jobsVoReadable": asked.policy.jobs_vo_readable,
                },
            }
            for name in CEDAR_ROWS
        ]
    results = cedarpy.is_authorized_batch(requests, CEDAR.read_text(), entities)
    assert [error for result in results for error in result.diagnostics.errors] == []
    answers = [result.allowed for result in results]
    size = len(CEDAR_ROWS)
    return [answers[start : start + size] for start in range(0, len(answers), size)]


def differences(questions: Sequence[Question]) -> list[str]:
    """The questions about which Cedar is of another opinion."""
    found = []
    for asked, wanted in zip(questions, cedars_answers(questions), strict=True):
        said = allowed_rows(asked.principal, asked.permission, asked.policy)
        if said != wanted:
            rows = [name for name, a, b in zip(CEDAR_ROWS, said, wanted, strict=True) if a != b]
            found.append(f"{asked.permission} of {asked.principal} on {rows}")
    return found


def everybody(permission: str) -> Iterator[Question]:
    """Every role, service and token for a permission."""
    actors: tuple[str | None, ...] = (None, "workload", "gateway", "transfer")
    for role in ROLES:
        for to_group in (False, True):
            for readable in (True, False):
                policy = Policy(1, bindings(role, to_group=to_group), readable)
                for actor in actors:
                    yield Question(replace(ADA, actor=actor), permission, policy)
        for capability in CAPABILITIES:
            policy = Policy(1, bindings(role))
            scope = f"{capability}:/" if capability.startswith("storage") else capability
            caller = replace(caller_for(BY_PERMISSION[permission]), scopes=frozenset({scope}))
            yield Question(caller, permission, policy)
        job = replace(ADA, kind=PrincipalKind.JOB, job=JOB, attempt=1)
        yield Question(job, permission, Policy(1, bindings(role)))
    for service in (*SERVICES, "stranger"):
        yield Question(service_principal(service), permission, Policy(1))


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_cedar_decides_every_cell_alike(permission: str) -> None:
    assert differences(list(everybody(permission))) == []


def at_random(chance: random.Random) -> Question:
    """A caller of any kind with any bindings, some of them ended, of others, or of its groups."""
    vos = ["bound", "its", "managed", "foreign", "left"]
    groups = [TEAM, "/its", "/bound/rest"]

    def some(of: list[str]) -> frozenset[str]:
        return frozenset(value for value in of if chance.random() < 0.5)

    def binding() -> Binding:
        role = chance.choice([r for r in Role if r is not Role.VETOED or chance.random() < 0.2])
        by_group = chance.random() < 0.4
        needs_vo = by_group or role is Role.VO_MANAGER
        return Binding(
            "" if by_group else ISSUER,
            "" if by_group else chance.choice(["ada", "ada", "bob"]),
            role,
            chance.choice(vos if needs_vo else ["", *vos]),
            chance.choice(["managed-uid", "elsewhere"]) if role is Role.CHANNEL_MANAGER else "",
            chance.choice([None, None, NOW, NOW + 1]),
            chance.choice(groups) if by_group else "",
            chance.choice(list(WorkAction)),
            chance.choice(list(WorkAction)),
        )

    held = {(b.owner, b.key): b for b in (binding() for _ in range(chance.randrange(5)))}
    scopes = chance.choice(
        [None, None, None, some([*CAPABILITIES, *(f"{c}:/x" for c in CAPABILITIES)])]
    )
    caller = Principal(
        ISSUER,
        "ada",
        vos=some(vos),
        groups=some(groups),
        active_group=chance.choice(["", *groups]),
        scopes=scopes,
        actor=chance.choice([None, "workload", "transfer", "gateway"]),
    )
    policy = Policy(1, held.values(), chance.random() < 0.5)
    return Question(caller, chance.choice(list(PERMISSIONS)), policy)


def test_cedar_decides_alike_for_callers_with_any_bindings(tell: Told) -> None:
    chance = random.Random(20260522)  # noqa: S311 - the same questions every time
    asked = [at_random(chance) for _ in range(5000)]
    assert differences(asked) == []
    cells = sum(1 for permission in PERMISSIONS for _ in everybody(permission))
    counts = (cells * len(CEDAR_ROWS), len(asked) * len(CEDAR_ROWS))
    tell("permissions", ["compared with Cedar: {} by the table, {} at random".format(*counts)])


def test_the_rules_in_cedar_name_no_other_permissions() -> None:
    named = set(re.findall(r'Action::"([^"]+)"', CEDAR.read_text()))
    assert named <= set(PERMISSIONS)
