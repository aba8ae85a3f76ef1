"""The commands that ask for rights, give them and take them, against a real server.

The server is shared: each test gives roles to people whom no other test knows.
"""

from collections.abc import Callable
from typing import Any

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.authorization.v1 import permission_pb2
from gridlane.authorization.v1.policy_pb2 import Role
from gridlane.ids import uuid7
from gridlane.type.v1.principal_pb2 import Principal
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

Command = Callable[..., Any]


@pytest.fixture
def name() -> str:
    """Of somebody, or of a VO, that no other test knows."""
    return f"n{uuid7()[-12:]}"


@pytest.fixture
def as_user(embedded_server: EmbeddedServer) -> Callable[..., dict[str, str]]:
    """The environment in which a command is run by somebody else."""

    def sign(subject: str, *vos: str, **claims: Any) -> dict[str, str]:
        settings = AuthorizationSettings()
        signer = read_signer(embedded_server.token_key, settings.issuer, settings.audience)
        token = signer.sign_user(subject, vos=vos, lifetime_s=600, **claims)
        return {"BEARER_TOKEN": token}

    return sign


def test_a_role_is_given_used_and_taken(command: Command, name: str) -> None:
    asked = ("can", "workload.jobs.submit", "local", "--as", name)
    no = command(*asked)
    assert no.code == 77
    assert no.out.startswith("no ")
    assert "submitter of local" in no.out
    given = command(
        "role", "grant", "submitter", name, "--vo", "local", "--for", "1h", "--reason", "thesis",
        "-o", "json",
    ).json  # fmt: skip
    assert (given["subject"], given["reason"]) == (name, "thesis")
    yes = command(*asked)
    assert (yes.code, yes.out.split()[0]) == (0, "yes")
    assert "submitter: its VOs" in yes.out
    (listed,) = command("role", "list", name, "-o", "json").json
    assert listed == given
    assert "thesis" in command("role", "show", given["name"]).out
    assert command("role", "revoke", given["name"]).code == 0
    assert command(*asked).code == 77
    assert command("role", "show", given["name"]).code == 65


def test_an_answer_is_json_for_programs(command: Command, name: str) -> None:
    no = command("can", "workload.jobs.submit", "local", "--as", name, "-o", "json")
    assert (no.code, no.json["allowed"], no.json["role_needed"]) == (77, False, "ROLE_SUBMITTER")
    yes = command("can", "kill", "-o", "json")
    assert (yes.code, yes.json["allowed"]) == (0, True)
    assert yes.json["permission"] == "workload.jobs.kill"


def test_a_veto_denies_until_it_ends(command: Command, name: str) -> None:
    assert command("role", "veto", name, "--queued-work", "cancel").code == 0
    no = command("can", "kill", "--as", name)
    assert no.code == 77
    assert "CALLER_VETOED" in no.out
    assert command("role", "unveto", name, "--reason", "a mistake").code == 0
    assert command("can", "kill", "--as", name).code == 0
    assert command("role", "unveto", name).code == 65


def test_who_may_not_know_is_not_told_which_role(
    command: Command, as_user: Callable[..., dict[str, str]], name: str
) -> None:
    asking = as_user(name, "local")
    own = command("can", "workload.jobs.submit", "local", env=asking)
    assert own.code == 77
    assert "submitter of local" in own.out
    other = command("can", "workload.jobs.submit", "local", "--as", "root", env=asking)
    assert other.code == 77
    assert "PERMISSION_DENIED" in other.err
    assert "submitter" not in other.out + other.err
    denied = command("role", "grant", "submitter", name, "--vo", "local", env=asking)
    assert denied.code == 77
    assert "gridlane can" in denied.err


def test_a_vo_its_group_and_its_manager(
    command: Command, as_user: Callable[..., dict[str, str]], name: str
) -> None:
    assert command("vo", "create", name, "--description", "a test").code == 0
    assert command("vo", "update", name, "--contact", "mailto:x@example.org").code == 0
    assert "x@example.org" in command("vo", "show", name).out
    assert name in command("vo", "list").out
    assert command("role", "grant", "vo_manager", f"{name}-mia", "--vo", name).code == 0
    mia = as_user(f"{name}-mia", name)
    assert command("group", "create", f"{name}/prod", env=mia).code == 0
    assert command("group", "update", f"{name}/prod", "--description", "big", env=mia).code == 0
    assert "big" in command("group", "list", name, env=mia).out
    given = command("role", "grant", "submitter", f"/{name}/prod", "-o", "json", env=mia).json
    assert (given["group"], given["vo"]) == (f"/{name}/prod", name)
    member = as_user(f"{name}-max", name, groups=[f"/{name}/prod"])
    assert f"of {name} by the group /{name}/prod" in command("whoami", env=member).out
    used = command("group", "delete", f"{name}/prod", env=mia)
    assert used.code == 65
    assert given["name"] in used.err
    assert command("role", "revoke", given["name"], env=mia).code == 0
    assert command("group", "delete", f"{name}/prod", env=mia).code == 0
    assert command("vo", "delete", name, env=mia).code == 77


