"""Storage elements that do not answer when they are asked how they are."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

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
    known = Conditions()
    for _ in range(3):
        found = await asyncio.gather(known.of(element), known.of(element))
        assert [one.readable for one in found] == [False, False]
        assert "does not answer" in found[0].message
    assert len(asked) == 1
    answers.set()
    async with asyncio.timeout(20):
        while not (await known.of(element)).readable:
            await asyncio.sleep(0.01)
