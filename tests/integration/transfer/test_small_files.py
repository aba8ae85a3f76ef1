"""Small files of a job share a place: they are claimed, moved and reported together, and each of
them ends as if it had been alone.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from integration.transfer.failing_mover import LOST
from integration.transfer.test_claims import most_at_once
from integration.transfer.test_killed import Killed, ended
from sqlalchemy import Connection, func, select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit.database import Database
from gridlane_transfer.backends.embedded.orders import BUNDLED_FILES
from gridlane_transfer.channels.scheduling import Standing
from gridlane_transfer.moving import reconciler
from gridlane_transfer.store import moving
from gridlane_transfer.store.claims import ClaimRequest
from gridlane_transfer.store.queues import places_taken, running
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


@BOTH
async def test_those_that_are_not_moved_together_are_told_of_one_by_one(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file of a slow storage does not keep back what became of those before it; those
    behind it are not begun once they are cancelled.
    """
    house = await start_house(given={"max_files": 1})
    sue = house.client("sue")
    mover, begun, go_on = house.room.mover, asyncio.Event(), asyncio.Event()
    move_bundle, ordered = mover.move_bundle, list[int]()

    async def second_held(orders: Any) -> Any:
        ordered.append(len(orders))
        if len(ordered) == 2:
            begun.set()
            await go_on.wait()
        return await move_bundle(orders)

    monkeypatch.setattr(mover, "moves_together", lambda order: False)
    monkeypatch.setattr(mover, "move_bundle", second_held)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 4))
    async with asyncio.timeout(20):
        await begun.wait()
    assert words_of(await sue.get(job.name)) == ["FINISHED", "ACTIVE", "ACTIVE", "ACTIVE"]
    await sue.jobs.CancelTransferJob(transfer_service_pb2.CancelTransferJobRequest(name=job.name))
    go_on.set()
    job = await sue.ended(job.name, seconds=30)
    first, second, *others = words_of(job)
    assert first == "FINISHED"
    assert second in ("CANCELED", "FINISHED")
    assert others == ["CANCELED", "CANCELED"]
    assert ordered == [1, 1]
    assert house.leftovers() == []


class Gate:
    """Holds what the mover of a house is given."""

    def __init__(self, mover: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.orders = 0
        self._move_bundle = mover.move_bundle
        monkeypatch.setattr(mover, "move_bundle", self._held)

    async def _held(self, orders: Any) -> Any:
        self.orders += len(orders)
        self.begun.set()
        await self.open.wait()
        return await self._move_bundle(orders)


async def channel_of(db: Database) -> str:
    """The uid of the one channel that files lie on."""
    rows = await db.read(lambda conn: conn.execute(select(FILE.c.channel_uid).distinct()).all())
    ((uid,),) = rows
    return str(uid)


@BOTH
async def test_those_whose_process_is_no_more_still_share_their_place(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 1, "poll_s": 0.2})
    sue, parts = house.client("sue"), house.room._parts
    gate = Gate(house.room.mover, monkeypatch)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 20))
    async with asyncio.timeout(20):
        await gate.begun.wait()
    uid = await channel_of(parts.db)
    request = ClaimRequest(
        parts.channels.all(),
        3,
        "another",
        timedelta(minutes=1),
        house.policy.current,
        True,
        Standing(),
        house.room.mover.bundle,
    )

    def lose(conn: Connection) -> None:
        conn.execute(update(FILE).values(lease_until_us=0))

    def claim(conn: Connection) -> Any:
        lose(conn)
        return parts._work.moving.claim(conn, [request])

    (claims,) = await parts.db.write(claim)
    assert [len(place) for place in claims.places] == [20]
    assert not claims.more_abandoned
    assert await parts.db.read(lambda conn: places_taken(conn, uid)) == 1
    gate.open.set()
    await parts.db.write(lose)
    job = await sue.ended(job.name, seconds=60)
    assert words.job(job) == "FINISHED"
    assert [file.attempt for file in job.files] == [3] * 20


