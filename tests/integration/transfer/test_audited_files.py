"""The audit names held files that are let go or given up, and those of others that are ended."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from integration.transfer.audit_office import Office, Reader

from gridlane.authorization.v1.audit_entry_pb2 import AuditEntry
from gridlane.transfer.v1 import (
    transfer_admin_service_pb2,
    transfer_service_pb2,
)
from gridlane_transfer.store import held

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


@pytest.fixture
async def office(start_house: Any, tmp_path: Any) -> Office:
    root = tmp_path / "open"
    root.mkdir()
    return Office(await start_house(given={"storage_file_roots": [str(root)]}), root)


@pytest.fixture
def reader(office: Office) -> Reader:
    """The administrator's."""
    return Reader(office.house, "admin")


def names_of(entry: AuditEntry) -> list[str]:
    """The files that an entry names."""
    return list(MessageToDict(entry.after)["files"])


async def test_held_files_that_are_let_go_or_given_up_are_named(
    office: Office, reader: Reader
) -> None:
    job = await office.held("a", "b", "c")
    names = [file.name for file in job.files]
    rpc, max_ = transfer_admin_service_pb2, office.house.client("max")
    await max_.admin.FailHeldFiles(rpc.FailHeldFilesRequest(name=job.name, files=names[:1]))
    await max_.admin.FailHeldFiles(rpc.FailHeldFilesRequest(name=job.name, files=names[:2]))
    await office.channels.fail("hold", names[0])
    await office.channels.release("hold")
    found = [
        (entry.method.rpartition("/")[2], entry.resource, names_of(entry))
        for entry in await reader.entries()
        if entry.HasField("after") and "files" in MessageToDict(entry.after)
    ]
    assert found[::-1] == [
        ("FailHeldFiles", job.name, names[:1]),
        ("FailHeldFiles", job.name, names[1:2]),
        ("FailChannelFiles", "channels/hold", []),
        ("ReleaseChannelFiles", "channels/hold", names[2:]),
    ]


async def test_each_part_of_many_held_files_is_named(
    office: Office, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "PAGE", 2)
    job = await office.held("a", "b", "c", "d", "e")
    rpc = transfer_admin_service_pb2
    request = rpc.ReleaseHeldFilesRequest(name=job.name, reason="it is mended")
    await office.house.client("max").admin.ReleaseHeldFiles(request)
    entries = [one for one in await reader.entries() if one.reason == request.reason]
    named = [names_of(entry) for entry in reversed(entries)]
    assert [len(names) for names in named] == [2, 2, 1]
    assert [name for names in named for name in names] == [file.name for file in job.files]
    assert len({entry.trace_id for entry in entries}) == 1
    for entry in entries:
        assert await reader.get(entry.name) == entry


async def test_the_end_of_anothers_job_is_told_and_that_of_ones_own_is_not(
    office: Office, reader: Reader
) -> None:
    await office.channels.create("slow", state="CHANNEL_STATE_INACTIVE")
    sue, max_ = office.house.client("sue"), office.house.client("max")
    folder = (office.house.mirror / "local").as_uri()
    files = [(office.house.file(f"local/{n}"), f"{folder}/{n}") for n in range(3)]
    rpc = transfer_service_pb2
    one, many, some, own = [await sue.submit(*files) for _ in range(4)]
    named = [file.name for file in some.files[:2]]
    for _ in range(2):  # the second time nothing is changed
        await max_.jobs.CancelTransferJob(
            rpc.CancelTransferJobRequest(name=one.name, reason="too much")
        )
        await max_.jobs.BatchCancelTransferJobs(
            rpc.BatchCancelTransferJobsRequest(names=[one.name, many.name])
        )
        await max_.jobs.CancelFileTransfers(
            rpc.CancelFileTransfersRequest(parent=some.name, names=named)
        )
    await sue.jobs.CancelFileTransfers(
        rpc.CancelFileTransfersRequest(parent=own.name, names=[own.files[0].name])
    )
    await sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=own.name, reason="mine"))
    entries = [entry for entry in await reader.entries() if "Cancel" in entry.method]
    assert [
        (entry.method.rpartition("/")[2], entry.resource, entry.vo, entry.reason)
        for entry in reversed(entries)
    ] == [
        ("CancelTransferJob", one.name, "local", "too much"),
        ("BatchCancelTransferJobs", many.name, "local", ""),
        ("CancelFileTransfers", some.name, "local", ""),
    ]
    assert {entry.actor.subject for entry in entries} == {"max"}
    assert names_of(entries[0]) == named
