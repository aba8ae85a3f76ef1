"""Uploads and readings that are cut short, wherever that happens: nothing stays open or behind, and
nobody else waits for them.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import Connection, func, select

from gridlane.ids import uuid7
from gridlane.transfer.v1 import storage_service_pb2
from gridlane_kit.clock import now_us
from gridlane_transfer.backends.embedded import places
from gridlane_transfer.content import content, uploads
from gridlane_transfer.storage.storage_elements import Located, StorageElements
from gridlane_transfer.store import contents
from gridlane_transfer.store.contents import Upload
from gridlane_transfer.store.tables import UPLOAD


def abandoned(url: str) -> Upload:
    """An upload of a process that is no more."""
    uuid = uuid7()
    return Upload(
        uuid=uuid,
        url=url,
        temporary=f".gridlane-{uuid}.part",
        owner="[]",
        size_bytes=None,
        checksum=None,
        create_us=now_us(),
        lease_holder="gone",
        lease_epoch=1,
    )


async def test_an_upload_that_cannot_be_cleaned_up_holds_up_neither_the_start_nor_others(
    house: Any,
) -> None:
    (house.storage / "local").mkdir()
    (house.storage / "local/away").symlink_to(house.mirror)
    lost = abandoned((house.storage / "local/away/a").as_uri())
    left = abandoned((house.storage / "local/b").as_uri())
    (house.storage / "local" / left.temporary).write_bytes(b"half")

    def begin(conn: Any) -> None:
        for upload in (lost, left):
            contents.begin(conn, upload, timedelta(minutes=1))

    await house.room._parts.db.write(begin)
    await house.restart()
    assert house.leftovers() == []


class Slow:
    """Makes what a thread does wait until it may go on, and keeps what came of it."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.results: list[Any] = []

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.begun.set()
        assert self.may_go_on.wait(20)
        self.results.append(self._work(*args, **named))
        return self.results[-1]


async def _cut_short(work: "asyncio.Task[Any]", slow: Slow) -> None:
    """Ends a task while its thread works, and lets that go on."""
    async with asyncio.timeout(20):
        while not slow.begun.is_set():
            await asyncio.sleep(0.01)
        work.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        slow.may_go_on.set()
        await asyncio.wait([work])
        assert work.cancelled()
        while not slow.results:
            await asyncio.sleep(0.01)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def located(house: Any) -> Located:
    house.file("local/a")
    found = StorageElements(house.elements).locate("LFN:/local/a")
    assert found is not None
    return found


async def test_a_caller_that_goes_away_while_its_file_is_made_leaves_nothing(
    house: Any, located: Located, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(places.NewFile)
    monkeypatch.setattr(uploads, "NewFile", slow)
    parts = house.room._parts
    begun = asyncio.create_task(parts.uploads.begin(located, "[]", ["ADLER32"]))
    await _cut_short(begun, slow)
    async with asyncio.timeout(10):
        while house.leftovers() or _is_open(slow.results[0].descriptor):
            await asyncio.sleep(0.01)
        while await parts.db.read(_uploads):
            await asyncio.sleep(0.01)


def _uploads(conn: Connection) -> int:
    return int(conn.execute(select(func.count()).select_from(UPLOAD)).scalar_one())


async def test_a_caller_that_goes_away_while_its_file_is_opened_leaves_nothing_open(
    house: Any, located: Located, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(content._open)
    monkeypatch.setattr(content, "_open", slow)
    opened = asyncio.create_task(house.room._parts.content._open("LFN:/local/a", [located], 0))
    await _cut_short(opened, slow)
    async with asyncio.timeout(10):
        while _is_open(slow.results[0]):
            await asyncio.sleep(0.01)


async def test_what_cannot_be_removed_now_hides_no_reason_and_is_removed_later(
    house: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: places.Folder, name: str) -> bool:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    with monkeypatch.context() as patched:
        patched.setattr(places.Folder, "remove", refuse)
        with pytest.raises(grpc.RpcError) as caught:
            await house.client("sue").put(
                "LFN:/local/a", b"some", checksum=words.adler32(b"others")
            )
        assert words.reason(caught.value) == "CHECKSUM_MISMATCH"
    assert len(house.leftovers()) == 1
    assert not house.room._parts.uploads._open, "its lease is renewed no more"
    await house.restart()
    assert house.leftovers() == []


async def test_a_defect_does_not_end_the_care_for_uploads(
    start_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def broken(*_: Any) -> list[Upload]:
        calls.append(1)
        raise RuntimeError("a defect")

    house = await start_house(given={"lease_s": 5})
    with monkeypatch.context() as patched:
        patched.setattr(contents, "claim_abandoned", broken)
        async with asyncio.timeout(20):
            while len(calls) < 2:
                await asyncio.sleep(0.05)
    assert await house.client("sue").put("LFN:/local/a", b"bytes")


async def test_a_file_that_is_cleaned_up_slowly_takes_no_lease_from_uploads_that_are_open(
    start_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await start_house(given={"lease_s": 5})
    slow = Slow(uploads._recovered)
    monkeypatch.setattr(uploads, "_recovered", slow)
    may_end = asyncio.Event()

    async def parts() -> Any:
        header = storage_service_pb2.PutContentHeader(file="LFN:/local/a", size_bytes=4)
        yield storage_service_pb2.PutContentRequest(header=header)
        yield storage_service_pb2.PutContentRequest(chunk=b"some")
        await may_end.wait()

    sue, db = house.client("sue"), house.room._parts.db
    put = asyncio.ensure_future(sue.storage.PutContent(parts(), timeout=60))
    left = abandoned((house.storage / "local/b").as_uri())
    await db.write(lambda conn: contents.begin(conn, left, timedelta()))
    async with asyncio.timeout(30):
        while not slow.begun.is_set():
            await asyncio.sleep(0.05)
        await asyncio.sleep(6)  # longer than the lease of what is open
        slow.may_go_on.set()
        while await db.read(_uploads) > 1:
            await asyncio.sleep(0.05)
        may_end.set()
        assert (await put).size_bytes == 4
