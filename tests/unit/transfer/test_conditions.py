"""Storage elements that do not answer when they are asked how they are."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.storage import conditions
from gridlane_transfer.storage.conditions import Conditions
from gridlane_transfer.storage.storage_elements import StorageElements


async def test_a_file_system_that_hangs_holds_one_thread_however_often_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = StorageElementSettings(name="local", base_url=tmp_path.as_uri(), vo_paths={})
    (element,) = StorageElements([given]).all()
    answers, asked, statvfs = threading.Event(), [], os.statvfs

    def hangs(path: str) -> Any:
        asked.append(path)
        assert answers.wait(30)
        return statvfs(path)

    monkeypatch.setattr(os, "statvfs", hangs)
    monkeypatch.setattr(conditions, "_PATIENCE_S", 0.2)
    known = Conditions(AddressPolicy([]))
    for _ in range(3):
        found = await asyncio.gather(known.of(element), known.of(element))
        assert [one.readable for one in found] == [False, False]
        assert "does not answer" in found[0].message
    assert len(asked) == 1
    answers.set()
    async with asyncio.timeout(20):
        while not (await known.of(element)).readable:
            await asyncio.sleep(0.01)


@pytest.fixture
async def storage() -> AsyncIterator[tuple[int, list[object]]]:
    """The port of a storage on this machine, and who has connected to it."""
    came: list[object] = []
    server = await asyncio.start_server(lambda *one: came.append(one), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "storage.example"])
@pytest.mark.parametrize("allowed", [False, True])
async def test_a_storage_is_asked_where_the_mover_may_reach_it(
    storage: tuple[int, list[object]], host: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", here)
    port, came = storage
    given = StorageElementSettings(
        name="far", base_url=f"https://{host}:{port}/data", vo_paths={"local": "/local"}
    )
    (element,) = StorageElements([given]).all()
    found = await Conditions(AddressPolicy(["127.0.0.0/8"] if allowed else [])).of(element)
    async with asyncio.timeout(5):
        while allowed and not came:
            await asyncio.sleep(0.01)
    assert (found.readable, found.writable, len(came)) == (allowed, allowed, int(allowed))
    assert found.message == ("" if allowed else "storageElements/far does not answer")
