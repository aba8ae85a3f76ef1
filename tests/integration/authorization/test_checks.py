"""Questions about permissions over the wire: what is answered, to whom, under which revision."""

import asyncio
import time
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from integration.authorization.policy_office import (
    ADMIN,
    CHANNEL,
    CHANNEL_MANAGER,
    ISSUER,
    OTHER_CHANNEL,
    SUBMITTER,
    VETOED,
    VO_MANAGER,
    Caller,
    Office,
    office,
)

from gridlane.authorization.v1 import permission_pb2, policy_pb2
from gridlane.type.v1 import error_reason_pb2

SUBMIT, CANCEL, VIEW = "transfer.jobs.submit", "transfer.jobs.cancel", "transfer.jobs.view"
NOT_NEEDED = policy_pb2.ROLE_UNSPECIFIED


def identity(subject: str, *vos: str, **claims: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "subject": subject, "vos": vos, **claims}


def question(permission: str, **fields: Any) -> permission_pb2.CheckPermissionRequest:
    return permission_pb2.CheckPermissionRequest(permission=permission, **fields)


async def ask(
    caller: Caller, permission: str, **fields: Any
) -> permission_pb2.CheckPermissionResponse:
    answer: permission_pb2.CheckPermissionResponse = await caller(
        caller.me.CheckPermission, question(permission, **fields)
    )
    return answer


def reason_of(answer: permission_pb2.CheckPermissionResponse) -> str:
    return error_reason_pb2.ErrorReason.Name(answer.reason).removeprefix("ERROR_REASON_")


# --- what is answered -----------------------------------------------------------------------------


async def test_a_yes_says_by_which_role_and_how_far_it_reaches(served: Office) -> None:
    ada = served.caller("ada", "cms", "atlas")
    given = await served.root.give("ada", SUBMITTER, vo="cms")
    answer = await ask(ada, SUBMIT, target={"vo": "cms"})
    assert answer == permission_pb2.CheckPermissionResponse(
        allowed=True,
        rule="submitter: its VOs",
        policy_revision=given.revision,
        reach=permission_pb2.PermissionReach(vos=["cms"]),
    )


async def test_a_no_names_the_least_role_that_lacks(served: Office) -> None:
    ada = served.caller("ada", "cms")
    answer = await ask(ada, SUBMIT, target={"vo": "cms"})
    assert (answer.allowed, reason_of(answer)) == (False, "PERMISSION_DENIED")
    assert (answer.rule, answer.role_needed) == ("denied", SUBMITTER)
    on_channel = await ask(ada, "transfer.channels.manage", target={"channel_uid": CHANNEL})
    assert on_channel.role_needed == CHANNEL_MANAGER
    assert (await ask(ada, CANCEL, target={"vo": "cms"})).role_needed == VO_MANAGER
    assert (await ask(ada, "authorization.vos.manage")).role_needed == ADMIN
    assert (await ask(ada, "authorization.policy.view")).role_needed == NOT_NEEDED


async def test_the_role_that_is_named_is_the_one_that_lacked(served: Office) -> None:
    ada = served.caller("ada", "cms")
    needed = (await ask(ada, SUBMIT, target={"vo": "cms"})).role_needed
    given = await served.root.give("ada", needed, vo="cms")
    assert (await ask(ada, SUBMIT, target={"vo": "cms"})).allowed
    await served.root.take(given.name)
    assert not (await ask(ada, SUBMIT, target={"vo": "cms"})).allowed


async def test_own_work_is_told_from_that_of_others(served: Office) -> None:
    ada = served.caller("ada", "cms")
    own = {"vo": "cms", "owner": identity("ada")}
    answer = await ask(ada, CANCEL, target=own)
    assert (answer.allowed, answer.rule, answer.reach.own) == (True, "regular user: own", True)
    others = await ask(ada, CANCEL, target={"vo": "cms", "owner": identity("bob")})
    assert (others.allowed, others.rule) == (False, "regular user: own")
    await served.root.give("ada", VO_MANAGER, vo="atlas")
    assert (await ask(ada, CANCEL, target=own)).rule == "regular user: own"
    foreign = {"vo": "atlas", "owner": identity("bob")}
    assert (await ask(ada, CANCEL, target=foreign)).rule == "VO manager: that VO"


async def test_without_a_target_the_question_is_whether_there_is_anything(served: Office) -> None:
    ada = served.caller("ada", "cms")
    answer = await ask(ada, "transfer.channels.manage")
    assert (answer.allowed, answer.role_needed) == (False, CHANNEL_MANAGER)
    await served.root.give("ada", CHANNEL_MANAGER, channel_uid=CHANNEL)
    answer = await ask(ada, "transfer.channels.manage")
    assert answer.allowed
    assert answer.reach == permission_pb2.PermissionReach(channel_uids=[CHANNEL])
    other = await ask(ada, "transfer.channels.manage", target={"channel_uid": OTHER_CHANNEL})
    assert (other.allowed, other.role_needed) == (False, CHANNEL_MANAGER)


