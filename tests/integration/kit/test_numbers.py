"""Numbers are given once, and giving them holds nobody up."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain

from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, insert

from gridlane_kit.database import Database, only_on, service_metadata
from gridlane_kit.numbers import Numbers

METADATA = service_metadata()
COUNTER = Table(
    "counter",
    METADATA,
    Column("name", String(50), primary_key=True),
    Column("last", BigInteger, nullable=False),
    info=only_on("sqlite"),
)
JOBS = Numbers(METADATA, "job_number", last=COUNTER.c.last, row={"name": "job", "last": 0})
FILES = Numbers(METADATA, "file_number", last=COUNTER.c.last, row={"name": "file", "last": 0})
JOB = Table("job", METADATA, Column("number", Integer, primary_key=True, autoincrement=False))

OpenDatabase = Callable[..., Awaitable[Database]]


async def test_a_series_begins_with_one_and_each_has_its_own(open_database: OpenDatabase) -> None:
    db = await open_database(METADATA)
    assert list(await db.write(lambda conn: JOBS.take(conn, 3))) == [1, 2, 3]
    assert list(await db.write(lambda conn: FILES.take(conn, 2))) == [1, 2]
    assert list(await db.write(lambda conn: JOBS.take(conn, 0))) == []
    assert list(await db.write(lambda conn: JOBS.take(conn, 1))) == [4]


async def test_submissions_side_by_side_get_numbers_of_their_own_and_do_not_meet(
    open_database: OpenDatabase, database_url: str
) -> None:
    db = await open_database(METADATA)
    runs = 0

    def submit(conn: Connection) -> list[int]:
        nonlocal runs
        runs += 1
        numbers = list(JOBS.take(conn, 5))
        conn.execute(insert(JOB), [{"number": number} for number in numbers])
        return numbers

    given = await asyncio.gather(*(db.write(submit) for _ in range(40)))
    assert sorted(chain.from_iterable(given)) == list(range(1, 201))
    assert all(numbers == sorted(numbers) for numbers in given)
    assert runs == 40, "none had to be run again"
