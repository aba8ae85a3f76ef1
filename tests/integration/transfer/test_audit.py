"""The audit of Transfer: every manager's verb is in it with who, when, why, before and after."""

import asyncio
import json
import time
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio
from integration.transfer.audit_office import Office, Reader
from integration.transfer.channel_calls import let_manage

from gridlane.authorization.v1.audit_entry_pb2 import AuditEntry
from gridlane.ids import uuid7, uuid7_floor
from gridlane.transfer.v1 import (
    transfer_admin_service_pb2,
)
from gridlane.transfer.v1.transfer_job_pb2 import TransferJob
from gridlane.type.v1.time_window_pb2 import TimeWindow
from gridlane_kit import audit
from gridlane_kit.clock import now_us
from gridlane_kit.identity import Principal
from gridlane_kit.pages import MAX_PAGE_SIZE
from gridlane_transfer.retention import Retention
from gridlane_transfer.store.tables import AUDIT

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

CHANNELS = "gridlane.transfer.v1.ChannelAdminService"
SHARES = "vos/local/activityShares"
DAY_US = 86_400_000_000
NOT_AUDITED = {
    # The embedded backend has nothing that could be pushed.
    "BackendAdminService/PushBackendConfiguration",
}


@pytest.fixture
async def office(start_house: Any, tmp_path: Any) -> Office:
    root = tmp_path / "open"
    root.mkdir()
    return Office(await start_house(given={"storage_file_roots": [str(root)]}), root)


@pytest.fixture
def reader(office: Office) -> Reader:
    """The administrator's."""
    return Reader(office.house, "admin")


async def refusal(call: Awaitable[Any], words: Any) -> str:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return str(words.reason(caught.value))


def audited_methods() -> set[str]:
    """The methods of the contract whose requests give a reason for the audit."""
    pool = descriptor_pool.Default()
    found = set()
    for file in ("activity", "backend_admin", "channel_admin", "storage_admin", "transfer_admin"):
        described = pool.FindFileByName(f"gridlane/transfer/v1/{file}_service.proto")
        for service in described.services_by_name.values():
            for method in service.methods:
                fields = method.input_type.fields_by_name
                inner = fields.get("storage_ban")
                kind = None if inner is None else inner.message_type
                if "reason" in fields or (kind and "reason" in kind.fields_by_name):
                    found.add(f"{service.name}/{method.name}")
    return found | {"TransferService/RetryTransferJob", "TransferService/CancelTransferJob"}


def by_verb(entries: Iterable[AuditEntry]) -> dict[str, AuditEntry]:
    """The entries by the last part of their methods' names, oldest of several."""
    return {entry.method.rpartition("/")[2]: entry for entry in entries}


def field(entry: AuditEntry, side: str, name: str) -> Any:
    return MessageToDict(getattr(entry, side)).get(name)


async def test_every_verb_that_gives_a_reason_is_in_it(office: Office, reader: Reader) -> None:
    await office.on_channels()
    await office.on_storage()
    await office.share(3, "the campaign begins")
    job = await office.on_jobs()
    entries = await reader.entries(page_size=5)
    methods = {entry.method.removeprefix("gridlane.transfer.v1.") for entry in entries}
    assert methods == audited_methods() - NOT_AUDITED
    found = by_verb(entries)
    assert {verb: entry.reason for verb, entry in found.items()} == {
        "CreateChannel": "more ways",
        "UpdateChannel": "slower",
        "ReleaseChannelFiles": "is back",
        "FailChannelFiles": "is over",
        "DeleteChannel": "too slow",
        "CreateStorageElement": "more room",
        "UpdateStorageElement": "moved",
        "BanStorage": "no quota left",
        "UnbanStorage": "more quota",
        "DeleteStorageElement": "retired",
        "UpdateActivityShares": "the campaign begins",
        "UpdateTransferJob": "urgent",
        "ReleaseHeldFiles": "it is mended",
        "FailHeldFiles": "give up",
        "RetryTransferJob": "it is there now",
        "CancelTransferJob": "never mind",
    }
    for verb in ("UpdateTransferJob", "ReleaseHeldFiles", "FailHeldFiles", "CancelTransferJob"):
        assert (found[verb].actor.subject, found[verb].resource) == ("max", job)
        assert found[verb].vo == "local"
    for entry in entries:
        assert entry.actor.subject in ("admin", "max")
        assert entry.permission.startswith("transfer.")
        assert entry.rule
        assert len(entry.trace_id) == 32
        assert entry.peer.startswith("ipv4:127.0.0.1:")
        assert abs(entry.time.ToSeconds() - time.time()) < 60
        assert (entry.policy_revision, entry.HasField("status")) == (0, False)
        assert await reader.get(entry.name) == entry


