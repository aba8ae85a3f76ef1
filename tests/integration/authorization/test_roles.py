"""Role bindings over the wire: what managers may do, what nobody may, and what it leaves; on each
engine."""

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from integration.authorization.policy_office import (
    ADMIN,
    CHANNEL,
    CHANNEL_MANAGER,
    ISSUER,
    JOB_MONITOR,
    NOBODYS,
    OTHER_CHANNEL,
    SUBMITTER,
    VETOED,
    VO_MANAGER,
    Caller,
    Office,
    giving,
    office,
)

from gridlane.authorization.v1 import (
    authorization_service_pb2,
    policy_pb2,
    role_service_pb2,
)
from gridlane.ids import uuid7

HOLD, KEEP, CANCEL = (
    policy_pb2.WORK_ACTION_HOLD,
    policy_pb2.WORK_ACTION_KEEP,
    policy_pb2.WORK_ACTION_CANCEL,
)
CREATE = "gridlane.authorization.v1.RoleService/CreateRoleBinding"
WHO = authorization_service_pb2.WhoAmIRequest()


def after_s(seconds: float) -> Timestamp:
    """A time from now."""
    return Timestamp(nanos=0, seconds=int(time.time() + seconds))


def update(name: str, *mask: str, revision: int = 0, reason: str = "", **fields: Any) -> Any:
    return role_service_pb2.UpdateRoleBindingRequest(
        role_binding=policy_pb2.RoleBinding(name=name, **fields),
        update_mask=FieldMask(paths=mask),
        revision=revision,
        reason=reason,
    )


def get(name: str) -> Any:
    return role_service_pb2.GetRoleBindingRequest(name=name)


def delete(name: str, revision: int = 0) -> Any:
    return role_service_pb2.DeleteRoleBindingRequest(name=name, revision=revision)


# --- what is given --------------------------------------------------------------------------------


async def test_a_role_that_was_given_counts_at_once_and_is_shown_with_its_story(
    served: Office,
) -> None:
    root, ada = served.root, served.caller("ada", "cms")
    given = await root.give("ada", SUBMITTER, vo="cms", reason="new in the group")
    assert given.name.startswith("roleBindings/")
    assert (given.issuer, given.subject, given.role, given.vo) == (ISSUER, "ada", SUBMITTER, "cms")
    assert (given.reason, given.creator.subject) == ("new in the group", "root")
    assert abs(given.create_time.ToSeconds() - time.time()) < 30
    me = await ada(ada.me.WhoAmI, WHO)
    assert SUBMITTER in {role.role for role in me.roles}
    assert me.policy_revision == given.revision
    assert await ada(ada.roles.GetRoleBinding, get(given.name)) == given
    assert await ada.bindings() == [given]


async def test_a_veto_denies_until_it_is_taken_away(served: Office) -> None:
    root, eve = served.root, served.caller("eve", "cms")
    veto = await root.give("eve", VETOED, reason="filled the disk", queued_work=CANCEL)
    assert (veto.queued_work, veto.running_work) == (CANCEL, KEEP)
    assert await eve.reason(eve.me.WhoAmI, WHO) == "CALLER_VETOED"
    await root.take(veto.name)
    await eve(eve.me.WhoAmI, WHO)


