"""Eight writers of a process that keep a counter and a rule over rows.

Usage: rule_child.py URL ISOLATION. Says "ready", waits for a line, then each writer adds one to a
counter and takes one out of the money if all rows together have some, as often as ROUNDS says.
Prints how much they took. ISOLATION shows what the kit's own is for.
"""

import asyncio
import sys

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from gridlane.ids import uuid7
from gridlane_kit import postgresql
from gridlane_kit.database import Database, service_metadata

ACCOUNT = Table(
    "account",
    MetaData(),
    Column("name", String(36), primary_key=True),
    Column("balance", Integer, nullable=False),
)
ROUNDS = 4
COUNTER = ACCOUNT.c.name == "counter"
MONEY = select(func.sum(ACCOUNT.c.balance)).where(ACCOUNT.c.name != "counter")


def count(conn: Connection) -> None:
    now = conn.execute(select(ACCOUNT.c.balance).where(COUNTER)).scalar_one()
    conn.execute(update(ACCOUNT).where(COUNTER).values(balance=now + 1))


def take(conn: Connection) -> bool:
    if conn.execute(MONEY).scalar_one() <= 0:
        return False
    # A row of its own: two who take at the same time touch no common row.
    conn.execute(insert(ACCOUNT).values(name=uuid7(), balance=-1))
    return True


async def main(url: str, isolation: str) -> None:
    postgresql._TRY_FOR_S = 30.0  # type: ignore[misc]  # 16 writers of one row are many
    db = await Database.open(url, metadata=service_metadata(), migrations=None, migrate=True)
    assert isinstance(db, postgresql.PostgresqlDatabase)
    db._writer = db._engine.execution_options(isolation_level=isolation)

    async def writer() -> int:
        took = 0
        for _ in range(ROUNDS):
            await db.write(count)
            took += await db.write(take)
        return took

    print("ready", flush=True)
    sys.stdin.readline()
    took = sum(await asyncio.gather(*(writer() for _ in range(8))))
    await db.close()
    print(took)


asyncio.run(main(sys.argv[1], sys.argv[2]))
