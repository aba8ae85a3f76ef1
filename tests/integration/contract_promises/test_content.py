"""Promises of bytes: put, get, delete, and of the names that they have."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from integration.contract_promises.stranger import Stranger, adler32, parts, refusal

from gridlane.transfer.v1 import replica_service_pb2, storage_service_pb2, storage_service_pb2_grpc
from gridlane.type.v1 import checksum_pb2

TEXT = b"co2,temperature\n" * 1000
MIB = 1 << 20
DIGITS = {
    checksum_pb2.CHECKSUM_TYPE_ADLER32: 8,
    checksum_pb2.CHECKSUM_TYPE_CRC32C: 8,
    checksum_pb2.CHECKSUM_TYPE_MD5: 32,
    checksum_pb2.CHECKSUM_TYPE_SHA1: 40,
    checksum_pb2.CHECKSUM_TYPE_SHA256: 64,
}


def delete_of(file: str) -> storage_service_pb2.DeleteContentRequest:
    return storage_service_pb2.DeleteContentRequest(file=file)


def get_of(file: str, offset: int = 0) -> storage_service_pb2.GetContentRequest:
    return storage_service_pb2.GetContentRequest(file=file, offset_bytes=offset)


def resolved(me: Stranger, lfn: str) -> replica_service_pb2.ResolvedFile:
    request = replica_service_pb2.ResolveReplicasRequest(lfns=[lfn])
    (result,) = me.call(me.replicas.ResolveReplicas, request).results
    return result


def test_what_was_put_is_there_and_registered(me: Stranger, folder: str) -> None:
    answer = me.put(f"{folder}/a", TEXT)
    assert answer.lfn == f"{folder}/a"
    assert answer.size_bytes == len(TEXT)
    assert answer.checksum == adler32(TEXT)
    assert Path(answer.url.removeprefix("file://")).read_bytes() == TEXT
    assert me.read(f"{folder}/a") == me.read(answer.url) == TEXT
    file = resolved(me, f"{folder}/a").file
    assert (file.size_bytes, file.checksum) == (len(TEXT), adler32(TEXT))
    assert [replica.url for replica in file.replicas] == [answer.url]


def test_the_same_bytes_again_are_answered_alike(me: Stranger, folder: str) -> None:
    assert me.put(f"{folder}/a", TEXT) == me.put(f"{folder}/a", TEXT)


def test_other_bytes_are_refused_unless_they_may_replace(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/a", TEXT)
    found = me.refused(me.storage.PutContent, parts(f"{folder}/a", b"other"))
    assert found.short == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    assert me.read(f"{folder}/a") == TEXT
    me.put(f"{folder}/a", b"other", overwrite=True)
    assert me.read(f"{folder}/a") == b"other"
    assert resolved(me, f"{folder}/a").file.size_bytes == 5


@pytest.mark.parametrize(
    "header",
    [
        {"size_bytes": len(TEXT) + 1},
        {"size_bytes": len(TEXT) - 1},
        {"size_bytes": 0},
        {"checksum": adler32(b"other")},
    ],
)
def test_bytes_that_are_not_the_promised_ones_leave_nothing(
    me: Stranger, folder: str, header: dict[str, Any]
) -> None:
    found = me.refused(me.storage.PutContent, parts(f"{folder}/a", TEXT, **header))
    assert found.short == ("DATA_LOSS", "CHECKSUM_MISMATCH")
    assert set(found.metadata) == {"expected", "actual"}
    assert me.refused(me.storage.GetContent, get_of(f"{folder}/a")).code == "NOT_FOUND"
    assert resolved(me, f"{folder}/a").HasField("status")


def test_a_broken_upload_is_not_seen_and_can_be_sent_again(me: Stranger, folder: str) -> None:
    def broken() -> Any:
        yield from list(parts(f"{folder}/a", TEXT))[:1]
        yield storage_service_pb2.PutContentRequest(chunk=TEXT[:10])
        raise RuntimeError("the client dies")

    with pytest.raises(grpc.RpcError):
        me.call(me.storage.PutContent, broken())
    assert me.refused(me.storage.GetContent, get_of(f"{folder}/a")).code == "NOT_FOUND"
    me.put(f"{folder}/a", TEXT)
    assert me.read(f"{folder}/a") == TEXT


@pytest.mark.parametrize("kind", DIGITS)
def test_a_checksum_has_as_many_digits_as_its_type(
    me: Stranger, folder: str, kind: checksum_pb2.ChecksumType.ValueType
) -> None:
    right = DIGITS[kind]
    for digits in {*DIGITS.values(), 7, 65} - {right}:
        checksum = checksum_pb2.Checksum(type=kind, value="0" * digits)
        found = me.refused(me.storage.PutContent, parts(f"{folder}/a", TEXT, checksum=checksum))
        assert found.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    for value in ("A" * right, "0" * (right - 1) + "g"):
        checksum = checksum_pb2.Checksum(type=kind, value=value)
        found = me.refused(me.storage.PutContent, parts(f"{folder}/a", TEXT, checksum=checksum))
        assert found.fields == ("header.checksum.value",)


def test_the_first_message_is_the_header_and_only_it(me: Stranger, folder: str) -> None:
    header, chunk = list(parts(f"{folder}/a", TEXT))
    for messages in ([chunk], [chunk, header], [header, header, chunk], []):
        found = me.refused(me.storage.PutContent, iter(messages))
        assert found.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    empty = storage_service_pb2.PutContentRequest()
    found = me.refused(me.storage.PutContent, iter([header, empty]))
    assert found.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")


def test_a_chunk_has_at_most_2_mib(me: Stranger, folder: str) -> None:
    content = bytes(2 * MIB + 1)
    found = me.refused(me.storage.PutContent, parts(f"{folder}/a", content))
    assert found.fields == ("chunk",)
    chunks = [content[: 2 * MIB], content[2 * MIB :]]
    assert me.put(f"{folder}/a", content, chunks=chunks).size_bytes == len(content)


async def test_whoever_is_refused_while_still_sending_learns_why(me: Stranger) -> None:
    chunks = [bytes(MIB)] * 8

    async def sent() -> Any:
        for part in parts("LFN:/nowhere/a", b"", size_bytes=8 * MIB, chunks=chunks):
            yield part

    async with grpc.aio.insecure_channel(me.server.address) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        for _ in range(10):
            with pytest.raises(grpc.RpcError) as refused:
                await stub.PutContent(sent(), metadata=me.metadata, timeout=10)
            assert refusal(refused.value).reason == "NO_STORAGE_ELEMENT"


def test_what_has_no_room_is_refused_before_it_is_sent(me: Stranger, folder: str) -> None:
    found = me.refused(me.storage.PutContent, parts(f"{folder}/a", TEXT, size_bytes=1 << 60))
    assert found.short == ("RESOURCE_EXHAUSTED", "NO_SPACE")
    assert found.metadata == {"storage_element": "local"}


def test_an_empty_file_is_a_file(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/empty", b"")
    assert me.read(f"{folder}/empty") == b""
    assert resolved(me, f"{folder}/empty").file.checksum == adler32(b"")


def test_a_stream_is_resumed_by_its_offset(me: Stranger, folder: str) -> None:
    content = bytes(range(256)) * 9000
    me.put(f"{folder}/a", content, chunks=[content[:MIB], content[MIB:]])
    for offset in (0, 1, MIB, len(content) - 1, len(content)):
        first, *rest = me.call(me.storage.GetContent, get_of(f"{folder}/a", offset))
        assert first.header.size_bytes == len(content)
        assert first.header.checksum == adler32(content)
        assert b"".join(part.chunk for part in rest) == content[offset:]
    found = me.refused(me.storage.GetContent, get_of(f"{folder}/a", len(content) + 1))
    assert found.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert found.fields == ("offset_bytes",)


def test_a_deleted_file_is_gone_and_deleting_it_again_says_so(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/a", TEXT)
    for name in (f"{folder}/a", me.put(f"{folder}/b", TEXT).url):
        me.call(me.storage.DeleteContent, delete_of(name))
        found = me.refused(me.storage.DeleteContent, delete_of(name))
        assert found.short == ("NOT_FOUND", "NOT_FOUND")
        assert found.metadata == {"name": name}
        assert me.refused(me.storage.GetContent, get_of(name)).code == "NOT_FOUND"
    assert resolved(me, f"{folder}/a").HasField("status")
    assert resolved(me, f"{folder}/b").HasField("status")


@pytest.mark.parametrize(
    "name",
    [
        "LFN:/local/../keys/authorization.pem",
        "LFN:/local/a/../../../token",
        "LFN:/local/./a",
        "LFN:/local//a",
        "LFN:/local/a/",
        "LFN:/local/",
        "LFN:/local",
        "LFN:/nowhere/a",
        "LFN:local/a",
        "/local/a",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "https://example.org/a",
        "LFN:/local/a\x00b",
        "LFN:/local/a\nb",
    ],
)
def test_a_name_that_leads_out_of_the_storage_is_served_by_nothing(me: Stranger, name: str) -> None:
    for method, request in (
        (me.storage.PutContent, parts(name, TEXT)),
        (me.storage.GetContent, get_of(name)),
        (me.storage.DeleteContent, delete_of(name)),
    ):
        found = me.refused(method, request)
        assert found.short == ("INVALID_ARGUMENT", "NO_STORAGE_ELEMENT")
        assert found.metadata == {"url": name}


@pytest.mark.parametrize("end", ["../token", "%2e%2e/token", "..%2ftoken", "/x", "jobs/x", "local"])
def test_neither_do_urls_below_the_storage_or_beside_it(me: Stranger, end: str) -> None:
    base = (me.server.data_dir / "storage").as_uri()
    beside = (me.server.data_dir / "jobs").as_uri()
    for url in (f"{base}/local/../{end}", f"{base}/{end}", f"{beside}/{end}"):
        assert me.refused(me.storage.GetContent, get_of(url)).reason == "NO_STORAGE_ELEMENT"
        assert me.refused(me.storage.PutContent, parts(url, TEXT)).reason == "NO_STORAGE_ELEMENT"


def test_a_symbolic_link_does_not_lead_out(me: Stranger, folder: str) -> None:
    url = me.put(f"{folder}/a", TEXT).url
    place = Path(url.removeprefix("file://")).parent
    (place / "link").symlink_to(me.server.token_file)
    (place / "folder").symlink_to(me.server.data_dir)
    for name in (f"{folder}/link", f"{folder}/folder/token"):
        found = me.refused(me.storage.GetContent, get_of(name))
        assert found.code in ("NOT_FOUND", "FAILED_PRECONDITION")
        assert me.server.token[:20] not in str(found)
    found = me.refused(me.storage.PutContent, parts(f"{folder}/folder/new", TEXT))
    assert found.code == "FAILED_PRECONDITION"
    assert not (me.server.data_dir / "new").exists()


@pytest.mark.parametrize(
    "name", ["with space", "ä b%20c", "100%", "a#b?c", "\U0001f600", "x" * 255]
)
def test_every_plain_name_is_a_name(me: Stranger, folder: str, name: str) -> None:
    url = me.put(f"{folder}/{name}", TEXT).url
    assert me.read(f"{folder}/{name}") == me.read(url) == TEXT
    me.call(me.storage.DeleteContent, delete_of(url))
    assert resolved(me, f"{folder}/{name}").HasField("status")


def test_a_name_that_the_file_system_cannot_have_is_refused(me: Stranger, folder: str) -> None:
    found = me.refused(me.storage.PutContent, parts(f"{folder}/{'x' * 256}", TEXT))
    assert found.short == ("FAILED_PRECONDITION", "PRECONDITION")
    assert me.refused(me.storage.GetContent, get_of(f"{folder}/{'x' * 256}")).code == "NOT_FOUND"
    assert me.refused(me.storage.PutContent, parts("x" * 1025, TEXT)).fields == ("header.file",)
