"""Two VOs share a channel 70:30, with real copies and both queues full all the time, whether one
process moves them or two on one database.

The shares are taken from the times in the database: of each attempt what falls into a window in
which files of both VOs waited. They are those of the time that places were held, and of files.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from gridlane.transfer.v1 import (
    channel_admin_service_pb2,
    channel_admin_service_pb2_grpc,
    channel_pb2,
)
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.states import DUE
from gridlane_transfer.store.tables import FILE, FILE_ATTEMPT, file_in

pytestmark = pytest.mark.parametrize(
    ("engine", "replicas"), [("sqlite", 1), ("postgresql", 1), ("postgresql", 2)]
)

WEIGHTS = {"local": 70, "other": 30}
USERS = {"local": "sue", "other": "eve"}
FILES = 700
SIZE = 64 * 1024
PLACES = 4
# So many attempts have ended when the window closes; more of each VO's files than that wait.
ENOUGH = 550


def elements(root: Path) -> list[StorageElementSettings]:
    paths = {vo: f"/{vo}" for vo in WEIGHTS}
    return [
        StorageElementSettings(name=name, base_url=(root / name).as_uri(), vo_paths=paths)
        for name in ("local", "mirror")
    ]


@pytest.mark.timeout(300)
async def test_two_vos_with_full_queues_share_the_places_as_their_channel_says(
    start_house: Any, tmp_path: Path, replicas: int
) -> None:
    # No process can hold all of the channel's places, so that each of them moves files.
    given = {
        "max_files": PLACES,
        "poll_s": 0.5,
        "workers": PLACES // replicas,
        "copies_per_worker": 1,
    }
    house, *others = [
        await start_house(elements=elements(tmp_path), given=given) for _ in range(replicas)
    ]
    for name in ("local", "mirror"):
        (tmp_path / name).mkdir(exist_ok=True)
    admin = house.client("admin")
    stub = channel_admin_service_pb2_grpc.ChannelAdminServiceStub(house.channel)

    async def become(state: int) -> None:
        channel = channel_pb2.Channel(
            name="channels/default",
            state=state,  # type: ignore[arg-type]
            vo_shares=WEIGHTS,
        )
        request = channel_admin_service_pb2.UpdateChannelRequest(channel=channel)
        await stub.UpdateChannel(request, metadata=admin.metadata, timeout=20)

    await become(channel_pb2.CHANNEL_STATE_STOPPED)
    for vo, user in USERS.items():
        files = []
        for n in range(FILES):
            source = house.file(f"{vo}/in/{n}", bytes(SIZE), below=tmp_path / "local")
            files.append((source, (tmp_path / "mirror" / vo / f"out/{n}").as_uri()))
        await house.client(user).submit(*files)
    await become(channel_pb2.CHANNEL_STATE_ACTIVE)
    db = house.room._parts.db
    async with asyncio.timeout(240):
        while await db.read(ended) < ENOUGH:
            await asyncio.sleep(0.05)
    waiting = await db.read(waits)
    await become(channel_pb2.CHANNEL_STATE_STOPPED)
    assert min(waiting.values()) > 0, waiting
    moved_by = {holder for holder in await db.read(holders) if holder}
    assert len(moved_by) == 1 + len(others)
    held_us, counts, window_us = await db.read(shares)
    share = held_us["local"] / sum(held_us.values())
    of_files = counts["local"] / sum(counts.values())
    print(
        f"shares of {sum(counts.values())} files in {window_us / 1e6:.1f} s:"
        f" {share:.1%} : {1 - share:.1%} of the time, {of_files:.1%} : {1 - of_files:.1%} of files"
    )
    assert share == pytest.approx(0.7, abs=0.05 * 0.7)
    assert 1 - share == pytest.approx(0.3, abs=0.05)
    if not others:  # whose files take as long, whoever moves them
        assert of_files == pytest.approx(0.7, abs=0.05)


def ended(conn: Connection) -> int:
    """How many attempts have ended."""
    a = FILE_ATTEMPT.c
    return int(conn.execute(select(func.count()).where(a.end_us.is_not(None))).scalar_one())


def holders(conn: Connection) -> list[str | None]:
    """The processes that moved files."""
    return list(conn.execute(select(FILE.c.lease_holder).distinct()).scalars())


def waits(conn: Connection) -> dict[str, int]:
    """How many files of each VO wait."""
    statement = select(FILE.c.queue, func.count()).where(file_in(DUE)).group_by(FILE.c.queue)
    return {queue.partition("/")[0]: count for queue, count in conn.execute(statement)}


def shares(conn: Connection) -> tuple[dict[str, int], dict[str, int], int]:
    """For how long files of each VO held places in the window, how many of each were started in
    it, and how long it is; microseconds.
    """
    a = FILE_ATTEMPT.c
    statement = select(FILE.c.queue, a.start_us, a.end_us).join(
        FILE, FILE.c.number == a.file_number
    )
    attempts = [
        (queue.partition("/")[0], start_us, end_us)
        for queue, start_us, end_us in conn.execute(statement)
        if end_us is not None
    ]
    ends = sorted(end_us for _, _, end_us in attempts)
    opens, closes = ends[PLACES], ends[ENOUGH - 1]
    held_us = dict.fromkeys(WEIGHTS, 0)
    counts = dict.fromkeys(WEIGHTS, 0)
    for vo, start_us, end_us in attempts:
        held_us[vo] += max(0, min(end_us, closes) - max(start_us, opens))
        counts[vo] += opens <= start_us < closes
    return held_us, counts, closes - opens
