"""Issuers that administrators add while Authorization runs, over the wire; on each engine."""

import asyncio
import json
from contextlib import nullcontext
from typing import Any, Final

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hostile_tokens import Forge
from integration.authorization.policy_office import ADMIN, ISSUER, VETOED, Caller, Office, office

from gridlane.authorization.v1 import (
    authorization_service_pb2,
    issuer_pb2,
    issuer_service_pb2,
    role_service_pb2,
    token_service_pb2,
    vo_service_pb2,
)
from gridlane.authorization.v1.issuer_pb2 import Issuer
from gridlane.ids import uuid7
from gridlane_authorization.given_issuers import OWN, settings_name
from gridlane_authorization.settings import AuthorizationSettings

CMS: Final = Forge("https://cms.test/", AuthorizationSettings().audience, {})
WHO: Final = authorization_service_pb2.WhoAmIRequest()
INVALID: Final = ("INVALID_ARGUMENT", "INVALID_FIELDS")


def public(*keys: Any) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


KEYS: Final = public(CMS.key, CMS.rsa)


def create(id_: str = "cms-iam", **fields: Any) -> Any:
    """Adds an issuer that is believed, with keys that nobody has to fetch."""
    options = {o: fields.pop(o) for o in ("request_id", "validate_only") if o in fields}
    given = {"url": CMS.issuer, "vo": "cms", "jwks": KEYS, "enabled": True, **fields}
    return issuer_service_pb2.CreateIssuerRequest(
        issuer_id=id_, issuer=Issuer(**given), reason="wanted", **options
    )


def update(*mask: str, name: str = "issuers/cms-iam", revision: int = 0, **fields: Any) -> Any:
    return issuer_service_pb2.UpdateIssuerRequest(
        issuer=Issuer(name=name, **fields), update_mask=FieldMask(paths=mask), revision=revision
    )


def delete(name: str = "issuers/cms-iam", revision: int = 0) -> Any:
    return issuer_service_pb2.DeleteIssuerRequest(name=name, revision=revision)


def get(name: str = "issuers/cms-iam") -> Any:
    return issuer_service_pb2.GetIssuerRequest(name=name)


async def listed(caller: Caller, asked: str = "", size: int = 0) -> list[Issuer]:
    """All issuers, page by page."""
    request = issuer_service_pb2.ListIssuersRequest(filter=asked, page_size=size)
    return await caller.listed(caller.issuers.ListIssuers, request, "issuers")


async def accepts(replica: Office, token: str) -> bool:
    return await replica.caller("", token=token).is_known()


def seconds(count: int) -> Duration:
    return Duration(seconds=count)


async def test_an_added_issuer_is_believed_once_it_is_switched_on(served: Office) -> None:
    root, token = served.root, CMS.token(**{"wlcg.groups": ["/cms", "/atlas"]})
    assert not await accepts(served, token)
    made = await root(root.issuers.CreateIssuer, create(enabled=False))
    assert (made.name, made.origin) == ("issuers/cms-iam", issuer_pb2.ISSUER_ORIGIN_POLICY)
    assert not await accepts(served, token)
    on = await root(root.issuers.UpdateIssuer, update(enabled=True))
    assert on.revision == made.revision + 1
    assert set(on.keys.key_ids) == {"key-1", "key-3"}
    assert not on.keys.HasField("fetch_time")
    ada = served.caller("", token=token)
    found = (await ada(ada.me.WhoAmI, WHO)).principal
    assert (found.issuer, found.subject, found.vos, found.groups) == (
        CMS.issuer,
        "ada",
        ["cms"],
        ["/cms"],
    )


