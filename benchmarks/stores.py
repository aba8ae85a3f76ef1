"""Stores with many jobs, filled by the services' own insert functions.

`python -m benchmarks.stores SERVICE URL COUNT` makes a service's database with so many jobs.

Responsible for what lies in them: the oldest hundred jobs are the user's and of the rest one in a
thousand, all others belong to others in another VO: so whoever looks for the user's must not look
through all. One in five has ended. Jobs are small, have their first event and no request id; each
transfer job works for a job of its own.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy import Connection, update

from benchmarks.identity import OTHER_VO, OTHERS, PRINCIPAL, VO
from gridlane.ids import uuid7
from gridlane.transfer.v1 import event_pb2, transfer_job_pb2
from gridlane.workload.v1 import job_pb2
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.feed import Feed
from gridlane_kit.identity import Principal
from gridlane_transfer import messages
from gridlane_transfer.jobs.submission import JOB_TAG
from gridlane_transfer.room import MIGRATIONS as TRANSFER_MIGRATIONS
from gridlane_transfer.states import FileState
from gridlane_transfer.states import JobState as TransferState
from gridlane_transfer.store import channels, tables
from gridlane_transfer.store import jobs as transfer_jobs
from gridlane_workload import jobs, states, store

OLDEST_OWN: Final = 100
"""So many of the oldest jobs are the user's."""
_OWN_EVERY: Final = 1_009
_ENDED_EVERY: Final = 5
_AT_ONCE: Final = 5_000
_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
_DESCRIPTION: Final = job_pb2.JobDescription(
    display_name="fit", executors=[job_pb2.Executor(command=["python3", "fit.py"])]
)


async def _workload(url: str, count: int) -> None:
    """Makes Workload's database with so many jobs."""
    db = await Database.open(
        url, metadata=store.METADATA, migrations=store.MIGRATIONS, migrate=True
    )
    feed = Feed(db, store.FEED_TABLES)

    def insert(numbers: range, conn: Connection) -> None:
        new = [_job(number) for number in numbers]
        store.submit(conn, feed, new)
        ended = [job.uid for number, job in zip(numbers, new, strict=True) if _has_ended(number)]
        done = {"state": states.DONE, "due_us": None, "end_us": now_us()}
        conn.execute(update(store.JOB).where(store.JOB.c.uid.in_(ended)).values(done))

    await _fill(db, feed, count, insert)


async def _transfers(url: str, count: int) -> None:
    """Makes Transfer's database with so many jobs, each of one file."""
    db = await Database.open(
        url, metadata=tables.METADATA, migrations=TRANSFER_MIGRATIONS, migrate=True
    )
    feed = Feed(db, tables.FEED)
    await db.write(partial(channels.ensure_default, max_files=1))
    ((channel,), _) = await db.read(channels.read_all)

    def insert(numbers: range, conn: Connection) -> None:
        new = [_transfer(number, channel.uid) for number in numbers]
        transfer_jobs.insert(conn, new, feed=feed)

    await _fill(db, feed, count, insert)


async def _fill(
    db: Database, feed: Feed, count: int, insert: Callable[[range, Connection], None]
) -> None:
    await feed.start()
    for first in range(0, count, _AT_ONCE):
        await db.write(partial(insert, range(first, min(first + _AT_ONCE, count))))
        feed.wake()
    await feed.stop()
    await db.close()


def _owner(number: int) -> tuple[Principal, str]:
    """Who submitted a job, and for which VO."""
    if number < OLDEST_OWN or number % _OWN_EVERY == 0:
        return PRINCIPAL, VO
    return OTHERS[number % len(OTHERS)], OTHER_VO


def _has_ended(number: int) -> bool:
    return number % _ENDED_EVERY == 0


def _job(number: int) -> store.Submission:
    owner, vo = _owner(number)
    acceptance = jobs.accepting(owner, _TRACEPARENT, "", now_us())
    return jobs.accept(_DESCRIPTION, vo, acceptance, None)


def _transfer(number: int, channel: str) -> transfer_jobs.NewTransferJob:
    owner, vo = _owner(number)
    row = _transfer_row(owner, vo, ended=_has_ended(number))
    name = messages.PREFIX + row.uuid
    event = event_pb2.TransferEvent(
        event_id=uuid7(),
        time=to_timestamp(row.create_us),
        transfer_job=name,
        job=transfer_job_pb2.TransferJob(name=name, vo=vo),
    )
    source = f"file:///store/raw/{number}.csv"
    target = f"file:///store/copies/{number}.csv"
    file = transfer_jobs.NewFile(
        n=1,
        source=source,
        target=target,
        target_url=target,
        target_lfn="",
        source_element="storageElements/local",
        target_element="storageElements/local",
        checksum=None,
        size_bytes=1 << 20,
        overwrite=row.overwrite,
        state=int(FileState.FINISHED if _has_ended(number) else FileState.READY),
        channel_uid=channel,
        rank=2,
        due_us=row.create_us,
        queue=f"{vo}/",
    )
    return transfer_jobs.NewTransferJob(None, row, [file], event)


def _transfer_row(owner: Principal, vo: str, *, ended: bool) -> tables.JobRow:
    now = now_us()
    job = f"jobs/{uuid7()}"
    state = FileState.FINISHED if ended else FileState.READY
    return tables.JobRow(
        number=0,
        uuid=uuid7(),
        owner=owner.owner,
        vo=vo,
        principal=owner.to_json(),
        state=int(TransferState.FINISHED if ended else TransferState.READY),
        counts=json.dumps({str(int(state)): 1}),
        placement=False,
        overwrite=transfer_job_pb2.OVERWRITE_MODE_NEVER,
        verify=transfer_job_pb2.VERIFY_MODE_BOTH,
        max_retries=3,
        priority=3,
        tags=json.dumps({JOB_TAG: job}),
        job_tag=job,
        traceparent=_TRACEPARENT,
        failure=None,
        cancel_us=None,
        create_us=now,
        update_us=now,
        end_us=now if ended else None,
    )


_FILLS: Final = {"workload": _workload, "transfer": _transfers}

if __name__ == "__main__":
    asyncio.run(_FILLS[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