async def test_an_administrator_reaches_everything_but_no_vo_that_is_not_there(
    served: Office,
) -> None:
    answer = await ask(served.root, SUBMIT, target={"vo": "cms"})
    assert (answer.allowed, answer.rule, answer.reach.everything) == (True, "admin: all", True)
    nowhere = await ask(served.root, SUBMIT, target={"vo": "nowhere"})
    assert (nowhere.allowed, nowhere.role_needed) == (False, NOT_NEEDED)


async def test_a_narrowed_token_is_told_which_scope_lacks(served: Office) -> None:
    await served.root.give("ada", SUBMITTER, vo="cms")
    ada = served.caller("ada", "cms", scopes=["storage.create:/cms/ada", "compute.read"])
    answer = await ask(ada, "workload.jobs.submit", target={"vo": "cms"})
    assert (answer.allowed, reason_of(answer)) == (False, "SCOPE_TOO_NARROW")
    assert answer.rule == "submitter: its VOs"
    assert list(answer.scopes_needed) == ["compute.create"]
    write = "transfer.content.write"
    assert (await ask(ada, write, target={"vo": "cms", "path": "/cms/ada/x"})).allowed
    beside = await ask(ada, write, target={"vo": "cms", "path": "/cms/adam"})
    assert (beside.allowed, reason_of(beside)) == (False, "SCOPE_TOO_NARROW")
    assert list(beside.scopes_needed) == ["storage.create:/cms/adam", "storage.modify:/cms/adam"]
    root = await ask(served.root, write, principal=identity("ada", "cms"), target={"vo": "cms"})
    assert root.allowed, "for another principal no scopes are looked at"


async def test_an_answer_says_until_when_it_holds(served: Office) -> None:
    ada = served.caller("ada", "cms", "atlas")
    ends = Timestamp(seconds=int(time.time()) + 3600)
    await served.root.give("ada", SUBMITTER, vo="cms", expire_time=ends)
    await served.root.give("ada", SUBMITTER, vo="atlas")
    assert (await ask(ada, SUBMIT, target={"vo": "cms"})).expire_time == ends
    assert not (await ask(ada, SUBMIT, target={"vo": "atlas"})).HasField("expire_time")
    assert (await ask(ada, SUBMIT)).expire_time == ends, "it reaches less far then"
    lacking = await ask(ada, "transfer.channels.manage")
    assert not lacking.HasField("expire_time")


async def test_a_veto_is_the_reason_whatever_the_roles(served: Office) -> None:
    root = served.root
    await root.give("eve", SUBMITTER, vo="cms")
    await root.give("eve", VETOED)
    answer = await ask(root, SUBMIT, principal=identity("eve", "cms"), target={"vo": "cms"})
    assert (answer.allowed, reason_of(answer)) == (False, "CALLER_VETOED")
    assert answer.role_needed == NOT_NEEDED
    listing = await ask(root, "transfer.jobs.list", principal=identity("eve", "cms"))
    assert (listing.allowed, reason_of(listing)) == (False, "CALLER_VETOED")
    eve = served.caller("eve", "cms")
    assert await eve.reason(eve.me.CheckPermission, question(SUBMIT)) == "CALLER_VETOED"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"permission": "transfer.jobs.admire"}, "permission"),
        ({"permission": "submit"}, "permission"),
        ({"permission": SUBMIT, "principal": {"subject": "ada"}}, "principal"),
        ({"permission": SUBMIT, "principal": identity("ada", kind=2)}, "principal.kind"),
        ({"permission": VIEW, "target": {"path": "/cms/../atlas"}}, "target.path"),
    ],
)
async def test_a_question_that_has_no_sense_is_refused(
    served: Office, fields: dict[str, Any], wrong: str
) -> None:
    request = permission_pb2.CheckPermissionRequest(**fields)
    refused = await served.root.refused(served.root.me.CheckPermission, request)
    assert (refused.reason, refused.fields) == ("INVALID_FIELDS", (wrong,))


# --- about whom -----------------------------------------------------------------------------------


