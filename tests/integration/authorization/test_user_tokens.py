"""Tokens for users over the wire: signed, listed, narrowed and revoked; on each engine."""

import asyncio
import time
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio
from integration.authorization.policy_office import (
    ADMIN,
    ISSUER,
    NOBODYS,
    SUBMITTER,
    Caller,
    Office,
    office,
)
from integration.authorization.test_upkeep import opened
from sqlalchemy import Connection

from gridlane.authorization.v1 import authorization_service_pb2, token_service_pb2
from gridlane_authorization.store import user_tokens as rows
from gridlane_kit.clock import now_us

WHO_AM_I = authorization_service_pb2.WhoAmIRequest()
Exchange = token_service_pb2.ExchangeTokenRequest


async def created(root: Caller, subject: str, **fields: Any) -> Any:
    request = token_service_pb2.CreateTokenRequest(subject=subject, **fields)
    return await root(root.tokens.CreateToken, request)


async def exchanged(who: Caller, **fields: Any) -> Any:
    return await who(who.tokens.ExchangeToken, Exchange(**fields))


async def revoke(who: Caller, name: str, reason: str = "") -> Any:
    request = token_service_pb2.RevokeTokenRequest(name=name, reason=reason)
    return await who(who.tokens.RevokeToken, request)


async def names(who: Caller, asked: str = "", size: int = 0) -> list[str]:
    """The tokens that it sees, page by page."""
    request = token_service_pb2.ListTokensRequest(filter=asked, page_size=size)
    return [token.name for token in await who.listed(who.tokens.ListTokens, request, "tokens")]


def stored(conn: Connection, jti: str) -> rows.StoredToken:
    found = rows.read(conn, jti)
    assert found is not None
    return found


async def bearer(served: Office, subject: str = "ada", **fields: Any) -> Caller:
    """Somebody who has a token that was made for it."""
    made = await created(served.root, subject, **fields)
    return served.caller(subject, token=made.token)


async def test_a_created_token_proves_what_was_asked_for(served: Office) -> None:
    await served.root.make_group("cms", "higgs", "/cms/higgs")
    await served.root.make_group("cms", "top", "/cms/top")
    made = await created(
        served.root,
        "ada",
        vos=["cms", "atlas"],
        groups=["/cms/higgs", "/cms/top"],
        active_group="/cms/top",
        scopes=["storage.read:/cms", "openid"],
        reason="a robot",
    )
    ada = served.caller("ada", token=made.token)
    me = await ada(ada.me.WhoAmI, WHO_AM_I)
    assert (me.principal.issuer, me.principal.subject) == (ISSUER, "ada")
    assert list(me.principal.vos) == ["atlas", "cms"]
    assert list(me.principal.groups) == ["/cms/higgs", "/cms/top"]
    assert me.principal.active_group == "/cms/top"
    assert list(me.scopes) == ["openid", "storage.read:/cms"]
    resource = made.resource
    assert me.expire_time == resource.expire_time
    assert resource.expire_time.seconds - resource.create_time.seconds == 86_400
    assert (resource.principal, resource.scopes) == (me.principal, me.scopes)
    assert (resource.creator.subject, resource.reason) == ("root", "a robot")
    assert not resource.HasField("revoke_time")


async def test_without_an_active_group_none_is_active(served: Office) -> None:
    await served.root.make_group("cms", "higgs", "/cms/higgs")
    ada = await bearer(served, vos=["cms"], groups=["/cms/higgs"])
    me = await ada(ada.me.WhoAmI, WHO_AM_I)
    assert (list(me.principal.groups), me.principal.active_group) == (["/cms/higgs"], "")


async def test_a_group_must_be_declared_for_one_of_the_vos(served: Office) -> None:
    await served.root.make_group("cms", "higgs", "/cms/higgs")
    request = token_service_pb2.CreateTokenRequest(
        subject="ada", vos=["atlas"], groups=["/cms/higgs"]
    )
    refused = await served.root.refused(served.root.tokens.CreateToken, request)
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
    assert await names(served.root) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": ["storage.read"]}, "scopes[0]"),
        ({"display_name": "a\0b"}, "display_name"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"vos": ["a\0b"]}, "vos"),
    ],
)
async def test_what_no_good_token_says_is_refused(
    served: Office, fields: dict[str, Any], field: str
) -> None:
    request = token_service_pb2.CreateTokenRequest(subject="ada", **fields)
    refused = await served.root.refused(served.root.tokens.CreateToken, request)
    assert (refused.reason, refused.fields) == ("INVALID_FIELDS", (field,))


