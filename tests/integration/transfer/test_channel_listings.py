"""What the manager of a channel lists and counts: the jobs that have files there, each once."""

from datetime import timedelta
from typing import Any

import pytest
from grpc import RpcError, StatusCode
from integration.transfer.channel_calls import ISSUER, Admin, let_manage
from query_plans import plans
from sqlalchemy import String, Text, delete, func, insert, select, text

from gridlane.transfer.v1 import channel_pb2
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane_kit.clock import now_us
from gridlane_kit.decision import Visibility
from gridlane_kit.pages import Page
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_transfer.jobs.transfer_jobs import FILTER
from gridlane_transfer.states import FileState, JobState
from gridlane_transfer.store import channel_jobs, jobs
from gridlane_transfer.store.changes import Changes
from gridlane_transfer.store.tables import FILE, JOB, JOB_CHANNEL

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


class Lane:
    """Two channels that bob manages, of which the second is used by one job, and sue's jobs."""

    def __init__(self, house: Any, sue: Any, uids: list[str]) -> None:
        self.house, self.sue, self.uids = house, sue, uids
        self.bob = house.client("bob")
        self.db = house.room._started.db

    async def submit(self, *targets: Any) -> str:
        source = self.house.file("local/a")
        pairs = [
            (source, (target / f"{now_us()}-{n}").as_uri()) for n, target in enumerate(targets)
        ]
        return str((await self.sue.submit(*pairs)).name)

    async def listed(self, **asked: Any) -> list[str]:
        """The names on all pages of two."""
        names, token = [], ""
        while True:
            page = await self.bob.jobs.ListTransferJobs(
                rpc.ListTransferJobsRequest(page_size=2, page_token=token, **asked)
            )
            names += [job.name for job in page.transfer_jobs]
            token = page.next_page_token
            if not token:
                return names

    async def move(self, name: str, uid: str) -> None:
        """Have the files of a job go on by another channel."""
        parts = self.house.room._started
        uuid = name.partition("/")[2]

        def moved(conn: Any) -> None:
            job, files = jobs.read_with_files(conn, [uuid])[uuid]
            changes = Changes(conn, parts.feed, parts.channels, now_us())
            changes.load([job.number])
            for row in files:
                changes.file(row, FileState(row.state), channel_uid=uid)
            changes.save()

        await self.db.write(moved)

    async def rows(self) -> int:
        count = select(func.count()).select_from(JOB_CHANNEL)
        return int(await self.db.read(lambda conn: conn.execute(count).scalar_one()))


@pytest.fixture
async def lane(house: Any, sue: Any) -> Lane:
    admin, uids = Admin(house, "admin"), []
    for name, ends in (("lane", ("local", "mirror")), ("back", ("local", "local"))):
        state = channel_pb2.CHANNEL_STATE_INACTIVE
        made = await admin.create(name, source=ends[0], target=ends[1], state=state)
        let_manage(house, "bob", made)
        uids.append(made.uid)
    return Lane(house, sue, uids)


async def test_jobs_are_listed_newest_first_and_once(lane: Lane) -> None:
    mirror, local = lane.house.mirror / "local", lane.house.storage / "local"
    names = [await lane.submit(mirror, mirror, mirror) for _ in range(3)]
    names.append(await lane.submit(local, mirror, local))
    await lane.sue.submit(("LFN:/local/none", "LFN:/local/elsewhere"))
    assert await lane.listed() == names[::-1]
    assert await lane.listed(filter="vo = local") == names[::-1]
    assert await lane.listed(filter="state = READY") == names[::-1]
    assert await lane.listed(filter="state = FINISHED") == []
    assert await lane.rows() == 6


async def test_ended_jobs_are_listed_too_and_all_are_counted(lane: Lane) -> None:
    mirror = lane.house.mirror / "local"
    names = [await lane.submit(mirror, mirror) for _ in range(3)]
    await lane.sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=names[1]))
    assert await lane.listed(filter="state = CANCELED") == [names[1]]
    assert await lane.listed() == names[::-1]
    summary = await lane.bob.jobs.SummarizeTransferJobs(rpc.SummarizeTransferJobsRequest())
    assert sum(one.count for one in summary.jobs) == 3


async def test_a_job_that_has_left_a_channel_is_not_seen_there(lane: Lane) -> None:
    elsewhere = await lane.sue.submit(("LFN:/local/none", "LFN:/local/elsewhere"))
    number = select(JOB.c.number).where(JOB.c.uuid == elsewhere.name.partition("/")[2])

    def was_there(conn: Any) -> None:
        found = conn.execute(number).scalar_one()
        channel_jobs.note(conn, {(lane.uids[0], found)})
        channel_jobs.note(conn, {(lane.uids[0], found), (lane.uids[1], found)})

    await lane.db.write(was_there)
    assert await lane.rows() == 3
    assert await lane.listed() == []
    summary = await lane.bob.jobs.SummarizeTransferJobs(rpc.SummarizeTransferJobsRequest())
    assert list(summary.jobs) == []


