"""Virtual organisations and their groups over the wire; on each engine."""

import asyncio
import json
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from integration.authorization.policy_office import (
    SUBMITTER,
    VO_MANAGER,
    Caller,
    Office,
    giving,
    office,
)

from gridlane.authorization.v1 import group_service_pb2, issuer_service_pb2, vo_service_pb2
from gridlane.authorization.v1.group_pb2 import Group
from gridlane.authorization.v1.vo_pb2 import Vo
from gridlane.ids import uuid7
from gridlane_authorization.given_issuers import settings_name
from gridlane_kit.tokens import new_key

DENIED = ("PERMISSION_DENIED", "PERMISSION_DENIED")
NOT_FOUND = ("NOT_FOUND", "NOT_FOUND")


def get_vo(name: str) -> Any:
    return vo_service_pb2.GetVoRequest(name=name)


def update_vo(name: str, *mask: str, revision: int = 0, **fields: Any) -> Any:
    return vo_service_pb2.UpdateVoRequest(
        vo=Vo(name=name, **fields), update_mask=FieldMask(paths=mask), revision=revision
    )


def delete_vo(name: str, revision: int = 0) -> Any:
    return vo_service_pb2.DeleteVoRequest(name=name, revision=revision)


def create_group(vo: str, id_: str, path: str, **options: Any) -> Any:
    return group_service_pb2.CreateGroupRequest(
        parent=f"vos/{vo}", group_id=id_, group=Group(path=path), **options
    )


def get_group(name: str) -> Any:
    return group_service_pb2.GetGroupRequest(name=name)


def update_group(name: str, *mask: str, revision: int = 0, **fields: Any) -> Any:
    return group_service_pb2.UpdateGroupRequest(
        group=Group(name=name, **fields), update_mask=FieldMask(paths=mask), revision=revision
    )


def delete_group(name: str, revision: int = 0) -> Any:
    return group_service_pb2.DeleteGroupRequest(name=name, revision=revision)


def list_groups(vo: str, size: int = 0, token: str = "") -> Any:
    return group_service_pb2.ListGroupsRequest(parent=f"vos/{vo}", page_size=size, page_token=token)


async def answer(who: Caller, method: Any, request: Any) -> tuple[str, str]:
    """Code and reason of a refusal."""
    refused = await who.refused(method, request)
    return refused.code, refused.reason


async def names_of_vos(who: Caller, size: int = 0) -> list[str]:
    """The virtual organisations that a caller sees, page by page."""
    request = vo_service_pb2.ListVosRequest(page_size=size)
    return [vo.name for vo in await who.listed(who.vos.ListVos, request, "vos")]


# --- virtual organisations ------------------------------------------------------------------------


async def test_a_vo_is_made_changed_and_deleted(served: Office) -> None:
    root = served.root
    asked = vo_service_pb2.CreateVoRequest(
        vo_id="lhcb", vo=Vo(description="beauty", contact="lhcb@example.org")
    )
    made = await root(root.vos.CreateVo, asked)
    assert (made.name, made.description, made.create_time) == (
        "vos/lhcb",
        "beauty",
        made.update_time,
    )
    assert "lhcb" in served.policy.current.vos
    assert await answer(root, root.vos.CreateVo, asked) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    changed = await root(root.vos.UpdateVo, update_vo("vos/lhcb", contact="b@example.org"))
    assert (changed.description, changed.contact) == ("beauty", "b@example.org")
    assert changed.revision == made.revision + 1
    stale = update_vo("vos/lhcb", description="x", revision=made.revision)
    assert await answer(root, root.vos.UpdateVo, stale) == ("ABORTED", "REVISION_CONFLICT")
    emptied = await root(root.vos.UpdateVo, update_vo("vos/lhcb", "description"))
    assert (emptied.description, emptied.contact) == ("", "b@example.org")
    assert await root(root.vos.UpdateVo, update_vo("vos/lhcb", "description")) == emptied
    assert await root(root.vos.GetVo, get_vo("vos/lhcb")) == emptied
    stale = delete_vo("vos/lhcb", made.revision)
    assert await answer(root, root.vos.DeleteVo, stale) == ("ABORTED", "REVISION_CONFLICT")
    gone = await root(root.vos.DeleteVo, delete_vo("vos/lhcb", emptied.revision))
    assert gone.policy_revision == served.policy.current.revision
    assert "lhcb" not in served.policy.current.vos
    for method, request in (
        (root.vos.DeleteVo, delete_vo("vos/lhcb")),
        (root.vos.UpdateVo, update_vo("vos/lhcb", contact="x")),
        (root.vos.GetVo, get_vo("vos/lhcb")),
    ):
        assert await answer(root, method, request) == NOT_FOUND