async def test_a_role_given_to_a_group_counts_for_those_whose_token_asserts_it(
    served: Office,
) -> None:
    root = served.root
    asked = giving("/cms/production", SUBMITTER, vo="cms")
    missing = await root.refused(root.roles.CreateRoleBinding, asked)
    assert (missing.code, missing.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
    await root.make_group("cms", "production", "/cms/production")
    given = await root(root.roles.CreateRoleBinding, asked)
    member = served.caller("mia", "cms", groups=["/cms/production"])
    outsider = served.caller("max", "atlas", groups=["/cms/production"])
    below = served.caller("moe", "cms", groups=["/cms/production/muon"])
    assert await member.bindings() == [given]
    assert await outsider.bindings() == await below.bindings() == []


async def test_what_ends_counts_until_then_and_is_gone_afterwards(served: Office) -> None:
    root, ada = served.root, served.caller("ada", "cms")
    ends = after_s(2)
    given = await root.give("ada", SUBMITTER, vo="cms", expire_time=ends)
    assert await ada.bindings() == [given]
    await asyncio.sleep(max(0.0, ends.seconds - time.time()) + 0.02)
    assert await ada.bindings() == await root.bindings('subject = "ada"') == []
    assert await root.reason(root.roles.GetRoleBinding, get(given.name)) == "NOT_FOUND"
    assert await root.reason(root.roles.DeleteRoleBinding, delete(given.name)) == "NOT_FOUND"
    assert SUBMITTER not in {r.role for r in (await ada(ada.me.WhoAmI, WHO)).roles}
    again = await root.give("ada", SUBMITTER, vo="cms")
    assert again.name != given.name
    assert await ada.bindings() == [again]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"expire_time": Timestamp(seconds=1)}, "role_binding.expire_time"),
        ({"issuer": "https://a|b"}, "role_binding.issuer"),
        ({"subject": "a\0b"}, "role_binding.subject"),
    ],
)
async def test_what_no_binding_can_be_is_refused_with_its_field(
    served: Office, fields: dict[str, Any], field: str
) -> None:
    request = giving("ada", SUBMITTER, vo="cms")
    request.role_binding.MergeFrom(policy_pb2.RoleBinding(**fields))
    refused = await served.root.refused(served.root.roles.CreateRoleBinding, request)
    assert (refused.reason, refused.fields) == ("INVALID_FIELDS", (field,))


async def test_the_same_role_in_the_same_place_is_there_once(served: Office) -> None:
    root = served.root
    given = await root.give("ada", SUBMITTER, vo="cms")
    asked = giving("ada", SUBMITTER, vo="cms", expire_time=after_s(60))
    refused = await root.refused(root.roles.CreateRoleBinding, asked)
    assert (refused.reason, refused.metadata["name"]) == ("ALREADY_EXISTS", given.name)
    await root.give("ada", SUBMITTER, vo="atlas")
    await root.give("ada", SUBMITTER)


async def test_a_role_in_a_vo_that_is_not_there_is_denied_even_to_an_administrator(
    served: Office,
) -> None:
    asked = giving("ada", SUBMITTER, vo="lhcb")
    assert await served.root.reason(served.root.roles.CreateRoleBinding, asked) == (
        "PERMISSION_DENIED"
    )


# --- said twice, only checked ---------------------------------------------------------------------


async def test_a_repeated_request_id_gives_once_and_answers_the_binding_as_it_is(
    served: Office,
) -> None:
    root, request_id = served.root, uuid7()
    asked = giving("ada", SUBMITTER, vo="cms", request_id=request_id)
    first = await root(root.roles.CreateRoleBinding, asked)
    assert await root(root.roles.CreateRoleBinding, asked) == first
    changed = await root(root.roles.UpdateRoleBinding, update(first.name, expire_time=after_s(600)))
    assert await root(root.roles.CreateRoleBinding, asked) == changed
    asked.role_binding.vo = "atlas"
    assert await root.reason(root.roles.CreateRoleBinding, asked) == "REQUEST_ID_REUSED"
    await root.take(first.name)
    asked.role_binding.vo = "cms"
    assert await root.reason(root.roles.CreateRoleBinding, asked) == "NOT_FOUND"
    assert len(await root.entries(f'resource = "{first.name}"')) == 3


async def test_twenty_repetitions_at_once_give_once(served: Office) -> None:
    root = served.root
    asked = giving("ada", SUBMITTER, vo="cms", request_id=uuid7())
    given = await asyncio.gather(*(root(root.roles.CreateRoleBinding, asked) for _ in range(20)))
    assert len({binding.name for binding in given}) == 1
    assert len(await root.bindings('subject = "ada"')) == 1