async def test_what_is_switched_off_or_deleted_is_not_believed_any_more(served: Office) -> None:
    root, token = served.root, CMS.token()
    await root(root.issuers.CreateIssuer, create())
    for end, begin in (
        (
            (root.issuers.UpdateIssuer, update("enabled")),
            (root.issuers.UpdateIssuer, update("enabled", enabled=True)),
        ),
        ((root.issuers.DeleteIssuer, delete()), (root.issuers.CreateIssuer, create())),
    ):
        assert await accepts(served, token)
        await root(*end)
        assert not await accepts(served, token)
        await root(*begin)
        assert await accepts(served, token)
    # Its users have tokens of Gridlane's own too, which rest on its word.
    ada = served.caller("", token=token)
    exchange = token_service_pb2.ExchangeTokenRequest()
    own = (await ada(ada.tokens.ExchangeToken, exchange)).token
    assert await accepts(served, own)
    await root(root.issuers.UpdateIssuer, update("enabled"))
    assert not await accepts(served, own)
    await root(root.issuers.UpdateIssuer, update("enabled", enabled=True))
    assert await accepts(served, own)


async def test_what_may_be_said_of_tokens_is_applied_at_once(served: Office) -> None:
    root = served.root
    elsewhere = CMS.token(aud="https://cms.example")
    with_rsa = CMS.signed_by(CMS.rsa, "RS256")
    lasting = CMS.token()
    await root(root.issuers.CreateIssuer, create())
    assert not await accepts(served, elsewhere)
    await root(root.issuers.UpdateIssuer, update(audiences=["https://cms.example"]))
    assert await accepts(served, elsewhere)
    await root(root.issuers.UpdateIssuer, update("audiences"))
    assert not await accepts(served, elsewhere)
    assert await accepts(served, with_rsa)
    changed = await root(root.issuers.UpdateIssuer, update(algorithms=["ES256"]))
    assert changed.algorithms == ["ES256"]
    assert not await accepts(served, with_rsa)
    assert await accepts(served, lasting)
    await root(root.issuers.UpdateIssuer, update(max_token_lifetime=seconds(59)))
    assert not await accepts(served, lasting)
    await root(root.issuers.UpdateIssuer, update(max_token_lifetime=seconds(60)))
    assert await accepts(served, lasting)
    await root(root.issuers.UpdateIssuer, update(jwks=public(CMS.rsa)))
    assert not await accepts(served, lasting)
    assert not await accepts(served, with_rsa)  # held to ES256 still
    await root(root.issuers.UpdateIssuer, update("algorithms"))
    assert await accepts(served, with_rsa)


async def test_everybody_sees_all_issuers_wherever_they_come_from(database_url: str) -> None:
    configured: list[dict[str, Any]] = [
        {"url": "https://dune.test/", "vo": "dune", "jwks": KEYS, "max_token_lifetime_s": 3600},
        {"url": "https://atlas.test/", "vo": "atlas", "jwks": KEYS},
    ]
    async with asyncio.timeout(60), office(database_url, issuers=configured) as replica:
        root, eve = replica.root, replica.caller("eve")
        for vo in ("cms", "atlas"):
            await root.make_vo(vo)
        await root(root.issuers.CreateIssuer, create("a.b", url="https://other.test/", vo="atlas"))
        await root(root.issuers.CreateIssuer, create("a-b", enabled=False))
        dune, atlas = (settings_name(issuer["url"]) for issuer in configured)
        names = sorted(["issuers/a-b", "issuers/a.b", OWN, dune, atlas])
        for size in (0, 1, 2, 5):
            assert [issuer.name for issuer in await listed(eve, size=size)] == names
        of_atlas = [i.name for i in await listed(eve, 'vo = "atlas"', 1)]
        assert of_atlas == sorted(["issuers/a.b", atlas])
        assert await listed(eve, "vo = nobody") == []
        for name in names:
            assert (await eve(eve.issuers.GetIssuer, get(name))).name == name
        own = await eve(eve.issuers.GetIssuer, get(OWN))
        assert (own.url, own.vo, own.origin) == (ISSUER, "", issuer_pb2.ISSUER_ORIGIN_OWN)
        (key,) = json.loads(own.jwks)["keys"]
        assert "d" not in key
        assert own.keys.key_ids == [key["kid"]]
        its = await eve(eve.issuers.GetIssuer, get(dune))
        assert (its.origin, its.enabled) == (issuer_pb2.ISSUER_ORIGIN_SETTINGS, True)
        assert (its.max_token_lifetime, its.max_group_age) == (seconds(3600), seconds(86_400))
        # They are changed elsewhere, and stand in the way of others of their names.
        for name in (OWN, dune):
            for method, request in (
                (root.issuers.UpdateIssuer, update("enabled", name=name)),
                (root.issuers.DeleteIssuer, delete(name)),
            ):
                refused = await root.refused(method, request)
                assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
            taken = create(name.removeprefix("issuers/"), url="https://new.test/")
            assert await root.reason(root.issuers.CreateIssuer, taken) == "ALREADY_EXISTS"
        for url, holder in (
            (ISSUER, OWN),
            ("https://dune.test/", dune),
            (CMS.issuer, "issuers/a-b"),
        ):
            refused = await root.refused(root.issuers.CreateIssuer, create("new", url=url))
            assert (refused.reason, refused.metadata["name"]) == ("ALREADY_EXISTS", holder)
        refused = await root.refused(
            root.issuers.CreateIssuer, create("a-b", url="https://x.test/")
        )
        assert (refused.reason, refused.metadata["name"]) == ("ALREADY_EXISTS", "issuers/a-b")
        # A slash more is another issuer.
        await root(root.issuers.CreateIssuer, create("slash", url=f"{CMS.issuer}/"))
        in_use = vo_service_pb2.DeleteVoRequest(name="vos/atlas")
        refused = await root.refused(root.vos.DeleteVo, in_use)
        assert (refused.reason, refused.metadata["by"]) == ("IN_USE", "issuers/a.b")