async def test_a_vo_that_is_asked_for_twice_is_made_once(served: Office) -> None:
    root = served.root
    asked = vo_service_pb2.CreateVoRequest(
        vo_id="lhcb", vo=Vo(), request_id=uuid7(), validate_only=True
    )
    checked = await root(root.vos.CreateVo, asked)
    assert (checked.name, checked.revision) == ("", 0)
    assert await answer(root, root.vos.GetVo, get_vo("vos/lhcb")) == NOT_FOUND
    asked.validate_only = False
    made = await asyncio.gather(*(root(root.vos.CreateVo, asked) for _ in range(5)))
    assert all(vo == made[0] for vo in made)
    asked.vo_id = "alice"
    assert await answer(root, root.vos.CreateVo, asked) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_a_vo_that_something_names_is_not_deleted(served: Office) -> None:
    root = served.root
    binding = await root.give("ada", SUBMITTER, vo="cms")
    group = await root.make_group("cms", "all", "/cms")
    for user, take in (
        (binding.name, root.take(binding.name)),
        (group.name, root(root.groups.DeleteGroup, delete_group(group.name))),
    ):
        refused = await root.refused(root.vos.DeleteVo, delete_vo("vos/cms"))
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "IN_USE")
        assert refused.metadata == {"name": "vos/cms", "by": user}
        await take
    await root(root.vos.DeleteVo, delete_vo("vos/cms"))


async def test_a_vo_that_a_configured_issuer_speaks_for_is_not_deleted(database_url: str) -> None:
    keys = {"keys": [new_key().as_dict(private=False)]}
    issuer = {"url": "https://iam.example.org/", "vo": "cms", "jwks": json.dumps(keys)}
    async with office(database_url, issuers=[issuer]) as replica:
        await replica.root.make_vo("cms")
        refused = await replica.root.refused(replica.root.vos.DeleteVo, delete_vo("vos/cms"))
        assert refused.metadata == {"name": "vos/cms", "by": settings_name(issuer["url"])}
        asked = issuer_service_pb2.GetIssuerRequest(name=refused.metadata["by"])
        named = await replica.root(replica.root.issuers.GetIssuer, asked)
        assert named.url == issuer["url"]


async def test_vos_are_seen_by_members_and_managers_and_changed_by_administrators(
    served: Office,
) -> None:
    root, ada = served.root, served.caller("ada", "cms", "unheard-of")
    await root.give("vera", VO_MANAGER, vo="atlas")
    vera, eve = served.caller("vera", "cms"), served.caller("eve", "nowhere")
    assert await names_of_vos(root, size=1) == ["vos/atlas", "vos/cms"]
    assert await names_of_vos(ada) == ["vos/cms"]
    assert await names_of_vos(vera) == ["vos/atlas", "vos/cms"]
    assert await names_of_vos(eve) == []
    for name in ("vos/atlas", "vos/unheard-of", "vos/nowhere"):
        assert await answer(ada, ada.vos.GetVo, get_vo(name)) == NOT_FOUND
    for who in (ada, vera, eve):
        for method, request in (
            (who.vos.CreateVo, vo_service_pb2.CreateVoRequest(vo_id="x", vo=Vo())),
            (who.vos.UpdateVo, update_vo("vos/atlas", contact="x")),
            (who.vos.DeleteVo, delete_vo("vos/nowhere")),
        ):
            assert await answer(who, method, request) == DENIED


@pytest.mark.parametrize("field", ["description", "contact"])
async def test_a_text_that_no_database_keeps_is_refused(served: Office, field: str) -> None:
    root = served.root
    text: Any = {field: "a\0b"}
    asked = vo_service_pb2.CreateVoRequest(vo_id="x", vo=Vo(**text))
    refused = await root.refused(root.vos.CreateVo, asked)
    assert (refused.reason, refused.fields) == ("INVALID_FIELDS", (f"vo.{field}",))


# --- groups ---------------------------------------------------------------------------------------


