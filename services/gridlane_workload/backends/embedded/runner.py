"""The embedded backend as the server sees it: start a shim, find it again, ask it to end.

Responsible for attempts' directories, for the shims' processes, and for telling when one has ended.
What a payload gets and how it is ended is the shim's (`payload`); what an end means for a job is
not known here.

Recovery goes by the lock in the directory, never by a pid: a lock that is taken is a shim that
lives, and its pid, read under that lock, is used through a pidfd only. So several processes of the
service may look after the attempts of one directory. On another machine a shim's pid means nothing:
there it is asked to end by a file, and that it ended is found by polling.
"""

import asyncio
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import quote

from gridlane_kit.failpoints import failpoint
from gridlane_kit.logs import logger
from gridlane_workload.backends.embedded import account as accounts
from gridlane_workload.backends.embedded import directory as files
from gridlane_workload.backends.embedded import leftovers
from gridlane_workload.backends.interface import (
    Attempt,
    Backend,
    BackendUnavailableError,
    Capabilities,
    DataOwner,
    End,
    EndKind,
    Observation,
    OutputFile,
    Standing,
    Work,
)
from gridlane_workload.settings import WorkloadSettings

P = ParamSpec("P")
T = TypeVar("T")

_SHIM: Final = "gridlane_workload.backends.embedded.shim"
_KILL_CLAIM: Final = "kill"
# How long a shim may take until it says that it has started, or has lost.
_START_PATIENCE_S: Final = 15.0
# A shim that holds its lock and has not written its pid yet is looked at again after so long.
_LOOK_AGAIN_S: Final = 0.1

_log = logger("workload")
_PREPARED: Final = failpoint("workload.start.prepared")
_LAUNCHED: Final = failpoint("workload.start.launched")
_KILL_ASKED: Final = failpoint("workload.kill.asked")


