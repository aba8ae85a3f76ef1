"""The audit: every change is in it, with who, when, why, before and after; on each engine."""

import asyncio
import time
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from integration.authorization.policy_office import (
    ADMIN,
    NOBODYS,
    SUBMITTER,
    VO_MANAGER,
    Office,
    giving,
)

from gridlane.authorization.v1 import (
    audit_entry_pb2,
    audit_service_pb2,
    group_service_pb2,
    role_service_pb2,
    token_service_pb2,
    vo_service_pb2,
)
from gridlane.authorization.v1.group_pb2 import Group
from gridlane.authorization.v1.policy_pb2 import RoleBinding
from gridlane.authorization.v1.vo_pb2 import Vo

ROLES = "gridlane.authorization.v1.RoleService"


def as_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def reason_of(entry: audit_entry_pb2.AuditEntry) -> str:
    """Why a kept attempt was refused."""
    info = error_details_pb2.ErrorInfo()
    for detail in entry.status.details:
        detail.Unpack(info)
    return info.reason


async def test_the_life_of_a_binding_is_told_by_its_entries(served: Office) -> None:
    root = served.root
    given = await root.give("ada", SUBMITTER, vo="cms", reason="new here")
    asked = role_service_pb2.UpdateRoleBindingRequest(
        role_binding=RoleBinding(
            name=given.name, expire_time=Timestamp(seconds=int(time.time()) + 99)
        ),
        reason="until the summer",
    )
    changed = await root(root.roles.UpdateRoleBinding, asked)
    revision = await root.take(given.name, reason="left")
    gone, ended, made = await root.entries(f'resource = "{given.name}"')
    assert [e.method for e in (made, ended, gone)] == [
        f"{ROLES}/{verb}RoleBinding" for verb in ("Create", "Update", "Delete")
    ]
    assert [e.reason for e in (made, ended, gone)] == ["new here", "until the summer", "left"]
    assert [e.policy_revision for e in (made, ended, gone)] == [
        given.revision,
        changed.revision,
        revision,
    ]
    assert not made.HasField("before")
    assert as_dict(made.after) == as_dict(given) == as_dict(ended.before)
    assert as_dict(ended.after) == as_dict(changed) == as_dict(gone.before)
    assert not gone.HasField("after")
    for entry in (made, ended, gone):
        assert (entry.actor.subject, entry.vo, entry.service) == ("root", "cms", "")
        assert (entry.permission, entry.rule) == ("authorization.roles.manage", "admin: all")
        assert not entry.HasField("status")
        assert len(entry.trace_id) == 32
        assert entry.peer.startswith("ipv4:127.0.0.1:")
        assert abs(entry.time.ToSeconds() - time.time()) < 30
        request = audit_service_pb2.GetAuditEntryRequest(name=entry.name)
        assert await root(root.audit.GetAuditEntry, request) == entry


async def test_every_verb_leaves_one_entry_and_every_revision_has_one(served: Office) -> None:
    root = served.root
    before = served.policy.current.revision
    known = len(await root.entries())
    vo = await root.make_vo("lhcb")
    group = await root.make_group("lhcb", "all", "/lhcb")
    binding = await root.give("/lhcb", SUBMITTER, vo="lhcb")
    mask = FieldMask(paths=["description"])
    await root(
        root.groups.UpdateGroup,
        group_service_pb2.UpdateGroupRequest(
            group=Group(name=group.name, description="x"), update_mask=mask
        ),
    )
    await root(
        root.vos.UpdateVo,
        vo_service_pb2.UpdateVoRequest(vo=Vo(name=vo.name, description="x"), update_mask=mask),
    )
    await root.take(binding.name)
    await root(root.groups.DeleteGroup, group_service_pb2.DeleteGroupRequest(name=group.name))
    await root(root.vos.DeleteVo, vo_service_pb2.DeleteVoRequest(name=vo.name))
    entries = await root.entries(size=3)
    new = entries[: len(entries) - known]
    assert [e.policy_revision for e in new] == list(range(before + 8, before, -1))
    assert {e.vo for e in new} == {"lhcb"}


async def test_an_attempt_that_was_refused_is_kept_with_its_reason(served: Office) -> None:
    root = served.root
    await root.give("vera", VO_MANAGER, vo="cms")
    vera = served.caller("vera")
    await vera.refused(
        vera.roles.CreateRoleBinding, giving("vera", ADMIN, reason="I want everything")
    )
    absent = role_service_pb2.DeleteRoleBindingRequest(name=f"roleBindings/{NOBODYS}")
    await vera.refused(vera.roles.DeleteRoleBinding, absent)
    await vera.refused(vera.roles.CreateRoleBinding, giving("x", ADMIN, validate_only=True))
    last, first = await root.entries("actor = vera")
    assert (reason_of(first), first.reason) == ("PERMISSION_DENIED", "I want everything")
    assert (first.method, first.policy_revision) == (f"{ROLES}/CreateRoleBinding", 0)
    assert first.rule == "VO manager: that VO"
    assert (reason_of(last), last.resource) == ("NOT_FOUND", absent.name)