async def test_a_page_of_large_issuers_is_a_shorter_one(served: Office) -> None:
    root = served.root
    filling = {"keys": [json.loads(public(CMS.key))["keys"][0], {"kty": "x", "n": "A" * 65_000}]}
    for number in range(40):
        request = create(
            f"large-{number:02}", url=f"https://large.test/{number}", jwks=json.dumps(filling)
        )
        await root(root.issuers.CreateIssuer, request)
    first = await root(
        root.issuers.ListIssuers, issuer_service_pb2.ListIssuersRequest(page_size=1000)
    )
    assert 0 < len(first.issuers) < 40
    assert first.next_page_token
    names = [issuer.name for issuer in await listed(root, size=1000)]
    assert names == [*(f"issuers/large-{number:02}" for number in range(40)), OWN]
    # All of them reach a follower, too, in parts that a message has room for.
    assert len(served.policy.current.issuers) == 40


async def test_a_repeated_request_adds_one_issuer_and_a_checked_one_none(served: Office) -> None:
    root = served.root
    checked = await root(root.issuers.CreateIssuer, create(validate_only=True))
    assert (checked.name, checked.revision, checked.url) == ("", 0, CMS.issuer)
    assert [issuer.name for issuer in await listed(root)] == [OWN]
    again = create(request_id=uuid7())
    made = await root(root.issuers.CreateIssuer, again)
    assert await root(root.issuers.CreateIssuer, again) == made
    again.issuer.description = "another one"
    assert await root.reason(root.issuers.CreateIssuer, again) == "REQUEST_ID_REUSED"
    changed = await root(root.issuers.UpdateIssuer, update(description="IAM of CMS"))
    assert await root(root.issuers.UpdateIssuer, update(description="IAM of CMS")) == changed
    for request, method in (
        (update(description="late", revision=made.revision), root.issuers.UpdateIssuer),
        (delete(revision=made.revision), root.issuers.DeleteIssuer),
    ):
        assert await root.reason(method, request) == "REVISION_CONFLICT"
    gone = await root(root.issuers.DeleteIssuer, delete(revision=changed.revision))
    assert gone.policy_revision == changed.revision + 1
    for call, request in (
        (root.issuers.DeleteIssuer, delete()),
        (root.issuers.UpdateIssuer, update(description="gone")),
        (root.issuers.GetIssuer, get()),
    ):
        assert await root.reason(call, request) == "NOT_FOUND"
    entries = [e for e in await root.entries('resource = "issuers/cms-iam"') if e.policy_revision]
    assert [entry.method.rpartition("/")[2] for entry in entries] == [
        "DeleteIssuer",
        "UpdateIssuer",
        "CreateIssuer",
    ]
    assert "description" not in entries[1].before.fields
    assert entries[1].after["description"] == "IAM of CMS"
    assert (entries[2].reason, entries[2].vo) == ("wanted", "cms")
    assert not entries[0].HasField("after")


