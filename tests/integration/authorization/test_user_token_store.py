"""What time does to users' tokens that are stored, and the indexes that their listings go by."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.authorization.test_upkeep import ADA, DAY_US, opened
from query_plans import plans
from sqlalchemy import Connection

from gridlane.ids import uuid7
from gridlane_authorization import store, user_tokens
from gridlane_authorization.retention import Retention
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import user_tokens as rows
from gridlane_authorization.store.user_tokens import StoredToken
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import EVERYTHING, Visibility
from gridlane_kit.filters import Filter
from gridlane_kit.identity import Principal
from gridlane_kit.pages import page_request
from gridlane_kit.sqlite import sqlite_url

PAGE = page_request(rows.NEWEST_FIRST, page_size=5, page_token="", binding=())


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


def token(ends_in_days: float, principal: Principal = ADA, exchanged_for: str = "") -> StoredToken:
    now = now_us()
    ends = now + round(ends_in_days * DAY_US)
    return StoredToken(uuid7(), principal, ADA, "us", now, ends, exchanged_for=exchanged_for)


async def kept(db: Database, *tokens: StoredToken) -> None:
    def write(conn: Connection) -> None:
        for each in tokens:
            rows.insert_one(conn, each)

    await db.write(write)


async def test_tokens_that_ended_are_listed_for_thirty_days(db: Database) -> None:
    gone, old, good = token(-31), token(-29), token(1)
    await kept(db, gone, old, good)
    assert await Retention(AuthorizationSettings(), db).prune() == 1
    listed, _ = await db.read(lambda c: rows.page(c, EVERYTHING, Filter(), PAGE))
    assert listed == [good, old]


async def test_the_policy_has_the_revoked_tokens_that_have_not_ended(db: Database) -> None:
    ended, lost, good = token(-1), token(1), token(1)
    await kept(db, ended, lost, good)
    for each in (ended, lost):
        await db.write(lambda c, t=each: rows.revoke(c, t, now_us()))  # type: ignore[misc]
    policy = (await db.read(store.read_policy)).policy
    assert policy.revoked == {lost.jti: lost.expires_us}


async def test_what_another_identity_exchanged_does_not_end_with_a_token_of_the_same_id(
    db: Database,
) -> None:
    """An outside issuer may have given one of its tokens the id of one of ours."""
    stranger = Principal("https://elsewhere.test/", "ada")
    first = token(1)
    ours, theirs = (token(1, who, first.jti) for who in (ADA, stranger))
    await kept(db, first, ours, theirs)
    ended = await db.write(lambda c: rows.revoke(c, first, now_us()))
    assert ended.keys() == {first.jti, ours.jti}


@pytest.mark.parametrize(
    ("visibility", "asked", "index"),
    [
        (EVERYTHING, "", "sqlite_autoindex_user_token_1"),
        (EVERYTHING, "subject = ada", "ix_user_token_subject_jti"),
        (Visibility(owner=ADA.owner), "", "ix_user_token_owner_jti"),
    ],
)
async def test_a_listing_of_tokens_goes_by_its_index_and_sorts_nothing(
    tmp_path: Path, visibility: Visibility, asked: str, index: str
) -> None:
    filter_ = user_tokens.FILTER.parse(asked)
    async with opened(sqlite_url(tmp_path / "plans.sqlite")) as database:
        plan = await database.read(
            lambda conn: plans(conn, lambda c: rows.page(c, visibility, filter_, PAGE))
        )
    assert index in plan
    assert "TEMP B-TREE" not in plan
