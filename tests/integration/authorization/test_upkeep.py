"""What starts and time do to what is stored: names for old bindings, an end for old rows; on each
engine. And the indexes that listings go by."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from query_plans import plans
from sqlalchemy import Connection, insert

from gridlane.ids import uuid7_floor, uuid7_time_ms
from gridlane_authorization import roles, store
from gridlane_authorization.retention import Retention
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import bindings, groups, vos
from gridlane_authorization.store.tables import AUDIT, REQUEST_ID, ROLE_BINDING, VO
from gridlane_kit import audit, audit_reading, request_ids
from gridlane_kit.audit import AuditEntry
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import EVERYTHING, Visibility
from gridlane_kit.filters import Filter
from gridlane_kit.identity import Principal
from gridlane_kit.pages import page_request
from gridlane_kit.policy import Binding, Role
from gridlane_kit.request_ids import RequestKey
from gridlane_kit.sqlite import sqlite_url

ISSUER = "https://issuer.test/"
ADA = Principal(ISSUER, "ada", vos=frozenset({"cms"}), groups=frozenset({"/cms/team"}))
DAY_US = 86_400_000_000
OLD_US = 1_700_000_000_000_000
OLD_ROWS = [
    {"issuer": ISSUER, "subject": "ada", "role": "admin", "vo": "", "channel_uid": ""},
    {"issuer": ISSUER, "subject": "bob", "role": "submitter", "vo": "cms", "channel_uid": ""},
    {"issuer": "", "subject": "/cms", "role": "submitter", "vo": "cms", "channel_uid": ""},
]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = await Database.open(
        url, metadata=store.METADATA, migrations=store.MIGRATIONS, migrate=True
    )
    await database.write(open_policy)
    yield database
    await database.close()


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


def open_policy(conn: Connection) -> None:
    store.open_policy(conn, jobs_vo_readable=True, now_us=now_us())


def as_before_names(conn: Connection) -> None:
    """Rows as a version without names wrote them."""
    for n, row in enumerate(OLD_ROWS):
        conn.execute(insert(ROLE_BINDING).values(**row, create_time_us=OLD_US + n * 1000))
    conn.execute(insert(VO).values(name="cms", create_time_us=OLD_US))


def all_bindings(conn: Connection) -> list[bindings.StoredBinding]:
    page = page_request(bindings.NEWEST_FIRST, page_size=1000, page_token="", binding=())
    return bindings.page(conn, EVERYTHING, ADA, Filter(), page, now_us())[0]


async def test_bindings_of_an_older_version_get_names_that_every_start_would_give(
    db: Database, tmp_path: Path
) -> None:
    found = []
    async with opened(sqlite_url(tmp_path / "another.sqlite")) as another:
        for database in (db, another):
            await database.write(as_before_names)
            assert await database.read(all_bindings) == []
            await database.write(open_policy)
            found.append(await database.read(all_bindings))
            await database.write(open_policy)
            assert await database.read(all_bindings) == found[-1]
    first, second = ([binding.uid for binding in listed] for listed in found)
    assert first == second
    assert [uuid7_time_ms(uid) for uid in first] == [OLD_US // 1000 + n for n in (2, 1, 0)]
    assert [binding.binding.subject or binding.binding.group for binding in found[0]] == [
        "/cms",
        "bob",
        "ada",
    ]
    vo = await db.read(lambda conn: vos.read(conn, "cms"))
    assert vo is not None
    assert (vo.update_time_us, vo.description) == (OLD_US, "")


async def test_what_an_older_version_wrote_while_a_newer_one_ran_gets_its_names_later(
    db: Database,
) -> None:
    await db.write(as_before_names)
    assert len((await db.read(store.read_policy)).policy.bindings) == len(OLD_ROWS)
    await db.write(open_policy)
    assert len(await db.read(all_bindings)) == len(OLD_ROWS)


async def test_bindings_past_their_end_are_deleted_late_and_followers_forget_them(
    db: Database,
) -> None:
    now = now_us()
    given = [
        Binding(ISSUER, "long ago", Role.SUBMITTER, "cms", expires_us=now - 2 * DAY_US),
        Binding(ISSUER, "just now", Role.SUBMITTER, "cms", expires_us=now - 1000),
        Binding(ISSUER, "to come", Role.SUBMITTER, "cms", expires_us=now + DAY_US),
        Binding(ISSUER, "never", Role.SUBMITTER, "cms"),
    ]
    before = await db.write(lambda c: store.change_policy(c, added=given, now_us=now))
    settings = AuthorizationSettings(keep_ended_bindings_days=1)
    assert await Retention(settings, db).prune() == 1
    stored = (await db.read(store.read_policy)).policy
    assert {binding.subject for binding in stored.bindings} == {"just now", "to come", "never"}
    (change,) = await db.read(lambda c: store.read_changes(c, before, before + 1)) or ()
    assert [binding.subject for binding in change.removed_bindings] == ["long ago"]
    assert await Retention(settings, db).prune() == 0
    assert (await db.read(store.read_state)).revision == before + 1


def entry(time_us: int, **given: Any) -> AuditEntry:
    principal = ADA.to_json()
    texts = dict.fromkeys(
        ("service", "method", "resource", "vo", "reason", "permission", "rule", "trace_id", "peer"),
        "",
    )
    return AuditEntry(
        **{
            **texts,
            "uid": uuid7_floor(time_us // 1000),
            "time_us": time_us,
            "principal": principal,
            "actor": "ada",
            "status": None,
            "before_json": None,
            "after_json": None,
            "policy_revision": 1,
            **given,
        }
    )


async def test_the_audit_and_request_ids_are_kept_as_long_as_they_must(db: Database) -> None:
    now = now_us()
    old, young = entry(now - 401 * DAY_US), entry(now - 399 * DAY_US)
    keys = [
        RequestKey("a|b", "m", uuid7_floor((now - days * DAY_US) // 1000), "x:y")
        for days in (31, 29)
    ]

    def write(conn: Connection) -> None:
        audit.append(conn, AUDIT, [old, young])
        request_ids.remember(conn, REQUEST_ID, [(key, "vos/x") for key in keys])

    await db.write(write)
    assert await Retention(AuthorizationSettings(), db).prune() == 1
    assert await db.read(lambda c: audit_reading.visible(c, AUDIT, old.uid, EVERYTHING)) is None
    assert await db.read(lambda c: audit_reading.visible(c, AUDIT, young.uid, EVERYTHING)) == young
    gone, kept = await db.read(lambda c: request_ids.claim(c, REQUEST_ID, keys))
    assert (gone, kept) == (request_ids.New(), request_ids.Replay("vos/x"))


# --- indexes --------------------------------------------------------------------------------------


@pytest.fixture
async def sqlite_db(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(sqlite_url(tmp_path / "plans.sqlite")) as database:
        yield database


OWN = Visibility(owner=ADA.owner)
VO_MANAGER = Visibility(owner=ADA.owner, vos=frozenset({"cms", "atlas"}))
CHANNEL_MANAGER = Visibility(owner=ADA.owner, channels=frozenset({"uid-1", "uid-2"}))
KEY = "ix_role_binding_"


@pytest.mark.parametrize(
    ("visibility", "asked", "index"),
    [
        (EVERYTHING, "", f"{KEY}uid"),
        (EVERYTHING, "subject = a", f"{KEY}subject_uid"),
        (EVERYTHING, "group = /cms", f"{KEY}issuer_subject_uid"),
        (EVERYTHING, "issuer = i AND subject = a", f"{KEY}issuer_subject_uid"),
        (EVERYTHING, "role = ADMIN", f"{KEY}role_uid"),
        (EVERYTHING, "vo = cms", f"{KEY}vo_uid"),
        (EVERYTHING, "vo = cms AND role = ADMIN", f"{KEY}vo_role_uid"),
        (EVERYTHING, "channel_uid = x", f"{KEY}channel_uid_uid"),
        (OWN, "", f"{KEY}issuer_subject_uid"),
        (VO_MANAGER, "", f"{KEY}vo_uid"),
        (CHANNEL_MANAGER, "", f"{KEY}channel_uid_uid"),
    ],
)
async def test_a_listing_of_bindings_goes_by_its_index_and_sorts_nothing(
    sqlite_db: Database, visibility: Visibility, asked: str, index: str
) -> None:
    filter_ = roles.FILTER.parse(asked)
    page = page_request(bindings.NEWEST_FIRST, page_size=5, page_token="", binding=())
    plan = await sqlite_db.read(
        lambda conn: plans(
            conn, lambda c: bindings.page(c, visibility, ADA, filter_, page, now_us())
        )
    )
    assert f"INDEX {index} " in f"{plan} ".replace("\n", " ")
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("visibility", "asked", "index"),
    [
        (EVERYTHING, "", "sqlite_autoindex_audit_entry_1"),
        (EVERYTHING, "actor = a", "ix_audit_entry_actor_uid"),
        (EVERYTHING, "resource = a", "ix_audit_entry_resource_uid"),
        (EVERYTHING, "method = a", "ix_audit_entry_method_uid"),
        (EVERYTHING, "vo = cms", "ix_audit_entry_vo_uid"),
        (VO_MANAGER, "", "ix_audit_entry_vo_uid"),
        (VO_MANAGER, "vo = cms", "ix_audit_entry_vo_uid"),
    ],
)
async def test_a_listing_of_the_audit_goes_by_its_index_and_sorts_nothing(
    sqlite_db: Database, visibility: Visibility, asked: str, index: str
) -> None:
    filter_ = audit_reading.FILTER.parse(asked)
    window = audit_reading.Window(now_us() - DAY_US, now_us())
    order = audit_reading.newest_first(AUDIT)
    page = page_request(order, page_size=5, page_token="", binding=())

    def look(conn: Connection) -> object:
        return audit_reading.page(conn, AUDIT, visibility, filter_, window, page)

    plan = await sqlite_db.read(lambda conn: plans(conn, look))
    assert index in plan
    assert "TEMP B-TREE" not in plan


async def test_vos_and_groups_are_listed_in_the_order_of_their_keys(sqlite_db: Database) -> None:
    by_name = page_request(vos.BY_NAME, page_size=5, page_token="", binding=())

    def look(conn: Connection) -> str:
        return "\n".join(
            (
                plans(conn, lambda c: vos.page(c, EVERYTHING, by_name)),
                plans(conn, lambda c: vos.page(c, VO_MANAGER, by_name)),
                plans(conn, lambda c: groups.page(c, "cms", by_name)),
            )
        )

    plan = await sqlite_db.read(look)
    assert "sqlite_autoindex_vo_group_1" in plan
    assert "TEMP B-TREE" not in plan
