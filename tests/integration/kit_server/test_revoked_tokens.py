"""A revoked token in a process that is not Authorization's: refused in time, and after a start."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import raw_calls
from grpc import aio
from integration.kit_server.policy_world import (
    ADA,
    AuthorizationProcess,
    OtherReplica,
    Seen,
    Things,
    bound,
    followed,
    other_replica,
)
from integration.kit_server.served import FailureOf, Serve, Served
from sqlalchemy import Connection

from gridlane_authorization.store import policy, user_tokens
from gridlane_authorization.store.user_tokens import StoredToken
from gridlane_kit.assertions import AssertionSigner, service_jwks
from gridlane_kit.clock import now_us
from gridlane_kit.peers import EDGES
from gridlane_kit.policy import Policy, PolicyChange, PolicyHolder
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.tokens import new_key

SERVICE_KEYS = {service: new_key() for service in EDGES}
SIGNER = AssertionSigner("transfer", SERVICE_KEYS["transfer"])
IN_FORCE_S = 1.0
HOUR_US = 3_600_000_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[AuthorizationProcess, OtherReplica]]:
    """Authorization on a database in which ada is a submitter, and another replica of it."""
    url = sqlite_url(tmp_path / "authorization.sqlite")
    async with asyncio.timeout(60), other_replica(url) as replica:
        await replica.begin([bound("ada", vo="local")])
        process = AuthorizationProcess(tmp_path, url, service_jwks(SERVICE_KEYS))
        try:
            await process.start()
            yield process, replica
        finally:
            process.kill()


def jti_of(token: str) -> str:
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=="))["jti"])


async def revoke(replica: OtherReplica, jti: str) -> None:
    """Revokes a token as another replica does."""

    def write(conn: Connection) -> None:
        now = now_us()
        stored = StoredToken(jti, ADA, ADA, "gridlane", now, now + HOUR_US)
        user_tokens.insert_one(conn, stored)
        ended = user_tokens.revoke(conn, stored, now)
        policy.record(conn, PolicyChange(policy.lock(conn) + 1, revoked=ended), now)

    await replica.db.write(write)


async def chatting(served: Served, messages: Any, token: str) -> Any:
    """A stream that is open."""
    chat = raw_calls.stream_stream(served.channel, served.path("ChatThings"))
    stream = chat(metadata=served.headers(token))
    thing = messages.CreateThingRequest(thing=messages.Thing(name="things/a"))
    await stream.write(thing.SerializeToString())
    assert await stream.read()
    return stream


async def test_it_is_refused_within_a_second_and_its_streams_end_but_no_others(
    world: tuple[AuthorizationProcess, OtherReplica],
    serve: Serve,
    messages: SimpleNamespace,
    failure: FailureOf,
) -> None:
    authorization, replica = world
    served = await serve(Things(messages))
    lost, other = served.token(), served.token()
    asked = messages.CreateThingRequest(thing=messages.Thing(name="things/a", count=1))
    async with followed(authorization.address, SIGNER, served.policy):
        cut, kept = [await chatting(served, messages, token) for token in (lost, other)]
        await served.unary("CreateThing", asked, metadata=served.headers(lost))
        await revoke(replica, jti_of(lost))
        begun = time.perf_counter()
        with pytest.raises(aio.AioRpcError) as ended:
            await asyncio.wait_for(cut.read(), 10)
        assert time.perf_counter() - begun < IN_FORCE_S
        assert (ended.value.code().name, failure(ended.value).reason) == (
            "UNAUTHENTICATED",
            "TOKEN_INVALID",
        )
        refused = await served.refused("CreateThing", asked, metadata=served.headers(lost))
        assert refused.reason == "TOKEN_INVALID"
        await served.unary("CreateThing", asked, metadata=served.headers(other))
        assert served.pipeline.open_streams == 1
        kept.cancel()


async def test_who_comes_later_is_told_and_a_start_without_authorization_knows(
    world: tuple[AuthorizationProcess, OtherReplica], tmp_path: Path
) -> None:
    authorization, replica = world
    file = tmp_path / "transfer.policy"
    await revoke(replica, "the-lost-one")
    first = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, first, file=file):
        await Seen(first).until(lambda policy: "the-lost-one" in policy.revoked, 5)
    authorization.kill()
    second = PolicyHolder(Policy(0))
    async with followed(authorization.address, SIGNER, second, file=file):
        assert dict(second.current.revoked) == dict(first.current.revoked)
