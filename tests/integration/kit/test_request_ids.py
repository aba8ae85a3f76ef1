"""Request ids: a call that creates is executed once, whoever sends it however often."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from sqlalchemy import Column, Connection, String, Table, func, select

from gridlane.ids import uuid7, uuid7_floor
from gridlane_kit import errors
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.request_ids import (
    Conflict,
    New,
    Replay,
    RequestKey,
    SameAs,
    check,
    claim,
    digest,
    purge,
    remember,
    request_id_table,
)

METADATA = service_metadata()
REQUEST_ID = request_id_table(METADATA)
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("content", String(20), nullable=False),
)

DAY_MS = 24 * 3600 * 1000
OpenDatabase = Callable[..., Awaitable[Database]]


@dataclass(frozen=True)
class Submission:
    """What a handler queues: the resource it would create, and the request it came by."""

    uid: str
    content: str
    key: RequestKey | None


def submission(content: str, request_id: str | None, owner: str = "iss|me") -> Submission:
    key = None
    if request_id is not None:
        key = RequestKey(owner, "Submit", request_id, f"tag:{content}")
    return Submission(uuid7(), content, key)


def submit(conn: Connection, entries: Sequence[Submission]) -> list[str | Exception]:
    """A store's function as services write it; content "refused" breaks a rule."""
    answers: list[str | Exception] = []
    created: list[Submission] = []
    for entry, found in zip(
        entries, claim(conn, REQUEST_ID, [entry.key for entry in entries]), strict=True
    ):
        match found:
            case Replay(resource):
                answers.append(resource)
            case SameAs(index):
                answers.append(answers[index])
            case Conflict():
                answers.append(errors.request_id_reused())
            case New() if entry.content == "refused":
                answers.append(errors.precondition("item", "refused"))
            case New():
                created.append(entry)
                answers.append(f"items/{entry.uid}")
    insert_rows(conn, ITEM, [{"uid": e.uid, "content": e.content} for e in created])
    remember(conn, REQUEST_ID, [(e.key, f"items/{e.uid}") for e in created if e.key is not None])
    return answers


def count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(ITEM)).scalar_one()


async def test_the_same_request_again_answers_with_the_same_resource(
    open_database: OpenDatabase,
) -> None:
    db = await open_database(METADATA)
    request_id = uuid7()
    (first,) = await db.write(lambda c: submit(c, [submission("a", request_id)]))
    (again,) = await db.write(lambda c: submit(c, [submission("a", request_id)]))
    assert again == first
    assert await db.read(count) == 1


async def test_other_content_under_the_same_id_is_a_conflict(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    request_id = uuid7()
    await db.write(lambda c: submit(c, [submission("a", request_id)]))
    (other,) = await db.write(lambda c: submit(c, [submission("b", request_id)]))
    assert isinstance(other, GridlaneError)
    assert other.reason is ErrorReason.REQUEST_ID_REUSED
    assert await db.read(count) == 1


async def test_an_id_belongs_to_its_owner_and_method(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    request_id = uuid7()
    mine, theirs = await db.write(
        lambda c: submit(c, [submission("a", request_id), submission("b", request_id, "iss|you")])
    )
    assert mine != theirs
    assert await db.read(count) == 2


async def test_twice_in_one_batch_is_executed_once(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    request_id = uuid7()
    contents = ["a", "a", "b", "a"]
    first, second, conflict, fourth = await db.write(
        lambda c: submit(c, [submission(content, request_id) for content in contents])
    )
    assert first == second == fourth
    assert isinstance(conflict, GridlaneError)
    assert await db.read(count) == 1


async def test_what_was_refused_is_judged_again(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    request_id = uuid7()
    for _ in range(2):
        first, second = await db.write(lambda c: submit(c, [submission("refused", request_id)] * 2))
        assert isinstance(first, GridlaneError)
        assert second is first
    (now,) = await db.write(lambda c: submit(c, [submission("a", request_id)]))
    assert isinstance(now, str)


async def test_calls_without_an_id_are_always_new(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    await db.write(lambda c: submit(c, [submission("a", None), submission("a", None)]))
    assert await db.read(count) == 2


async def test_sixty_callers_with_one_id_get_one_resource_through_group_commit(
    open_database: OpenDatabase,
) -> None:
    db = await open_database(METADATA)
    group = GroupCommit(db, max_batch=7)
    kind = group.kind("items.submit", submit, key=lambda entry: entry.uid)
    await group.start()
    request_id = uuid7()
    answers = await asyncio.gather(*(kind(submission("a", request_id)) for _ in range(60)))
    assert len(set(answers)) == 1
    assert await db.read(count) == 1
    await group.drain()


async def test_a_digest_of_another_tag_never_yields_a_conflict(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    old = RequestKey("iss|me", "Submit", uuid7(), "5.29:abcd:111")
    new = RequestKey("iss|me", "Submit", old.request_id, "6.30:abcd:222")
    await db.write(lambda c: remember(c, REQUEST_ID, [(old, "items/1")]))
    assert await db.read(lambda c: claim(c, REQUEST_ID, [new])) == [Replay("items/1")]


def test_a_digest_is_of_the_content_and_tagged_with_runtime_and_schema() -> None:
    one, same, other = struct_pb2.Struct(), struct_pb2.Struct(), struct_pb2.Struct()
    names = [f"field{number}" for number in range(20)]
    for name in names:
        one[name] = 1
    for name in reversed(names):
        same[name] = 1
        other[name] = 2
    assert digest(one) == digest(same)
    tag, _, content = digest(one).rpartition(":")
    other_tag, _, other_content = digest(other).rpartition(":")
    assert tag == other_tag
    assert content != other_content
    assert digest(timestamp_pb2.Timestamp()).rpartition(":")[0] != tag


@pytest.mark.parametrize(
    ("age_days", "reason"),
    [
        (0, None),
        (29.9, None),
        (30.1, ErrorReason.REQUEST_ID_TOO_OLD),
        (-0.9, None),
        (-1.1, ErrorReason.INVALID_FIELDS),
    ],
)
def test_ids_are_good_for_30_days(age_days: float, reason: ErrorReason | None) -> None:
    now = now_us()
    request_id = uuid7_floor(int(now / 1000 - age_days * DAY_MS))
    if reason is None:
        check(request_id, now)
        return
    with pytest.raises(GridlaneError) as caught:
        check(request_id, now)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "text",
    ["", "1", "6f1c2b8e-0000-4000-8000-000000000000", "019330D6-3F5A-7C00-8000-00000000000A"],
)
def test_what_is_no_uuid7_is_refused(text: str) -> None:
    with pytest.raises(GridlaneError) as caught:
        check(text, now_us())
    assert caught.value.reason is ErrorReason.INVALID_FIELDS


async def test_purging_forgets_only_what_is_refused_anyway(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    now = now_us()
    ages = [0, 29, 30.01, 31, 400, -0.5]
    ids = [uuid7_floor(int(now / 1000 - days * DAY_MS)) for days in ages]
    keys = [RequestKey("iss|me", "Submit", request_id, "t:1") for request_id in ids]
    await db.write(lambda c: remember(c, REQUEST_ID, [(key, "items/1") for key in keys]))
    # An hour of margin for calls that were checked and wait to be written.
    assert await db.write(lambda c: purge(c, REQUEST_ID, now)) == 2
    claims = await db.read(lambda c: claim(c, REQUEST_ID, keys))
    assert [type(found) for found in claims] == [Replay, Replay, Replay, New, New, Replay]