async def test_no_token_is_kept_anywhere(served: Office) -> None:
    made = await created(served.root, "ada")
    (entry,) = [e for e in await served.root.entries() if e.method.endswith("CreateToken")]
    assert entry.resource == made.resource.name
    assert (entry.after["name"], entry.policy_revision) == (made.resource.name, 0)
    signature = made.token.rpartition(".")[2]
    assert signature not in str(entry) + str(made.resource)


async def test_each_sees_its_own_and_an_administrator_all_newest_first(served: Office) -> None:
    mine = [(await created(served.root, "ada")).resource.name for _ in range(5)]
    theirs = (await created(served.root, "bob")).resource.name
    assert await names(served.caller("ada"), size=2) == mine[::-1]
    assert await names(served.root, size=2) == [theirs, *mine[::-1]]
    assert await names(served.root, 'subject = "bob"') == [theirs]
    assert await names(served.caller("ada"), 'subject = "bob"') == []
    request = token_service_pb2.ListTokensRequest(filter='vo = "cms"')
    assert await served.root.reason(served.root.tokens.ListTokens, request) == "FILTER_UNSUPPORTED"


async def test_a_revoked_token_is_refused_from_then_on(served: Office) -> None:
    made = await created(served.root, "ada")
    ada, other = served.caller("ada", token=made.token), await bearer(served)
    await ada(ada.me.WhoAmI, WHO_AM_I)  # it has a session
    revoked = await revoke(served.root, made.resource.name, "lost")
    assert revoked.HasField("revoke_time")
    for _ in range(2):
        refused = await ada.refused(ada.me.WhoAmI, WHO_AM_I)
        assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID")
    await other(other.me.WhoAmI, WHO_AM_I)
    (entry,) = [e for e in await served.root.entries() if e.method.endswith("RevokeToken")]
    assert (entry.resource, entry.reason) == (made.resource.name, "lost")
    assert "revoke_time" not in entry.before
    assert "revoke_time" in entry.after
    assert entry.policy_revision == served.policy.current.revision


async def test_to_revoke_again_changes_nothing(served: Office) -> None:
    name = (await created(served.root, "ada")).resource.name
    first = await revoke(served.root, name)
    revision = served.policy.current.revision
    assert await revoke(served.root, name) == first
    assert served.policy.current.revision == revision


async def test_a_foreign_token_and_an_absent_one_are_revoked_alike(served: Office) -> None:
    mine = (await created(served.root, "ada")).resource.name
    ada, bob = served.caller("ada"), served.caller("bob")
    told = []
    for name in (mine, f"tokens/{NOBODYS}"):
        request = token_service_pb2.RevokeTokenRequest(name=name)
        refused = await bob.refused(bob.tokens.RevokeToken, request)
        told.append((refused.code, refused.reason, refused.message.replace(name, "it")))
    assert told[0] == told[1] == ("NOT_FOUND", "NOT_FOUND", "there is no it")
    assert (await revoke(ada, mine)).name == mine


async def test_a_token_narrowed_to_capabilities_revokes_nothing(served: Office) -> None:
    made = await created(served.root, "ada", scopes=["compute.read"])
    ada = served.caller("ada", token=made.token)
    request = token_service_pb2.RevokeTokenRequest(name=made.resource.name)
    assert await ada.reason(ada.tokens.RevokeToken, request) == "SCOPE_TOO_NARROW"


