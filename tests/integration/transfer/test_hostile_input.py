"""Names that are none, or mean something else than they seem to, wherever one can be given: each is
refused with its field, and nothing of it is stored or written.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import func, inspect, select, table

from gridlane.transfer.v1 import (
    deletion_pb2,
    replica_service_pb2,
    storage_admin_service_pb2,
    storage_element_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.type.v1 import checksum_pb2
from gridlane_transfer.settings import StorageElementSettings

rpc, File = transfer_service_pb2, transfer_job_pb2.FileTransfer
Job, Element = transfer_job_pb2.TransferJob, storage_element_pb2.StorageElement
FAR = "https://se.example.org/data"
HERE = "<storage>/local"

NAMES = [
    # Schemes.
    "HTTPS://se.example.org/data/local/a",
    "Lfn:/local/a",
    "FILE:///local/a",
    "http://se.example.org/data/local/a",
    "root://se.example.org//data/local/a",
    "data:text/plain,a",
    # Hosts: users, ports, other ways to write one, and what only looks like one.
    "https://se.example.org@elsewhere.example.org/data/local/a",
    "https://user:secret@se.example.org/data/local/a",
    "https://se.example.org\\@elsewhere.example.org/data/local/a",
    "https://se.example.org:0/data/local/a",
    "https://se.example.org:65536/data/local/a",
    "https://se.example.org:https/data/local/a",
    "https://se.example.org./data/local/a",
    "https://se%2eexample.org/data/local/a",
    "https://sé.example.org/data/local/a",
    "https://\uff53e.example.org/data/local/a",
    "https://se\u3002example.org/data/local/a",
    "https://2130706433/data/local/a",
    "https://0177.0.0.1/data/local/a",
    "https://0x7f000001/data/local/a",
    "https://[::1]/data/local/a",
    "https://[fe80::1%25eth0]/data/local/a",
    "https://[::ffff:127.0.0.1]/data/local/a",
    "https:///data/local/a",
    "https:se.example.org/data/local/a",
    # Queries and fragments.
    FAR + "/local/a?b=c",
    FAR + "/local/a#b",
    HERE + "/a%3fb/../c",
    # Paths that leave, end nowhere, or hide what they are.
    FAR + "/local/../other/a",
    FAR + "/local/%2e%2e/other/a",
    FAR + "/local/..%2fother/a",
    FAR + "/local/..\\..\\other\\a",
    FAR + "/local/%2e.%5c%2e./a",
    FAR + "/local//a",
    FAR + "/local/a/",
    FAR + "/local/",
    FAR + "/local/a%00.root",
    FAR + "/local/a%0d%0aHost:%20elsewhere",
    FAR + "/local/a%7f",
    FAR + "/local/a%c2%9b31m",
    FAR + "/local/%ff%fe",
    "LFN:/local/a\x7f",
    "LFN:/local/a\x9b31m",
    "LFN:/local/..\\a",
    "LFN://local/a",
    HERE + "/%2e%2e/%2e%2e/etc/passwd",
    HERE + "/../../etc/passwd",
    "file://localhost<path>/local/a",
    "file:<path>/local/a",
    "file:///etc/passwd",
    "file:///proc/self/environ",
    # What Gridlane gives names of its own.
    "LFN:/local/.gridlane-1-1.part",
    "LFN:/local/.gridlane-hop-1/a",
    HERE + "/.gridlane-1-1.part",
    HERE + "/%2egridlane-1-1.part",
    FAR + "/local/deep/.gridlane-1-1.part",
]
BASES = [
    "https://user:secret@se2.example.org/data",
    "https://se2.example.org:0/data",
    "https://se2.example.org:65536/data",
    "https://se2.example.org./data",
    "https://2130706433/data",
    "https://127.1/data",
    "https://0x7f.0.0.1/data",
    "https://[fe80::1%25eth0]/data",
    "https://[::ffff:127.0.0.1%25lo]/data",
    "https://\u212aelvin.example.org/data",
    "https://se2.example.org/data/..",
    "https://se2.example.org/data%2f..%2fother",
    "https://se2.example.org/data%5cother",
    "https://se2.example.org/data\\other",
    "https://se2.example.org/data%00",
    "https://se2.example.org/data?x=y",
    "https://se2.example.org/data#x",
    "https://se2.example.org/data/",
    "https:///data",
    "file://localhost/data",
    "file:///data/../etc",
]
CLOSED = [
    "https://127.0.0.1/data",
    "https://[::1]/data",
    "https://[::ffff:10.0.0.1]/data",
    "https://169.254.169.254/latest",
    "https://[fe80::1]/data",
    "https://[fd00:ec2::254]/data",
    "https://0.0.0.0/data",
    "https://100.64.0.1/data",
    "https://localhost/data",
    "file:///etc",
    "file:///",
]


@pytest.fixture
async def house(start_house: Any, tmp_path: Path) -> Any:
    """A server with a directory, a remote storage, and a directory where others may be made."""
    vo_paths = {"local": "/local"}
    (tmp_path / "storage/local").mkdir(parents=True)
    return await start_house(
        elements=[
            StorageElementSettings(
                name="local", base_url=(tmp_path / "storage").as_uri(), vo_paths=vo_paths
            ),
            StorageElementSettings(name="far", base_url=FAR, vo_paths=vo_paths),
        ],
        given={"storage_file_roots": [str(tmp_path / "open")]},
    )


@pytest.fixture
def sue(house: Any) -> Any:
    return house.client("sue")


async def rows(house: Any) -> dict[str, int]:
    """How many rows each table has."""

    def count(conn: Any) -> dict[str, int]:
        return {
            name: conn.execute(select(func.count()).select_from(table(name))).scalar_one()
            for name in inspect(conn).get_table_names()
        }

    found: dict[str, int] = await house.room._started.db.read(count)
    return found


def everything(root: Path) -> list[str]:
    """All that lies below a directory, but for the database."""
    return sorted(str(path) for path in root.rglob("*") if "sqlite" not in path.name)


async def submit(client: Any, name: str) -> None:
    job = Job(files=[File(source="LFN:/local/a", target=name)])
    await client.jobs.SubmitTransferJob(rpc.SubmitTransferJobRequest(transfer_job=job))


async def submit_from(client: Any, name: str) -> None:
    job = Job(files=[File(source=name, target="LFN:/local/a")])
    await client.jobs.SubmitTransferJob(rpc.SubmitTransferJobRequest(transfer_job=job))


async def stream(client: Any, name: str) -> None:
    async def parts() -> AsyncIterator[rpc.SubmitTransferJobStreamRequest]:
        header = rpc.SubmitTransferJobHeader(transfer_job=Job())
        yield rpc.SubmitTransferJobStreamRequest(header=header)
        files = [File(source=name, target="LFN:/local/a")]
        yield rpc.SubmitTransferJobStreamRequest(files=rpc.FileTransferChunk(files=files))

    await client.jobs.SubmitTransferJobStream(parts())


async def delete_by_job(client: Any, name: str) -> None:
    files = [deletion_pb2.DeletionFile(file=name)]
    await client.jobs.SubmitDeletionJob(rpc.SubmitDeletionJobRequest(files=files))


async def put(client: Any, name: str) -> None:
    await client.put(name, b"bytes")


async def get(client: Any, name: str) -> None:
    await client.read(name)


async def stat(client: Any, name: str) -> None:
    await client.storage.StatContent(storage_service_pb2.StatContentRequest(file=name))


async def delete(client: Any, name: str) -> None:
    await client.storage.DeleteContent(storage_service_pb2.DeleteContentRequest(file=name))


async def register(client: Any, name: str) -> None:
    await client.replicas.RegisterReplica(
        replica_service_pb2.RegisterReplicaRequest(
            lfn="LFN:/local/a", url=name, size_bytes=5, checksum=ADLER
        )
    )


ADLER = checksum_pb2.Checksum(type=checksum_pb2.CHECKSUM_TYPE_ADLER32, value="062c0215")
Call = Callable[[Any, str], Awaitable[None]]
CALLS: dict[str, tuple[Call, str]] = {
    "SubmitTransferJob": (submit, "transfer_job.files[0].target"),
    "SubmitTransferJob, source": (submit_from, "transfer_job.files[0].source"),
    "SubmitTransferJobStream": (stream, "files[0].source"),
    "SubmitDeletionJob": (delete_by_job, "files[0].file"),
    "PutContent": (put, "header.file"),
    "GetContent": (get, "file"),
    "StatContent": (stat, "file"),
    "DeleteContent": (delete, "file"),
    "RegisterReplica": (register, "url"),
}


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


@pytest.mark.parametrize("method", CALLS)
async def test_a_name_that_is_none_is_refused_with_its_field(
    house: Any, sue: Any, words: Any, method: str
) -> None:
    call, field = CALLS[method]
    before, there = await rows(house), everything(house.root)
    for name in NAMES:
        text = name.replace("<storage>", house.storage.as_uri())
        text = text.replace("<path>", str(house.storage))
        error = await refusal(call(sue, text))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, text
        assert list(words.violations(error)) == [field], text
    assert (await rows(house), everything(house.root)) == (before, there)


async def test_of_many_jobs_each_is_refused_by_itself(house: Any, sue: Any) -> None:
    before = await rows(house)
    requests = [
        rpc.SubmitTransferJobRequest(
            transfer_job=Job(
                files=[
                    File(
                        source=name.replace("<storage>", house.storage.as_uri()),
                        target="LFN:/local/a",
                    )
                ]
            )
        )
        for name in NAMES
        if "<path>" not in name
    ]
    answer = await sue.jobs.BatchSubmitTransferJobs(
        rpc.BatchSubmitTransferJobsRequest(requests=requests)
    )
    codes = {result.status.code for result in answer.results}
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
    assert len(answer.results) == len(requests)
    assert await rows(house) == before


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("LFN:/local/a", "LFN:/local/a"),
        (HERE + "/a", "LFN:/local/a"),
        (HERE + "/a", HERE + "/%61"),
        (HERE + "/a%20b", HERE + "/a b"),
        (FAR + "/local/a", "davs://SE.EXAMPLE.ORG:443/data/local/%61"),
        (FAR + "/local/a", "https://se.example.org:00443/data%2flocal%2Fa"),
    ],
)
async def test_a_file_does_not_go_where_it_comes_from(
    house: Any, sue: Any, words: Any, source: str, target: str
) -> None:
    before = await rows(house)
    ends = (end.replace("<storage>", house.storage.as_uri()) for end in (source, target))
    error = await refusal(sue.submit(tuple(ends)))
    assert words.violations(error) == {"transfer_job.files[0].target": "is the source"}
    assert await rows(house) == before


async def create(house: Any, base_url: str) -> None:
    element = Element(vo_paths={"local": "/local"})
    element.endpoints.add(base_url=base_url)
    await house.client("admin").storage_admin.CreateStorageElement(
        storage_admin_service_pb2.CreateStorageElementRequest(
            storage_element_id="new", storage_element=element
        )
    )


async def test_a_storage_element_is_not_made_where_nothing_can_be(house: Any, words: Any) -> None:
    before = await rows(house)
    for base_url in BASES:
        error = await refusal(create(house, base_url))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, base_url
        field = "storage_element.endpoints[0].base_url"
        assert list(words.violations(error)) == [field], base_url
    assert await rows(house) == before


async def test_a_storage_element_is_not_made_where_policy_closes(house: Any, words: Any) -> None:
    (house.root / "open").mkdir()
    (house.root / "open/out").symlink_to("/etc")
    before = await rows(house)
    for base_url in [*CLOSED, (house.root / "open/out").as_uri(), house.jobs.as_uri()]:
        error = await refusal(create(house, base_url))
        assert words.reason(error) in ("ADDRESS_FORBIDDEN", "INVALID_FIELDS"), base_url
        assert error.code() in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.PERMISSION_DENIED,
        )
    assert await rows(house) == before


async def test_bytes_do_not_pass_a_symbolic_link(house: Any, sue: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (house.storage / "local/link").symlink_to(outside)
    (house.storage / "local/file").symlink_to(outside / "secret")
    before = await rows(house)
    for name in ("LFN:/local/link/secret", "LFN:/local/file"):
        for call in (get, stat):
            error = await refusal(call(sue, name))
            assert error.code() is not grpc.StatusCode.INTERNAL
    await refusal(put(sue, "LFN:/local/link/new"))
    await refusal(delete(house.client("max"), "LFN:/local/link/secret"))
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert await rows(house) == before


@pytest.mark.parametrize("size_bytes", [-1, -(2**63)])
async def test_a_size_below_nothing_is_refused(
    house: Any, sue: Any, words: Any, size_bytes: int
) -> None:
    before = await rows(house)
    error = await refusal(sue.put("LFN:/local/a", b"", size_bytes=size_bytes))
    assert list(words.violations(error)) == ["header.size_bytes"]
    request = replica_service_pb2.RegisterReplicaRequest(
        lfn="LFN:/local/a", url=house.file("local/a"), size_bytes=size_bytes, checksum=ADLER
    )
    error = await refusal(sue.replicas.RegisterReplica(request))
    assert list(words.violations(error)) == ["size_bytes"]
    assert await rows(house) == before
