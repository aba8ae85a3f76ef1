"""The embedded backend with real shims and real payloads, without a server."""

import asyncio
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gridlane.ids import uuid7
from gridlane_workload.backends.embedded import directory as files
from gridlane_workload.backends.embedded.runner import EmbeddedBackend
from gridlane_workload.backends.interface import (
    Attempt,
    Command,
    EndKind,
    Observation,
    Standing,
    Work,
)
from gridlane_workload.settings import WorkloadSettings

SHIM = [sys.executable, "-I", "-m", "gridlane_workload.backends.embedded.shim"]
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-00"  # unsampled: no span is sent
SECONDS = 20


class Runner:
    """A backend on a directory, and the ends that it told of."""

    def __init__(self, jobs: Path, **settings: Any) -> None:
        self.jobs = jobs
        given: dict[str, Any] = {"grace_s": 0.5, **settings}
        self.backend = EmbeddedBackend(WorkloadSettings(**given), jobs, lambda: "127.0.0.1:1")
        self.told = asyncio.Event()

    async def open(self) -> "Runner":
        await self.backend.open(lambda job: self.told.set())
        return self

    async def start(self, *commands: list[str], **work: Any) -> Attempt:
        attempt = Attempt(uuid7(), 1)
        await self.backend.prepare(attempt, ())
        await self.again(attempt, *commands, **work)
        return attempt

    async def again(self, attempt: Attempt, *commands: list[str], **work: Any) -> Observation:
        given: dict[str, Any] = {
            "commands": [Command(command, {}) for command in commands],
            "walltime_s": SECONDS,
            "memory_bytes": 0,
            "disk_bytes": 0,
            "token": "a job's token",
            "traceparent": TRACEPARENT,
            **work,
        }
        return await self.backend.start(attempt, Work(**given))

    async def end(self, attempt: Attempt) -> Observation:
        """Waits until the backend tells of the end."""
        async with asyncio.timeout(SECONDS):
            while (seen := await self.backend.observe(attempt)).end is None:
                assert seen.standing is not Standing.LOST
                self.told.clear()
                await self.told.wait()
        return seen

    async def shim_gone(self, attempt: Attempt) -> None:
        await gone(json.loads((self.directory(attempt) / files.STARTED).read_text())["pid"])

    def directory(self, attempt: Attempt) -> Path:
        return self.jobs / attempt.job / str(attempt.number)

    def work(self, attempt: Attempt) -> Path:
        return self.directory(attempt) / files.WORK

    def said(self, attempt: Attempt, error_stream: bool = False) -> str:
        return self.backend.log_file(attempt, error_stream).read_text()


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    made = await Runner(tmp_path).open()
    yield made
    await made.backend.close()


def whole_lines(path: Path) -> str:
    """What a file says; nothing while it is not there or in the middle of a line."""
    said = path.read_text() if path.exists() else ""
    return said if said.endswith("\n") else ""


async def appears(path: Path) -> str:
    """What a file says once it says something."""
    async with asyncio.timeout(SECONDS):
        while not (said := whole_lines(path)):
            await asyncio.sleep(0.01)
    return said


def run(command: list[str]) -> int:
    return subprocess.run(command, timeout=SECONDS, check=False).returncode


def race(command: list[str], count: int) -> list[int]:
    racing = [subprocess.Popen(command) for _ in range(count)]
    return [process.wait(SECONDS) for process in racing]


async def gone(pid: int) -> None:
    async with asyncio.timeout(SECONDS):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)


async def test_outputs_exit_code_and_use_are_kept(runner: Runner) -> None:
    script = "echo out; echo err >&2; head -c 1000 /dev/zero > file; exit 3"
    attempt = await runner.start(["sh", "-c", script])
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert (seen.end.kind, seen.end.exit_code) == (EndKind.EXITED, 3)
    assert runner.said(attempt) == "out\n"
    assert runner.said(attempt, error_stream=True) == "err\n"
    assert seen.end.disk_bytes == 1000
    assert seen.end.cpu_us > 0
    assert seen.end.wall_us < SECONDS * 1e6
    assert seen.end.peak_memory_bytes > 0
    assert seen.start_us is not None
    assert seen.start_us <= seen.end.end_us


