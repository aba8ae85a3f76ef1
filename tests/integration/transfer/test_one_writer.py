"""A place has one writer at a time: whoever comes second waits, so that the catalogue never tells
of other bytes than those that lie there.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from query_plans import plans
from sqlalchemy import Connection, insert, select

from gridlane.transfer.v1 import (
    deletion_pb2,
    file_explanation_pb2,
    replica_service_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.type.v1 import explanation_pb2
from gridlane_kit.database import run_kept
from gridlane_transfer.content import uploads
from gridlane_transfer.settings import StorageElementSettings, StorageEndpointSettings
from gridlane_transfer.store import moving, places, queues
from gridlane_transfer.store.tables import FILE

BOTH = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
PLACE = "LFN:/local/place"
EARLIER, LATER = b"the earlier one", b"the later one, which has other bytes and more of them"
OVERWRITE = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
BUSY = explanation_pb2.WAIT_REASON_PREDECESSOR
# Nothing is found by looking for it now and then: whoever was waited for has others looked for.
NEVER = {"poll_s": 600}


class Gate:
    """Holds back the answers of a mover: what is written to some targets is there, and not told."""

    def __init__(self, mover: Any, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.there = asyncio.Event()
        self.open = asyncio.Event()
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._names = names
        self._move_bundle = mover.move_bundle
        monkeypatch.setattr(mover, "move_bundle", self._held)

    async def _held(self, orders: Any) -> Any:
        targets = [order.target.url for order, _ in orders]
        self._now.update(targets)
        for target in targets:
            self.most[target] = max(self.most[target], self._now[target])
        try:
            outcomes = await self._move_bundle(orders)
            if any(Path(target).name in self._names for target in targets):
                self.there.set()
                await self.open.wait()
            return outcomes
        finally:
            self._now.subtract(targets)

    async def reached(self) -> None:
        async with asyncio.timeout(20):
            await self.there.wait()


@pytest.fixture
def event(start_house: Any) -> Iterator[Callable[[], asyncio.Event]]:
    """Makes events that are set at the latest when the test has ended, before the server stops."""
    made: list[asyncio.Event] = []

    def make() -> asyncio.Event:
        made.append(asyncio.Event())
        return made[-1]

    yield make
    for one in made:
        one.set()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.02)


async def write(house: Any, content: bytes, target: str = PLACE, **fields: Any) -> str:
    """Submits a job that writes a file of its own to a place; its name."""
    source = house.file(f"local/in/{zlib.crc32(content):x}", content)
    job = await house.client("sue").submit((source, target), overwrite=OVERWRITE, **fields)
    return str(job.name)


async def remove(house: Any, file: str) -> str:
    """Submits a deletion job; its name."""
    request = transfer_service_pb2.SubmitDeletionJobRequest(
        files=[deletion_pb2.DeletionFile(file=file)]
    )
    return str((await house.client("sue").jobs.SubmitDeletionJob(request)).name)


async def explained(house: Any, name: str) -> list[int]:
    """Why the first file of a job waits."""
    request = transfer_service_pb2.ExplainTransferJobRequest(name=name)
    answer = await house.client("sue").jobs.ExplainTransferJob(request)
    explanation: file_explanation_pb2.FileExplanation = answer.files[0]
    return [one.reason for one in explanation.explanations]


async def waits(house: Any, *names: str) -> None:
    """Jobs wait for who writes, and nothing of them has begun."""
    for name in names:
        assert await explained(house, name) == [BUSY]
        assert (await house.client("sue").get(name)).files[0].attempt == 0


async def finished(house: Any, words: Any, *names: str) -> None:
    for name in names:
        job = await house.client("sue").ended(name)
        assert words.job(job) == "FINISHED", job.failure


async def registered(house: Any, lfn: str = PLACE) -> tuple[int, str] | None:
    """What the catalogue has of a file: size and checksum."""
    request = replica_service_pb2.ResolveReplicasRequest(lfns=[lfn])
    result = (await house.client("sue").replicas.ResolveReplicas(request)).results[0]
    return (result.file.size_bytes, result.file.checksum.value) if result.file.lfn else None


async def agrees(house: Any, content: bytes) -> None:
    """The bytes are these, and the catalogue says so."""
    assert (house.storage / "local/place").read_bytes() == content
    assert await registered(house) == (len(content), f"{zlib.adler32(content):08x}")
    assert house.leftovers() == []


async def refused(words: Any, call: Awaitable[Any]) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        await call
    return str(words.reason(raised.value))


@BOTH
async def test_of_two_transfers_the_later_one_waits_and_keeps_back_no_other(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 2, **NEVER})
    gate = Gate(house.room.mover, monkeypatch, "place")
    first = await write(house, EARLIER, placement=True)
    await gate.reached()
    waiting = [await write(house, LATER, placement=True) for _ in range(3)]
    # Behind them in the queue, with one place left on their channel.
    behind = await write(house, b"another", "LFN:/local/elsewhere", placement=True)
    await finished(house, words, behind)
    await waits(house, *waiting)
    gate.open.set()
    await finished(house, words, first, *waiting)
    assert max(gate.most.values()) == 1
    await agrees(house, LATER)


@BOTH
async def test_one_claim_takes_one_of_them(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch, event: Any
) -> None:
    house = await start_house(given={"max_files": 8, **NEVER})
    gate = Gate(house.room.mover, monkeypatch, "place")
    reconciler, all_there = house.room._parts.reconciler, event()
    claim = reconciler._claim

    async def late(request: Any) -> Any:
        await all_there.wait()
        return await claim(request)

    monkeypatch.setattr(reconciler, "_claim", late)
    names = [await write(house, b"%d" % n * 9, placement=True) for n in range(5)]
    behind = await write(house, b"another", "LFN:/local/elsewhere", placement=True)
    all_there.set()
    await gate.reached()
    await finished(house, words, behind)
    await waits(house, *names[1:])
    gate.open.set()
    await finished(house, words, *names)
    assert max(gate.most.values()) == 1
    await agrees(house, b"4" * 9)


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_of_two_processes_neither_takes_what_the_other_writes(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_house(given={"poll_s": 0.1})
    gate = Gate(first.room.mover, monkeypatch, "place")
    name = await write(first, EARLIER, placement=True)
    await gate.reached()
    second = await start_house(given={"poll_s": 0.1})
    later = await write(second, LATER, placement=True)
    await finished(second, words, await write(second, b"another", "LFN:/local/elsewhere"))
    monkeypatch.setattr(uploads, "_PATIENCE_S", 0.2)
    put = second.client("sue").put(PLACE, b"put", overwrite=True)
    assert await refused(words, put) == "PRECONDITION"
    await waits(second, later)
    gate.open.set()
    await finished(second, words, name, later)
    await agrees(second, LATER)


@BOTH
async def test_a_put_waits_shortly_for_a_transfer_and_never_crosses_it(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given=NEVER)
    sue, gate = house.client("sue"), Gate(house.room.mover, monkeypatch, "place")
    name = await write(house, EARLIER, placement=True)
    await gate.reached()
    patience_s = uploads._PATIENCE_S
    monkeypatch.setattr(uploads, "_PATIENCE_S", 0.2)
    assert await refused(words, sue.put(PLACE, LATER, overwrite=True)) == "PRECONDITION"
    assert (house.storage / "local/place").read_bytes() == EARLIER
    monkeypatch.setattr(uploads, "_PATIENCE_S", patience_s)
    put = asyncio.ensure_future(sue.put(PLACE, LATER, overwrite=True))
    await until(lambda: whole_upload(house))
    gate.open.set()
    await put
    await finished(house, words, name)
    await agrees(house, LATER)


async def whole_upload(house: Any) -> bool:
    """Whether the bytes of an upload have all come."""
    return any(path.stat().st_size == len(LATER) for path in house.root.rglob(".gridlane-*.part"))


@BOTH
async def test_a_transfer_waits_for_a_put_that_is_about_to_be_registered(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch, event: Any
) -> None:
    house = await start_house(given=NEVER)
    gate = Gate(house.room.mover, monkeypatch)
    open_uploads, named, go_on = house.room._parts.uploads, event(), event()
    finish = open_uploads._finish

    async def late(finished: Any) -> Any:
        named.set()
        await go_on.wait()
        return await finish(finished)

    monkeypatch.setattr(open_uploads, "_finish", late)
    put = asyncio.ensure_future(house.client("sue").put(PLACE, EARLIER, overwrite=True))
    await named.wait()
    name = await write(house, LATER, placement=True)
    await finished(house, words, await write(house, b"another", "LFN:/local/elsewhere"))
    await waits(house, name)
    go_on.set()
    await put
    await finished(house, words, name)
    assert max(gate.most.values()) == 1
    await agrees(house, LATER)


@BOTH
async def test_what_is_being_written_is_not_removed_before_it_is_registered(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given=NEVER)
    sue = house.client("sue")
    await sue.put(PLACE, b"the first")
    gate = Gate(house.room.mover, monkeypatch, "place")
    name = await write(house, EARLIER, placement=True)
    await gate.reached()
    monkeypatch.setattr(uploads, "_PATIENCE_S", 0.2)
    delete = storage_service_pb2.DeleteContentRequest(file=PLACE)
    assert await refused(words, sue.storage.DeleteContent(delete)) == "PRECONDITION"
    removal = await remove(house, PLACE)
    await finished(house, words, await remove(house, "LFN:/local/nothing-there"))
    await waits(house, removal)
    assert (house.storage / "local/place").read_bytes() == EARLIER
    gate.open.set()
    await finished(house, words, name, removal)
    assert not (house.storage / "local/place").exists()
    assert await registered(house) is None


@BOTH
@pytest.mark.parametrize("file", [PLACE, "url"])
async def test_nothing_is_written_to_where_a_deletion_job_removes(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch, event: Any, file: str
) -> None:
    house = await start_house(given=NEVER)
    sue = house.client("sue")
    put = await sue.put(PLACE, b"the first")
    mover, gone, go_on = house.room.mover, event(), event()
    remove_file = mover.remove

    async def late(location: Any) -> Any:
        answer = await remove_file(location)
        gone.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(mover, "remove", late)
    removal = await remove(house, PLACE if file == PLACE else put.url)
    await gone.wait()
    name = await write(house, LATER, placement=True)
    putting = asyncio.ensure_future(sue.put(PLACE, EARLIER, overwrite=True))
    await finished(house, words, await write(house, b"another", "LFN:/local/elsewhere"))
    await waits(house, name)
    assert not (house.storage / "local/place").exists()
    go_on.set()
    await finished(house, words, removal, name)
    await putting
    content = (house.storage / "local/place").read_bytes()
    assert content in (EARLIER, LATER)
    await agrees(house, content)


@BOTH
async def test_nothing_is_written_to_where_somebody_removes_a_file(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch, event: Any
) -> None:
    house = await start_house(given=NEVER)
    sue, content = house.client("sue"), house.room._parts.content
    await sue.put(PLACE, b"the first")
    remove_all, gone, go_on = content._remove_all, event(), event()

    async def late(file: str, copies: Sequence[Any]) -> Any:
        answer = await remove_all(file, copies)
        gone.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(content, "_remove_all", late)
    delete = storage_service_pb2.DeleteContentRequest(file=PLACE)
    removing = asyncio.ensure_future(sue.storage.DeleteContent(delete))
    await gone.wait()
    name = await write(house, LATER, placement=True)
    await finished(house, words, await write(house, b"another", "LFN:/local/elsewhere"))
    await waits(house, name)
    # Who asked for it may go away: it ends all the same, and gives the place back.
    removing.cancel()
    go_on.set()
    await finished(house, words, name)
    await agrees(house, LATER)


@BOTH
async def test_a_file_that_is_owed_a_registration_keeps_its_place(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch, event: Any
) -> None:
    house = await start_house(given=NEVER)
    parts = house.room._parts
    catalogue, answers = parts.catalogue, event()
    register = catalogue.register

    async def late(copies: Any) -> Any:
        await answers.wait()
        return await register(copies)

    with_conn = type(catalogue).register_with
    monkeypatch.setattr(
        type(catalogue),
        "register_with",
        lambda self, conn, copy: (
            None if copy.size_bytes == len(EARLIER) else with_conn(self, conn, copy)
        ),
    )
    monkeypatch.setattr(catalogue, "register", late)
    first = await write(house, EARLIER, placement=True)
    await house.client("sue").in_state(first, "REGISTERING")
    name = await write(house, LATER, placement=True)
    await finished(house, words, await write(house, b"another", "LFN:/local/elsewhere"))
    await waits(house, name)
    answers.set()
    await finished(house, words, first, name)
    await agrees(house, LATER)


@BOTH
async def test_a_place_is_one_by_whichever_endpoint_it_is_named(
    start_house: Any, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "storage")
    local = StorageElementSettings(
        name="local",
        base_url=(tmp_path / "storage").as_uri(),
        endpoints=[StorageEndpointSettings(base_url=(tmp_path / "alias").as_uri())],
        vo_paths={"local": "/local"},
    )
    house = await start_house(given={"poll_s": 0.1}, elements=[local])
    gate = Gate(house.room.mover, monkeypatch, "place")
    first = await write(house, EARLIER)
    await gate.reached()
    named = (tmp_path / "alias/local/place").as_uri()
    later = await write(house, LATER, named)
    await finished(house, words, await write(house, b"another", "LFN:/local/elsewhere"))
    await waits(house, later)
    monkeypatch.setattr(uploads, "_PATIENCE_S", 0.2)
    put = house.client("sue").put(named, b"put", overwrite=True)
    assert await refused(words, put) == "PRECONDITION"
    gate.open.set()
    await finished(house, words, first, later)
    assert (house.storage / "local/place").read_bytes() == LATER


@BOTH
async def test_a_long_name_has_one_writer_too(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"poll_s": 0.1})
    # Percent-encoded it is longer than what the index holds.
    folder = "/".join(["€" * 80] * 4)
    target = f"LFN:/local/{folder}/place"
    gate = Gate(house.room.mover, monkeypatch, "place")
    first = await write(house, EARLIER, target)
    await gate.reached()
    later = await write(house, LATER, target)
    await finished(house, words, await write(house, b"another", "LFN:/local/elsewhere"))
    await waits(house, later)
    gate.open.set()
    await finished(house, words, first, later)
    assert len(max(gate.most, key=len)) > 2000
    assert max(gate.most.values()) == 1


@BOTH
async def test_those_that_wait_for_a_writer_are_not_counted_to_what_a_claim_takes(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a claim looks at stand before others in the queue."""
    monkeypatch.setattr(moving, "MOST_FILES", 4)
    house = await start_house(given={"max_files": 2, **NEVER})
    gate = Gate(house.room.mover, monkeypatch, "place")
    first = await write(house, EARLIER)
    await gate.reached()
    waiting = [await write(house, LATER) for _ in range(12)]
    others = [await write(house, b"%d" % n, f"LFN:/local/else-{n}") for n in range(4)]
    await finished(house, words, *others)
    await waits(house, *waiting[:2])
    gate.open.set()
    await finished(house, words, first, *waiting)
    assert max(gate.most.values()) == 1