class EmbeddedBackend(Backend):
    """Payloads as processes of this machine.

    Parameters:
        settings: limits and the account.
        jobs_directory: where attempts' directories lie; absolute.
        address: where payloads reach the services, as GRIDLANE_ADDRESS says it; asked at each
            start.
        ca: the roots (PEM) that payloads verify the services with; None: no own ones.

    Raises:
        AccountError: the account in the settings cannot be used.
    """

    name = "embedded"

    def __init__(
        self,
        settings: WorkloadSettings,
        jobs_directory: Path,
        address: Callable[[], str],
        ca: Path | None = None,
    ) -> None:
        self.capabilities = Capabilities(
            data_owner=DataOwner.GRIDLANE,
            max_cpu_cores=os.cpu_count() or 1,
            logs_while_running=True,
        )
        self._settings = settings
        self._root = jobs_directory
        self._address = address
        self._ca = {} if ca is None else {"GRIDLANE_CA": str(ca)}
        self._account = accounts.resolve(settings.run_as)
        self._changed: Callable[[str], None] = lambda job: None
        # Shims that are waited for: the job's uuid and the pidfd.
        self._watched: dict[str, int] = {}
        # Those that are our children, to be reaped.
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def open(self, changed: Callable[[str], None]) -> None:
        self._changed = changed

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for pidfd in self._watched.values():
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._watched.clear()

    async def check(self) -> None:
        if not await asyncio.to_thread(os.access, self._root, os.W_OK | os.X_OK):
            raise BackendUnavailableError("the directory of jobs cannot be written")

    @property
    def places(self) -> int:
        return self._settings.max_running

    async def prepare(self, attempt: Attempt, input_paths: Sequence[str]) -> None:
        await _with_files(self._make_directory, self._directory(attempt), input_paths)

    def url(self, attempt: Attempt, path: str) -> str:
        return "file://" + quote(str(self._directory(attempt) / files.WORK / path))

    async def start(self, attempt: Attempt, work: Work) -> Observation:
        found = await self.observe(attempt)
        if found.standing is not Standing.ABSENT:
            return found
        await _with_files(self._write_orders, attempt, work)
        _PREPARED()
        child = await _in_thread(self._launch, self._directory(attempt))
        _LAUNCHED()
        self._children[attempt.job] = child
        await _until_started(child)
        return await self.observe(attempt)

    async def observe(self, attempt: Attempt) -> Observation:
        return await self._taken(attempt, *await _with_files(_look, self._directory(attempt)))

    async def kill(self, attempt: Attempt) -> Observation:
        found = await _with_files(_ask_for_end, self._directory(attempt))
        _KILL_ASKED()
        return await self._taken(attempt, *found)

    async def _taken(
        self, attempt: Attempt, observation: Observation, pid: int | None
    ) -> Observation:
        """Do what an observation asks for: wait for a living shim, or end what a dead one left."""
        self._watch(attempt, observation, pid)
        if observation.standing is Standing.LOST:
            count = await _in_thread(leftovers.end, attempt.job, attempt.number)
            if count:
                _log.warning("a lost payload left processes", job=attempt.job, processes=count)
        return observation

    async def outputs(self, attempt: Attempt, paths: Sequence[str]) -> list[OutputFile]:
        work = self._directory(attempt) / files.WORK
        return await _with_files(
            lambda: [OutputFile(path, _regular_size(work, path)) for path in paths]
        )

    def log_file(self, attempt: Attempt, error_stream: bool) -> Path:
        return self._directory(attempt) / (files.STDERR if error_stream else files.STDOUT)

    async def directories(self) -> list[str]:
        return await asyncio.to_thread(
            lambda: [entry.name for entry in self._root.iterdir() if len(entry.name) == 36]
        )

    async def remove(self, job: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / job, ignore_errors=True)

    def _directory(self, attempt: Attempt) -> Path:
        return self._root / attempt.job / str(attempt.number)

    def _make_directory(self, directory: Path, input_paths: Sequence[str]) -> None:
        # Another account passes through to its working directory and sees nothing on the way.
        mode = 0o700 if self._account is None else 0o711
        for folder, its_mode in (
            (directory.parent, mode),
            (directory, mode),
            (directory / files.WORK, 0o700),
            (directory / files.TEMPORARY, 0o700),
        ):
            folder.mkdir(exist_ok=True)
            folder.chmod(its_mode)
        for path in input_paths:
            (directory / files.WORK / path).parent.mkdir(parents=True, exist_ok=True)
        for folder in (directory, directory.parent, self._root):
            files.sync(folder)

    def _write_orders(self, attempt: Attempt, work: Work) -> None:
        directory = self._directory(attempt)
        self._make_directory(directory, list(work.contents))
        for path, content in work.contents.items():
            (directory / files.WORK / path).write_bytes(content)
        files.write_whole(directory / files.TOKEN, work.token.encode())
        files.write_json(directory / files.JOB, self.job_file(attempt, work))

    def job_file(self, attempt: Attempt, work: Work) -> dict[str, Any]:
        """What `job.json` says.

        Returns:
            `job` (uuid), `attempt`; `executors` (the fields of `Command`); `executables`: paths in
            the working directory; `defaults` and `environment`: variables that a command's own may,
            and may not, replace; `walltime_s`, `grace_s`; `memory_bytes`, `disk_bytes`, 0 for no
            limit; `max_output_bytes` of each output; `account` (uid, gid, groups) or null;
            `parent_span_id`, 16 hexadecimal digits.
        """
        directory = self._directory(attempt)
        _, trace_id, parent_span_id, flags = work.traceparent.split("-")
        account = self._account
        return {
            "job": attempt.job,
            "attempt": attempt.number,
            "executors": [asdict(command) for command in work.commands],
            "executables": list(work.executables),
            "defaults": {
                "PATH": self._settings.path,
                "HOME": str(directory / files.WORK),
                "TMPDIR": str(directory / files.TEMPORARY),
                "LANG": "C.UTF-8",
            },
            "environment": {
                leftovers.JOB_VARIABLE: f"jobs/{attempt.job}",
                leftovers.ATTEMPT_VARIABLE: str(attempt.number),
                "GRIDLANE_ADDRESS": self._address(),
                **self._ca,
                "BEARER_TOKEN_FILE": str(directory / files.TOKEN),
                "TRACEPARENT": f"00-{trace_id}-{secrets.token_hex(8)}-{flags}",
            },
            "parent_span_id": parent_span_id,
            "walltime_s": work.walltime_s,
            "grace_s": self._settings.grace_s,
            "memory_bytes": work.memory_bytes,
            "disk_bytes": work.disk_bytes,
            "max_output_bytes": self._settings.max_output_bytes,
            "account": None
            if account is None
            else {"uid": account.uid, "gid": account.gid, "groups": list(account.groups)},
        }

    def _launch(self, directory: Path) -> subprocess.Popen[bytes]:
        # No preexec_fn: the child must exec at once, since this process has gRPC's threads.
        with (directory / files.SHIM_LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-m", _SHIM, str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                close_fds=True,
                start_new_session=True,
            )

    def _watch(self, attempt: Attempt, observation: Observation, pid: int | None) -> None:
        """See to it that the end of a living shim is told, and that one of ours is reaped."""
        if attempt.job in self._watched:
            return
        loop = asyncio.get_running_loop()
        pidfd = None if pid is None else _open_pid(self._directory(attempt), pid)
        if pidfd is not None:
            self._watched[attempt.job] = pidfd
            loop.add_reader(pidfd, self._ended, attempt.job)
        elif observation.standing is Standing.STARTING or pid is not None:
            loop.call_later(_LOOK_AGAIN_S, self._changed, attempt.job)
        elif attempt.job in self._children and self._children[attempt.job].poll() is not None:
            del self._children[attempt.job]

    def _ended(self, job: str) -> None:
        pidfd = self._watched.pop(job)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        child = self._children.pop(job, None)
        if child is not None:
            child.wait()
        self._changed(job)


