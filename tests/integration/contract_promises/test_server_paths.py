"""Promise: users are told names that they know; where the server keeps its data is not among them.

The fields that are URLs of physical files by contract (`_URLS`) say where a replica lies.
Everything else that a user can read is words: statuses, events, failures, errors, logs.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from integration.contract_promises.stranger import Stranger, adler32, parts
from support import EmbeddedServer

from gridlane.gateway.v1 import task_service_pb2
from gridlane.reporting.v1 import accounting_service_pb2, span_service_pb2
from gridlane.transfer.v1 import storage_service_pb2, transfer_job_pb2, transfer_service_pb2
from gridlane.type.v1 import failure_pb2
from gridlane.workload.v1 import job_pb2, job_service_pb2

_URLS = frozenset({"source", "target", "source_url", "target_url", "url", "base_url"})
_FOLDER = "LFN:/local/paths"
CONTENT = b"content"


def words(message: Message) -> Iterator[tuple[str, str]]:
    """Every text in a message that is not the URL of a physical file, with its field's name."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield field.name, repr(value)
            continue
        for item in value if field.is_repeated else [value]:
            if isinstance(item, Message):
                yield from words(item)
            elif not (field.name in _URLS and str(item).startswith("file://")):
                yield field.name, item.decode("latin-1") if isinstance(item, bytes) else str(item)


class Disk:
    """The server's storage, as its operator sees it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.folder = server.data_dir / "storage" / _FOLDER.removeprefix("LFN:/")

    def spoil(self, name: str, how: Callable[[Path], object]) -> None:
        """Do something to a file behind the server's back."""
        how(self.folder / name)


def _linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _closed(path: Path) -> None:
    path.chmod(0)


def _replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.fixture
def disk(start_server: Callable[[], EmbeddedServer]) -> Iterator[tuple[Stranger, Disk]]:
    """A user, and the disk of the user's server with a file system of 1 MiB at `full`."""
    server = start_server()
    me, found = Stranger(server), Disk(server)
    for name in ("gone", "linked", "closed", "folder", "good", "taken"):
        me.put(f"{_FOLDER}/{name}", CONTENT)
    found.spoil("gone", Path.unlink)
    found.spoil("linked", _linked)
    found.spoil("closed", _closed)
    found.spoil("folder", _replaced_by_folder)
    full = found.folder / "full"
    full.mkdir()
    is_root = os.geteuid() == 0
    if is_root:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(full)]
        subprocess.run(command, check=True, timeout=20)
    yield me, found
    if is_root:
        subprocess.run(["umount", "-l", str(full)], check=True, timeout=20)


SOURCES = {
    "gone": "SOURCE_MISSING",
    "none": "CATALOGUE",
    "linked": "SOURCE_UNREADABLE",
    "folder": "SOURCE_UNREADABLE",
    **({} if os.geteuid() == 0 else {"closed": "SOURCE_UNREADABLE"}),
}
TARGETS = {
    "taken": "TARGET_EXISTS",
    "folder": "TARGET_UNWRITABLE",
    "good/below": "TARGET_UNWRITABLE",
    **({"full/big": "NO_SPACE"} if os.geteuid() == 0 else {}),
}


def failing_jobs(me: Stranger) -> list[job_pb2.Job]:
    """A job for every way in which bringing an input or moving an output fails, once ended."""
    started = []
    for name in SOURCES:
        given = job_pb2.JobInput(path="in", source=f"{_FOLDER}/{name}")
        started.append((me.submit("true", inputs=[given]), given.source))
    wrong = job_pb2.JobInput(path="in", source=f"{_FOLDER}/good", checksum=adler32(b"other"))
    started.append((me.submit("true", inputs=[wrong]), wrong.source))
    for name in TARGETS:
        output = job_pb2.JobOutput(path="out", target=f"{_FOLDER}/{name}")
        command = ["head", "-c", "1500000", "/dev/zero"]
        script = f"{' '.join(command)} > out"
        started.append((me.submit("sh", "-c", script, outputs=[output]), output.target))
    found = []
    for job, named in started:
        ended = me.ended(job.name)
        assert named in ended.failure.message, ended.failure
        found.append(ended)
    return found


