"""Jobs that remove files where something is in their way: bans, limits, cancels, lost processes."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from gridlane.transfer.v1 import (
    deletion_pb2,
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
)
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane_transfer.states import FileState
from gridlane_transfer.store import queues, sweeps
from gridlane_transfer.store.removals import RemovalRequest
from gridlane_transfer.store.tables import FILE

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


def removal(client: Any, *names: str) -> Any:
    files = [deletion_pb2.DeletionFile(file=name) for name in names]
    return client.jobs.SubmitDeletionJob(rpc.SubmitDeletionJobRequest(files=files))


async def claimed(house: Any, holder: str, limit: int, ttl_s: float) -> Any:
    """Has files claimed for removal, as a process does."""
    parts = house.room._started
    request = RemovalRequest(limit, holder, timedelta(seconds=ttl_s), house.policy.current)
    (found,) = await parts.db.write(
        lambda conn: parts.verbs.removals._removing.claim(conn, [request])
    )
    return found


async def test_what_waits_for_a_ban_has_not_begun_and_is_counted_for_it(
    house: Any, words: Any
) -> None:
    ban = storage_ban_pb2.StorageBan(
        action=storage_ban_pb2.BAN_ACTION_WAIT, accept_submissions=True, reason="being repaired"
    )
    admin = house.client("admin").storage_admin
    parent = "storageElements/local"
    made = await admin.BanStorage(
        storage_admin_service_pb2.BanStorageRequest(parent=parent, storage_ban=ban)
    )
    manager = house.client("max")
    job = await removal(manager, "LFN:/local/a", "LFN:/local/b")
    assert words.files(job) == ["BLOCKED", "BLOCKED"]
    assert words.job(job) == words.job(await manager.get(job.name)) == "SUBMITTED"
    listed = await admin.ListStorageBans(
        storage_admin_service_pb2.ListStorageBansRequest(parent=parent)
    )
    assert [one.affected_files for one in listed.storage_bans] == [2]
    await admin.UnbanStorage(storage_admin_service_pb2.UnbanStorageRequest(name=made.name))
    assert words.job(await manager.ended(job.name)) == "FINISHED"


async def test_a_cancel_reaches_what_a_lost_process_was_removing(house: Any, words: Any) -> None:
    verbs = house.room._started.verbs
    await verbs.removals.drain()
    await verbs.sweeps.stop()
    manager = house.client("max")
    names = [f"LFN:/local/o{n}" for n in range(sweeps.PAGE + 1)]
    job = await removal(manager, *names)
    assert [one.file.n for one in await claimed(house, "lost", 1, 0)] == [1]
    await asyncio.sleep(0.01)  # its lease is over by the database's clock
    await manager.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=job.name))
    assert await claimed(house, "next", 10, 60) == []
    state = select(FILE.c.state).where(FILE.c.n == 1)
    db = house.room._started.db
    assert await db.read(lambda conn: conn.execute(state).scalar()) == FileState.CANCELED


async def test_what_is_removed_takes_no_place_of_what_is_read(house: Any) -> None:
    await house.room._started.verbs.removals.drain()
    manager = house.client("max")
    await removal(manager, "LFN:/local/a", "LFN:/local/b")
    assert len(await claimed(house, "one", 10, 60)) == 2
    running = await house.room._started.db.read(
        lambda conn: queues.running(conn, [], elements=True)
    )
    assert (running.out_of.total(), running.into.total(), running.on.total()) == (0, 0, 0)


async def test_a_new_ban_counts_the_removals_that_it_stops_and_no_others(house: Any) -> None:
    await house.room._started.verbs.removals.drain()
    await removal(house.client("max"), "LFN:/local/a", "LFN:/local/b")
    for operation, count in (
        (storage_element_pb2.STORAGE_OPERATION_READ, 0),
        (storage_element_pb2.STORAGE_OPERATION_REMOVE, 2),
    ):
        ban = storage_ban_pb2.StorageBan(
            operations=[operation], action=storage_ban_pb2.BAN_ACTION_WAIT, reason="being repaired"
        )
        made = await house.client("admin").storage_admin.BanStorage(
            storage_admin_service_pb2.BanStorageRequest(
                parent="storageElements/local", storage_ban=ban
            )
        )
        assert made.affected_files == count