def test_the_audit_tells_what_was_done_and_what_was_tried(
    command: Command, as_user: Callable[..., dict[str, str]], name: str
) -> None:
    command("vo", "create", name, "--reason", "new")
    command("vo", "create", name)
    listed = command("audit", "list", "--resource", f"vos/{name}", "-o", "json").json
    assert isinstance(listed, list), listed
    assert [entry.get("reason", "") for entry in listed] == ["", "new"]
    shown = command("audit", "list", "--since", "1h", "--resource", f"vos/{name}").out
    assert "ALREADY_EXISTS" in shown
    assert "done" in shown
    entry = command("audit", "show", listed[-1]["name"])
    assert f'"name": "vos/{name}"' in entry.out
    stranger = as_user(name, "local")
    assert command("audit", "list", env=stranger).code == 77


@pytest.mark.parametrize(
    "arguments",
    [
        ("can",),
        ("can", "kill", "--as-vo", "cms"),
        ("role", "grant", "king", "alice"),
        ("role", "grant", "submitter", "alice", "--for", "soon"),
        ("audit", "list", "--since", "soon"),
        ("vo", "update", "cms"),
        ("group", "update", "cms/a"),
    ],
)
def test_wrong_usage_ends_with_64(command: Command, arguments: tuple[str, ...]) -> None:
    assert command(*arguments).code == 64


@pytest.mark.parametrize("operation", ["submit", "admire"])
def test_an_operation_that_is_not_clear_ends_with_65(command: Command, operation: str) -> None:
    ended = command("can", operation)
    assert (ended.code, ended.out) == (65, "")


def test_a_shell_completes_operations_and_roles(command: Command) -> None:
    def offered(*words: str) -> str:
        line = " ".join(("gridlane", *words))
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        return str(command(env={**asked, "_GRIDLANE_COMPLETE": "complete_bash"}).out)

    assert offered("can", "workload.jobs.k").split() == ["workload.jobs.kill"]
    assert "submitter" in offered("role", "grant", "sub")
    assert {"grant", "veto", "unveto"} <= set(offered("role", "").split())


def test_resources_are_told_to_the_server_as_they_are(
    command: Command, client: gridlane.Client, folder: str
) -> None:
    client.storage.put(b"x", f"{folder}/a")
    job = client.jobs.submit(gridlane.new_job("true"))
    for asked in (
        ("kill", job.name),
        ("delete", f"{folder}/a"),
        ("manage", "channels/default"),
        ("groups.manage", "vos/local"),
        ("roles.manage", next(iter(client.roles.list(role="admin"))).name),
    ):
        ended = command("can", *asked)
        assert (ended.code, ended.out.split()[0]) == (0, "yes"), ended
    nobody = command("can", "kill", job.name, "--as", "nobody", "--as-vo", "local", "-o", "json")
    assert (nobody.code, nobody.json["role_needed"]) == (77, "ROLE_VO_MANAGER")
    assert command("can", "kill", f"jobs/{uuid7()}").code == 65
    assert command("can", "kill", "http://example.org/").code == 65


# --- the facades ----------------------------------------------------------------------------------


def test_the_facade_gives_checks_and_takes(client: gridlane.Client, name: str) -> None:
    mine = client.authorization.whoami().principal
    who = Principal(issuer=mine.issuer, subject=name, vos=["local"])
    there = permission_pb2.PermissionTarget(vo="local")
    given = client.roles.grant("submitter", name, issuer=mine.issuer, vo="local")
    assert client.authorization.check(
        "transfer.jobs.submit", there, principal=who, minimum_revision=given.revision
    ).allowed
    with pytest.raises(gridlane.AlreadyExists):
        client.roles.grant("submitter", name, issuer=mine.issuer, vo="local")
    with pytest.raises(gridlane.Aborted):
        client.roles.revoke(given.name, revision=given.revision - 1)
    taken = client.roles.revoke(given.name, revision=given.revision)
    answer = client.authorization.check(
        "transfer.jobs.submit", there, principal=who, minimum_revision=taken
    )
    assert (answer.allowed, answer.role_needed) == (False, Role.ROLE_SUBMITTER)
    assert [
        entry.method.rpartition("/")[2] for entry in client.audit.list(resource=given.name)
    ] == [
        "DeleteRoleBinding",
        "DeleteRoleBinding",
        "CreateRoleBinding",
    ]


async def test_the_asyncio_facade_has_the_same_nouns(
    embedded_server: EmbeddedServer, name: str
) -> None:
    async with gridlane.AsyncClient(embedded_server.address, token=embedded_server.token) as client:
        made = await client.vos.create(name, description="made with await")
        assert await client.vos.get(name) == made
        await client.groups.create(name, "prod")
        assert [group.path async for group in client.groups.list(name)] == [f"/{name}/prod"]
        given = await client.roles.grant("pilot", group=f"/{name}/prod", vo=name)
        assert [role async for role in client.roles.list(vo=name)] == [given]
        assert (await client.authorization.check("workload.jobs.kill")).allowed
        with pytest.raises(gridlane.Unavailable) as caught:
            await client.authorization.check(
                "workload.jobs.kill", minimum_revision=given.revision + 1000, timeout=1
            )
        assert caught.value.reason == "REVISION_NOT_REACHED"
        await client.roles.revoke(given.name)
        await client.groups.delete(f"{name}/prod")
        await client.vos.delete(name)
        with pytest.raises(gridlane.NotFound):
            await client.vos.get(name)
