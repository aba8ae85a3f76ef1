"""Kills, from every state that a job can be caught in."""

import asyncio
import os
from pathlib import Path

import grpc
import pytest
from grpc import aio

from gridlane.transfer.v1 import transfer_service_pb2_grpc
from gridlane.transfer.v1.transfer_job_pb2 import TransferJobState
from gridlane.transfer.v1.transfer_service_pb2 import GetTransferJobRequest
from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobInput
from gridlane_workload import states

from .conftest import Grid, MakeGrid, User, words

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])


async def one_runs_and_one_waits(make_grid: MakeGrid) -> tuple[User, Job, Job]:
    """A user, and a job of hers that runs in the only place for which another one waits."""
    ada = await (await make_grid(max_running=1)).user("ada")
    running = await ada.submit("sleep", "60")
    await ada.reached(running.name, states.RUNNING)
    waiting = await ada.submit("echo", "never")
    await ada.reached(waiting.name, states.WAITING)
    return ada, running, waiting


async def test_a_waiting_job_is_killed_at_once(make_grid: MakeGrid) -> None:
    ada, running, waiting = await one_runs_and_one_waits(make_grid)
    killed = await ada.kill(waiting.name)
    assert killed.state == states.KILLED
    assert killed.HasField("end_time")
    await ada.kill(running.name)
    await ada.ended(running.name)
    assert (await ada.get(waiting.name)).state == states.KILLED
    assert await ada.log(waiting.name) == b""


async def test_a_kill_is_idempotent_and_leaves_what_has_ended(ada: User) -> None:
    job = await ada.submit("true")
    done = await ada.ended(job.name)
    assert await ada.kill(job.name) == done
    job = await ada.submit("sleep", "60")
    await ada.reached(job.name, states.RUNNING)
    first, second = await asyncio.gather(ada.kill(job.name), ada.kill(job.name))
    assert first.revision == second.revision
    ended = await ada.ended(job.name)
    assert ended.state == states.KILLED
    assert await ada.kill(job.name) == ended


async def test_the_reason_of_a_kill_is_in_the_history_and_in_the_failure(
    make_grid: MakeGrid,
) -> None:
    ada, running, waiting = await one_runs_and_one_waits(make_grid)
    await ada.kill(waiting.name, "wrong dataset")
    killing = await ada.kill(running.name, "wrong dataset")
    # The first one stays.
    await ada.kill(running.name, "something else")
    for job in (killing, await ada.ended(running.name), await ada.ended(waiting.name)):
        assert job.failure.failure_class == FailureClass.FAILURE_CLASS_CANCELED
        assert job.failure.message == "a kill was asked for by ada: wrong dataset"
        told = [event.message for event in await ada.history(job.name)]
        assert told.count(job.failure.message) == 1
        assert not any("something else" in message for message in told)


async def test_a_reason_has_its_limit(ada: User) -> None:
    job = await ada.submit("true")
    assert (await ada.kill(job.name, "x" * 1024)).name == job.name
    with pytest.raises(aio.AioRpcError) as refused:
        await ada.kill(job.name, "x" * 1025)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_kills_race_with_starts_and_nothing_runs_after_one(
    make_grid: MakeGrid, tmp_path_factory: pytest.TempPathFactory
) -> None:
    grid = await make_grid(max_running=4)
    ada = await grid.user("ada")
    marks = tmp_path_factory.mktemp("marks")
    names = [(await ada.submit("sh", "-c", f"touch {marks}/{i}; sleep 60")).name for i in range(8)]
    for delay, name in enumerate(names):
        await asyncio.sleep(0.02 * delay)
        await ada.kill(name)
    for name in names:
        ended = await ada.ended(name)
        assert ended.state == states.KILLED
        assert words(await ada.history(name)).count("KILLED") == 1
    touched = names_in(marks)
    await asyncio.sleep(0.5)
    assert names_in(marks) == touched


async def test_a_job_killed_while_its_inputs_come_cancels_their_transfer(
    grid: Grid, ada: User
) -> None:
    large = grid.stored("large")
    large.parent.mkdir(parents=True, exist_ok=True)
    large.touch()
    os.truncate(large, 1 << 30)
    job = await ada.submit("true", inputs=[JobInput(path="a", source=large.as_uri())])
    async with asyncio.timeout(20), aio.insecure_channel(grid.server.address) as channel:
        while not (present := await ada.get(job.name)).stage_in_transfer:
            await asyncio.sleep(0.01)
        assert (await ada.kill(job.name)).state == states.KILLED
        transfers = transfer_service_pb2_grpc.TransferServiceStub(channel)
        asked = GetTransferJobRequest(name=present.stage_in_transfer)
        while True:
            transfer = await transfers.GetTransferJob(asked, metadata=ada.metadata)
            assert transfer.state != TransferJobState.TRANSFER_JOB_STATE_FINISHED
            if transfer.state == TransferJobState.TRANSFER_JOB_STATE_CANCELED:
                return
            await asyncio.sleep(0.05)
