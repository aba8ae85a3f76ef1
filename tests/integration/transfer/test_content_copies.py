"""The bytes of files that have copies on several storage elements, and of two that are written
under one name at the same time.
"""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from gridlane.transfer.v1 import (
    replica_service_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_transfer.settings import StorageElementSettings, StorageEndpointSettings

LFN = "LFN:/local/run/1"
BYTES = b"gridlane\n"


def elements(root: Path) -> list[StorageElementSettings]:
    """Two that are written, one that is not, and one that is reached in two ways."""
    door = root / "door"
    if not door.is_symlink():
        door.symlink_to(root / "double", target_is_directory=True)
    two_ways = [
        StorageEndpointSettings(
            base_url=(root / "double").as_uri(), operations=["read", "write", "check"]
        ),
        StorageEndpointSettings(base_url=door.as_uri(), operations=["remove"]),
    ]
    plain = [
        StorageElementSettings(
            name=name,
            base_url=(root / name).as_uri(),
            vo_paths={"local": "/local"},
            read_only=name == "archive",
        )
        for name in ("first", "second", "archive")
    ]
    double = StorageElementSettings(name="double", endpoints=two_ways, vo_paths={"local": "/two"})
    return [*plain, double]


@pytest.fixture
async def house(start_house: Any, tmp_path: Path) -> Any:
    return await start_house(elements=elements(tmp_path))


def url(root: Path, element: str) -> str:
    return (root / element / "local/run/1").as_uri()


async def copies(house: Any, lfn: str = LFN) -> list[str]:
    """Where the catalogue says that the copies of a file are."""
    request = replica_service_pb2.ResolveReplicasRequest(lfns=[lfn])
    (answer,) = (await house.client("sue").replicas.ResolveReplicas(request)).results
    return [replica.url for replica in answer.file.replicas]


async def register(house: Any, words: Any, where: str) -> None:
    request = replica_service_pb2.RegisterReplicaRequest(
        lfn=LFN, url=where, size_bytes=len(BYTES), checksum=words.adler32(BYTES)
    )
    await house.client("sue").replicas.RegisterReplica(request)


async def delete(house: Any, file: str) -> None:
    request = storage_service_pb2.DeleteContentRequest(file=file)
    await house.client("max").storage.DeleteContent(request)


async def test_the_checksum_that_is_told_is_that_of_the_copy_which_is_read(
    house: Any, words: Any, tmp_path: Path
) -> None:
    sue = house.client("sue")
    await sue.put(url(tmp_path, "second"), BYTES)
    request = storage_service_pb2.GetContentRequest(file=LFN)
    parts = [part async for part in sue.storage.GetContent(request)]
    assert parts[0].header.checksum == words.adler32(BYTES)
    assert b"".join(part.chunk for part in parts[1:]) == BYTES


async def test_nothing_is_removed_from_an_element_that_is_read_only(
    house: Any, words: Any, tmp_path: Path
) -> None:
    kept = url(tmp_path, "archive")
    house.file("local/run/1", BYTES, below=tmp_path / "archive")
    await register(house, words, kept)
    for file in (kept, LFN):
        with pytest.raises(grpc.RpcError):
            await delete(house, file)
        assert (tmp_path / "archive/local/run/1").read_bytes() == BYTES
        assert await copies(house) == [kept]


async def test_a_copy_that_is_gone_is_registered_no_more_when_another_cannot_be_removed(
    house: Any, words: Any, tmp_path: Path
) -> None:
    first, second = url(tmp_path, "first"), url(tmp_path, "second")
    await house.client("sue").put(first, BYTES)
    await register(house, words, second)
    (tmp_path / "second/local/run/1").mkdir(parents=True)
    with pytest.raises(grpc.RpcError) as caught:
        await delete(house, LFN)
    assert words.reason(caught.value) == "PRECONDITION"
    assert not (tmp_path / "first/local/run/1").exists()
    assert await copies(house) == [second]


@pytest.mark.parametrize("as_job", [True, False])
@pytest.mark.parametrize("by_url", [True, False])
async def test_a_copy_that_is_removed_by_another_way_than_it_was_registered_by_is_forgotten(
    house: Any, words: Any, by_url: bool, as_job: bool
) -> None:
    max_ = house.client("max")
    put = await house.client("sue").put("LFN:/two/run/1", BYTES)
    file = put.url if by_url else put.lfn
    if as_job:
        assert words.job(await deleted(max_, file)) == "FINISHED"
    else:
        await delete(house, file)
    assert not (house.root / "double/two/run/1").exists()
    assert await copies(house, put.lfn) == []


async def test_a_deletion_job_forgets_no_copy_that_lies_where_nothing_is_removed(
    house: Any, words: Any, tmp_path: Path
) -> None:
    kept = url(tmp_path, "archive")
    await house.client("sue").put(url(tmp_path, "first"), BYTES)
    house.file("local/run/1", BYTES, below=tmp_path / "archive")
    await register(house, words, kept)
    assert words.job(await deleted(house.client("max"), LFN)) == "FAILED"
    assert kept in await copies(house)
    assert (tmp_path / "archive/local/run/1").read_bytes() == BYTES


async def deleted(client: Any, file: str) -> transfer_job_pb2.TransferJob:
    """A job that removes a file, ended."""
    request = transfer_service_pb2.SubmitDeletionJobRequest()
    request.files.add(file=file)
    return await client.ended((await client.jobs.SubmitDeletionJob(request)).name)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_of_two_that_write_one_name_the_catalogue_has_the_bytes_that_lie_there(
    house: Any, start_house: Any, engine: str, words: Any, tmp_path: Path
) -> None:
    sue = house.client("sue")
    users = [sue]
    if engine == "postgresql":
        users.append((await start_house(elements=elements(tmp_path))).client("sue"))
    puts = [(users[n % len(users)], bytes([n]) * 10_000) for n in range(8)]
    for _ in range(10):
        await asyncio.gather(*(user.put(LFN, content, overwrite=True) for user, content in puts))
        there = (tmp_path / "first/local/run/1").read_bytes()
        request = replica_service_pb2.ResolveReplicasRequest(lfns=[LFN])
        (answer,) = (await sue.replicas.ResolveReplicas(request)).results
        assert answer.file.checksum == words.adler32(there)
    assert house.leftovers() == []