async def test_an_attempt_of_one_who_may_change_nothing_is_kept_and_a_look_is_not(
    served: Office,
) -> None:
    root, sue = served.root, served.caller("sue", "cms")
    await sue.refused(sue.roles.CreateRoleBinding, giving("sue", ADMIN))
    narrow = served.caller("root", scopes=["compute.create"])
    await narrow.refused(narrow.roles.CreateRoleBinding, giving("sue", ADMIN))
    await sue.refused(sue.audit.ListAuditEntries, audit_service_pb2.ListAuditEntriesRequest())
    async with asyncio.timeout(10):  # it is written behind the answer
        while not (kept := await root.entries("actor = sue")):
            await asyncio.sleep(0.02)
    (entry,) = kept
    assert (entry.method, reason_of(entry)) == (f"{ROLES}/CreateRoleBinding", "PERMISSION_DENIED")
    assert (entry.permission, entry.rule) == ("authorization.roles.manage", "denied")
    assert (entry.resource, entry.policy_revision) == ("", 0)
    async with asyncio.timeout(10):
        while reason_of((await root.entries("actor = root"))[0]) != "SCOPE_TOO_NARROW":
            await asyncio.sleep(0.02)


async def test_a_denied_attempt_to_have_a_token_made_is_kept(served: Office) -> None:
    sue = served.caller("sue", "cms")
    await sue.refused(sue.tokens.CreateToken, token_service_pb2.CreateTokenRequest(subject="root"))
    await sue(sue.tokens.ListTokens, token_service_pb2.ListTokensRequest())
    async with asyncio.timeout(10):  # it is written behind the answer
        while not (kept := await served.root.entries("actor = sue")):
            await asyncio.sleep(0.02)
    (entry,) = kept
    assert (entry.method.rpartition("/")[2], reason_of(entry)) == (
        "CreateToken",
        "PERMISSION_DENIED",
    )
    assert (entry.permission, entry.rule) == ("authorization.tokens.create", "denied")


async def test_a_change_that_changes_nothing_has_no_revision(served: Office) -> None:
    root = served.root
    given = await root.give("ada", SUBMITTER, vo="cms")
    before = served.policy.current.revision
    asked = role_service_pb2.UpdateRoleBindingRequest(role_binding=RoleBinding(name=given.name))
    assert await root(root.roles.UpdateRoleBinding, asked) == given
    assert served.policy.current.revision == before
    assert (await root.entries(f'resource = "{given.name}"'))[0].policy_revision == 0


async def test_managers_read_what_concerns_their_vo_and_others_nothing(served: Office) -> None:
    root = served.root
    managing = await root.give("vera", VO_MANAGER, vo="cms")
    foreign = await root.give("ann", SUBMITTER, vo="atlas")
    vera, ada = served.caller("vera"), served.caller("ada", "cms")
    seen = await vera.entries(size=1)
    assert [entry.resource for entry in seen] == [managing.name, "vos/cms"]
    (beyond,) = await root.entries(f'resource = "{foreign.name}"')
    for name in (beyond.name, f"auditEntries/{NOBODYS}"):
        request = audit_service_pb2.GetAuditEntryRequest(name=name)
        assert await vera.reason(vera.audit.GetAuditEntry, request) == "NOT_FOUND"
    assert await vera.entries("vo = atlas") == []
    assert await vera.entries("vo = cms") == seen
    listing = audit_service_pb2.ListAuditEntriesRequest()
    assert await ada.reason(ada.audit.ListAuditEntries, listing) == "PERMISSION_DENIED"
    getting = audit_service_pb2.GetAuditEntryRequest(name=beyond.name)
    assert await ada.reason(ada.audit.GetAuditEntry, getting) == "PERMISSION_DENIED"


async def test_entries_are_found_by_actor_method_and_time(served: Office) -> None:
    root = served.root
    first = await root.give("ada", SUBMITTER, vo="cms")
    await asyncio.sleep(0.01)
    middle = Timestamp()
    middle.GetCurrentTime()
    await asyncio.sleep(0.01)
    second = await root.give("bob", SUBMITTER, vo="cms")
    early = await root.entries(end_time=middle, size=2)
    late = await root.entries(start_time=middle)
    assert [entry.resource for entry in late] == [second.name]
    assert early[0].resource == first.name
    assert await root.entries("actor = root") == late + early
    assert await root.entries("actor = ada") == []
    by_method = await root.entries(f'method = "{ROLES}/CreateRoleBinding"', start_time=middle)
    assert by_method == late


@pytest.mark.parametrize("asked", ["reason = x", "actor = a AND vo = b"])
async def test_a_filter_that_is_not_documented_is_refused(served: Office, asked: str) -> None:
    request = audit_service_pb2.ListAuditEntriesRequest(filter=asked)
    assert await served.root.reason(served.root.audit.ListAuditEntries, request) == (
        "FILTER_UNSUPPORTED"
    )