@BOTH
async def test_a_place_counts_once_wherever_its_files_are_read(
    start_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 1})
    sue, db = house.client("sue"), house.room._parts.db
    gate = Gate(house.room.mover, monkeypatch)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 20))
    async with asyncio.timeout(20):
        await gate.begun.wait()
    uid = await channel_of(db)
    local, mirror = "storageElements/local", "storageElements/mirror"
    odd = update(FILE).where(FILE.c.n % 2 == 1).values(source_element=mirror)
    await db.write(lambda conn: conn.execute(odd))
    found = await db.read(lambda conn: running(conn, [], elements=True))
    assert (found.on[uid], found.out_of, found.into[local]) == (1, {local: 1, mirror: 1}, 1)
    gate.open.set()
    await sue.ended(job.name, seconds=60)


async def test_one_that_is_tried_again_while_the_others_move_takes_a_place_of_its_own(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 2, "retry_delay_s": 0.05})
    sue, db, mover = house.client("sue"), house.room._parts.db, house.room.mover
    move_bundle, held, go_on = mover.move_bundle, list[str](), asyncio.Event()
    failed: list[str] = []

    async def first_fails(orders: Any) -> Any:
        name = Path(orders[0][0].target.relative).name
        if name == "0" and not failed:
            failed.append(name)
            return [LOST]
        if name in ("0", "1"):
            held.append(name)
            await go_on.wait()
        return await move_bundle(orders)

    monkeypatch.setattr(mover, "moves_together", lambda order: False)
    monkeypatch.setattr(mover, "move_bundle", first_fails)
    files = described(house.storage / "local/in", "LFN:/local/out", 8)
    job = await sue.submit(*files, max_retries=1)
    async with asyncio.timeout(20):
        while sorted(held) != ["0", "1"]:  # when the other place has become free
            await asyncio.sleep(0.02)
    uid = await channel_of(db)
    assert await db.read(lambda conn: places_taken(conn, uid)) == 2
    go_on.set()
    assert words.job(await sue.ended(job.name, seconds=60)) == "FINISHED"


async def test_one_claim_takes_so_many_files_and_the_next_one_follows_at_once(
    start_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MOST_FILES", 10)
    house = await start_house(given={"max_files": 4, "poll_s": 600})
    sue = house.client("sue")
    gate = Gate(house.room.mover, monkeypatch)
    taken: list[int] = []
    claim = house.room._parts.reconciler._claim

    async def counted(request: Any) -> Any:
        claims = await claim(request)
        taken.append(sum(map(len, claims.places)))
        return claims

    monkeypatch.setattr(house.room._parts.reconciler, "_claim", counted)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out"))
    async with asyncio.timeout(20):
        while gate.orders < FILES:
            await asyncio.sleep(0.02)
    assert max(taken) <= BUNDLED_FILES
    gate.open.set()
    await sue.ended(job.name, seconds=60)


@BOTH
async def test_their_leases_are_renewed_some_at_a_time(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_RENEWED_TOGETHER", 7)
    house = await start_house(given={"max_files": 1, "lease_s": 5.0})
    sue, parts = house.client("sue"), house.room._parts
    gate = Gate(house.room.mover, monkeypatch)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 20))
    async with asyncio.timeout(20):
        await gate.begun.wait()
    first = select(func.min(FILE.c.lease_until_us))
    before = await parts.db.read(lambda conn: conn.execute(first).scalar_one())
    async with asyncio.timeout(20):
        while await parts.db.read(lambda conn: conn.execute(first).scalar_one()) == before:
            await asyncio.sleep(0.05)
    gate.open.set()
    job = await sue.ended(job.name, seconds=60)
    assert words.job(job) == "FINISHED"
    assert [file.attempt for file in job.files] == [1] * 20


@BOTH
async def test_a_defect_in_the_answer_of_one_keeps_no_other_from_its_end(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = moving.Moving._take
    broken: list[int] = []

    def one_breaks(self: Any, conn: Any, changes: Any, row: Any, *rest: Any) -> Any:
        if row.n == 4 and row.attempt == 1:
            broken.append(row.n)
            raise ValueError("a defect")
        return take(self, conn, changes, row, *rest)

    monkeypatch.setattr(moving.Moving, "_take", one_breaks)
    house = await start_house(given={"max_files": 1, "poll_s": 0.2, "lease_s": 5.0})
    sue = house.client("sue")
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 12))
    job = await sue.ended(job.name, seconds=60)
    assert words.job(job) == "FINISHED"
    assert broken
    assert [file.attempt for file in job.files] == [1] * 3 + [2] + [1] * 8


@pytest.fixture
def mover() -> dict[str, int]:
    """The mover as it is by default: two processes."""
    return {}


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