def failing_transfers(me: Stranger) -> list[transfer_job_pb2.TransferJob]:
    """The same of transfers that the user asks for."""
    expected = {(f"{_FOLDER}/{name}", f"{_FOLDER}/new"): why for name, why in SOURCES.items()}
    big = f"{_FOLDER}/big"
    me.put(big, bytes(1_500_000))
    expected |= {(big, f"{_FOLDER}/{name}"): why for name, why in TARGETS.items()}
    found = []
    for (source, target), why in expected.items():
        ended = me.moved(source, target)
        name = failure_pb2.FailureClass.Name(ended.failure.failure_class)
        assert name == f"FAILURE_CLASS_{why}", (source, target)
        assert (target if "SOURCE" not in name and why != "CATALOGUE" else source) in (
            ended.failure.message
        )
        found.append(ended)
    return found


def told_of(me: Stranger, job: job_pb2.Job) -> Iterator[Message]:
    """All that a user can ask about a job."""
    me.eventually(
        lambda: (
            me.call(
                me.accounting.ListAccountingRecords,
                accounting_service_pb2.ListAccountingRecordsRequest(filter=f'job="{job.name}"'),
            ).records
        )
    )
    yield me.call(me.tasks.DescribeTask, task_service_pb2.DescribeTaskRequest(name=job.name))
    yield me.call(me.jobs.ListJobEvents, job_service_pb2.ListJobEventsRequest(parent=job.name))
    yield me.call(me.spans.ListJobSpans, span_service_pb2.ListJobSpansRequest(job=job.name))
    yield from me.call(me.tasks.WatchTask, task_service_pb2.WatchTaskRequest(name=job.name))
    for stream in (job_service_pb2.LOG_STREAM_STDOUT, job_service_pb2.LOG_STREAM_STDERR):
        request = job_service_pb2.ReadJobLogRequest(name=job.name, stream=stream)
        yield from me.call(me.jobs.ReadJobLog, request)


def refusals(me: Stranger) -> Iterator[tuple[str, str]]:
    """What calls on the spoiled files themselves are answered."""
    get, put = storage_service_pb2.GetContentRequest, me.storage.PutContent
    for name in SOURCES:
        refused = me.refused(me.storage.GetContent, get(file=f"{_FOLDER}/{name}"))
        yield name, repr(refused)
    for name in TARGETS:
        refused = me.refused(put, parts(f"{_FOLDER}/{name}", bytes(1_500_000)))
        yield name, repr(refused)
    delete = storage_service_pb2.DeleteContentRequest(file=f"{_FOLDER}/folder")
    yield "folder", repr(me.refused(me.storage.DeleteContent, delete))


def test_no_word_to_a_user_says_where_the_server_keeps_its_data(
    disk: tuple[Stranger, Disk],
) -> None:
    me, _ = disk
    data = str(me.server.data_dir)
    found: list[tuple[Any, str]] = []
    for job in failing_jobs(me):
        for message in told_of(me, job):
            found += words(message)
    for transfer in failing_transfers(me):
        events = transfer_service_pb2.ListTransferEventsRequest(parent=transfer.name)
        for message in (transfer, me.call(me.transfers.ListTransferEvents, events)):
            found += words(message)
    found += refusals(me)
    for status in (
        me.call(me.jobs.GetWorkloadStatus, job_service_pb2.GetWorkloadStatusRequest()),
        me.call(me.storage.GetTransferStatus, storage_service_pb2.GetTransferStatusRequest()),
    ):
        found += words(status)
    assert len(found) > 500
    assert [told for told in found if data in told[1]] == []
