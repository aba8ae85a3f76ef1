"""What goes wrong around a job: peers away, events that never come, defects, restarts, old age."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.type.v1.feed_pb2 import FeedPosition
from gridlane.workload.v1.event_service_pb2 import AckJobEventsRequest, FollowJobEventsRequest
from gridlane.workload.v1.job_pb2 import JobInput, JobOutput
from gridlane_kit.call import later
from gridlane_kit.identity import service_principal
from gridlane_kit.sqlite import sqlite_file
from gridlane_kit.telemetry import Telemetry
from gridlane_workload import reconciler, states, steps, transfers

from .conftest import Grid, MakeGrid, refused, words


def put(grid: Grid, name: str) -> str:
    path = grid.stored(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
    return path.as_uri()


async def test_a_transfer_service_that_is_away_delays_the_job_and_loses_nothing(
    make_grid: MakeGrid,
) -> None:
    grid = await make_grid(with_transfer=False)
    ada = await grid.user("ada")
    job = await ada.submit("cat", "a", inputs=[JobInput(path="a", source=put(grid, "input"))])
    await ada.reached(job.name, states.STAGING)
    await asyncio.sleep(1.5)
    assert (await ada.get(job.name)).state == states.STAGING
    await grid.stack.aclose()
    ada = await (await make_grid()).user("ada")
    assert (await ada.ended(job.name)).state == states.DONE
    assert await ada.log(job.name) == b"input"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_what_no_event_tells_is_found_by_polling_in_bulk(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(transfers.Transfers, "follow", deaf)
    grid = await make_grid(poll_s=0.3)
    ada = await grid.user("ada")
    source = put(grid, "input")
    names = [
        (
            await ada.submit(
                "cp",
                "a",
                "b",
                inputs=[JobInput(path="a", source=source)],
                outputs=[JobOutput(path="b", target=f"LFN:/local/copy-{i}")],
            )
        ).name
        for i in range(4)
    ]
    for i, name in enumerate(names):
        assert (await ada.ended(name)).state == states.DONE
        assert grid.stored(f"copy-{i}").read_text() == "input"


async def test_a_defect_in_a_step_fails_its_job_in_the_end_and_no_other(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the secret of a step")

    monkeypatch.setattr(steps, "_STAGE_IN_PREPARED", broken)
    monkeypatch.setattr(reconciler, "_FIRST_RETRY_S", 0.001)
    grid = await make_grid(max_retry_delay_s=0.02)
    ada = await grid.user("ada")
    bad = await ada.submit("true", inputs=[JobInput(path="a", source=put(grid, "input"))])
    good = await ada.submit("true")
    ended = await ada.ended(bad.name)
    assert ended.failure.failure_class == FailureClass.FAILURE_CLASS_INTERNAL
    assert "secret" not in ended.failure.message, "what happened inside is for the log"
    assert (await ada.ended(good.name)).state == states.DONE


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_running_payload_is_adopted_by_the_next_server(make_grid: MakeGrid) -> None:
    grid = await make_grid()
    ada = await grid.user("ada")
    job = await ada.submit("sh", "-c", "echo begun; sleep 1.5; echo through; exit 3")
    await ada.reached(job.name, states.RUNNING)
    await grid.stack.aclose()
    ada = await (await make_grid()).user("ada")
    ended = await ada.ended(job.name)
    assert (ended.exit_code, ended.attempt) == (3, 1)
    assert await ada.log(job.name) == b"begun\nthrough\n"
    assert words(await ada.history(job.name)).count("RUNNING") == 1


async def test_an_end_that_nobody_saw_is_read_at_the_next_start(make_grid: MakeGrid) -> None:
    grid = await make_grid()
    ada = await grid.user("ada")
    job = await ada.submit("sh", "-c", "sleep 0.3; exit 3")
    await ada.reached(job.name, states.RUNNING)
    await grid.stack.aclose()
    await asyncio.sleep(0.8)
    ada = await (await make_grid()).user("ada")
    assert (await ada.ended(job.name)).exit_code == 3


async def prune(grid: Grid) -> int:
    return await grid.room.retention.prune()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_ended_jobs_are_deleted_with_their_directories_and_nothing_else(
    make_grid: MakeGrid,
) -> None:
    grid = await make_grid(keep_finished_days=0, keep_directories_days=0, prune_interval_s=3600)
    ada = await grid.user("ada")
    done, running = await ada.submit("true"), await ada.submit("sleep", "60")
    await ada.ended(done.name)
    await ada.reached(running.name, states.RUNNING)
    stray = grid.data.jobs / "not-a-job"
    stray.mkdir()
    assert await prune(grid) == 1
    assert (await refused(ada.get(done.name)))[1] == "NOT_FOUND"
    assert (await ada.get(running.name)).state == states.RUNNING
    left = {path.name for path in grid.data.jobs.iterdir()}
    assert left == {running.name.removeprefix("jobs/"), stray.name}
    await ada.kill(running.name)
    await ada.ended(running.name)


async def test_logs_of_a_deleted_directory_are_said_to_be_gone(make_grid: MakeGrid) -> None:
    grid = await make_grid(keep_directories_days=0, prune_interval_s=3600)
    ada = await grid.user("ada")
    job = await ada.submit("echo", "hello")
    await ada.ended(job.name)
    assert await prune(grid) == 0
    assert (await ada.get(job.name)).state == states.DONE
    assert (await refused(ada.log(job.name)))[1] == "PRECONDITION"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_nothing_is_deleted_that_a_follower_has_not_taken(make_grid: MakeGrid) -> None:
    grid = await make_grid(keep_finished_days=0, keep_directories_days=0, prune_interval_s=3600)
    ada = await grid.user("ada")
    with later(Telemetry("test"), "test", service_principal("reporting"), timeout_s=20) as caller:
        feed = grid.reporting.workload_events(caller)
        first = await ada.submit("true")
        await ada.ended(first.name)
        position = FeedPosition()
        async for page in feed.FollowJobEvents(FollowJobEventsRequest()):
            position = page.position
            if page.events[-1].state == states.DONE:
                break
        begun = FeedPosition(epoch=position.epoch, position=1)
        await feed.AckJobEvents(AckJobEventsRequest(consumer="reporting", position=begun))
        assert await prune(grid) == 0
        assert words(await ada.history(first.name))[-1] == "DONE"
        await feed.AckJobEvents(AckJobEventsRequest(consumer="reporting", position=position))
        assert await prune(grid) == 1


async def test_steps_left_by_a_process_that_died_are_taken_at_once(
    make_grid: MakeGrid, tmp_path: Path, database_url: str
) -> None:
    grid = await make_grid()
    ada = await grid.user("ada")
    go = tmp_path / "go"
    job = await ada.submit("sh", "-c", f"while [ ! -e {go} ]; do sleep 0.05; done")
    await ada.reached(job.name, states.RUNNING)
    await grid.stack.aclose()
    file = sqlite_file(database_url)
    assert file is not None
    with closing(sqlite3.connect(file)) as database, database:
        in_an_hour = "(unixepoch() + 3600) * 1000000"
        database.execute(f"UPDATE job SET lease_holder = 'gone', lease_until_us = {in_an_hour}")  # noqa: S608
    go.touch()
    ada = await (await make_grid()).user("ada")
    assert (await ada.ended(job.name)).state == states.DONE