async def test_commands_run_in_order_until_one_fails(runner: Runner) -> None:
    attempt = await runner.start(
        ["sh", "-c", "echo one"], ["sh", "-c", "exit 4"], ["sh", "-c", "echo three"]
    )
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert (seen.end.exit_code, seen.end.executor) == (4, 1)
    assert runner.said(attempt) == "one\n"


async def test_the_payload_gets_a_clean_environment_and_the_jobs_token(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    attempt = await runner.start(
        [
            "sh",
            "-c",
            'env; pwd; umask; cat "$BEARER_TOKEN_FILE"; echo; stat -c %a "$BEARER_TOKEN_FILE"',
        ]
    )
    await runner.end(attempt)
    said = runner.said(attempt)
    assert "SECRET_OF_THE_SERVER" not in said
    for line in (
        f"GRIDLANE_JOB=jobs/{attempt.job}",
        "GRIDLANE_ATTEMPT=1",
        "GRIDLANE_ADDRESS=127.0.0.1:1",
        f"HOME={runner.work(attempt)}",
        str(runner.work(attempt)),
        "0077",
        "a job's token",
        "600",
    ):
        assert line in said.splitlines()
    assert f"TRACEPARENT=00-{'a' * 32}-" in said
    assert ("b" * 16) not in said, "the payload's span is its own, below the one given"
    await runner.shim_gone(attempt)
    assert not (runner.directory(attempt) / files.TOKEN).exists(), "a secret without use"


async def test_no_shell_is_between(runner: Runner) -> None:
    attempt = await runner.start(["echo", "$HOME; exit 7", "*"])
    await runner.end(attempt)
    assert runner.said(attempt) == "$HOME; exit 7 *\n"


async def test_a_signal_is_told(runner: Runner) -> None:
    seen = await runner.end(await runner.start(["sh", "-c", "kill -SEGV $$"]))
    assert seen.end is not None
    assert (seen.end.kind, seen.end.signal) == (EndKind.SIGNALED, signal.SIGSEGV)


@pytest.mark.parametrize("command", ["no-such-program", "/etc/hostname", "./missing", "/etc"])
async def test_what_cannot_be_executed_is_told(runner: Runner, command: str) -> None:
    seen = await runner.end(await runner.start([command]))
    assert seen.end is not None
    assert seen.end.kind is EndKind.NOT_FOUND
    assert command in seen.end.message


async def test_walltime_ends_even_what_ignores_sigterm(runner: Runner) -> None:
    attempt = await runner.start(
        ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], walltime_s=0.3
    )
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert seen.end.kind is EndKind.WALLTIME
    assert 0.7e6 < seen.end.wall_us < 5e6, "walltime, then the grace of half a second"


async def test_a_payload_may_tidy_up_after_sigterm(runner: Runner) -> None:
    attempt = await runner.start(
        ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"]
    )
    await appears(runner.backend.log_file(attempt, False))
    await runner.backend.kill(attempt)
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert seen.end.kind is EndKind.KILLED
    assert runner.said(attempt) == "up\nbye\n"


async def test_memory_is_limited(runner: Runner) -> None:
    greedy = [sys.executable, "-c", "bytearray(1 << 30); print('had it')"]
    seen = await runner.end(await runner.start(greedy, memory_bytes=200 << 20))
    assert seen.end is not None
    assert seen.end.exit_code == 1
    seen = await runner.end(await runner.start(greedy, memory_bytes=4 << 30))
    assert seen.end is not None
    assert seen.end.exit_code == 0


async def test_a_file_cannot_grow_beyond_the_limit(runner: Runner) -> None:
    attempt = await runner.start(
        ["dd", "if=/dev/zero", "of=big", "bs=1024", "count=100"], disk_bytes=10_240
    )
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert (seen.end.kind, seen.end.signal) == (EndKind.SIGNALED, signal.SIGXFSZ)
    assert (runner.work(attempt) / "big").stat().st_size == 10_240


async def test_endless_output_is_ended(tmp_path: Path) -> None:
    runner = await Runner(tmp_path, max_output_bytes=10_000).open()
    seen = await runner.end(await runner.start(["yes"]))
    assert seen.end is not None
    assert seen.end.kind is EndKind.OUTPUT_LIMIT