async def test_administrators_alone_change_issuers(served: Office) -> None:
    root, eve = served.root, served.caller("eve", "cms")
    await root(root.issuers.CreateIssuer, create())
    for method, request in (
        (eve.issuers.CreateIssuer, create("other")),
        (eve.issuers.UpdateIssuer, update("enabled")),
        (eve.issuers.DeleteIssuer, delete()),
        (eve.issuers.UpdateIssuer, update("enabled", name="issuers/absent")),
    ):
        assert await eve.reason(method, request) == "PERMISSION_DENIED"


UNBELIEVABLE: Final[list[tuple[dict[str, Any], str]]] = [
    ({"id_": "Cms"}, "issuer_id"),
    ({"id_": "-cms"}, "issuer_id"),
    ({"id_": "c" * 65}, "issuer_id"),
    ({"id_": "cms/iam"}, "issuer_id"),
    ({"id_": ""}, "issuer_id"),
    ({"id_": "settings-0123456789abcdef"}, "issuer_id"),
    ({"url": "http://cms.test/"}, "issuer.url"),
    ({"url": "https://user@cms.test/"}, "issuer.url"),
    ({"url": "https://cms.test/|x"}, "issuer.url"),
    ({"url": "https://cms.test/\n"}, "issuer.url"),
    ({"url": "https://cms.test/?x=1"}, "issuer.url"),
    ({"url": "ftp://cms.test/"}, "issuer.url"),
    ({"url": "https://" + "c" * 300}, "issuer.url"),
    ({"vo": "c" * 65}, "issuer.vo"),
    ({"vo": "cms/x"}, "issuer.vo"),
    ({"audiences": [""]}, "issuer.audiences[0]"),
    ({"audiences": ["a"] * 17}, "issuer.audiences"),
    ({"audiences": ["a\0"]}, "issuer.audiences"),
    ({"algorithms": ["none"]}, "issuer.algorithms[0]"),
    ({"algorithms": ["HS256"]}, "issuer.algorithms[0]"),
    ({"algorithms": ["ES256", "ES256"]}, "issuer.algorithms"),
    ({"jwks_uri": "http://cms.test/keys", "jwks": ""}, "issuer.jwks_uri"),
    ({"jwks_uri": "file:///etc/passwd", "jwks": ""}, "issuer.jwks_uri"),
    ({"jwks": "{"}, "issuer.jwks"),
    ({"jwks": "[" * 60_000}, "issuer.jwks"),
    ({"jwks": '{"keys": []}'}, "issuer.jwks"),
    ({"jwks": '{"keys": [1]}'}, "issuer.jwks"),
    ({"jwks": '"keys"'}, "issuer.jwks"),
    ({"jwks": public(CMS.curve)}, "issuer.jwks"),
    ({"jwks": json.dumps({"keys": [CMS.key.as_dict(private=True)]})}, "issuer.jwks"),
    ({"jwks": json.dumps(CMS.jwks())}, "issuer.jwks"),
    ({"jwks": json.dumps({"keys": [CMS.shared.as_dict(private=True)]})}, "issuer.jwks"),
    ({"jwks": KEYS + " " * 65_536}, "issuer.jwks"),
    ({"max_group_age": seconds(0)}, "issuer.max_group_age"),
    ({"max_group_age": seconds(30 * 86_400 + 1)}, "issuer.max_group_age"),
    ({"max_token_lifetime": seconds(-1)}, "issuer.max_token_lifetime"),
    ({"description": "d" * 1025}, "issuer.description"),
    ({"description": "d\0"}, "issuer.description"),
]


