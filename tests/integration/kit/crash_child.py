"""A small service's writer in a process of its own, to be killed.

Usage: crash_child.py DATABASE_URL < request ids, one a line. Submits them, and prints
`<request id> <resource>` for each answer that a caller got, at once.
"""

import asyncio
import sys
from collections.abc import Sequence

from sqlalchemy import Column, Connection, String, Table

from gridlane.ids import uuid7
from gridlane_kit.database import Database, insert_rows, service_metadata
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.request_ids import New, Replay, RequestKey, claim, remember, request_id_table

METADATA = service_metadata()
REQUEST_ID = request_id_table(METADATA)
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("request_id", String(36), nullable=False),
)
CALLERS = 8


def submit(conn: Connection, keys: Sequence[RequestKey]) -> list[str]:
    answers: list[str] = []
    created: list[tuple[RequestKey, str]] = []
    for key, found in zip(keys, claim(conn, REQUEST_ID, keys), strict=True):
        if isinstance(found, Replay):
            answers.append(found.resource)
        else:
            assert isinstance(found, New)
            answers.append(uuid7())
            created.append((key, answers[-1]))
    insert_rows(conn, ITEM, [{"uid": uid, "request_id": key.request_id} for key, uid in created])
    remember(conn, REQUEST_ID, created)
    return answers


async def main(url: str, request_ids: list[str]) -> None:
    db = await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
    group = GroupCommit(db)
    kind = group.kind("items.submit", submit, key=lambda key: key.request_id)
    await group.start()

    async def caller(mine: list[str]) -> None:
        for request_id in mine:
            answer = await kind(RequestKey("iss|me", "Submit", request_id, "t:1"))
            print(request_id, answer, flush=True)

    await asyncio.gather(*(caller(request_ids[n::CALLERS]) for n in range(CALLERS)))
    await group.drain()
    await db.close()


asyncio.run(main(sys.argv[1], sys.stdin.read().split()))