@BOTH
async def test_who_writes_is_found_by_an_index_however_much_is_stored(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"max_files": 1, **NEVER})
    gate = Gate(house.room.mover, monkeypatch, "place")
    await write(house, EARLIER)
    await gate.reached()
    waiting = await write(house, LATER, "LFN:/local/elsewhere")
    db = house.room._parts.db
    await db.write(store_many)

    def read(conn: Connection) -> None:
        (uid,) = {row.channel_uid for row in conn.execute(select(FILE.c.channel_uid))}
        run_kept(conn, queues.HEADS, uid=uid).all()
        run_kept(conn, queues.OF_QUEUE, uid=uid, queue="local/", limit=9).all()
        places.written(conn, ["file:///x", "file:///y"])

    plan = await db.read(lambda conn: plans(conn, read))
    assert plan.count("ix_file_transfer_writing") == 3, plan
    gate.open.set()
    await finished(house, words, waiting)


def store_many(conn: Connection) -> None:
    """Files that have ended, and others that wait; their number is as if there had always been so
    many.
    """
    (row,) = conn.execute(select(*FILE.columns).where(FILE.c.state == 2)).mappings().all()
    for state, first in ((14, 10_000), (9, 20_000)):
        new = [
            {
                **row,
                "number": n,
                "job_number": -n,
                "state": state,
                "due_us": 1 << 60,
                "target_url": f"file:///nowhere/{n}",
            }
            for n in range(first, first + 3000)
        ]
        conn.execute(insert(FILE), new)
    conn.exec_driver_sql("ANALYZE")