async def _with_files(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work on attempts' directories in a thread.

    Raises:
        BackendUnavailableError: the file system refuses it: full, read-only, worn out. That is the
            machine's trouble and none of the job's, which waits until it is over.
    """
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise BackendUnavailableError(f"the directory of a job: {error}") from error


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do something with files or processes; that it fails is the machine's trouble, not a job's.

    Raises:
        BackendUnavailableError
    """
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise BackendUnavailableError(f"the machine cannot do it now: {error}") from error


async def _until_started(child: subprocess.Popen[bytes]) -> None:
    """Wait until the shim closes its standard output: it has started, or lost and ended."""
    loop = asyncio.get_running_loop()
    assert child.stdout is not None  # noqa: S101 - it was started with a pipe
    told = asyncio.Event()
    loop.add_reader(child.stdout.fileno(), told.set)
    try:
        async with asyncio.timeout(_START_PATIENCE_S):
            await told.wait()
    except TimeoutError:
        raise BackendUnavailableError(
            "the shim does not start: the machine is overloaded"
        ) from None
    finally:
        loop.remove_reader(child.stdout.fileno())
        child.stdout.close()


def _look(directory: Path) -> tuple[Observation, int | None]:
    """What the directory says of its attempt, and the pid of its shim while that lives."""
    if not directory.is_dir():
        return Observation(Standing.ABSENT), None
    lock = files.open_lock(directory)
    try:
        free = files.try_lock(lock)
        end = files.read_json(directory / files.EXIT)
        started = files.read_json(directory / files.STARTED)
        start_us = None if started is None else int(started["started_us"])
        pid = None if free or started is None else _pid_here(started)
        if end is not None:
            return Observation(Standing.ENDED, start_us, _end(end)), pid
        if not free:
            standing = Standing.STARTING if started is None else Standing.RUNNING
            return Observation(standing, start_us), pid
        claim = directory / files.CLAIM
        if claim.exists() and claim.read_text().strip() != _KILL_CLAIM:
            return Observation(Standing.LOST, start_us), None
        return Observation(Standing.ABSENT), None
    finally:
        os.close(lock)


def _pid_here(started: dict[str, Any]) -> int | None:
    """The shim's pid; None when it is that of another machine, which shares the directory."""
    here = files.this_machine()
    return int(started["pid"]) if started.get("machine", here) == here else None


def _end(told: dict[str, Any]) -> End:
    return End(
        kind=EndKind(told["kind"]),
        exit_code=told["exit_code"],
        signal=told["signal"],
        executor=told["executor"],
        message=told["message"],
        end_us=told["ended_us"],
        wall_us=told["wall_us"],
        cpu_us=told["cpu_us"],
        peak_memory_bytes=told["peak_memory_bytes"],
        disk_bytes=told["disk_bytes"],
    )


def _ask_for_end(directory: Path) -> tuple[Observation, int | None]:
    # Also one that has no directory yet gets its claim, should a start be under way somewhere.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # First the wish, which a shim that starts just now will find; then the signal, for one that
    # runs.
    files.write_whole(directory / files.KILL, b"")
    observation, pid = _look(directory)
    if observation.standing is Standing.ABSENT and not files.make_claim(directory, _KILL_CLAIM):
        observation, pid = _look(directory)
    if pid is not None:
        pidfd = _open_pid(directory, pid)
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)
    return observation, pid


def _open_pid(directory: Path, pid: int) -> int | None:
    """A pidfd of the shim; None when it has ended.

    The shim holds the lock as long as it lives. So when the lock is still taken after the pidfd was
    opened, the pid had not been given to another process before.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    lock = files.open_lock(directory)
    try:
        if files.try_lock(lock):
            os.close(pidfd)
            return None
    finally:
        os.close(lock)
    return pidfd


def _regular_size(work: Path, path: str) -> int | None:
    """The size of a regular file that is reached without a symbolic link; None for anything else.

    A link could lead the mover, which reads with the server's rights, out of the working directory.
    """
    here = work
    try:
        for part in path.split("/")[:-1]:
            here = here / part
            if not stat.S_ISDIR(here.lstat().st_mode):
                return None
        found = (work / path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
