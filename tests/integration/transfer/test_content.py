"""Bytes are put, got and deleted whole, and the catalogue says so."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from gridlane.transfer.v1 import replica_service_pb2, storage_service_pb2, transfer_job_pb2
from gridlane.type.v1 import checksum_pb2

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

CONTENT = bytes(range(256)) * 20_000


async def error_of(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        await call
    return raised.value


def resolve(*lfns: str) -> replica_service_pb2.ResolveReplicasRequest:
    return replica_service_pb2.ResolveReplicasRequest(lfns=lfns)


def delete(file: str) -> storage_service_pb2.DeleteContentRequest:
    return storage_service_pb2.DeleteContentRequest(file=file)


async def test_what_is_put_can_be_resolved_got_and_deleted(
    house: Any, sue: Any, words: Any
) -> None:
    lfn = "LFN:/local/climate/co 2.csv"
    put = await sue.put(lfn, CONTENT, checksum=words.adler32(CONTENT))
    assert (put.lfn, put.size_bytes, put.checksum) == (lfn, len(CONTENT), words.adler32(CONTENT))
    assert put.url == (house.storage / "local/climate/co 2.csv").as_uri()
    bob = house.client("bob")
    for name in (lfn, put.url):
        assert await bob.read(name) == CONTENT
    assert await bob.read(lfn, offset=len(CONTENT) - 7) == CONTENT[-7:]
    assert await bob.read(lfn, offset=len(CONTENT)) == b""
    error = await error_of(bob.read(lfn, offset=len(CONTENT) + 1))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    file = (await bob.replicas.ResolveReplicas(resolve(lfn))).results[0].file
    assert [replica.url for replica in file.replicas] == [put.url]
    await sue.storage.DeleteContent(delete(lfn))
    assert not (house.storage / "local/climate/co 2.csv").exists()
    assert (await bob.replicas.ResolveReplicas(resolve(lfn))).results[0].status.code == 5
    for call in (bob.read(lfn), sue.storage.DeleteContent(delete(lfn))):
        assert words.reason(await error_of(call)) == "NOT_FOUND"
    assert house.leftovers() == []


async def test_wrong_bytes_are_not_kept(house: Any, sue: Any, words: Any) -> None:
    for fields in (
        {"checksum": words.adler32(b"others")},
        {"size_bytes": len(CONTENT) + 1},
        {"size_bytes": len(CONTENT) - 1},
    ):
        error = await error_of(sue.put("LFN:/local/a", CONTENT, **fields))
        assert error.code() == grpc.StatusCode.DATA_LOSS
        assert words.reason(error) == "CHECKSUM_MISMATCH"
    assert not (house.storage / "local/a").exists()
    assert house.leftovers() == []


async def test_the_same_bytes_may_come_again_but_others_only_when_asked(
    house: Any, sue: Any, words: Any
) -> None:
    await sue.put("LFN:/local/a", CONTENT)
    await sue.put("LFN:/local/a", CONTENT)
    error = await error_of(sue.put("LFN:/local/a", b"others"))
    assert words.reason(error) == "ALREADY_EXISTS"
    assert await sue.read("LFN:/local/a") == CONTENT
    await sue.put("LFN:/local/a", b"others", overwrite=True)
    assert await sue.read("LFN:/local/a") == b"others"
    file = (await sue.replicas.ResolveReplicas(resolve("LFN:/local/a"))).results[0].file
    assert (file.size_bytes, file.checksum) == (6, words.adler32(b"others"))
    assert house.leftovers() == []


async def test_a_file_with_copies_elsewhere_does_not_change_its_bytes(
    house: Any, sue: Any, words: Any
) -> None:
    await sue.put("LFN:/local/a", CONTENT)
    mirrored = (house.mirror / "local/a").as_uri()
    await sue.ended((await sue.submit(("LFN:/local/a", mirrored), placement=True)).name)
    error = await error_of(sue.put("LFN:/local/a", b"others", overwrite=True))
    assert words.reason(error) == "ALREADY_EXISTS"
    assert (house.storage / "local/a").read_bytes() == CONTENT
    other = house.file("local/other", b"others")
    job = await sue.submit(
        (other, mirrored), overwrite=transfer_job_pb2.OVERWRITE_MODE_ALWAYS, placement=True
    )
    assert words.job(await sue.ended(job.name)) == "FAILED"
    assert (house.mirror / "local/a").read_bytes() == CONTENT


async def test_a_caller_that_goes_away_leaves_nothing(house: Any, sue: Any) -> None:
    began = asyncio.Event()

    async def parts() -> AsyncIterator[storage_service_pb2.PutContentRequest]:
        header = storage_service_pb2.PutContentHeader(file="LFN:/local/a", size_bytes=1 << 30)
        yield storage_service_pb2.PutContentRequest(header=header)
        for _ in range(4):
            yield storage_service_pb2.PutContentRequest(chunk=b"x" * (1 << 20))
        began.set()
        await asyncio.sleep(60)

    call = sue.storage.PutContent(parts())
    async with asyncio.timeout(5):
        await began.wait()
        while not house.leftovers():
            await asyncio.sleep(0.01)
    call.cancel()
    async with asyncio.timeout(5):
        while house.leftovers():
            await asyncio.sleep(0.01)
    assert not (house.storage / "local/a").exists()


async def test_a_stream_that_begins_without_a_header_is_refused(house: Any, sue: Any) -> None:
    async def parts() -> AsyncIterator[storage_service_pb2.PutContentRequest]:
        yield storage_service_pb2.PutContentRequest(chunk=b"x")

    error = await error_of(sue.storage.PutContent(parts()))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_who_may_write_read_and_delete(house: Any, sue: Any, words: Any) -> None:
    await sue.put("LFN:/local/a", CONTENT)
    bob, eve, manager = (house.client(user) for user in ("bob", "eve", "max"))
    for client in (bob, eve, manager):
        assert words.reason(await error_of(client.put("LFN:/local/b", b"x"))) == "PERMISSION_DENIED"
    assert words.reason(await error_of(eve.read("LFN:/local/a"))) == "NOT_FOUND"
    assert words.reason(await error_of(eve.read("LFN:/local/none"))) == "NOT_FOUND"
    answer = await eve.replicas.ResolveReplicas(resolve("LFN:/local/a", "LFN:/local/none"))
    assert [result.status.code for result in answer.results] == [5, 5]
    bobs = bob.storage.DeleteContent(delete("LFN:/local/a"))
    assert words.reason(await error_of(bobs)) == "PERMISSION_DENIED"
    eves = eve.storage.DeleteContent(delete("LFN:/local/a"))
    assert words.reason(await error_of(eves)) == "NOT_FOUND"
    await manager.storage.DeleteContent(delete("LFN:/local/a"))
    narrow = house.client("sue", scopes=["storage.create:/local/mine"])
    await narrow.put("LFN:/local/mine/a", b"x")
    error = await error_of(narrow.put("LFN:/local/yours", b"x"))
    assert words.reason(error) == "SCOPE_TOO_NARROW"


async def test_registration_is_idempotent_and_refuses_other_bytes(
    house: Any, sue: Any, words: Any
) -> None:
    url = house.file("local/a", CONTENT)

    def request(content: bytes, **fields: Any) -> replica_service_pb2.RegisterReplicaRequest:
        given = {"lfn": "LFN:/local/a", "url": url, **fields}
        return replica_service_pb2.RegisterReplicaRequest(
            size_bytes=len(content), checksum=words.adler32(content), **given
        )

    first = await sue.replicas.RegisterReplica(request(CONTENT))
    assert await sue.replicas.RegisterReplica(request(CONTENT)) == first
    mirrored = house.file("local/a", CONTENT, below=house.mirror)
    both = await sue.replicas.RegisterReplica(request(CONTENT, url=mirrored))
    assert [replica.storage_element for replica in both.replicas] == [
        "storageElements/local",
        "storageElements/mirror",
    ]
    error = await error_of(sue.replicas.RegisterReplica(request(b"others")))
    assert words.reason(error) == "ALREADY_EXISTS"
    error = await error_of(sue.replicas.RegisterReplica(request(CONTENT, lfn="LFN:/local/b")))
    assert set(words.violations(error)) == {"url"}
    await sue.storage.DeleteContent(delete(url))
    left = (await sue.replicas.ResolveReplicas(resolve("LFN:/local/a"))).results[0].file
    assert [replica.url for replica in left.replicas] == [mirrored]


async def test_logical_files_are_listed_below_a_path(house: Any, sue: Any) -> None:
    for name in ("a/1", "a/2", "a/3", "ab/1", "b"):
        await sue.put(f"LFN:/local/{name}", name.encode())

    async def listed(client: Any, prefix: str, size: int = 2) -> list[str]:
        names: list[str] = []
        token = ""
        while True:
            page = await client.replicas.ListReplicas(
                replica_service_pb2.ListReplicasRequest(
                    prefix=prefix, page_size=size, page_token=token
                )
            )
            names += [file.lfn.removeprefix("LFN:/local/") for file in page.files]
            if not (token := page.next_page_token):
                return names

    assert await listed(sue, "LFN:/local/a/") == ["a/1", "a/2", "a/3"]
    assert await listed(sue, "LFN:/local/a") == ["a/1", "a/2", "a/3", "ab/1"]
    assert await listed(sue, "LFN:/") == ["a/1", "a/2", "a/3", "ab/1", "b"]
    assert await listed(house.client("eve"), "LFN:/local/") == []
    narrow = house.client("sue", scopes=["storage.read:/local/a"])
    assert await listed(narrow, "LFN:/local/a/") == ["a/1", "a/2", "a/3"]
    error = await error_of(listed(narrow, "LFN:/local/a"))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_storage_elements_say_how_they_are(house: Any, sue: Any) -> None:
    answer = await sue.storage.ListStorageElements(storage_service_pb2.ListStorageElementsRequest())
    elements = {one.name.removeprefix("storageElements/"): one for one in answer.storage_elements}
    assert sorted(elements) == ["jobs", "local", "mirror"]
    request = storage_service_pb2.ListStorageElementsRequest
    first = await sue.storage.ListStorageElements(request(page_size=2))
    rest = await sue.storage.ListStorageElements(
        request(page_size=2, page_token=first.next_page_token)
    )
    # Free space changes under our eyes.
    paged = [*first.storage_elements, *rest.storage_elements]
    assert [one.name for one in paged] == [one.name for one in answer.storage_elements]
    assert rest.next_page_token == ""
    error = await error_of(sue.storage.ListStorageElements(request(page_token="none")))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    local = elements["local"]
    assert (local.readable, local.writable, local.internal) == (True, True, False)
    assert dict(local.vo_paths) == {"local": "/local"}
    assert local.free_bytes > 0
    assert elements["jobs"].internal
    get = storage_service_pb2.GetStorageElementRequest(name="storageElements/none")
    assert (await error_of(sue.storage.GetStorageElement(get))).code() == (
        grpc.StatusCode.NOT_FOUND
    )
    status = await sue.storage.GetTransferStatus(storage_service_pb2.GetTransferStatusRequest())
    assert {one.name for one in status.backends} == {
        "database",
        "embedded",
        "storageElements/jobs",
        "storageElements/local",
        "storageElements/mirror",
    }
    assert all(one.reachable for one in status.backends), status


async def test_a_checksum_that_is_not_computed_is_refused_early(
    house: Any, sue: Any, words: Any
) -> None:
    crc = checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_CRC32C, value="0" * 8)
    error = await error_of(sue.put("LFN:/local/a", CONTENT, checksum=crc))
    assert set(words.violations(error)) == {"header.checksum.type"}