async def test_nothing_outlives_the_payload(runner: Runner) -> None:
    script = "setsid sh -c 'echo $$; exec sleep 600' & wait_for=1; sleep 0.3"
    attempt = await runner.start(["sh", "-c", script])
    stray = int(await appears(runner.backend.log_file(attempt, False)))
    await runner.end(attempt)
    await gone(stray)


async def test_a_kill_reaches_grandchildren_in_other_sessions(runner: Runner) -> None:
    script = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & sleep 600"
    attempt = await runner.start(["sh", "-c", script])
    stray = int(await appears(runner.backend.log_file(attempt, False)))
    assert (await runner.backend.kill(attempt)).standing is Standing.RUNNING
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert seen.end.kind is EndKind.KILLED
    await gone(stray)


async def test_a_second_shim_of_the_same_attempt_runs_nothing(runner: Runner) -> None:
    attempt = await runner.start(["sh", "-c", "echo once; sleep 1"])
    second = [*SHIM, str(runner.directory(attempt))]
    while_it_runs = await asyncio.to_thread(run, second)
    await runner.end(attempt)
    afterwards = await asyncio.to_thread(run, second)
    assert (while_it_runs, afterwards) == (0, 0)
    assert runner.said(attempt) == "once\n"


async def test_of_many_shims_that_race_one_runs(runner: Runner) -> None:
    attempt = Attempt(uuid7(), 1)
    await runner.backend.prepare(attempt, ())
    job = runner.backend.job_file(
        attempt, Work([Command(["sh", "-c", "echo once"], {})], 9, 0, 0, "t", TRACEPARENT)
    )
    files.write_json(runner.directory(attempt) / files.JOB, job)
    (runner.directory(attempt) / files.TOKEN).write_text("t")
    shim = [*SHIM, str(runner.directory(attempt))]
    assert await asyncio.to_thread(race, shim, 6) == [0] * 6
    assert runner.said(attempt) == "once\n"


async def test_started_again_it_is_adopted_not_run_twice(runner: Runner) -> None:
    attempt = await runner.start(["sh", "-c", "echo once; sleep 0.5"])
    assert (await runner.again(attempt, ["echo", "twice"])).standing is Standing.RUNNING
    await runner.end(attempt)
    assert (await runner.again(attempt, ["echo", "twice"])).standing is Standing.ENDED
    assert runner.said(attempt) == "once\n"