async def test_what_is_only_checked_stores_nothing(served: Office) -> None:
    root = served.root
    revision = served.policy.current.revision
    asked = giving("ada", SUBMITTER, vo="cms", validate_only=True, request_id=uuid7())
    checked = await root(root.roles.CreateRoleBinding, asked)
    assert (checked.name, checked.revision, checked.subject) == ("", 0, "ada")
    assert await root.bindings('subject = "ada"') == []
    assert served.policy.current.revision == revision
    asked.validate_only = False
    given = await root(root.roles.CreateRoleBinding, asked)
    assert given.revision == revision + 1
    asked.validate_only = True
    assert (await root(root.roles.CreateRoleBinding, asked)).name == given.name
    asked.request_id = ""
    assert await root.reason(root.roles.CreateRoleBinding, asked) == "ALREADY_EXISTS"


# --- changed --------------------------------------------------------------------------------------


async def test_an_update_changes_what_its_mask_names_and_no_more(served: Office) -> None:
    root = served.root
    ends = after_s(600)
    veto = await root.give("eve", VETOED, queued_work=CANCEL, expire_time=ends, reason="first")
    call = root.roles.UpdateRoleBinding
    milder = await root(call, update(veto.name, "queued_work", queued_work=KEEP, reason="second"))
    assert (milder.queued_work, milder.expire_time, milder.reason) == (KEEP, ends, "second")
    assert milder.revision > veto.revision
    emptied = await root(call, update(veto.name, "expire_time", "queued_work"))
    assert not emptied.HasField("expire_time")
    assert emptied.queued_work == HOLD
    every_set = await root(call, update(veto.name, running_work=CANCEL))
    assert (every_set.running_work, every_set.queued_work) == (CANCEL, HOLD)
    assert await root(call, update(veto.name, running_work=CANCEL)) == every_set
    assert (every_set.name, every_set.create_time) == (veto.name, veto.create_time)


async def test_what_a_veto_does_to_work_is_no_other_role_s(served: Office) -> None:
    root = served.root
    given = await root.give("ada", SUBMITTER, vo="cms")
    asked = update(given.name, "queued_work", queued_work=KEEP)
    assert await root.reason(root.roles.UpdateRoleBinding, asked) == "INVALID_FIELDS"
    past = update(given.name, expire_time=Timestamp(seconds=1))
    assert await root.reason(root.roles.UpdateRoleBinding, past) == "INVALID_FIELDS"


async def test_a_change_of_what_was_read_before_another_s_change_is_refused(
    served: Office,
) -> None:
    root = served.root
    given = await root.give("ada", SUBMITTER, vo="cms")
    asked = update(given.name, expire_time=after_s(600), revision=given.revision)
    changed = await root(root.roles.UpdateRoleBinding, asked)
    refused = await root.refused(root.roles.UpdateRoleBinding, asked)
    assert (refused.code, refused.reason) == ("ABORTED", "REVISION_CONFLICT")
    stale = delete(given.name, given.revision)
    assert await root.reason(root.roles.DeleteRoleBinding, stale) == "REVISION_CONFLICT"
    revision = await root.take(given.name, revision=changed.revision)
    assert revision == changed.revision + 1
    assert await root.reason(root.roles.DeleteRoleBinding, delete(given.name)) == "NOT_FOUND"


# --- who may --------------------------------------------------------------------------------------


async def managers(served: Office) -> tuple[Caller, Caller]:
    """A manager of the VO cms, and one of a channel; both belong to cms."""
    await served.root.give("vera", VO_MANAGER, vo="cms")
    await served.root.give("carl", CHANNEL_MANAGER, channel_uid=CHANNEL)
    return served.caller("vera", "cms"), served.caller("carl", "cms")