async def test_who_manages_one_channel_sees_nothing_of_another(lane: Lane) -> None:
    mirror, local = lane.house.mirror / "local", lane.house.storage / "local"
    policy = lane.house.policy.current
    alone = Binding(ISSUER, "bob", Role.CHANNEL_MANAGER, channel_uid=lane.uids[1])
    others = [one for one in policy.bindings if one.subject != "bob"]
    lane.house.policy.replace(Policy(policy.revision + 1, [*others, alone], vos=policy.vos))
    hidden = await lane.submit(mirror)
    seen = [await lane.submit(local), await lane.submit(local, mirror)]
    assert await lane.listed() == seen[::-1]
    assert await lane.listed(filter="state = READY") == seen[::-1]
    with pytest.raises(RpcError) as caught:
        await lane.bob.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=hidden))
    assert caught.value.code() is StatusCode.PERMISSION_DENIED
    summary = await lane.bob.jobs.SummarizeTransferJobs(rpc.SummarizeTransferJobsRequest())
    assert sum(one.count for one in summary.jobs) == 2
    await lane.move(seen[0], lane.uids[0])
    await lane.move(hidden, lane.uids[1])
    assert await lane.listed() == [seen[1], hidden]


async def test_pages_are_whole_while_jobs_come_and_go(lane: Lane) -> None:
    mirror = lane.house.mirror / "local"
    names = [await lane.submit(mirror) for _ in range(6)]
    asked = rpc.ListTransferJobsRequest(page_size=2)
    first = await lane.bob.jobs.ListTransferJobs(asked)
    assert [job.name for job in first.transfer_jobs] == [names[5], names[4]]
    await lane.submit(mirror)
    await lane.move(names[5], "")
    await lane.move(names[3], "")
    asked.page_token = first.next_page_token
    second = await lane.bob.jobs.ListTransferJobs(asked)
    assert [job.name for job in second.transfer_jobs] == [names[2], names[1]]
    await lane.move(names[3], lane.uids[1])
    asked.page_token = second.next_page_token
    third = await lane.bob.jobs.ListTransferJobs(asked)
    assert ([job.name for job in third.transfer_jobs], third.next_page_token) == ([names[0]], "")


async def test_what_an_older_version_took_is_noted_later(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_jobs, "PAGE", 2)
    retention = lane.house.room._started.retention
    mirror = lane.house.mirror / "local"
    taken: list[str] = []
    for _ in range(3):
        await lane.submit(mirror)  # by this version
        names = [await lane.submit(mirror, mirror) for _ in range(3)]
        taken += names
        uuids = [name.partition("/")[2] for name in names]
        numbers = select(JOB.c.number).where(JOB.c.uuid.in_(uuids))
        unnoted = delete(JOB_CHANNEL).where(JOB_CHANNEL.c.job_number.in_(numbers))
        await lane.db.write(lambda conn, unnoted=unnoted: conn.execute(unnoted))
        assert set(names).isdisjoint(await lane.listed())
        await retention.prune()
        assert set(taken) <= set(await lane.listed())
    assert await lane.rows() == 12


async def test_what_is_noted_goes_with_the_job(lane: Lane) -> None:
    name = await lane.submit(lane.house.mirror / "local")
    await lane.sue.jobs.CancelTransferJob(rpc.CancelTransferJobRequest(name=name))
    await lane.house.room._started.feed.prune(timedelta(0))
    deleted = await lane.db.write(lambda conn: jobs.delete_ended(conn, now_us() + 1, 10))
    assert (deleted, await lane.rows()) == (1, 0)


async def test_a_page_goes_along_the_jobs_of_each_channel(lane: Lane, engine: str) -> None:
    many = 3000
    nothing = {column.name: 0 for column in JOB.columns if not column.nullable}
    texts = {"counts": "{}", "tags": "", "principal": "{}", "traceparent": "", "owner": "o"}
    job = nothing | texts | {"vo": "local", "state": int(JobState.FINISHED), "placement": False}
    file = {column.name: 0 for column in FILE.columns if not column.nullable} | {
        column.name: "" for column in FILE.columns if isinstance(column.type, String | Text)
    }

    def fill(conn: Any) -> None:
        for start in range(10_000, 10_000 + many, 1000):
            numbers = range(start, start + 1000)
            conn.execute(insert(JOB), [{**job, "number": n, "uuid": f"u{n}"} for n in numbers])
            files = [{**file, "number": n, "job_number": n, "n": 1} for n in numbers]
            uid = lane.uids[0]
            conn.execute(insert(FILE), [one | {"channel_uid": uid} for one in files])
            channel_jobs.note_new(conn, [(uid, n) for n in numbers])

    await lane.db.write(fill)
    if engine == "postgresql":
        await lane.db.write(lambda conn: conn.execute(text("ANALYZE")))
    reach = Visibility(owner="nobody", channels=frozenset(lane.uids))
    for token in ([11_000], None):
        asked = Page(50, token, b"")
        for words in ("", "state = FINISHED", "vo = local"):
            filter_ = FILTER.parse(words)

            def read(conn: Any, asked: Page = asked, filter_: Any = filter_) -> Any:
                return jobs.page(conn, reach, filter_, asked)

            rows, _ = await lane.db.read(read)
            newest = 10_999 if token else 10_000 + many - 1
            assert [row.number for row in rows] == list(range(newest, newest - 50, -1))
            plan = await lane.db.read(lambda conn, read=read: plans(conn, read))
            assert {"sqlite": "job_channel USING", "postgresql": "pk_job_channel"}[engine] in plan
            assert "Seq Scan on transfer_job" not in plan, plan
            assert "Seq Scan on file_transfer" not in plan, plan
            assert "SCAN transfer_job" not in plan, plan
    plan = await lane.db.read(lambda conn: plans(conn, lambda conn: channel_jobs.unnoted(conn, 5)))
    assert "SCAN" not in plan, plan
    assert "Seq Scan on transfer_job" not in plan, plan
