"""Jobs that were submitted before the rights of their owner changed: held, let go, ended."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridlane.type.v1.failure_pb2 import FailureClass
from gridlane.workload.v1.job_pb2 import Job, JobInput, JobOutput
from gridlane_kit.policy import Binding, Policy, Role, WorkAction
from gridlane_workload import rights, states

from .conftest import ISSUER, PATIENCE_S, POLICY, Grid, MakeGrid, User, words

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

KEEP, HOLD, CANCEL = WorkAction
BYTES = 300 << 20


def bob_vetoed(queued: WorkAction = HOLD, running: WorkAction = KEEP) -> Policy:
    veto = Binding(ISSUER, "bob", Role.VETOED, queued_work=queued, running_work=running)
    return Policy(2, [*POLICY.bindings, veto], vos=POLICY.vos)


def bob_without_his_role() -> Policy:
    left = [binding for binding in POLICY.bindings if binding.subject != "bob"]
    return Policy(2, left, vos=POLICY.vos)


def given_back() -> Policy:
    return Policy(3, POLICY.bindings, vos=POLICY.vos)


def class_of(job: Job) -> str:
    return FailureClass.Name(job.failure.failure_class).removeprefix("FAILURE_CLASS_")


async def until(user: User, name: str, holds: Callable[[Job], bool]) -> Job:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(job := await user.get(name)):
            await asyncio.sleep(0.02)
    return job


async def held(user: User, name: str) -> Job:
    return await until(user, name, lambda job: job.HasField("hold"))


def input_that_takes_a_while(grid: Grid) -> JobInput:
    path = grid.stored("big")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(BYTES)
    return JobInput(path="big", source=path.as_uri())


async def waiting(grid: Grid) -> tuple[User, User, Job, Job]:
    """Ada's job runs in the only place, bob's waits for it; root looks on."""
    ada, bob, root = [await grid.user(name) for name in ("ada", "bob", "root")]
    long = await ada.submit("sleep", "60")
    await ada.reached(long.name, states.RUNNING)
    job = await bob.submit("sh", "-c", "echo ran")
    await bob.reached(job.name, states.WAITING)
    return ada, root, long, job


@pytest.mark.parametrize("lost", [bob_vetoed, bob_without_his_role])
async def test_a_job_that_waits_is_held_and_goes_on_by_itself(
    make_grid: MakeGrid, lost: Callable[[], Policy]
) -> None:
    grid = await make_grid(max_running=1)
    ada, root, long, job = await waiting(grid)
    grid.policy.replace(lost())
    stopped = await held(root, job.name)
    assert (stopped.state, stopped.hold.by) == (states.WAITING, "authorization")
    assert "bob" in stopped.hold.reason
    assert "it goes on by itself when that ends; ask an administrator" in stopped.hold.reason
    assert not stopped.HasField("failure")
    await ada.kill(long.name)
    await ada.ended(long.name)
    after = await ada.submit("true")
    assert (await ada.ended(after.name)).state == states.DONE
    assert (await root.get(job.name)).state == states.WAITING
    grid.policy.replace(given_back())
    ended = await root.ended(job.name)
    assert (ended.state, ended.attempt, ended.HasField("hold")) == (states.DONE, 1, False)
    assert await root.log(job.name) == b"ran\n"
    said = [event.hold.by for event in await root.history(job.name) if event.HasField("hold")]
    assert said == ["authorization"]


async def test_a_job_that_waits_is_ended_where_the_veto_says_so(make_grid: MakeGrid) -> None:
    grid = await make_grid(max_running=1)
    _, root, _, job = await waiting(grid)
    grid.policy.replace(bob_vetoed(CANCEL))
    ended = await root.ended(job.name)
    assert (ended.state, class_of(ended)) == (states.KILLED, "PERMISSION")
    assert ended.failure.message == "cancelled: bob is vetoed"
    assert ended.failure.cure.startswith("ask an administrator")
    assert await root.log(job.name) == b""


async def test_a_job_that_waits_runs_where_the_veto_keeps_it(make_grid: MakeGrid) -> None:
    grid = await make_grid(max_running=1)
    ada, root, long, job = await waiting(grid)
    grid.policy.replace(bob_vetoed(KEEP))
    await ada.kill(long.name)
    assert (await root.ended(job.name)).state == states.DONE


async def staging(grid: Grid) -> tuple[User, Job]:
    """Bob's job, whose input is being brought."""
    bob, root = await grid.user("bob"), await grid.user("root")
    job = await bob.submit("sh", "-c", "echo ran", inputs=[input_that_takes_a_while(grid)])
    await until(root, job.name, lambda job: bool(job.stage_in_transfer))
    return root, job


async def test_a_job_whose_inputs_are_brought_is_held_and_goes_on(grid: Grid) -> None:
    root, job = await staging(grid)
    grid.policy.replace(bob_vetoed())
    stopped = await held(root, job.name)
    assert stopped.state == states.STAGING
    await asyncio.sleep(2)
    assert (await root.get(job.name)).state == states.STAGING
    grid.policy.replace(given_back())
    ended = await root.ended(job.name)
    assert (ended.state, ended.resource_use.input_files) == (states.DONE, 1)


