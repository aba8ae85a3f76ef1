"""Every way in which a file cannot be moved ends in a clear class and message, with nothing half
written.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from integration.transfer.failing_mover import fail

from gridlane.transfer.v1 import storage_service_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane_transfer.settings import StorageElementSettings

CONTENT = b"x" * 200_000
SOME_TIME = 300 << 20
"""A file of this size takes the mover a while."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")


def needs_the_kernel(*arguments: str) -> None:
    subprocess.run(arguments, check=True, timeout=20)


@pytest.fixture
def mover() -> dict[str, int]:
    """The mover as it is by default: two processes."""
    return {}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    needs_the_kernel("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    needs_the_kernel("umount", "-l", str(folder))


def on(folder: Path, *others: StorageElementSettings) -> list[StorageElementSettings]:
    """A storage element `local` at a folder, and one `source` beside it."""
    beside = folder.parent / "source"
    beside.mkdir(exist_ok=True)
    return [
        StorageElementSettings(
            name="local", base_url=folder.as_uri(), vo_paths={"local": "/local"}
        ),
        StorageElementSettings(
            name="source", base_url=beside.as_uri(), vo_paths={"local": "/local"}
        ),
        *others,
    ]


def sparse(path: Path, size_bytes: int) -> None:
    """Makes a file of a size that takes no room."""
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(size_bytes)


async def half_written(house: Any) -> None:
    """Waits until a copy is under way."""
    async with asyncio.timeout(10):
        while not house.leftovers():
            await asyncio.sleep(0.005)


async def failed(client: Any, words: Any, *files: Any, **fields: Any) -> tuple[str, str, int]:
    """The class, the message and the attempts of a job's only file, which must fail."""
    job = await client.ended((await client.submit(*files, **fields)).name)
    assert words.job(job) == "FAILED"
    assert job.failure == job.files[0].failure
    return words.failure(job), job.failure.message, job.files[0].attempt


async def test_a_wrong_checksum_leaves_no_target_and_is_not_tried_again(
    house: Any, sue: Any, words: Any
) -> None:
    file = transfer_job_pb2.FileTransfer(
        source=house.file("local/a", CONTENT),
        target="LFN:/local/b",
        checksum=words.adler32(b"other bytes"),
    )
    failure, message, attempts = await failed(sue, words, file)
    assert (failure, attempts) == ("CHECKSUM_MISMATCH", 1)
    assert words.adler32(CONTENT).value in message
    assert words.adler32(b"other bytes").value in message
    assert not (house.storage / "local/b").exists()
    assert house.leftovers() == []


async def test_a_wrong_size_is_found_before_anything_is_written(
    house: Any, sue: Any, words: Any
) -> None:
    file = transfer_job_pb2.FileTransfer(
        source=house.file("local/a", CONTENT), target="LFN:/local/b", size_bytes=7
    )
    failure, message, _ = await failed(sue, words, file)
    assert failure == "CHECKSUM_MISMATCH"
    assert "200000 bytes" in message


async def test_a_missing_source_is_named(house: Any, sue: Any, words: Any) -> None:
    missing = (house.storage / "local/none").as_uri()
    failure, message, attempts = await failed(sue, words, (missing, "LFN:/local/b"))
    assert (failure, attempts) == ("SOURCE_MISSING", 1)
    assert str(house.storage / "local/none") in message


async def test_a_name_that_is_not_registered_fails_in_the_catalogue(
    house: Any, sue: Any, words: Any
) -> None:
    job = await sue.ended((await sue.submit(("LFN:/local/none", "LFN:/local/b"))).name)
    assert (words.job(job), words.files(job)) == ("FAILED", ["CATALOG_FAILED"])
    assert words.failure(job) == "CATALOGUE"
    assert "LFN:/local/none" in job.failure.message


async def test_a_file_as_parent_is_an_unwritable_target(house: Any, sue: Any, words: Any) -> None:
    house.file("local/file")
    source = house.file("local/a", CONTENT)
    failure, message, attempts = await failed(sue, words, (source, "LFN:/local/file/b"))
    assert (failure, attempts) == ("TARGET_UNWRITABLE", 1)
    assert "is a file, not a directory" in message


async def test_a_directory_is_neither_source_nor_target(house: Any, sue: Any, words: Any) -> None:
    source = house.file("local/folder/a", CONTENT)
    failure, _, _ = await failed(sue, words, (source, "LFN:/local/folder"))
    assert failure == "TARGET_UNWRITABLE"
    folder = (house.storage / "local/folder").as_uri()
    failure, _, _ = await failed(sue, words, (folder, "LFN:/local/b"))
    assert failure == "SOURCE_UNREADABLE"


async def test_an_existing_target_is_never_replaced_unasked(
    house: Any, sue: Any, words: Any
) -> None:
    source = house.file("local/a", CONTENT)
    house.file("local/b", b"precious")
    failure, message, attempts = await failed(sue, words, (source, "LFN:/local/b"))
    assert (failure, attempts) == ("TARGET_EXISTS", 1)
    assert message == "the target exists: LFN:/local/b"
    assert (house.storage / "local/b").read_bytes() == b"precious"
    job = await sue.submit(
        (source, "LFN:/local/b"), overwrite=transfer_job_pb2.OVERWRITE_MODE_ALWAYS
    )
    assert words.job(await sue.ended(job.name)) == "FINISHED"
    assert (house.storage / "local/b").read_bytes() == CONTENT


async def test_a_symbolic_link_leads_out_of_no_storage_element(
    house: Any, sue: Any, words: Any, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (house.storage / "local").mkdir(exist_ok=True)
    (house.storage / "local/out").symlink_to(secret)
    (house.storage / "local/key").symlink_to(secret / "key")
    inside = house.file("local/a", CONTENT)
    for source in ("local/out/key", "local/key"):
        url = (house.storage / source).absolute().as_uri()
        failure, message, _ = await failed(sue, words, (url, "LFN:/local/b"))
        assert (failure, "symbolic link" in message) == ("SOURCE_UNREADABLE", True)
    failure, _, _ = await failed(sue, words, (inside, "LFN:/local/out/b"))
    assert failure == "TARGET_UNWRITABLE"
    assert [path.name for path in secret.iterdir()] == ["key"]
    with pytest.raises(grpc.RpcError):
        await sue.read("LFN:/local/key")
    with pytest.raises(grpc.RpcError):
        await sue.put("LFN:/local/out/b", CONTENT)
    assert [path.name for path in secret.iterdir()] == ["key"]


@as_root
async def test_a_read_only_file_system_is_an_unwritable_target(
    start_house: Any, tiny: Path, words: Any
) -> None:
    (tiny / "local").mkdir()
    needs_the_kernel("mount", "-o", "remount,ro", str(tiny))
    house = await start_house(elements=on(tiny))
    sue = house.client("sue")
    source = house.file("local/a", CONTENT, below=tiny.parent / "source")
    failure, message, attempts = await failed(sue, words, (source, "LFN:/local/b"))
    assert (failure, attempts) == ("TARGET_UNWRITABLE", 1)
    assert "read-only" in message
    with pytest.raises(grpc.RpcError) as raised:
        await sue.put("LFN:/local/c", b"bytes")
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    status = await sue.storage.GetTransferStatus(storage_service_pb2.GetTransferStatusRequest())
    (local,) = [one for one in status.backends if one.name == "storageElements/local"]
    assert not local.reachable
    assert "not writable" in local.message


@as_root
async def test_a_full_disk_leaves_nothing_behind(start_house: Any, tiny: Path, words: Any) -> None:
    house = await start_house(elements=on(tiny))
    sue = house.client("sue")
    source = house.file("local/big", b"y" * 3_000_000, below=tiny.parent / "source")
    failure, message, attempts = await failed(sue, words, (source, "LFN:/local/big"))
    assert (failure, attempts) == ("NO_SPACE", 1)
    assert message == "there is no room for the target: LFN:/local/big"
    with pytest.raises(grpc.RpcError) as raised:
        await sue.put("LFN:/local/big", b"y" * 3_000_000)
    assert words.reason(raised.value) == "NO_SPACE"
    assert house.leftovers() == []
    assert not (tiny / "local/big").exists()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_canceled_copy_is_aborted_and_its_bytes_are_removed(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"max_files": 1})
    sue = house.client("sue")
    big = house.storage / "local/big"
    sparse(big, 6 << 30)
    small = house.file("local/small")
    job = await sue.submit((big.as_uri(), "LFN:/local/copy"), (small, "LFN:/local/small2"))
    async with asyncio.timeout(10):
        while (await sue.get(job.name)).files[0].transferred_bytes == 0:
            await asyncio.sleep(0.02)
    cancel = transfer_service_pb2.CancelTransferJobRequest(name=job.name, reason="wrong dataset")
    answer = await sue.jobs.CancelTransferJob(cancel)
    assert (words.job(answer), words.files(answer)) == ("CANCELING", ["CANCELING", "CANCELED"])
    # The first reason stays.
    await sue.jobs.CancelTransferJob(
        transfer_service_pb2.CancelTransferJobRequest(name=job.name, reason="something else")
    )
    ended = await sue.ended(job.name, seconds=5)
    assert (words.job(ended), words.files(ended)) == ("CANCELED", ["CANCELED", "CANCELED"])
    assert words.failure(ended) == "CANCELED"
    kept = [ended.failure.message, *(file.failure.message for file in ended.files)]
    assert kept == ["cancelled by sue: wrong dataset"] * 3
    assert house.leftovers() == []
    assert not (house.storage / "local/copy").exists()
    again = await sue.jobs.CancelTransferJob(cancel)
    assert again == await sue.get(job.name)
    assert (await sue.history(job.name))[-2:] == ["file CANCELED", "job CANCELED"]


async def test_the_work_of_a_worker_that_died_is_done_by_another(
    house: Any, sue: Any, words: Any
) -> None:
    big = house.storage / "local/big"
    sparse(big, SOME_TIME)
    job = await sue.submit((big.as_uri(), "LFN:/local/copy"))
    await half_written(house)
    for pid in house.room.mover.pids:
        os.kill(pid, signal.SIGKILL)
    ended = await sue.ended(job.name, seconds=60)
    assert words.job(ended) == "FINISHED"
    assert ended.files[0].attempt == 2
    assert (house.storage / "local/copy").stat().st_size == SOME_TIME
    assert house.leftovers() == []
    assert "file RETRYING" in await sue.history(job.name)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_file_that_ends_with_its_worker_leaves_nothing(
    start_house: Any, words: Any, end: signal.Signals
) -> None:
    house = await start_house(given={"stall_s": 1, "workers": 1})
    sue = house.client("sue")
    big = house.storage / "local/big"
    sparse(big, SOME_TIME)
    job = await sue.submit((big.as_uri(), "LFN:/local/copy"), max_retries=0)
    await half_written(house)
    os.kill(house.room.mover.pids[0], end)
    ended = await sue.ended(job.name, seconds=60)
    assert (words.job(ended), words.failure(ended)) == ("FAILED", "BACKEND_LOST")
    assert house.leftovers() == []


async def test_a_copy_that_hangs_is_given_up_and_made_by_another_worker(
    start_house: Any, words: Any
) -> None:
    house = await start_house(given={"stall_s": 1, "workers": 1, "copies_per_worker": 2})
    sue = house.client("sue")
    big = house.storage / "local/big"
    sparse(big, SOME_TIME)
    job = await sue.submit((big.as_uri(), "LFN:/local/copy"))
    await half_written(house)
    (hung,) = house.room.mover.pids
    os.kill(hung, signal.SIGSTOP)  # as one whose file system does not answer
    ended = await sue.ended(job.name, seconds=60)
    assert words.job(ended) == "FINISHED"
    assert ended.files[0].attempt == 2
    assert (house.storage / "local/copy").stat().st_size == SOME_TIME
    assert house.leftovers() == []
    assert "file RETRYING" in await sue.history(job.name)
    assert hung not in house.room.mover.pids
    async with asyncio.timeout(5):
        while psutil.pid_exists(hung):
            await asyncio.sleep(0.02)


async def test_a_copy_that_always_hangs_fails_and_says_so(start_house: Any, words: Any) -> None:
    house = await start_house(given={"stall_s": 1, "workers": 1})
    sue = house.client("sue")
    source = house.file("local/a", CONTENT)
    os.kill(house.room.mover.pids[0], signal.SIGSTOP)
    failure, message, attempts = await failed(sue, words, (source, "LFN:/local/b"), max_retries=0)
    assert (failure, attempts) == ("BACKEND_LOST", 1)
    assert "made no progress for 1 s" in message
    assert "LFN:/local/b" in message
    assert words.job(await sue.ended((await sue.submit((source, "LFN:/local/b"))).name)) == (
        "FINISHED"
    )


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_retries_end_with_the_budget_of_the_file(house: Any, sue: Any, words: Any) -> None:
    fail(house.room.mover)
    source = house.file("local/a")
    failure, message, attempts = await failed(sue, words, (source, "LFN:/local/b"), max_retries=2)
    assert (failure, message, attempts) == ("BACKEND_LOST", "the worker went away", 3)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_file_under_way_is_moved_after_a_restart(house: Any, words: Any) -> None:
    big = house.storage / "local/big"
    sparse(big, SOME_TIME)
    sue = house.client("sue")
    job = await sue.submit((big.as_uri(), "LFN:/local/copy"), max_retries=0)
    await half_written(house)
    await house.restart()
    sue = house.client("sue")
    ended = await sue.ended(job.name, seconds=60)
    assert words.job(ended) == "FINISHED"
    assert ended.files[0].attempt == 2
    assert house.leftovers() == []
    assert (await sue.history(job.name)).count("job FINISHED") == 1


async def test_files_wait_while_it_is_not_known_who_may_do_what(
    start_house: Any, words: Any
) -> None:
    """A stale policy is no verdict: nothing is begun, and nothing is failed."""
    from gridlane_kit.policy import Policy

    house = await start_house(given={"max_files": 1})
    sue = house.client("sue")
    big = house.storage / "local/big"
    sparse(big, SOME_TIME)
    await sue.submit((big.as_uri(), "LFN:/local/copy"))
    await half_written(house)
    waiting = await sue.submit((house.file("local/a"), "LFN:/local/b"), max_retries=0)
    before = house.policy.current
    house.policy.replace(Policy(1, closed=True))
    await asyncio.sleep(1.5)
    house.policy.replace(before)
    ended = await sue.ended(waiting.name, seconds=60)
    assert words.job(ended) == "FINISHED"
    assert ended.files[0].attempt == 1