async def test_managers_give_what_is_theirs_and_nothing_beyond(served: Office) -> None:
    await served.root.make_group("cms", "all", "/cms")
    await served.root.make_group("atlas", "all", "/atlas")
    vera, carl = await managers(served)
    of_vo = [VO_MANAGER, SUBMITTER, JOB_MONITOR, policy_pb2.ROLE_PILOT, policy_pb2.ROLE_JOB_SHARER]
    for role in of_vo:
        await vera.give("bob", role, vo="cms")
    await vera.give("/cms", SUBMITTER, vo="cms")
    await carl.give("bob", CHANNEL_MANAGER, channel_uid=CHANNEL)
    await carl.give("/cms", CHANNEL_MANAGER, vo="cms", channel_uid=CHANNEL)
    beyond = [
        *((vera, giving("ann", role, vo="atlas")) for role in of_vo),
        *((vera, giving("ann", role, vo="nowhere")) for role in of_vo),
        *((vera, giving("ann", role)) for role in of_vo if role != VO_MANAGER),
        (vera, giving("ann", ADMIN)),
        (vera, giving("ann", VETOED)),
        (vera, giving("/cms", ADMIN, vo="cms")),
        (vera, giving("/cms", VETOED, vo="cms")),
        (vera, giving("/atlas", SUBMITTER, vo="atlas")),
        (vera, giving("ann", CHANNEL_MANAGER, channel_uid=CHANNEL)),
        (carl, giving("ann", CHANNEL_MANAGER, channel_uid=OTHER_CHANNEL)),
        (carl, giving("/atlas", CHANNEL_MANAGER, vo="atlas", channel_uid=CHANNEL)),
        (carl, giving("/atlas/x", CHANNEL_MANAGER, vo="atlas", channel_uid=CHANNEL)),
        (carl, giving("/nowhere", CHANNEL_MANAGER, vo="nowhere", channel_uid=CHANNEL)),
        (carl, giving("ann", SUBMITTER, vo="cms")),
        (carl, giving("ann", VO_MANAGER, vo="cms")),
        (carl, giving("ann", ADMIN)),
        (carl, giving("ann", VETOED)),
        (served.caller("sue", "cms"), giving("sue", SUBMITTER, vo="cms")),
    ]
    told = [await who.refused(who.roles.CreateRoleBinding, asked) for who, asked in beyond]
    assert {(refused.code, refused.reason) for refused in told} == {
        ("PERMISSION_DENIED", "PERMISSION_DENIED")
    }
    assert await served.root.bindings('subject = "ann"') == []


async def test_a_foreign_binding_and_an_absent_one_answer_alike(served: Office) -> None:
    root = served.root
    vera, carl = await managers(served)
    await root.make_group("cms", "all", "/cms")
    foreign = [
        await root.give("ann", SUBMITTER, vo="atlas"),
        await root.give("ann", VETOED),
        await root.give("ann", ADMIN),
        await root.give("ann", SUBMITTER),
        await root.give("ann", CHANNEL_MANAGER, channel_uid=OTHER_CHANNEL),
        await root.give("/cms", JOB_MONITOR, vo="cms"),
    ]
    sue = served.caller("sue")
    for who in (vera, carl, sue):
        beyond = foreign if who is not vera else foreign[:-1]
        absent = await all_verbs(who, f"roleBindings/{NOBODYS}")
        for binding in beyond:
            found = await all_verbs(who, binding.name)
            assert found == [text.replace(NOBODYS, binding.name[13:]) for text in absent]
    assert "PERMISSION_DENIED" not in str(await all_verbs(vera, foreign[0].name))


async def all_verbs(who: Caller, name: str) -> list[str]:
    """What the verbs on one binding answer, word by word."""
    refusals = [
        await who.refused(who.roles.GetRoleBinding, get(name)),
        await who.refused(who.roles.UpdateRoleBinding, update(name, expire_time=after_s(60))),
        await who.refused(who.roles.UpdateRoleBinding, update(name, revision=1)),
        await who.refused(who.roles.DeleteRoleBinding, delete(name)),
        await who.refused(who.roles.DeleteRoleBinding, delete(name, revision=1)),
    ]
    return [str(refused) for refused in refusals]