async def test_a_job_whose_inputs_are_brought_is_ended_with_its_transfer(grid: Grid) -> None:
    root, job = await staging(grid)
    grid.policy.replace(bob_vetoed(CANCEL))
    ended = await root.ended(job.name)
    assert (ended.state, class_of(ended)) == (states.KILLED, "PERMISSION")
    transfer = (await root.get(job.name)).stage_in_transfer
    assert transfer
    assert words(await root.history(job.name))[-2:] == ["STAGING", "KILLED"]
    await asyncio.sleep(0.5)
    assert not whole_copies(grid.data.jobs)


def whole_copies(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("big") if path.stat().st_size == BYTES]


async def running(grid: Grid, tmp_path: Path) -> tuple[User, Job, Path]:
    """Bob's job, whose payload runs until a file is there, and leaves an output."""
    bob, root, go = await grid.user("bob"), await grid.user("root"), tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; echo out > out"
    output = JobOutput(path="out", target="LFN:/local/out")
    job = await bob.submit("sh", "-c", script, outputs=[output])
    await bob.reached(job.name, states.RUNNING)
    return root, job, go


async def test_a_job_that_runs_is_carried_through_unless_the_veto_says_else(
    grid: Grid, tmp_path: Path
) -> None:
    root, job, go = await running(grid, tmp_path)
    grid.policy.replace(bob_vetoed())
    await asyncio.sleep(0.5)
    go.touch()
    ended = await root.ended(job.name)
    assert ended.state == states.DONE
    assert grid.stored("out").read_text() == "out\n"


@pytest.mark.parametrize("lost", [lambda: bob_vetoed(HOLD, HOLD), bob_without_his_role])
async def test_outputs_wait_while_the_work_that_runs_is_held(
    grid: Grid, tmp_path: Path, lost: Callable[[], Policy]
) -> None:
    root, job, go = await running(grid, tmp_path)
    grid.policy.replace(lost())
    await asyncio.sleep(0.5)
    assert not (await root.get(job.name)).HasField("hold")
    go.touch()
    stopped = await held(root, job.name)
    assert (stopped.state, stopped.exit_code) == (states.COMPLETING, 0)
    await asyncio.sleep(0.5)
    assert not grid.stored("out").exists()
    grid.policy.replace(given_back())
    assert (await root.ended(job.name)).state == states.DONE
    assert grid.stored("out").read_text() == "out\n"


async def test_a_payload_is_ended_where_the_veto_says_so(grid: Grid, tmp_path: Path) -> None:
    root, job, _ = await running(grid, tmp_path)
    grid.policy.replace(bob_vetoed(CANCEL, CANCEL))
    ended = await root.ended(job.name)
    assert (ended.state, class_of(ended)) == (states.KILLED, "PERMISSION")
    assert ended.failure.message == "cancelled: bob is vetoed"


async def test_a_veto_that_came_while_the_service_was_away_holds_and_lets_go(
    make_grid: MakeGrid,
) -> None:
    grid = await make_grid(max_running=1)
    _, _, _, job = await waiting(grid)
    await grid.stack.aclose()
    grid = await make_grid(bob_vetoed(), max_running=2)
    root = await grid.user("root")
    await held(root, job.name)
    await grid.stack.aclose()
    grid = await make_grid(given_back(), max_running=2)
    root = await grid.user("root")
    assert (await root.ended(job.name)).state == states.DONE


async def test_a_held_job_can_be_killed(make_grid: MakeGrid) -> None:
    grid = await make_grid(max_running=1)
    _, root, _, job = await waiting(grid)
    grid.policy.replace(bob_vetoed())
    await held(root, job.name)
    killed = await root.kill(job.name)
    assert (killed.state, class_of(killed), killed.HasField("hold")) == (
        states.KILLED,
        "CANCELED",
        False,
    )


@pytest.mark.parametrize("action", [HOLD, CANCEL])
async def test_what_was_given_a_place_just_before_the_veto_is_not_started(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch, action: WorkAction
) -> None:
    async def overlooked(*_: Any) -> bool:
        return True

    monkeypatch.setattr(rights.StandingJobs, "look", overlooked)
    grid = await make_grid(max_running=1)
    ada, root, long, job = await waiting(grid)
    grid.policy.replace(bob_vetoed(action))
    await ada.kill(long.name)
    if action is CANCEL:
        ended = await root.ended(job.name)
        assert (ended.state, class_of(ended)) == (states.KILLED, "PERMISSION")
    else:
        stopped = await held(root, job.name)
        assert (stopped.state, stopped.attempt) == (states.WAITING, 1)
        # It was WAITING before too: what came since is told when its events have their places.
        async with asyncio.timeout(PATIENCE_S):
            while words(await root.history(job.name))[-3:] != ["MATCHED", "RESCHEDULED", "WAITING"]:
                await asyncio.sleep(0.02)
    assert await root.log(job.name) == b""
    after = await ada.submit("true")
    assert (await ada.ended(after.name)).state == states.DONE


async def test_jobs_of_those_whose_rights_stayed_are_not_looked_at(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = await make_grid(max_running=1)
    _, root, _, job = await waiting(grid)
    looked: list[Any] = []
    unfinished = rights.unfinished

    def noted(conn: Any, owners: Any, after: int) -> Any:
        looked.append(owners)
        return unfinished(conn, owners, after)

    monkeypatch.setattr(rights, "unfinished", noted)
    grid.policy.replace(bob_vetoed())
    await held(root, job.name)
    assert {tuple(owners) for owners in looked} == {(f"{ISSUER}|bob",)}
