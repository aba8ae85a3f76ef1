"""How many tokens one user may have by exchange, over the wire; on each engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from integration.authorization.policy_office import Caller, Office, office
from integration.authorization.test_upkeep import ADA, DAY_US, opened
from query_plans import plans
from sqlalchemy import Connection

from gridlane.authorization.v1.token_service_pb2 import ExchangeTokenRequest, RevokeTokenRequest
from gridlane.ids import uuid7, uuid7_floor
from gridlane_authorization.store import user_tokens as rows
from gridlane_authorization.store.user_tokens import StoredToken
from gridlane_kit.clock import now_us
from gridlane_kit.identity import Principal
from gridlane_kit.sqlite import sqlite_url

MOST = 3
HOUR_US = 3_600_000_000
SIX_HOURS_S = 21_600
EXCHANGE = ExchangeTokenRequest()

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Office]:
    limited = office(database_url, max_exchanged_tokens=MOST)
    async with asyncio.timeout(60), limited as replica:
        yield replica


async def exchanged(who: Caller) -> str:
    made = await who(who.tokens.ExchangeToken, EXCHANGE)
    return str(made.resource.name)


async def test_no_user_has_more_tokens_by_exchange_than_it_may(served: Office) -> None:
    ada, bob = served.caller("ada"), served.caller("bob")
    names = [await exchanged(ada) for _ in range(MOST)]
    # What is revoked, or has ended, counts all the same: its row is kept.
    await ada(ada.tokens.RevokeToken, RevokeTokenRequest(name=names[0]))
    refused = await ada.refused(ada.tokens.ExchangeToken, EXCHANGE)
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert refused.metadata == {"limit": "exchanged tokens"}
    assert f"had {MOST} tokens" in refused.message
    assert "max_exchanged_tokens" in refused.message
    await exchanged(bob)
    # By the limit, not by the way: with another token of its own it is the same user.
    again = served.caller("ada", "cms")
    assert await again.reason(again.tokens.ExchangeToken, EXCHANGE) == "OVERLOADED"


async def test_who_had_too_many_is_told_when_to_come_again(served: Office) -> None:
    ada = served.caller("ada")
    for _ in range(MOST):
        await exchanged(ada)
    with pytest.raises(aio.AioRpcError) as caught:
        await exchanged(ada)
    raw = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    again = error_details_pb2.RetryInfo()
    assert isinstance(raw, bytes)
    assert any(detail.Unpack(again) for detail in status_pb2.Status.FromString(raw).details)
    assert SIX_HOURS_S - 120 < again.retry_delay.seconds <= SIX_HOURS_S


async def test_those_who_exchange_at_once_have_no_more_together(served: Office) -> None:
    ada = served.caller("ada")
    tries = await asyncio.gather(*(exchanged(ada) for _ in range(10)), return_exceptions=True)
    had = [name for name in tries if isinstance(name, str)]
    refused = [error.code().name for error in tries if isinstance(error, aio.AioRpcError)]
    assert len(set(had)) == MOST
    assert refused == ["RESOURCE_EXHAUSTED"] * (10 - MOST)


async def test_what_is_past_or_was_made_for_the_user_does_not_count(
    served: Office, database_url: str
) -> None:
    now = now_us()
    owner = Principal(served.signer.issuer, "ada")

    def token(hours_ago: float, parent: str) -> StoredToken:
        made = now - round(hours_ago * HOUR_US)
        jti = uuid7_floor(made // 1000)[:-12] + uuid7()[-12:]
        return StoredToken(jti, owner, owner, "us", made, made + HOUR_US, exchanged_for=parent)

    def fill(conn: Connection) -> None:
        for each in (token(6.1, "a"), token(7, "a"), token(1, ""), token(2, ""), token(5.9, "a")):
            rows.insert_one(conn, each)

    async with opened(database_url) as db:
        await db.write(fill)
    ada = served.caller("ada")
    for _ in range(MOST - 1):
        await exchanged(ada)
    assert await ada.reason(ada.tokens.ExchangeToken, EXCHANGE) == "OVERLOADED"


async def test_what_a_user_had_is_found_by_an_index(tmp_path: Path) -> None:
    async with opened(sqlite_url(tmp_path / "plans.sqlite")) as db:
        since = now_us() - DAY_US
        found = await db.read(
            lambda conn: plans(conn, lambda c: rows.exchanged_since(c, ADA.owner, since, 10))
        )
    assert "ix_user_token_owner_jti (owner=? AND jti>?)" in found
    assert "TEMP B-TREE" not in found
