"""Bytes put and got: verified, resumed, and never half there under their name."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import gridlane
from gridlane import watch
from gridlane.checksums import checksum_of, format_checksum, parse_checksum
from gridlane.nouns import storage
from gridlane.retry import RetryPolicy
from gridlane.transfer.v1 import storage_service_pb2 as rpc

Server = Any
Refuse = Callable[..., None]
TEXT = bytes(range(256)) * 9_000  # a bit over two messages
SUM = f"ADLER32:{zlib.adler32(TEXT):08x}"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESUME", RetryPolicy(first_delay_s=0.001, max_attempts=1_000))


class Store:
    """One file, which can be put and got; may break off a few times."""

    def __init__(self, content: bytes = b"", checksum: str = "") -> None:
        self.content = content
        self.checksum = checksum
        self.headers: list[Any] = []
        self.offsets: list[int] = []
        self.break_at: list[int] = []
        self.refuse: Refuse = lambda *_, **__: None

    def put(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        header = next(requests).header
        self.headers.append(header)
        self.content = b"".join(request.chunk for request in requests)
        if self.break_at:
            self.break_at.pop()
            self.refuse(context, grpc.StatusCode.UNAVAILABLE)
        return rpc.PutContentResponse(
            lfn=header.file, size_bytes=len(self.content), checksum=header.checksum
        )

    def get(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.offsets.append(request.offset_bytes)
        checksum = parse_checksum(self.checksum) if self.checksum else None
        header = rpc.GetContentHeader(size_bytes=len(self.content), checksum=checksum)
        yield rpc.GetContentResponse(header=header)
        at = request.offset_bytes
        while at < len(self.content):
            if self.break_at and at >= self.break_at[0]:
                self.break_at.pop(0)
                self.refuse(context, grpc.StatusCode.UNAVAILABLE)
            chunk = self.content[at : at + 100_000]
            at += len(chunk)
            yield rpc.GetContentResponse(chunk=chunk)


@pytest.fixture
def store(scripted: Server, refuse: Refuse) -> Store:
    made = Store()
    made.refuse = refuse
    scripted.upload(storage.PUT, made.put)
    scripted.stream(storage.GET, made.get)
    return made


def test_a_file_is_put_with_its_size_and_checksum(
    client: gridlane.Client, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(TEXT)
    seen: list[tuple[int, int]] = []
    answer = client.storage.put(
        path, "LFN:/local/a", progress=lambda done, total: seen.append((done, total))
    )
    assert store.content == TEXT
    assert store.headers[0].size_bytes == len(TEXT)
    assert format_checksum(answer.checksum) == SUM
    assert seen[-1] == (len(TEXT), len(TEXT))


def test_an_upload_whose_answer_was_lost_is_sent_again_from_the_start(
    client: gridlane.Client, store: Store
) -> None:
    store.break_at = [1, 1]
    client.storage.put(TEXT, "LFN:/local/a")
    assert len(store.headers) == 3
    assert store.content == TEXT


def test_a_wrong_checksum_is_found_before_anything_is_sent(
    client: gridlane.Client, store: Store
) -> None:
    with pytest.raises(gridlane.DataLoss) as caught:
        client.storage.put(TEXT, "LFN:/local/a", checksum="ADLER32:00000001")
    assert caught.value.metadata == {"expected": "ADLER32:00000001", "actual": SUM}
    assert store.headers == []


@pytest.mark.parametrize("wrong", ["missing", "folder"])
def test_what_is_no_readable_file_is_an_error_of_the_file(
    client: gridlane.Client, store: Store, tmp_path: Path, wrong: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises((OSError, ValueError), match=wrong):
        client.storage.put(tmp_path / wrong, "LFN:/local/a")
    assert store.headers == []


def test_a_file_that_is_gone_when_it_is_sent_again_is_an_error_of_the_file(
    client: gridlane.Client, store: Store, tmp_path: Path
) -> None:
    store.break_at = [1]
    path = tmp_path / "a"
    path.write_bytes(TEXT)
    with pytest.raises(FileNotFoundError):
        client.storage.put(path, "LFN:/local/a", progress=_removing(path))


async def test_the_asynchronous_facade_tells_it_as_well(
    scripted: Server, store: Store, tmp_path: Path
) -> None:
    store.break_at = [1]
    path = tmp_path / "a"
    path.write_bytes(TEXT)
    async with gridlane.AsyncClient(scripted.address, token="t") as client:
        with pytest.raises(FileNotFoundError):
            await client.storage.put(path, "LFN:/local/a", progress=_removing(path))


def _removing(path: Path) -> Callable[[int, int], None]:
    """Removes a file when it has been sent."""

    def progress(done: int, total: int) -> None:
        if done == total:
            path.unlink()

    return progress


def test_a_file_is_got_over_interruptions_and_verified(
    client: gridlane.Client, store: Store, tmp_path: Path
) -> None:
    store.content, store.checksum = TEXT, SUM
    store.break_at = [300_000, 900_000]
    verified = client.storage.get("LFN:/local/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == TEXT
    assert format_checksum(verified) == SUM
    assert store.offsets == [0, 300_000, 900_000]


async def test_the_asynchronous_facade_puts_and_gets_the_same(
    scripted: Server, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(TEXT)
    async with gridlane.AsyncClient(scripted.address, token="t") as client:
        await client.storage.put(path, "LFN:/local/a")
        store.checksum, store.break_at = SUM, [500_000]
        await client.storage.get("LFN:/local/a", tmp_path / "b")
        parts = [part async for part in client.storage.read("LFN:/local/a", offset_bytes=10)]
    assert checksum_of(tmp_path / "b") == parse_checksum(SUM)
    assert b"".join(parts) == TEXT[10:]


def test_bytes_with_another_checksum_leave_the_local_file_as_it_was(
    client: gridlane.Client, store: Store, tmp_path: Path
) -> None:
    target = tmp_path / "b"
    target.write_text("as it was")
    store.content, store.checksum = TEXT, "ADLER32:00000001"
    with pytest.raises(gridlane.DataLoss):
        client.storage.get("LFN:/local/a", target)
    assert target.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_get_leaves_nothing(
    client: gridlane.Client, scripted: Server, refuse: Refuse, tmp_path: Path
) -> None:
    def gone(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        refuse(context, grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND")
        yield

    scripted.stream(storage.GET, gone)
    with pytest.raises(gridlane.NotFound):
        client.storage.get("LFN:/local/a", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_as_target_takes_the_files_own_name(
    client: gridlane.Client, store: Store, tmp_path: Path
) -> None:
    store.content = b"x"
    client.storage.get("LFN:/local/folder/name.csv", tmp_path)
    assert (tmp_path / "name.csv").read_bytes() == b"x"
    assert (tmp_path / "name.csv").stat().st_mode & 0o077 == 0o044 & ~_umask()


def _umask() -> int:
    import os

    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_removing_what_is_gone_may_be_well(
    client: gridlane.Client, scripted: Server, refuse: Refuse
) -> None:
    scripted.unary(storage.DELETE, lambda _, context: refuse(context, grpc.StatusCode.NOT_FOUND))
    client.storage.delete("LFN:/local/a", missing_ok=True)
    with pytest.raises(gridlane.NotFound):
        client.storage.delete("LFN:/local/a")
