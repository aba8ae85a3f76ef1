"""Small files of a job share a place: they are claimed, moved and reported together, and each of
them ends as if it had been alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from integration.transfer.test_claims import most_at_once
from integration.transfer.test_killed import Killed, ended
from sqlalchemy import func, select

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_transfer.store.queues import places_taken
from gridlane_transfer.store.tables import FILE, FILE_ATTEMPT

BOTH = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
FILES = 150
ATTEMPTS = select(func.count()).select_from(FILE_ATTEMPT)


def content(n: int) -> bytes:
    return b"%d," % n * 100


def described(folder: Path, into: str, files: int = FILES) -> list[Any]:
    """Files with their sizes; made below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(files):
        (folder / str(n)).write_bytes(content(n))
    return [
        transfer_job_pb2.FileTransfer(
            source=(folder / str(n)).as_uri(), target=f"{into}/{n}", size_bytes=len(content(n))
        )
        for n in range(files)
    ]


def words_of(job: Any) -> list[str]:
    name = transfer_job_pb2.FileTransferState.Name
    return [name(file.state).removeprefix("FILE_TRANSFER_STATE_") for file in job.files]


def there(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@BOTH
async def test_they_share_a_place(start_house: Any, words: Any) -> None:
    house = await start_house(given={"max_files": 1})
    sue = house.client("sue")
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out"))
    job = await sue.ended(job.name, seconds=60)
    assert words.job(job) == "FINISHED"
    assert there(house.storage / "local/out") == {str(n): content(n) for n in range(FILES)}
    db = house.room._parts.db
    assert await db.read(lambda conn: conn.execute(ATTEMPTS).scalar_one()) == FILES
    assert await db.read(most_at_once) > FILES / 10
    assert house.leftovers() == []


@BOTH
async def test_each_of_them_ends_by_itself(start_house: Any, words: Any) -> None:
    house = await start_house(given={"max_files": 1, "retry_delay_s": 0.05})
    sue = house.client("sue")
    files = described(house.storage / "local/in", "LFN:/local/out", 6)
    (house.storage / "local/in/1").unlink()
    house.file("local/out/3", b"was there before")
    files[4].checksum.value = "00000001"
    files[4].checksum.type = 1
    job = await sue.submit(*files, max_retries=0)
    job = await sue.ended(job.name, seconds=60)
    assert words.job(job) == "PARTIALLY_FINISHED"
    assert [word == "FINISHED" for word in words_of(job)] == [n not in (1, 3, 4) for n in range(6)]
    assert there(house.storage / "local/out") == {
        "3": b"was there before",
        **{str(n): content(n) for n in (0, 2, 5)},
    }
    assert house.leftovers() == []


@BOTH
async def test_while_they_move_one_place_is_taken_and_a_cancel_ends_them(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 1})
    sue = house.client("sue")
    parts = house.room._parts
    mover, begun, go_on = house.room.mover, asyncio.Event(), asyncio.Event()
    move_bundle = mover.move_bundle

    async def held(orders: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await move_bundle(orders)

    monkeypatch.setattr(mover, "move_bundle", held)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 20))
    async with asyncio.timeout(20):
        await begun.wait()
    (uid,) = {
        uid for (uid,) in await parts.db.read(lambda conn: conn.execute(select(FILE.c.channel_uid)))
    }
    assert words_of(await sue.get(job.name)) == ["ACTIVE"] * 20
    assert await parts.db.read(lambda conn: places_taken(conn, uid)) == 1
    await sue.jobs.CancelTransferJob(transfer_service_pb2.CancelTransferJobRequest(name=job.name))
    go_on.set()
    job = await sue.ended(job.name, seconds=30)
    # What had begun to move before it heard of the cancel may be there.
    assert set(words_of(job)) <= {"CANCELED", "FINISHED"}
    assert await parts.db.read(lambda conn: places_taken(conn, uid)) == 0
    assert house.leftovers() == []


@pytest.fixture
async def killed(
    tmp_path: Path, connect: Callable[[aio.Channel, str], Any]
) -> AsyncIterator[Killed]:
    (tmp_path / "storage/local").mkdir(parents=True)
    (tmp_path / "jobs").mkdir()
    server = Killed(tmp_path, connect)
    yield server
    await server.close()


@pytest.mark.parametrize(
    "point",
    [
        "transfer.claim.committed",
        "transfer.copy.ordered",
        "transfer.copy.published",
        "transfer.report.committed",
    ],
)
async def test_killed_while_they_move_each_ends_once(killed: Killed, point: str) -> None:
    await killed.start(point)
    storage = killed.root / "storage/local"
    files, request_id = described(storage / "in", "LFN:/local/out"), uuid7()
    job = await killed.insist(
        lambda: killed.client.submit(*files, max_retries=0, request_id=request_id)
    )
    job = await ended(killed, job.name)
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job.failure
    assert there(storage / "out") == {str(n): content(n) for n in range(FILES)}
    history = await killed.insist(lambda: killed.client.history(job.name))
    assert history.count("job FINISHED") == 1
    assert history.count("file FINISHED") == FILES
    assert (killed.log.read_text().split(), killed.starts) == ([point], 2)