async def test_own_bindings_are_seen_and_not_changed_by_who_does_not_manage_them(
    served: Office,
) -> None:
    vera, carl = await managers(served)
    (own,) = await carl.bindings()
    await carl.take((await carl.give("bob", CHANNEL_MANAGER, channel_uid=CHANNEL)).name)
    mine = await served.root.give("carl", SUBMITTER, vo="cms")
    assert await carl.bindings() == [mine, own]
    for asked in (delete(mine.name), delete(mine.name, revision=1)):
        refused = await carl.refused(carl.roles.DeleteRoleBinding, asked)
        assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert [b.subject for b in await vera.bindings()] == ["carl", "vera"]


async def test_a_narrowed_token_changes_no_role(served: Office) -> None:
    narrow = served.caller("root", scopes=["compute.create"])
    asked = giving("ada", SUBMITTER, vo="cms")
    assert await narrow.reason(narrow.roles.CreateRoleBinding, asked) == "SCOPE_TOO_NARROW"


# --- the last administrator -----------------------------------------------------------------------


async def test_the_last_administrator_is_neither_removed_nor_ended_nor_vetoed(
    served: Office,
) -> None:
    root = served.root
    (admin,) = await root.bindings("role = ADMIN")
    # None of these is one without an end, by itself, who is not vetoed.
    await root.make_group("cms", "all", "/cms")
    await root.give("/cms", ADMIN, vo="cms")
    await root.give("eve", ADMIN)
    await root.give("eve", VETOED)
    await root.give("tim", ADMIN, expire_time=after_s(600))
    by_itself = served.caller("root", "cms", groups=["/cms"])
    refused = [
        await root.refused(root.roles.DeleteRoleBinding, delete(admin.name)),
        await root.refused(
            root.roles.UpdateRoleBinding, update(admin.name, expire_time=after_s(60))
        ),
        await root.refused(root.roles.CreateRoleBinding, giving("root", VETOED)),
        await by_itself.refused(
            by_itself.roles.CreateRoleBinding, giving("/cms", VETOED, vo="cms")
        ),
    ]
    assert {(told.code, told.reason, told.metadata["name"]) for told in refused} == {
        ("FAILED_PRECONDITION", "LAST_ADMIN", admin.name)
    }
    other = await root.give("ann", ADMIN)
    ann = served.caller("ann")
    veto = await ann.give("root", VETOED)
    assert await ann.reason(ann.roles.DeleteRoleBinding, delete(other.name)) == "LAST_ADMIN"
    await ann.take(veto.name)
    await ann.take(admin.name)
    assert await ann.reason(ann.roles.DeleteRoleBinding, delete(other.name)) == "LAST_ADMIN"


async def test_two_administrators_who_take_each_other_s_role_at_once_leave_one(
    database_url: str, engine: str
) -> None:
    """On PostgreSQL through two replicas."""
    async with office(database_url) as one, office_beside(one, database_url, engine) as two:
        outcomes = []
        for n in range(8):
            root = one.root
            (first,) = await root.bindings("role = ADMIN")
            rival = await root.give(f"rival-{n}", ADMIN)
            there = two.caller(f"rival-{n}")
            await until_admin(there)
            answers = await asyncio.gather(
                root.take(rival.name), there.take(first.name), return_exceptions=True
            )
            left = [answer for answer in answers if not isinstance(answer, BaseException)]
            outcomes.append(len(left))
            (stands,) = await (root if answers[0] in left else there).bindings("role = ADMIN")
            if stands.subject != "root":
                await there.give("root", ADMIN)
                await until_admin(root)
                await root.take(stands.name)
        assert outcomes == [1] * len(outcomes)