async def test_every_replica_refuses_a_revoked_token_within_a_second(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("one replica has the file to itself")
    async with (
        asyncio.timeout(60),
        office(database_url) as first,
        office(database_url) as second,
    ):
        made = await created(first.root, "ada")
        ada = second.caller("ada", token=made.token)
        await ada(ada.me.WhoAmI, WHO_AM_I)
        await revoke(first.root, made.resource.name)
        begun = time.monotonic()
        while time.monotonic() - begun < 10:
            try:
                await ada(ada.me.WhoAmI, WHO_AM_I)
            except aio.AioRpcError:
                break
        assert time.monotonic() - begun < 1


async def test_a_revoked_token_stays_so_after_a_restart(database_url: str) -> None:
    async with asyncio.timeout(60), office(database_url) as first:
        made = await created(first.root, "ada")
        await revoke(first.root, made.resource.name)
    async with asyncio.timeout(60), office(database_url) as second:
        ada = second.caller("ada", token=made.token)
        assert await ada.reason(ada.me.WhoAmI, WHO_AM_I) == "TOKEN_INVALID"


async def test_an_exchanged_token_says_a_part_of_the_callers(served: Office) -> None:
    await served.root.make_group("cms", "higgs", "/cms/higgs")
    await served.root.make_group("cms", "top", "/cms/top")
    first = await created(
        served.root,
        "ada",
        display_name="Ada",
        vos=["cms", "atlas"],
        groups=["/cms/higgs", "/cms/top"],
        active_group="/cms/top",
        scopes=["storage.read:/cms", "compute.create"],
    )
    ada = served.caller("ada", token=first.token)
    made = await exchanged(
        ada, scopes=["storage.read:/cms/data"], vos=["cms"], groups=["/cms/higgs"]
    )
    narrow = served.caller("ada", token=made.token)
    me = await narrow(narrow.me.WhoAmI, WHO_AM_I)
    who = me.principal
    assert (who.issuer, who.subject, who.display_name) == (ISSUER, "ada", "Ada")
    assert (list(who.vos), list(who.groups), who.active_group) == (["cms"], ["/cms/higgs"], "")
    assert list(me.scopes) == ["storage.read:/cms/data"]
    assert made.resource.exchanged_for == first.resource.name.removeprefix("tokens/")
    assert made.resource.expire_time.seconds - made.resource.create_time.seconds == 3600
    assert made.resource.creator.subject == "ada"
    assert made.resource.name in await names(ada)
    (entry,) = [e for e in await served.root.entries() if e.method.endswith("ExchangeToken")]
    assert (entry.resource, entry.actor.subject) == (made.resource.name, "ada")


async def test_what_is_not_asked_for_is_the_callers(served: Office) -> None:
    await served.root.make_group("cms", "higgs", "/cms/higgs")
    ada = await bearer(
        served,
        vos=["cms"],
        groups=["/cms/higgs"],
        active_group="/cms/higgs",
        scopes=["compute.read"],
    )
    made = await exchanged(ada)
    assert list(made.resource.scopes) == ["compute.read"]
    assert made.resource.principal.active_group == "/cms/higgs"
    assert list(made.resource.principal.vos) == ["cms"]


@pytest.mark.parametrize(
    ("held", "asked", "reason"),
    [
        (["storage.read:/cms"], ["storage.read:/cmsother"], "SCOPE_TOO_NARROW"),
        (["storage.read:/cms"], ["storage.read:/cms/../atlas"], "SCOPE_TOO_NARROW"),
        (["storage.read:/cms"], ["storage.modify:/cms"], "SCOPE_TOO_NARROW"),
        (["storage.read:/cms"], ["storage.read:/"], "SCOPE_TOO_NARROW"),
        (["compute.read"], ["compute.cancel"], "SCOPE_TOO_NARROW"),
        (["compute.read"], ["offline_access"], "SCOPE_TOO_NARROW"),
        # Without a capability it would not be narrowed any more.
        (["compute.read", "openid"], ["openid"], "SCOPE_TOO_NARROW"),
        (["storage.read:/cms"], ["storage.read"], "INVALID_FIELDS"),
    ],
)
async def test_no_scope_says_more_than_the_callers(
    served: Office, held: list[str], asked: list[str], reason: str
) -> None:
    ada = await bearer(served, scopes=held)
    assert await ada.reason(ada.tokens.ExchangeToken, Exchange(scopes=asked)) == reason


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ([], ["storage.read:/cms", "openid"]),
        (["openid"], ["compute.read"]),
        (["storage.read:/"], ["storage.read:/cms/x"]),
        (["storage.read:/a%20b", "openid"], ["storage.read:/a%20b/c", "openid"]),
    ],
)
async def test_a_scope_that_is_covered_is_given(
    served: Office, held: list[str], asked: list[str]
) -> None:
    ada = await bearer(served, scopes=held)
    assert list((await exchanged(ada, scopes=asked)).resource.scopes) == sorted(asked)


