"""What is seen to on channels goes on when one of them is a defect."""

import asyncio
from typing import Any

import pytest
from integration.transfer.channel_calls import Admin
from sqlalchemy import Connection, update

from gridlane.transfer.v1 import channel_pb2
from gridlane_kit.clock import now_us
from gridlane_transfer.store import optimizing
from gridlane_transfer.store.refresh import Kind, bump
from gridlane_transfer.store.tables import CHANNEL

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

AGGRESSIVE = channel_pb2.ChannelOptimizer(
    mode=channel_pb2.OPTIMIZER_MODE_AGGRESSIVE, min_files=2, max_files=3
)


async def strand(house: Any, sue: Any, admin: Admin) -> str:
    """A job whose file lies on a channel that was removed."""
    doomed = await admin.create("doomed", source="mirror", state=channel_pb2.CHANNEL_STATE_INACTIVE)
    source = house.file("local/a", below=house.mirror)
    job = await sue.submit((source, (house.mirror / "local/b").as_uri()))
    assert job.files[0].channel == "channels/doomed"

    def remove(conn: Connection) -> None:
        gone = update(CHANNEL).where(CHANNEL.c.uid == doomed.uid).values(delete_us=now_us())
        conn.execute(gone)
        bump(conn, Kind.CHANNELS)

    await house.room._started.db.write(remove)
    await house.room._started.refresh.now()
    return str(job.name)


async def test_a_defective_optimizer_holds_up_neither_others_nor_stranded_files(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"optimizer_every_s": 0.4})
    admin, sue = Admin(house, "admin"), house.client("sue")
    # The first one that is asked.
    bad = await admin.create("bad", source="local", target="local", optimizer=AGGRESSIVE)
    look, asked = optimizing.look, set()

    def looks(conn: Connection, uid: str, every_us: int, time_us: int) -> int | None:
        asked.add(uid)
        if uid == bad.uid:
            raise ArithmeticError("a defect")
        return look(conn, uid, every_us, time_us)

    monkeypatch.setattr(optimizing, "look", looks)
    name = await strand(house, sue, admin)
    assert words.job(await sue.ended(name)) == "FINISHED"
    good = await admin.create("good", source="local", optimizer=AGGRESSIVE)
    async with asyncio.timeout(10):
        while good.uid not in asked:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        asked.clear()
        while asked != {bad.uid, good.uid}:
            await asyncio.sleep(0.02)
    assert (await admin.get("good")).usage.allowed_files == 3


async def test_one_that_hangs_holds_up_no_stranded_files(
    start_house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"optimizer_every_s": 0.4})
    admin, sue = Admin(house, "admin"), house.client("sue")
    asked, done = asyncio.Event(), asyncio.Event()
    db = house.room._started.db
    ask = db.write_after_lock

    async def hangs(fn: Any) -> Any:
        if getattr(fn, "func", None) is optimizing.look:
            asked.set()
            await done.wait()
        return await ask(fn)

    monkeypatch.setattr(db, "write_after_lock", hangs)
    await admin.update("default", "optimizer", optimizer=AGGRESSIVE)
    async with asyncio.timeout(10):
        await asked.wait()
    name = await strand(house, sue, admin)
    assert words.job(await sue.ended(name)) == "FINISHED"
    done.set()