async def test_a_group_is_declared_changed_and_taken_back(served: Office) -> None:
    root = served.root
    made = await root.make_group("cms", "production", "/cms/production")
    assert (made.name, made.path) == ("vos/cms/groups/production", "/cms/production")
    assert made.revision == served.policy.current.revision
    for id_, path in (("production", "/cms/other"), ("other", "/cms/production")):
        taken = await root.refused(root.groups.CreateGroup, create_group("cms", id_, path))
        assert (taken.reason, taken.metadata["name"]) == ("ALREADY_EXISTS", made.name)
    update = root.groups.UpdateGroup
    changed = await root(update, update_group(made.name, dirac_group="cms_prod", description="p"))
    assert (changed.dirac_group, changed.description, changed.path) == (
        "cms_prod",
        "p",
        made.path,
    )
    emptied = await root(update, update_group(made.name, "description", description=""))
    assert (emptied.dirac_group, emptied.description) == ("cms_prod", "")
    stale = update_group(made.name, description="x", revision=made.revision)
    assert await answer(root, update, stale) == ("ABORTED", "REVISION_CONFLICT")
    binding = await root.give("/cms/production", SUBMITTER, vo="cms")
    refused = await root.refused(root.groups.DeleteGroup, delete_group(made.name))
    assert (refused.reason, refused.metadata["by"]) == ("IN_USE", binding.name)
    await root.take(binding.name)
    gone = await root(root.groups.DeleteGroup, delete_group(made.name, emptied.revision))
    assert gone.policy_revision == served.policy.current.revision
    assert await answer(root, root.groups.GetGroup, get_group(made.name)) == NOT_FOUND
    asked = giving("/cms/production", SUBMITTER, vo="cms")
    assert await root.reason(root.roles.CreateRoleBinding, asked) == "PRECONDITION"


async def test_a_group_that_is_asked_for_twice_is_declared_once(served: Office) -> None:
    root = served.root
    asked = create_group("cms", "all", "/cms", request_id=uuid7())
    made = await asyncio.gather(*(root(root.groups.CreateGroup, asked) for _ in range(5)))
    assert all(group == made[0] for group in made)
    only = create_group("cms", "x", "/cms/x", validate_only=True)
    assert (await root(root.groups.CreateGroup, only)).path == "/cms/x"
    assert await answer(root, root.groups.GetGroup, get_group("vos/cms/groups/x")) == NOT_FOUND


async def test_groups_are_managed_in_the_own_vo_and_seen_by_its_members(served: Office) -> None:
    root = served.root
    await root.give("vera", VO_MANAGER, vo="cms")
    vera, ada = served.caller("vera", "atlas"), served.caller("ada", "cms", "nowhere")
    mine = await vera.make_group("cms", "all", "/cms")
    other = await root.make_group("atlas", "all", "/atlas")
    for vo in ("atlas", "nowhere"):
        asked = create_group(vo, "x", f"/{vo}/x")
        assert await answer(vera, vera.groups.CreateGroup, asked) == DENIED
        assert await answer(ada, ada.groups.CreateGroup, asked) == DENIED
    assert await answer(root, root.groups.CreateGroup, create_group("no", "x", "/no/x")) == DENIED
    # Vera belongs to atlas and sees its groups.
    assert await vera(vera.groups.GetGroup, get_group(other.name)) == other
    for request, method in (
        (update_group(other.name, description="x"), vera.groups.UpdateGroup),
        (delete_group(other.name), vera.groups.DeleteGroup),
    ):
        assert await answer(vera, method, request) == DENIED
    # Of the VO that is neither hers nor there, she is told the same.
    await root.make_vo("lhcb")
    foreign = await root.make_group("lhcb", "all", "/lhcb")
    for name in (foreign.name, "vos/lhcb/groups/none", "vos/none/groups/all"):
        for asked, verb in (
            (get_group(name), vera.groups.GetGroup),
            (update_group(name, description="x"), vera.groups.UpdateGroup),
            (delete_group(name), vera.groups.DeleteGroup),
        ):
            assert await answer(vera, verb, asked) == NOT_FOUND
    assert (await ada(ada.groups.ListGroups, list_groups("cms"))).groups == [mine]
    for vo in ("atlas", "nowhere"):
        assert await answer(ada, ada.groups.ListGroups, list_groups(vo)) == NOT_FOUND


async def test_groups_are_listed_by_name_page_by_page(served: Office) -> None:
    root = served.root
    for id_ in ("c", "a", "b"):
        await root.make_group("cms", id_, f"/cms/{id_}")
    names, token = [], ""
    while True:
        page = await root(root.groups.ListGroups, list_groups("cms", 2, token))
        names += [group.name for group in page.groups]
        token = page.next_page_token
        if not token:
            break
        other = list_groups("atlas", 2, token)
        assert (await answer(root, root.groups.ListGroups, other))[1] == "TOKEN_NOT_OURS"
    assert names == [f"vos/cms/groups/{id_}" for id_ in "abc"]