@BOTH
async def test_who_waits_for_one_of_several_does_not_wait_for_the_others(
    start_house: Any, words: Any, event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files that share a place and are moved one after the other."""
    house = await start_house(given={"max_files": 2, **NEVER})
    mover, begun, second, go_on = house.room.mover, event(), event(), event()
    move_bundle, ordered = mover.move_bundle, list[str]()

    async def one_by_one(orders: Any) -> Any:
        ordered.extend(Path(order.target.relative).name for order, _ in orders)
        if ordered[-1] == "place":
            begun.set()
            await second.wait()
        elif ordered[-1] == "last":
            await go_on.wait()
        return await move_bundle(orders)

    monkeypatch.setattr(mover, "moves_together", lambda order: False)
    monkeypatch.setattr(mover, "move_bundle", one_by_one)
    files = [
        transfer_job_pb2.FileTransfer(
            source=house.file(f"local/in/{name}", EARLIER),
            target=f"LFN:/local/{name}",
            size_bytes=len(EARLIER),
        )
        for name in ("place", "last")
    ]
    channels = house.room._parts.channels
    monkeypatch.setattr(type(channels.all()[0]), "places", 1)
    both = await house.client("sue").submit(*files)
    await begun.wait()
    monkeypatch.setattr(type(channels.all()[0]), "places", 2)
    later = await write(house, LATER)
    await waits(house, later)
    second.set()
    await finished(house, words, later)
    assert words.files(await house.client("sue").get(both.name)) == ["FINISHED", "ACTIVE"]
    go_on.set()
    await finished(house, words, both.name)
    assert (house.storage / "local/place").read_bytes() == LATER
