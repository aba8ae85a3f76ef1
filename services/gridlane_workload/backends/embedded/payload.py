"""A payload's processes: started, limited, watched, ended, and counted.

Responsible for the commands of one attempt, one after the other, each in a session of its own,
without a shell. Runs in the shim's process (one thread, the standard library alone) and nowhere
else.

Nothing of a payload outlives it: the shim is the subreaper of its descendants
(PR_SET_CHILD_SUBREAPER), so that what left its process group comes back to the shim and is killed;
and a command gets SIGKILL when the shim itself dies (PR_SET_PDEATHSIG). What a command had detached
before a killed shim died is ended by the server (`leftovers`).
"""

import ctypes
import errno
import os
import resource
import signal
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gridlane_workload.backends.embedded import directory as files

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
# How often the wish to kill and the size of the outputs are looked at while nothing else happens.
_TICK_S: Final = 0.5
# A command's ends that it can ask to have ignored: what went wrong with it, not with the shim.
_IGNORABLE: Final = frozenset({"exited", "signaled", "not_found"})
# What a command ends with whose standard input or output cannot be opened, as in a shell.
_NOT_OPENED: Final = 1
# What killed processes get to vanish before the shim gives up on them (a hanging network file
# system).
_SWEEP_S: Final = 10.0
_NOT_FOUND: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR}
)


@dataclass(frozen=True)
class Outcome:
    """How a payload ended, as `exit.json` tells it.

    `kind` is "exited" (`exit_code`), "signaled" (`signal`), "not_found" (`executor` could not be
    executed), "walltime", "killed", "output_limit" (too much standard output or error) or "broken"
    (the shim failed).
    """

    kind: str
    exit_code: int | None = None
    signal: int | None = None
    executor: int = 0
    message: str = ""
    wall_us: int = 0
    cpu_us: int = 0
    peak_memory_bytes: int = 0
    disk_bytes: int = 0

    @property
    def error(self) -> str:
        """What the span says of a bad end; empty for a good one."""
        return "" if self.kind == "exited" and self.exit_code == 0 else self.message or self.kind

    def to_json(self) -> dict[str, Any]:
        """The form in `exit.json`."""
        return asdict(self)