async def test_changes_at_once_are_revisions_without_a_gap_and_in_force_everywhere(
    database_url: str, engine: str
) -> None:
    """On PostgreSQL through two replicas, each of which learns what the other one did."""
    async with office(database_url) as one, office_beside(one, database_url, engine) as two:
        await one.root.make_vo("cms")
        before = one.policy.current.revision
        async with asyncio.timeout(5):
            while two.policy.current.revision < before:
                await asyncio.sleep(0.02)
        given = await asyncio.gather(
            *(
                office_.root.give(f"{place}-{n}", SUBMITTER, vo="cms")
                for n in range(20)
                for place, office_ in (("one", one), ("two", two))
            )
        )
        last = before + len(given)
        assert sorted(binding.revision for binding in given) == list(range(before + 1, last + 1))
        async with asyncio.timeout(1):
            while {one.policy.current.revision, two.policy.current.revision} != {last}:
                await asyncio.sleep(0.01)
        assert set(one.policy.current.bindings) == set(two.policy.current.bindings)
        assert len(await two.root.entries('method = "' + CREATE + '"')) == len(given)


def office_beside(one: Office, database_url: str, engine: str) -> Any:
    """Another replica; SQLite has but one."""
    return office(database_url) if engine == "postgresql" else nullcontext(one)


async def until_admin(who: Caller) -> None:
    """Waits until the replica knows that its caller is an administrator."""
    async with asyncio.timeout(5):
        while ADMIN not in {role.role for role in (await who(who.me.WhoAmI, WHO)).roles}:
            await asyncio.sleep(0.02)


# --- listed ---------------------------------------------------------------------------------------


async def test_a_listing_goes_page_by_page_newest_first_and_by_its_filters(
    served: Office,
) -> None:
    root = served.root
    await root.make_group("cms", "all", "/cms")
    given = [await root.give(f"user-{n}", SUBMITTER, vo="cms") for n in range(7)]
    given.append(await root.give("/cms", JOB_MONITOR, vo="cms"))
    given.append(await root.give("user-1", CHANNEL_MANAGER, channel_uid=CHANNEL))
    every = await root.bindings(size=2)
    assert every == await root.bindings()
    assert [b.name for b in every[:-1]] == [b.name for b in reversed(given)]
    assert every[-1].role == ADMIN
    assert not every[-1].HasField("creator")
    wanted = {
        'subject = "user-1"': [given[8], given[1]],
        'role = "SUBMITTER"': given[6::-1],
        "vo = cms": given[7::-1],
        f"channel_uid = {CHANNEL}": [given[8]],
        'group = "/cms"': [given[7]],
        'subject = "/cms"': [],
        "vo = cms AND role = JOB_MONITOR": [given[7]],
        f'issuer = "{ISSUER}" AND subject = "user-2"': [given[2]],
        "role = REGULAR_USER": [],
    }
    for filter_, found in wanted.items():
        assert await root.bindings(filter_, size=3) == found, filter_


@pytest.mark.parametrize(
    "filter_", ["role = KING", "role = UNSPECIFIED", "reason = x", "vo = a AND subject = b"]
)
async def test_a_filter_that_is_not_documented_is_refused(served: Office, filter_: str) -> None:
    asked = role_service_pb2.ListRoleBindingsRequest(filter=filter_)
    assert await served.root.reason(served.root.roles.ListRoleBindings, asked) == (
        "FILTER_UNSUPPORTED"
    )


async def test_a_page_token_is_good_for_its_own_listing_alone(served: Office) -> None:
    root = served.root
    await root.give("ada", SUBMITTER, vo="cms")
    asked = role_service_pb2.ListRoleBindingsRequest(page_size=1)
    token = (await root(root.roles.ListRoleBindings, asked)).next_page_token
    for other in ({"filter": "vo = cms"}, {"page_token": token + "x"}):
        bad = role_service_pb2.ListRoleBindingsRequest(**{"page_token": token, **other})
        assert await root.reason(root.roles.ListRoleBindings, bad) == "TOKEN_NOT_OURS"
