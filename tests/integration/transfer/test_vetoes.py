"""Files that were submitted before the rights of their owner changed: held, let go, cancelled."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit.clock import now_us
from gridlane_kit.policy import Binding, Policy, Role, WorkAction
from gridlane_transfer.moving.standing_files import StandingFiles

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

ISSUER = "https://issuer.test/"
BYTES = 500 << 20


def sparse(path: Path, size: int = BYTES) -> str:
    """A file whose copy takes a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path.as_uri()


def bind(house: Any, *more: Binding, without: Iterable[str] = ()) -> None:
    """Puts a policy in force: the first bindings, less those of some, and more."""
    kept = [binding for binding in house.bindings if binding.subject not in set(without)]
    revision = house.policy.current.revision + 1
    house.policy.replace(Policy(revision, [*kept, *more], vos=["local", "other"]))


def veto(
    queued: WorkAction = WorkAction.HOLD,
    running: WorkAction = WorkAction.KEEP,
    expires_us: int | None = None,
) -> Binding:
    return Binding(
        ISSUER,
        "sue",
        Role.VETOED,
        expires_us=expires_us,
        queued_work=queued,
        running_work=running,
    )


class Queue:
    """A house that copies one file at a time, which is busy with one of sue's: with a long one, or
    with one whose copy is halted until it may go on.
    """

    def __init__(self, house: Any) -> None:
        self.house = house
        self.sue, self.admin = house.client("sue"), house.client("admin")

    async def fill(self, *, halted: bool = False) -> transfer_job_pb2.TransferJob:
        """Submits a job of two files, of which the first is being copied."""
        if halted:
            self._signal(signal.SIGSTOP)
            big = self.house.file("local/big")
        else:
            big = sparse(self.house.storage / "local/big")
        small = self.house.file("local/a")
        job = await self.sue.submit((big, "LFN:/local/copy"), (small, "LFN:/local/b"))
        await self.admin.in_state(job.name, "ACTIVE")
        return job

    def go_on(self) -> None:
        """Has the copy that was halted go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.house.room.mover.pids:
            os.kill(pid, number)

    async def states(self, name: str, *wanted: str, seconds: float = 30) -> Any:
        """Waits until the files of a job are in some states; the job."""
        numbers = [
            transfer_job_pb2.FileTransferState.Value(f"FILE_TRANSFER_STATE_{w}") for w in wanted
        ]
        async with asyncio.timeout(seconds):
            while True:
                job = await self.admin.get(name)
                if [file.state for file in job.files] == numbers:
                    return job
                await asyncio.sleep(0.01)


@pytest.fixture
async def queue(start_house: Any) -> AsyncIterator[Queue]:
    queue = Queue(await start_house(given={"max_files": 1}))
    yield queue
    queue.go_on()


async def test_a_veto_holds_what_is_queued_and_its_end_lets_it_go(queue: Queue, words: Any) -> None:
    job = await queue.fill(halted=True)
    bind(queue.house, veto())
    held = await queue.states(job.name, "ACTIVE", "HELD", seconds=5)
    assert words.failure(held, 1) == "PERMISSION"
    assert held.files[1].failure.recoverable
    assert "sue is vetoed" in held.files[1].failure.message
    assert held.files[1].failure.cure == "ask an administrator to end the veto"
    queue.go_on()
    await queue.states(job.name, "FINISHED", "HELD")
    assert words.job(await queue.admin.get(job.name)) == "HELD"
    assert not (queue.house.storage / "local/b").exists()
    bind(queue.house)
    ended = await queue.sue.ended(job.name)
    assert words.job(ended) == "FINISHED"
    assert not ended.files[1].HasField("failure")


async def test_a_role_that_is_lost_holds_what_is_queued_until_it_is_back(
    queue: Queue, words: Any
) -> None:
    job = await queue.fill(halted=True)
    bind(queue.house, without=["sue"])
    held = await queue.states(job.name, "ACTIVE", "HELD", seconds=5)
    assert "sue may not submit transfers for the VO local" in held.files[1].failure.message
    queue.go_on()
    bind(queue.house)
    assert words.job(await queue.sue.ended(job.name, seconds=60)) == "FINISHED"


async def test_a_veto_that_keeps_work_stops_none(queue: Queue, words: Any) -> None:
    job = await queue.fill()
    bind(queue.house, veto(WorkAction.KEEP))
    assert words.job(await queue.admin.ended(job.name, seconds=60)) == "FINISHED"
    assert "file HELD" not in await queue.admin.history(job.name)


async def test_a_veto_cancels_what_is_queued_and_what_runs_goes_on(
    queue: Queue, words: Any
) -> None:
    job = await queue.fill(halted=True)
    bind(queue.house, veto(WorkAction.CANCEL))
    canceled = await queue.states(job.name, "ACTIVE", "CANCELED", seconds=5)
    assert words.failure(canceled, 1) == "PERMISSION"
    assert canceled.files[1].failure.cure
    queue.go_on()
    ended = await queue.admin.ended(job.name, seconds=60)
    assert (words.files(ended), words.job(ended)) == (["FINISHED", "CANCELED"], "CANCELED")
    bind(queue.house)
    assert words.files(await queue.sue.get(job.name)) == ["FINISHED", "CANCELED"]


async def test_a_veto_cancels_what_runs(queue: Queue, words: Any) -> None:
    job = await queue.fill()
    bind(queue.house, veto(WorkAction.CANCEL, WorkAction.CANCEL))
    ended = await queue.admin.ended(job.name, seconds=20)
    assert words.files(ended) == ["CANCELED", "CANCELED"]
    assert [words.failure(ended, n) for n in (0, 1)] == ["PERMISSION", "PERMISSION"]
    assert ended.failure.message.startswith("cancelled: sue is vetoed")
    assert queue.house.leftovers() == []
    assert not (queue.house.storage / "local/copy").exists()


async def test_a_veto_with_an_end_holds_until_then(queue: Queue, words: Any) -> None:
    job = await queue.fill()
    ends_us = now_us() + 5_000_000
    bind(queue.house, veto(WorkAction.HOLD, WorkAction.CANCEL, expires_us=ends_us))
    await queue.states(job.name, "CANCELED", "HELD", seconds=5)
    ended = await queue.admin.ended(job.name)
    assert now_us() >= ends_us
    assert words.files(ended) == ["CANCELED", "FINISHED"]


async def test_a_veto_of_a_group_holds_the_work_of_its_members_alone(
    queue: Queue, words: Any
) -> None:
    house = queue.house
    first = await queue.fill(halted=True)
    member = house.client("sue", groups=["/local/team"])
    theirs = await member.submit((house.file("local/c"), "LFN:/local/d"))
    bind(house, Binding("", "", Role.VETOED, "local", group="/local/team"))
    await queue.states(theirs.name, "HELD", seconds=5)
    assert words.files(await queue.admin.get(first.name)) == ["ACTIVE", "READY"]


async def test_who_is_vetoed_while_the_service_is_away_finds_the_work_held(queue: Queue) -> None:
    job = await queue.fill()
    await queue.house.stop()
    bind(queue.house, veto(WorkAction.HOLD, WorkAction.HOLD))
    await queue.house.start()
    queue.admin = queue.house.client("admin")
    await queue.states(job.name, "HELD", "HELD", seconds=5)
    bind(queue.house)
    await queue.states(job.name, "FINISHED", "FINISHED")


@pytest.mark.parametrize("action", [WorkAction.HOLD, WorkAction.CANCEL])
async def test_a_file_that_was_overlooked_is_stopped_when_its_turn_comes(
    start_house: Any, monkeypatch: pytest.MonkeyPatch, action: WorkAction
) -> None:
    async def overlooked(*_: Any) -> bool:
        return True

    monkeypatch.setattr(StandingFiles, "look", overlooked)
    queue = Queue(await start_house(given={"max_files": 1}))
    job = await queue.fill(halted=True)
    bind(queue.house, veto(action))
    queue.go_on()
    stopped = "HELD" if action is WorkAction.HOLD else "CANCELED"
    await queue.states(job.name, "FINISHED", stopped)
    assert not (queue.house.storage / "local/b").exists()


async def test_a_copy_that_lost_its_process_is_cleaned_up_after_and_cancelled(
    queue: Queue, words: Any
) -> None:
    job = await queue.fill()
    await queue.house.stop()
    bind(queue.house, veto(WorkAction.CANCEL, WorkAction.CANCEL))
    await queue.house.start()
    queue.admin = queue.house.client("admin")
    ended = await queue.states(job.name, "CANCELED", "CANCELED")
    assert words.failure(ended) == "PERMISSION"
    assert queue.house.leftovers() == []


async def test_nothing_is_read_of_those_whose_rights_stayed(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gridlane_transfer.store import standing

    job = await queue.fill(halted=True)
    looked: list[Any] = []
    unfinished = standing.unfinished

    def noted(conn: Any, owners: Any, after: int) -> Any:
        looked.append(owners)
        return unfinished(conn, owners, after)

    monkeypatch.setattr(standing, "unfinished", noted)
    before = queue.house.policy.current
    bind(queue.house, Binding(ISSUER, "eve", Role.VETOED))
    await asyncio.sleep(0.2)
    queue.house.policy.replace(Policy(9, [*before.bindings, veto()], vos=["local", "other"]))
    await queue.states(job.name, "ACTIVE", "HELD", seconds=5)
    eve, sue = f"{ISSUER}|eve", f"{ISSUER}|sue"
    assert looked[0] == [eve]
    assert set().union(*looked) == {eve, sue}


async def test_files_of_a_stream_are_held_before_they_are_on_their_channels(
    house: Any, words: Any
) -> None:
    sweeps = house.room._started.verbs.sweeps
    await sweeps.stop()
    sue, admin = house.client("sue"), house.client("admin")
    streamed = await stream(sue, house.file("local/a"), "LFN:/local/b")
    later = await sue.submit((sparse(house.storage / "local/big"), "LFN:/local/copy"))
    bind(house, veto(running=WorkAction.CANCEL))
    async with asyncio.timeout(20):
        while words.files(await admin.get(streamed)) != ["HELD"]:
            await asyncio.sleep(0.02)
    assert words.files(await admin.ended(later.name)) == ["CANCELED"]
    sweeps.start()
    bind(house)
    assert words.job(await sue.ended(streamed)) == "FINISHED"


async def stream(client: Any, source: str, target: str) -> str:
    async def requests() -> AsyncIterator[transfer_service_pb2.SubmitTransferJobStreamRequest]:
        header = transfer_service_pb2.SubmitTransferJobHeader(
            transfer_job=transfer_job_pb2.TransferJob()
        )
        yield transfer_service_pb2.SubmitTransferJobStreamRequest(header=header)
        files = [transfer_job_pb2.FileTransfer(source=source, target=target)]
        yield transfer_service_pb2.SubmitTransferJobStreamRequest(
            files=transfer_service_pb2.FileTransferChunk(files=files)
        )

    job = await client.jobs.SubmitTransferJobStream(requests())
    return str(job.name)