async def test_what_nobody_can_believe_is_refused(served: Office) -> None:
    root = served.root
    for fields, field in UNBELIEVABLE:
        refused = await root.refused(root.issuers.CreateIssuer, create(**fields))
        assert (refused.code, refused.reason, refused.fields) == (*INVALID, (field,)), fields
    assert [issuer.name for issuer in await listed(root)] == [OWN]


async def test_an_update_is_held_to_the_same_rules(served: Office) -> None:
    root = served.root
    made = await root(root.issuers.CreateIssuer, create())
    for request in (
        update(jwks="{"),
        update(jwks=json.dumps(CMS.jwks())),
        update(jwks_uri="https://keys.invalid/"),  # beside the keys that it has
        update(algorithms=["none"]),
        update("url", url="https://other.test/"),
        update("vo", vo="atlas"),
        update("name"),
    ):
        assert await root.reason(root.issuers.UpdateIssuer, request) == "INVALID_FIELDS"
    assert await root(root.issuers.GetIssuer, get()) == made
    moved = update("jwks", "jwks_uri", jwks_uri="https://keys.invalid/")
    assert (await root(root.issuers.UpdateIssuer, moved)).jwks == ""
    unknown = create("other", url="https://other.test/", vo="nobody")
    refused = await root.refused(root.issuers.CreateIssuer, unknown)
    assert (refused.reason, refused.metadata["subject"]) == ("PRECONDITION", "vos/nobody")
    both = create("both", url="https://b.test/", jwks_uri="https://keys.invalid/")
    assert await root.reason(root.issuers.CreateIssuer, both) == "INVALID_FIELDS"
    for asked in ("vo", "url = x", 'vo = "cms" AND vo = "atlas"', "vo > cms"):
        request = issuer_service_pb2.ListIssuersRequest(filter=asked)
        assert await root.reason(root.issuers.ListIssuers, request) == "FILTER_UNSUPPORTED"


@pytest.mark.parametrize("field", ["client_id", "client_secret"])
async def test_clients_for_delegated_tokens_are_refused_and_not_forgotten_in_silence(
    served: Office, field: str
) -> None:
    root = served.root
    secret: dict[str, Any] = {field: "s3cret"}
    refused = await root.refused(root.issuers.CreateIssuer, create(**secret))
    assert (refused.reason, refused.metadata["field"]) == ("CAPABILITY_MISSING", f"issuer.{field}")
    assert "s3cret" not in refused.message
    await root(root.issuers.CreateIssuer, create())
    for request in (update(field, **secret), update(**secret)):
        assert await root.reason(root.issuers.UpdateIssuer, request) == "CAPABILITY_MISSING"
    await root(root.issuers.UpdateIssuer, update(field))  # it has none: nothing to do


FORBIDDEN: Final = [
    "https://127.0.0.1/keys",
    "https://localhost:8443/keys",
    "https://[::1]/keys",
    "https://[::ffff:127.0.0.1]/keys",
    "https://[64:ff9b::7f00:1]/keys",
    "https://169.254.169.254/latest/meta-data",
    "https://10.0.0.7/",
    "https://192.168.1.1/",
    "https://[fe80::1]/",
    "https://[fd00::1]/",
    "https://0.0.0.0/",
    "https://2130706433/",
    "https://224.0.0.1/",
]


