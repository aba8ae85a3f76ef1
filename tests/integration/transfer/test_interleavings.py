"""Whatever comes in whatever order: an answer of an attempt that is not the newest changes nothing,
and what is final never changes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import event_pb2
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_transfer import messages
from gridlane_transfer.backends.base import Moved
from gridlane_transfer.channels.channels import Channel, Channels, ChannelState, ExhaustedAction
from gridlane_transfer.channels.scheduling import Standing
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import RetryPolicy
from gridlane_transfer.moving.source_order import SourceOrder, Successes
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.states import DUE, FILE_FINAL, RUNNING, FileState
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import cancels, deadlines, jobs
from gridlane_transfer.store.cancels import Cancel
from gridlane_transfer.store.jobs import MoreOfFile, NewFile, NewTransferJob
from gridlane_transfer.store.moving import Claimed, ClaimRequest, Moving, Report
from gridlane_transfer.store.tables import (
    FEED,
    FILE,
    FILE_COLUMNS,
    METADATA,
    FileRow,
    JobRow,
    file_in,
)

ISSUER = "https://issuer.test/"
UID = "0192aaaa-0000-7000-8000-000000000001"
CHANNEL = Channel(UID, "default", "*", "*", ChannelState.ACTIVE, 9, ExhaustedAction.FAIL)
ELEMENTS = StorageElements(
    [
        StorageElementSettings(name=name, base_url=f"file:///{name}", vo_paths={"local": "/local"})
        for name in ("a", "b")
    ]
)
POLICY = Policy(1, (Binding(ISSUER, "sue", Role.SUBMITTER, "local"),), vos=["local"])
SUE = Principal(ISSUER, "sue", vos=frozenset({"local"}))
EVERYTHING = Visibility(everything=True)
PASSING = Failed(FailureClass.TARGET_UNWRITABLE, "for a while", recoverable=True)
LASTING = Failed(FailureClass.TARGET_EXISTS, "for good")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.sampled_from(["one", "two"])),
        st.tuples(st.just("moved"), st.integers(0, 5)),
        st.tuples(st.just("passing"), st.integers(0, 5)),
        st.tuples(st.just("lasting"), st.integers(0, 5)),
        st.tuples(st.just("lost"), st.just(0)),
        st.tuples(st.just("cancel"), st.just(0)),
        st.tuples(st.just("late"), st.just(0)),
    ),
    max_size=14,
)


@dataclass
class World:
    """A store with one job of two files, and who works on it."""

    db: Database
    channels: Channels
    feed: Feed
    moving: Moving
    uuid: str = ""
    claims: list[tuple[str, Claimed]] = field(default_factory=list)

    async def rows(self) -> list[FileRow]:
        found = await self.db.read(lambda conn: conn.execute(select(*FILE_COLUMNS)).all())
        return [FileRow._make(row) for row in found]

    async def submit(self) -> None:
        now = now_us()
        self.uuid = uuid7()
        values = dict.fromkeys(JobRow._fields) | JobRow._field_defaults
        given: dict[str, Any] = {
            "number": 0,
            "uuid": self.uuid,
            "owner": SUE.owner,
            "vo": "local",
            "principal": SUE.to_json(),
            "state": 2,
            "counts": f'{{"{int(FileState.READY)}":2}}',
            "placement": False,
            "overwrite": 1,
            "verify": 1,
            "max_retries": 2,
            "priority": 3,
            "tags": "",
            "traceparent": "",
            "create_us": now,
            "update_us": now,
        }
        row = JobRow(**{**values, **given})
        files = [
            NewFile(
                n=n,
                source=f"file:///a/local/{n}",
                target=f"file:///b/local/{n}",
                target_url=f"file:///b/local/{n}",
                target_lfn="",
                source_element="storageElements/a",
                target_element="storageElements/b",
                checksum=None,
                size_bytes=None,
                overwrite=0,
                state=int(FileState.READY),
                channel_uid=UID,
                rank=2,
                due_us=0,
                queue="local/",
                more=MoreOfFile(queue_until_us=now) if n == 2 else None,
            )
            for n in (1, 2)
        ]
        message = messages.job_message(row)
        event = event_pb2.TransferEvent(event_id=uuid7(), transfer_job=message.name, job=message)
        new = NewTransferJob(None, row, files, event)
        await self.db.write(lambda conn: jobs.insert(conn, [new], feed=self.feed))

    async def claim(self, holder: str) -> None:
        def make_due(conn: Connection) -> None:
            conn.execute(update(FILE).where(file_in(DUE)).values(due_us=0))

        await self.db.write(make_due)
        request = ClaimRequest([CHANNEL], 9, holder, timedelta(hours=1), POLICY, True, Standing())
        (claims,) = await self.db.write(lambda conn: self.moving.claim(conn, [request]))
        assert not isinstance(claims, Exception)
        self.claims += [(holder, one) for one in claims.files if one is not None]

    async def answer(self, index: int, failed: Failed | None) -> None:
        if not self.claims:
            return
        holder, claimed = self.claims[index % len(self.claims)]
        order = claimed.order
        outcome = failed or Moved(order.sources[0], 3, {"ADLER32": "00000001"})
        report = Report(claimed.file.number, holder, claimed.file.lease_epoch, outcome)
        before = {row.number: row for row in await self.rows()}[report.number]
        (taken,) = await self.db.write(lambda conn: self.moving.report(conn, [report]))
        after = {row.number: row for row in await self.rows()}[report.number]
        newest = before.lease_holder == holder and before.lease_epoch == claimed.file.lease_epoch
        running = before.state in (FileState.ACTIVE, FileState.CANCELING)
        assert (taken is not None) == (newest and running)
        if taken is None:
            assert after == before

    async def lose(self) -> None:
        def end_leases(conn: Connection) -> None:
            conn.execute(update(FILE).where(file_in(RUNNING)).values(lease_until_us=0))

        await self.db.write(end_leases)

    async def cancel(self) -> None:
        wish = Cancel(self.uuid, EVERYTHING)
        await self.db.write(
            lambda conn: cancels.cancel(conn, [wish], feed=self.feed, channels=self.channels)
        )

    async def late(self) -> None:
        found = await self.db.read(lambda conn: deadlines.late(conn, 10))
        await self.db.write(
            lambda conn: deadlines.end(conn, found, feed=self.feed, channels=self.channels)
        )

    async def take(self, step: tuple[str, Any]) -> None:
        match step:
            case "claim", holder:
                await self.claim(holder)
            case "moved", index:
                await self.answer(index, None)
            case "passing", index:
                await self.answer(index, PASSING)
            case "lasting", index:
                await self.answer(index, LASTING)
            case "lost", _:
                await self.lose()
            case "cancel", _:
                await self.cancel()
            case "late", _:
                await self.late()


async def live(folder: Path, told: Sequence[tuple[str, Any]]) -> None:
    db = await Database.open(
        f"sqlite:///{folder}/transfer.sqlite", metadata=METADATA, migrations=None, migrate=False
    )
    try:
        channels, feed = Channels([CHANNEL]), Feed(db, FEED)
        order = SourceOrder(ELEMENTS, Successes())
        moving = Moving(feed, channels, ELEMENTS, RetryPolicy(0, 0), frozenset({"ADLER32"}), order)
        world = World(db, channels, feed, moving)
        await world.submit()
        for step in told:
            before = {row.number: row for row in await world.rows()}
            await world.take(step)
            for row in await world.rows():
                if before[row.number].state in FILE_FINAL:
                    assert row == before[row.number], step
                assert row.attempt >= before[row.number].attempt
                assert row.lease_epoch >= before[row.number].lease_epoch
                assert row.retries <= 2
    finally:
        await db.close()


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_no_order_of_things_changes_what_is_final_or_takes_a_stale_answer(
    told: list[tuple[str, Any]],
) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder), told))