class Payload:
    """The payload of one attempt.

    Parameters:
        directory: the attempt's directory.
        job: what `job.json` says; `runner.job_file` documents it.
    """

    def __init__(self, directory: Path, job: dict[str, Any]) -> None:
        self._directory = directory
        self._job = job
        self._outputs = [directory / files.STDOUT, directory / files.STDERR]
        self._ends_at = 0.0
        self._kill_at: float | None = None
        # Why the payload is being ended by us; empty while it is not.
        self._ended_for = ""

    def run(self) -> Outcome:
        """Run the commands until one fails, all are done, or the payload is ended."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for path in self._job["executables"]:
            (self._directory / files.WORK / path).chmod(0o700)
        self._give_to_user()
        began = time.monotonic()
        self._ends_at = began + self._job["walltime_s"]
        outcome = self._execute_all()
        use = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Outcome(
            outcome.kind,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            executor=outcome.executor,
            message=outcome.message,
            wall_us=round((time.monotonic() - began) * 1e6),
            cpu_us=round((use.ru_utime + use.ru_stime) * 1e6),
            peak_memory_bytes=use.ru_maxrss * 1024,
            disk_bytes=disk_use(self._directory / files.WORK),
        )

    def _execute_all(self) -> Outcome:
        """Run the commands; the outcome of the first that failed, else a good one."""
        failed: Outcome | None = None
        for index, executor in enumerate(self._job["executors"]):
            if failed is not None and not executor["run_always"]:
                continue
            outcome = self._execute(index, executor)
            _sweep()
            ignored = executor["ignore_error"] and outcome.kind in _IGNORABLE
            if failed is None and outcome.error and not ignored:
                failed = outcome
            if self._ended_for:
                break
        return failed or Outcome("exited", exit_code=0)

    def _give_to_user(self) -> None:
        account = self._job["account"]
        if account is None:
            return
        uid, gid = account["uid"], account["gid"]
        for name in (files.WORK, files.TEMPORARY, files.TOKEN):
            os.chown(self._directory / name, uid, gid)
        for root, folders, names in os.walk(self._directory / files.WORK):
            for name in (*folders, *names):
                os.chown(Path(root) / name, uid, gid, follow_symlinks=False)

    def _execute(self, index: int, executor: dict[str, Any]) -> Outcome:
        if self._is_to_end():
            return self._ended(index)
        pid, failure = self._start(executor)
        if failure:
            os.waitpid(pid, 0)
            command = executor["arguments"][0]
            kind = "not_found" if failure in _NOT_FOUND else "broken"
            return Outcome(kind, executor=index, message=f"{command}: {os.strerror(failure)}")
        status = self._wait(pid)
        if self._ended_for:
            return self._ended(index)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            return Outcome("signaled", signal=number, executor=index, message=f"ended by {name}")
        code = os.WEXITSTATUS(status)
        message = f"exit code {code}" if code else ""
        return Outcome("exited", exit_code=code, executor=index, message=message)

    def _ended(self, index: int) -> Outcome:
        return Outcome(self._ended_for, executor=index, message=self._ended_for)

    def _start(self, executor: dict[str, Any]) -> tuple[int, int]:
        """Start a command; its pid, and the errno that kept it from being executed (0: none)."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        shim = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._become(executor, shim)
            except OSError as error:
                os.write(write_end, str(error.errno).encode())
            except BaseException:
                os.write(write_end, str(errno.ENOMEM).encode())
            finally:
                os._exit(127)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as reader:
            return pid, int(reader.read() or b"0")

    def _become(self, executor: dict[str, Any], shim: int) -> None:
        """In the child: become the command. Returns only by an exception."""
        os.setsid()
        account = self._job["account"]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, path in enumerate(self._outputs, start=1):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if account is not None:
                os.fchown(opened, account["uid"], account["gid"])
            os.dup2(opened, descriptor)
        os.chdir(self._directory / files.WORK)
        environment = {
            **self._job["defaults"],
            **executor["environment"],
            **self._job["environment"],
        }
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self._job["disk_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._job["disk_bytes"],) * 2)
        if account is not None:
            os.setgroups(account["groups"])
            os.setgid(account["gid"])
            os.setuid(account["uid"])
        # After the change of user, which would take it away.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != shim:
            raise OSError(errno.ESRCH, "the shim is no more")
        # After it too: what the payload made of these paths is reached with its own rights alone.
        _redirect(executor)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if self._job["memory_bytes"]:
            resource.setrlimit(resource.RLIMIT_AS, (self._job["memory_bytes"],) * 2)
        os.execvpe(executor["arguments"][0], executor["arguments"], environment)  # noqa: S606

    def _wait(self, pid: int) -> int:
        """Wait for the command's end, seeing to its limits; its wait status."""
        while True:
            status = _reap(pid)
            if status is not None:
                return status
            if self._is_to_end():
                self._press(pid)
            until = [time.monotonic() + _TICK_S, self._kill_at or self._ends_at]
            pause = max(0.0, min(until) - time.monotonic())
            signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, pause)

    def _is_to_end(self) -> bool:
        """Decide whether the payload is to be ended, and why; once decided, it stays so."""
        if self._ended_for:
            return True
        if (self._directory / files.KILL).exists():
            self._ended_for = "killed"
        elif time.monotonic() >= self._ends_at:
            self._ended_for = "walltime"
        elif any(_size(path) > self._job["max_output_bytes"] for path in self._outputs):
            self._ended_for = "output_limit"
        return bool(self._ended_for)

    def _press(self, pid: int) -> None:
        """Carry out an end that was decided: SIGTERM, and SIGKILL after the grace."""
        if self._kill_at is None:
            _signal_group(pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + self._job["grace_s"]
        elif time.monotonic() >= self._kill_at:
            _signal_group(pid, signal.SIGKILL)
            # Asked again with every tick, should one signal not do.
            self._kill_at = time.monotonic() + _TICK_S


def _redirect(executor: dict[str, Any]) -> None:
    """In the child: go where the command runs, with the files that are its input and output.

    Paths are below the present directory. Where one cannot be opened the child ends, as a shell
    would, and says why on standard error.
    """
    path = ""
    try:
        path = executor["stdin"]
        if path:
            os.dup2(_open_regular(path, os.O_RDONLY), 0)
        path = executor["stderr"]
        error = _open_to_write(path) if path else 2
        path = executor["stdout"]
        if path:
            same = path == executor["stderr"]
            os.dup2(error if same else _open_to_write(path), 1)
        os.dup2(error, 2)
        path = executor["workdir"]
        if path:
            Path(path).mkdir(parents=True, exist_ok=True)
            os.chdir(path)
    except OSError as problem:
        os.write(2, f"gridlane: {path}: {problem.strerror}\n".encode())
        os._exit(_NOT_OPENED)


def _open_to_write(path: str) -> int:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return _open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file; what would keep the shim waiting (a pipe of the payload's) is none."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
    os.set_blocking(descriptor, True)
    return descriptor


def disk_use(directory: Path) -> int:
    """The bytes of the files below a directory, symbolic links not followed."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            total += _size(Path(root) / name)
    return total


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _reap(pid: int) -> int | None:
    """Take the status of every child that has ended; that of `pid`, None while it lives."""
    found: int | None = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            found = status


def _sweep() -> None:
    """Kill and reap whatever the command left behind, generation after generation."""
    deadline = time.monotonic() + _SWEEP_S
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if ended:
            continue
        for child in _children():
            _signal(child, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)


def _children() -> list[int]:
    """The living children of this process, by field 4 of `/proc/<pid>/stat` (proc(5))."""
    me = str(os.getpid())
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if fields[1] == me:
                found.append(int(entry.name))
    return found


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The command is not reaped yet, so its pid and its group are still its own.
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prctl(option: int, argument: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