async def test_no_keys_are_fetched_from_where_only_this_server_comes(served: Office) -> None:
    root = served.root
    for number, url in enumerate(FORBIDDEN):
        id_ = f"cms-{number}"
        by_uri = create(id_, jwks="", jwks_uri=url)
        refused = await root.refused(root.issuers.CreateIssuer, by_uri)
        assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "ADDRESS_FORBIDDEN"), url
        assert (refused.fields, refused.metadata["url"]) == (("issuer.jwks_uri",), url)
        own = await root.refused(root.issuers.CreateIssuer, create(id_, jwks="", url=url))
        assert (own.reason, own.fields) == ("ADDRESS_FORBIDDEN", ("issuer.url",))
        # With its keys at hand, nothing is connected to.
        made = await root(root.issuers.CreateIssuer, create(id_, url=url))
        away = update("jwks", name=made.name)
        assert await root.reason(root.issuers.UpdateIssuer, away) == "ADDRESS_FORBIDDEN"


async def test_the_operator_names_networks_that_may_be_reached(database_url: str) -> None:
    async with office(database_url, issuers_networks=["127.0.0.0/8"]) as replica:
        root = replica.root
        await root.make_vo("cms")
        made = await root(
            root.issuers.CreateIssuer, create(jwks="", jwks_uri="https://127.0.0.1:9/keys")
        )
        elsewhere = create("b", url="https://10.0.0.1/", jwks="")
        assert await root.reason(root.issuers.CreateIssuer, elsewhere) == "ADDRESS_FORBIDDEN"
        async with asyncio.timeout(20):
            while not made.keys.message:  # nobody listens there
                await asyncio.sleep(0.05)
                made = await root(root.issuers.GetIssuer, get())
        assert (list(made.keys.key_ids), made.keys.HasField("fetch_time")) == ([], False)


async def test_the_last_administrator_who_can_prove_its_identity_stays(served: Office) -> None:
    root = served.root
    await root(root.issuers.CreateIssuer, create())
    theirs = await root.give("ada", ADMIN, issuer=CMS.issuer)
    ada = served.caller("", token=CMS.token())
    (mine,) = [b for b in await root.bindings() if b.subject == "root"]
    # Gridlane's own issuer has one: that of CMS may go.
    await ada(ada.issuers.UpdateIssuer, update("enabled"))
    await root(root.issuers.UpdateIssuer, update("enabled", enabled=True))
    await ada.take(mine.name)
    for method, request in (
        (ada.issuers.UpdateIssuer, update("enabled")),
        (ada.issuers.DeleteIssuer, delete()),
    ):
        refused = await ada.refused(method, request)
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "LAST_ADMIN")
        assert refused.metadata["name"] == theirs.name
    # One who is vetoed is none, and nor is one of an issuer that is switched off.
    await ada.give("rob", ADMIN)
    veto = await ada.give("rob", VETOED)
    await ada.give("eva", ADMIN, issuer="https://off.test/")
    await ada(ada.issuers.CreateIssuer, create("off", url="https://off.test/", enabled=False))
    assert await ada.reason(ada.issuers.DeleteIssuer, delete()) == "LAST_ADMIN"
    taking = role_service_pb2.DeleteRoleBindingRequest(name=theirs.name)
    assert await ada.reason(ada.roles.DeleteRoleBinding, taking) == "LAST_ADMIN"
    await ada.take(veto.name)
    await ada(ada.issuers.DeleteIssuer, delete())
    assert not await accepts(served, CMS.token())


async def test_every_replica_believes_the_same_within_a_second(
    served: Office, database_url: str, engine: str
) -> None:
    """On PostgreSQL there are two."""
    other = office(database_url) if engine == "postgresql" else nullcontext(served)
    async with other as replica:
        root, token = served.root, CMS.token()
        await root(root.issuers.CreateIssuer, create())
        async with asyncio.timeout(1):
            while not await accepts(replica, token):
                await asyncio.sleep(0.01)
        await root(root.issuers.UpdateIssuer, update("enabled"))
        async with asyncio.timeout(1):
            while await accepts(replica, token):
                await asyncio.sleep(0.01)


async def test_a_restart_believes_what_was_believed(database_url: str) -> None:
    async with office(database_url) as replica:
        await replica.root.make_vo("cms")
        await replica.root(replica.root.issuers.CreateIssuer, create())
    async with office(database_url) as replica:
        assert await accepts(replica, CMS.token())