@pytest.mark.parametrize(
    "fields", [{"vos": ["atlas"]}, {"groups": ["/cms/top"]}, {"active_group": "/cms/top"}]
)
async def test_no_vo_or_group_is_added(served: Office, fields: dict[str, Any]) -> None:
    ada = served.caller("ada", "cms", groups=["/cms/higgs"])
    refused = await ada.refused(ada.tokens.ExchangeToken, Exchange(**fields))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


async def test_an_exchanged_token_acts_in_a_declared_group_where_there_are_such(
    served: Office,
) -> None:
    ada = served.caller("ada", "cms", groups=["/cms", "/cms/higgs"])
    made = await exchanged(ada, active_group="/cms")
    assert made.resource.principal.active_group == "/cms"
    await served.root.make_group("cms", "higgs", "/cms/higgs")
    refused = await ada.refused(ada.tokens.ExchangeToken, Exchange(active_group="/cms"))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    exact = await exchanged(ada, active_group="/cms/higgs")
    assert exact.resource.principal.active_group == "/cms/higgs"
    # Its own first group is none of these: it acts in none, and so does what it exchanges.
    assert (await exchanged(ada)).resource.principal.active_group == ""


async def test_an_exchanged_token_never_outlives_the_callers(served: Office) -> None:
    first = await created(served.root, "ada", lifetime=Duration(seconds=100))
    ada = served.caller("ada", token=first.token)
    made = await exchanged(ada, lifetime=Duration(seconds=21_600))
    assert made.resource.expire_time.seconds <= first.resource.expire_time.seconds
    assert made.resource.expire_time.seconds > now_us() // 1_000_000 + 80


async def test_a_token_for_another_audience_is_not_good_here(served: Office) -> None:
    made = await exchanged(served.caller("ada"), audience="https://storage.example.org")
    assert list(made.resource.audiences) == ["https://storage.example.org"]
    ada = served.caller("ada", token=made.token)
    assert await ada.reason(ada.me.WhoAmI, WHO_AM_I) == "TOKEN_INVALID"


async def test_what_was_had_by_exchange_is_revoked_too_however_often(served: Office) -> None:
    first = await created(served.root, "ada")
    holders = [served.caller("ada", token=first.token)]
    for _ in range(2):
        made = await exchanged(holders[-1])
        holders.append(served.caller("ada", token=made.token))
    beside = served.caller("ada", token=(await exchanged(served.caller("ada"))).token)
    await revoke(served.root, first.resource.name)
    for holder in holders:
        assert await holder.reason(holder.me.WhoAmI, WHO_AM_I) == "TOKEN_INVALID"
    await beside(beside.me.WhoAmI, WHO_AM_I)


async def test_nothing_is_had_for_a_token_whose_revocation_has_not_come_here_yet(
    served: Office, database_url: str
) -> None:
    made = await created(served.root, "ada")
    ada, jti = served.caller("ada", token=made.token), made.resource.name.removeprefix("tokens/")
    async with opened(database_url) as other:
        await other.write(lambda c: rows.revoke(c, stored(c, jti), now_us()))
    await ada(ada.me.WhoAmI, WHO_AM_I)
    assert await ada.reason(ada.tokens.ExchangeToken, Exchange()) == "TOKEN_INVALID"


async def test_roles_count_for_a_created_token_as_for_any(served: Office) -> None:
    ada = await bearer(served, vos=["cms"])
    await served.root.give("ada", SUBMITTER, vo="cms")
    roles = (await ada(ada.me.WhoAmI, WHO_AM_I)).roles
    assert SUBMITTER in [binding.role for binding in roles]
    await served.root.give("ada", ADMIN)
    assert await names(ada) == await names(served.root)


async def test_only_administrators_create_tokens(served: Office) -> None:
    ada = served.caller("ada", "cms")
    request = token_service_pb2.CreateTokenRequest(subject="root")
    assert await ada.reason(ada.tokens.CreateToken, request) == "PERMISSION_DENIED"