async def test_what_was_there_before_and_after_is_told(office: Office, reader: Reader) -> None:
    await office.on_channels()
    await office.on_storage()
    await office.share(3)
    await office.share(5)
    await office.on_jobs()
    entries = await reader.entries()
    found = by_verb(entries)
    for verb, before, after in [
        ("CreateChannel", False, True),
        ("UpdateChannel", True, True),
        ("DeleteChannel", True, False),
        ("CreateStorageElement", False, True),
        ("UpdateStorageElement", True, True),
        ("DeleteStorageElement", True, False),
        ("BanStorage", False, True),
        ("UnbanStorage", True, False),
    ]:
        entry = found[verb]
        assert (entry.HasField("before"), entry.HasField("after")) == (before, after), verb
    assert field(found["UpdateChannel"], "before", "max_files") != 7
    assert field(found["UpdateChannel"], "after", "max_files") == 7
    assert field(found["DeleteChannel"], "before", "max_files") == 7
    assert field(found["UpdateStorageElement"], "before", "site") == "DESY"
    assert field(found["UpdateStorageElement"], "after", "site") == "CERN"
    assert found["UnbanStorage"].before == found["BanStorage"].after
    update = found["UpdateTransferJob"]
    assert field(update, "before", "priority") == 3
    assert [field(update, "after", name) for name in ("priority", "activity")] == [5, "thesis"]
    last, first = [entry for entry in entries if entry.resource == SHARES]
    assert last.before == first.after
    (share,) = field(last, "after", "activities")
    assert (share["activity"], share["weight"]) == ("production", 5)


async def test_of_a_job_s_files_on_one_channel_it_is_told_what_was_asked(
    office: Office, reader: Reader
) -> None:
    lane = await office.channels.create("lane", state="CHANNEL_STATE_INACTIVE")
    let_manage(office.house, "bob", lane)
    source, mirror = office.house.file("local/a"), (office.house.mirror / "local").as_uri()
    job = await office.house.client("sue").submit((source, f"{mirror}/b"), (source, source + "2"))
    request = transfer_admin_service_pb2.UpdateTransferJobRequest(
        transfer_job=TransferJob(name=job.name, priority=5), reason="urgent"
    )
    assert (await office.house.client("bob").admin.UpdateTransferJob(request)).priority == 3
    (entry,) = await reader.entries("actor = bob")
    assert not entry.HasField("before")
    assert MessageToDict(entry.after) == {"priority": 5}


async def test_a_change_that_was_refused_or_changed_nothing_leaves_none(
    office: Office, reader: Reader, words: Any
) -> None:
    await office.share(3)
    before = await reader.entries()
    await office.share(3)
    assert await refusal(office.channels.delete("none"), words) == "NOT_FOUND"
    assert await reader.entries() == before


async def test_managers_read_what_concerns_their_vo_and_others_nothing(
    office: Office, words: Any, reader: Reader
) -> None:
    lane = await office.channels.create("lane")
    let_manage(office.house, "bob", lane)
    await office.ban("storageElements/local", "local", "ours")
    await office.ban("storageElements/local", "other", "theirs")
    await office.ban("storageElements/local", "", "everybody's")
    await office.share(3, "shares")
    manager = Reader(office.house, "max")
    seen = await manager.entries(page_size=1)
    assert [entry.reason for entry in seen] == ["shares", "ours"]
    assert await manager.entries("vo = local") == seen
    assert await manager.entries("vo = other") == []
    assert await manager.entries("actor = admin") == seen
    for entry in await reader.entries():
        if entry in seen:
            assert await manager.get(entry.name) == entry
        else:
            assert await refusal(manager.get(entry.name), words) == "NOT_FOUND"
    assert await refusal(manager.get(f"auditEntries/{uuid7()}"), words) == "NOT_FOUND"
    for user in ("sue", "bob", "eve"):
        other = Reader(office.house, user)
        assert await refusal(other.page(), words) == "PERMISSION_DENIED"
        assert await refusal(other.get(seen[0].name), words) == "PERMISSION_DENIED"


