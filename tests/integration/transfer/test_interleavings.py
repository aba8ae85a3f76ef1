"""Whatever comes in whatever order (claims, answers, lost leases, cancels, deadlines, bans, held
files let go or given up): an answer of an attempt that is not the newest changes nothing, what is
final never changes, a file has one budget of retries for all its sources and hops, a job's counts
are the states of its files, and everything ends and is told once.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import memory
import pytest
from faults import transfer_checks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from gridlane.ids import uuid7
from gridlane.transfer.v1 import event_pb2
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.decision import Visibility
from gridlane_kit.feed import Feed
from gridlane_kit.group_commit import GroupCommit
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_kit.sqlite import sqlite_url
from gridlane_transfer import messages
from gridlane_transfer.backends.base import Moved
from gridlane_transfer.catalogue.embedded import EmbeddedCatalogue
from gridlane_transfer.channels.channels import Channel, Channels, ChannelState, ExhaustedAction
from gridlane_transfer.channels.scheduling import Standing
from gridlane_transfer.moving.alternatives import Alternatives, Source, Strategy
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import RetryPolicy
from gridlane_transfer.moving.routes import Route, Stop
from gridlane_transfer.moving.source_order import SourceOrder, Successes
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.states import DUE, FILE_FINAL, RUNNING, FileState, job_state
from gridlane_transfer.storage.bans import Ban, BanAction
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import banned, cancels, deadlines, held, jobs
from gridlane_transfer.store.banned import Review
from gridlane_transfer.store.cancels import Cancel, CancelFiles
from gridlane_transfer.store.claims import Claimed, ClaimRequest
from gridlane_transfer.store.held import HeldAction, HeldFiles
from gridlane_transfer.store.jobs import MoreOfFile, NewFile, NewTransferJob
from gridlane_transfer.store.moving import Moving, Report
from gridlane_transfer.store.registering import Registering
from gridlane_transfer.store.tables import (
    FEED,
    FILE,
    FILE_COLUMNS,
    JOB,
    JOB_COLUMNS,
    METADATA,
    FileRow,
    JobRow,
    file_in,
)

ISSUER = "https://issuer.test/"
_ROOM_BYTES = 64 << 20
UID = "0192aaaa-0000-7000-8000-000000000001"
POLICY = Policy(1, (Binding(ISSUER, "sue", Role.SUBMITTER, "local"),), vos=["local"])
SUE = Principal(ISSUER, "sue", vos=frozenset({"local"}))
EVERYTHING = Visibility(everything=True)
RETRIES = 2
PLAIN, DATED, WITH_SOURCES, WITH_HOPS = FILES = (1, 2, 3, 4)
SOURCES = {WITH_SOURCES: 2}
ANSWERS = {
    "moved": None,
    "passing": Failed(FailureClass.TARGET_UNWRITABLE, "for a while", recoverable=True),
    "lasting": Failed(FailureClass.TARGET_EXISTS, "for good"),
    "unreadable": Failed(FailureClass.SOURCE_UNREADABLE, "for a while", recoverable=True),
    "missing": Failed(FailureClass.SOURCE_MISSING, "for good"),
}

steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.sampled_from(["one", "two"])),
        st.tuples(st.just("claim"), st.sampled_from(["one", "two"])),
        *(st.tuples(st.just(answer), st.integers(0, 9)) for answer in ANSWERS),
        st.tuples(st.just("lost"), st.just(0)),
        st.tuples(st.just("cancel"), st.just(0)),
        st.tuples(st.just("cancel file"), st.sampled_from(FILES)),
        st.tuples(st.just("late"), st.just(0)),
        st.tuples(st.just("expired"), st.just(0)),
        st.tuples(
            st.just("ban"), st.tuples(st.sampled_from("abc"), st.sampled_from(list(BanAction)))
        ),
        st.tuples(st.just("unban"), st.just(0)),
        st.tuples(st.just("held"), st.sampled_from(list(HeldAction))),
    ),
    max_size=20,
)


def channel(exhausted: ExhaustedAction) -> Channel:
    return Channel(UID, "default", "*", "*", ChannelState.ACTIVE, 9, exhausted)


def storage_elements() -> StorageElements:
    return StorageElements(
        [
            StorageElementSettings(
                name=name, base_url=f"file:///{name}", vo_paths={"local": "/local"}
            )
            for name in "abc"
        ]
    )


def new_file(n: int, now: int) -> NewFile:
    """One of each kind: plain and registered, with a time by which it is to start, with two
    sources, with a stop on the way.
    """
    target, url = "storageElements/b", f"file:///b/local/{n}"
    here, there = Source(f"file:///a/local/{n}", "a"), Source(f"file:///c/local/{n}", "c")
    stop = Stop(f"file:///c/local/hop-{n}", "storageElements/c", "", stays=False)
    more = {
        PLAIN: None,
        DATED: MoreOfFile(queue_until_us=now),
        WITH_SOURCES: MoreOfFile(
            alternatives=Alternatives([here, there], Strategy.ORDERLY).to_json()
        ),
        WITH_HOPS: MoreOfFile(
            route=Route([stop, Stop(url, target, "", stays=True)]).to_json(), hop=1
        ),
    }
    on_the_way = n == WITH_HOPS
    return NewFile(
        n=n,
        source=here.name,
        target=url,
        target_url=stop.url if on_the_way else url,
        target_lfn=f"LFN:/local/{n}" if n == PLAIN else "",
        source_element="storageElements/a",
        target_element=stop.element if on_the_way else target,
        checksum=None,
        size_bytes=None,
        overwrite=0,
        state=int(FileState.READY),
        channel_uid=UID,
        rank=2,
        due_us=0,
        queue="local/",
        more=more[n],
    )


@dataclass
class World:
    """A store with one job, and who works on it."""

    db: Database
    channel: Channel
    elements: StorageElements
    channels: Channels
    feed: Feed
    moving: Moving
    uuid: str = ""
    claims: list[tuple[str, Claimed]] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    """The failures of each file that were taken, since it had all its retries."""
    bans: int = 0

    async def rows(self) -> list[FileRow]:
        found = await self.db.read(lambda conn: conn.execute(select(*FILE_COLUMNS)).all())
        return [FileRow._make(row) for row in found]

    async def job(self) -> JobRow:
        found = await self.db.read(lambda conn: conn.execute(select(*JOB_COLUMNS)).one())
        return JobRow._make(found)

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
            "counts": f'{{"{int(FileState.READY)}":{len(FILES)}}}',
            "placement": True,
            "overwrite": 1,
            "verify": 1,
            "max_retries": RETRIES,
            "priority": 3,
            "tags": "",
            "traceparent": "",
            "create_us": now,
            "update_us": now,
        }
        row = JobRow(**{**values, **given})
        files = [new_file(n, now) for n in FILES]
        message = messages.job_message(row)
        event = event_pb2.TransferEvent(event_id=uuid7(), transfer_job=message.name, job=message)
        new = NewTransferJob(None, row, files, event)
        await self.db.write(lambda conn: jobs.insert(conn, [new], feed=self.feed))

    async def claim(self, holder: str) -> None:
        def make_due(conn: Connection) -> None:
            conn.execute(update(FILE).where(file_in(DUE)).values(due_us=0))

        await self.db.write(make_due)
        request = ClaimRequest(
            [self.channel], 9, holder, timedelta(hours=1), POLICY, True, Standing()
        )
        (claims,) = await self.db.write(lambda conn: self.moving.claim(conn, [request]))
        assert not isinstance(claims, Exception)
        found = [one for place in claims.places for one in place if one is not None]
        self.claims += [(holder, one) for one in found]

    async def answer(self, index: int, failed: Failed | None) -> None:
        if not self.claims:
            return
        # Newer ones first, so that some of the answers are the newest attempt's.
        holder, claimed = self.claims[-1 - index % len(self.claims)]
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
        elif failed is not None:
            self.failures[before.n] += 1

    async def lose(self) -> None:
        def end_leases(conn: Connection) -> None:
            conn.execute(update(FILE).where(file_in(RUNNING)).values(lease_until_us=0))

        await self.db.write(end_leases)

    async def cancel(self) -> None:
        wish = Cancel(self.uuid, EVERYTHING)
        await self.db.write(
            lambda conn: cancels.cancel(conn, [wish], feed=self.feed, channels=self.channels)
        )

    async def cancel_file(self, n: int) -> None:
        wish = CancelFiles(self.uuid, [n], EVERYTHING)
        await self.db.write(
            lambda conn: cancels.cancel_files(conn, [wish], feed=self.feed, channels=self.channels)
        )

    async def late(self) -> None:
        found = await self.db.read(lambda conn: deadlines.late(conn, 10))
        await self.db.write(
            lambda conn: deadlines.end(conn, found, feed=self.feed, channels=self.channels)
        )

    async def expire(self) -> None:
        await self.db.write(lambda conn: conn.execute(update(JOB).values(expire_us=1)))
        await self.late()

    async def ban(self, bans: Sequence[Ban]) -> None:
        """Puts these bans in force, and has the files stand as they say."""
        self.bans += len(bans)
        self.elements.bans.replace(bans)
        reviews = [Review(row.number) for row in await self.rows()]
        await self.db.write(
            lambda conn: banned.review(
                conn, reviews, feed=self.feed, channels=self.channels, elements=self.elements
            )
        )

    async def settle_held(self, action: HeldAction) -> None:
        job = await self.job()
        wish = HeldFiles(action, job_number=job.number)
        is_held = [row.n for row in await self.rows() if row.state == FileState.HELD]
        await self.db.write(
            lambda conn: held.settle(conn, [wish], feed=self.feed, channels=self.channels)
        )
        for n in is_held:
            self.failures[n] = 0

    async def take(self, step: tuple[str, Any]) -> None:
        """Lets one thing happen."""
        what, given = step
        if what in ANSWERS:
            await self.answer(given, ANSWERS[what])
            return
        happenings: dict[str, Callable[[], Awaitable[None]]] = {
            "claim": lambda: self.claim(given),
            "lost": self.lose,
            "cancel": self.cancel,
            "cancel file": lambda: self.cancel_file(given),
            "late": self.late,
            "expired": self.expire,
            "ban": lambda: self.ban([ban_of(*given)]),
            "unban": lambda: self.ban([]),
            "held": lambda: self.settle_held(given),
        }
        await happenings[what]()

    async def finish(self) -> None:
        """Lets everything go on to its end: nothing is stuck, and nothing forgotten."""
        await self.ban([])
        for _ in range(6):
            await self.settle_held(HeldAction.RELEASE)
            await self.lose()
            self.claims.clear()
            await self.claim("last")
            for index in range(len(self.claims)):
                await self.answer(index, None)
            if all(row.state in FILE_FINAL for row in await self.rows()):
                return
        raise AssertionError([FileState(row.state).name for row in await self.rows()])

    async def check(self, before: dict[int, FileRow], step: tuple[str, Any]) -> None:
        """What holds after each step."""
        rows = await self.rows()
        for row in rows:
            if before[row.number].state in FILE_FINAL:
                assert row == before[row.number], step
            assert row.attempt >= before[row.number].attempt
            assert row.lease_epoch >= before[row.number].lease_epoch
            assert row.retries <= RETRIES
            # A round over all sources is one try; one that a ban came between is begun again.
            most = (RETRIES + 1) * SOURCES.get(row.n, 1)
            assert self.failures[row.n] <= most + self.bans * (row.n in SOURCES), row
        job = await self.job()
        kept = json.loads(job.counts)
        counts = {FileState(int(k)): n for k, n in kept.items() if k != messages.MOVED}
        assert counts == Counter(FileState(row.state) for row in rows), step
        assert job.state == job_state(
            counts,
            moved_uncatalogued=kept.get(messages.MOVED, 0),
            cancel_asked=job.cancel_us is not None,
            started=job.start_us is not None,
        )
        assert (job.end_us is not None) == all(row.state in FILE_FINAL for row in rows)


def ban_of(name: str, action: BanAction) -> Ban:
    return Ban(
        uid=uuid7(),
        element=f"storageElements/{name}",
        operations=frozenset(),
        vo="",
        action=action,
        wait_timeout_us=None,
        accept_submissions=False,
        expires_us=None,
        reason="repair",
        creator=SUE.to_json(),
        create_us=now_us(),
    )


async def live(folder: Path, told: Sequence[tuple[str, Any]], exhausted: ExhaustedAction) -> None:
    url = sqlite_url(folder / "transfer.sqlite")
    db = await Database.open(url, metadata=METADATA, migrations=None, migrate=False)
    try:
        only, elements = channel(exhausted), storage_elements()
        channels, feed = Channels([only]), Feed(db, FEED)
        order = SourceOrder(elements, Successes())
        retry, catalogue = RetryPolicy(0, 0), EmbeddedCatalogue(db, GroupCommit(db), elements)
        registering = Registering(feed, channels, elements, retry, catalogue)
        computable = frozenset({"ADLER32"})
        moving = Moving(feed, channels, elements, retry, computable, order, catalogue, registering)
        world = World(db, only, elements, channels, feed, moving)
        await world.submit()
        for step in told:
            before = {row.number: row for row in await world.rows()}
            await world.take(step)
            await world.check(before, step)
        await world.finish()
        await asyncio.to_thread(transfer_checks.moves_are_sound, url, 0)
    finally:
        await db.close()


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.sampled_from(list(ExhaustedAction)))
def test_no_order_of_things_changes_what_is_final_or_takes_a_stale_answer(
    told: list[tuple[str, Any]], exhausted: ExhaustedAction
) -> None:
    with TemporaryDirectory(dir=memory.folder(_ROOM_BYTES)) as folder:
        asyncio.run(live(Path(folder), told, exhausted))
