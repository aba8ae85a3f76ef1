"""Storage elements that are reached over HTTP: made, moved between, and banned by operation."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from grpc import aio
from webdav_server import Storage, serving

from gridlane.transfer.v1 import (
    storage_admin_service_pb2,
    storage_ban_pb2,
    storage_element_pb2,
    storage_service_pb2,
)

pb = storage_admin_service_pb2
CONTENT = bytes(range(256)) * 500


@pytest.fixture
def storages(tmp_path: Path) -> Iterator[tuple[Storage, Storage]]:
    """Two WebDAV storages that can copy between them."""
    with ExitStack() as stack:
        roots = [tmp_path / name for name in ("one", "two")]
        for root in roots:
            (root / "atlas").mkdir(parents=True)
        first, second = (stack.enter_context(serving(root)) for root in roots)
        yield first, second


@pytest.fixture
async def house(start_house: Any) -> Any:
    return await start_house(given={"http": {"allowed_networks": ["127.0.0.0/8"]}})


async def make(house: Any, name: str, *endpoints: dict[str, Any]) -> Any:
    settings = ParseDict(
        {"endpoints": list(endpoints), "vo_paths": {"local": "/atlas"}},
        storage_element_pb2.StorageElement(),
    )
    return await house.client("admin").storage_admin.CreateStorageElement(
        pb.CreateStorageElementRequest(storage_element_id=name, storage_element=settings)
    )


async def ban(house: Any, element: str, *operations: int) -> storage_ban_pb2.StorageBan:
    given = storage_ban_pb2.StorageBan(
        reason="repair",
        action=storage_ban_pb2.BAN_ACTION_WAIT,
        operations=[storage_element_pb2.StorageOperation.ValueType(one) for one in operations],
    )
    return await house.client("admin").storage_admin.BanStorage(
        pb.BanStorageRequest(parent=element, storage_ban=given)
    )


def base(storage: Storage) -> str:
    return storage.url.rstrip("/")


async def move(house: Any, words: Any, source: str, target: str) -> None:
    sue = house.client("sue")
    job = await sue.submit((source, target))
    ended = await sue.ended(job.name)
    assert words.job(ended) == "FINISHED", ended


async def test_storages_copy_between_them_unless_that_is_banned(
    house: Any, storages: tuple[Storage, Storage], words: Any
) -> None:
    one, two = storages
    one.path("atlas/a").write_bytes(CONTENT)
    made = [
        await make(house, "one", {"base_url": base(one)}),
        await make(house, "two", {"base_url": base(two)}),
    ]
    assert [element.endpoints[0].protocol for element in made] == ["http", "http"]
    assert all(element.readable and element.writable for element in made)
    assert made[0].free_bytes == -1
    source, target = f"{base(one)}/atlas/a", f"{base(two)}/atlas"
    await move(house, words, source, f"{target}/a")
    assert two.path("atlas/a").read_bytes() == CONTENT
    copies = one.count("COPY") + two.count("COPY")
    assert copies > 0
    laid = await ban(house, made[1].name, storage_element_pb2.STORAGE_OPERATION_THIRD_PARTY_WRITE)
    await move(house, words, source, f"{target}/b")
    assert two.path("atlas/b").read_bytes() == CONTENT
    assert one.count("COPY") + two.count("COPY") == copies
    await house.client("admin").storage_admin.UnbanStorage(pb.UnbanStorageRequest(name=laid.name))
    await move(house, words, source, f"{target}/c")
    assert one.count("COPY") + two.count("COPY") > copies


async def test_each_operation_has_its_endpoint(
    house: Any, storages: tuple[Storage, Storage], words: Any
) -> None:
    """One element of which a door reads and the other writes."""
    reads, writes = storages
    await make(
        house,
        "doors",
        {
            "base_url": base(reads),
            "operations": ["STORAGE_OPERATION_READ", "STORAGE_OPERATION_CHECK"],
        },
        {
            "base_url": base(writes),
            "operations": ["STORAGE_OPERATION_WRITE", "STORAGE_OPERATION_REMOVE"],
        },
    )
    await move(house, words, house.file("local/a", CONTENT), f"{base(reads)}/atlas/a")
    assert writes.path("atlas/a").read_bytes() == CONTENT
    assert reads.files() == []
    reads.path("atlas/a").write_bytes(CONTENT)
    await move(house, words, f"{base(writes)}/atlas/a", "LFN:/local/back")
    assert (house.storage / "local/back").read_bytes() == CONTENT
    assert reads.count("GET") > 0
    assert writes.count("GET") == 0


async def test_a_storage_that_does_not_answer_is_told_so(
    house: Any, tmp_path: Path, words: Any
) -> None:
    (tmp_path / "gone").mkdir()
    with serving(tmp_path / "gone") as storage:
        url = base(storage)
    made = await make(house, "gone", {"base_url": url})
    assert (made.readable, made.writable) == (False, False)
    get = storage_service_pb2.GetStorageElementRequest(name=made.name)
    assert not (await house.client("sue").storage.GetStorageElement(get)).readable


async def test_an_address_that_is_not_allowed_is_refused(start_house: Any, words: Any) -> None:
    house = await start_house()
    with pytest.raises(aio.AioRpcError) as caught:
        await make(house, "inside", {"base_url": "http://127.0.0.1:9/data"})
    assert words.reason(caught.value) == "ADDRESS_FORBIDDEN"
    assert dict(words.info(caught.value).metadata) == {"url": "http://127.0.0.1:9/data"}