@BOTH
async def test_those_whose_process_is_no_more_are_taken_up_however_busy_the_server_is(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"poll_s": 0.2})
    sue, parts = house.client("sue"), house.room._parts
    gate = Gate(house.room.mover, monkeypatch)
    job = await sue.submit(*described(house.storage / "local/in", "LFN:/local/out", 1))
    async with asyncio.timeout(20):
        await gate.begun.wait()

    async def wake() -> None:
        while True:
            parts.reconciler.wake()
            await asyncio.sleep(0.01)

    waking = asyncio.create_task(wake())
    await asyncio.sleep(0.5)  # it is woken for longer than it would rest
    await parts.db.write(lambda conn: conn.execute(update(FILE).values(lease_until_us=0)))
    async with asyncio.timeout(20):
        while [file.attempt for file in (await sue.get(job.name)).files] != [2]:
            await asyncio.sleep(0.02)
    assert waking.cancel(), "it has ended"
    gate.open.set()
    assert words.job(await sue.ended(job.name)) == "FINISHED"


@BOTH
async def test_what_the_catalogue_knows_to_be_small_shares_a_place_too(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"max_files": 1})
    sue, files = house.client("sue"), 40
    for n in range(files):
        await sue.put(f"LFN:/local/in/{n}", content(n))
    mirror = house.mirror / "local/out"
    pairs = [(f"LFN:/local/in/{n}", (mirror / str(n)).as_uri()) for n in range(files)]
    job = await sue.ended((await sue.submit(*pairs)).name, seconds=60)
    assert words.job(job) == "FINISHED"
    assert there(mirror) == {str(n): content(n) for n in range(files)}
    assert await house.room._parts.db.read(most_at_once) > files / 2


@BOTH
async def test_a_copy_of_another_size_than_the_catalogue_says_is_not_taken_for_the_file(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"max_files": 1})
    sue = house.client("sue")
    for n in range(3):
        await sue.put(f"LFN:/local/in/{n}", content(n))
    (house.storage / "local/in/1").write_bytes(content(1) + b"more")
    mirror = house.mirror / "local/out"
    pairs = [(f"LFN:/local/in/{n}", (mirror / str(n)).as_uri()) for n in range(3)]
    # Its checksum is not looked at.
    job = await sue.submit(*pairs, verify=transfer_job_pb2.VERIFY_MODE_NONE)
    job = await sue.ended(job.name, seconds=60)
    assert words_of(job) == ["FINISHED", "FAILED", "FINISHED"]
    assert words.failure(job, 1) == "CHECKSUM_MISMATCH"
    assert there(mirror) == {"0": content(0), "2": content(2)}


def kills(mover: Any, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Has some files kill the worker that moves them, each time, and all that are moved with
    them.
    """
    move_bundle = mover.move_bundle

    async def killed(orders: Any) -> Any:
        if any(Path(order.target.relative).name in names for order, _ in orders):
            for pid in mover.pids:
                os.kill(pid, signal.SIGKILL)
        return await move_bundle(orders)

    monkeypatch.setattr(mover, "move_bundle", killed)


@BOTH
async def test_a_lost_worker_costs_none_of_several_a_retry_but_who_loses_it_alone(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 1, "workers": 1})
    sue = house.client("sue")
    kills(house.room.mover, monkeypatch, "3")
    files = described(house.storage / "local/in", "LFN:/local/out", 8)
    job = await sue.submit(*files, max_retries=0)
    job = await sue.ended(job.name, seconds=60)
    assert words_of(job) == ["FINISHED"] * 3 + ["FAILED"] + ["FINISHED"] * 4
    assert words.failure(job, 3) == "BACKEND_LOST"
    # Together, and each alone: whoever is guilty pays then, and nothing goes on for ever.
    assert [file.attempt for file in job.files] == [2] * 8
    assert house.leftovers() == []


async def test_one_alone_pays_for_its_worker_from_the_first_time_on(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 1, "workers": 1})
    kills(house.room.mover, monkeypatch, "0")
    files = described(house.storage / "local/in", "LFN:/local/out", 1)
    job = await house.client("sue").submit(*files, max_retries=1)
    job = await house.client("sue").ended(job.name, seconds=60)
    assert (words.job(job), words.failure(job)) == ("FAILED", "BACKEND_LOST")
    assert job.files[0].attempt == 2
