"""Files on a storage that speaks WebDAV: moved by jobs, and asked for through the service."""

from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc import aio
from webdav_server import Fault, Storage, serving

from gridlane.transfer.v1 import (
    content_pb2,
    replica_service_pb2,
    storage_service_pb2,
    transfer_job_pb2,
)
from gridlane.type.v1 import checksum_pb2
from gridlane_transfer.settings import HttpSettings, StorageElementSettings

CONTENT = bytes(range(256)) * 5000
ADLER = "ADLER32"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Storage]:
    with serving(tmp_path / "far") as storage:
        (storage.root / "local").mkdir()
        yield storage


@pytest.fixture
async def house(start_house: Any, tmp_path: Path, far: Storage) -> Any:
    """A server with a directory and a remote storage."""
    here = (tmp_path / "storage").as_uri()
    vo_paths = {"local": "/local"}
    return await start_house(
        elements=[
            StorageElementSettings(name="local", base_url=here, vo_paths=vo_paths),
            StorageElementSettings(name="far", base_url=far.url, vo_paths=vo_paths),
        ],
        given={"http": HttpSettings(allowed_networks=["127.0.0.0/8"], idle_s=2)},
    )


@pytest.fixture
def sue(house: Any) -> Any:
    return house.client("sue")


@pytest.fixture
def max_(house: Any) -> Any:
    return house.client("max")


async def stat(client: Any, file: str) -> content_pb2.ContentInfo:
    return await client.storage.StatContent(storage_service_pb2.StatContentRequest(file=file))


async def remove(client: Any, file: str) -> None:
    await client.storage.DeleteContent(storage_service_pb2.DeleteContentRequest(file=file))


async def reason(call: Awaitable[object]) -> str:
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    status = Status.FromString(
        dict(raised.value.trailing_metadata() or ())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return info.reason
    raise AssertionError(status)


async def test_a_job_moves_files_there_and_back(sue: Any, house: Any, far: Storage) -> None:
    await sue.put("LFN:/local/x", CONTENT)
    quoted = f"{far.url}/local/deep/a%20b"
    job = await sue.ended(
        (await sue.submit(("LFN:/local/x", quoted), placement=True, vo="local")).name
    )
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job
    assert far.path("local/deep/a b").read_bytes() == CONTENT
    back = await sue.ended((await sue.submit((quoted, "LFN:/local/back"), vo="local")).name)
    assert back.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, back
    assert (house.storage / "local/back").read_bytes() == CONTENT


async def test_a_storage_that_is_away_for_a_moment_is_tried_again(sue: Any, far: Storage) -> None:
    await sue.put("LFN:/local/x", CONTENT)
    far.faults = [Fault("PUT", "status", status=503)]
    name = (await sue.submit(("LFN:/local/x", f"{far.url}/local/y"), vo="local")).name
    job = await sue.ended(name)
    assert job.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED, job
    assert "file RETRYING" in await sue.history(name)
    assert far.files() == ["local/y"]


async def test_a_remote_file_is_told_of_read_and_removed(sue: Any, max_: Any, far: Storage) -> None:
    url = f"{far.url}/local/x"
    far.path("local/x").write_bytes(CONTENT)
    info = await stat(sue, url)
    assert (info.size_bytes, info.url, info.lfn) == (len(CONTENT), url, "LFN:/local/x")
    assert info.storage_element == "storageElements/far"
    assert info.checksum.value
    assert info.modify_time.seconds > 0
    assert not info.HasField("create_time")
    assert info.locality == content_pb2.CONTENT_LOCALITY_DISK
    assert far.count("GET") == 0
    assert await sue.read(url) == CONTENT
    assert await sue.read(url, 1_000_000) == CONTENT[1_000_000:]
    assert await sue.read(url, len(CONTENT)) == b""
    assert await reason(sue.read(url, len(CONTENT) + 1)) == "INVALID_FIELDS"
    await remove(max_, url)
    assert far.files() == []
    assert await reason(remove(max_, url)) == "NOT_FOUND"
    assert await reason(stat(sue, url)) == "NOT_FOUND"
    assert await reason(sue.read(url)) == "NOT_FOUND"


async def test_a_broken_reading_is_taken_up(sue: Any, far: Storage) -> None:
    far.path("local/x").write_bytes(CONTENT)
    far.faults = [Fault("GET", "reset", after=100_000), Fault("GET", "truncate", after=100_000)]
    assert await sue.read(f"{far.url}/local/x") == CONTENT


async def test_a_local_file_is_told_of(sue: Any) -> None:
    put = await sue.put("LFN:/local/x", CONTENT)
    info = await stat(sue, "LFN:/local/x")
    assert (info.size_bytes, info.url) == (len(CONTENT), put.url)
    assert info.checksum == put.checksum
    assert info.create_time.seconds > 0


async def test_a_registered_name_without_a_copy_is_no_missing_name(sue: Any, far: Storage) -> None:
    far.path("local/x").write_bytes(b"abc")
    await sue.replicas.RegisterReplica(
        replica_service_pb2.RegisterReplicaRequest(
            lfn="LFN:/local/x",
            url=f"{far.url}/local/x",
            size_bytes=3,
            checksum=checksum_pb2.Checksum(
                type=checksum_pb2.CHECKSUM_TYPE_ADLER32, value="024d0127"
            ),
        )
    )
    assert (await stat(sue, "LFN:/local/x")).size_bytes == 3
    far.faults = [Fault("HEAD", "status", status=503, times=1)]
    assert await reason(stat(sue, "LFN:/local/x")) == "PEER_UNAVAILABLE"
    far.path("local/x").unlink()
    assert await reason(stat(sue, "LFN:/local/x")) == "PRECONDITION"
    assert await reason(stat(sue, "LFN:/local/none")) == "NOT_FOUND"
    assert await reason(stat(sue, "https://elsewhere.test/x")) == "NO_STORAGE_ELEMENT"


async def test_a_file_of_another_vo_is_not_told_of(house: Any, far: Storage) -> None:
    far.path("local/x").write_bytes(b"abc")
    assert await reason(stat(house.client("eve"), f"{far.url}/local/x")) == "NOT_FOUND"
    assert far.count("HEAD") == 0


async def test_bytes_are_not_put_to_a_remote_storage(sue: Any, far: Storage, words: Any) -> None:
    with pytest.raises(aio.AioRpcError) as raised:
        await sue.put(f"{far.url}/local/x", b"abc")
    assert words.info(raised.value).reason == "CAPABILITY_MISSING"
    assert words.info(raised.value).metadata["capability"] == "PUT_CONTENT"
    assert list(words.violations(raised.value)) == ["header.file"]
    assert far.heard == []