async def test_pages_stay_as_they_are_while_entries_come(office: Office, reader: Reader) -> None:
    for weight in range(1, 8):
        await office.share(weight, f"step {weight}")
    seen: list[str] = []
    token = ""
    while True:
        page = await reader.page(page_size=3, page_token=token)
        seen += [entry.reason for entry in page.audit_entries]
        token = page.next_page_token
        if not token:
            break
        await office.share(100 + len(seen), "later")
    assert seen == [f"step {weight}" for weight in range(7, 0, -1)]


async def test_a_page_token_is_of_one_listing(office: Office, reader: Reader, words: Any) -> None:
    await office.share(1)
    await office.share(2)
    token = (await reader.page(page_size=1)).next_page_token
    other = reader.page(page_size=1, page_token=token, filter="vo = local")
    assert await refusal(other, words) == "TOKEN_NOT_OURS"


async def test_entries_are_found_by_each_filter_and_by_time(office: Office, reader: Reader) -> None:
    await office.share(1, "early")
    await asyncio.sleep(0.01)
    middle = Timestamp()
    middle.GetCurrentTime()
    await asyncio.sleep(0.01)
    made = await office.channels.create("lane", reason="late")

    async def reasons(asked: str = "", **window: Any) -> list[str]:
        found = await reader.entries(asked, window=TimeWindow(**window))
        return [entry.reason for entry in found]

    assert await reasons("actor = admin") == ["late", "early"]
    assert await reasons("actor = sue") == []
    assert await reasons(f'resource = "{made.name}"') == ["late"]
    assert await reasons("vo = local") == ["early"]
    assert await reasons(f'method = "{CHANNELS}/CreateChannel"') == ["late"]
    assert await reasons(start_time=middle) == ["late"]
    assert await reasons(end_time=middle) == ["early"]
    assert await reasons("vo = local", start_time=middle) == []


@pytest.mark.parametrize("asked", ["reason = x", "actor = a AND vo = b", "time > 3"])
async def test_a_filter_that_is_not_documented_is_refused(
    reader: Reader, words: Any, asked: str
) -> None:
    assert await refusal(reader.page(filter=asked), words) == "FILTER_UNSUPPORTED"


def row(time_us: int, **given: Any) -> audit.AuditEntry:
    """An entry as it is stored."""
    texts = dict.fromkeys(audit.AuditEntry._fields[5:15], "")
    principal = Principal("https://issuer.test/", "old").to_json()
    fields = {
        "uid": uuid7_floor(time_us // 1000),
        "time_us": time_us,
        "principal": principal,
        "actor": "old",
        "service": "",
        **texts,
        "before_json": None,
        "after_json": None,
        **given,
    }
    return audit.AuditEntry(**fields)


async def test_entries_are_kept_as_long_as_they_must(office: Office) -> None:
    now, parts = now_us(), office.house.room._started
    old, young = row(now - 401 * DAY_US), row(now - 399 * DAY_US)
    await parts.db.write(lambda conn: audit.append(conn, AUDIT, [old, young]))
    kept = Retention(
        parts.db, parts.feed, every_s=1, job_age=timedelta(days=9), event_age=timedelta(days=9)
    )
    await kept.prune()
    rows = await parts.db.read(lambda conn: conn.execute(AUDIT.select()).all())
    assert [found.uid for found in rows] == [young.uid]


async def test_a_page_of_large_entries_fits_into_an_answer(office: Office, reader: Reader) -> None:
    now = now_us()
    large = json.dumps({"description": "x" * 400_000})
    many = [
        row(now + n * 1000, before_json=large, after_json=large, reason=str(n)) for n in range(12)
    ]
    db = office.house.room._started.db
    await db.write(lambda conn: audit.append(conn, AUDIT, many))
    entries = await reader.entries(page_size=MAX_PAGE_SIZE)
    assert [entry.reason for entry in entries] == [str(n) for n in range(11, -1, -1)]
