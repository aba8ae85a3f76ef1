"""Real servers for tests: the `gridlane-server` command as a child process.

Responsible for starting it on free ports and in a directory of its own, for waiting until it
serves, for ending it in any way a test wants, and for showing what it wrote when something went
wrong. One process a service, five of them together: `split`. Fixtures: `conftest`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc

from gridlane_kit.sqlite import sqlite_url

START_SECONDS = 45
STOP_SECONDS = 30
CALL_SECONDS = 20
COMMAND = Path(sys.executable).with_name("gridlane-server")
# Taken once: pytest changes the environment while threads start servers.
INHERITED = {k: v for k, v in os.environ.items() if not k.startswith("GRIDLANE_")}


class ServerProcess:
    """One `gridlane-server`, which may be started again.

    Parameters:
        root: a folder for the ready file and the log.
        arguments: the command's, `--ready-file` aside.
        environment: variables beside those of this process, without its own GRIDLANE_… ones.
        command: the server's program; this environment's unless another is given.
    """

    def __init__(
        self,
        root: Path,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        command: Path = COMMAND,
    ) -> None:
        self._command = command
        self._arguments = arguments
        self.root = root
        self.environment = dict(environment or {})
        name = arguments[0] if arguments[0] != "all" else "server"
        self._ready_file = root / ("ready.json" if name == "server" else f"{name}.ready.json")
        self._log = root / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: dict[str, Any] = {}

    @property
    def arguments(self) -> Sequence[str | Path]:
        """What the command is given at the next start."""
        return self._arguments

    def start(self, environment: Mapping[str, str] | None = None) -> Self:
        """Starts the process and waits until it serves.

        Parameters:
            environment: variables for this start only.
        """
        self.launch(environment)
        self.wait_until_ready()
        return self

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process without waiting: it may be meant to die on its way."""
        self.disconnect()
        self.root.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, *self.arguments, "--ready-file", self._ready_file],
                env={**INHERITED, **self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Waits for the ready file; fails with the server's output when it does not come."""
        deadline = time.monotonic() + START_SECONDS
        while not self._ready_file.exists():
            code = self._running.poll()
            assert code is None, f"the server ended with {code}:\n{self.output}"
            assert time.monotonic() < deadline, f"the server does not serve:\n{self.output}"
            time.sleep(0.02)  # another process writes the file; there is no event to await
        self._ready = json.loads(self._ready_file.read_text())

    def stop(self) -> int:
        """Asks for the end (SIGTERM) and returns the exit code; fails when it does not come."""
        self.disconnect()
        if self._running.poll() is None:
            self._running.send_signal(signal.SIGTERM)
        return self.wait_dead(STOP_SECONDS)

    def kill(self) -> None:
        """Ends the process with SIGKILL, wherever it stands."""
        self.disconnect()
        if self._running.poll() is None:
            self._running.kill()
        self._running.wait(STOP_SECONDS)

    def wait_dead(self, timeout_s: float = STOP_SECONDS) -> int:
        """Waits until the process has ended by itself; returns its exit code (-9: SIGKILL)."""
        try:
            return self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end in time:\n{self.output}") from None

    def close(self) -> None:
        """Leaves nothing behind."""
        self.disconnect()
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def disconnect(self) -> None:
        """Closes what a test has open to the process, which is about to go."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> str:
        """Where it serves, `host:port`."""
        return str(self._ready["address"])

    @property
    def health_address(self) -> str:
        """Where it answers about its health, `host:port`."""
        return str(self._ready["health_address"])

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._ready["pid"])

    @property
    def output(self) -> str:
        """Everything that was written to standard output and standard error, by all starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process


class Deployment(ABC):
    """What a user sees of a running Gridlane, whatever its shape."""

    shape: str
    data_dir: Path
    """Has `storage/` and `jobs/`."""

    @abstractmethod
    def start(self) -> Any:
        """Starts what does not run, and waits until all of it serves."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether all of it runs."""

    @abstractmethod
    def part(self, service: str) -> ServerProcess:
        """The process that runs a service ("reporting")."""

    @abstractmethod
    def database_url(self, service: str) -> str:
        """Where the database of a service ("reporting") lies."""

    @property
    @abstractmethod
    def channel(self) -> grpc.Channel:
        """Reaches every service."""

    def channel_to(self, service: str) -> grpc.Channel:
        """Reaches the process that runs a service, whatever the method."""
        return self.channel

    @property
    @abstractmethod
    def output(self) -> str:
        """Everything that the processes wrote."""

    @property
    @abstractmethod
    def token_file(self) -> Path:
        """The file with the first user's token."""

    @property
    @abstractmethod
    def token_key(self) -> Path:
        """The file with the key that users' tokens are signed with."""

    @property
    @abstractmethod
    def client_environment(self) -> Mapping[str, str]:
        """What clients need to find it."""

    @property
    def token(self) -> str:
        """The first user's token."""
        return self.token_file.read_text()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call of the first user sends along."""
        return bearer(self.token)

    def call(self, method: Any, request: Any, *, token: str | None = None) -> Any:
        """Calls a method of a stub on `channel`, as the first user or with a token."""
        metadata = self.metadata if token is None else bearer(token)
        return method(request, metadata=metadata, timeout=CALL_SECONDS)


class EmbeddedServer(ServerProcess, Deployment):
    """One `gridlane-server all`, which may be started again on the same data directory.

    Parameters:
        root: a folder for the data directory, the ready file and the log.
        environment, command: as `ServerProcess`.
    """

    shape = "all"

    def __init__(
        self,
        root: Path,
        environment: Mapping[str, str] | None = None,
        command: Path = COMMAND,
    ) -> None:
        super().__init__(root, ["all"], environment, command)
        self.data_dir = root / "data"
        self.port = 0
        """Where to serve at the next start; 0 for any free port."""
        self._channel: grpc.Channel | None = None

    @property
    def arguments(self) -> Sequence[str | Path]:
        ports = ("--port", str(self.port), "--health-port", "0")
        return ["all", "--data-dir", self.data_dir, *ports]

    def part(self, service: str) -> ServerProcess:
        return self

    def database_url(self, service: str) -> str:
        return sqlite_url(self.data_dir / "db" / f"{service}.sqlite")

    @property
    def channel(self) -> grpc.Channel:
        """A channel to the server, one for each start."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.address)
        return self._channel

    @property
    def token_file(self) -> Path:
        return Path(self._ready["token_file"])

    @property
    def token_key(self) -> Path:
        return self.data_dir / "keys" / "authorization.pem"

    @property
    def client_environment(self) -> Mapping[str, str]:
        return {"GRIDLANE_ADDRESS": self.address, "BEARER_TOKEN_FILE": str(self.token_file)}

    def disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def eventually(holds: Callable[[], Any], within_s: float = CALL_SECONDS) -> Any:
    """Waits until something holds that nothing tells of; returns it."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)
    return found


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


@contextmanager
def lent(server: Deployment) -> Iterator[None]:
    """Lends a shared server to a test: started when another one ended it; tells what it wrote."""
    if not server.alive:
        server.start()
    written = len(server.output)
    yield
    print(server.output[written:])