async def test_who_may_not_be_asked_for_and_who_is_not_known_answer_alike(served: Office) -> None:
    root = served.root
    await root.give("mia", VO_MANAGER, vo="cms")
    await root.give("ada", SUBMITTER, vo="cms")
    await root.give("bob", SUBMITTER, vo="atlas")
    manager, member = served.caller("mia", "cms"), served.caller("ada", "cms")
    told = [
        await caller.refused(
            caller.me.CheckPermission,
            question(SUBMIT, principal=identity(who, "cms", "atlas")),
        )
        for caller in (manager, member)
        for who in ("bob", "nobody", "root")
    ]
    assert told == [told[0]] * 6
    assert (told[0].code, told[0].reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


async def test_a_vo_manager_is_told_what_concerns_its_vo_alone(served: Office) -> None:
    root = served.root
    await root.give("mia", VO_MANAGER, vo="cms")
    await root.give("ada", SUBMITTER, vo="cms")
    for role in (SUBMITTER, VO_MANAGER):
        await root.give("ada", role, vo="atlas")
    await root.give("ada", CHANNEL_MANAGER, channel_uid=CHANNEL)
    mia, ada = served.caller("mia", "cms"), identity("ada", "cms", "atlas")
    answer = await ask(mia, SUBMIT, principal=ada)
    assert (answer.allowed, list(answer.reach.vos)) == (True, ["cms"])
    assert not (await ask(mia, SUBMIT, principal=ada, target={"vo": "atlas"})).allowed
    assert not (await ask(mia, "authorization.groups.manage", principal=ada)).allowed
    assert not (await ask(mia, "transfer.channels.manage", principal=ada)).allowed
    lacking = await ask(mia, CANCEL, principal=ada, target={"vo": "cms"})
    assert lacking.role_needed == VO_MANAGER
    assert list((await ask(root, SUBMIT, principal=ada)).reach.vos) == ["atlas", "cms"]
    await root.give("ada", ADMIN)
    assert (await ask(mia, SUBMIT, principal=ada)).rule == "admin: all"


async def test_who_names_itself_is_asked_for_as_its_token_says(served: Office) -> None:
    await served.root.make_group("cms", "production", "/cms/production")
    await served.root.give("/cms/production", SUBMITTER, vo="cms")
    ada = served.caller("ada", "cms")
    claimed = identity("ada", "cms", groups=["/cms/production"])
    assert not (await ask(ada, SUBMIT, principal=claimed)).allowed
    bob = identity("bob", "cms", groups=["/cms/production"])
    assert (await ask(served.root, SUBMIT, principal=bob)).allowed
    mia = served.caller("mia", "cms", groups=["/cms/production"])
    assert (await ask(mia, SUBMIT)).allowed


# --- under which revision -------------------------------------------------------------------------


async def test_a_revision_is_waited_for(served: Office) -> None:
    ada = served.caller("ada", "cms")
    before = served.policy.current.revision
    asked = asyncio.create_task(ask(ada, SUBMIT, minimum_revision=before + 1))
    await asyncio.sleep(0.1)
    assert not asked.done()
    given = await served.root.give("ada", SUBMITTER, vo="cms")
    answer = await asked
    assert (answer.allowed, answer.policy_revision) == (True, given.revision)


async def test_another_replica_answers_under_the_revision_that_is_asked_for(
    served: Office, database_url: str
) -> None:
    async with office(database_url) as second:
        for number in range(5):
            given = await served.root.give(f"user{number}", SUBMITTER, vo="cms")
            who = identity(f"user{number}", "cms")
            answer = await ask(second.root, SUBMIT, principal=who, minimum_revision=given.revision)
            assert answer.allowed


async def test_a_revision_that_does_not_come_is_told_within_the_deadline(served: Office) -> None:
    ada = served.caller("ada", "cms")
    now = served.policy.current.revision
    begun = time.monotonic()
    refused = await ada.refused(
        lambda request, **options: ada.me.CheckPermission(request, **{**options, "timeout": 3}),
        question(SUBMIT, minimum_revision=now + 7),
    )
    assert time.monotonic() - begun < 3
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "REVISION_NOT_REACHED")
    assert refused.metadata == {"asked": str(now + 7), "reached": str(now)}


# --- many -----------------------------------------------------------------------------------------


async def test_many_questions_are_answered_in_order_each_by_itself(served: Office) -> None:
    given = await served.root.give("ada", SUBMITTER, vo="cms")
    ada = served.caller("ada", "cms")
    request = permission_pb2.BatchCheckPermissionsRequest(
        requests=[
            question(SUBMIT, target={"vo": "cms"}, minimum_revision=given.revision),
            question("no permission"),
            question(SUBMIT, principal=identity("bob")),
            question("transfer.jobs.admire", minimum_revision=given.revision + 100),
            question("transfer.channels.manage"),
        ]
    )
    answer = await ada(ada.me.BatchCheckPermissions, request)
    kinds = [result.WhichOneof("result") for result in answer.results]
    assert kinds == ["permission", "status", "status", "status", "permission"]
    codes = [result.status.code for result in answer.results]
    assert codes == [0, 3, 7, 3, 0]
    assert [result.permission.allowed for result in answer.results] == [True, *[False] * 4]
    assert answer.policy_revision == given.revision


async def test_a_thousand_questions_are_answered_and_one_more_is_not(served: Office) -> None:
    root = served.root
    asked = [question(SUBMIT, principal=identity(f"u{n}", "cms")) for n in range(1000)]
    request = permission_pb2.BatchCheckPermissionsRequest(requests=asked)
    answer = await root(root.me.BatchCheckPermissions, request)
    assert len(answer.results) == 1000
    request.requests.append(asked[0])
    assert await root.reason(root.me.BatchCheckPermissions, request) == "INVALID_FIELDS"