async def test_the_payload_survives_its_servers_sigkill_and_is_adopted(tmp_path: Path) -> None:
    runner = await Runner(tmp_path).open()
    attempt = Attempt(uuid7(), 1)
    starter = f"""
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_shim import Attempt, Runner
async def main():
    runner = await Runner(Path({str(tmp_path)!r})).open()
    attempt = Attempt({attempt.job!r}, 1)
    await runner.backend.prepare(attempt, ())
    await runner.again(attempt, ["sh", "-c", "echo up; sleep 1; echo still here; exit 5"])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    assert await asyncio.to_thread(run, [sys.executable, "-c", starter]) == -signal.SIGKILL
    assert (await runner.backend.observe(attempt)).standing is Standing.RUNNING
    seen = await runner.end(attempt)
    assert seen.end is not None
    assert seen.end.exit_code == 5
    assert runner.said(attempt) == "up\nstill here\n"


async def test_a_shim_that_was_killed_is_lost_and_takes_its_payload_along(runner: Runner) -> None:
    attempt = await runner.start(["sh", "-c", "echo $$; exec sleep 600"])
    payload = int(await appears(runner.backend.log_file(attempt, False)))
    started = json.loads((runner.directory(attempt) / files.STARTED).read_text())
    runner.told.clear()
    os.kill(started["pid"], signal.SIGKILL)
    async with asyncio.timeout(SECONDS):
        await runner.told.wait()
    assert (await runner.backend.observe(attempt)).standing is Standing.LOST
    await gone(payload)


@pytest.mark.parametrize("asked", ["observe", "kill"])
async def test_what_a_payload_detached_ends_when_its_killed_shim_is_found_lost(
    runner: Runner, asked: str
) -> None:
    # Twice forked and in a session of its own, with a child that has no variables at all.
    detached = "echo $$ > detached; env -i sleep 600 & echo $! > bare; wait"
    script = f"(setsid sh -c '{detached}' &); sleep 600"
    attempt = await runner.start(["sh", "-c", script])
    work = runner.work(attempt)
    left = [int(await appears(work / name)) for name in ("detached", "bare")]
    mark = {**os.environ, "GRIDLANE_JOB": f"jobs/{attempt.job}", "GRIDLANE_ATTEMPT": "2"}
    bystander = await asyncio.create_subprocess_exec("sleep", "600", env=mark)
    started = json.loads((runner.directory(attempt) / files.STARTED).read_text())
    runner.told.clear()
    os.kill(started["pid"], signal.SIGKILL)
    try:
        async with asyncio.timeout(SECONDS):
            await runner.told.wait()
        assert all(psutil.pid_exists(pid) for pid in left)
        seen = await getattr(runner.backend, asked)(attempt)
        assert seen.standing is Standing.LOST
        for pid in left:
            await gone(pid)
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


@pytest.mark.parametrize("prepared", [True, False])
async def test_what_was_killed_before_its_start_never_starts(
    runner: Runner, prepared: bool
) -> None:
    attempt = Attempt(uuid7(), 1)
    if prepared:
        await runner.backend.prepare(attempt, ())
    assert (await runner.backend.kill(attempt)).standing is Standing.ABSENT
    assert (await runner.again(attempt, ["echo", "no"])).standing is Standing.ABSENT
    assert not runner.backend.log_file(attempt, False).exists()


async def test_a_stale_pid_is_never_signalled(runner: Runner) -> None:
    attempt = Attempt(uuid7(), 1)
    await runner.backend.prepare(attempt, ())
    bystander = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        directory = runner.directory(attempt)
        files.make_claim(directory, "shim of yesterday")
        files.write_json(directory / files.STARTED, {"pid": bystander.pid, "started_us": 1})
        assert (await runner.backend.kill(attempt)).standing is Standing.LOST
        await asyncio.sleep(0.1)
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_a_link_out_of_the_working_directory_is_no_output(runner: Runner) -> None:
    script = "echo x > real; ln -s /etc/passwd leak; ln -s /etc etc; mkdir d; echo y > d/in"
    attempt = await runner.start(["sh", "-c", script])
    await runner.end(attempt)
    found = await runner.backend.outputs(
        attempt, ["real", "leak", "etc/passwd", "d/in", "d", "none"]
    )
    assert [item.size_bytes for item in found] == [2, None, None, 2, None, None]


def passable(folder: Path) -> None:
    """Lets other users pass through a folder of root's and those above it."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o711)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run payloads as another user")
async def test_payloads_run_as_the_configured_user(tmp_path: Path) -> None:
    passable(tmp_path)
    runner = await Runner(tmp_path, run_as="nobody").open()
    script = f"id -u; echo mine > out; cat $BEARER_TOKEN_FILE; cat {tmp_path}/*/1/job.json"
    attempt = await runner.start(["sh", "-c", script])
    await runner.end(attempt)
    said = runner.said(attempt)
    assert said.startswith(f"{pwd.getpwnam('nobody').pw_uid}\na job's token")
    assert "executors" not in said
    assert (runner.work(attempt) / "out").read_text() == "mine\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run payloads as another user")
async def test_a_command_s_files_are_opened_with_the_payload_s_rights(tmp_path: Path) -> None:
    passable(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    runner = await Runner(tmp_path, run_as="nobody").open()
    plant = Command(["ln", "-s", str(secret), "planted"], {})
    for field in ("stdin", "stdout", "stderr"):
        reach = Command(["cat"], {}, **{field: "planted"})  # type: ignore[arg-type]
        attempt = await runner.start(commands=[plant, reach])
        seen = await runner.end(attempt)
        assert seen.end is not None
        assert (seen.end.executor, seen.end.exit_code) == (1, 1)
        assert runner.said(attempt) == ""
    assert secret.read_text() == "root's"
    await runner.backend.close()
